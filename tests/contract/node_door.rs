//! The node door: what is not an exchange is refused, and harms nobody.
use crate::{
    sandbox::{chain::Chain, wait_for},
    support::{http, metric},
};

const MSGPACK: &str = "Content-Type: application/msgpack\r\n";

#[test]
fn what_is_no_exchange_is_refused_and_harms_nobody() {
    let chain = Chain::start("");
    let mlm = chain.nodes[1].process.as_ref().unwrap();
    let door = mlm.word("exchange");
    let post = |headers: &str, body: &[u8]| http(&door, "POST /v1/exchange", headers, body);
    for garbage in [&b"garbage"[..], b"", b"\xc1", b"\x93\x01\x02", &[0xdd, 0xff, 0xff, 0xff, 0xff]]
    {
        post(MSGPACK, garbage).problem(400, "malformed", "give_up");
    }
    let zstd = format!("{MSGPACK}Content-Encoding: zstd\r\n");
    post(&zstd, b"not zstd").problem(400, "malformed", "give_up");
    for headers in
        ["Content-Type: text/plain\r\n", "", &format!("{MSGPACK}Content-Encoding: br\r\n")]
    {
        let told = post(headers, b"\x90").problem(415, "not_supported", "give_up");
        assert_eq!(told["instance"], "/v1/exchange");
        assert!(told["detail"].as_str().unwrap().contains("application/msgpack"), "{told}");
    }
    post(MSGPACK, &vec![0x90; (2 << 20) + 1]).problem(413, "too_large", "give_up");
    let other = http(&door, "GET /v1/exchange", "", b"");
    other.problem(405, "not_supported", "give_up");
    assert_eq!(other.header("allow"), Some("POST"));
    http(&door, "GET /v1/nothing", "", b"").problem(404, "not_found", "give_up");

    // Each is counted once, outside the account, which is none the worse.
    assert!(chain.account(1).balanced);
    let metrics = chain.operator(1, "/metrics");
    let mut turned_away = metric(&metrics, "callhome_intake_turned_away_total");
    turned_away.sort_by(|a, b| a.0.cmp(&b.0));
    let reasons: Vec<(&str, f64)> = turned_away
        .iter()
        .map(|(labels, count)| {
            let reason = labels.split("reason=\"").nth(1).unwrap();
            (reason.split('"').next().unwrap(), *count)
        })
        .collect();
    assert_eq!(reasons, [("malformed", 6.0), ("not_supported", 3.0), ("too_large", 1.0)]);
    let ledger = wait_for("the server to hear of it", || {
        let ledger = chain.api("/ledger?wait_s=5")["items"].clone();
        ledger.as_array()?.iter().find(|ledger| ledger["node"] == "mlm").cloned()
    });
    assert_eq!(ledger["turned_away"], 10);
    // And what is one goes through as before.
    let sent = crate::sandbox::callhome(&[
        "send",
        "alarm",
        "--instance",
        "a",
        "--type",
        "t",
        "--severity",
        "major",
        "--text",
        "x",
        "--socket",
        chain.socket().to_str().unwrap(),
    ]);
    assert!(sent.status.success());
    wait_for("an alarm behind the garbage", || {
        (chain.api("/alarms")["items"].as_array()?.len() == 1).then_some(())
    });
}
