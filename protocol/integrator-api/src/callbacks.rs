//! Runs callbacks: each on a thread of its own, a repeat never twice.
use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use protocol::socket::{Callback, CallbackAnswer, CallbackError, CallbackRequest, Frame};

use crate::{client::Shared, handler::Handler, lock};

/// Callbacks under way; the proxy has five over all its integrators.
const RUNNING_MAX: usize = 8;
/// Answers kept for repeats.
const DONE_MAX: usize = 256;

type Answer = Result<CallbackAnswer, CallbackError>;

/// A request on a connection.
#[derive(Clone, Copy)]
struct Asked {
    generation: u64,
    id: u32,
}

enum Act {
    /// Under way; all who asked get the answer.
    Running(Vec<Asked>),
    Done(Answer),
}

/// What was asked before: act once, answer each time.
#[derive(Default)]
pub(crate) struct Once {
    acts: HashMap<String, Act>,
    order: VecDeque<String>,
    running: usize,
}

/// What to do with a request.
enum Next {
    Run,
    Wait,
    Answer(Answer),
}

impl Once {
    fn begin(&mut self, key: Option<&str>, asked: Asked) -> Next {
        if let Some(act) = key.and_then(|key| self.acts.get_mut(key)) {
            return match act {
                Act::Running(all) => {
                    all.push(asked);
                    Next::Wait
                }
                Act::Done(answer) => Next::Answer(answer.clone()),
            };
        }
        if self.running >= RUNNING_MAX {
            let detail = format!("{RUNNING_MAX} callbacks are under way");
            return Next::Answer(Err(CallbackError::Failed(detail)));
        }
        self.running += 1;
        if let Some(key) = key {
            self.acts.insert(key.to_owned(), Act::Running(Vec::new()));
        }
        Next::Run
    }

    /// Keeps the answer; gives back who else waits for it.
    fn end(&mut self, key: Option<String>, answer: &Answer) -> Vec<Asked> {
        self.running -= 1;
        let Some(key) = key else { return Vec::new() };
        self.order.push_back(key.clone());
        if self.order.len() > DONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.acts.remove(&oldest);
        }
        match self.acts.insert(key, Act::Done(answer.clone())) {
            Some(Act::Running(all)) => all,
            _ => Vec::new(),
        }
    }
}

/// Takes a request of the proxy.
pub(crate) fn take(shared: &Arc<Shared>, generation: u64, id: u32, method: &str, params: &[u8]) {
    let asked = Asked { generation, id };
    let takes = shared.options.handler.callbacks();
    if !method.parse().is_ok_and(|callback: Callback| takes.contains(&callback)) {
        let detail = format!("no {method} callback");
        return answer(shared, asked, &Err(CallbackError::NotSupported(detail)));
    }
    let request = match CallbackRequest::read(method, params) {
        Ok(request) => request,
        Err(error) => return answer(shared, asked, &Err(error)),
    };
    let key = request.once();
    let next = lock(&shared.once).begin(key.as_deref(), asked);
    match next {
        Next::Wait => {}
        Next::Answer(ready) => answer(shared, asked, &ready),
        Next::Run => {
            let on_thread = shared.clone();
            let again = key.clone();
            let run = move || {
                let handler = on_thread.options.handler.clone();
                let run = AssertUnwindSafe(|| run(&*handler, request));
                let panicked = |_| Err(CallbackError::Failed("the callback panicked".to_owned()));
                finish(&on_thread, key, asked, catch_unwind(run).unwrap_or_else(panicked));
            };
            if let Err(error) = thread::Builder::new().name("callback".into()).spawn(run) {
                let error = Err(CallbackError::Failed(format!("no thread: {error}")));
                finish(shared, again, asked, error);
            }
        }
    }
}

fn finish(shared: &Shared, key: Option<String>, asked: Asked, result: Answer) {
    let others = lock(&shared.once).end(key, &result);
    for asked in others.into_iter().chain([asked]) {
        answer(shared, asked, &result);
    }
}

fn run(handler: &dyn Handler, request: CallbackRequest) -> Answer {
    Ok(match request {
        CallbackRequest::Status(r) => CallbackAnswer::Status(handler.status(r)?),
        CallbackRequest::Action(r) => CallbackAnswer::Done { status: handler.action(r)? },
        CallbackRequest::Update(r) => {
            handler.update(r)?;
            CallbackAnswer::Taken
        }
        CallbackRequest::Capabilities(r) => {
            CallbackAnswer::Done { status: handler.capabilities(r)? }
        }
    })
}

/// Answers, where the connection still is the one that asked.
fn answer(shared: &Shared, asked: Asked, result: &Answer) {
    let frame = match result {
        Ok(answer) => Frame::result(asked.id, answer.map()),
        Err(error) => Frame::error(asked.id, error.map()),
    };
    let mut state = lock(&shared.state);
    if state.connection.as_ref().is_some_and(|c| c.generation == asked.generation) {
        // At most RUNNING_MAX and their repeats: the proxy waits for each.
        state.outgoing.push_back(frame);
        shared.changed(&state);
    }
}
