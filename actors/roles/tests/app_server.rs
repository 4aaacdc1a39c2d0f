//! What the application server promises: stored once, found again, accounted for, restarted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod top;

use std::sync::Arc;

use extension::records::{
    AlarmFilter, LedgerFilter, MessageFilter, MessageState, Paging, Records, RecordsError,
};
use module_memory::MemoryStore;
use protocol::{
    Message, MessageId,
    exchange::Outcome::{Duplicate, Stored},
    service::State,
};
use top::{Top, alarm, alarm_in, customer, instance, proxy, run, sender, server, until};

fn alarms(from: u64, to: u64) -> Vec<Message> {
    (from..=to).map(|n| alarm(proxy(3), n, &format!("p{n}"))).collect()
}

async fn stored(top: &Top) -> Vec<u64> {
    let filter = MessageFilter { class: vec!["alarm".to_owned()], ..MessageFilter::default() };
    let page = top.records.messages(&filter, &Paging::default()).await.unwrap();
    page.items.iter().rev().map(|m| m.message_id.sequence).collect()
}

#[test]
fn a_message_is_stored_once_however_often_and_in_whatever_run_it_comes() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let from = sender(proxy(3));
        let outcomes = top.arrive(from, &alarms(1, 4)).await;
        assert_eq!(outcomes, [Stored; 4]);
        // The same run by another way, and one that overlaps.
        assert_eq!(top.arrive(sender(proxy(4)), &alarms(1, 4)).await, [Duplicate; 4]);
        let mixed = [alarms(3, 3), alarms(6, 7)].concat();
        assert_eq!(top.arrive(from, &mixed).await, [Duplicate, Stored, Stored]);
        assert_eq!(
            top.arrive(from, &alarms(4, 8)).await,
            [Duplicate, Stored, Duplicate, Duplicate, Stored]
        );
        assert_eq!(stored(&top).await, [1, 2, 3, 4, 6, 7, 5, 8]);
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered, account.duplicates), (8, 8, 8));
        let seqs =
            top.records.messages(&MessageFilter::default(), &Paging::default()).await.unwrap();
        let mut seqs: Vec<u64> = seqs.items.iter().map(|m| m.seq).collect();
        seqs.reverse();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6, 7, 8]);
        top.stop().await;
    });
}

#[test]
fn a_cloned_machines_message_is_stored_too_and_raises_an_alarm() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        top.arrive(sender(proxy(3)), &alarms(1, 2)).await;
        let other = alarm(proxy(3), 2, "another");
        assert_eq!(top.arrive(sender(proxy(3)), std::slice::from_ref(&other)).await, [Stored]);
        assert_eq!(top.arrive(sender(proxy(3)), &[other]).await, [Duplicate]);
        assert_eq!(stored(&top).await, [1, 2, 2]);
        let conflict = AlarmFilter { kind: vec!["conflict".to_owned()], ..AlarmFilter::default() };
        until(async || {
            let page = top.records.alarms(&conflict, &Paging::default()).await.unwrap();
            page.items.iter().any(|a| a.instance_id == server())
        })
        .await;
        top.stop().await;
    });
}

#[test]
fn a_commit_that_fails_leaves_nothing_behind() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        top.arrive(sender(proxy(3)), &alarms(1, 2)).await;
        top.settled().await;
        store.fail_next_commit();
        assert_eq!(top.arrive(sender(proxy(3)), &alarms(3, 4)).await, []);
        // The child was told storage_down and sends again.
        assert_eq!(top.arrive(sender(proxy(3)), &alarms(3, 4)).await, [Stored; 2]);
        assert_eq!(stored(&top).await, [1, 2, 3, 4]);
        top.settled().await;
        top.stop().await;
    });
}

// DAT-4: the header and the path tell transit times hop by hop.
#[test]
fn a_trace_names_the_hops_and_what_became_of_the_message() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        let sent = alarm(proxy(3), 1, "p1");
        top.arrive(sender(proxy(3)), std::slice::from_ref(&sent)).await;
        top.settled().await;
        let trace = top.records.trace(sent.header.id, 0).await.unwrap().answer;
        assert_eq!((trace.state, trace.hops.len()), (MessageState::Delivered, 2));
        assert_eq!((trace.hops[0].node_id, trace.hops[1].node.as_str()), (proxy(3), "app-server"));
        assert!(trace.hops[0].sent_at.is_some() && trace.hops[1].sent_at.is_none());
        let unknown = MessageId { sequence: 99, ..sent.header.id };
        let trace = top.records.trace(unknown, 0).await.unwrap().answer;
        assert_eq!(trace.state, MessageState::Unknown);
        let data = top.records.message_data(sent.header.id).await.unwrap();
        assert_eq!((&*data.encoding, &data.data[..]), ("text/plain", &b"p1"[..]));
        assert_eq!(top.records.message(unknown).await, Err(RecordsError::NotFound));
        top.stop().await;
    });
}

#[test]
fn lists_are_filtered_and_paged_to_the_end() {
    run(async {
        let top = Top::start(&Arc::new(MemoryStore::new()), Vec::new()).await;
        top.arrive(sender(proxy(3)), &alarms(1, 40)).await;
        top.arrive(sender(proxy(4)), &[alarm(proxy(4), 1, "other")]).await;
        top.arrive(sender(proxy(3)), &[alarm_in(proxy(3), 41, "p5", State::Closed)]).await;
        top.settled().await;
        let mut paging = Paging::first(7);
        let mut texts = Vec::new();
        let filter = AlarmFilter {
            node: Some(proxy(3).to_string()),
            text: Some("PORT".to_owned()),
            ..AlarmFilter::default()
        };
        loop {
            let page = top.records.alarms(&filter, &paging).await.unwrap();
            assert!(page.items.len() <= 7);
            texts.extend(page.items.into_iter().map(|a| a.text));
            let Some(next) = page.next else { break };
            paging.cursor = Some(next);
        }
        assert_eq!(texts.len(), 39);
        assert_eq!((&*texts[0], &*texts[38]), ("port p40", "port p1"));
        let closed = AlarmFilter { state: vec!["closed".to_owned()], ..AlarmFilter::default() };
        let closed = top.records.alarms(&closed, &Paging::default()).await.unwrap();
        assert_eq!(closed.items.len(), 1);
        let history = top.records.alarm_history(closed.items[0].alarm_id, &Paging::first(1)).await;
        let history = history.unwrap();
        assert_eq!(history.items[0].message_id.sequence, 41);
        let paging = Paging { cursor: history.next, ..Paging::default() };
        let history = top.records.alarm_history(closed.items[0].alarm_id, &paging).await.unwrap();
        assert_eq!((history.items[0].message_id.sequence, history.next), (5, None));
        let mine = MessageFilter {
            instance: vec!["192.0.2.7".to_owned()],
            customer: Some("northwind".to_owned()),
            node: Some(proxy(4).dotted()),
            ..MessageFilter::default()
        };
        let page = top.records.messages(&mine, &Paging::default()).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert_eq!(page.items[0].instance_id, Some(instance(proxy(4), 17)));
        let wrong = Paging { cursor: Some("zz".to_owned()), ..Paging::default() };
        assert!(matches!(
            top.records.alarms(&filter, &wrong).await,
            Err(RecordsError::BadRequest { .. })
        ));
        let customers = top.records.customer(customer()).await.unwrap();
        assert_eq!(customers.alarms, 40);
        top.stop().await;
    });
}

#[test]
fn a_restart_goes_on_where_the_disk_stands() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        top.arrive(sender(proxy(3)), &alarms(1, 5)).await;
        top.settled().await;
        top.stop().await;
        let top = Top::start(&store, Vec::new()).await;
        assert_eq!(
            top.arrive(sender(proxy(3)), &alarms(4, 6)).await,
            [Duplicate, Duplicate, Stored]
        );
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered), (6, 6));
        let all = top.records.alarms(&AlarmFilter::default(), &Paging::default()).await.unwrap();
        assert!(all.items.iter().all(|a| a.count == 1) && all.items.len() == 6);
        let filter = LedgerFilter::default();
        until(async || {
            let ledger = top.records.ledger(&filter, &Paging::default(), 0).await.unwrap().answer;
            let own = ledger.items.iter().find(|l| l.node_id == server());
            own.is_some_and(|l| l.balanced && l.taken == 6 && l.node == "app-server")
        })
        .await;
        top.stop().await;
    });
}

// DESIGN §4.5: what says how many are stored may be damaged; what is stored is not written over.
#[test]
fn a_damaged_count_of_the_records_costs_no_record() {
    run(async {
        let store = Arc::new(MemoryStore::new());
        let top = Top::start(&store, Vec::new()).await;
        top.arrive(sender(proxy(3)), &alarms(1, 5)).await;
        top.settled().await;
        top.stop().await;
        assert!(store.damage_row(roles::app_server::rows::COUNTED, b""));
        let top = Top::start(&store, Vec::new()).await;
        assert_eq!(top.arrive(sender(proxy(3)), &alarms(6, 7)).await, [Stored; 2]);
        assert_eq!(stored(&top).await, [1, 2, 3, 4, 5, 6, 7]);
        let account = top.settled().await;
        assert_eq!((account.taken, account.delivered), (7, 7));
        top.stop().await;
    });
}
