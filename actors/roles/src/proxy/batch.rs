//! What is to be done with calls that arrived together: one commit, an answer for each.
//!
//! The plan reads what is known of instances and the stream, and asks for nothing: what it wants
//! on disk it says, and [`Batch::answers`] turns what became of that into answers.
use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use extension::storage::{Change, StoreError};
use protocol::{
    Refusal, RemoteId,
    message::Unnumbered,
    registration::InstanceRegistration,
    socket::{Call, CallAnswer, CallError, Outcome, Registered, is_integration_module},
};

use super::{
    consent::Consent,
    identifiers::{Identifiers, Instance, NoNumber, key_of},
    normalize::Integrator,
    once::{self, Claim, Claims, Once},
    streams::{Seen, Stream},
};
use crate::delivery::{author::Author, orders::Kept};

/// Capabilities of instances that wait for registration. Key as in the table of instances.
pub const CAPABILITIES: &str = "instance-capabilities";
/// After so long a refused call is worth trying again, ms.
const TRY_AGAIN_MS: u64 = 1_000;

/// Whose calls they are, and how things stand.
pub struct Desk<'a> {
    /// Writes the messages.
    pub author: &'a Author,
    /// Knows the numbers.
    pub identifiers: &'a Identifiers,
    /// The customer's word.
    pub consent: &'a dyn Consent,
    /// How far registration has got.
    pub state: Registered,
    /// Whose calls.
    pub integrator: &'a Integrator,
    /// Its number.
    pub number: u32,
    /// Its stream.
    pub stream: Option<&'a Stream>,
    /// Calls that said what tells them from all others.
    pub once: &'a Arc<Once>,
    /// Largest message, bytes; none: the protocol's own bound.
    pub bytes_per_message: Option<usize>,
}

/// How a call will be answered.
enum Planned {
    /// So, whatever happens.
    Now(Result<CallAnswer, CallError>),
    /// By what becomes of the message at that position.
    Message(usize),
    /// So, once the commit is done and the message at that position, if any, is kept.
    Then(CallAnswer, Option<usize>),
    /// As a repeat of the call at that position of the batch.
    RepeatOf(usize),
}

/// What is to be committed, and what follows.
#[derive(Default)]
pub struct Batch {
    /// In order.
    pub messages: Vec<Unnumbered>,
    /// Made in any case.
    pub changes: Vec<Change>,
    /// Made where the message at that position is kept.
    pub each: Vec<(usize, Change)>,
    /// Accepted and not stored (PRX-13).
    pub dropped: u64,
    planned: Vec<Planned>,
    instances: Vec<(Option<usize>, String, Instance)>,
    removed: Vec<(Option<usize>, String)>,
    seqs: Vec<(usize, u64, usize)>,
    /// The highest of them.
    newest: Option<u64>,
    /// Keys of messages.
    claims: Option<Claims>,
    /// Numbers of calls that repeat what is stored, or the message at that position.
    repeats: Vec<(Option<usize>, u64)>,
    registered_now: HashSet<String>,
}

impl Batch {
    /// Plans calls from the front; those that need what this batch does first are left.
    pub fn plan(desk: &Desk<'_>, calls: &mut std::vec::IntoIter<Call>) -> Self {
        let mut batch = Self::default();
        while let Some(call) = calls.as_slice().first() {
            let name = call.instance();
            if batch.removed.iter().any(|(_, removed)| Some(removed.as_str()) == name) {
                break;
            }
            let Some(call) = calls.next() else { break };
            let planned = batch.plan_call(desk, call);
            let planned = planned.unwrap_or_else(|refused| Planned::Now(Err(refused)));
            batch.planned.push(planned);
        }
        batch
    }

    /// Positions of messages, and their numbers in the stream.
    pub fn numbers(&self) -> Vec<(usize, u64)> {
        self.seqs.iter().map(|(at, seq, _)| (*at, *seq)).collect()
    }

    /// Whether anything is to be committed.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.changes.is_empty()
    }

    fn plan_call(&mut self, desk: &Desk<'_>, call: Call) -> Result<Planned, CallError> {
        if let (Some(stream), Some(seq)) = (desk.stream, call.seq()) {
            // Numbers grow; only one that does not may be a repeat of a call before it.
            if self.newest.is_some_and(|newest| seq <= newest)
                && let Some((.., at)) = self.seqs.iter().find(|(_, known, _)| *known == seq)
            {
                return Ok(Planned::RepeatOf(*at));
            }
            let duplicate = CallAnswer::Message { outcome: Outcome::Duplicate, message_id: None };
            match stream.seen(seq) {
                Seen::New => {}
                Seen::Before => return Ok(Planned::Now(Ok(duplicate))),
                Seen::Forgotten => {
                    let detail = "seq is more than 1,024 behind the newest: number each call once, \
                        and do not run ahead of the oldest that is unanswered";
                    return Err(CallError::malformed(detail));
                }
            }
        }
        call.check_time(desk.author.now())?;
        match call {
            Call::Instance(c) => self.plan_instance(desk, &c.instance, c.capabilities),
            Call::Instances(c) => self.plan_instances(desk, &c.instances),
            Call::Remove(c) => self.plan_remove(desk, &c.instance),
            call => self.plan_message(desk, call),
        }
    }

    fn plan_message(&mut self, desk: &Desk<'_>, mut call: Call) -> Result<Planned, CallError> {
        match desk.state {
            Registered::Registering => {
                self.dropped += 1;
                let dropped = CallAnswer::Message { outcome: Outcome::Dropped, message_id: None };
                return Ok(Planned::Now(Ok(dropped)));
            }
            Registered::ProxyRegistered => return Err(not_registered(desk)),
            Registered::Registered => {}
        }
        let name = call.take_instance();
        let instance = match is_integration_module(&name) {
            true => None,
            false => Some(self.known(desk, &name)?),
        };
        let (class, subclass) = match &call {
            Call::Data(c) => (call.method(), c.class.as_str()),
            _ => (call.method(), ""),
        };
        if !desk.consent.may_send(class, subclass, &name) {
            let detail = format!("the customer's policy does not allow {class} of {name:?}");
            return Err(CallError::new(Refusal::Denied, detail));
        }
        let (seq, once) = (call.seq(), call.once());
        let once = once.map(|key| once::key_of(desk.number, class, &name, key));
        let about = instance.map(|i| (desk.instance_id(i.number), name.as_str()));
        let Some((draft, service)) = desk.integrator.normalize(call, about) else {
            return Err(CallError::new(Refusal::Internal, "call sends nothing"));
        };
        let message = desk.author.write(&draft, &service);
        if let Some(most) = desk.bytes_per_message.filter(|most| message.bytes.len() > *most) {
            let size = message.bytes.len();
            let detail = format!("the message has {size} bytes; the throttle lets {most} through");
            return Err(CallError::too_large(detail));
        }
        let mut row = None;
        if let Some(key) = once {
            match self.claim(desk, &key, seq)? {
                Ok(new) => row = Some((new, key)),
                Err(repeat) => return Ok(repeat),
            }
        }
        if let Some(instance) = instance
            && instance.under != Some(desk.node())
            && !self.registered_now.contains(&name)
        {
            self.register(desk, vec![(name, instance, None)]);
        }
        let at = self.messages.len();
        self.messages.push(message);
        if let (Some((row, key)), Some(claims)) = (row, &mut self.claims) {
            self.each.push((at, claims.add(at, row, key)));
        }
        if let (Some(_), Some(seq)) = (desk.stream, seq) {
            self.newest = self.newest.max(Some(seq));
            self.seqs.push((at, seq, self.planned.len()));
        }
        Ok(Planned::Message(at))
    }

    /// Claims a key for the message that comes next; the row of the key, or what a repeat is
    /// answered. The number of a repeat is noted, too: it may come again when the key is forgotten.
    fn claim(
        &mut self,
        desk: &Desk<'_>,
        key: &Bytes,
        seq: Option<u64>,
    ) -> Result<Result<u64, Planned>, CallError> {
        let now = desk.author.now();
        let claims = self.claims.get_or_insert_with(|| Claims::new(desk.once, now));
        let (claim, old) = desk.once.claim(key, now).map_err(|e| unreadable(&e))?;
        let first = claims.position(key);
        let noted = desk.stream.zip(seq).map(|(stream, seq)| (stream.row(seq), seq));
        match (claim, first) {
            (Claim::New(row), _) => {
                self.changes.extend(old);
                return Ok(Ok(row));
            }
            (Claim::Underway, None) => {
                let detail = "the first call with this once is on its way to disk: send again";
                return Err(CallError::new(Refusal::Busy, detail).after(TRY_AGAIN_MS));
            }
            (Claim::Underway, Some(at)) => {
                self.each.extend(noted.clone().map(|(row, _)| (at, row)))
            }
            (Claim::Before, _) => self.changes.extend(noted.clone().map(|(row, _)| row)),
        }
        self.repeats.extend(noted.map(|(_, seq)| (first, seq)));
        let duplicate = CallAnswer::Message { outcome: Outcome::Duplicate, message_id: None };
        Ok(Err(Planned::Then(duplicate, first)))
    }

    fn known(&self, desk: &Desk<'_>, name: &str) -> Result<Instance, CallError> {
        let known = desk.identifiers.instance(desk.number, name).map_err(|e| unreadable(&e))?;
        known.ok_or_else(|| CallError::unknown_instance(name))
    }

    fn plan_instance(
        &mut self,
        desk: &Desk<'_>,
        name: &str,
        capabilities: Option<String>,
    ) -> Result<Planned, CallError> {
        if is_integration_module(name) {
            let instance_id = desk.integrator.id;
            return Ok(Planned::Now(Ok(CallAnswer::Instance { instance_id, known: true })));
        }
        let allotted = desk.identifiers.allot(desk.number, name).map_err(|e| no_number(&e))?;
        let (instance, known) = (allotted.value, allotted.known);
        let instance_id = desk.instance_id(instance.number);
        let answer = CallAnswer::Instance { instance_id, known };
        let is_new = !allotted.changes.is_empty() && !self.registered_now.contains(name);
        if desk.state != Registered::Registered {
            self.changes.extend(allotted.changes);
            self.changes.extend(capabilities.map(|c| Change::PutRow {
                table: CAPABILITIES,
                key: key_of(desk.number, name),
                value: c.into(),
            }));
            self.instances.push((None, name.to_owned(), instance));
            return Ok(Planned::Then(answer, None));
        }
        let changed = capabilities.as_deref().is_some_and(|c| instance.capabilities != digest(c));
        let unregistered =
            instance.under != Some(desk.node()) && !self.registered_now.contains(name);
        if !is_new && !changed && !unregistered {
            return Ok(Planned::Then(answer, None));
        }
        self.changes.extend(allotted.changes);
        let at = self.register(desk, vec![(name.to_owned(), instance, capabilities)]);
        Ok(Planned::Then(answer, Some(at)))
    }

    /// One message that holds only those not registered before (PRX-31).
    fn plan_instances(&mut self, desk: &Desk<'_>, names: &[String]) -> Result<Planned, CallError> {
        let (mut new, mut known) = (0, 0);
        let mut register = Vec::new();
        let mut listed = HashSet::new();
        for name in names {
            if is_integration_module(name) || !listed.insert(name) {
                known += 1;
                continue;
            }
            let allotted = desk.identifiers.allot(desk.number, name).map_err(|e| no_number(&e))?;
            match allotted.known {
                true => known += 1,
                false => new += 1,
            }
            self.changes.extend(allotted.changes);
            let instance = allotted.value;
            if desk.state != Registered::Registered {
                self.instances.push((None, name.clone(), instance));
            } else if instance.under != Some(desk.node()) && !self.registered_now.contains(name) {
                register.push((name.clone(), instance, None));
            }
        }
        let answer = CallAnswer::Instances { new, known };
        if register.is_empty() {
            return Ok(Planned::Then(answer, None));
        }
        let at = self.register(desk, register);
        Ok(Planned::Then(answer, Some(at)))
    }

    /// Adds a registration; the rows say it is one only where its message is kept.
    fn register(
        &mut self,
        desk: &Desk<'_>,
        instances: Vec<(String, Instance, Option<String>)>,
    ) -> usize {
        let at = self.messages.len();
        let mut registrations = Vec::with_capacity(instances.len());
        for (name, instance, capabilities) in instances {
            let digest = capabilities.as_deref().map(digest);
            let instance = Instance {
                under: Some(desk.node()),
                capabilities: digest.unwrap_or(instance.capabilities),
                ..instance
            };
            registrations.push(InstanceRegistration {
                id: desk.instance_id(instance.number),
                external_id: name.clone(),
                capabilities,
            });
            self.each.push((at, instance.row(desk.number, &name)));
            self.registered_now.insert(name.clone());
            self.instances.push((Some(at), name, instance));
        }
        let (draft, service) = desk.integrator.registration(registrations);
        self.messages.push(desk.author.write(&draft, &service));
        at
    }

    fn plan_remove(&mut self, desk: &Desk<'_>, name: &str) -> Result<Planned, CallError> {
        if is_integration_module(name) {
            let detail = "IntegrationModule is the integrator itself; only instances are removed";
            return Err(CallError::malformed(detail));
        }
        let instance = self.known(desk, name)?;
        let registered = instance.under.is_some() || self.registered_now.contains(name);
        if registered && desk.state != Registered::Registered {
            return Err(not_registered(desk));
        }
        let changes = Identifiers::removal(desk.number, name, &instance);
        let at = registered.then(|| {
            let id = desk.instance_id(instance.number);
            let (draft, service) = desk.integrator.removal(id, name);
            self.messages.push(desk.author.write(&draft, &service));
            self.messages.len() - 1
        });
        match at {
            Some(at) => self.each.extend(changes.into_iter().map(|change| (at, change))),
            None => self.changes.extend(changes),
        }
        let key = key_of(desk.number, name);
        self.changes.push(Change::RemoveRow { table: CAPABILITIES, key });
        self.removed.push((at, name.to_owned()));
        Ok(Planned::Then(CallAnswer::Done, at))
    }

    /// Answers by what became of the messages; tells the tables of numbers what is on disk now.
    /// `Err`: nothing of the batch was committed.
    pub fn answers(
        self,
        identifiers: &Identifiers,
        number: u32,
        kept: &Result<Vec<Result<Kept, Refusal>>, Refusal>,
    ) -> Answers {
        let of = |at: Option<usize>| -> Result<Option<Kept>, CallError> {
            let kept = kept.as_ref().map_err(|refusal| refused(*refusal))?;
            let Some(at) = at else { return Ok(None) };
            match kept.get(at) {
                Some(Ok(kept)) => Ok(Some(*kept)),
                Some(Err(refusal)) => Err(refused(*refusal)),
                None => Err(refused(Refusal::Internal)),
            }
        };
        for (at, name, instance) in self.instances {
            if of(at).is_ok() {
                identifiers.committed(number, &name, instance);
            }
        }
        for (_, name) in self.removed.into_iter().filter(|(at, _)| of(*at).is_ok()) {
            identifiers.removed(number, &name);
        }
        let seqs = self.seqs.into_iter().filter(|(at, ..)| of(Some(*at)).is_ok());
        let stored = seqs.map(|(_, seq, _)| seq).collect();
        let repeats = self.repeats.into_iter().filter(|(at, _)| of(*at).is_ok());
        let repeated = repeats.map(|(_, seq)| seq).collect();
        if let Some(claims) = self.claims {
            claims.settle(|at| of(Some(at)).is_ok());
        }
        let mut results: Vec<Result<CallAnswer, CallError>> = Vec::new();
        for planned in self.planned {
            let result = match planned {
                Planned::Now(result) => result,
                Planned::Then(answer, at) => of(at).map(|_| answer),
                Planned::Message(at) => of(Some(at)).map(message_answer),
                Planned::RepeatOf(at) => match results.get(at) {
                    Some(Ok(_)) => {
                        Ok(CallAnswer::Message { outcome: Outcome::Duplicate, message_id: None })
                    }
                    Some(Err(error)) => Err(error.clone()),
                    None => Err(refused(Refusal::Internal)),
                },
            };
            results.push(result);
        }
        Answers { results, stored, repeated }
    }
}

/// What calls are answered.
pub struct Answers {
    /// One a call, in order.
    pub results: Vec<Result<CallAnswer, CallError>>,
    /// Numbers in the stream whose rows are on disk now.
    pub stored: Vec<u64>,
    /// Numbers of repeats, each in a row of its own.
    pub repeated: Vec<u64>,
}

impl Desk<'_> {
    fn node(&self) -> RemoteId {
        self.author.identity().id
    }

    fn instance_id(&self, number: u32) -> RemoteId {
        self.integrator.id.child(number).unwrap_or(self.integrator.id)
    }
}

fn message_answer(kept: Option<Kept>) -> CallAnswer {
    let (outcome, message_id) = match kept {
        Some(Kept::Stored(id)) => (Outcome::Stored, Some(id)),
        Some(Kept::Evicted(id)) => (Outcome::Evicted, Some(id)),
        None => (Outcome::Stored, None),
    };
    CallAnswer::Message { outcome, message_id }
}

/// The answer to a call whose message was refused.
pub fn refused(refusal: Refusal) -> CallError {
    let detail = match refusal {
        Refusal::QueueFull => "the proxy's queue is full: send again when its parent takes more",
        Refusal::StorageDown => "the proxy's disk takes nothing now: see its health",
        Refusal::Busy => "the proxy has too much in hand: send again",
        Refusal::Stopping => "the proxy is going down: send again when it is back",
        _ => "the proxy could not store it: see its log",
    };
    CallError::new(refusal, detail).after(TRY_AGAIN_MS)
}

fn not_registered(desk: &Desk<'_>) -> CallError {
    let name = &desk.integrator.name;
    let detail = format!("integrator {name:?} is not acknowledged by the provider yet: try again");
    CallError::new(Refusal::NotRegistered, detail).after(TRY_AGAIN_MS)
}

fn unreadable(error: &StoreError) -> CallError {
    CallError::new(Refusal::StorageDown, error.to_string()).after(TRY_AGAIN_MS)
}

fn no_number(error: &NoNumber) -> CallError {
    match error {
        NoNumber::Store(error) => unreadable(error),
        NoNumber::Exhausted => CallError::new(Refusal::Busy, error.to_string()).after(TRY_AGAIN_MS),
    }
}

/// FNV-1a, 64 bits: tells one capabilities document of an instance from its next; never 0.
pub fn digest(text: &str) -> u64 {
    let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, fold).max(1)
}
