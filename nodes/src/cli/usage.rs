//! What a command line that cannot be read is answered, in the form of contract §2.
use clap::error::ErrorKind;

use super::common::Failure;

/// Longest list of required arguments or values that goes into one line, characters: a terminal or
/// two.
const LINE_CHARS_MAX: usize = 400;

/// The failure that a clap error means: its first paragraph is the message, the rest is help.
pub fn failure(error: &clap::Error) -> Failure {
    let incomplete = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let (mut message, mut help) = (Vec::new(), Vec::new());
    let rendered = error.render().to_string();
    let mut lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.by_ref() {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            help.push(usage.to_owned());
            break;
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            help.push(tip.to_owned());
        } else if let Some(values) = line.strip_prefix('[') {
            help.push(values.trim_end_matches(']').to_owned());
        } else if !line.starts_with("For more information") {
            message.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let message = match incomplete {
        // Then it was the help of the command, not an error, that stood before its usage.
        true => "the command line is not complete".to_owned(),
        false => message.join(" ").chars().take(LINE_CHARS_MAX).collect(),
    };
    help.push("--help behind a command tells its flags, with an example".to_owned());
    Failure::usage(message, help.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{Arg, Command};

    use super::*;

    fn failed(line: &str) -> Failure {
        let kind = Arg::new("kind").value_parser(["alarms", "events"]).required(true);
        let limit = Arg::new("limit").long("limit").value_parser(clap::value_parser!(u8));
        let ls = Command::new("ls").arg(kind).arg(limit);
        let up = Command::new("up").subcommand_required(true).subcommand(Command::new("now"));
        let command = Command::new("callhome").subcommand(ls).subcommand(up);
        let command = command.subcommand_required(true).arg_required_else_help(true);
        failure(&command.try_get_matches_from(line.split(' ')).unwrap_err())
    }

    #[test]
    fn each_kind_of_mistake_has_one_line_and_help() {
        for (line, said, helped) in [
            ("callhome ls kings", "invalid value 'kings' for '<kind>'", "possible values: alarms"),
            ("callhome ls", "were not provided: <kind>", "callhome ls"),
            ("callhome ls alarms --limit x", "invalid value 'x' for '--limit <limit>'", "--help"),
            ("callhome ls alarms --limits 1", "unexpected argument '--limits' found", "'--limit'"),
            ("callhome lss", "unrecognized subcommand 'lss'", "'ls'"),
            ("callhome", "the command line is not complete", "callhome"),
        ] {
            let failure = failed(line);
            assert_eq!(failure.code, 64);
            assert!(failure.message.contains(said), "{line}: {failure:?}");
            assert!(failure.help.contains(helped), "{line}: {failure:?}");
            assert!(!failure.message.contains("error") && !failure.message.contains('\n'));
        }
    }
}
