//! What delivery promises over several nodes when links lose, actors panic and stores fail.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod sandbox;

use std::time::Duration;

use protocol::Precedence::{Bulk, Normal, Urgent};
use roles::delivery::orders::Kept;
use sandbox::{Chain, Faults, ROOMY, alarm};

const LONG: Duration = Duration::from_secs(30);

fn run(test: impl std::future::Future<Output = ()>) {
    actix::System::new().block_on(test);
}

/// Each node's account balances, and the top has each text once.
async fn settle_and_balance(chain: &Chain, sent: usize) {
    assert!(chain.until(LONG, |seen| seen.texts.len() >= sent).await, "all arrive");
    for (i, node) in chain.nodes.iter().enumerate() {
        let end = tokio::time::Instant::now() + LONG;
        let figures = loop {
            let figures = node.figures().await;
            let top = i + 1 == chain.nodes.len();
            if top || figures.account.queued == 0 || tokio::time::Instant::now() > end {
                break figures;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(figures.account.balanced(), "node {i}: {:?}", figures.account);
    }
    let seen = chain.seen.lock().unwrap();
    let mut texts = seen.texts.clone();
    texts.sort();
    texts.dedup();
    assert_eq!((texts.len(), seen.texts.len()), (sent, sent), "nothing lost, nothing twice");
}

// QUE-1, QUE-6: what was queued while the parent was away arrives, in order.
#[test]
fn messages_of_an_outage_arrive_in_order() {
    run(async {
        let chain = Chain::start(2, ROOMY);
        *chain.faults.lock().unwrap() =
            Faults { lose_request: 1000, lose_answer: 0, ..Faults::default() };
        for i in 0..1000 {
            let message = alarm(chain.nodes[0].identity(), &format!("{i:04}"), Normal);
            assert!(matches!(chain.nodes[0].keep(&message).await, Some(Kept::Stored(_))));
        }
        *chain.faults.lock().unwrap() = Faults::default();
        settle_and_balance(&chain, 1000).await;
        let seen = chain.seen.lock().unwrap();
        assert!(seen.texts.is_sorted(), "first in, first out");
    });
}

// QUE-5: they leave urgent, normal, bulk.
#[test]
fn urgent_leaves_first() {
    run(async {
        let chain = Chain::start(2, ROOMY);
        *chain.faults.lock().unwrap() =
            Faults { lose_request: 1000, lose_answer: 0, ..Faults::default() };
        // The link takes the first of each into its hands before it knows that nobody answers.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (text, precedence) in [("c", Bulk), ("b", Normal), ("a", Urgent)] {
            for _ in 0..300 {
                let message = alarm(chain.nodes[0].identity(), text, precedence);
                chain.nodes[0].keep(&message).await.unwrap();
            }
        }
        *chain.faults.lock().unwrap() = Faults::default();
        assert!(chain.until(LONG, |seen| seen.texts.len() == 900).await);
        let seen = chain.seen.lock().unwrap();
        let last_urgent = seen.texts.iter().rposition(|t| t == "a").unwrap();
        let late_bulk = seen.texts.iter().skip(last_urgent).filter(|t| *t == "c").count();
        assert!(late_bulk >= 250, "bulk that was not in the link's hands came after urgent");
    });
}

/// Requests and answers are lost, queues and links panic: each message has its effect once.
#[test]
fn nothing_is_lost_or_doubled_on_a_bad_day() {
    run(async {
        supervision::drill::enable();
        let chain = Chain::start(4, ROOMY);
        *chain.faults.lock().unwrap() =
            Faults { lose_request: 100, lose_answer: 150, ..Faults::default() };
        let mut sent = 0;
        for round in 0..400 {
            let message = alarm(chain.nodes[0].identity(), &format!("{round}"), Normal);
            // A refusal or an unknown outcome is sent again, as an integrator does; a copy that
            // was stored all the same has another id, so its text is told apart.
            let mut attempt = 0;
            loop {
                let text = format!("{round}/{attempt}");
                let mut again = message.clone();
                if let protocol::service::Service::Alarm(a) = &mut again.service {
                    a.text = text;
                }
                attempt += 1;
                if chain.nodes[0].keep(&again).await.is_some() {
                    sent += 1;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if round % 40 == 7 {
                let actor = ["durable_queue", "link"][round / 40 % 2];
                let node = format!("{}.{}", chain.name, round % 3);
                let path = match actor {
                    "link" => format!("{node}/delivery/link"),
                    _ => format!("{node}/delivery/queues/durable_queue"),
                };
                supervision::drill::order(&path, supervision::drill::Fault::Panic).unwrap();
            }
        }
        *chain.faults.lock().unwrap() = Faults::default();
        assert!(chain.until(LONG, |seen| seen.texts.len() >= sent).await, "all arrive");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let seen = chain.seen.lock().unwrap();
        let mut rounds: Vec<&str> =
            seen.texts.iter().map(|t| t.split('/').next().unwrap()).collect();
        rounds.sort_unstable();
        rounds.dedup();
        assert_eq!(rounds.len(), 400, "every accepted message arrived");
        let mut texts = seen.texts.clone();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), seen.texts.len(), "none arrived twice");
    });
}

/// A store that refuses for a while: the node answers storage_down and goes on by itself.
#[test]
fn full_disk_is_refused_and_recovered_from() {
    run(async {
        let chain = Chain::start(2, ROOMY);
        let message = |i: i32| alarm(chain.nodes[0].identity(), &format!("{i}"), Normal);
        chain.nodes[0].keep(&message(1)).await.unwrap();
        chain.nodes[0].store.set_full(true);
        assert_eq!(chain.nodes[0].keep(&message(2)).await, None);
        assert!(chain.nodes[0].figures().await.storage.is_some(), "health can tell");
        chain.nodes[0].store.set_full(false);
        chain.nodes[0].keep(&message(3)).await.unwrap();
        settle_and_balance(&chain, 2).await;
    });
}
