//! The list of events.
use extension::records::{Event, Page as Listed};
use maud::{Markup, html};
use protocol::service::Severity;

use crate::{
    alarms::{FILTERS, text_filter},
    layout::{chip, customer_chips, icon, pages, sev, time},
    overview::message_path,
    source::SourceError,
    view::{ROWS, Sheet, View},
    words,
};

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let mut filter = view.query.only(FILTERS);
    if let Some(cursor) = view.query.one("cursor") {
        filter = filter.with("cursor", cursor);
    }
    let path = format!("/events{}", filter.with("limit", ROWS.to_string()).words());
    let listed: Listed<Event> = view.get(&path).await?;
    let main = html! {
        div.head { h1 { "Events" } p { "Newest first; one row an event, as it is now" } }
        (filters(view))
        p.new id="new" aria-live="polite" {}
        @if listed.items.is_empty() {
            p.note {
                @if view.query.0.is_empty() { "No event yet. " } @else {
                    "No event is like this. " a href="/events" { "All events" } }
            }
        } @else {
            (table(view, &listed.items))
            (pages(view, "/events", listed.items.len(), listed.next.as_deref()))
        }
    };
    Ok(Sheet { title: "Events".to_owned(), nav: "/events", main })
}

fn filters(view: &View<'_>) -> Markup {
    let open = !view.query.only(FILTERS).0.is_empty();
    html! {
        details.fold open[open] {
            summary { "Filter" }
            div.filters role="group" aria-label="Filter" {
                div {
                    span.k { "Severity" }
                    ul.chips { @for severity in Severity::ALL.iter().rev() {
                        (chip(view, "/events", "severity", severity.word(), &sev(*severity)))
                    } }
                }
                div {
                    span.k { "State" }
                    ul.chips { @for state in ["opened", "updated", "acknowledged", "closed"] {
                        (chip(view, "/events", "state", state, &html! { (state) }))
                    } }
                }
                (customer_chips(view, "/events"))
                (text_filter(view, "/events"))
            }
        }
    }
}

fn table(view: &View<'_>, events: &[Event]) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Events" }
            thead { tr {
                th scope="col" { "Severity" } th scope="col" { "When" } th scope="col" { "Event" }
                th scope="col" { "Instance" } th scope="col" { "State" }
                th scope="col" class="n" { "Count" } th scope="col" class="n" { "Arrived in" }
            } }
            tbody { @for event in events {
                tr id={ "e-" (words::in_path(&event.instance_id.to_string())) "-"
                    (words::escaped(&event.event_id)) } data-part data-row {
                    td { (sev(event.severity)) }
                    td { (time(event.occurred_at.0, "ago", now)) }
                    th scope="row" class="full" {
                        a href=(message_path(&event.message_id)) { (event.text) } " "
                        span.dim.sm { (event.kind) " " (event.event_id) }
                    }
                    td { a href={ "/events?instance=" (event.instance_id.dotted()) } {
                        (event.instance) } }
                    td { span.tag { (event.state.word()) }
                        @if event.replayed { " " span.tag { (icon("replay")) "replayed" } } }
                    td.n data-l="count" { (words::count(event.count)) }
                    td.n data-l="arrived in" {
                        (words::short(event.stored_at.0 - event.occurred_at.0)) }
                }
            } }
        } }
    }
}
