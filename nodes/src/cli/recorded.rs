//! For tests: a server that answers with recorded JSON, and remembers what it was asked.
#![allow(clippy::unwrap_used, reason = "a test's server")]
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use serde_json::Value;

use super::common::{Common, Format};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `Authorization`.
    pub(crate) token: String,
    /// The body.
    pub(crate) body: String,
}

type Log = Arc<Mutex<Vec<Asked>>>;
type Answers = Arc<Vec<(String, u16, Value)>>;

/// The server; it ends with the test's actix system.
pub(crate) struct Recorded {
    data: tempfile::TempDir,
    log: Log,
}

impl Recorded {
    /// Answers `METHOD path?query` with a status and JSON; anything else with 404. What stands
    /// under the key `headers` of the JSON goes into headers instead.
    pub(crate) fn start(answers: &[(&str, u16, Value)]) -> Self {
        let answers: Answers = Arc::new(
            answers.iter().map(|(line, s, v)| ((*line).to_owned(), *s, v.clone())).collect(),
        );
        let log = Log::default();
        let shared = log.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new((answers.clone(), shared.clone())))
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}\n", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        let data = tempfile::tempdir().unwrap();
        for (file, content) in
            [("server.url", url.as_str()), ("operator.url", &url), ("operator.token", "t0ken\n")]
        {
            std::fs::write(data.path().join(file), content).unwrap();
        }
        Self { data, log }
    }

    /// Flags of a command that finds this server in its data folder.
    pub(crate) fn common(&self, format: Format) -> Common {
        let data = self.data.path().to_owned();
        Common { data, format, log: None, server: None, token_file: None }
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// The tokens that came.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.token).collect()
    }
}

async fn answer(
    request: HttpRequest,
    shared: web::Data<(Answers, Log)>,
    body: web::Bytes,
) -> HttpResponse {
    let (answers, log) = shared.get_ref();
    let line = format!("{} {}", request.method(), request.uri());
    let token = request.headers().get("authorization");
    log.lock().unwrap().push(Asked {
        token: token.map_or("", |value| value.to_str().unwrap()).to_owned(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    match answers.iter().find(|(recorded, _, _)| *recorded == line) {
        Some((_, status, json)) => {
            let (mut answer, mut json) =
                (HttpResponse::build(StatusCode::from_u16(*status).unwrap()), json.clone());
            let headers = json.as_object_mut().and_then(|fields| fields.remove("headers"));
            for (name, value) in headers.iter().flat_map(|h| h.as_object().unwrap()) {
                answer.insert_header((name.as_str(), value.as_str().unwrap()));
            }
            answer.json(json)
        }
        None => HttpResponse::NotFound()
            .json(serde_json::json!({"detail": format!("no {line}"), "verdict": "give_up"})),
    }
}
