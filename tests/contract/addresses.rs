//! Addresses of `up`: one port for both kinds of syslog, and what is told where one is taken.
use std::{
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::{
    sandbox::{CALLHOME, Up},
    support::refused,
};

/// `up` in a folder of its own, to its end.
fn up(more: &[&str], variables: &[(&str, &str)]) -> (Output, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(CALLHOME);
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data).args(more);
    command.envs(variables.iter().copied());
    let started = Instant::now();
    let output = command.output().unwrap();
    let serves = ["server.url", "operator.url"].iter().any(|file| data.join(file).exists());
    assert!(!serves, "nothing is left that says it serves");
    (output, started.elapsed())
}

#[test]
fn an_address_of_an_integrator_in_use_is_69_and_names_the_flag_of_up() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    for (flag, taken, other) in [("snmp", udp, "syslog"), ("syslog", tcp, "snmp")] {
        let (flagged, off) = (format!("--{flag}"), format!("--{other}"));
        let arguments = [&flagged, &taken.to_string(), &off, "off", "--no-inventory"];
        let (output, took) = up(&arguments.map(|a| a as &str), &[]);
        let said = refused(&output, 69);
        assert!(said.contains(&taken.to_string()), "{said}");
        assert!(said.contains("  help: ") && said.contains(&format!("--{flag} off")));
        assert!(!said.contains("--listen"), "{said}");
        assert_eq!(said.matches("callhome: error:").count(), 1, "{said}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn an_integrator_that_cannot_start_ends_up_with_69() {
    let arguments = ["--snmp", "127.0.0.1:0", "--syslog", "off", "--no-inventory"];
    let (output, _) = up(&arguments, &[("CALLHOME_SPILL", "/dev/null/spill")]);
    let said = refused(&output, 69);
    assert!(said.contains("/dev/null/spill"), "its own words: {said}");
    assert!(said.contains("integrator snmp cannot start") && said.contains("--snmp off"), "{said}");
}

#[test]
fn what_is_no_address_is_usage() {
    for (flag, value) in
        [("--snmp", "127.0.0.1:x"), ("--syslog", "localhost"), ("--snmp", "on"), ("--listen", "x")]
    {
        let said = refused(&up(&[flag, value], &[]).0, 64);
        assert!(said.contains(flag) && said.contains(value) && said.contains("  help: "), "{said}");
    }
}

#[test]
fn syslog_on_a_free_port_takes_datagrams_and_connections_there() {
    let up = Up::start(&["--snmp", "off", "--no-inventory"]);
    let address = up.process.word("syslog");
    let line = |host: &str| format!("<130>1 - {host} press - - - pressure low at {host}");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(line("by-udp").as_bytes(), &address).unwrap();
    let mut stream = TcpStream::connect(&address).unwrap();
    writeln!(stream, "{}", line("by-tcp")).unwrap();
    for host in ["by-udp", "by-tcp"] {
        let alarm = up.alarm(host, |alarm| alarm["instance"] == host);
        assert_eq!(alarm["text"], format!("pressure low at {host}"), "{alarm}");
    }
    // Its web server's workers are no events of a node.
    assert!(!up.process.log().contains("actix_server"), "{}", up.process.log());
}
