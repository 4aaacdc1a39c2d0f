//! Commands that need nothing running: help, usage, who does not answer, what a token is refused.
use std::process::Command;

use crate::{
    sandbox::{CALLHOME, callhome, text},
    support::{against, done, refused, shared},
};

const COMMANDS: [&[&str]; 17] = [
    &["up"],
    &["node"],
    &["integrator", "snmp"],
    &["integrator", "syslog"],
    &["integrator", "inventory"],
    &["check"],
    &["send"],
    &["ls"],
    &["trace"],
    &["ledger"],
    &["queue"],
    &["action"],
    &["alarm"],
    &["drill"],
    &["doctor"],
    &["log"],
    &["sign-in"],
];

#[test]
fn help_of_each_command_has_an_example() {
    for command in COMMANDS {
        let mut all = command.to_vec();
        all.push("--help");
        let output = callhome(&all);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let example = format!("callhome {}", command.join(" "));
        let shown = said.split("Usage:").nth(1).unwrap_or_default();
        assert!(
            shown.lines().skip(1).any(|line| line.contains(&example)),
            "{command:?} has no example:\n{said}"
        );
        assert!(output.stderr.is_empty());
        for flag in ["--data", "--format", "--log"] {
            assert!(said.contains(flag), "{command:?} has no {flag}:\n{said}");
        }
    }
}

#[test]
fn help_lists_only_what_works_and_version_tells_the_version() {
    let help = text(&callhome(&["--help"]).stdout);
    for reserved in ["throttle", "cert", "config", "update", "access", "bulk", "audit", "token"] {
        assert!(!help.lines().any(|l| l.trim_start().starts_with(&format!("{reserved} "))));
        assert_eq!(callhome(&[reserved]).status.code(), Some(64), "{reserved}");
    }
    let version = callhome(&["--version"]);
    assert_eq!(text(&version.stdout).trim(), concat!("callhome ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_cannot_be_read_is_usage() {
    for line in [
        "",
        "nothing",
        "up --nothing",
        "up --listen nowhere",
        "node",
        "node --role king",
        "ls",
        "ls kings",
        "trace",
        "trace nonsense",
        "send alarm",
        "send alarm --instance a --type b",
        "send alarm --instance a --type b --severity loud --text c",
        "send king --instance a",
        "send data --instance a",
        "send alarm --instance a --type b --severity minor --text c --at noon",
        "send data --instance a --class b --encoding text",
        "send alarm --instance a --type b --severity minor --text c --ttl never",
        "integrator",
        "up --snmp 127.0.0.1:x",
        "queue",
        "queue dance",
        "alarm ack",
        "alarm dance x",
        "action",
        "drill dance link",
        "drill panic",
        "log",
        "check --example king",
        "ls alarms -o yaml",
        "ls alarms --severity-min huge",
        "ls alarms --since yesterday",
        "integrator king",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = callhome(&arguments);
        let said = refused(&output, 64);
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("callhome: error: ") && lines.len() > 1, "{line}: {said}");
        assert!(lines[1..].iter().all(|l| l.starts_with("  help: ")), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn who_does_not_answer_is_69_with_a_help() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("operator.token"), "t\n").unwrap();
    // Nobody listens on port 1 of loopback.
    let nobody = ["--data", data, "--server", "http://127.0.0.1:1"];
    for command in [
        "ls alarms",
        "ledger",
        "trace 018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1",
        "alarm ack 01a20a03-e88d-7000-8000-000000000008",
        "action db restart",
    ] {
        let mut all = nobody.to_vec();
        all.extend(command.split(' '));
        let said = refused(&callhome(&all), 69);
        assert!(said.contains("  help: "), "{said}");
    }
    for command in ["drill panic link", "log info", "sign-in", "ls alarms"] {
        let mut all = vec!["--data", data];
        all.extend(command.split(' '));
        refused(&callhome(&all), 69);
    }
    let send = "send alarm --instance a --type b --severity major --text c --wait 1";
    let send: Vec<&str> = ["--data", data].into_iter().chain(send.split(' ')).collect();
    let socket = folder.path().join("none.sock");
    let named = [&send[..], &["--socket", socket.to_str().unwrap()]].concat();
    let said = refused(&callhome(&named), 69);
    assert!(said.contains("none.sock") && said.contains("  help: "), "{said}");
    // All that were looked for are named, in order.
    let said = refused(&callhome(&send), 69);
    let first = said.find(&format!("{data}/proxy/integrator.sock: is not there"));
    let second = said.find("/run/callhome/integrator.sock: ");
    assert!(first.is_some() && first < second, "{said}");
}

#[test]
fn a_token_that_is_not_known_is_77() {
    let up = shared();
    let wrong = up.data().join("wrong.token");
    std::fs::write(&wrong, "0123456789abcdef\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    for command in ["ls alarms", "ledger", "alarm close 01a20a03-e88d-7000-8000-000000000008"] {
        let mut all = vec!["--token-file", wrong];
        all.extend(command.split(' '));
        let said = refused(&against(&up, &all), 77);
        assert!(said.contains("  help: "), "{said}");
    }
}

#[test]
fn flags_beat_variables_and_variables_files() {
    let up = shared();
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(CALLHOME);
        command.envs(variables.iter().copied()).args(arguments).output().unwrap().status.code()
    };
    let (data, server) = (up.data_text(), format!("http://{}", up.server()));
    let token = up.data().join("operator.token").display().to_string();
    assert_eq!(run(&[("CALLHOME_DATA", &data)], &["ls", "nodes"]), Some(0));
    let both = [("CALLHOME_SERVER", &*server), ("CALLHOME_TOKEN_FILE", &*token)];
    assert_eq!(run(&both, &["ls", "nodes"]), Some(0));
    assert_eq!(run(&both, &["ls", "nodes", "--server", "http://127.0.0.1:1"]), Some(69));
    let nobody = [("CALLHOME_DATA", &*data), ("CALLHOME_SERVER", "http://127.0.0.1:1")];
    assert_eq!(run(&nobody, &["ls", "nodes"]), Some(69));
    assert_eq!(run(&nobody, &["ls", "nodes", "--server", &server]), Some(0));
    let socket = up.data().join("proxy/integrator.sock").display().to_string();
    let send = [
        "send",
        "event",
        "--instance",
        "v-1",
        "--type",
        "t",
        "--severity",
        "minor",
        "--text",
        "by a variable",
    ];
    assert_eq!(run(&[("CALLHOME_SOCKET", &socket)], &send), Some(0));
    let away = ["--socket", "/nonexistent/i.sock", "--wait", "1"];
    let flagged: Vec<&str> = send.iter().chain(&away).copied().collect();
    assert_eq!(run(&[("CALLHOME_SOCKET", &socket)], &flagged), Some(69));
}

#[test]
fn ids_that_are_not_there_are_66() {
    let up = shared();
    let absent = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3:7:u:1042";
    for arguments in [
        &["alarm", "ack", "01a20a03-e88d-7000-8000-000000000099"][..],
        &["ledger", "nobody"],
        &["trace", absent, "--wait", "0"],
        &["queue", "show", absent],
        &["queue", "ls", "--node", "nobody"],
        &["action", "nobody", "restart"],
        &["drill", "panic", "nobody"],
        &["drill", "panic", "link", "--node", "nobody"],
    ] {
        let output = against(&up, arguments);
        refused(&output, 66);
        // A trace shows how far it came; of others there is not even the head of a table.
        assert!(arguments[0] == "trace" || output.stdout.is_empty(), "{}", text(&output.stdout));
    }
}

#[test]
fn doctor_checks_and_sign_in_and_log_answer() {
    let up = shared();
    let checks: serde_json::Value =
        serde_json::from_str(&done(&up, &["doctor", "-o", "json"])).unwrap();
    let checks = checks.as_array().unwrap();
    assert!(checks.len() >= 8);
    for check in checks {
        let keys: Vec<&String> = check.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["check", "found", "help", "status"]);
        assert!(["pass", "warn", "fail"].contains(&check["status"].as_str().unwrap()));
        assert_ne!(check["status"], "fail", "{check}");
    }
    let head = done(&up, &["doctor"]);
    let columns: Vec<&str> = head.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["check", "status", "found", "help"]);
    let url = done(&up, &["sign-in"]);
    assert!(url.starts_with(&format!("http://{}/sign-in?code=", up.server())), "{url}");
    assert_ne!(url, done(&up, &["sign-in"]), "each code is another");
    done(&up, &["log", "warn,supervision=info"]);
    let said = refused(&against(&up, &["log", "((("]), 64);
    assert!(said.contains("\"(((\" is no log filter") && said.contains("  help: "), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let nobody = callhome(&["doctor", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(nobody.status.code(), Some(65), "{}", text(&nobody.stdout));
}

#[test]
fn flags_of_all_commands_stand_before_and_after_the_name_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let all = ["-o", "json", "--log", "warn", "--server", "http://x", "--token-file", "t"];
    for command in COMMANDS {
        let mut after = command.to_vec();
        after.extend(all);
        // The `--data` of `send` is the payload, by the contract's own table.
        after.extend(["--data", data]);
        let mut before = vec!["--data", data];
        before.extend(all);
        before.extend(command);
        let mut between = command[..1].to_vec();
        between.extend(["--data", data]);
        between.extend(all);
        between.extend(&command[1..]);
        for mut line in [before, between, after] {
            line.push("--help");
            let output = callhome(&line);
            assert_eq!(output.status.code(), Some(0), "{line:?}: {}", text(&output.stderr));
        }
    }
    // They count where they stand.
    std::fs::write(folder.path().join("callhome.xml"), "<node/>").unwrap();
    for line in
        [&["--data", data, "check", "-o", "json"][..], &["check", "-o", "json", "--data", data]]
    {
        let output = callhome(line);
        assert_eq!(output.status.code(), Some(78), "{line:?}: {}", text(&output.stdout));
        let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(problems[0]["file"].as_str().unwrap().starts_with(data), "{problems}");
    }
    for line in [
        "-o json integrator snmp --print-rules",
        "integrator -o json snmp --print-rules",
        "integrator snmp --print-rules --format json",
    ] {
        let output = callhome(&line.split(' ').collect::<Vec<_>>());
        assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok(), "{line}");
    }
}
