//! The list of alarms: which, how bad, since when, how late they came, who has them.
use std::{cmp::Reverse, collections::BTreeMap};

use extension::records::{Alarm, AlarmState, NodeState, Page as Listed};
use maud::{Markup, html};
use protocol::service::Severity;
use uuid::Uuid;

use crate::{
    layout::{chip, csrf, customer_chips, icon, sev, time},
    source::SourceError,
    view::{Query, READ_MAX, ROWS, Sheet, View},
    words,
};

/// Filters that the API knows, too.
pub(crate) const FILTERS: &[&str] = &[
    "customer",
    "node",
    "integrator",
    "instance",
    "type",
    "severity",
    "severity_min",
    "state",
    "text",
    "since",
    "until",
];

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let filter = view.query.only(FILTERS);
    let path = format!("/alarms{}", filter.with("limit", READ_MAX.to_string()).words());
    let listed: Listed<Alarm> = view.get(&path).await?;
    let more = listed.next.is_some();
    let groups = grouped(listed.items);
    let all: usize = groups.iter().map(|(_, alarms)| alarms.len()).sum();
    let page: usize = view.query.one("page").and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
    let rows = cut(&groups, (page - 1).saturating_mul(ROWS), ROWS);
    let shown: usize = rows.iter().map(|(_, alarms)| alarms.len()).sum();
    let main = html! {
        div.head {
            h1 { "Alarms" }
            p { (words::count(all as u64)) @if more { "+" }
                @if view.query.one("state").is_none() { " not closed" }
                ", by customer, worst first" }
        }
        (done(view))
        (filters(view))
        p.new id="new" aria-live="polite" {}
        @if all == 0 { (empty(view)) } @else {
            form method="post" action={ "/alarms" (view.query.without(&["done", "at"]).words()) } {
                (csrf(view))
                (table(view, &rows))
                (acts())
            }
            (paging(view, page, shown, all))
        }
    };
    Ok(Sheet { title: "Alarms".to_owned(), nav: "/alarms", main })
}

type Group = (Uuid, Vec<Alarm>);

/// By customer, whose worst alarm is worst first; in a group worst first, then newest.
fn grouped(alarms: Vec<Alarm>) -> Vec<Group> {
    let mut by: BTreeMap<Uuid, Vec<Alarm>> = BTreeMap::new();
    for alarm in alarms {
        by.entry(alarm.customer_id).or_default().push(alarm);
    }
    let mut groups: Vec<Group> = by.into_iter().collect();
    for (_, alarms) in &mut groups {
        alarms.sort_by_key(|alarm| (Reverse(alarm.severity), Reverse(alarm.opened_at)));
    }
    groups.sort_by_key(|(_, alarms)| {
        alarms.first().map(|alarm| (Reverse(alarm.severity), Reverse(alarm.opened_at)))
    });
    groups
}

/// `take` rows of all groups after the first `skip`.
fn cut(groups: &[Group], mut skip: usize, mut take: usize) -> Vec<(Uuid, &[Alarm])> {
    let mut out = Vec::new();
    for (customer, alarms) in groups {
        let from = skip.min(alarms.len());
        skip -= from;
        let to = (from + take).min(alarms.len());
        if from < to {
            take -= to - from;
            out.push((*customer, &alarms[from..to]));
        }
    }
    out
}

/// What was done by the form before.
fn done(view: &View<'_>) -> Markup {
    html! {
        @if let Some(count) = view.query.one("done").and_then(|n| n.parse::<u64>().ok()) {
            div.note role="status" {
                (icon("yes")) " Done for " (words::counted(count, "alarm")) "."
            }
        }
    }
}

fn filters(view: &View<'_>) -> Markup {
    let open = !view.query.only(FILTERS).0.is_empty();
    html! {
        details.fold open[open] {
            summary { "Filter" }
            div.filters role="group" aria-label="Filter" {
                div {
                    span.k { "Severity" }
                    ul.chips {
                        @for severity in Severity::ALL.iter().rev() {
                            (chip(view, "/alarms", "severity", severity.word(), &sev(*severity)))
                        }
                    }
                }
                div {
                    span.k { "State" }
                    ul.chips {
                        @for state in ["opened", "acknowledged", "closed", "all"] {
                            (chip(view, "/alarms", "state", state, &html! { (state) }))
                        }
                    }
                }
                (customer_chips(view, "/alarms"))
                (text_filter(view, "/alarms"))
            }
        }
    }
}

/// A form for a text and an instance, which keeps the other filters.
pub(crate) fn text_filter(view: &View<'_>, path: &str) -> Markup {
    let kept = view.query.without(&["text", "instance", "cursor", "page", "done", "at"]);
    html! {
        form action=(path) role="search" aria-label="Filter by text" {
            div.row.mid {
                @for (name, value) in &kept.0 { input type="hidden" name=(name) value=(value); }
                label.in for="ft" { "Text" }
                input id="ft" type="search" name="text" size="24" minlength="2"
                    value=[view.query.one("text")];
                label.in for="fi" { "Instance" }
                input id="fi" type="search" name="instance" size="20" placeholder="name or id"
                    value=[view.query.one("instance")];
                button { "Find" }
                @if !view.query.0.is_empty() { a href=(path) { "Without filters" } }
            }
        }
    }
}

fn empty(view: &View<'_>) -> Markup {
    html! {
        div.att {
            p.calm {
                (icon("yes"))
                @if view.query.only(FILTERS).0.is_empty() {
                    b { "No alarm is open." }
                    a href="/alarms?state=closed" { "Those that were closed" }
                } @else {
                    b { "No alarm is like this." }
                    a href="/alarms" { "All that are not closed" }
                }
            }
        }
    }
}

/// The table; also beside an open alarm.
pub(crate) fn table(view: &View<'_>, groups: &[(Uuid, &[Alarm])]) -> Markup {
    html! {
        div.tbl { table {
            caption.vh { "Alarms" }
            thead { tr {
                th scope="col" class="drop" { span.vh { "Select" } }
                th scope="col" { "Severity" } th scope="col" { "Since" }
                th scope="col" { "Alarm" } th scope="col" { "Instance" }
                th scope="col" { "State" } th scope="col" class="n" { "Count" }
                th scope="col" class="n" { "Arrived in" }
            } }
            @for (customer, alarms) in groups {
                tbody {
                    tr.group {
                        th colspan="8" scope="rowgroup" { (group_head(view, *customer, alarms)) }
                    }
                    @for alarm in *alarms { (row(view, alarm)) }
                }
            }
        } }
    }
}

pub(crate) fn group_head(view: &View<'_>, customer: Uuid, alarms: &[Alarm]) -> Markup {
    let silent =
        |n: &&extension::records::Node| n.customer_id == customer && n.state == NodeState::Silent;
    html! {
        (view.customer(customer))
        span.dim { (words::counted(alarms.len() as u64, "alarm")) }
        @for node in view.frame.nodes.iter().filter(silent).take(3) {
            span.bad-t { (icon("no")) " "
                a href={ "/nodes?node=" (node.node_id.dotted()) } { (node.node) }
                " is not heard: newer alarms may be missing" } " "
        }
    }
}

fn row(view: &View<'_>, alarm: &Alarm) -> Markup {
    let now = view.now_ms();
    html! {
        tr id={ "a-" (alarm.alarm_id) } data-part data-row {
            td.drop {
                input type="checkbox" name="a" value=(alarm.alarm_id)
                    aria-label={ "Select: " (alarm.text) };
            }
            td { (sev(alarm.severity)) }
            td { (time(alarm.opened_at.0, "for", now)) }
            th scope="row" class="full" {
                a href={ "/alarms/" (alarm.alarm_id) } { (alarm.text) } " "
                span.dim.sm { (alarm.kind) @if !alarm.key.is_empty() { " " (alarm.key) } }
            }
            td {
                a href={ "/alarms?state=all&instance=" (alarm.instance_id.dotted()) } {
                    (alarm.instance)
                }
            }
            td { (state(alarm, now)) }
            td.n data-l="count" { (words::count(alarm.count)) }
            td.n data-l="arrived in" { (words::short(alarm.stored_at.0 - alarm.occurred_at.0)) }
        }
    }
}

/// Its state, whether it is silenced, whether it came late.
pub(crate) fn state(alarm: &Alarm, now_ms: i64) -> Markup {
    let word = match alarm.state {
        AlarmState::Opened => "opened",
        AlarmState::Acknowledged => "acknowledged",
        AlarmState::Closed => "closed",
    };
    html! {
        span.tag { (word) }
        @if let Some(until) = alarm.silenced_until.filter(|until| until.0 > now_ms) {
            " " span.tag { "silenced until " (words::clock(until.0, now_ms)) }
        }
        @if alarm.replayed { " " span.tag { (icon("replay")) "replayed" } }
    }
}

/// How long a silence lasts, in a menu.
pub(crate) const SILENCES: &[(&str, &str)] =
    &[("3600", "for 1 hour"), ("14400", "for 4 hours"), ("86400", "for 1 day")];

fn acts() -> Markup {
    html! {
        div.acts.drop {
            b { "For the selected:" }
            label.vh for="cm" { "Comment" }
            input id="cm" name="comment" size="30" maxlength="1024"
                placeholder="Comment, kept with the alarm";
            button name="do" value="acknowledge" data-key="a" { "Acknowledge" }
            label.vh for="se" { "Silence" }
            select id="se" name="for_s" {
                @for (seconds, words) in SILENCES { option value=(seconds) { (words) } }
            }
            button name="do" value="silence" data-key="s" { "Silence" }
        }
    }
}

fn paging(view: &View<'_>, page: usize, shown: usize, all: usize) -> Markup {
    let base: Query = view.query.without(&["page", "done", "at"]);
    let first = (page - 1).saturating_mul(ROWS).saturating_add(1);
    let last = words::count((first.saturating_add(shown) - 1) as u64);
    let to =
        |page: usize| format!("/alarms{}", base.clone().with("page", page.to_string()).words());
    html! {
        @if all > ROWS {
            p.pages {
                span {
                    @if shown > 0 { (words::count(first as u64)) " to " (last) }
                    @else { "nothing here" }
                    " of " (words::count(all as u64))
                }
                span {
                    @if page > 1 {
                        a href=(to(page - 1)) { "Before" } " "
                    }
                    @if shown > 0 && first + shown <= all {
                        a href=(to(page.saturating_add(1))) { "Further" }
                    }
                }
            }
        }
    }
}
