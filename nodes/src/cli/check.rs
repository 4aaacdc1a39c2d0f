//! `callhome check`: what a node would say of its configuration and stores, without changing them.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::common::Common;
use crate::config::{
    Checkup, Code, Environment, Found, Level, Origin, Problem, Wanted, check, digest, discover,
    is_policy, read_file,
};
use crate::policy::Policy;
use crate::role::Role;

/// All is well.
const OK: u8 = 0;
/// A check says no (sysexits EX_DATAERR): stores alone have problems.
const NOT_OK: u8 = 65;
/// The configuration has problems (sysexits EX_CONFIG).
const CONFIGURATION: u8 = 78;

/// Most nodes looked for under a data folder; `up` makes four.
const NODES_MAX: usize = 64;

/// Flags of `callhome check`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome check --config callhome.xml --no-environment")]
pub struct CheckArgs {
    /// A file or address, instead of looking where a node looks
    #[arg(long, value_name = "FILE|URL")]
    pub config: Option<String>,
    /// Print a commented example for a role and end
    #[arg(long, value_name = "ROLE", conflicts_with_all = ["config", "print"])]
    pub example: Option<Role>,
    /// Print the configuration as it works, defaults filled in; secrets stay references
    #[arg(long)]
    pub print: bool,
    /// Leave ${NAME} as it is: for checking another machine's file
    #[arg(long)]
    pub no_environment: bool,
    /// Where nodes keep their files; a flag of all commands.
    #[arg(skip)]
    pub data: PathBuf,
    /// How the result looks; a flag of all commands.
    #[arg(skip)]
    pub format: Format,
}

/// How a result looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The commented example for a role; the shipped file of `deploy/config`.
pub fn example(role: Role) -> &'static str {
    match role {
        Role::Proxy => include_str!("../../../deploy/config/callhome-proxy.xml"),
        Role::Mlm => include_str!("../../../deploy/config/callhome-mlm.xml"),
        Role::ApplicationsMlm => {
            include_str!("../../../deploy/config/callhome-applications-mlm.xml")
        }
        Role::AppServer => include_str!("../../../deploy/config/callhome-app-server.xml"),
        Role::ContentMlm => include_str!("../../../deploy/config/callhome-content-mlm.xml"),
        Role::CertificateManager => {
            include_str!("../../../deploy/config/callhome-certificate-manager.xml")
        }
        Role::BandwidthManager => {
            include_str!("../../../deploy/config/callhome-bandwidth-manager.xml")
        }
    }
}

/// What a check found; printed by [`run`].
#[derive(Debug, Default)]
pub struct Findings {
    /// All problems: configurations, then policies, then stores, each in the order of its file.
    pub problems: Vec<Problem>,
    /// `ok FILE sha256:…` of each configuration without a problem.
    pub fine: Vec<String>,
    /// The effective configurations of those.
    pub effective: Vec<String>,
}

impl Findings {
    /// 0, 65 when only stores have problems, 78.
    pub fn exit_code(&self) -> u8 {
        let mut errors = self.problems.iter().filter(|p| p.level == Level::Error).peekable();
        if errors.peek().is_none() {
            OK
        } else if errors.all(|problem| problem.code == Code::Damaged) {
            NOT_OK
        } else {
            CONFIGURATION
        }
    }

    fn text(&mut self, found: &Found, environment: &Environment) {
        if is_policy(&found.text) {
            match Policy::parse(&found.text, &found.name, environment) {
                Err(problems) if problems.iter().any(|p| p.place.is_some()) => {
                    self.problems.extend(problems);
                }
                _ => self.fine.push(ok_line(found)),
            }
            return;
        }
        let Checkup { problems, effective, .. } = check(&found.text, &found.name, environment);
        if problems.is_empty() {
            self.fine.push(ok_line(found));
        }
        self.problems.extend(problems);
        self.effective.extend(effective);
    }
}

fn ok_line(found: &Found) -> String {
    format!("ok {} {}", found.name, digest(&found.text))
}

/// Runs the command and returns its exit code. `stores` tells the problems of the stores under a
/// data folder (code [`Code::Damaged`]), without changing them.
pub fn run(args: &CheckArgs, common: &Common, stores: &dyn Fn(&Path) -> Vec<Problem>) -> u8 {
    let args = CheckArgs { data: common.data.clone(), format: common.format, ..args.clone() };
    let mut out = std::io::stdout().lock();
    if let Some(role) = args.example {
        // A reader that went away is no reason to fail.
        let _ = out.write_all(example(role).as_bytes());
        return OK;
    }
    let findings = findings(&args, &Environment::of_process(), stores);
    let code = findings.exit_code();
    let text = if args.format == Format::Json && !(args.print && code == OK) {
        serde_json::to_string(&findings.problems).unwrap_or_default() + "\n"
    } else if code != OK || !findings.problems.is_empty() {
        findings.problems.iter().map(|problem| format!("{problem}\n")).collect()
    } else if args.print {
        // The result is the XML, so that it can be piped; the rest goes where it does not disturb.
        for line in &findings.fine {
            eprintln!("{line}");
        }
        findings.effective.concat()
    } else {
        findings.fine.iter().map(|line| format!("{line}\n")).collect()
    };
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    code
}

/// All that is wrong with the configurations, policies and stores that `args` name.
pub fn findings(
    args: &CheckArgs,
    process: &Environment,
    stores: &dyn Fn(&Path) -> Vec<Problem>,
) -> Findings {
    let environment = if args.no_environment { Environment::not_read() } else { process.clone() };
    let mut findings = Findings::default();
    let mut folders: Vec<PathBuf> = vec![args.data.clone()];
    let nodes = nodes_of_up(&args.data);
    // Under `up` each node has a store of its own; under `node` it lies directly in DATA. Which
    // configuration is looked at changes nothing in that.
    let mut with_store = vec![args.data.clone()];
    with_store.extend(nodes.iter().cloned());
    let nodes = if args.config.is_some() { Vec::new() } else { nodes };
    if nodes.is_empty() {
        let wanted =
            Wanted { config: args.config.as_deref(), data: &args.data, environment: process };
        match discover_blocking(&wanted) {
            Ok(found) => {
                if let Origin::File(path) = &found.origin {
                    folders.extend(path.parent().map(Path::to_path_buf));
                }
                findings.text(&found, &environment);
            }
            Err(problems) => findings.problems.extend(problems),
        }
    }
    for folder in nodes {
        let path = folder.join("callhome.xml");
        if path.exists() {
            match read_file(&path) {
                Ok(found) => findings.text(&found, &environment),
                Err(problem) => findings.problems.push(problem),
            }
        } else {
            findings.fine.push(format!("ok {}", folder.display()));
        }
        folders.push(folder);
    }
    policies(&mut folders, &environment, &mut findings);
    for folder in with_store.iter().filter(|folder| folder.exists()) {
        findings.problems.extend(stores(folder));
    }
    findings
}

/// Policies beside configurations and in data folders; one that is sound is not spoken of.
fn policies(folders: &mut Vec<PathBuf>, environment: &Environment, findings: &mut Findings) {
    folders.sort();
    folders.dedup();
    for path in folders.iter().map(|folder| folder.join("policy.xml")) {
        if !path.exists() {
            continue;
        }
        let parsed = read_file(&path)
            .map_err(|problem| vec![problem])
            .and_then(|found| Policy::parse(&found.text, &found.name, environment));
        if let Err(problems) = parsed {
            findings.problems.extend(problems.into_iter().filter(|p| p.place.is_some()));
        }
    }
}

/// Folders of the nodes `up` keeps under a data folder: those with a store or a configuration;
/// none when the data folder has a configuration of its own.
fn nodes_of_up(data: &Path) -> Vec<PathBuf> {
    if data.join("callhome.xml").exists() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(data) else { return Vec::new() };
    let is_node =
        |path: &PathBuf| path.join("store.redb").exists() || path.join("callhome.xml").exists();
    let mut nodes: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_node)
        .take(NODES_MAX)
        .collect();
    nodes.sort();
    nodes
}

/// Discovery on a thread and runtime of its own, so that callers may have a runtime or none.
fn discover_blocking(wanted: &Wanted<'_>) -> Result<Found, Vec<Problem>> {
    let failed = |message: String| {
        let help = "this machine is out of threads or memory; try again".to_owned();
        let data = wanted.data.display().to_string();
        Err(vec![Problem::of_file(&data, Code::Unresolved, message, help)])
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(discover(wanted)),
                Err(error) => failed(format!("no runtime to look with: {error}")),
            }
        });
        thread.join().unwrap_or_else(|_| failed("looking for it was cut off".to_owned()))
    })
}
