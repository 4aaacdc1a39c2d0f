//! A node's configuration: one XML file, checked as a whole; a `Config` is a proof that it was.
//!
//! ```text
//! text ─ xml ─▶ elements ─ checked (schema, value) ─▶ rules, links, doors ─▶ build ─▶ Config
//!                              │                          │
//!                              └──────── problems ◀───────┘
//! ```
//! All problems of a file are told at once, in its order, with line and column (INS-11). What this
//! build cannot launch yet is not a mistake of the file: see [`Config::launch_problems`].

mod attributes;
mod build;
mod calendar;
mod checked;
mod discover;
mod doors;
mod environment;
mod launchable;
mod links;
pub mod local;
mod print;
mod problem;
mod reach;
mod rules;
mod schema;
mod secret;
mod settings;
mod suggest;
mod value;
mod xml;

use sha2::{Digest, Sha256};

pub use calendar::Calendar;
pub use discover::{Found, Origin, Wanted, discover, read_file};
pub use environment::Environment;
pub use problem::{Code, Level, Place, Problem};
pub use reach::own_addresses;
pub use rules::INTEGRATOR_KINDS;
pub use secret::{SecretError, SecretFile};
pub use settings::*;
pub use xml::{DEPTH_MAX, ELEMENTS_MAX, FILE_BYTES_MAX, NAMESPACE};

pub(crate) use checked::Checked;
pub(crate) use schema::POLICY;

use crate::role::{Role, RoleSet};

/// What a proxy keeps unless told otherwise, bytes (contract §1).
pub const PROXY_STORE_BYTES: u64 = 4 << 30;

/// What other nodes keep unless told otherwise, bytes (contract §1).
pub const STORE_BYTES: u64 = 16 << 30;

/// The configuration of one node, checked: nothing in it contradicts the schema or itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file as it was named.
    pub file: String,
    /// `sha256:` and 64 hexadecimal digits, of the file as it is.
    pub digest: String,
    /// The node's name: as given, else the host's.
    pub name: String,
    /// What it is for.
    pub roles: RoleSet,
    /// Which kind of intermediate MLM, if it is one.
    pub mlm: MlmKind,
    /// How long it finishes what it began when told to stop.
    pub drain_within: std::time::Duration,
    /// Who it is.
    pub identity: Identity,
    /// How it talks.
    pub modules: Vec<CommunicationsModule>,
    /// To whom it sends.
    pub parents: Parents,
    /// Where it listens.
    pub doors: Doors,
    /// How much it keeps.
    pub store: Store,
    /// What leaves it, and when.
    pub throttle: Throttle,
    /// Shares of the line.
    pub bandwidth: Bandwidth,
    /// How often it says that it is there.
    pub heartbeat: Heartbeat,
    /// What comes down.
    pub back_channel: BackChannel,
    /// Attempts at a bulk transfer.
    pub bulk_attempts: u32,
    /// Its service modules, in order.
    pub services: Vec<Service>,
    /// The processes it starts.
    pub integrators: Vec<Integrator>,
    /// What the application server keeps.
    pub records: Records,
    /// Where a content MLM gets what it shows.
    pub content: Option<Content>,
    /// What the certificate manager issues with.
    pub certificates: Option<Certificates>,
    /// What it tells of itself.
    pub telemetry: Telemetry,
    effective: String,
    places: build::Places,
}

impl Config {
    /// Reads and checks the text of a file; `file` names it in problems.
    ///
    /// # Errors
    /// All problems of the file, in its order.
    pub fn parse(
        text: &str,
        file: &str,
        environment: &Environment,
    ) -> Result<Config, Vec<Problem>> {
        Config::of(check(text, file, environment), file)
    }

    /// As [`Config::parse`], for `node --insecure`: an aggregation MLM may have a plain door. That
    /// it is on a private address is for [`Config::launch_problems`] to see.
    ///
    /// # Errors
    /// All other problems of the file, in its order.
    pub fn parse_insecure(
        text: &str,
        file: &str,
        environment: &Environment,
    ) -> Result<Config, Vec<Problem>> {
        Config::of(check_with(text, file, environment, true), file)
    }

    fn of(checkup: Checkup, file: &str) -> Result<Config, Vec<Problem>> {
        match checkup.config {
            Some(config) => Ok(*config),
            None if checkup.problems.is_empty() => Err(vec![Problem::of_file(
                file,
                Code::Environment,
                "references were not looked up, so no node can start with it".to_owned(),
                "read it with the environment".to_owned(),
            )]),
            None => Err(checkup.problems),
        }
    }

    /// The configuration as it works: defaults filled in, variables put in, secrets as references.
    /// Parsed again it gives the same.
    pub fn effective(&self) -> &str {
        &self.effective
    }

    /// A communications module by its name; all that `via` says were resolved by the check.
    pub fn module(&self, via: &str) -> Option<&CommunicationsModule> {
        self.modules.iter().find(|module| module.name == via)
    }
}

/// What a check found.
#[derive(Debug)]
pub struct Checkup {
    /// All problems, in the order of the file.
    pub problems: Vec<Problem>,
    /// The effective configuration, when there is no problem.
    pub effective: Option<String>,
    /// `None` when there is a problem, or references were not to be looked up.
    pub config: Option<Box<Config>>,
}

/// Checks the text of a file, with or without looking up its references.
pub fn check(text: &str, file: &str, environment: &Environment) -> Checkup {
    check_with(text, file, environment, false)
}

fn check_with(text: &str, file: &str, environment: &Environment, insecure: bool) -> Checkup {
    let mut report = problem::Report::of(file);
    let node = check_tree(text, &schema::NODE, environment, &mut report);
    if let Some(node) = &node {
        rules::check(node, insecure, &mut report);
    }
    let problems = report.finish();
    let Some(node) = node.filter(|_| problems.is_empty()) else {
        return Checkup { problems, effective: None, config: None };
    };
    let effective = print::effective(&node, environment);
    if node.has_open_references() {
        return Checkup { problems, effective: Some(effective), config: None };
    }
    match build::config(&node, environment) {
        Some(mut config) => {
            config.file = file.to_owned();
            config.digest = digest(text);
            config.effective.clone_from(&effective);
            Checkup { problems, effective: Some(effective), config: Some(Box::new(config)) }
        }
        None => {
            let message = "a value passed the check and cannot be read".to_owned();
            let help = "this is a mistake of callhome: send the file to its makers".to_owned();
            let problem = Problem::at(file, node.at, Code::BadValue, message, help);
            Checkup { problems: vec![problem], effective: None, config: None }
        }
    }
}

/// Holds a text against the schema; the rules beyond it are the caller's.
pub(crate) fn check_tree(
    text: &str,
    rule: &'static schema::ElementRule,
    environment: &Environment,
    report: &mut problem::Report,
) -> Option<Checked> {
    match xml::read(text) {
        Ok(root) => checked::check_root(&root, rule, environment, report),
        Err(fault) => {
            report.add(fault.at, Code::NotWellFormed, fault.message, fault.help);
            None
        }
    }
}

/// Checks a text as a policy, for [`crate::policy`]: the tree, when there is no problem.
pub(crate) fn check_policy(
    text: &str,
    file: &str,
    environment: &Environment,
) -> Result<Checked, Vec<Problem>> {
    let mut report = problem::Report::of(file);
    let policy = check_tree(text, &POLICY, environment, &mut report);
    if let Some(policy) = &policy {
        for rule in policy.all("rule") {
            rules::hours(rule, &mut report);
        }
    }
    let problems = report.finish();
    policy.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Whether the root element of a text is a policy's; false also for what is not XML.
pub fn is_policy(text: &str) -> bool {
    xml::read(text).is_ok_and(|root| root.name == POLICY.name)
}

/// `sha256:` and the digest of a file's text in lower-case hexadecimal.
pub fn digest(text: &str) -> String {
    let mut digest = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        digest.push_str(&format!("{byte:02x}"));
    }
    digest
}

/// What a node of these roles keeps unless told otherwise, bytes.
pub fn default_store_bytes(roles: &RoleSet) -> u64 {
    if *roles == RoleSet::of([Role::Proxy]) { PROXY_STORE_BYTES } else { STORE_BYTES }
}
