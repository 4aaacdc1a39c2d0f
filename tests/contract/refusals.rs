//! Every door's no: RFC 9457 problems with the names, statuses and verdicts of contract §6, and
//! when to come again.
use std::{
    io::{Read, Write},
    net::TcpStream,
};

use bytes::Bytes;
use protocol::{
    Precedence, RemoteId,
    exchange::{Exchange, Sender, digest_of},
    run::{Run, RunHeader},
};

use crate::{
    sandbox::{LONG, Up, chain::Chain, small::Small, text, wait_for},
    support::{Answer, QUIET, bearer, http, shared},
};

const MLM: usize = 1;
const TOP: usize = 3;

/// Checks a problem, what it says to do, and that it says when to come again where it must.
fn problem(answer: &Answer, status: u16, name: &str, verdict: &str, path: Option<&str>) {
    let told = answer.problem(status, name, verdict);
    for key in ["title", "detail"] {
        let words = told[key].as_str().unwrap();
        assert!(words.contains(' ') && words != name, "{key}: {words}");
    }
    if let Some(path) = path {
        assert_eq!(told["instance"], path);
    }
    let again = answer.header("retry-after").map(|seconds| seconds.parse::<u32>().unwrap());
    assert_eq!(
        again.is_some_and(|s| s >= 1),
        [429, 503].contains(&status),
        "Retry-After: {again:?}"
    );
}

#[test]
fn the_operators_door_says_what_is_wrong_and_what_to_do() {
    let up = shared();
    let (host, mine) = (up.operator(), bearer(&up.token()));
    let ask = |head: &str, headers: &str, body: &[u8]| http(&host, head, headers, body);
    for (head, path, headers, body, status, name) in [
        ("GET /nothing", "/nothing", "", &b""[..], 404, "not_found"),
        ("POST /drill", "/drill", "", b"{}", 401, "unauthenticated"),
        ("POST /drill", "/drill", &*mine, b"{", 400, "malformed"),
        (
            "POST /drill",
            "/drill",
            &*mine,
            b"{\"fault\":\"stop\",\"actor\":\"x\"}",
            404,
            "not_found",
        ),
        ("PUT /log", "/log", &*mine, b"{\"filter\":\"(((\"}", 400, "malformed"),
        ("POST /log", "/log", &*mine, b"", 405, "not_supported"),
        ("DELETE /livez", "/livez", "", b"", 405, "not_supported"),
        ("GET /drill", "/drill", "", b"", 405, "not_supported"),
        ("GET /queue?node=nobody", "/queue", "", b"", 404, "not_found"),
        ("GET /queue?id=x", "/queue", "", b"", 400, "malformed"),
        ("GET /queue?id=x&id=y", "/queue", "", b"", 400, "malformed"),
    ] {
        let answer = ask(head, headers, body);
        problem(&answer, status, name, "give_up", Some(path));
        assert_eq!(answer.header("allow").is_some(), status == 405, "{head}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{head}");
    }
    let large = ask("PUT /log", &mine, &vec![b'x'; (64 << 10) + 1]);
    problem(&large, 413, "too_large", "give_up", Some("/log"));
}

/// Statuses of so many requests that are sent at once, and the first answer that is not 200.
fn flood(host: &str, head: &str, headers: &str, times: usize) -> Option<Answer> {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let one = format!("{head} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    let last = format!("{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let _ = writer.write_all((one.repeat(times - 1) + &last).as_bytes());
    });
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    sender.join().unwrap();
    let all = text(&answers);
    let at = all.find("HTTP/1.1 4").or_else(|| all.find("HTTP/1.1 5"))?;
    let (head, rest) = all[at..].split_once("\r\n\r\n").unwrap();
    let answer =
        Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: Vec::new() };
    let length = answer.header("content-length").unwrap().parse().unwrap();
    Some(Answer { body: rest.as_bytes()[..length].to_vec(), ..answer })
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() {
    // One of its own: the rate is that of the one token.
    let up = Up::start(&QUIET);
    let headers = bearer(&up.token());
    let refused = flood(&up.server(), "GET /api/v1/customers", &headers, 1_000);
    problem(&refused.expect("1,000 at once are too many"), 429, "busy", "try_again", None);
    wait_for("the rate to hold again", || {
        let answer = http(&up.server(), "GET /api/v1/customers", &headers, b"");
        (answer.status == 200).then_some(())
    });
}

/// An exchange whose run nobody takes: to say so is a commit.
fn exchange(customer: &str) -> Bytes {
    let customer: RemoteId = customer.parse().unwrap();
    let id = customer.child(900).unwrap();
    let header = RunHeader {
        origin: id,
        epoch: 1,
        precedence: Precedence::Normal,
        first: 1,
        count: 1,
        left_out: Vec::new(),
        replayed: false,
        changed: false,
        path: Vec::new(),
    };
    let runs = vec![Run { header, messages: Bytes::new() }];
    Exchange {
        incarnation: 1,
        precedence: Precedence::Normal,
        number: 1,
        digest: digest_of(&runs),
        previous: 0,
        oldest: 1,
        beats: Vec::new(),
        ends: Vec::new(),
        acknowledgements: Vec::new(),
        runs,
        sender: Sender { id, epoch: 1 },
    }
    .encode()
}

#[test]
fn a_full_disk_is_503_at_both_doors() {
    let Some(disk) = Small::mount(64 << 20) else { return };
    let mut chain = Chain::start("");
    for node in [MLM, TOP] {
        let folder = disk.path().join(node.to_string());
        std::fs::create_dir(&folder).unwrap();
        chain.move_to(node, &folder);
    }
    let door = chain.nodes[MLM].process.as_ref().unwrap().word("exchange");
    let body = exchange(&chain.customer);
    disk.fill();
    let headers = "Content-Type: application/msgpack\r\n";
    let refused = wait_for("the node door to refuse", || {
        let answer = http(&door, "POST /v1/exchange", headers, &body);
        (answer.status == 503).then_some(answer)
    });
    problem(&refused, 503, "storage_down", "try_again", Some("/v1/exchange"));
    let metrics = chain.operator(MLM, "/metrics");
    let turned_away = crate::support::metric(&metrics, "callhome_intake_turned_away_total");
    assert!(turned_away.iter().any(|(labels, _)| labels.contains("reason=\"storage_down\"")));
    let headers = format!(
        "{}Content-Type: application/json\r\nIdempotency-Key: full\r\n",
        bearer(&chain.token())
    );
    let refused = wait_for("the API to refuse", || {
        let body = b"{\"customer\":\"late\"}";
        let answer = http(&chain.server(), "POST /api/v1/customers", &headers, body);
        (answer.status == 503).then_some(answer)
    });
    problem(&refused, 503, "storage_down", "try_again", None);
    disk.make_room();
    // Nothing of it was done, so the same request is done now.
    wait_for("the API to take it", || {
        let body = b"{\"customer\":\"late\"}";
        let answer = http(&chain.server(), "POST /api/v1/customers", &headers, body);
        (answer.status == 201).then_some(())
    });
}

#[test]
fn the_portal_passes_on_what_the_api_says_also_to_head() {
    let up = shared();
    let headers = bearer(&up.token());
    let get = http(&up.server(), "GET /api/openapi.json", &headers, b"");
    let head = http(&up.server(), "HEAD /api/openapi.json", &headers, b"");
    assert_eq!((get.status, head.status), (200, 200));
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()));
    assert_eq!(head.header("etag"), get.header("etag"));
    let live = http(&up.server(), "GET /live?page=overview", "", b"");
    problem(&live, 401, "unauthenticated", "give_up", Some("/live"));
}
