//! Pages that stand open: `GET /live?page=…` sends the parts that changed as server-sent events.
//!
//! One task follows the application server's stream for all of them; it counts changes, and each
//! open page makes its parts anew when the count moved. Without the stream it counts each second.
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{self, Bytes},
};
use futures_util::{Stream, stream};
use reqwest::Method;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use crate::{
    Portal, guard, layout,
    parts::{self, Part},
    pass_on::{problem, unauthenticated},
    session::Session,
    show,
    source::Source,
    view::{Page, Query, View},
    words,
};

/// Open pages at a time: each costs a few reads a second at most.
pub const LIVE_MAX: usize = 256;
/// Between two beats: the page is stale after 30 s without (design notes: 10 s at most).
const BEAT_EACH: Duration = Duration::from_secs(5);
/// Shortest time between two looks at the pages: changes that come together go together, so that
/// a storm of alarms costs the server two or three reads a second for each list.
const LOOK_EACH: Duration = Duration::from_millis(400);
/// A stream that is silent for longer is dead: the server says something each 15 s.
const QUIET_MAX: Duration = Duration::from_secs(45);
/// Without the server's stream, a change is assumed so often.
const POLL_EACH: Duration = Duration::from_secs(1);
/// How soon a browser connects again, milliseconds.
const RETRY_MS: u32 = 2000;
/// What the portal follows. Messages come too often; the page of them looks at each beat.
const TOPICS: &str = "/stream?topic=alarms&topic=events&topic=nodes&topic=ledger";

/// How often the application server's records changed, as far as the portal knows.
#[derive(Debug)]
pub struct Feed {
    count: watch::Sender<u64>,
    runs: AtomicBool,
    open: Arc<Semaphore>,
}

impl Default for Feed {
    fn default() -> Self {
        let open = Arc::new(Semaphore::new(LIVE_MAX));
        Self { count: watch::Sender::new(0), runs: AtomicBool::new(false), open }
    }
}

impl Feed {
    /// How many changes so far.
    pub(crate) fn version(&self) -> u64 {
        *self.count.borrow()
    }

    /// Something changed: what was read before is old.
    pub(crate) fn changed(&self) {
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Follows the changes; the first one to do so starts the task that counts them.
    fn follow(source: &Arc<Source>) -> watch::Receiver<u64> {
        let receiver = source.feed.count.subscribe();
        if !source.feed.runs.swap(true, Ordering::AcqRel) {
            actix_web::rt::spawn(count(source.clone()));
        }
        receiver
    }
}

/// Counts changes while somebody follows them.
async fn count(source: Arc<Source>) {
    let feed = &source.feed;
    loop {
        while feed.count.receiver_count() > 0 {
            let last = Instant::now();
            if let Err(error) = listen(&source).await {
                tracing::debug!(%error, "no stream from the application server; polling");
            }
            feed.changed();
            tokio::time::sleep_until(last + POLL_EACH).await;
        }
        feed.runs.store(false, Ordering::Release);
        // Somebody may have come between the look and the mark.
        if feed.count.receiver_count() == 0 || feed.runs.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}

/// Counts the events of one connection, those that come together as one, until it ends, says
/// nothing any more, or nobody follows.
async fn listen(source: &Source) -> Result<(), reqwest::Error> {
    let mut answer = source.request(Method::GET, TOPICS).send().await?.error_for_status()?;
    let (mut pending, mut next) = (false, Instant::now());
    loop {
        tokio::select! {
            chunk = tokio::time::timeout(QUIET_MAX, answer.chunk()) => {
                let Ok(chunk) = chunk else { return Ok(()) };
                let Some(chunk) = chunk? else { return Ok(()) };
                if source.feed.count.receiver_count() == 0 {
                    return Ok(());
                }
                // An event cut in two chunks has its first word in one of them, or its data.
                let has = |word: &[u8]| chunk.windows(word.len()).any(|w| w == word);
                pending |= has(b"event:") || has(b"data:");
            }
            () = tokio::time::sleep_until(next), if pending => {
                source.feed.changed();
                (pending, next) = (false, Instant::now() + LOOK_EACH);
            }
        }
    }
}

/// Where a page's events come from; `seen` is the version of the parts it shows.
pub(crate) fn url(page: Page, query: &Query, seen: u64) -> String {
    let mut all = Query::default().with("page", page.name());
    if let Some(id) = page.id() {
        all = all.with("id", id);
    }
    all = all.with("seen", format!("{seen:x}"));
    // The page's own parameters under one name: its `page` is a number.
    if !query.0.is_empty() {
        all = all.with("of", query.words().trim_start_matches('?'));
    }
    format!("/live{}", all.words())
}

/// `GET /live?page=…`
pub(crate) async fn live(request: HttpRequest, portal: web::Data<Portal>) -> HttpResponse {
    let Some(session) = guard::session(&request, &portal) else {
        return unauthenticated(&request);
    };
    let query = Query::read(request.query_string());
    let page =
        query.one("page").and_then(|name| Page::named(name, query.one("id").unwrap_or_default()));
    let Some(page) = page else {
        let title = ("not_found", "There is no such page");
        let detail = "page is one of overview alarms alarm events instances nodes messages \
                      trace ledger customers; alarm and trace want an id";
        return problem(&request, StatusCode::NOT_FOUND, title, "give_up", detail);
    };
    let Ok(place) = portal.source.feed.open.clone().try_acquire_owned() else {
        let detail = format!("{LIVE_MAX} pages stand open; close one, or reload by hand");
        let title = ("busy", "Too many open pages");
        return problem(&request, StatusCode::TOO_MANY_REQUESTS, title, "try_again", &detail);
    };
    let seen = query.one("seen").and_then(|seen| u64::from_str_radix(seen, 16).ok());
    let open = Open {
        of: Query::read(query.one("of").unwrap_or_default()),
        changes: Feed::follow(&portal.source),
        portal,
        session,
        page,
        kept: Kept::Seen(seen.unwrap_or_default()),
        next_beat: Instant::now(),
        first: true,
        _place: place,
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events(open))
}

/// What the reader has before them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// Only the version of all parts is known.
    Seen(u64),
    /// Digest of each part; rows, as they were when the page was made.
    Parts { digests: BTreeMap<String, u64>, rows: BTreeSet<String> },
}

/// One page that stands open.
struct Open {
    portal: web::Data<Portal>,
    session: Session,
    page: Page,
    of: Query,
    changes: watch::Receiver<u64>,
    kept: Kept,
    next_beat: Instant,
    first: bool,
    _place: OwnedSemaphorePermit,
}

fn events(open: Open) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(open, |mut open| async move {
        let bytes = open.next().await?;
        Some((Ok(Bytes::from(bytes)), open))
    })
}

impl Open {
    /// The next events; nothing where the session ended.
    async fn next(&mut self) -> Option<String> {
        if !self.first {
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.next_beat) => (),
            }
        }
        if !self.portal.sessions().lives(&self.session, crate::now_ms()) {
            return None;
        }
        let retry = if self.first { format!("retry: {RETRY_MS}\n\n") } else { String::new() };
        self.first = false;
        self.changes.mark_unchanged();
        Some(retry + &self.look().await)
    }

    /// Makes the page anew and says what is other; without the application server there is no
    /// beat, and the page says by itself that it is stale.
    async fn look(&mut self) -> String {
        let view = View::read(&self.portal.source, self.of.clone(), &self.session.csrf).await;
        let (Ok(mut view), beat) = (view, self.next_beat <= Instant::now()) else {
            self.next_beat = Instant::now() + BEAT_EACH;
            return ": the application server does not answer\n\n".to_owned();
        };
        if beat {
            self.next_beat = Instant::now() + BEAT_EACH;
        }
        let sheet = match show(&mut view, self.page).await {
            Ok(sheet) if view.stale_since_ms.is_none() => sheet,
            _ => return ": the application server does not answer\n\n".to_owned(),
        };
        let (line, menu, main) = layout::fragments(&view, &sheet);
        let parts = parts::of(&[&line, &menu, &main]);
        let (mut out, kept) = changes(&self.kept, &parts);
        self.kept = kept;
        if beat || !out.is_empty() {
            let title = layout::title(&view, &sheet);
            let data = serde_json::json!({"now": words::iso(view.now_ms()), "title": title});
            out.push_str(&event("beat", &data.to_string()));
        }
        if out.is_empty() { ": nothing new\n\n".to_owned() } else { out }
    }
}

/// What to send to a reader who has `kept`, and what they have then (pure).
fn changes(kept: &Kept, parts: &[Part]) -> (String, Kept) {
    let digests: BTreeMap<String, u64> = parts.iter().map(|p| (p.id.clone(), p.digest)).collect();
    let now: BTreeSet<String> = parts.iter().filter(|p| p.is_row).map(|p| p.id.clone()).collect();
    let mut out = String::new();
    let mut rows = now.clone();
    match kept {
        Kept::Seen(seen) if *seen == parts::version(parts) => (),
        Kept::Seen(_) => {
            for part in parts {
                out.push_str(&event("part", &part.html));
            }
            if !now.is_empty() {
                out.push_str(&new(1, "The list may have changed, show"));
            }
        }
        Kept::Parts { digests: had, rows: shown } => {
            for part in parts {
                let known = !part.is_row || shown.contains(&part.id);
                if known && had.get(&part.id) != Some(&part.digest) {
                    out.push_str(&event("part", &part.html));
                }
            }
            let rows_had = |id: &&String| had.contains_key(*id);
            let moved = !now.iter().all(|id| rows_had(&id))
                || !shown.iter().filter(rows_had).all(|id| now.contains(id));
            let (more, gone) = (now.difference(shown).count(), shown.difference(&now).count());
            if moved {
                out.push_str(&match (more, gone) {
                    (0, gone) => new(gone, &format!("{gone} gone from this list, show")),
                    (more, _) => new(more, &format!("{more} new, show")),
                });
            }
            rows = shown.clone();
        }
    }
    (out, Kept::Parts { digests, rows })
}

fn new(count: usize, words: &str) -> String {
    event("new", &serde_json::json!({"count": count, "words": words}).to_string())
}

/// One event; each line of the data is a field of its own.
fn event(name: &str, data: &str) -> String {
    let mut out = format!("event: {name}\n");
    for line in data.split(['\n', '\r']) {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(&str, &str)]) -> Vec<Part> {
        let mut html = "<ul id=\"line\" data-part></ul>".to_owned();
        for (id, text) in rows {
            html.push_str(&format!("<tr id=\"{id}\" data-part>{text}</tr>"));
        }
        parts::of(&[&html])
    }

    #[test]
    fn a_page_that_is_as_it_was_gets_nothing() {
        let parts = page(&[("a", "1")]);
        let (out, kept) = changes(&Kept::Seen(parts::version(&parts)), &parts);
        assert_eq!(out, "");
        assert_eq!(changes(&kept, &parts).0, "");
        // One that is not gets all, and is told that rows may be missing.
        let (out, _) = changes(&Kept::Seen(1), &parts);
        assert_eq!((out.matches("event: part").count(), out.matches("event: new").count()), (2, 1));
    }

    #[test]
    fn rows_change_in_place_and_new_ones_are_offered() {
        let parts = page(&[("a", "1"), ("b", "1")]);
        let (_, kept) = changes(&Kept::Seen(parts::version(&parts)), &parts);
        let (out, kept) = changes(&kept, &page(&[("c", "1"), ("a", "2"), ("b", "1")]));
        assert!(out.contains("data: <tr id=\"a\" data-part>2</tr>\n"));
        assert!(!out.contains("<tr id=\"c\"") && out.contains("1 new, show"));
        // The same again is no news; one more is.
        let again = page(&[("c", "1"), ("a", "2"), ("b", "1")]);
        let (out, kept) = changes(&kept, &again);
        assert_eq!(out, "");
        let (out, kept) = changes(&kept, &page(&[("d", "1"), ("c", "1"), ("a", "2"), ("b", "1")]));
        assert!(out.contains("2 new, show"));
        let (out, _) = changes(&kept, &page(&[("a", "2")]));
        assert!(out.contains("1 gone from this list"), "{out}");
    }

    #[test]
    fn an_event_has_no_line_that_could_be_another_field() {
        assert_eq!(
            event("part", "a\nevent: x\r\nb"),
            "event: part\ndata: a\ndata: event: x\ndata: \ndata: b\n\n"
        );
    }

    #[test]
    fn the_address_of_events_carries_the_filters() {
        let query = Query::read("severity=major&page=2");
        let url = url(Page::Alarms, &query, 255);
        assert_eq!(url, "/live?page=alarms&seen=ff&of=severity%3Dmajor%26page%3D2");
    }
}
