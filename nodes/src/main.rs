//! Flags to configuration to launch to exit code.
use std::process::ExitCode;

use callhome::{
    cli::{
        check,
        commands::ClientCommand,
        common::{Common, Format, Given, Throughout, With, complain, finish},
        send,
        stopped::Stores,
        usage,
    },
    launch::LaunchError,
    node, programs, up,
};
use clap::{Parser, Subcommand};
use integrators::command::IntegratorCommand;

/// Remote services infrastructure: carries alarms, events and inventory home, durably, urgent
/// first.
#[derive(Debug, Parser)]
#[command(name = "callhome", version, after_help = "Try it: callhome up")]
struct Cli {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start every role on this machine, with integrators and portal
    Up(With<up::UpArgs>),
    /// Start one node
    Node(With<node::NodeArgs>),
    /// Start an integrator: a process that takes traps, lines or inventory to the proxy
    Integrator(Throughout<IntegratorCommand>),
    /// Send one message through the integrator API, for scripts
    Send(send::SendArgs),
    /// Check configuration and stores without changing them
    Check(With<check::CheckArgs>),
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    // A store that may abort whoever opens it is tried by a child of ours first (DESIGN §4.5).
    if let Some(code) = callhome::assemble::asked_to_probe() {
        return ExitCode::from(code);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, everything else is usage.
            if error.use_stderr() {
                return ExitCode::from(finish(Err(usage::failure(&error))));
            }
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
    };
    ExitCode::from(run(cli))
}

fn run(cli: Cli) -> u8 {
    match cli.command {
        Command::Up(with) => {
            let common = Common::from_environment(&cli.given, &with.given);
            started(block_on(up::run(&with.args, &common)))
        }
        Command::Node(with) => {
            let common = Common::from_environment(&cli.given, &with.given);
            started(block_on(node::run(&with.args, &common)))
        }
        Command::Integrator(with) => {
            integrate(with.args, &Common::from_environment(&cli.given, &with.given))
        }
        Command::Send(args) => send::run(&args, &cli.given),
        Command::Client(command) => block_on(command.run(&cli.given, &Stores)),
        Command::Check(with) => {
            let common = Common::from_environment(&cli.given, &with.given);
            check::run(&with.args, &common, &|folder| callhome::assemble::check_store(folder))
        }
    }
}

fn block_on<F: Future>(run: F) -> F::Output {
    actix_web::rt::System::new().block_on(run)
}

fn started(ended: Result<u8, LaunchError>) -> u8 {
    match ended {
        Ok(code) => code,
        Err(error) => {
            complain(&error.to_string(), &error.help);
            error.code
        }
    }
}

fn integrate(command: IntegratorCommand, common: &Common) -> u8 {
    callhome::process::start_logging(common.log.as_deref(), "info");
    programs::end_with_parent();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        eprintln!("callhome: error: no runtime: the machine has no file handles left");
        return 70;
    };
    let format = match common.format {
        Format::Table => integrators::common::Format::Table,
        Format::Json => integrators::common::Format::Json,
    };
    match runtime.block_on(integrators::command::run(command, &common.data, format)) {
        Ok(()) => 0,
        Err(error) => {
            complain(&error.to_string(), error.help().unwrap_or_default());
            error.exit_code()
        }
    }
}
