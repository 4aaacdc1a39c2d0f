//! One connection as the client sees it: what is unanswered, which instances are registered.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use protocol::{
    limits::WINDOW,
    socket::{Call, CallError, Frame, HelloAnswer, InstanceCall},
};

use crate::{entry::Entry, report::Report};

/// Instances whose registration on this connection is remembered; more start anew.
const INSTANCES_MAX: usize = 65_536;

/// How far an instance is on this connection.
pub(crate) enum Known {
    /// Asked for; its messages may follow at once, the proxy keeps the order.
    Asked,
    /// Registered.
    Yes,
    /// Refused, and why.
    No(CallError),
}

/// What a request on the wire was for.
pub(crate) enum Purpose {
    Call(Box<Entry>),
    Register(String),
    Bye,
}

pub(crate) struct Sent {
    pub(crate) purpose: Purpose,
    pub(crate) at: Instant,
}

/// The connection as it is now.
pub(crate) struct Connection {
    pub(crate) generation: u64,
    pub(crate) answer: HelloAnswer,
    pub(crate) dead: bool,
    next_id: u32,
    pub(crate) sent: BTreeMap<u32, Sent>,
    /// Numbers that are unanswered.
    pub(crate) numbers: BTreeSet<u64>,
    pub(crate) instances: HashMap<String, Known>,
    pub(crate) said_bye: bool,
    pub(crate) bye_answered: bool,
    pub(crate) report: Report,
}

impl Connection {
    /// A connection whose hello was answered.
    pub(crate) fn new(generation: u64, answer: HelloAnswer) -> Self {
        Self {
            generation,
            answer,
            dead: false,
            next_id: 2,
            sent: BTreeMap::new(),
            numbers: BTreeSet::new(),
            instances: HashMap::new(),
            said_bye: false,
            bye_answered: false,
            report: Report::default(),
        }
    }

    pub(crate) fn calls_sent(&self) -> impl Iterator<Item = &Entry> {
        self.sent.values().filter_map(|sent| match &sent.purpose {
            Purpose::Call(entry) => Some(&**entry),
            _ => None,
        })
    }

    fn window(&self) -> usize {
        WINDOW.min(self.answer.window as usize)
    }

    /// Whether one call more, and the registration it may need, are within the window, and its
    /// number is not the window ahead of the oldest unanswered.
    pub(crate) fn may_send(&self, number: Option<u64>) -> bool {
        let oldest = self.numbers.first().copied();
        let ahead = number.zip(oldest).is_some_and(|(n, o)| n >= o + self.window() as u64);
        let room = self.sent.is_empty() || self.sent.len() + 2 <= self.window();
        room && !ahead
    }

    pub(crate) fn next_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(2);
        id
    }

    pub(crate) fn write(&mut self, mut entry: Entry, at: Instant, out: &mut Vec<u8>) {
        if entry.is_message()
            && let Some(instance) = entry.call.instance()
            && !self.instances.contains_key(instance)
        {
            self.register(instance.to_owned(), at, out);
        }
        if let Some(seq) = entry.seq {
            entry.call.set_seq(seq);
            self.numbers.insert(seq);
        }
        if let Call::Remove(remove) = &entry.call {
            self.instances.remove(&remove.instance);
        }
        let id = self.next_id();
        out.extend(Frame::request(id, entry.call.method(), entry.call.map()));
        self.sent.insert(id, Sent { purpose: Purpose::Call(Box::new(entry)), at });
    }

    fn register(&mut self, instance: String, at: Instant, out: &mut Vec<u8>) {
        if self.instances.len() >= INSTANCES_MAX {
            self.instances.clear();
        }
        let id = self.next_id();
        let call = InstanceCall { instance: instance.clone(), capabilities: None };
        out.extend(Frame::request(id, "instance", Call::Instance(call).map()));
        self.instances.insert(instance.clone(), Known::Asked);
        self.sent.insert(id, Sent { purpose: Purpose::Register(instance), at });
    }

    /// Which instances an accepted call made known.
    pub(crate) fn learn(&mut self, call: &Call) {
        match call {
            Call::Instance(c) => {
                self.instances.insert(c.instance.clone(), Known::Yes);
            }
            Call::Instances(c) if self.instances.len() + c.instances.len() < INSTANCES_MAX => {
                let known = c.instances.iter().map(|name| (name.clone(), Known::Yes));
                self.instances.extend(known);
            }
            _ => {}
        }
    }
}
