//! Who may connect: the owner, root, and the socket's group, by the kernel's word.
use extension::integrators::PeerCredentials;

/// Whom the socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// User of this process.
    pub(crate) owner: u32,
    /// Group of the socket's file.
    pub(crate) group: u32,
}

impl Rule {
    /// Whether that peer may; `groups` are its further groups.
    pub(crate) fn allows(&self, peer: &PeerCredentials, groups: &[u32]) -> bool {
        peer.uid == self.owner
            || peer.uid == 0
            || peer.gid == self.group
            || groups.contains(&self.group)
    }

    /// The same, asking the system for the further groups where they matter.
    pub(crate) fn lets_in(&self, peer: &PeerCredentials) -> bool {
        self.allows(peer, &[]) || self.allows(peer, &further_groups(peer))
    }
}

/// Further groups of a process; none where the system does not tell, which lets nobody in.
fn further_groups(peer: &PeerCredentials) -> Vec<u32> {
    let Some(pid) = peer.pid else { return Vec::new() };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    groups_of(&status, peer.uid)
}

/// The groups in a `/proc/PID/status`, if the process still is that user's.
fn groups_of(status: &str, uid: u32) -> Vec<u32> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let numbers = |text: &str| -> Vec<u32> {
        text.split_whitespace().filter_map(|n| n.parse().ok()).collect()
    };
    // The number may be another process's by now: its user must be the one that connected.
    match line("Uid:").map(numbers) {
        Some(uids) if uids.contains(&uid) => line("Groups:").map(numbers).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32) -> PeerCredentials {
        PeerCredentials { uid, gid, pid: None }
    }

    #[test]
    fn owner_root_and_group_may_connect_and_nobody_else() {
        let rule = Rule { owner: 990, group: 998 };
        assert!(rule.allows(&peer(990, 5), &[]));
        assert!(rule.allows(&peer(0, 5), &[]));
        assert!(rule.allows(&peer(7, 998), &[]));
        assert!(rule.allows(&peer(7, 5), &[4, 998]));
        assert!(!rule.allows(&peer(7, 5), &[4, 999]));
        assert!(!rule.lets_in(&peer(7, 5)));
    }

    #[test]
    fn further_groups_count_only_while_the_process_is_the_same_users() {
        let status = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t5\t5\t5\t5\nGroups:\t4 998 \n";
        assert_eq!(groups_of(status, 7), [4, 998]);
        assert!(groups_of(status, 8).is_empty());
        assert!(groups_of("", 7).is_empty());
    }
}
