//! The application server's JSON API over actix-web: `/api/v1`, `/api/openapi.json`, and
//! `/problems/NAME` (contract §5).
//!
//! ```text
//! let api = web::Data::new(Api::new(records, tokens));       // once a server
//! App::new().configure(|app| module_api::configure(app, api.clone()))   // once a worker
//! ```
mod answer;
mod change;
mod filters;
mod guard;
mod idempotency;
mod named;
mod read;
mod routes;
mod stream;

pub mod problem;
pub mod query;
pub mod tokens;

use std::{future::Future, sync::Arc, time::Duration};

use extension::records::{Records, RecordsError};

pub use problem::Problem;
pub use routes::configure;
pub use tokens::Tokens;

/// What is served, as `/api/openapi.json` says it.
pub const OPENAPI: &str = include_str!("../openapi.json");
/// How long the records may take for an answer, beyond what a request itself asks to wait.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Largest body of a request, bytes: 10,000 targets with their ids.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
pub struct Api {
    records: Arc<dyn Records>,
    tokens: Arc<Tokens>,
    answers: idempotency::Answers,
}

impl Api {
    /// Over these records, for who has one of these tokens.
    pub fn new(records: Arc<dyn Records>, tokens: Arc<Tokens>) -> Self {
        Self { records, tokens, answers: idempotency::Answers::default() }
    }

    /// What the records say within `ANSWER_WITHIN` plus `wait_s` seconds; `what` is named where
    /// nothing has the id.
    async fn ask<T>(
        &self,
        what: &str,
        wait_s: u64,
        question: impl Future<Output = Result<T, RecordsError>>,
    ) -> Result<T, Problem> {
        let within = ANSWER_WITHIN + Duration::from_secs(wait_s);
        match tokio::time::timeout(within, question).await {
            Ok(answer) => answer.map_err(|error| Problem::of(error, what)),
            Err(_) => Err(Problem::refused(
                protocol::Refusal::StorageDown,
                format!("the records did not answer within {} s; ask again", within.as_secs()),
            )),
        }
    }
}
