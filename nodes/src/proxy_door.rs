//! A proxy's own part: its role's tree, the customer's policy, and the integrator socket.
use std::{
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use extension::integrators::IntegratorDoor;
use roles::{
    delivery::upkeep::{NodeParts, NodeSettings},
    proxy::{
        consent::Consent,
        counted::Reports,
        identifiers::Identifiers,
        tree::{ProxySettings, tree},
    },
};
use supervision::ChildSpec;
use tracing::{Instrument, error, info, warn};

use crate::{
    assemble::{self, OpenSocket},
    config::{Config, Environment},
    launch::{LaunchError, Settings},
    policy::{Decision, Policy, Subject},
};

/// The socket of a proxy, and what it leads to.
pub struct ProxyDoor {
    door: Arc<dyn IntegratorDoor>,
    path: PathBuf,
    group: Option<String>,
    open: Option<OpenSocket>,
    /// How registration stands.
    pub registration: tokio::sync::watch::Receiver<roles::delivery::registration::NodeStatus>,
    /// What integrators count.
    pub reports: Arc<Reports>,
    /// Numbers of integrators and instances.
    pub identifiers: Arc<Identifiers>,
}

impl ProxyDoor {
    /// Opens the socket; integrators may connect from now on.
    pub fn open(&mut self) -> Result<PathBuf, LaunchError> {
        let group = self.group.as_deref();
        let open = assemble::integrator_socket(&self.path, group, self.door.clone())?;
        self.open = Some(open);
        Ok(self.path.clone())
    }

    /// Tells integrators that the proxy stops, answers what they sent, and closes the socket.
    pub async fn stop(self) {
        if let Some(open) = self.open {
            open.stop().await;
        }
    }
}

/// The proxy's subtree, and its door.
pub fn build(
    config: &Config,
    parts: NodeParts,
    node: NodeSettings,
    settings: &Settings<'_>,
) -> Result<(ChildSpec, ProxyDoor), LaunchError> {
    let door = config.doors.integrator.as_ref();
    let path = door.and_then(|d| d.socket.clone()).unwrap_or_else(|| settings.socket.clone());
    let proxy = ProxySettings {
        consent: CustomerPolicy::watched(settings.folder)?,
        at_once: config.back_channel.at_once as usize,
        keep: config.back_channel.keep,
        status_within: config.heartbeat.status_within,
        bytes_per_message: config.throttle.bytes_per_message.map(|bytes| bytes as usize),
    };
    let (child, reached) = tree(parts, node, proxy)
        .map_err(|e| LaunchError::new(70, e, "look at the disk of the data folder"))?;
    let group = door.and_then(|d| d.group.clone());
    let door = ProxyDoor {
        door: reached.door,
        path,
        group,
        open: None,
        registration: reached.registration,
        reports: reached.reports,
        identifiers: reached.identifiers,
    };
    Ok((child, door))
}

/// `policy.xml` in the node's folder: the administrator's, never written.
struct CustomerPolicy(RwLock<Option<Policy>>);

impl CustomerPolicy {
    /// The policy in that folder, read again at each HUP for as long as somebody asks it.
    fn watched(folder: &Path) -> Result<Arc<Self>, LaunchError> {
        let policy = Arc::new(Self(RwLock::new(read_policy(folder)?)));
        let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let mut hangup = hangup.map_err(|e| {
            LaunchError::new(70, format!("signals cannot be heard: {e}"), "restart the node")
        })?;
        let (watched, folder) = (Arc::downgrade(&policy), folder.to_owned());
        let reading = async move {
            while hangup.recv().await.is_some()
                && let Some(policy) = watched.upgrade()
            {
                policy.read_again(&folder);
            }
        };
        actix_web::rt::spawn(reading.in_current_span());
        Ok(policy)
    }

    /// One that cannot be read changes nothing: the customer's last word holds.
    fn read_again(&self, folder: &Path) {
        match read_policy(folder) {
            Ok(read) => {
                *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = read;
                info!(target: "node", "policy.xml was read again");
            }
            Err(problems) => {
                error!(target: "node", %problems, "policy.xml is not sound; the one before holds");
            }
        }
    }

    fn decide(&self, subject: Subject, name: &str, instance: &str) -> Option<Decision> {
        let policy = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = jiff::Timestamp::from_millisecond(crate::launch::clock()).ok()?;
        policy.as_ref().map(|policy| policy.decide(subject, name, instance, now))
    }
}

/// What `policy.xml` says; none where there is no such file.
fn read_policy(folder: &Path) -> Result<Option<Policy>, LaunchError> {
    let path = folder.join("policy.xml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            info!(target: "node", "no policy.xml: everything is sent, no action runs");
            return Ok(None);
        }
        // What the customer forbids is not known, which is not the same as nothing.
        Err(error) => {
            let told = format!("{}: {error}", path.display());
            return Err(LaunchError::new(78, told, "let the node read it, or take it away"));
        }
    };
    let file = path.display().to_string();
    Policy::parse(&text, &file, &Environment::of_process()).map(Some).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        LaunchError::new(78, told.join("\n"), "callhome check --config FILE tells all")
    })
}

impl Consent for CustomerPolicy {
    fn may_send(&self, class: &str, subclass: &str, instance: &str) -> bool {
        let name = match subclass.is_empty() {
            true => class.to_owned(),
            false => format!("{class}/{subclass}"),
        };
        self.decide(Subject::Send, &name, instance).is_none_or(|d| d != Decision::Deny)
    }

    fn may_act(&self, action: &str, instance: &str) -> bool {
        let allowed = self.decide(Subject::Action, action, instance) == Some(Decision::Allow);
        if !allowed {
            warn!(target: "audit", action, instance, "action not allowed by the customer's policy");
        }
        allowed
    }
}
