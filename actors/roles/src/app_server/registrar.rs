//! Answers registrations, and raises the alarms of the records themselves: unknown customers,
//! names with another store, cloned machines, gaps, proxies that reject newcomers.
use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use extension::{
    service::{
        Carrier, Effect, Manifest, Part, Received, Rows, ServiceError, ServiceModule, Subscription,
    },
    storage::{Change, QueueStore},
};
use protocol::{
    MessageId, Precedence, Refusal,
    message::Classification,
    parts::ServiceParts,
    registration::{Registration, RegistrationAnswer},
    run::RunHeader,
    service::{Alarm, Payload, Service, Severity, State},
};

use super::{
    newcomers::{self, Look, Rejecting},
    overlay::Overlay,
    reconcile,
    rows::{ALLOTMENTS, Allotment, SERVICES, allotment_key, from_row, service_key, to_row},
    service_work::{Who, identity_of},
};

/// Its name among the service modules.
pub const REGISTRAR: &str = "registrar";
/// Key of a conflict: `c` and the message's id.
const CONFLICT: u8 = b'c';
/// Key of a gap that was told: `g` and stream, first, last in words.
const GAP: u8 = b'g';
/// Key of a proxy that rejected newcomers: `n` and its id.
const NEWCOMERS: u8 = b'n';
/// An answer is of no use to a node that has asked again: a day.
const ANSWER_LIFE_S: u32 = 24 * 3600;
/// Conflicts and gaps told in one tick; the rest waits for the next.
const TOLD_PER_TICK_MAX: usize = 100;
/// Time between two looks for gaps, and the age at which a hole is one, ms.
const LOOK_MS: i64 = 30_000;
/// Time between two looks for proxies that reject newcomers, ms: that of a heartbeat or two.
const LOOK_AT_PROXIES_MS: i64 = 10_000;

/// The module.
pub struct Registrar {
    store: Arc<dyn QueueStore>,
    own: Who,
    looked_at: i64,
    looked_at_proxies: i64,
    /// Holes of the last look: what is still there at the next is a gap.
    holes: BTreeMap<String, String>,
}

impl Registrar {
    /// Reads the directory in `store`; `own` is who the server is.
    pub fn new(store: Arc<dyn QueueStore>, own: Who) -> Self {
        Self { store, own, looked_at: 0, looked_at_proxies: 0, holes: BTreeMap::new() }
    }

    fn answer(
        &self,
        received: &Received<'_>,
        said: &Registration,
    ) -> Result<Vec<Effect>, ServiceError> {
        let header = &received.message.header;
        let origin = header.id.origin;
        let send = |id, refusal: &str| Effect::Send {
            to: origin,
            service: Service::RegistrationAnswer(RegistrationAnswer {
                id,
                refusal: refusal.to_owned(),
            }),
            answers: Some(header.id),
            time_to_live_s: ANSWER_LIFE_S,
        };
        let Registration::Node { name, nonce, .. } = said else {
            let id =
                if let Registration::Integrator { id, .. } = said { *id } else { header.source };
            return Ok(vec![send(id, "")]);
        };
        let customer = origin.customer_id();
        let key = allotment_key(customer, *nonce, name);
        let row = self.store.row(ALLOTMENTS, &key).map_err(|e| ServiceError(e.to_string()))?;
        let Some(allotment) = row.and_then(|r| from_row::<Allotment>(&r)) else {
            let text = format!("node {name} registers for customer {customer}, whom nobody knows");
            return Ok(vec![
                send(origin, Refusal::NotRegistered.name()),
                raise("unknown_customer", &customer.to_string(), Severity::Major, text),
            ]);
        };
        let id = origin.cut(0).child(allotment.number).unwrap_or(origin);
        let mut effects = vec![send(id, "")];
        if let Some(old) = allotment.replaced {
            let text = format!("node {name} came with a new store: it is {id} now, and was {old}");
            effects.push(raise("node_replaced", &id.to_string(), Severity::Warning, text));
        }
        Ok(effects)
    }

    /// Tells holes that were there at the last look already, once each.
    fn gaps(&mut self, now: i64, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        // A clock that was set back does not put the next look off.
        if (0..LOOK_MS).contains(&(now - self.looked_at)) {
            return Ok(Vec::new());
        }
        self.looked_at = now;
        let gaps = reconcile::all_gaps(&*self.store, &identity_of(&self.own).id);
        let gaps = gaps.map_err(|e| ServiceError(e.to_string()))?;
        let mut holes = BTreeMap::new();
        let mut effects = Vec::new();
        for gap in gaps {
            let stream = format!("{}:{}:{}", gap.origin, gap.epoch, gap.precedence.letter());
            let name = format!("{stream}:{}", gap.first);
            let text = format!("messages {stream} {} to {} are missing", gap.first, gap.last);
            let key = [&[GAP], name.as_bytes()].concat();
            let lasts = self.holes.contains_key(&name) && effects.len() < 2 * TOLD_PER_TICK_MAX;
            if lasts && rows.row(&key)?.is_none() {
                effects.push(raise("gap", &name, Severity::Major, text.clone()));
                effects.push(Effect::Put { key: key.into(), value: text.clone().into() });
            }
            holes.insert(name, text);
        }
        // What was told and is filled since is closed.
        for (key, _) in rows.rows(&[GAP], 2 * TOLD_PER_TICK_MAX)? {
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
            if !holes.contains_key(&name) && !self.holes.contains_key(&name) {
                let text = format!("messages {name} came or were explained");
                effects.push(alarm("gap", &name, Severity::Major, text, State::Closed));
                effects.push(Effect::Remove { key });
            }
        }
        self.holes = holes;
        Ok(effects)
    }

    /// Tells which proxies reject newcomers, and which do so no more (QUE-15).
    fn newcomers(&mut self, now: i64, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        if (0..LOOK_AT_PROXIES_MS).contains(&(now - self.looked_at_proxies)) {
            return Ok(Vec::new());
        }
        self.looked_at_proxies = now;
        let proxies = newcomers::proxies(&*self.store).map_err(|e| ServiceError(e.to_string()))?;
        let mut effects = Vec::new();
        for (beat, rejected) in proxies {
            let id = beat.node.to_string();
            let key = Bytes::from([&[NEWCOMERS], id.as_bytes()].concat());
            let known: Option<Rejecting> = rows.row(&key)?.and_then(|row| from_row(&row));
            let told = |state, said: String| {
                let text = format!("{} rejects {said}", beat.name);
                let kind = Refusal::QueueFull.name();
                alarm_about(&beat.name, kind, &id, Severity::Major, text, state)
            };
            let note = match newcomers::look(known, rejected, beat.at) {
                Look::Same => continue,
                Look::Note(note) => note,
                Look::Open(note) => {
                    let said = format!("new messages, {rejected} so far: its queue is full");
                    effects.push(told(State::Opened, said));
                    note
                }
                Look::Close(note) => {
                    let said = format!("no more new messages, {rejected} so far");
                    effects.push(told(State::Closed, said));
                    note
                }
            };
            effects.push(Effect::Put { key, value: to_row(&note) });
            if effects.len() >= 2 * TOLD_PER_TICK_MAX {
                break;
            }
        }
        Ok(effects)
    }
}

impl ServiceModule for Registrar {
    fn manifest(&self) -> Manifest {
        Manifest {
            name: REGISTRAR.to_owned(),
            classification: Classification::InfrastructureAdministration,
            parts: vec![Part::AnalysisAndStorage],
            carriers: vec![Carrier::Http, Carrier::Mail],
            needs_session: false,
            subscriptions: vec![Subscription { class: "registration".to_owned(), subclass: None }],
        }
    }

    fn handle(
        &mut self,
        received: &Received<'_>,
        _: &dyn Rows,
    ) -> Result<Vec<Effect>, ServiceError> {
        match &received.message.service {
            ServiceParts::Other(service) => match &**service {
                Service::Registration(said) => self.answer(received, said),
                _ => Ok(Vec::new()),
            },
            _ => Ok(Vec::new()),
        }
    }

    fn tick(&mut self, now: i64, rows: &dyn Rows) -> Result<Vec<Effect>, ServiceError> {
        let mut effects = Vec::new();
        for (key, _) in rows.rows(&[CONFLICT], TOLD_PER_TICK_MAX)? {
            let id = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
            let text =
                format!("message {id} came twice and differs: a machine was cloned or rolled back");
            let stream = id.rsplit_once(':').map_or(&*id, |(stream, _)| stream);
            effects.push(raise("conflict", stream, Severity::Critical, text));
            effects.push(Effect::Remove { key });
        }
        effects.extend(self.gaps(now, rows)?);
        effects.extend(self.newcomers(now, rows)?);
        Ok(effects)
    }
}

/// Plans rows that the registrar makes alarms of; in the commit of the messages.
pub fn note_conflicts(overlay: &mut Overlay, run: &RunHeader, numbers: &[u64]) {
    for sequence in numbers {
        let id = MessageId {
            origin: run.origin,
            epoch: run.epoch,
            precedence: run.precedence,
            sequence: *sequence,
        };
        let key = [&[CONFLICT], id.to_string().as_bytes()].concat();
        let key = service_key(REGISTRAR, &key);
        overlay.push(Change::PutRow { table: SERVICES, key, value: Bytes::new() });
    }
}

fn raise(kind: &str, key: &str, severity: Severity, text: String) -> Effect {
    alarm(kind, key, severity, text, State::Opened)
}

fn alarm(kind: &str, key: &str, severity: Severity, text: String, state: State) -> Effect {
    alarm_about("", kind, key, severity, text, state)
}

/// An alarm that is shown as that of a node, which the server raises for it.
fn alarm_about(
    about: &str,
    kind: &str,
    key: &str,
    severity: Severity,
    mut text: String,
    state: State,
) -> Effect {
    text.truncate(text.floor_char_boundary(protocol::limits::TEXT_BYTES_MAX));
    Effect::Publish {
        service: Service::Alarm(Alarm {
            kind: kind.to_owned(),
            key: key.to_owned(),
            severity,
            text,
            state,
            close_after_s: None,
            payload: Payload::default(),
        }),
        subclass: String::new(),
        about: about.to_owned(),
        precedence: match severity {
            Severity::Critical | Severity::Fatal => Precedence::Urgent,
            _ => Precedence::Normal,
        },
    }
}
