//! Hands messages to a service module and gathers what it wants done. No actor, no commit.
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use extension::{
    service::{Effect, Received, ServiceError, ServiceModule, Subscription},
    storage::{Change, Place, QueueStore},
};
use protocol::{
    Header, Infrastructure, Message, MessageId, Precedence,
    codec::Writer,
    message::{Blocks, Channel, Classification, Destination, Persistence, SourceType, Unnumbered},
    run::Run,
    service::Service,
};

use super::{
    cursors::{Cursor, Piece},
    index::StoredRun,
    module_rows::ModuleRows,
    reel::Reel,
    rows::{POISON, poison_key, set_aside},
};
use crate::delivery::orders::Identity;

/// What a batch came to.
#[derive(Default)]
pub(crate) struct Done {
    /// Rows of the module.
    pub(crate) changes: Vec<Change>,
    /// Keys of rows that were put.
    pub(crate) put: Vec<Bytes>,
    /// Messages of the server's own.
    pub(crate) messages: Outbox,
    /// Behind what was handled.
    pub(crate) cursor: Cursor,
    /// The message that was not, and why.
    pub(crate) failed: Option<Failed>,
}

/// Messages of the server's own, those that stay here apart from those that go down: so the
/// numbers of each kind follow each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) published: Vec<Unnumbered>,
    pub(crate) sent: Vec<Unnumbered>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.sent.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Unnumbered> {
        self.published.iter().chain(&self.sent).cloned().collect()
    }
}

/// A message that the module could not handle.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) precedence: Precedence,
    pub(crate) seq: u64,
    pub(crate) reason: String,
}

/// A module with what is needed to hand messages to it.
pub(crate) struct Hands<'s> {
    pub(crate) store: &'s dyn QueueStore,
    pub(crate) name: &'s str,
    pub(crate) subscriptions: &'s [Subscription],
    pub(crate) identity: Identity,
    pub(crate) now: i64,
}

impl Hands<'_> {
    /// Hands over what `pieces` hold until a message fails. A panic of the module is a failure
    /// of the message in hand; the module is to be made anew then.
    pub(crate) fn over(
        &self,
        module: &mut dyn ServiceModule,
        mut cursor: Cursor,
        pieces: &[Piece],
    ) -> Done {
        let mut rows = ModuleRows::of(self.store, self.name);
        let mut messages = Outbox::default();
        let mut failed = None;
        for piece in pieces {
            let Some(reel) = &piece.reel else {
                tracing::error!(module = self.name, seq = piece.seq, "a stored run is damaged");
                cursor.pass(piece.precedence, piece.seq, piece.count);
                continue;
            };
            failed = self.over_reel(module, piece, reel, &mut rows, &mut messages);
            // What cannot be read to its end is passed all the same.
            let behind = failed.as_ref().map_or(piece.seq + piece.count, |failed| failed.seq);
            cursor.pass(piece.precedence, piece.seq, behind - piece.seq);
            if failed.is_some() {
                break;
            }
        }
        let (changes, put) = rows.into_changes();
        Done { changes, put, messages, cursor, failed }
    }

    /// Hands over what the module subscribed to of one run; the headers are read once for all.
    fn over_reel(
        &self,
        module: &mut dyn ServiceModule,
        piece: &Piece,
        reel: &Reel,
        rows: &mut ModuleRows<'_>,
        messages: &mut Outbox,
    ) -> Option<Failed> {
        let wanted: Vec<bool> = reel.kinds().iter().map(|(c, s)| self.listens_to(c, s)).collect();
        if !wanted.contains(&true) {
            return None;
        }
        for seq in piece.seq..piece.seq + piece.count {
            let at = (seq - reel.stored.position) as usize;
            if !reel.kind_at(at).is_some_and(|kind| wanted[kind]) {
                continue;
            }
            let Some((_, blocks)) = reel.message(at) else { continue };
            match self.hand(module, &reel.stored, seq, &blocks, rows) {
                Ok(effects) => self.gather(effects, rows, messages),
                Err(ServiceError(reason)) => {
                    return Some(Failed { precedence: piece.precedence, seq, reason });
                }
            }
        }
        None
    }

    fn listens_to(&self, class: &str, subclass: &str) -> bool {
        self.subscriptions.iter().any(|s| s.matches(class, subclass))
    }

    fn hand(
        &self,
        module: &mut dyn ServiceModule,
        stored: &StoredRun,
        seq: u64,
        blocks: &Blocks<'_>,
        rows: &ModuleRows<'_>,
    ) -> Result<Vec<Effect>, ServiceError> {
        let message = blocks.parts().map_err(|e| ServiceError(e.to_string()))?;
        let received = Received {
            seq,
            message,
            stored_at: stored.stored_at(),
            replayed: stored.run.header.replayed,
        };
        guarded(|| module.handle(&received, rows))
    }

    /// Lets the module do what time asks for.
    pub(crate) fn tick(&self, module: &mut dyn ServiceModule, cursor: Cursor) -> Done {
        let mut rows = ModuleRows::of(self.store, self.name);
        let mut messages = Outbox::default();
        let mut failed = None;
        match guarded(|| module.tick(self.now, &rows)) {
            Ok(effects) => self.gather(effects, &mut rows, &mut messages),
            Err(ServiceError(reason)) => {
                failed = Some(Failed { precedence: Precedence::Normal, seq: 0, reason });
            }
        }
        let (changes, put) = rows.into_changes();
        Done { changes, put, messages, cursor, failed }
    }

    /// Turns effects into rows and messages.
    pub(crate) fn gather(
        &self,
        effects: Vec<Effect>,
        rows: &mut ModuleRows<'_>,
        messages: &mut Outbox,
    ) {
        for effect in effects {
            match effect {
                Effect::Put { key, value } => rows.draft(key, Some(value)),
                Effect::Remove { key } => rows.draft(key, None),
                Effect::Publish { service, subclass, about, precedence } => {
                    let mut message = own_message(self.identity, service, precedence, self.now);
                    message.header.subclass = subclass;
                    message.infrastructure.external_id = about;
                    messages.published.push(Unnumbered::from(&message));
                }
                Effect::Send { to, service, answers, time_to_live_s } => {
                    let mut message =
                        own_message(self.identity, service, Precedence::Normal, self.now);
                    message.header.channel = Channel::Back;
                    message.header.destination = Some(Destination::Id(to));
                    message.header.answers = answers;
                    message.header.time_to_live_s = Some(time_to_live_s);
                    messages.sent.push(Unnumbered::from(&message));
                }
            }
        }
    }
}

/// Runs code of a module; a panic is its failure.
pub(crate) fn guarded<T, E: From<ServiceError>>(
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // What the module has half done is dropped with it: see the caller.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        Err(ServiceError(format!("panicked: {}", text.unwrap_or_default())).into())
    })
}

/// Who the server is now; the durable queue may change it.
pub type Who = Arc<Mutex<Identity>>;

/// Who the server is now.
pub fn identity_of(who: &Who) -> Identity {
    // It is set in one step: a panic elsewhere does not spoil it.
    *who.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message of the server's own, its numbers blank.
pub fn own_message(
    identity: Identity,
    service: Service,
    precedence: Precedence,
    now: i64,
) -> Message {
    Message {
        header: Header {
            id: MessageId { origin: identity.id, epoch: identity.epoch, precedence, sequence: 0 },
            order: 0,
            source: identity.id,
            source_type: SourceType::AppServer,
            destination: None,
            channel: Channel::Forward,
            answers: None,
            class: service.class().to_owned(),
            subclass: String::new(),
            occurred_at: now,
            accepted_at: now,
            persistence: Persistence::Normal,
            time_to_live_s: None,
            traceparent: None,
        },
        infrastructure: Infrastructure {
            classification: Classification::InfrastructureAdministration,
            customer: identity.id.cut(0),
            group: String::new(),
            integrator: String::new(),
            integrator_version: String::new(),
            instance: None,
            external_id: String::new(),
        },
        service,
    }
}

/// What sets a message aside: a run of it alone, and a row that says which module gave it up.
pub(crate) fn aside(module: &str, stored: &StoredRun, seq: u64) -> Vec<Change> {
    let precedence = stored.run.header.precedence;
    let mut changes = vec![Change::PutRow {
        table: POISON,
        key: poison_key(precedence, seq),
        value: Bytes::copy_from_slice(module.as_bytes()),
    }];
    if let Some(run) = alone(stored, seq) {
        let mut value = Writer::new();
        run.write(&mut value);
        changes.push(Change::PutRun {
            queue: set_aside(),
            place: Place { precedence, position: seq },
            value: value.into_vec().into(),
        });
    }
    changes
}

/// The run with only one of its messages.
fn alone(stored: &StoredRun, seq: u64) -> Option<Run> {
    let header = &stored.run.header;
    let there = (0..header.count).filter(|p| !header.is_left_out(*p));
    let wanted = there.clone().nth(usize::try_from(seq.checked_sub(stored.position)?).ok()?)?;
    stored.run.without(|position| position != wanted).ok()?
}
