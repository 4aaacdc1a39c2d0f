//! An application server's API that serves recorded JSON over a real socket.
#![allow(dead_code, reason = "each test uses a part")]
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    web::{self, Bytes},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::broadcast;

pub const TOKEN: &str = "operator-token-of-the-test";
/// The moment at which the recorded answers were true.
pub const RECORDED_AT: &str = "2026-11-22T12:14:09.000Z";
pub const ALARM: &str = "0193a1c7-51d0-7f31-8c0e-000000000001";
pub const DELIVERED: &str = "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2.3:7:u:1042";
pub const QUEUED: &str = "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2.4:7:n:20999";

/// What the server does, and what it was asked.
pub struct Fake {
    /// Path below `/api/v1` → answer.
    pub answers: Mutex<BTreeMap<String, Value>>,
    /// Method, path with query, body.
    pub asked: Mutex<Vec<(String, String, String)>>,
    pub refuse: Mutex<Option<u16>>,
    pub stream: broadcast::Sender<String>,
}

pub struct Server {
    pub fake: Arc<Fake>,
    pub address: SocketAddr,
    pub handle: ServerHandle,
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self, method: &str) -> Vec<(String, String)> {
        let asked = self.fake.asked.lock().unwrap();
        asked.iter().filter(|a| a.0 == method).map(|a| (a.1.clone(), a.2.clone())).collect()
    }

    pub fn set(&self, path: &str, answer: Value) {
        self.fake.answers.lock().unwrap().insert(path.to_owned(), answer);
    }
}

pub fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/api/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The recorded answers, as if they had been recorded just now.
fn recorded() -> BTreeMap<String, Value> {
    let then: jiff::Timestamp = RECORDED_AT.parse().unwrap();
    let shift = jiff::Timestamp::now().as_millisecond() - then.as_millisecond();
    let mut all = BTreeMap::new();
    let mut put = |path: &str, name: &str| {
        let mut value = fixture(name);
        moved(&mut value, shift);
        all.insert(path.to_owned(), value);
    };
    for list in ["nodes", "ledger", "alarms", "customers", "events", "instances", "messages"] {
        put(&format!("/{list}"), list);
    }
    put(&format!("/alarms/{ALARM}"), "alarm");
    put(&format!("/alarms/{ALARM}/history"), "alarm_history");
    put(&format!("/trace/{DELIVERED}"), "trace");
    put(&format!("/trace/{QUEUED}"), "trace_queued");
    put(&format!("/messages/{DELIVERED}"), "message");
    all
}

fn moved(value: &mut Value, shift_ms: i64) {
    match value {
        Value::String(text) if text.len() == 24 && text.ends_with('Z') => {
            if let Ok(at) = text.parse::<jiff::Timestamp>() {
                let at = jiff::Timestamp::from_millisecond(at.as_millisecond() + shift_ms).unwrap();
                *text = format!("{at:.3}");
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| moved(one, shift_ms)),
        Value::Object(all) => all.values_mut().for_each(|one| moved(one, shift_ms)),
        _ => (),
    }
}

pub fn start() -> Server {
    start_at("127.0.0.1:0")
}

pub fn start_at(address: &str) -> Server {
    let fake = Arc::new(Fake {
        answers: Mutex::new(recorded()),
        asked: Mutex::default(),
        refuse: Mutex::default(),
        stream: broadcast::channel(64).0,
    });
    let shared = fake.clone();
    let server = HttpServer::new(move || {
        let fake = shared.clone();
        App::new()
            .app_data(web::Data::from(fake))
            .route("/api/v1/stream", web::get().to(follow))
            .default_service(web::to(answer))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(0)
    .bind(address)
    .unwrap();
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    actix_web::rt::spawn(running);
    Server { fake, address, handle }
}

fn is_allowed(request: &HttpRequest) -> bool {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    header == Some(&format!("Bearer {TOKEN}"))
}

fn problem(status: u16, name: &str) -> HttpResponse {
    HttpResponse::build(status.try_into().unwrap()).content_type("application/problem+json").body(
        json!({"type": format!("/problems/{name}"), "status": status, "detail": name,
            "title": name, "instance": "x", "verdict": "give_up"})
        .to_string(),
    )
}

async fn answer(request: HttpRequest, fake: web::Data<Fake>, body: Bytes) -> HttpResponse {
    let asked = (
        request.method().to_string(),
        request.uri().to_string(),
        String::from_utf8_lossy(&body).into_owned(),
    );
    fake.asked.lock().unwrap().push(asked);
    if let Some(status) = *fake.refuse.lock().unwrap() {
        return problem(status, "storage_down");
    }
    if !is_allowed(&request) {
        return problem(401, "unauthenticated");
    }
    let path = request.path().strip_prefix("/api/v1").unwrap_or("?");
    if path.ends_with("/data") {
        return HttpResponse::Ok()
            .content_type("application/octet-stream")
            .insert_header(("content-disposition", "attachment"))
            .body(
                "{\"1.3.6.1.2.1.33.1.2.1.0\": 3, \"hostile\": \"</pre><script>alert(2)</script>\"}",
            );
    }
    let answers = fake.answers.lock().unwrap();
    if request.method() != "GET" {
        return match answers.get(&format!("/alarms/{ALARM}")) {
            Some(alarm) => HttpResponse::Ok().json(alarm),
            None => problem(404, "not_found"),
        };
    }
    match answers.get(path) {
        Some(answer) => HttpResponse::Ok().json(answer),
        None => problem(404, "not_found"),
    }
}

async fn follow(request: HttpRequest, fake: web::Data<Fake>) -> HttpResponse {
    if !is_allowed(&request) {
        return problem(401, "unauthenticated");
    }
    let receiver = fake.stream.subscribe();
    let first = stream::iter([Ok(Bytes::from_static(b"retry: 2000\n: callhome\n\n"))]);
    let rest = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await.ok()?;
        Some((Ok::<_, std::io::Error>(Bytes::from(event)), receiver))
    });
    let all = futures_util::StreamExt::chain(first, rest);
    HttpResponse::Ok().content_type("text/event-stream").streaming(Box::pin(all))
}

/// Waits until something is so, at most five seconds.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}
