//! The end of a test under fire: what was accepted is stored once, and every account balances.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{LONG, chain::Chain, wait_within};

/// How often all is read, at least, before something counts as lost.
const READS_MIN: u32 = 3;

/// Each text in the store, with how often.
pub fn stored(chain: &Chain) -> HashMap<String, usize> {
    let mut texts = HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = chain.api(&format!("/events?limit=10000{cursor}"));
        for item in page["items"].as_array().expect("a list") {
            *texts.entry(item["text"].as_str().expect("a text").to_owned()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return texts,
        }
    }
}

/// Waits until no node holds anything. The account of each balances all the while.
pub fn settle(chain: &Chain, within: Duration) {
    for (i, node) in chain.nodes.iter().enumerate() {
        wait_within(within, "the accounts to balance", || {
            let account = chain.account(i);
            assert!(account.balanced, "{}: {account:?}", node.role);
            (account.queued == 0).then_some(())
        });
    }
}

/// What is stored, once all of these are. Reading may take longer than `within` where it is much;
/// it is read again all the same, since the last were handed on a moment ago.
pub fn all_of(chain: &Chain, within: Duration, wanted: &[String]) -> HashMap<String, usize> {
    let end = Instant::now() + within;
    for read in 1.. {
        let texts = stored(chain);
        let lost: Vec<_> = wanted.iter().filter(|text| !texts.contains_key(*text)).collect();
        if lost.is_empty() {
            return texts;
        }
        let some = &lost[..lost.len().min(10)];
        let is_over = read >= READS_MIN && Instant::now() > end;
        assert!(!is_over, "{} of {} are lost: {some:?}", lost.len(), wanted.len());
        std::thread::sleep(Duration::from_millis(100));
    }
    unreachable!("it reads until all are there, or gives up")
}

/// All that was accepted is stored, nothing twice, and each account balances with nothing queued.
/// Returns how many are stored.
pub fn once_each(chain: &Chain, accepted: &[String]) -> usize {
    once_each_within(LONG, chain, accepted)
}

/// As [`once_each`], where more is to be carried.
pub fn once_each_within(within: Duration, chain: &Chain, accepted: &[String]) -> usize {
    settle(chain, within);
    let texts = all_of(chain, within, accepted);
    settle(chain, within);
    let twice: Vec<_> = texts.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "stored more than once: {twice:?}");
    texts.len()
}
