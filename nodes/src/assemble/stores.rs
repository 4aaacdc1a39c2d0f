//! The stores of nodes that do not run: looked at, checked, probed, never changed.
use std::path::Path;

use extension::storage::{Place, QueueName, QueueStore, StoreError, Value};
use module_redb::{OpenError, RedbStore};

use crate::cli::common::{Failure, exit};

/// What to do about a damaged store.
const FSCK: &str = "callhome queue fsck says what is damaged; the next start salvages the rest";

/// What a check of every value found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// All is as it was written.
    pub ok: bool,
    /// The file itself is broken; only what was shown could be salvaged.
    pub broken: bool,
    /// Values that are not what was written.
    pub damaged: u64,
    /// Things that earlier openings have set aside.
    pub set_aside: u64,
}

/// Whether there is a store in a folder.
pub fn is_there(folder: &Path) -> bool {
    folder.join(module_redb::STORE).is_file()
}

/// Reads every value; `show` gets each run.
///
/// # Errors
/// 69 in use, 78 another version's, 69 the disk. Damage is no error.
pub fn check(
    folder: &Path,
    show: &mut dyn for<'a> FnMut(&QueueName, Place, Value<'a>),
) -> Result<Checked, Failure> {
    let report = module_redb::fsck(folder, show).map_err(|error| failed(&error))?;
    let (ok, broken) = (report.ok, report.broken.is_some());
    Ok(Checked { ok, broken, damaged: report.damaged, set_aside: report.set_aside })
}

/// Lets `see` read a store.
///
/// # Errors
/// As [`check`]; 65 where the store is damaged or cannot be read.
pub fn look(
    folder: &Path,
    see: &mut dyn FnMut(&dyn QueueStore) -> Result<(), StoreError>,
) -> Result<(), Failure> {
    let looked = RedbStore::look(folder).map_err(|error| failed(&error))?;
    see(&*looked).map_err(|error| {
        Failure::new(exit::REFUSED, format!("{}: {error}", folder.display()), FSCK)
    })
}

/// What the next start would salvage from a damaged store: `row` gets the rows by `table 0 key`,
/// then `run` the runs in the order of their queues.
///
/// # Errors
/// As [`check`].
pub fn salvageable(
    folder: &Path,
    row: &mut dyn FnMut(&[u8], &[u8]),
    run: &mut dyn for<'a> FnMut(&QueueName, Place, Value<'a>),
) -> Result<(), Failure> {
    module_redb::salvageable(folder, row, run).map_err(|error| failed(&error))
}

fn failed(error: &OpenError) -> Failure {
    let (code, help) = match error {
        OpenError::InUse { .. } => (exit::UNREACHABLE, "stop the node that has it first"),
        OpenError::UnknownFormat { .. } => {
            (exit::CONFIGURATION, "use the version that wrote it, or a newer one")
        }
        OpenError::Damaged { .. } => (exit::REFUSED, FSCK),
        OpenError::Io { .. } => (exit::UNREACHABLE, "look at the folder's rights and the disk"),
        OpenError::Store { .. } => (exit::INTERNAL, "look at the disk"),
    };
    Failure::new(code, error.to_string(), help)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli::{
        queue::{FsckRow, StoppedStores},
        stopped::Stores,
    };
    use bytes::Bytes;
    use extension::storage::Change;
    use module_redb::Options;
    use protocol::{
        Header, Infrastructure, Message, MessageId, Precedence, RemoteId,
        message::{Channel, Classification, Persistence, SourceType},
        run::{Hop, Run, RunHeader},
        service::{Alarm, Payload, Service, Severity, State},
    };
    use roles::delivery::{
        lanes::gone_key,
        runs::{Gone, StoredRun, Traits},
        state::GONE,
    };

    fn alarm(origin: RemoteId, sequence: u64) -> Message {
        let instance = origin.child(1).and_then(|id| id.child(2));
        Message {
            header: Header {
                id: MessageId { origin, epoch: 7, precedence: Precedence::Urgent, sequence },
                order: sequence,
                source: origin,
                source_type: SourceType::Instance,
                destination: None,
                channel: Channel::Forward,
                answers: None,
                class: "alarm".to_owned(),
                subclass: String::new(),
                occurred_at: 1_795_349_391_000,
                accepted_at: 1_795_349_391_000,
                persistence: Persistence::Normal,
                time_to_live_s: None,
                traceparent: None,
            },
            infrastructure: Infrastructure {
                classification: Classification::Monitoring,
                customer: origin.cut(0),
                group: String::new(),
                integrator: "snmp".to_owned(),
                integrator_version: "1".to_owned(),
                instance,
                external_id: "db1".to_owned(),
            },
            service: Service::Alarm(Alarm {
                kind: "linkDown".to_owned(),
                key: String::new(),
                severity: Severity::Critical,
                text: "link down".to_owned(),
                state: State::Opened,
                close_after_s: None,
                payload: Payload::default(),
            }),
        }
    }

    /// A run of three alarms in `up`, of which the second is gone; the store is closed again.
    fn written(folder: &Path) -> MessageId {
        let origin: RemoteId = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().unwrap();
        let alarms: Vec<Message> = (5..8).map(|sequence| alarm(origin, sequence)).collect();
        let encoded: Vec<Vec<u8>> = alarms.iter().map(|message| message.encode().0).collect();
        let of = |bytes: usize| Traits { bytes, assured: false, time_to_live_s: None };
        let traits: Vec<Traits> = encoded.iter().map(|bytes| of(bytes.len())).collect();
        let header = RunHeader {
            origin,
            epoch: 7,
            precedence: Precedence::Urgent,
            first: 5,
            count: 3,
            left_out: Vec::new(),
            replayed: false,
            changed: false,
            path: vec![Hop { node: origin, received: 1_795_349_391_000, sent: 0 }],
        };
        let run = Run { header, messages: Bytes::from(encoded.concat()) };
        let (queue, position) = (QueueName::new("up"), 1);
        let place = Place { precedence: Precedence::Urgent, position };
        let mut gone = Gone::default();
        assert!(gone.mark(1));
        std::fs::create_dir_all(folder).unwrap();
        let store = RedbStore::open(folder, &Options::default()).unwrap().store;
        let value = StoredRun::new(run, &traits).encode();
        let key = gone_key(&queue, place);
        store
            .commit(&[
                Change::PutRun { queue, place, value },
                Change::PutRow { table: GONE, key, value: gone.to_bytes() },
            ])
            .unwrap();
        alarms[2].header.id
    }

    #[test]
    fn a_stopped_nodes_queues_and_messages_are_shown_without_what_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let id = written(&data.path().join("proxy"));
        let rows = Stores.queues(data.path(), None).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].node.as_str(), rows[0].queue.as_str()), ("proxy", "up"));
        assert_eq!((rows[0].precedence.as_str(), rows[0].messages), ("urgent", 2));
        assert!(rows[0].bytes > 100 && rows[0].oldest_age_s.is_some());
        let one = Stores.messages(data.path(), Some("proxy"), Some(id), 10).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0]["message_id"], id.to_string());
        assert_eq!(one[0]["instance"], "db1");
        assert_eq!((&one[0]["queue"], &one[0]["state"]), (&"up".into(), &"queued".into()));
        assert_eq!(Stores.messages(data.path(), None, None, 1).unwrap().len(), 1);
        let gone = MessageId { sequence: 6, ..id };
        assert_eq!(Stores.messages(data.path(), None, Some(gone), 10).unwrap().len(), 0);
        let nobody = Stores.queues(data.path(), Some("mlm")).unwrap_err();
        assert_eq!(nobody.code, exit::NO_SUCH_ID);
    }

    #[test]
    fn fsck_says_whether_a_store_is_whole_and_changes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("proxy");
        written(&folder);
        let file = folder.join(module_redb::STORE);
        let before = std::fs::read(&file).unwrap();
        let rows = Stores.fsck(data.path(), None).unwrap();
        let whole = FsckRow {
            node: "proxy".to_owned(),
            ok: true,
            messages: 3,
            salvaged: 0,
            damaged: 0,
            set_aside: 0,
        };
        assert_eq!(rows, [whole]);
        assert_eq!(std::fs::read(&file).unwrap(), before);
        let mut torn = before;
        torn[..4096].fill(0);
        std::fs::write(&file, torn).unwrap();
        let rows = Stores.fsck(data.path(), None).unwrap();
        assert!(!rows[0].ok, "{rows:?}");
        assert_eq!((rows[0].messages, rows[0].salvaged), (0, 3), "{rows:?}");
        // What is gone stays gone, and what is left is shown.
        let rows = Stores.queues(data.path(), None).unwrap();
        assert_eq!((rows.len(), rows[0].messages), (1, 2), "{rows:?}");
        assert_eq!(Stores.messages(data.path(), None, None, 10).unwrap().len(), 2);
    }

    #[test]
    fn a_store_in_use_is_69() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("proxy");
        written(&folder);
        let opened = RedbStore::open(&folder, &Options::default()).unwrap();
        let failure = Stores.queues(data.path(), None).unwrap_err();
        assert_eq!(failure.code, exit::UNREACHABLE, "{failure:?}");
        drop(opened);
        assert!(Stores.queues(data.path(), None).is_ok());
    }
}
