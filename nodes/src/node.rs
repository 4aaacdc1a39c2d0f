//! `callhome node`: one node by its roles and its configuration file.
use std::{net::SocketAddr, path::PathBuf};

use crate::{
    cli::common::Common,
    config::{Config, Environment, Problem, Wanted, discover},
    launch::{LaunchError, Settings, launch},
    portal,
    process::{Process, Signals, start_logging},
    programs::Programs,
    role::{Role, RoleSet},
    up::programs,
};

/// Starts one node.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome node --role proxy --config /etc/callhome/callhome.xml")]
pub struct NodeArgs {
    /// What it is for, as in the file; repeat it for several roles in one node
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// Its configuration [DIR/callhome.xml, /etc/callhome/callhome.xml, $CALLHOME_CONFIG_URL, …]
    #[arg(long, value_name = "FILE|URL")]
    pub config: Option<String>,
    /// Allow fault drills
    #[arg(long)]
    pub drills: bool,
    /// Allow plain doors and parents on loopback and private addresses
    #[arg(long)]
    pub insecure: bool,
}

fn all_told(problems: &[Problem]) -> LaunchError {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    LaunchError::new(78, told.join("\n"), "callhome check --config FILE tells all problems at once")
}

/// Runs until it is told to stop. Returns the exit code.
pub async fn run(args: &NodeArgs, common: &Common) -> Result<u8, LaunchError> {
    let signals = Signals::listen()?;
    let environment = Environment::of_process();
    let wanted =
        Wanted { config: args.config.as_deref(), data: &common.data, environment: &environment };
    let found = discover(&wanted).await.map_err(|problems| all_told(&problems))?;
    let parse = if args.insecure { Config::parse_insecure } else { Config::parse };
    let config = parse(&found.text, &found.name, &environment).map_err(|p| all_told(&p))?;
    start_logging(common.log.as_deref(), &config.telemetry.log);
    let roles = RoleSet::of(args.roles.iter().copied());
    if roles != config.roles {
        let message = format!("--role says {roles}, {} says {}", found.name, config.roles);
        return Err(LaunchError::new(78, message, "make them agree"));
    }
    let problems = config.launch_problems(args.insecure);
    if !problems.is_empty() {
        return Err(all_told(&problems));
    }
    if let Some(plain) = config.plain_told() {
        tracing::warn!(target: "node", node = config.name, "--insecure: {plain}");
    }
    let mut process = Process::begin(&common.data, config.doors.operator, args.drills)?;
    let ended = match config.roles.has(Role::ContentMlm) {
        true => content(&config, &mut process, signals).await,
        false => queued(&config, &mut process, signals).await,
    };
    process.end().await;
    ended
}

/// A node with a queue.
async fn queued(
    config: &Config,
    process: &mut Process,
    signals: Signals,
) -> Result<u8, LaunchError> {
    let data = process.data.clone();
    let socket = config.doors.integrator.as_ref().and_then(|door| door.socket.clone());
    let usual = PathBuf::from(crate::config::IntegratorDoor::SOCKET);
    let socket = socket.unwrap_or(usual);
    let settings = Settings {
        folder: &data,
        socket: socket.clone(),
        customers: Vec::new(),
        token: process.token.clone(),
        nodes: process.nodes.clone(),
        plain: config.plain_told(),
    };
    let node = launch(config, settings).await?;
    process.announce("operator.url", &format!("http://{}", process.operator))?;
    if let Some(api) = node.api {
        process.announce("server.url", &format!("http://{api}"))?;
    }
    let programs = Programs::start(programs(config, &data, &socket)?);
    let id = node.status.borrow().id.map_or("registering".to_owned(), |id| id.to_string());
    println!(
        "ready node={} id={id} {}operator=http://{}",
        node.name,
        doors(&node.exchange),
        process.operator
    );
    let code = tokio::select! {
        () = signals.told_to_stop() => 0,
        exit = node.ended() => {
            tracing::error!(target: "node", node = node.name, ?exit, "node gave up");
            70
        }
    };
    let drain = config.drain_within;
    let stopped = tokio::time::timeout(drain, async {
        programs.stop().await;
        node.stop().await;
    });
    if stopped.await.is_err() {
        tracing::warn!(target: "node", within_s = drain.as_secs(), "did not drain in time");
    }
    Ok(code)
}

fn doors(exchange: &Option<SocketAddr>) -> String {
    exchange.map(|door| format!("exchange={door} ")).unwrap_or_default()
}

/// A content MLM: pages over somebody's API, no queue.
async fn content(
    config: &Config,
    process: &mut Process,
    signals: Signals,
) -> Result<u8, LaunchError> {
    let (Some(content), Some(door)) = (&config.content, &config.doors.portal) else {
        return Err(LaunchError::new(
            78,
            "a content MLM needs <content> and a <portal> door",
            "callhome check --example content-mlm prints one",
        ));
    };
    let token = match &content.token {
        Some(file) => file.read().map_err(|e| LaunchError::new(78, e, "make the token's file"))?,
        None => process.token.to_string(),
    };
    let open = portal::open(door.bind, &content.server, &token)?;
    let url = format!("http://{}", open.address);
    process.announce("server.url", &url)?;
    process.announce("operator.url", &format!("http://{}", process.operator))?;
    let sessions = open.sessions();
    let base = url.clone();
    let make = move || Ok(format!("{base}/sign-in?code={}", portal::new_code(&sessions)?));
    println!("ready node={} portal={} operator=http://{}", config.name, make()?, process.operator);
    let _ = process.sign_in.set(std::sync::Arc::new(make));
    signals.told_to_stop().await;
    open.stop().await;
    Ok(0)
}
