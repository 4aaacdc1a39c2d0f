//! An actor that counts, fails in every way there is, and tells a log of its life.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should panic")]

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix::{Actor, ActorContext, AtomicResponse, Context, Handler, Message, Running, WrapFuture};
use supervision::{ActorRef, Backoff, ChildSpec, Intensity, Lifeline, Strategy, Supervisor};

pub const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order: `+a` started, `-a` stopped as planned.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// All lines so far; the log is empty afterwards.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub struct Counter {
    name: String,
    count: u32,
    log: Log,
    lifeline: Lifeline,
    is_stubborn: bool,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.log.add(format!("+{}", self.name));
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if self.is_stubborn { Running::Continue } else { Running::Stop }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.log.add(format!("-{}", self.name));
    }
}

supervision::supervised!(Counter);

/// Answers how often it was asked, by this instance.
#[derive(Message)]
#[rtype(result = "u32")]
pub struct Count;

/// Answers after a time, and holds the mailbox meanwhile.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rest(pub Duration);

#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

#[derive(Message)]
#[rtype(result = "()")]
pub struct Fail;

/// End of your own will.
#[derive(Message)]
#[rtype(result = "()")]
pub struct End;

/// From now on do not stop when told to.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BeStubborn;

/// Which thread do you live on?
#[derive(Message)]
#[rtype(result = "String")]
pub struct WhichThread;

impl Handler<Count> for Counter {
    type Result = u32;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> u32 {
        self.count += 1;
        self.count
    }
}

impl Handler<Rest> for Counter {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Rest(time): Rest, _: &mut Self::Context) -> Self::Result {
        AtomicResponse::new(Box::pin(tokio::time::sleep(time).into_actor(self)))
    }
}

impl Handler<Panic> for Counter {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("told to")
    }
}

impl Handler<Fail> for Counter {
    type Result = ();

    fn handle(&mut self, _: Fail, ctx: &mut Self::Context) {
        self.lifeline.clone().fail(ctx, "disk full")
    }
}

impl Handler<End> for Counter {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<BeStubborn> for Counter {
    type Result = ();

    fn handle(&mut self, _: BeStubborn, _: &mut Self::Context) {
        self.is_stubborn = true;
    }
}

/// Blocks the thread until the sender of this is dropped or says something.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Block(pub std::sync::mpsc::Receiver<()>);

impl Handler<Block> for Counter {
    type Result = ();

    fn handle(&mut self, Block(until): Block, _: &mut Self::Context) {
        let _ = until.recv();
    }
}

impl Handler<WhichThread> for Counter {
    type Result = String;

    fn handle(&mut self, _: WhichThread, _: &mut Self::Context) -> String {
        format!("{:?}", std::thread::current().id())
    }
}

impl Counter {
    pub fn new(name: &str, log: &Log, lifeline: Lifeline) -> Self {
        let (name, log) = (name.to_owned(), log.clone());
        Self { name, count: 0, log, lifeline, is_stubborn: false }
    }
}

/// A counter that may have 4 messages waiting and answers within 30 s.
pub fn counter(name: impl Into<Cow<'static, str>>, log: &Log) -> (ChildSpec, ActorRef<Counter>) {
    let (name, log) = (name.into(), log.clone());
    let make = {
        let name = name.clone();
        move |lifeline| Counter::new(&name, &log, lifeline)
    };
    ChildSpec::actor(name, 4, 30 * SECOND, make)
}

/// A supervisor that allows 2 restarts a minute and waits 1, 2, … s before each.
pub fn supervisor(name: &'static str, strategy: Strategy) -> Supervisor {
    let backoff = Backoff { min: SECOND, max: 8 * SECOND };
    Supervisor::new(name, strategy, Intensity::a_minute(2), backoff)
}

/// Runs a test on one thread, with a clock that jumps to the next timer when nothing else is due.
pub fn virtual_time<F: Future<Output = ()>>(test: F) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    actix::System::with_tokio_rt(runtime).block_on(test);
}

/// Runs a test in real time, for what lives on threads of its own.
pub fn real_time<F: Future<Output = ()>>(test: F) {
    actix::System::new().block_on(test);
}
