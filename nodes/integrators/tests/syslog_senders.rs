//! The syslog integrator with real senders: logger in six shapes, rsyslog in three, and a sink
//! that is slow. Needs the programs logger and rsyslogd (packages bsdutils and rsyslog).
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod recording;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use integrators::common::{CommonArgs, IntegratorError};
use integrators::sink::{Call, What};
use integrators::syslog::{SyslogArgs, run_until};
use protocol::service::Severity;
use recording::Recording;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An integrator in this process, on free ports.
struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    sink: Arc<Recording>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), IntegratorError>>,
    _rules: tempfile::TempDir,
}

/// A rule in front of all others, so that each line becomes one event, with what was read in it.
const RULES: &str = r#"
format = 1
kind = "syslog"
[[rule]]
id = "test/all"
becomes = "event"
severity = "warning"
text = "{host}|{app}|{pid}|{msgid}|{facility}.{severity}|{text}"
"#;

async fn start(sink: Recording) -> Running {
    let rules = tempfile::tempdir().unwrap();
    let file = rules.path().join("all.toml");
    std::fs::write(&file, RULES).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let args = SyslogArgs {
        common: CommonArgs { rules: vec![file], ..CommonArgs::default() },
        listen_udp: vec![any],
        listen_tcp: vec![any],
        ..SyslogArgs::default()
    };
    let sink = Arc::new(sink);
    let (bound, addresses) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let taker = sink.clone();
    let ended = tokio::spawn(async move {
        let ready = |pairs: &[String]| {
            let _ = bound.send(pairs.to_vec());
            Ok(())
        };
        let told = async {
            let _ = stopped.await;
            Ok(())
        };
        run_until(args, taker, ready, told).await
    });
    let pairs = addresses.await.unwrap();
    let address = |name: &str| {
        let found = pairs.iter().find_map(|pair| pair.strip_prefix(name));
        found.unwrap().parse().unwrap()
    };
    Running { udp: address("udp="), tcp: address("tcp="), sink, stop, ended, _rules: rules }
}

impl Running {
    async fn end(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
    }
}

/// A program that must be there.
fn command(program: &str, package: &str) -> Command {
    let found = std::env::var_os("PATH").is_some_and(|paths| {
        let extra = ["/usr/sbin".into(), "/sbin".into()];
        std::env::split_paths(&paths)
            .chain(extra)
            .any(|folder: std::path::PathBuf| folder.join(program).is_file())
    });
    assert!(found, "{program} is missing: apt-get install {package}");
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TZ", "UTC");
    command
}

async fn logger(words: &[&str]) {
    let mut command = command("logger", "bsdutils");
    command.args(words);
    let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
    assert!(status.success(), "logger {words:?}");
}

/// The texts that rules made of what came.
fn texts(calls: &[Call]) -> Vec<String> {
    let text = |call: &Call| match &call.what {
        What::Event(event) => event.text.clone(),
        other => panic!("{other:?} is no event"),
    };
    calls.iter().map(text).collect()
}

/// The lines that travelled as data.
fn lines(calls: &[Call]) -> Vec<String> {
    let line = |call: &Call| match &call.what {
        What::Event(event) => {
            assert_eq!(event.payload.encoding, "text/plain");
            String::from_utf8(event.payload.data.to_vec()).unwrap()
        }
        other => panic!("{other:?} is no event"),
    };
    calls.iter().map(line).collect()
}

#[tokio::test]
async fn logger_is_understood_in_six_shapes() {
    let running = start(Recording::new()).await;
    let (udp, tcp) = (running.udp.port().to_string(), running.tcp.port().to_string());
    let host = ["-n", "127.0.0.1", "-p", "daemon.err", "-t", "app"];
    let structured = ["--msgid", "M1", "--sd-id", "disk@32473", "--sd-param", "dev=\"sda\""];
    let nil = "--rfc5424=notime,nohost,notq";
    let shapes: [(&str, Vec<&str>); 6] = [
        ("one", vec!["-d", "-P", &udp, "--rfc3164"]),
        ("two", [vec!["-d", "-P", &udp, "--rfc5424"], structured.to_vec()].concat()),
        ("three", vec!["-T", "-P", &tcp, "--rfc3164"]),
        ("four", vec!["-T", "-P", &tcp, "--rfc5424"]),
        ("five", vec!["-T", "-P", &tcp, "--octet-count", "--rfc5424"]),
        ("six", vec!["-d", "-P", &udp, nil]),
    ];
    for (count, (text, shape)) in shapes.iter().enumerate() {
        logger(&[&host, shape.as_slice(), &[*text]].concat()).await;
        running.sink.wait_for(count + 1).await;
    }
    let calls = running.sink.calls();
    let found = texts(&calls);
    let ends = [
        "daemon.err|one",
        "daemon.err|two",
        "daemon.err|three",
        "daemon.err|four",
        "daemon.err|five",
        "daemon.err|six",
    ];
    for (text, end) in found.iter().zip(ends) {
        assert!(text.ends_with(end) && text.contains("|app|"), "{text}");
    }
    assert!(found[1].contains("|M1|"), "{}", found[1]);
    assert!(lines(&calls)[1].contains(r#"[disk@32473 dev="sda"]"#));
    assert!(found[5].starts_with("|app|"), "{}", found[5]);
    assert_eq!(calls[5].instance, "127.0.0.1", "without a host it is the sender's");
    running.end().await;
}

/// A program that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts rsyslogd on a socket in a folder, relaying in three shapes; waits until it listens.
async fn rsyslog(folder: &Path, udp: u16, tcp: u16) -> Ended {
    let socket = folder.join("log");
    let config = format!(
        r#"global(workDirectory="{0}")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{1}" RateLimit.Interval="0")
action(type="omfwd" target="127.0.0.1" port="{udp}" protocol="udp"
       template="RSYSLOG_SyslogProtocol23Format")
action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp"
       template="RSYSLOG_TraditionalForwardFormat")
action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp"
       TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format")
"#,
        folder.display(),
        socket.display(),
    );
    let file = folder.join("rsyslog.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = command("rsyslogd", "rsyslog");
    command.arg("-n").arg("-f").arg(&file).arg("-i").arg(folder.join("pid"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Ended(command.spawn().unwrap());
    let listens = async {
        while !socket.exists() {
            assert!(child.0.try_wait().unwrap().is_none(), "rsyslogd ended by itself");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listens).await.expect("rsyslogd listens");
    child
}

#[tokio::test]
async fn rsyslog_relays_by_datagram_lines_and_counted_frames() {
    let running = start(Recording::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let relay = rsyslog(folder.path(), running.udp.port(), running.tcp.port()).await;
    let socket = folder.path().join("log");
    let socket = socket.to_str().unwrap();
    logger(&["-u", socket, "-p", "local4.warning", "-t", "ipmid", "SEL: Power Supply 2 lost AC"])
        .await;
    let calls = running.sink.wait_for(3).await;
    let found = texts(&calls);
    for text in &found {
        assert!(text.ends_with("local4.warning|SEL: Power Supply 2 lost AC"), "{text}");
        assert!(text.contains("|ipmid|"), "{text}");
    }
    let shapes = lines(&calls);
    assert_eq!(shapes.iter().filter(|line| line.starts_with("<164>1 ")).count(), 2, "{shapes:?}");
    drop(relay);
    running.end().await;
}

#[tokio::test]
async fn a_stream_that_is_not_framed_is_refused_and_closed_and_others_go_on() {
    let running = start(Recording::new()).await;
    let mut broken = TcpStream::connect(running.tcp).await.unwrap();
    broken.write_all(b"5 <1>ok 8 junk").await.unwrap();
    let mut rest = Vec::new();
    let closed = broken.read_to_end(&mut rest);
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await.expect("it is closed");
    assert!(closed.is_err() || rest.is_empty());
    let mut other = TcpStream::connect(running.tcp).await.unwrap();
    other.write_all(b"<1>fine\nlast without an end").await.unwrap();
    drop(other);
    let calls = running.sink.wait_for(3).await;
    assert_eq!(lines(&calls), ["<1>ok", "<1>fine", "last without an end"]);
    running.end().await;
}

#[tokio::test]
async fn while_the_sink_is_full_a_connection_is_not_read_and_nothing_of_it_is_lost() {
    let running = start(Recording::holding()).await;
    let mut sender = TcpStream::connect(running.tcp).await.unwrap();
    let line = format!("<13>{}\n", "x".repeat(60_000));
    let mut sent = 0;
    // Until nothing more goes for a second: the sink's bound and the kernel's buffers are full.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_secs(1), sender.write_all(line.as_bytes())).await
    {
        written.unwrap();
        sent += 1;
        assert!(sent < 2000, "120 MB were read though nothing was accepted");
    }
    let held = running.sink.calls().len();
    assert!(held * line.len() <= 16 << 20, "{held} lines are held");
    assert!(held < sent);
    running.sink.answer(10_000);
    drop(sender);
    // The line that did not go whole arrives as what there is of it.
    let calls = running.sink.wait_for(sent).await;
    assert!(calls.len() <= sent + 1);
    running.end().await;
}

#[tokio::test]
async fn what_the_proxy_cannot_take_now_is_offered_again() {
    let running = start(Recording::new()).await;
    running.sink.refuse(Some(protocol::Refusal::QueueFull));
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<11>one\0", running.udp).await.unwrap();
    running.sink.wait_for_refusals(1).await;
    running.sink.refuse(None);
    let calls = running.sink.wait_for(1).await;
    assert_eq!(lines(&calls), ["<11>one"]);
    let What::Event(event) = &calls[0].what else { panic!("no event") };
    assert_eq!(event.severity, Severity::Warning);
    running.end().await;
}

#[tokio::test]
async fn tls_is_told_to_be_not_built_yet() {
    let args =
        SyslogArgs { listen_tls: vec!["127.0.0.1:0".parse().unwrap()], ..SyslogArgs::default() };
    let never = std::future::pending();
    let error = run_until(args, Arc::new(Recording::new()), |_| Ok(()), never).await.unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().contains("not built yet"));
}
