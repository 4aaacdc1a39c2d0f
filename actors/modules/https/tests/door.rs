//! What the door answers when the answer is no: a problem document with the status, the name and
//! the verdict of contract §6, and every refusal counted once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use extension::communications::{Door, ExchangeError, Peer, Protocol};
use module_https::{HttpProtocol, serve};
use protocol::Refusal;
use serde_json::Value;

/// Refuses everything the same way; says what it counted.
struct Refuses {
    with: Refusal,
    counted: Mutex<Vec<Refusal>>,
}

#[async_trait]
impl Door for Refuses {
    async fn knock(&self, _: Peer, _: Bytes, _: Duration) -> Result<Bytes, Refusal> {
        Err(self.with)
    }

    fn turned_away(&self, refusal: Refusal) {
        self.counted.lock().unwrap().push(refusal);
    }
}

/// A door that refuses so, and where it is.
fn door(with: Refusal) -> (Arc<Refuses>, String) {
    let door = Arc::new(Refuses { with, counted: Mutex::default() });
    let server = serve("127.0.0.1:0".parse().unwrap(), door.clone()).unwrap();
    let url = format!("http://{}", server.address);
    actix_web::rt::spawn(server.run());
    (door, url)
}

async fn posted(url: &str, media: Option<&str>, encoding: Option<&str>) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.post(format!("{url}/v1/exchange")).body(&b"\x90"[..]);
    for (name, value) in [("content-type", media), ("content-encoding", encoding)] {
        request = value.into_iter().fold(request, |request, value| request.header(name, value));
    }
    request.send().await.unwrap()
}

/// Checks the document; returns it.
async fn problem(answer: reqwest::Response, status: u16, name: &str, verdict: &str) -> Value {
    assert_eq!(answer.status().as_u16(), status, "{name}");
    let headers = answer.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let again = headers.get("retry-after").map(|v| v.to_str().unwrap().parse::<u32>().unwrap());
    assert_eq!(again.is_some(), [429, 503].contains(&status), "{name}: Retry-After");
    let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["type"], format!("/problems/{name}"));
    assert_eq!(problem["status"], status);
    assert_eq!(problem["verdict"], verdict);
    for key in ["title", "detail"] {
        assert!(problem[key].as_str().unwrap().len() > 10, "{problem}");
    }
    problem
}

#[actix_web::test]
async fn every_refusal_is_a_problem_with_its_status_and_verdict() {
    for refusal in Refusal::ALL {
        let (door, url) = door(refusal);
        let answer = posted(&url, Some("application/msgpack"), None).await;
        let verdict = match refusal.verdict() {
            protocol::Verdict::TryAgain => "try_again",
            protocol::Verdict::GiveUp => "give_up",
        };
        let told = problem(answer, refusal.http_status(), refusal.name(), verdict).await;
        assert_eq!(told["instance"], "/v1/exchange");
        assert!(door.counted.lock().unwrap().is_empty(), "who knocks is counted by the door");
        // And a child understands it.
        let said = HttpProtocol::new().unwrap().exchange(&url, Bytes::new(), Duration::ZERO).await;
        let wait = [429, 503].contains(&refusal.http_status()).then(|| Duration::from_secs(1));
        assert_eq!(said, Err(ExchangeError::Refused { refusal, retry_after: wait }));
    }
}

#[actix_web::test]
async fn what_never_gets_to_knock_is_told_and_counted() {
    let (door, url) = door(Refusal::Busy);
    const MSGPACK: Option<&str> = Some("application/msgpack");
    for (media, encoding, status, refusal) in [
        (Some("text/plain"), None, 415, Refusal::NotSupported),
        (None, None, 415, Refusal::NotSupported),
        (MSGPACK, Some("br"), 415, Refusal::NotSupported),
        (MSGPACK, Some("zstd"), 400, Refusal::Malformed),
    ] {
        let answer = posted(&url, media, encoding).await;
        problem(answer, status, refusal.name(), "give_up").await;
        assert_eq!(door.counted.lock().unwrap().pop(), Some(refusal));
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{url}/v1/exchange")).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "POST");
    problem(answer, 405, "not_supported", "give_up").await;
    let answer = client.get(format!("{url}/v1/\"nothing\"")).send().await.unwrap();
    let told = problem(answer, 404, "not_found", "give_up").await;
    assert_eq!(told["instance"], "/v1/%22nothing%22");
    assert!(door.counted.lock().unwrap().is_empty(), "these are no exchanges");
}
