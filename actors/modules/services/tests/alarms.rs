//! What messages make of alarms and events (contract §1), message by message.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]
mod common;

use common::{Bench, alarm, message, proxy};
use extension::{
    records::{
        Alarm, AlarmState, Time,
        kept::{self, CHUNK_MESSAGES, Chunk, Episode, Happening},
    },
    service::{ByHand, ByHandError, Effect, Handwork, Rows, ServiceModule},
};
use module_services::Alarms;
use protocol::{
    RemoteId,
    service::{Event, Payload, Service, Severity, State},
};

fn bench() -> Bench<Alarms> {
    Bench::new(Alarms::default())
}

fn episodes(bench: &Bench<Alarms>) -> Vec<Alarm> {
    let rows = bench.table.under(b'e');
    rows.iter().map(|(_, v)| kept::from_row::<Episode>(v).unwrap().alarm).collect()
}

fn open(bench: &Bench<Alarms>) -> usize {
    bench.table.under(b'p').len()
}

/// Numbers of an alarm's messages: full chunks have rows, the rest stands with the episode.
fn history(bench: &Bench<Alarms>, alarm: &Alarm) -> Vec<u64> {
    let rows = bench.table.under(b'h');
    let mine = rows.iter().filter(|(k, _)| k[1..17] == *alarm.alarm_id.as_bytes());
    let mut chunks: Vec<Chunk> = mine.map(|(_, v)| Chunk::of(Some(v))).collect();
    assert!(chunks.iter().all(|chunk| chunk.len() == CHUNK_MESSAGES));
    let row = bench.table.row(&kept::episode_key(alarm.alarm_id)).unwrap().unwrap();
    chunks.push(kept::from_row::<Episode>(&row).unwrap().recent);
    let places = |chunk: &Chunk| (0..chunk.len()).map(|at| chunk.get(at).unwrap().1).collect();
    chunks.iter().flat_map::<Vec<u64>, _>(places).collect()
}

fn by_hand(bench: &mut Bench<Alarms>, what: Handwork) -> Result<(), ByHandError> {
    let subject = episodes(bench).last().unwrap().alarm_id;
    let wish = ByHand { subject, by: "ada".to_owned(), now: 1_900_000_000_000, what };
    let effects = bench.module.by_hand(&wish, &bench.table)?;
    bench.table.apply(effects);
    Ok(())
}

// DAT-7: severity, state and the instance are filled.
#[test]
fn repeats_count_and_the_newest_message_shows() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Minor, State::Opened));
    let newest = bench.take(2, 200, alarm("1", Severity::Major, State::Updated));
    let [alarm] = &episodes(&bench)[..] else { panic!("one alarm") };
    assert_eq!(
        (alarm.count, alarm.severity, alarm.state),
        (2, Severity::Major, AlarmState::Opened)
    );
    assert_eq!((alarm.opened_at, alarm.occurred_at), (Time(100), Time(200)));
    assert_eq!((alarm.message_id, &*alarm.instance), (newest, "192.0.2.7"));
    assert_eq!(alarm.instance_id, proxy().child(1).unwrap().child(17).unwrap());
    assert_eq!(history(&bench, alarm), [1, 2]);
}

#[test]
fn alarms_of_two_keys_are_two_and_counted_by_instance_and_customer() {
    let mut bench = bench();
    for key in ["1", "2"] {
        bench.take(bench.seq + 1, 100, alarm(key, Severity::Minor, State::Opened));
    }
    assert_eq!((episodes(&bench).len(), open(&bench)), (2, 2));
    bench.take(3, 101, alarm("2", Severity::Minor, State::Closed));
    let count = |id: RemoteId| {
        let rows = bench.table.0.borrow();
        kept::count_of(rows.get(&kept::count_key(&id)).map(|r| &r[..]))
    };
    assert_eq!(open(&bench), 1);
    assert_eq!(count(proxy().cut(0)), 1);
    assert_eq!(count(proxy().child(1).unwrap().child(17).unwrap()), 1);
}

#[test]
fn opened_after_closed_is_a_new_alarm() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Minor, State::Opened));
    bench.take(2, 200, alarm("1", Severity::Minor, State::Closed));
    bench.take(3, 300, alarm("1", Severity::Minor, State::Opened));
    let all = episodes(&bench);
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].state, all[0].closed_at), (AlarmState::Closed, Some(Time(200))));
    assert_eq!((all[1].state, all[1].count), (AlarmState::Opened, 1));
    assert_ne!(all[0].alarm_id, all[1].alarm_id);
}

#[test]
fn an_urgent_closing_that_overtook_its_opening_leaves_nothing_open() {
    let mut bench = bench();
    bench.take(2, 200, alarm("1", Severity::Minor, State::Closed));
    bench.take(1, 100, alarm("1", Severity::Minor, State::Opened));
    assert_eq!((episodes(&bench).len(), open(&bench)), (0, 0));
    bench.take(3, 300, alarm("1", Severity::Minor, State::Opened));
    assert_eq!(open(&bench), 1);
}

#[test]
fn what_comes_late_is_only_history() {
    let mut bench = bench();
    bench.take(5, 500, alarm("1", Severity::Minor, State::Opened));
    // An older number of the origin, and a newer one with an older time.
    bench.take(4, 600, alarm("1", Severity::Fatal, State::Updated));
    bench.take(6, 400, alarm("1", Severity::Fatal, State::Closed));
    let [alarm] = &episodes(&bench)[..] else { panic!("one alarm") };
    assert_eq!(
        (alarm.count, alarm.severity, alarm.state),
        (1, Severity::Minor, AlarmState::Opened)
    );
    assert_eq!(history(&bench, alarm), [1, 2, 3]);
}

#[test]
fn closing_twice_closes_once() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Minor, State::Opened));
    bench.take(2, 200, alarm("1", Severity::Minor, State::Closed));
    bench.take(3, 300, alarm("1", Severity::Minor, State::Closed));
    let [alarm] = &episodes(&bench)[..] else { panic!("one alarm") };
    assert_eq!((alarm.count, alarm.closed_at), (2, Some(Time(200))));
    assert_eq!(history(&bench, alarm), [1, 2, 3]);
}

#[test]
fn an_acknowledgement_stands_until_the_alarm_is_worse_or_closed() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Major, State::Opened));
    by_hand(&mut bench, Handwork::Acknowledge { comment: Some("on it".to_owned()) }).unwrap();
    bench.take(2, 200, alarm("1", Severity::Minor, State::Updated));
    let seen = episodes(&bench).remove(0);
    assert_eq!(
        (seen.state, seen.acknowledged_by.as_deref()),
        (AlarmState::Acknowledged, Some("ada"))
    );
    assert_eq!(seen.comment.as_deref(), Some("on it"));
    bench.take(3, 300, alarm("1", Severity::Critical, State::Updated));
    let worse = episodes(&bench).remove(0);
    assert_eq!((worse.state, worse.acknowledged_by), (AlarmState::Opened, None));
    bench.take(4, 400, alarm("1", Severity::Critical, State::Closed));
    let refused = by_hand(&mut bench, Handwork::Acknowledge { comment: None });
    assert!(matches!(refused, Err(ByHandError::Conflict(_))));
}

// ARC-14: what a person changes is kept with who did it.
#[test]
fn closing_by_hand_and_silence_are_kept() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Major, State::Opened));
    let until = 1_900_000_100_000;
    by_hand(&mut bench, Handwork::Silence { until, comment: None }).unwrap();
    assert_eq!(episodes(&bench)[0].silenced_until, Some(Time(until)));
    by_hand(&mut bench, Handwork::Unsilence).unwrap();
    by_hand(&mut bench, Handwork::Close { comment: None }).unwrap();
    let closed = episodes(&bench).remove(0);
    assert_eq!((closed.state, closed.silenced_until), (AlarmState::Closed, None));
    assert_eq!(open(&bench), 0);
    bench.take(2, 200, alarm("1", Severity::Major, State::Opened));
    assert_eq!(open(&bench), 1);
}

#[test]
fn an_alarm_without_repeats_closes_by_itself() {
    let mut bench = bench();
    let Service::Alarm(mut said) = alarm("1", Severity::Major, State::Opened) else { return };
    said.close_after_s = Some(60);
    bench.take(1, 100, Service::Alarm(said.clone()));
    bench.take(2, 200, Service::Alarm(said));
    let due = 1_800_000_000_002 + 60_000;
    for (now, state) in [(due - 1, AlarmState::Opened), (due, AlarmState::Closed)] {
        let effects = bench.module.tick(now, &bench.table).unwrap();
        bench.table.apply(effects);
        assert_eq!(episodes(&bench)[0].state, state);
    }
    assert!(bench.table.under(b'd').is_empty());
    assert_eq!(open(&bench), 0);
}

#[test]
fn events_with_one_id_are_one_and_show_the_latest() {
    let mut bench = bench();
    let event = |id: &str, text: &str| {
        Service::Event(Event {
            kind: "fan".to_owned(),
            event_id: id.to_owned(),
            severity: Severity::Information,
            state: State::Opened,
            text: text.to_owned(),
            payload: Payload::default(),
        })
    };
    bench.take(1, 200, event("a", "second"));
    bench.take(2, 100, event("a", "first, late"));
    // One without an id is its message: it has no row.
    bench.take(3, 300, event("", "own"));
    bench.take(4, 300, event("b", "another"));
    let rows = bench.table.under(b'w');
    let events: Vec<_> =
        rows.iter().map(|(_, v)| kept::from_row::<Happening>(v).unwrap().event).collect();
    assert_eq!(events.len(), 2);
    assert_eq!((events[0].count, &*events[0].text), (2, "second"));
}

#[test]
fn a_long_history_is_kept_in_chunks() {
    let mut bench = bench();
    let last = 2 * CHUNK_MESSAGES as u64 + 3;
    for order in 1..=last {
        bench.take(order, order as i64, alarm("1", Severity::Minor, State::Opened));
    }
    let [alarm] = &episodes(&bench)[..] else { panic!("one alarm") };
    assert_eq!(history(&bench, alarm), (1..=last).collect::<Vec<_>>());
}

/// An episode as the version before wrote it.
#[derive(serde::Serialize)]
struct Before {
    alarm: Alarm,
    acknowledged_severity: Option<Severity>,
    closes_at: Option<i64>,
    history: u64,
    newest: (u64, u64),
}

#[test]
fn an_alarm_of_an_older_version_goes_on() {
    let mut bench = bench();
    bench.take(1, 100, alarm("1", Severity::Minor, State::Opened));
    bench.take(2, 200, alarm("1", Severity::Minor, State::Updated));
    let (key, row) = bench.table.under(b'e').remove(0);
    let now: Episode = kept::from_row(&row).unwrap();
    let id = now.alarm.alarm_id;
    let Episode {
        alarm: shown, acknowledged_severity, closes_at, history: messages, newest, ..
    } = now.clone();
    let before =
        Before { alarm: shown, acknowledged_severity, closes_at, history: messages, newest };
    bench.table.apply(vec![
        Effect::Put { key, value: kept::to_row(&before) },
        Effect::Put { key: kept::history_key(id, 0), value: now.recent.into_row() },
    ]);
    bench.module = Alarms::default();
    bench.take(3, 300, alarm("1", Severity::Major, State::Closed));
    let [closed] = &episodes(&bench)[..] else { panic!("one alarm") };
    assert_eq!((closed.count, closed.state), (3, AlarmState::Closed));
    let row = bench.table.row(&kept::episode_key(id)).unwrap().unwrap();
    assert_eq!(kept::from_row::<Episode>(&row).unwrap().recent.len(), 3);
}

// DAT-10: an alarm of any platform is handled by its types.
#[test]
fn effects_are_the_same_for_the_same_message() {
    let bench = bench();
    let (bytes, _) = message(1, 100, alarm("1", Severity::Major, State::Opened)).encode();
    let received = extension::service::Received {
        seq: 9,
        message: common::parts(&bytes),
        stored_at: 1_800_000_000_000,
        replayed: true,
    };
    let once = Alarms::default().handle(&received, &bench.table).unwrap();
    assert_eq!(once, Alarms::default().handle(&received, &bench.table).unwrap());
}
