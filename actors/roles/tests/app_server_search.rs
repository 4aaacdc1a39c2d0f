//! What searches find, by the index and without it, and how lists end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod top;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use extension::{
    records::{AlarmFilter, EventFilter, MessageFilter, Paging, Records, Time},
    storage::{Change, QueueStore},
};
use module_memory::MemoryStore;
use protocol::{
    Message,
    service::{Data, Event, Payload, Service, Severity, State},
};
use roles::app_server::{
    rows::INDEX,
    segment::{SEGMENT_MESSAGES, key, tags},
};
use top::{BEGUN, Top, alarm, instance, message, proxy, run, sender, until};

fn event(number: u64, event_id: &str) -> Service {
    Service::Event(Event {
        kind: "fan".to_owned(),
        event_id: event_id.to_owned(),
        severity: if number.is_multiple_of(1000) { Severity::Major } else { Severity::Warning },
        state: State::Opened,
        text: format!("Fan {} of SERIAL-{number:06}", number % 8),
        payload: Payload::default(),
    })
}

/// Message by number: events about 50 instances, and now and then data.
fn sent(number: u64) -> Message {
    let service = match number % 5_000 {
        0 => Service::Data(Data {
            kind: "audit".to_owned(),
            subtype: "log".to_owned(),
            payload: Payload::default(),
        }),
        _ => event(number, if number.is_multiple_of(7) { "same" } else { "" }),
    };
    let mut message = message(proxy(3), number, service);
    if number.is_multiple_of(5_000) {
        message.header.subclass = "audit/log".to_owned();
    }
    let about = instance(proxy(3), (number % 50) as u32);
    message.header.source = about;
    message.infrastructure.instance = Some(about);
    message.infrastructure.external_id = format!("unit-{}", number % 50);
    message
}

async fn arrive(top: &Top, from: u64, to: u64) {
    let mut next = from;
    while next <= to {
        let last = to.min(next + 999);
        let messages: Vec<_> = (next..=last).map(sent).collect();
        assert!(!top.arrive(sender(proxy(3)), &messages).await.is_empty());
        next = last + 1;
    }
}

/// All pages of a list: numbers of the messages.
async fn all(top: &Top, filter: &MessageFilter, limit: usize) -> Vec<u64> {
    let (mut paging, mut numbers) = (Paging::first(limit), Vec::new());
    loop {
        let page = top.records.messages(filter, &paging).await.unwrap();
        assert!(page.items.len() <= limit);
        numbers.extend(page.items.iter().map(|m| m.message_id.sequence));
        let Some(next) = page.next else { return numbers };
        paging.cursor = Some(next);
    }
}

/// Filters, each with what tells the messages it means.
type Asked = (MessageFilter, fn(u64) -> bool);

fn asked() -> Vec<Asked> {
    let none = MessageFilter::default;
    let word = |word: &str| vec![word.to_owned()];
    vec![
        (MessageFilter { instance: word("unit-17"), ..none() }, |n| n % 50 == 17),
        (MessageFilter { class: word("data"), ..none() }, |n| n % 5_000 == 0),
        (MessageFilter { subclass: word("audit"), ..none() }, |n| n % 5_000 == 0),
        (MessageFilter { text: Some("serial-012345".to_owned()), ..none() }, |n| n == 12_345),
        (MessageFilter { text: Some("of 00012 FAN".to_owned()), ..none() }, |n| {
            n % 5_000 != 0 && format!("{n:06}").contains("00012")
        }),
        (MessageFilter { integrator: word("nobody"), ..none() }, |_| false),
        (MessageFilter { since: Some(Time(BEGUN + 70_001)), ..none() }, |n| n > 70_000),
        (
            MessageFilter {
                since: Some(Time(BEGUN + 65_000)),
                until: Some(Time(BEGUN + 66_000)),
                instance: vec![instance(proxy(3), 17).to_string()],
                ..none()
            },
            |n| n % 50 == 17 && (65_000..66_000).contains(&n),
        ),
    ]
}

async fn finds_all(top: &Top, stored: u64) {
    for (filter, means) in asked() {
        let meant: Vec<u64> = (1..=stored).rev().filter(|n| means(*n)).collect();
        assert_eq!(all(top, &filter, 1_000).await, meant, "{filter:?}");
    }
}

fn rows_of(store: &MemoryStore, tag: u8) -> usize {
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    store.rows(INDEX, &[tag], &[], count).unwrap();
    rows
}

const STORED: u64 = SEGMENT_MESSAGES + 6_000;

#[test]
fn searches_find_the_same_by_the_index_without_it_and_after_a_crash() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        arrive(&top, 1, STORED).await;
        // Also while the index is behind.
        finds_all(&top, STORED).await;
        until(async || rows_of(&store, tags::WHOLE) == 1).await;
        finds_all(&top, STORED).await;
        top.stop().await;
        // The part that was in RAM only is read from the runs.
        let top = Top::start(&store, Vec::new()).await;
        finds_all(&top, STORED).await;
        // A damaged part of it is told, searched without, and built anew.
        for tag in [tags::NAMES, tags::COLUMNS] {
            assert!(store.damage_row(INDEX, &key(tag, 0)));
            finds_all(&top, STORED).await;
            until(async || store.row(INDEX, &key(tag, 0)).is_ok()).await;
        }
        top.stop().await;
        // A store of a version that had none.
        let gone = [tags::WHOLE, tags::NAMES, tags::COLUMNS]
            .map(|tag| Change::RemoveRow { table: INDEX, key: key(tag, 0).into() });
        store.commit(&gone).unwrap();
        let top = Top::start(&store, Vec::new()).await;
        finds_all(&top, STORED).await;
        until(async || rows_of(&store, tags::WHOLE) == 1).await;
        finds_all(&top, STORED).await;
        top.stop().await;
    });
}

// A list is not shown longer than it is: nothing follows the last of exactly so many.
#[test]
fn a_page_that_is_full_and_the_last_has_no_next() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let alarms: Vec<_> = (1..=6).map(|n| alarm(proxy(3), n, &format!("p{n}"))).collect();
        top.arrive(sender(proxy(3)), &alarms).await;
        let id_of = |n: u64| ["", "a", "b"][n as usize % 3];
        let events: Vec<_> = (7..=12).map(|n| message(proxy(3), n, event(n, id_of(n)))).collect();
        top.arrive(sender(proxy(3)), &events).await;
        top.settled().await;
        for (limit, follows) in [(5, true), (6, false), (7, false)] {
            let paging = Paging::first(limit);
            let alarms = top.records.alarms(&AlarmFilter::default(), &paging).await.unwrap();
            assert_eq!((alarms.items.len(), alarms.next.is_some()), (limit.min(6), follows));
            let class = vec!["alarm".to_owned()];
            let filter = MessageFilter { class, ..MessageFilter::default() };
            let messages = top.records.messages(&filter, &paging).await.unwrap();
            assert_eq!((messages.items.len(), messages.next.is_some()), (limit.min(6), follows));
        }
        for (limit, follows) in [(3, true), (4, false), (5, false)] {
            let filter = EventFilter::default();
            let page = top.records.events(&filter, &Paging::first(limit)).await.unwrap();
            assert_eq!((page.items.len(), page.next.is_some()), (limit.min(4), follows));
        }
        top.stop().await;
    });
}

// Two events with an id are one row, the others are their messages; all stand in one order.
#[test]
fn events_with_and_without_an_id_are_one_list() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let ids = ["", "a", "", "b", "a", "", "b", ""];
        let all: Vec<_> =
            (1..).zip(ids).map(|(n, id)| message(proxy(3), n, event(n, id))).collect();
        top.arrive(sender(proxy(3)), &all).await;
        top.settled().await;
        let (mut paging, mut shown) = (Paging::first(2), Vec::new());
        loop {
            let page = top.records.events(&EventFilter::default(), &paging).await.unwrap();
            shown.extend(page.items.into_iter().map(|e| (e.message_id.sequence, e.count)));
            let Some(next) = page.next else { break };
            paging.cursor = Some(next);
        }
        assert_eq!(shown, [(8, 1), (6, 1), (7, 2), (3, 1), (5, 2), (1, 1)]);
        let text = Some("serial-000006".to_owned());
        let filter = EventFilter { text, ..EventFilter::default() };
        let page = top.records.events(&filter, &Paging::default()).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert_eq!((&*page.items[0].instance, page.items[0].count), ("192.0.2.7", 1));
        top.stop().await;
    });
}

#[test]
fn an_event_without_an_id_is_on_the_stream() {
    run(async {
        use extension::records::{Change, StreamFilter, Topic};
        use futures_util::StreamExt;
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let severity_min = Some(Severity::Major);
        let filter =
            StreamFilter { topics: vec![Topic::Events], severity_min, ..Default::default() };
        let mut stream = top.records.subscribe(&filter, None);
        let events: Vec<_> = (999..=1001).map(|n| message(proxy(3), n, event(n, ""))).collect();
        top.arrive(sender(proxy(3)), &events).await;
        let Change::Event(event) = stream.next().await.unwrap().change else { panic!("an event") };
        assert_eq!(event.message_id.sequence, 1000);
        tokio::time::timeout(Duration::from_millis(50), stream.next()).await.unwrap_err();
        top.stop().await;
    });
}

// What no module subscribed to costs no commit of a cursor for each batch.
#[test]
fn messages_that_nobody_listens_to_are_passed_over_together() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        arrive(&top, 1, 1).await;
        top.settled().await;
        let before = store.commits();
        for number in 0..100 {
            let data = sent(5_000 * (number + 1));
            top.arrive(sender(proxy(3)), &[data]).await;
        }
        let commits = store.commits() - before;
        assert!(commits < 150, "{commits} commits for 100 messages");
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered), (101, 101));
        top.stop().await;
    });
}
