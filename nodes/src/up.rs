//! `callhome up`: every role in one process, as separate nodes over loopback.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tracing::warn;
use uuid::Uuid;

use crate::{
    cli::common::Common,
    config::{Config, Environment, local},
    launch::{LaunchError, Node, Settings, launch},
    portal::{self, OpenPortal},
    process::{Process, Signals, start_logging, write_line},
    programs::{FailedAtStart, Program, Programs},
    role::{Role, RoleSet},
};

/// How long all nodes may take to be registered.
const REGISTERED_WITHIN: Duration = Duration::from_secs(30);
/// How long integrators may take to say that they are ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long the addresses of integrators may take to become free: those of an `up` that was killed
/// end by themselves, a moment later.
const FREED_WITHIN: Duration = Duration::from_secs(1);
/// Where the operator's door is unless ports are free ones.
const OPERATOR_PORT: u16 = 7070;

/// Starts everything on this machine: proxy, MLM, applications MLM, application server and portal,
/// with the snmp, syslog and inventory integrators.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome up --listen 127.0.0.1:0 --no-inventory")]
pub struct UpArgs {
    /// Address of portal and API; port 0 picks free ports everywhere
    #[arg(long, value_name = "A:P", default_value = "127.0.0.1:7080")]
    pub listen: SocketAddr,
    /// Address for SNMP traps, or off [127.0.0.1:1162; a free port with --listen …:0]
    #[arg(long, value_name = "A:P|off")]
    pub snmp: Option<Listen>,
    /// Address for syslog over UDP and TCP, or off [127.0.0.1:1514; likewise]
    #[arg(long, value_name = "A:P|off")]
    pub syslog: Option<Listen>,
    /// Do not collect the inventory of this host
    #[arg(long)]
    pub no_inventory: bool,
}

/// Where an integrator listens, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// It is not started.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                "an address and a port, such as 127.0.0.1:1162, or the word off".to_owned()
            }),
        }
    }
}

/// The two customers of a trial: who is served, and who serves.
struct Customers {
    local: Uuid,
    provider: Uuid,
}

/// The nodes of this process, the top first.
struct Running {
    nodes: Vec<Node>,
    portal: OpenPortal,
    programs: Programs,
}

/// Runs until it is told to stop. Returns the exit code.
pub async fn run(args: &UpArgs, common: &Common) -> Result<u8, LaunchError> {
    start_logging(common.log.as_deref(), "warn");
    let signals = Signals::listen()?;
    let free = args.listen.port() == 0;
    let operator =
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), if free { 0 } else { OPERATOR_PORT });
    let mut process = Process::begin(&common.data, operator, true)?;
    let running = match start(args, &process).await {
        Ok(running) => running,
        Err(failed) => {
            process.end().await;
            return Err(failed);
        }
    };
    let url = format!("http://{}", running.portal.address);
    process.announce("server.url", &url)?;
    process.announce("operator.url", &format!("http://{}", process.operator))?;
    let code = running.portal.new_code()?;
    let portal_url = url.clone();
    let sessions = running.portal.sessions();
    let _ = process.sign_in.set(std::sync::Arc::new(move || {
        Ok(format!("{portal_url}/sign-in?code={}", portal::new_code(&sessions)?))
    }));
    let integrators = match ready_words(&running.programs).await {
        Ok(words) => words,
        Err(failed) => {
            stop(running).await;
            process.end().await;
            return Err(failed);
        }
    };
    println!("ready portal={url}/sign-in?code={code} data={} {integrators}", common.data.display());
    let ended = wait(&running.nodes, signals).await;
    stop(running).await;
    process.end().await;
    Ok(ended)
}

/// 0 when told to stop, 70 when a node gave up.
async fn wait(nodes: &[Node], signals: Signals) -> u8 {
    let gave_up = futures_util::future::select_all(nodes.iter().map(|n| Box::pin(n.ended())));
    tokio::select! {
        () = signals.told_to_stop() => 0,
        (exit, at, _) = gave_up => {
            tracing::error!(target: "node", node = nodes[at].name, ?exit, "node gave up");
            70
        }
    }
}

async fn stop(running: Running) {
    running.programs.stop().await;
    running.portal.stop().await;
    // The lowest first: what it has sent is taken before its parent goes.
    for node in running.nodes.into_iter().rev() {
        node.stop().await;
    }
}

async fn start(args: &UpArgs, process: &Process) -> Result<Running, LaunchError> {
    let integrators = integrators(args);
    if !process.data.join(Role::Proxy.as_str()).join("callhome.xml").exists() {
        can_listen(&integrators).await?;
    }
    let customers = customers(&process.data)?;
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let mut nodes: Vec<Node> = Vec::new();
    let roles = [Role::AppServer, Role::ApplicationsMlm, Role::Mlm, Role::Proxy];
    let mut parent: Option<String> = None;
    let mut api = None;
    for role in roles {
        let provider = matches!(role, Role::AppServer | Role::ApplicationsMlm);
        let socket = process.data.join("proxy/integrator.sock");
        let proxy = role == Role::Proxy;
        let wanted = local::LocalNode {
            name: role.as_str(),
            roles: RoleSet::of([role]),
            customer: if provider { customers.provider } else { customers.local },
            group: provider.then_some("provider"),
            parent: parent.as_deref(),
            exchange: (!proxy).then_some(local),
            operator: local,
            api: (role == Role::AppServer).then_some(local),
            portal: None,
            content: None,
            socket: None,
            integrators: if proxy { &integrators } else { &[] },
        };
        let config = configuration(&wanted, &process.data)?;
        let folder = process.data.join(role.as_str());
        let known = [(customers.local, "local"), (customers.provider, "provider")];
        let settings = Settings {
            folder: &folder,
            socket,
            customers: known.map(|(id, name)| (id, name.to_owned())).to_vec(),
            token: process.token.clone(),
            nodes: process.nodes.clone(),
            plain: None,
        };
        let node = launch(&config, settings).await?;
        parent = node.exchange.map(|door| format!("http://{door}"));
        api = api.or(node.api);
        if proxy {
            registered(&mut nodes, node).await?;
            let programs = programs(&config, &process.data, &folder.join("integrator.sock"))?;
            let api = api.ok_or_else(|| {
                LaunchError::new(78, "application server has no <api> door", "add one")
            })?;
            let portal = portal::open(args.listen, &format!("http://{api}"), &process.token)?;
            return Ok(Running { nodes, portal, programs: Programs::start(programs) });
        }
        nodes.push(node);
    }
    Err(LaunchError::new(70, "no proxy was started", "this is a fault of ours"))
}

/// Waits until every node has its id.
async fn registered(nodes: &mut Vec<Node>, last: Node) -> Result<(), LaunchError> {
    nodes.push(last);
    let until = tokio::time::Instant::now() + REGISTERED_WITHIN;
    for node in nodes {
        let mut status = node.status.clone();
        let known = tokio::time::timeout_at(until, status.wait_for(|s| s.id.is_some())).await;
        if !matches!(known, Ok(Ok(_))) {
            let detail = node.status.borrow().detail.clone();
            let message = format!("node {} is not registered: {detail}", node.name);
            return Err(LaunchError::new(75, message, "start again with --log info to see why"));
        }
    }
    Ok(())
}

/// The node's own file where there is one, else what we write; both go through the checker.
fn configuration(node: &local::LocalNode<'_>, data: &Path) -> Result<Config, LaunchError> {
    let path = data.join(node.name).join("callhome.xml");
    let (text, file) = match std::fs::read_to_string(&path) {
        Ok(text) => (text, path.display().to_string()),
        Err(_) => (local::node_xml(node), format!("{} of up", node.name)),
    };
    let environment = Environment::of_process();
    let config = Config::parse(&text, &file, &environment).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        LaunchError::new(78, all.join("\n"), "callhome check --config FILE tells all problems")
    })?;
    let problems = config.launch_problems(true);
    match problems.is_empty() {
        true => Ok(config),
        false => {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(LaunchError::new(78, all.join("\n"), "mend the file named above"))
        }
    }
}

/// Draws the two customers once.
fn customers(data: &Path) -> Result<Customers, LaunchError> {
    let path = data.join("customers");
    let read = std::fs::read_to_string(&path).unwrap_or_default();
    let mut known = read.lines().filter_map(|line| {
        let (name, id) = line.split_once(' ')?;
        Some((name.to_owned(), id.trim().parse::<Uuid>().ok()?))
    });
    let local = known.find(|(name, _)| name == "local").map(|(_, id)| id);
    let provider = known.find(|(name, _)| name == "provider").map(|(_, id)| id);
    if let (Some(local), Some(provider)) = (local, provider) {
        return Ok(Customers { local, provider });
    }
    let drawn = Customers { local: Uuid::now_v7(), provider: Uuid::now_v7() };
    let lines = format!("local {}\nprovider {}", drawn.local, drawn.provider);
    write_line(&path, &lines, 0o600).map_err(|e| {
        LaunchError::new(69, format!("{}: {e}", path.display()), "look at the folder's rights")
    })?;
    Ok(drawn)
}

/// Integrators by kind with their options.
fn integrators(args: &UpArgs) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let free = args.listen.port() == 0;
    let address = |given: Option<Listen>, port: u16| {
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, if free { 0 } else { port }));
        match given.unwrap_or(Listen::At(usual)) {
            Listen::Off => None,
            Listen::At(address) => Some(address.to_string()),
        }
    };
    let mut wanted = Vec::new();
    if let Some(address) = address(args.snmp, 1162) {
        wanted.push(("snmp", vec![("listen", address)]));
    }
    if let Some(address) = address(args.syslog, 1514) {
        let both = vec![("listen-udp", address.clone()), ("listen-tcp", address)];
        wanted.push(("syslog", both));
    }
    if !args.no_inventory {
        wanted.push(("inventory", Vec::new()));
    }
    wanted
}

/// Tries the addresses of the integrators before anything is started: who has no port for them is
/// told so at once, with the flag of this command. They bind for themselves later.
async fn can_listen(integrators: &[(&str, Vec<(&str, String)>)]) -> Result<(), LaunchError> {
    let until = tokio::time::Instant::now() + FREED_WITHIN;
    for (kind, options) in integrators {
        for (option, address) in options {
            while let Err((protocol, error)) = try_to_bind(option, address) {
                if tokio::time::Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let message = format!("{kind} cannot listen on {address} ({protocol}): {error}");
                let help = format!(
                    "free the address, choose another with --{kind} A:P, or do without: --{kind} off"
                );
                return Err(LaunchError::new(69, message, help));
            }
        }
    }
    Ok(())
}

fn try_to_bind(option: &str, address: &str) -> Result<(), (&'static str, std::io::Error)> {
    match option {
        "listen-tcp" => TcpListener::bind(address).map(drop).map_err(|e| ("TCP", e)),
        _ => UdpSocket::bind(address).map(drop).map_err(|e| ("UDP", e)),
    }
}

/// The processes of a proxy's `<integrators>`.
pub fn programs(config: &Config, data: &Path, socket: &Path) -> Result<Vec<Program>, LaunchError> {
    use crate::config::IntegratorProgram;
    let own = std::env::current_exe()
        .map_err(|e| LaunchError::new(70, format!("own program: {e}"), "restart the node"))?;
    let make = |integrator: &crate::config::Integrator| {
        let (path, mut arguments): (PathBuf, Vec<String>) = match &integrator.program {
            IntegratorProgram::Kind(kind) => {
                (own.clone(), vec!["integrator".to_owned(), kind.clone()])
            }
            IntegratorProgram::Program(path) => (path.clone(), Vec::new()),
        };
        arguments.extend(["--name".to_owned(), integrator.name.clone()]);
        for (name, value) in &integrator.options {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
        let variables = vec![
            ("CALLHOME_SOCKET".to_owned(), socket.display().to_string()),
            ("CALLHOME_DATA".to_owned(), data.display().to_string()),
        ];
        Program { name: integrator.name.clone(), path, arguments, variables }
    };
    Ok(config.integrators.iter().map(make).collect())
}

/// `snmp=A:P syslog=A:P`, as the integrators said when they were ready.
///
/// # Errors
/// 69: one ended before it was ready, in a way that starting it again does not mend.
async fn ready_words(programs: &Programs) -> Result<String, LaunchError> {
    let until = tokio::time::Instant::now() + READY_WITHIN;
    while !programs.all_ready() && tokio::time::Instant::now() < until {
        if let Some(FailedAtStart { name, code }) = programs.failed_at_start() {
            let help = match name.as_str() {
                "inventory" => "its own words are above; --no-inventory does without it".to_owned(),
                "snmp" | "syslog" => {
                    format!("its own words are above; --{name} off does without it")
                }
                _ => "its own words are above; see <integrators> in the proxy's file".to_owned(),
            };
            let message = format!("integrator {name} cannot start (it ended with {code})");
            return Err(LaunchError::new(69, message, help));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut words = Vec::new();
    for (name, line) in programs.ready() {
        let address = line.split(' ').find_map(|word| word.strip_prefix("udp="));
        if let Some(address) = address {
            words.push(format!("{name}={address}"));
        }
    }
    if !programs.all_ready() {
        warn!(target: "integrators", "some integrators are not ready yet; the log says why");
    }
    words.sort();
    Ok(words.join(" "))
}
