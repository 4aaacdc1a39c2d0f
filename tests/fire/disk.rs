//! The disk is full.
use integrator_api::{Call, Client, EventCall, Options, Severity};

use crate::sandbox::{chain::Chain, get, small::Small, wait_for};

// A full disk makes a node refuse with storage_down, stay alive, and recover by itself.
#[test]
fn full_disk_is_told_and_recovered_from() {
    let Some(disk) = Small::mount(48 << 20) else { return };
    let mut chain = Chain::start_in(disk.path(), "<store keep-free-bytes=\"1048576\"/>");
    let client = Client::open(Options::new(chain.socket(), "load", "1")).unwrap();
    let event = |text: &str| {
        let at = jiff::Timestamp::now().as_millisecond();
        Call::Event(EventCall::new("host-1", at, "load", Severity::Major, text))
    };
    client.send(event("before")).wait().expect("accepted");
    disk.fill();
    let pid = chain.nodes[0].process.as_ref().unwrap().child.id();
    let during = client.send(event("during"));
    wait_for("the node to say storage_down", || {
        let url = std::fs::read_to_string(chain.nodes[0].folder.join("operator.url")).ok()?;
        let (status, body) = get(&url.trim().replace("http://", ""), "/readyz", "");
        (status == 503 && body.contains("storage_down")).then_some(())
    });
    disk.make_room();
    // The client still has what was refused for now, and sends it again by itself.
    drop(during);
    wait_for("the node to take messages again", || client.send(event("after")).wait().ok());
    assert_eq!(chain.nodes[0].process.as_ref().unwrap().child.id(), pid, "it stayed alive");
    assert!(chain.nodes[0].process.as_mut().unwrap().child.try_wait().unwrap().is_none());
    wait_for("what was accepted to arrive", || {
        let list = chain.api("/events?limit=1000");
        let texts: Vec<&str> =
            list["items"].as_array()?.iter().filter_map(|e| e["text"].as_str()).collect();
        (texts.contains(&"before") && texts.contains(&"after")).then_some(())
    });
}
