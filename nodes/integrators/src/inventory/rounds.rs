//! One look after another: collect, compare with what was accepted, send, remember.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use protocol::Precedence;
use protocol::Verdict;
use protocol::message::Persistence;
use protocol::service::{Data, Payload};

use super::snapshot::{CLASS, Cache, PERFORMANCE, Section, Snapshot, collect};
use super::state::{Missing, State, StateFile};
use super::system::hostname;
use super::tree::DiskTree;
use super::{InventoryArgs, changes, performance};
use crate::common::IntegratorError;
use crate::counters::Counters;
use crate::sink::{Call, Quality, Refused, Sink, What};

/// MIME type of all that is sent.
const ENCODING: &str = "application/json";
/// Subclass of samples: of the host as a whole.
const SAMPLE: &str = "host";

/// What lasts from one look to the next.
pub(super) struct Rounds {
    tree: Arc<DiskTree>,
    sink: Arc<dyn Sink>,
    counters: Counters,
    instance: String,
    full_every_ms: i64,
    file: Option<StateFile>,
    state: State,
    cache: Cache,
}

impl Rounds {
    /// Reads the state that was kept; where there is none, all is sent anew.
    pub(super) fn open(
        args: &InventoryArgs,
        tree: Arc<DiskTree>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, IntegratorError> {
        let instance = hostname(tree.as_ref());
        let about = format!("{} {instance}", args.root.display());
        let file = state_file(args)?;
        let known = file.as_ref().map_or(Err(Missing::Absent), |file| file.load(&about));
        if known == Err(Missing::Damaged) {
            tracing::warn!("the kept state is damaged and was set aside: all is sent again");
        }
        let state = known.unwrap_or(State { about, ..State::default() });
        let full_every_ms = i64::try_from(args.full_every_s).unwrap_or(i64::MAX);
        let full_every_ms = full_every_ms.saturating_mul(1000);
        let (cache, counters) = (Cache::default(), sink.counters());
        Ok(Self { tree, sink, counters, instance, full_every_ms, file, state, cache })
    }

    /// One look: what changed, or all when that is due, then a sample. What was not accepted is
    /// compared again in the next.
    pub(super) async fn round(&mut self) -> Result<(), Refused> {
        let now_ms = Timestamp::now().as_millisecond();
        let snapshot = self.collect().await?;
        let full = full_is_due(self.state.full_at_ms, now_ms, self.full_every_ms);
        for section in Section::ALL {
            let Some(items) = snapshot.sections.get(&section) else {
                continue;
            };
            let known = self.state.accepted.sections.get(&section);
            let mut documents = Vec::new();
            if let Some(known) = known {
                documents = changes::changes(section, known, items);
            }
            if full || known.is_none() {
                documents.extend(changes::full(section, items));
            }
            if documents.is_empty() {
                continue;
            }
            for document in documents {
                self.send(CLASS, section.name(), document, now_ms).await?;
            }
            self.state.accepted.sections.insert(section, items.clone());
            self.remember();
        }
        if full {
            self.state.full_at_ms = Some(now_ms);
            self.remember();
        }
        self.sample().await
    }

    async fn collect(&mut self) -> Result<Snapshot, Refused> {
        let (tree, mut cache) = (self.tree.clone(), std::mem::take(&mut self.cache));
        let before = self.state.accepted.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let found = collect(tree.as_ref(), &before, &mut cache);
            (found, cache)
        });
        let (found, cache) = looked.await.map_err(|error| internal(&error))?;
        self.cache = cache;
        Ok(found)
    }

    async fn sample(&self) -> Result<(), Refused> {
        let tree = self.tree.clone();
        let taken = tokio::task::spawn_blocking(move || performance::sample(tree.as_ref()));
        let items = taken.await.map_err(|error| internal(&error))?;
        let taken_at_ms = Timestamp::now().as_millisecond();
        if items.is_empty() {
            return Ok(());
        }
        for document in changes::sample(&items, taken_at_ms) {
            self.send(PERFORMANCE, SAMPLE, document, taken_at_ms).await?;
        }
        Ok(())
    }

    /// Sends one document; what is refused for ever is dropped, since it would be so the next time.
    async fn send(
        &self,
        class: &str,
        subclass: &str,
        document: String,
        occurred_at_ms: i64,
    ) -> Result<(), Refused> {
        self.counters.received();
        let payload =
            Payload { encoding: ENCODING.into(), data: Bytes::from(document.into_bytes()) };
        let data = Data { kind: class.into(), subtype: subclass.into(), payload };
        let call = Call {
            instance: self.instance.clone(),
            occurred_at_ms,
            what: What::Data(data),
            quality: Quality {
                precedence: Precedence::Normal,
                persistence: Persistence::Normal,
                time_to_live_s: None,
            },
            once: None,
        };
        match self.sink.emit(call).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.refusal.verdict() == Verdict::GiveUp => {
                self.counters.dropped();
                tracing::error!(class, subclass, refusal = %refused.refusal,
                    detail = %refused.detail, "the proxy refuses this document for good");
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }

    /// Keeps what was accepted; when the disk refuses, a restart sends more than it need.
    fn remember(&self) {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.save(&self.state)) {
            tracing::warn!(%error, "cannot keep the inventory's state: make room on its disk");
        }
    }
}

/// Where the state is kept. A folder that was named must do; without the other a restart sends all.
fn state_file(args: &InventoryArgs) -> Result<Option<StateFile>, IntegratorError> {
    let Some(folder) = args.spill.as_ref().or(args.state.as_ref()) else {
        return Ok(None);
    };
    match StateFile::open(folder, &args.name) {
        Ok(file) => Ok(Some(file)),
        Err(error) if args.spill.is_some() => Err(IntegratorError::Configuration {
            message: format!("cannot keep state in {}: {error}", folder.display()),
            help: "--spill takes a folder that this user may write".into(),
        }),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a restart will send all again");
            Ok(None)
        }
    }
}

/// Whether all is to be sent: never done, long ago, or the clock was set back since.
fn full_is_due(last_ms: Option<i64>, now_ms: i64, every_ms: i64) -> bool {
    last_ms.is_none_or(|last| now_ms < last || now_ms - last >= every_ms)
}

fn internal(error: &tokio::task::JoinError) -> Refused {
    Refused {
        refusal: protocol::Refusal::Internal,
        detail: format!("the collector broke off: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_sent_at_first_daily_and_when_the_clock_was_set_back() {
        assert!(full_is_due(None, 0, 10));
        assert!(!full_is_due(Some(100), 109, 10));
        assert!(full_is_due(Some(100), 110, 10));
        assert!(full_is_due(Some(100), 99, 10));
    }
}
