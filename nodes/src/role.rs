//! The roles a node may have: their names, and which sets of them this build can launch.

use std::fmt;
use std::str::FromStr;

/// What a node is for. The order is the way of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The node at a site.
    Proxy,
    /// An intermediate MLM: customer or aggregation (MLM-1).
    Mlm,
    /// The gateway in front of the application server.
    ApplicationsMlm,
    /// Store, publish/subscribe, service modules, directory.
    AppServer,
    /// Portal and API.
    ContentMlm,
    /// Issues, revokes and distributes certificates.
    CertificateManager,
    /// Hands out bandwidth.
    BandwidthManager,
}

impl Role {
    /// All of them, in order.
    pub const ALL: [Role; 7] = [
        Role::Proxy,
        Role::Mlm,
        Role::ApplicationsMlm,
        Role::AppServer,
        Role::ContentMlm,
        Role::CertificateManager,
        Role::BandwidthManager,
    ];

    /// The name in files, flags and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Proxy => "proxy",
            Role::Mlm => "mlm",
            Role::ApplicationsMlm => "applications-mlm",
            Role::AppServer => "app-server",
            Role::ContentMlm => "content-mlm",
            Role::CertificateManager => "certificate-manager",
            Role::BandwidthManager => "bandwidth-manager",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Role, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or_else(|| UnknownRole(name.to_owned()))
    }
}

/// A word that names no role; says which do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role \"{0}\" is not known; one of: {list}", list = Role::ALL.map(Role::as_str).join(" "))]
pub struct UnknownRole(pub String);

/// The roles of one node: one node, one store, one hop, whatever their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleSet(Vec<Role>);

impl RoleSet {
    /// Of some roles; order and repetition do not matter.
    pub fn of(roles: impl IntoIterator<Item = Role>) -> RoleSet {
        let mut roles: Vec<Role> = roles.into_iter().collect();
        roles.sort();
        roles.dedup();
        RoleSet(roles)
    }

    /// Whether a role is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether one of these is among them.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(*role))
    }

    /// The roles, in the order of [`Role::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node of these roles has a durable queue and a ledger: all but the content MLM.
    pub fn has_queue(&self) -> bool {
        self.0.iter().any(|role| *role != Role::ContentMlm)
    }

    /// `None` when this build can launch them; else why not, with the words `not built yet`.
    pub fn not_built(&self) -> Option<String> {
        use Role::{AppServer, ApplicationsMlm, BandwidthManager, CertificateManager};
        let manager = |role: &Role| matches!(role, CertificateManager | BandwidthManager);
        if let Some(role) = self.0.iter().copied().find(manager) {
            return Some(format!("role {role} is not built yet"));
        }
        match self.0.as_slice() {
            [_] | [ApplicationsMlm, AppServer] => None,
            [] => Some("a node without a role is not built yet".to_owned()),
            _ => Some(format!("roles {self} in one node are not built yet")),
        }
    }
}

impl fmt::Display for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Role::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_role_alone_and_the_provider_pair_are_built_but_for_the_managers() {
        use Role::*;
        for role in [Proxy, Mlm, ApplicationsMlm, AppServer, ContentMlm] {
            assert_eq!(RoleSet::of([role]).not_built(), None);
        }
        assert_eq!(RoleSet::of([AppServer, ApplicationsMlm]).not_built(), None);
        for set in [
            RoleSet::of([CertificateManager]),
            RoleSet::of([BandwidthManager, AppServer]),
            RoleSet::of([Proxy, Mlm]),
            RoleSet::of([AppServer, ContentMlm]),
            RoleSet::default(),
        ] {
            assert!(set.not_built().unwrap().contains("not built yet"), "{set}");
        }
    }

    #[test]
    fn a_role_is_read_by_its_name() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>(), Ok(role));
        }
        let error = "server".parse::<Role>().unwrap_err().to_string();
        assert!(error.starts_with("role \"server\" is not known; one of: proxy mlm"), "{error}");
    }
}
