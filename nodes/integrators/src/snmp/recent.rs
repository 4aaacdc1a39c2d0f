//! Tells a trap that an agent sent twice, in two versions or as a repeated inform, from two traps.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::facts::TrapFacts;

/// Within this time the same trap in another version is one message, milliseconds (rules/README).
pub const SAME_WITHIN_MS: u64 = 2_000;

/// How long a repeated inform is known, milliseconds: net-snmp repeats after 1 s, five times;
/// managers with patience take up to a minute for all.
pub const REPEATED_WITHIN_MS: u64 = 60_000;

/// Traps that are remembered: two seconds at 10,000 a second, which is more than one host sends.
pub const RECENT_MAX: usize = 20_000;

/// Informs that are remembered: a minute at 300 a second; beyond that a repeat counts again.
pub const INFORMS_MAX: usize = 20_000;

/// Variables by which a version tells its origin; they differ where the trap is the same.
const ABOUT_THE_ORIGIN: [&str; 3] = [
    "1.3.6.1.6.3.18.1.3.0",  // snmpTrapAddress
    "1.3.6.1.6.3.18.1.4.0",  // snmpTrapCommunity
    "1.3.6.1.6.3.1.1.4.3.0", // snmpTrapEnterprise
];

/// What was accepted lately, with a `T` for each that the caller wants back at a repeat. Decides
/// by the time it is given, milliseconds of any monotonic clock.
///
/// In memory only: an inform that is stored, and whose answer dies with the process, is new to the
/// next process when it is repeated. That one makes the same call of it, and the proxy knows it by
/// its `once`.
#[derive(Debug)]
pub struct Recent<T> {
    by_content: HashMap<String, Vec<Seen<T>>>,
    by_age: VecDeque<(u64, String)>,
    informs: HashMap<Vec<u8>, T>,
    informs_by_age: VecDeque<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Seen<T> {
    at_ms: u64,
    source: IpAddr,
    agent: IpAddr,
    agent_is_told: bool,
    versions: Vec<&'static str>,
    kept: T,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            by_content: HashMap::new(),
            by_age: VecDeque::new(),
            informs: HashMap::new(),
            informs_by_age: VecDeque::new(),
        }
    }
}

impl<T: Clone> Recent<T> {
    /// What was kept with the same trap in another version, if there was one just now. Otherwise
    /// the trap is new, and `keep` makes what is kept with it.
    pub fn admit(&mut self, now_ms: u64, facts: &TrapFacts, keep: impl FnOnce() -> T) -> Option<T> {
        self.forget(now_ms);
        let content = content_of(facts);
        let seen = self.by_content.entry(content.clone()).or_default();
        let same = seen.iter_mut().find(|seen| {
            !seen.versions.contains(&facts.version) && seen.is_of_the_same_agent(facts)
        });
        if let Some(same) = same {
            same.versions.push(facts.version);
            return Some(same.kept.clone());
        }
        seen.push(Seen {
            at_ms: now_ms,
            source: facts.source,
            agent: facts.agent,
            agent_is_told: facts.agent_is_told,
            versions: vec![facts.version],
            kept: keep(),
        });
        self.by_age.push_back((now_ms, content));
        None
    }

    /// What was kept with an inform of the same sender with the same bytes, if one came lately.
    /// `sender` and `datagram` in one: whatever tells this inform from all others.
    pub fn repeated(&mut self, now_ms: u64, inform: &[u8]) -> Option<T> {
        self.forget(now_ms);
        self.informs.get(inform).cloned()
    }

    /// Remembers an inform, so that its repeats are known.
    pub fn remember(&mut self, now_ms: u64, inform: Vec<u8>, kept: T) {
        if self.informs.insert(inform.clone(), kept).is_none() {
            self.informs_by_age.push_back((now_ms, inform));
        }
    }

    /// Forgets what is too old to matter, and the oldest where there is too much.
    fn forget(&mut self, now_ms: u64) {
        while let Some((at_ms, content)) = self.by_age.front() {
            let old = now_ms.saturating_sub(*at_ms) > SAME_WITHIN_MS;
            if !old && self.by_age.len() < RECENT_MAX {
                break;
            }
            if let Some(seen) = self.by_content.get_mut(content) {
                let at_ms = *at_ms;
                if let Some(at) = seen.iter().position(|seen| seen.at_ms <= at_ms) {
                    seen.remove(at);
                }
                if seen.is_empty() {
                    self.by_content.remove(content);
                }
            }
            self.by_age.pop_front();
        }
        while let Some((at_ms, inform)) = self.informs_by_age.front() {
            let old = now_ms.saturating_sub(*at_ms) > REPEATED_WITHIN_MS;
            if !old && self.informs_by_age.len() < INFORMS_MAX {
                break;
            }
            self.informs.remove(inform);
            self.informs_by_age.pop_front();
        }
    }
}

impl<T> Seen<T> {
    /// SNMPv1 says which agent it is from, SNMPv2c mostly leaves it to the sender's address: then
    /// the addresses that they were sent from are compared.
    fn is_of_the_same_agent(&self, facts: &TrapFacts) -> bool {
        self.agent == facts.agent
            || self.source == facts.source && !(self.agent_is_told && facts.agent_is_told)
    }
}

/// All that must be equal: trap, uptime and variables, without what differs between versions.
fn content_of(facts: &TrapFacts) -> String {
    let notification = &facts.notification;
    let mut content = format!("{} {}", plain_trap(&notification.trap), notification.uptime);
    for variable in &notification.variables {
        if ABOUT_THE_ORIGIN.contains(&variable.oid.as_str()) {
            continue;
        }
        let text = variable.value.text();
        let letter = variable.value.letter();
        content.push_str(&format!(" {} {letter} {} {text}", variable.oid, text.len()));
    }
    content
}

/// A trap of a MIB without a zero before its last number has one in SNMPv1 (RFC 3584 §3.1).
fn plain_trap(trap: &str) -> String {
    match trap.rsplit_once('.') {
        Some((enterprise, last)) => {
            format!("{}.{last}", enterprise.strip_suffix(".0").unwrap_or(enterprise))
        }
        None => trap.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::snmp::message;
    use std::path::Path;

    fn captured(name: &str, source: &str) -> TrapFacts {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/snmp/captured");
        let message = message::read(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        let source = source.parse().unwrap();
        TrapFacts::new(message.version, source, &message.community, message.notification)
    }

    // EXT-2
    #[test]
    fn trap_of_snmpd_in_both_versions_is_one_message() {
        for event in ["authfail", "coldstart", "shutdown"] {
            let v1 = captured(&format!("snmpd-{event}-v1.bin"), "127.0.0.1");
            let v2c = captured(&format!("snmpd-{event}-v2c.bin"), "127.0.0.1");
            for (first, second) in [(&v1, &v2c), (&v2c, &v1)] {
                let mut recent = Recent::default();
                assert_eq!(recent.admit(0, first, || 1), None, "{event}");
                assert_eq!(recent.admit(2_000, second, || 2), Some(1), "{event}");
                assert_eq!(recent.admit(2_000, second, || 3), None, "{event}: same version again");
            }
        }
    }

    #[test]
    fn trap_in_another_version_later_or_from_elsewhere_is_another_message() {
        let v1 = captured("snmpd-coldstart-v1.bin", "127.0.0.1");
        let v2c = captured("snmpd-coldstart-v2c.bin", "127.0.0.1");
        let mut recent = Recent::default();
        assert_eq!(recent.admit(0, &v1, || 1), None);
        assert_eq!(recent.admit(2_001, &v2c, || 2), None);
        let elsewhere = captured("snmpd-coldstart-v1.bin", "192.0.2.99");
        let mut recent = Recent::default();
        assert_eq!(recent.admit(0, &v2c, || 1), None);
        let mut other = elsewhere;
        other.agent = "192.0.2.98".parse().unwrap();
        assert_eq!(recent.admit(1, &other, || 2), None);
    }

    #[test]
    fn two_events_in_two_versions_each_are_two_messages() {
        let v1 = captured("snmpd-authfail-v1.bin", "127.0.0.1");
        let v2c = captured("snmpd-authfail-v2c.bin", "127.0.0.1");
        let mut recent = Recent::default();
        assert_eq!(recent.admit(0, &v1, || 1), None);
        assert_eq!(recent.admit(1, &v1, || 2), None);
        assert_eq!(recent.admit(2, &v2c, || 3), Some(1));
        assert_eq!(recent.admit(3, &v2c, || 4), Some(2));
        assert_eq!(recent.admit(4, &v2c, || 5), None);
    }

    #[test]
    fn what_is_remembered_stays_bounded() {
        let mut recent = Recent::default();
        let mut facts = captured("snmpd-coldstart-v1.bin", "127.0.0.1");
        for uptime in 0..(RECENT_MAX as u32 + 500) {
            facts.notification.uptime = uptime;
            assert_eq!(recent.admit(1, &facts, || ()), None);
        }
        assert!(recent.by_age.len() <= RECENT_MAX);
        assert_eq!(recent.by_content.len(), recent.by_age.len());
        recent.forget(10_000);
        assert!(recent.by_content.is_empty() && recent.by_age.is_empty());
    }

    #[test]
    fn repeated_inform_is_known_for_a_while() {
        let mut recent = Recent::default();
        assert_eq!(recent.repeated(0, b"a"), None);
        recent.remember(0, b"a".to_vec(), 1);
        assert_eq!(recent.repeated(REPEATED_WITHIN_MS, b"a"), Some(1));
        assert_eq!(recent.repeated(REPEATED_WITHIN_MS, b"b"), None);
        assert_eq!(recent.repeated(REPEATED_WITHIN_MS + 1, b"a"), None);
    }
}
