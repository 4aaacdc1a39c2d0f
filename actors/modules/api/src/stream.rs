//! Server-sent events: the objects of the lists as they change (contract §5).
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{self, Bytes},
};
use extension::records::{Change, Changed, NodeFilter, Paging};
use futures_util::{Stream, stream::BoxStream};
use tokio::{sync::OwnedSemaphorePermit, time::Interval};

use crate::{
    Api,
    answer::Answered,
    filters,
    guard::caller,
    problem::{Problem, Wrong},
    query::CURSOR_BYTES_MAX,
    tokens::STREAMS_MAX,
};

/// Between two comments, so that middle boxes do not close the connection (contract §5).
pub const COMMENT_EACH: Duration = Duration::from_secs(15);
/// Bytes gathered into one write: what is ready goes together, and nothing waits for more. The
/// rest stays with the records, which tell a reader that is too slow by a gap.
pub const WRITE_BYTES_MAX: usize = 64 << 10;
/// How soon a browser connects again, milliseconds.
const RETRY_MS: u32 = 2000;

pub(crate) async fn stream(request: HttpRequest, api: web::Data<Api>) -> Answered {
    let filter = filters::read(request.query_string(), filters::stream)?;
    if let Some(customer) = &filter.customer {
        // A name that fits several is refused; a stream that runs could not say so.
        let nodes = NodeFilter { customer: Some(customer.clone()), ..NodeFilter::default() };
        let paging = Paging::first(1);
        api.ask("customer", 0, api.records.nodes(&nodes, &paging)).await?;
    }
    let after = match request.headers().get("last-event-id") {
        None => None,
        Some(id) => match id.to_str() {
            Ok(id) if id.len() <= CURSOR_BYTES_MAX => Some(id).filter(|id| !id.is_empty()),
            _ => {
                let wrong = Wrong::at("Last-Event-ID", "is none of ours; leave it out");
                return Err(Problem::malformed(vec![wrong]));
            }
        },
    };
    let Some(place) = api.tokens.stream(&caller(&request)?) else {
        let detail = format!("{STREAMS_MAX} streams are open with this token; close one");
        return Err(Problem::busy(detail, 15));
    };
    let changes = api.records.subscribe(&filter, after);
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(Events::new(changes, Some(place))))
}

/// Changes as the bytes of server-sent events, with a comment each `COMMENT_EACH`.
struct Events {
    changes: BoxStream<'static, Changed>,
    comments: Interval,
    first: bool,
    ended: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Events {
    fn new(changes: BoxStream<'static, Changed>, place: Option<OwnedSemaphorePermit>) -> Self {
        let start = tokio::time::Instant::now() + COMMENT_EACH;
        let mut comments = tokio::time::interval_at(start, COMMENT_EACH);
        comments.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { changes, comments, first: true, ended: false, _place: place }
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut bytes = String::new();
        if std::mem::take(&mut self.first) {
            // At once, so that the client knows that it is connected.
            bytes.push_str(&format!("retry: {RETRY_MS}\n: callhome\n\n"));
        }
        while !self.ended && bytes.len() < WRITE_BYTES_MAX {
            match self.changes.as_mut().poll_next(cx) {
                Poll::Ready(Some(changed)) => frame(&changed, &mut bytes),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if !self.ended && self.comments.poll_tick(cx).is_ready() {
            bytes.push_str(": alive\n\n");
            // Registers the next tick, unless there is something to write anyhow.
            let _ = self.comments.poll_tick(cx);
        }
        match (bytes.is_empty(), self.ended) {
            (false, _) => Poll::Ready(Some(Ok(Bytes::from(bytes)))),
            (true, true) => Poll::Ready(None),
            (true, false) => Poll::Pending,
        }
    }
}

/// One event. JSON has no line breaks of its own, and an id with one would be a field of its own.
fn frame(changed: &Changed, to: &mut String) {
    let id: String = changed.id.chars().filter(|c| !c.is_control()).collect();
    let data = match &changed.change {
        Change::Gap => "{}".to_owned(),
        change => change.json(),
    };
    to.push_str(&format!("event: {}\nid: {id}\ndata: {data}\n\n", changed.change.word()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::StreamExt;

    fn gap(id: &str) -> Changed {
        Changed { id: id.to_owned(), change: Change::Gap }
    }

    #[test]
    fn an_event_is_its_word_its_id_and_one_line_of_json() {
        let mut bytes = String::new();
        frame(&gap("a\nb"), &mut bytes);
        assert_eq!(bytes, "event: gap\nid: ab\ndata: {}\n\n");
    }

    #[actix_web::test]
    async fn a_quiet_stream_says_a_comment_every_fifteen_seconds() {
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        let mut events = Events::new(futures_util::stream::pending().boxed(), None);
        let first = events.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"retry: 2000\n"));
        for round in 1..=3u32 {
            let comment = events.next().await.unwrap().unwrap();
            assert_eq!(&comment[..], b": alive\n\n");
            assert_eq!(started.elapsed().as_secs(), u64::from(round) * 15);
        }
    }

    #[actix_web::test]
    async fn what_is_ready_goes_together_and_the_end_is_told() {
        let changes = futures_util::stream::iter([gap("1"), gap("2")]).boxed();
        let mut events = Events::new(changes, None);
        let bytes = events.next().await.unwrap().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.matches("event: gap").count(), 2);
        assert!(events.next().await.is_none());
    }
}
