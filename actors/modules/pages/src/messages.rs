//! The list of stored messages, and where a search leads.
use extension::records::{Message, Page as Listed};
use maud::{Markup, html};
use protocol::{MessageId, RemoteId};
use uuid::Uuid;

use crate::{
    layout::{chip, customer_chips, icon, pages, time},
    overview::message_path,
    source::SourceError,
    view::{ROWS, Sheet, View},
    words,
};

const FILTERS: &[&str] = &[
    "customer",
    "node",
    "integrator",
    "instance",
    "class",
    "subclass",
    "text",
    "since",
    "until",
    "cursor",
];

/// Where a search for an id or a text leads.
pub(crate) fn search(q: &str) -> String {
    let q = q.trim();
    if q.is_empty() {
        return "/messages".to_owned();
    }
    if let Ok(id) = q.parse::<MessageId>() {
        return message_path(&id);
    }
    if let Ok(id) = q.parse::<Uuid>() {
        return format!("/alarms/{id}");
    }
    match q.parse::<RemoteId>() {
        Ok(id) if id.levels() >= 3 => format!("/instances?instance={}", id.dotted()),
        Ok(id) if id.levels() == 1 => format!("/nodes?node={}", id.dotted()),
        _ => format!("/alarms?state=all&text={}", words::escaped(q)),
    }
}

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let filter = view.query.only(FILTERS);
    let path = format!("/messages{}", filter.with("limit", ROWS.to_string()).words());
    let listed: Listed<Message> = view.get(&path).await?;
    let main = html! {
        div.head {
            h1 { "Messages" }
            p { "Stored ones, newest first; those on their way are found by their id" }
        }
        (filters(view))
        p.new id="new" aria-live="polite" {}
        @if listed.items.is_empty() {
            p.note {
                @if view.query.0.is_empty() { "No message is stored yet." } @else {
                    "No message is like this. " a href="/messages" { "All messages" } }
            }
        } @else {
            (table(view, &listed.items))
            (pages(view, "/messages", listed.items.len(), listed.next.as_deref()))
        }
    };
    Ok(Sheet { title: "Messages".to_owned(), nav: "/messages", main })
}

fn filters(view: &View<'_>) -> Markup {
    html! {
        div.filters role="group" aria-label="Filter" {
            form action="/search" role="search" aria-label="Find a message" {
                div.row.mid {
                    label.in for="mq" { "Message id" }
                    input id="mq" type="search" name="q" size="44";
                    button { "Trace" }
                }
            }
            div {
                span.k { "Class" }
                ul.chips { @for class in ["alarm", "event", "data", "registration"] {
                    (chip(view, "/messages", "class", class, &html! { (class) }))
                } }
            }
            (customer_chips(view, "/messages"))
            (crate::alarms::text_filter(view, "/messages"))
        }
    }
}

fn table(view: &View<'_>, messages: &[Message]) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Messages" }
            thead { tr {
                th scope="col" { "Message" } th scope="col" { "Where it is" }
                th scope="col" { "What" } th scope="col" { "Instance" }
                th scope="col" { "Precedence" } th scope="col" class="n" { "Size" }
                th scope="col" class="n" { "Accepted" }
            } }
            tbody { @for message in messages {
                tr id={ "m-" (message.seq) } data-part data-row {
                    th scope="row" class="full id" {
                        a href=(message_path(&message.message_id)) {
                            (words::short_id(&message.message_id.to_string())) }
                    }
                    td { span.dim { (icon("yes")) " stored in "
                        (words::short(message.stored_at.0 - message.accepted_at.0)) }
                        @if message.replayed { " " span.tag { (icon("replay")) "replayed" } } }
                    td { (message.class) @if let Some(sub) = &message.subclass { ", " (sub) } }
                    td { @if let Some(instance) = &message.instance { (instance) } }
                    td { (message.precedence.word()) }
                    td.n data-l="size" { (words::bytes(message.bytes)) }
                    td.n { (time(message.accepted_at.0, "ago", now)) }
                }
            } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_leads_where_the_id_belongs() {
        let customer = "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2";
        let cases = [
            (" ", "/messages".to_owned()),
            (&format!("{customer}/3:7:u:1"), format!("/messages/{customer}.3:7:u:1")),
            (customer, format!("/alarms/{customer}")),
            (&format!("{customer}/3/1/17"), format!("/instances?instance={customer}.3.1.17")),
            (&format!("{customer}/3"), format!("/nodes?node={customer}.3")),
            ("disk & fan", "/alarms?state=all&text=disk%20%26%20fan".to_owned()),
        ];
        for (q, path) in cases {
            assert_eq!(search(q), path);
        }
    }
}
