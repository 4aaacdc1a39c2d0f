//! The commands that ask a running server or door, as one subcommand enum for `main.rs`.
use super::{
    action, alarm,
    common::{Common, Given, With},
    doctor, drill, ledger, ls,
    queue::{self, StoppedStores},
    support_bundle, trace,
};

/// Flatten it into the enum of all commands: `#[command(flatten)] Client(ClientCommand)`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// List customers, nodes, integrators, instances, alarms, events, messages, actions
    Ls(With<ls::Args>),
    /// Where a message is or what became of it, hop by hop
    Trace(With<trace::Args>),
    /// The account of every message, and whether it balances
    Ledger(With<ledger::Args>),
    /// What stands in a node's queues, running or stopped
    Queue(With<queue::Args>),
    /// Acknowledge, silence or close an alarm
    Alarm(With<alarm::Args>),
    /// Request a management action
    Action(With<action::Args>),
    /// Break an actor, or the clock, on purpose: only under `up`, or `node --drills`
    Drill(With<drill::DrillArgs>),
    /// Check this installation, and say what to do
    Doctor(With<doctor::Args>),
    /// Collect what somebody who helps needs to see, without secrets
    SupportBundle(With<support_bundle::Args>),
    /// Change what a running process logs
    Log(With<drill::LogArgs>),
    /// Print a new address that signs in to the portal, once
    SignIn(With<drill::SignInArgs>),
}

impl ClientCommand {
    /// The flags of all commands that stood after this one's name.
    pub fn given(&self) -> &Given {
        match self {
            Self::Ls(with) => &with.given,
            Self::Trace(with) => &with.given,
            Self::Ledger(with) => &with.given,
            Self::Queue(with) => &with.given,
            Self::Alarm(with) => &with.given,
            Self::Action(with) => &with.given,
            Self::Drill(with) => &with.given,
            Self::Doctor(with) => &with.given,
            Self::SupportBundle(with) => &with.given,
            Self::Log(with) => &with.given,
            Self::SignIn(with) => &with.given,
        }
    }

    /// Runs it; the exit code. `outer` are the flags before the name, `stopped` reads the stores
    /// of nodes that do not run.
    pub async fn run(&self, outer: &Given, stopped: &dyn StoppedStores) -> u8 {
        let common = Common::from_environment(outer, self.given());
        match self {
            Self::Ls(with) => ls::run(&with.args, &common).await,
            Self::Trace(with) => trace::run(&with.args, &common).await,
            Self::Ledger(with) => ledger::run(&with.args, &common).await,
            Self::Queue(with) => queue::run(&with.args, &common, stopped).await,
            Self::Alarm(with) => alarm::run(&with.args, &common).await,
            Self::Action(with) => action::run(&with.args, &common).await,
            Self::Drill(with) => drill::drill(&with.args, &common).await,
            Self::Doctor(with) => doctor::run(&with.args, &common).await,
            Self::SupportBundle(with) => support_bundle::run(&with.args, &common).await,
            Self::Log(with) => drill::log(&with.args, &common).await,
            Self::SignIn(with) => drill::sign_in(&with.args, &common).await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Callhome {
        #[command(flatten)]
        given: Given,
        #[command(subcommand)]
        command: ClientCommand,
    }

    #[test]
    fn the_command_line_holds_together() {
        Callhome::command().debug_assert();
    }

    #[test]
    fn common_flags_stand_before_and_after_the_name() {
        for line in [
            "callhome --data /d -o json ls alarms",
            "callhome ls alarms --data /d --format json",
            "callhome --data /other ls --data /d -o json alarms",
        ] {
            let cli = Callhome::try_parse_from(line.split(' ')).unwrap();
            let common = Common::of(&cli.given, cli.command.given(), |_| None);
            assert_eq!(common.data.to_str(), Some("/d"), "{line}");
            assert!(common.json(), "{line}");
        }
    }

    #[test]
    fn the_lines_of_the_contract_are_read() {
        for line in [
            "callhome ls messages --limit 0 --class alarm --customer local",
            "callhome trace x --wait 0",
            "callhome ledger proxy --check",
            "callhome queue fsck --node proxy",
            "callhome queue show x:1:u:1",
            "callhome alarm silence x --until 2h --comment hello",
            "callhome action db restart --param a=b --param c=d --ttl 5 --wait 3",
            "callhome action db --xml file.xml",
            "callhome drill panic durable_queue --node mlm --times 100 --every-ms 0",
            "callhome drill clock --off-by-s -3600",
            "callhome doctor",
            "callhome support-bundle out.tar",
            "callhome log debug",
            "callhome sign-in --data /d",
        ] {
            assert!(Callhome::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "callhome trace x --wait 46",
            "callhome ls",
            "callhome action db",
            "callhome drill panic",
            "callhome drill clock",
        ] {
            assert!(Callhome::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
