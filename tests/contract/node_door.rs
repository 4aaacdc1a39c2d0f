//! The node door: what is not an exchange is refused, and harms nobody.
use crate::{
    sandbox::{chain::Chain, wait_for},
    support::http,
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
    assert_eq!(post("Content-Type: text/plain\r\n", b"\x90").status, 415);
    assert_eq!(post("", b"\x90").status, 415);
    assert_eq!(post(&format!("{MSGPACK}Content-Encoding: br\r\n"), b"\x90").status, 415);
    post(MSGPACK, &vec![0x90; (2 << 20) + 1]).problem(413, "too_large", "give_up");
    assert!(matches!(http(&door, "GET /v1/exchange", "", b"").status, 404 | 405));
    assert_eq!(http(&door, "GET /v1/nothing", "", b"").status, 404);

    // The account is none the worse.
    assert!(chain.account(1).balanced);
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
