//! The portal: pages over the application server's API, and `/api` passed on (DESIGN §13, §15).
//!
//! The content MLM serves it; it has no queue and no ledger of its own.
mod alarm;
mod alarms;
mod cache;
mod change;
mod customers;
mod error;
mod events;
mod guard;
mod instances;
mod layout;
mod ledger;
mod live;
mod messages;
mod nodes;
mod overview;
mod parts;
mod pass_on;
mod picture;
mod session;
mod sign_in;
mod source;
mod trace;
mod view;
mod words;

use std::{fmt, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    middleware::from_fn,
    web::{self, ServiceConfig},
};

pub use live::LIVE_MAX;
pub use pass_on::{BODY_BYTES_MAX, CSRF_HEADER};
use session::Session;
pub use session::{CODE_LIFE_MS, NoRandomness, SESSION_LIFE_MS, Sessions};
use source::{Source, SourceError};
use view::{Page, Query, Sheet, View};

/// How long a page may be kept, seconds (DESIGN §15).
pub const CACHE_S_DEFAULT: u32 = 5;
/// Largest form: a comment, and the ids of all rows of a page.
const FORM_BYTES_MAX: usize = 64 << 10;
/// How long the sheet and the script may be kept, seconds: they change with the program only,
/// and have tags.
const ASSET_S: u32 = 300;
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/live.js");

/// What a portal is started with. `Debug` does not show the token.
#[derive(Clone)]
pub struct Settings {
    /// Origin of the application server's API: `http://host:port`.
    pub server_url: String,
    /// The operator's bearer token of that API.
    pub token: String,
    /// How long pages and answers are kept, seconds; see [`CACHE_S_DEFAULT`].
    pub cache_s: u32,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("server_url", &self.server_url)
            .field("cache_s", &self.cache_s)
            .finish_non_exhaustive()
    }
}

/// A portal cannot be made of these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortalError {
    /// The address is none.
    #[error("server_url {0:?} is not an origin such as http://127.0.0.1:7080")]
    Address(String),
    /// The token cannot be sent.
    #[error("the token is empty or has characters that HTTP cannot carry; make it anew")]
    Token,
    /// The HTTP client does not start.
    #[error("the HTTP client does not start: {0}")]
    Client(String),
}

/// One portal: make it once, clone it into each worker.
#[derive(Clone, Debug)]
pub struct Portal {
    source: Arc<Source>,
    pages: Arc<cache::Cache>,
    sessions: Sessions,
    cache_s: u32,
}

impl Portal {
    /// Makes a portal; nothing is read before somebody looks.
    pub fn new(settings: &Settings) -> Result<Self, PortalError> {
        let address = || PortalError::Address(settings.server_url.clone());
        let url = settings.server_url.parse::<actix_web::http::Uri>().map_err(|_| address())?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(address());
        }
        if settings.token.is_empty() || !settings.token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PortalError::Token);
        }
        let fresh_ms = i64::from(settings.cache_s) * 1000;
        let source = Source::new(&settings.server_url, &settings.token, fresh_ms)
            .map_err(|error| PortalError::Client(error.to_string()))?;
        Ok(Self {
            source: Arc::new(source),
            pages: Arc::default(),
            sessions: Sessions::default(),
            cache_s: settings.cache_s,
        })
    }

    /// Codes and sessions: `sessions().new_code()` gives what stands in `/sign-in?code=…`.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

/// Adds the portal, `/api` and `/problems` to an application; call it in each worker with a clone
/// of one portal. All paths that nothing else serves get its "not found".
pub fn configure(cfg: &mut ServiceConfig, portal: Portal) {
    let form = || web::PayloadConfig::new(FORM_BYTES_MAX);
    let pages = web::scope("")
        .wrap(from_fn(guard::headers))
        .app_data(web::Data::new(portal))
        .app_data(form())
        .service(
            web::resource(["/api", "/api/{path:.*}", "/problems/{name}"])
                .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
                .route(web::to(pass_on::pass_on)),
        )
        .route("/style.css", web::get().to(style))
        .route("/live.js", web::get().to(script))
        .route("/sign-in", web::get().to(sign_in::show))
        .route("/sign-in", web::head().to(sign_in::show))
        .route("/sign-in", web::post().to(sign_in::spend))
        .route("/sign-out", web::post().to(sign_in::sign_out))
        .route("/live", web::get().to(live::live))
        .route("/search", web::get().to(search))
        .route("/alarms", web::post().to(change::alarms))
        .route("/customers", web::post().to(customers::add))
        .route("/alarms/{id}", web::post().to(change::alarm))
        .default_service(web::to(page));
    cfg.service(pages);
}

/// The clock, milliseconds since 1970.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Which page has that path.
fn page_of(path: &str) -> Option<Page> {
    Some(match path {
        "/" => Page::Overview,
        "/alarms" => Page::Alarms,
        "/events" => Page::Events,
        "/instances" => Page::Instances,
        "/nodes" => Page::Nodes,
        "/messages" => Page::Messages,
        "/ledger" => Page::Ledger,
        "/customers" => Page::Customers,
        _ => match path.strip_prefix("/messages/") {
            // An id may come with slashes, and with a colon written as %3A.
            Some(id) => Page::Trace(id.replace("%3A", ":").replace("%3a", ":").parse().ok()?),
            None => Page::Alarm(path.strip_prefix("/alarms/")?.parse().ok()?),
        },
    })
}

/// The middle of a page.
async fn show(view: &mut View<'_>, page: Page) -> Result<Sheet, SourceError> {
    match page {
        Page::Overview => overview::show(view).await,
        Page::Alarms => alarms::show(view).await,
        Page::Alarm(id) => alarm::show(view, id).await,
        Page::Events => events::show(view).await,
        Page::Instances => instances::show(view).await,
        Page::Nodes => nodes::show(view).await,
        Page::Messages => messages::show(view).await,
        Page::Trace(id) => trace::show(view, id).await,
        Page::Ledger => ledger::show(view).await,
        Page::Customers => customers::show(view).await,
    }
}

/// Every page that is read.
async fn page(request: HttpRequest, portal: web::Data<Portal>) -> HttpResponse {
    if !request.method().is_safe() {
        return HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "GET, HEAD"))
            .finish();
    }
    let Some(session) = guard::session(&request, &portal) else {
        return to_sign_in(request.uri().path_and_query().map_or("/", |to| to.as_str()));
    };
    let Some(page) = page_of(request.path()) else { return error::not_found() };
    match made(&request, &portal, &session, page).await {
        Ok(Made { html, fresh: true }) => {
            kept(&request, &html, "text/html; charset=utf-8", portal.cache_s)
        }
        Ok(Made { html, fresh: false }) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .content_type("text/html; charset=utf-8")
            .body(html.to_vec()),
        Err(error) => error::of(&error, request.path()),
    }
}

struct Made {
    html: Arc<[u8]>,
    fresh: bool,
}

/// A page made now or a few seconds ago.
async fn made(
    request: &HttpRequest,
    portal: &Portal,
    session: &Session,
    page: Page,
) -> Result<Made, SourceError> {
    // The form token stands in the page: each session has its own.
    let name = format!("{} {}", session.csrf, request.uri());
    let (now, version) = (now_ms(), portal.source.feed.version());
    if let Some(entry) = portal.pages.get(&name)
        && entry.is_fresh(now, version, i64::from(portal.cache_s) * 1000)
    {
        return Ok(Made { html: entry.bytes, fresh: true });
    }
    let query = Query::read(request.query_string());
    let mut view = View::read(&portal.source, query, &session.csrf).await?;
    let sheet = show(&mut view, page).await?;
    let html: Arc<[u8]> = layout::document(&view, page, &sheet).into_bytes().into();
    let fresh = view.stale_since_ms.is_none();
    if fresh {
        let entry = cache::Entry { bytes: html.clone(), at_ms: now, version };
        portal.pages.put(&name, entry);
    }
    Ok(Made { html, fresh })
}

/// Bytes with a tag; only the tag where the client has them.
fn kept(request: &HttpRequest, bytes: &[u8], kind: &str, for_s: u32) -> HttpResponse {
    let etag = cache::etag(bytes);
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| cache::matches(known, &etag));
    let mut answer = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header((header::ETAG, etag))
        .insert_header((header::VARY, "Cookie"))
        .insert_header((header::CACHE_CONTROL, format!("private, max-age={for_s}")));
    if is_known { answer.finish() } else { answer.content_type(kind).body(bytes.to_vec()) }
}

async fn style(request: HttpRequest) -> HttpResponse {
    kept(&request, STYLE.as_bytes(), "text/css; charset=utf-8", ASSET_S)
}

async fn script(request: HttpRequest) -> HttpResponse {
    kept(&request, SCRIPT.as_bytes(), "text/javascript; charset=utf-8", ASSET_S)
}

async fn search(request: HttpRequest, portal: web::Data<Portal>) -> HttpResponse {
    if guard::session(&request, &portal).is_none() {
        return to_sign_in("/");
    }
    let query = Query::read(request.query_string());
    see_other(&messages::search(query.one("q").unwrap_or_default()))
}

/// To the sign-in, which leads back to where somebody wanted to go.
fn to_sign_in(to: &str) -> HttpResponse {
    let to = Query::default().with("to", to);
    see_other(&format!(
        "/sign-in{}",
        if to.one("to") == Some("/") { String::new() } else { to.words() }
    ))
}

fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, path))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}
