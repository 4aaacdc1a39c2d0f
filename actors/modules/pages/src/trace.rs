//! Where one message is or what became of it, hop by hop.
use extension::records::{Hop, Message, MessageState, Node, Trace};
use maud::{Markup, html};
use protocol::{MessageId, RemoteId};

use crate::{
    layout::{at, icon, roles, section_head, time},
    source::SourceError,
    view::{Sheet, View},
    words,
};

/// How long nodes are given to answer, seconds: a page is not held for longer.
const WAIT_S: u64 = 1;
/// Nodes ahead that are shown: hops at most.
const AHEAD_MAX: usize = 8;

pub(crate) async fn show(view: &mut View<'_>, id: MessageId) -> Result<Sheet, SourceError> {
    let path = words::in_path(&id.to_string());
    let trace: Trace = view.get(&format!("/trace/{path}?wait_s={WAIT_S}")).await?;
    // What is not stored yet has no message there; the trace tells what is known.
    let message: Option<Message> = match view.get(&format!("/messages/{path}")).await {
        Ok(message) => Some(message),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let short = words::short_id(&id.to_string());
    let main = html! {
        div.head {
            p.crumb { a href="/messages" data-key="u" { "Messages" } " / Trace" }
            h1 { "Trace of " span.id.pick { (short) } }
            div.end {
                button type="button" class="noprint" data-print { "Print" }
                a.btn href={ "/api/v1/trace/" (path) } { "JSON" }
            }
        }
        div id="verdict" data-part { (verdict(view, &trace)) }
        section id="way-s" data-part aria-labelledby="way" { (way(view, &trace)) }
        section.cols {
            (what(view, &trace, message.as_ref()))
            (ids(id, message.as_ref()))
        }
    };
    Ok(Sheet { title: format!("Trace {short}"), nav: "/messages", main })
}

fn name(view: &View<'_>, id: &RemoteId, hops: &[Hop]) -> String {
    let hop = hops.iter().find(|hop| hop.node_id == *id).map(|hop| hop.node.clone());
    hop.or_else(|| view.node(id).map(|node| node.node.clone()))
        .unwrap_or_else(|| words::short_id(&id.to_string()))
}

fn verdict(view: &View<'_>, trace: &Trace) -> Markup {
    let now = view.now_ms();
    let place = trace.node_id.map(|id| name(view, &id, &trace.hops));
    let place = place.as_deref().unwrap_or("a node that is not known");
    let stored = trace.stored_at.zip(trace.accepted_at);
    let reason = trace.reason.as_deref().unwrap_or("no reason was given");
    let (class, symbol, words) = match (trace.state, stored) {
        (MessageState::Delivered, Some((stored, accepted))) => {
            let took = words::short(stored.0 - accepted.0);
            ("", "yes", format!("Stored {took} after it was accepted"))
        }
        (MessageState::Delivered, None) => ("", "yes", "Delivered".to_owned()),
        (MessageState::Queued, Some(_)) => {
            ("wait", "clock", format!("Stored at {place}; a service module is not done with it"))
        }
        (MessageState::Queued, None) => ("wait", "clock", format!("Waits at {place}")),
        (MessageState::Expired, _) => ("wait", "slash", format!("Expired at {place}")),
        (MessageState::Evicted, _) => {
            ("wait", "slash", format!("Evicted at {place}: its queue was full"))
        }
        (MessageState::Refused, _) => ("bad", "no", format!("Refused at {place}: {reason}")),
        (MessageState::Consumed, _) => {
            ("", "yes", format!("Consumed at {place}: a service module took it out"))
        }
        (MessageState::Unknown, _) => {
            ("wait", "unk", "Not known: no node that was asked has it".to_owned())
        }
    };
    html! {
        div class={ "verdict " (class) } role="status" {
            strong { (icon(symbol)) " " (words) }
            p {
                @if let Some(accepted) = trace.accepted_at {
                    "Accepted " (time(accepted.0, "ago", now)) ". "
                }
                @if let Some(stored) = trace.stored_at { "Stored " (at(stored.0, now)) ", once. " }
                @if trace.state == MessageState::Unknown {
                    "A node that is not connected may hold it; it is asked again when it calls."
                }
            }
        }
    }
}

/// From accepted to stored, or until now.
fn axis(trace: &Trace, now_ms: i64) -> Option<(i64, i64)> {
    let first = trace.hops.first().map(|hop| hop.received_at.0);
    let from = trace.accepted_at.map(|at| at.0).or(first)?;
    let waits = trace.state == MessageState::Queued && trace.stored_at.is_none();
    let last =
        trace.hops.iter().flat_map(|hop| [Some(hop.received_at.0), hop.sent_at.map(|at| at.0)]);
    let last = last.flatten().chain(trace.stored_at.map(|at| at.0)).max().unwrap_or(from);
    let to = if waits { now_ms } else { last };
    Some((from, to.max(from + 1)))
}

/// Where a bar begins on an axis of 100, and how wide it is: never too narrow to be seen.
fn place(from: i64, to: i64, axis: (i64, i64)) -> (f64, f64) {
    const LEAST: f64 = 0.35;
    let length = (axis.1 - axis.0) as f64;
    let x = ((from - axis.0) as f64 / length * 100.0).clamp(0.0, 100.0 - LEAST);
    // No `clamp`: what is left at the end may be a rounding error below the least.
    let width = ((to - from) as f64 / length * 100.0).min(100.0 - x).max(LEAST);
    (x, width)
}

fn bar(class: &str, from: i64, to: i64, axis: (i64, i64)) -> Markup {
    let (x, width) = place(from, to, axis);
    html! {
        div.wf aria-hidden="true" {
            svg viewBox="0 0 100 10" preserveAspectRatio="none" {
                path.axis d="M0 5H100" {}
                rect class=(class) x=(format!("{x:.2}")) width=(format!("{width:.2}"))
                    height="10" {}
            }
        }
    }
}

fn way(view: &View<'_>, trace: &Trace) -> Markup {
    let now = view.now_ms();
    let axis = axis(trace, now);
    let beside = html! {
        @if let Some((from, to)) = axis {
            "UTC, " (words::day(from)) ". Bars: " (words::short(to - from)) " from accepted "
            @if trace.stored_at.is_some() { "to stored" } @else { "until now" }
        }
    };
    html! {
        (section_head("way", "Hop by hop", &beside))
        @if let Some(axis) = axis.filter(|_| !trace.hops.is_empty()) {
            ol.hops {
                @for (n, hop) in trace.hops.iter().enumerate() {
                    @if let Some(before) = n.checked_sub(1).and_then(|n| trace.hops.get(n)) {
                        (link(before, hop, axis))
                    }
                    (hop_row(view, trace, n, hop, axis))
                }
                @for node in ahead(view, trace) {
                    li.link.ahead { div {} }
                    li.ahead {
                        div { b { (node.node) } " " span.sm { (roles(node)) } }
                        div { "not reached" }
                    }
                }
            }
        } @else {
            p.note { "No hop is known yet." }
        }
    }
}

fn link(before: &Hop, hop: &Hop, axis: (i64, i64)) -> Markup {
    html! {
        @match before.sent_at {
            Some(sent) => {
                li.link {
                    div { (words::short(hop.received_at.0 - sent.0)) " on the link" }
                    (bar("lk", sent.0, hop.received_at.0, axis))
                }
            }
            None => { li.link { div { "the next node had it before this one said it was sent" } } }
        }
    }
}

fn hop_row(view: &View<'_>, trace: &Trace, n: usize, hop: &Hop, axis: (i64, i64)) -> Markup {
    let now = view.now_ms();
    let is_last = n + 1 == trace.hops.len();
    let end = hop.sent_at.or(trace.stored_at.filter(|_| is_last)).map(|at| at.0);
    let here = is_last && end.is_none() && trace.state == MessageState::Queued;
    html! {
        li class=[here.then_some("here")] {
            div {
                b { a href={ "/nodes?node=" (hop.node_id.dotted()) } { (hop.node) } } " "
                span.dim.sm { (hop.roles.join(", ")) } br;
                span.id.sm { (words::short_id(&hop.node_id.to_string())) }
            }
            div {
                span.lbl { @if n == 0 { "accepted" } @else { "received" } } " "
                time datetime=(hop.received_at) { (words::fine(hop.received_at.0)) }
            }
            div {
                @match (hop.sent_at, end) {
                    (Some(sent), _) => {
                        span.lbl { "sent" } " " time datetime=(sent) { (words::fine(sent.0)) }
                    }
                    (None, Some(stored)) => {
                        span.lbl { "stored" } " "
                        time datetime=(words::iso(stored)) { (words::fine(stored)) }
                    }
                    (None, None) => { span.lbl { "sent" } " " b { "not yet" } }
                }
            }
            div {
                span.lbl { "held" } " "
                b {
                    @match end {
                        Some(end) => (words::short(end - hop.received_at.0)),
                        None => (words::short(now - hop.received_at.0)),
                    }
                }
            }
            (bar(if here { "w" } else { "" }, hop.received_at.0, end.unwrap_or(now), axis))
            @if here {
                div.more { b { "Here." } " On disk. "
                    a href={ "/nodes?node=" (hop.node_id.dotted()) } { "See this node" } }
            }
        }
    }
}

/// The nodes that a waiting message has before it.
fn ahead<'a>(view: &'a View<'_>, trace: &Trace) -> Vec<&'a Node> {
    if trace.state != MessageState::Queued || trace.stored_at.is_some() {
        return Vec::new();
    }
    let mut ahead: Vec<&Node> = Vec::new();
    let mut next = trace.hops.last().and_then(|hop| view.node(&hop.node_id)?.parent_id);
    while let Some(node) = next.and_then(|id| view.node(&id)) {
        if ahead.len() == AHEAD_MAX || ahead.iter().any(|seen| seen.node_id == node.node_id) {
            break;
        }
        ahead.push(node);
        next = node.parent_id;
    }
    ahead
}

fn what(view: &View<'_>, trace: &Trace, message: Option<&Message>) -> Markup {
    let now = view.now_ms();
    let of = message.and_then(|m| m.instance.as_ref().zip(m.instance_id.as_ref()));
    html! {
        section aria-labelledby="what" {
            (section_head("what", "What it is", &html! {}))
            div.panel {
                @if let Some(message) = message {
                    dl.kv {
                        dt { "Kind" }
                        dd { (message.class) @if let Some(sub) = &message.subclass { ", " (sub) } }
                        @if let Some((instance, id)) = of.as_ref() {
                            dt { "Instance" }
                            dd { a href={ "/instances?instance=" (id.dotted()) } { (instance) } }
                            dt { "Instance id" } dd { span.id.pick { (id) } }
                        }
                        @if let Some(integrator) = &message.integrator {
                            dt { "Integrator" } dd { (integrator) }
                        }
                        dt { "Precedence" }
                        dd { (message.precedence.word()) ", persistence "
                            (message.persistence.word()) }
                        dt { "Occurred" } dd { (at(message.occurred_at.0, now)) }
                        dt { "Accepted" } dd { (at(message.accepted_at.0, now)) }
                        dt { "Lives" }
                        dd { @match message.time_to_live_s {
                            Some(s) => (words::span(f64::from(s))), None => "for ever" } }
                        dt { "Size" } dd { (words::count(message.bytes)) " bytes" }
                        @if let Some(answers) = &message.answers {
                            dt { "Answers" }
                            dd { a.id href=(crate::overview::message_path(answers)) { (answers) } }
                        }
                        @if let Some(encoding) = message.encoding.iter().find(|e| !e.is_empty()) {
                            dt { "Data" }
                            dd { code { (encoding) } ", "
                                a href={ "/api/v1/messages/"
                                    (words::in_path(&message.message_id.to_string())) "/data" }
                                    download { "download" } }
                        }
                        @if message.replayed {
                            dt { "Replayed" } dd { "it waited out an outage" }
                        }
                    }
                } @else {
                    dl.kv {
                        dt { "Kind" }
                        dd { @match &trace.class { Some(class) => (class), None => "not known" } }
                        @if let Some(occurred) = trace.occurred_at {
                            dt { "Occurred" } dd { (at(occurred.0, now)) }
                        }
                    }
                    p.hint.mt { "The application server has not stored it; the rest is known where \
                                 it waits." }
                }
            }
        }
    }
}

fn ids(id: MessageId, message: Option<&Message>) -> Markup {
    html! {
        section aria-labelledby="ids" {
            (section_head("ids", "Ids", &html! {}))
            div.panel {
                dl.kv {
                    dt { "Message" } dd { span.id.pick { (id) } }
                    dt { "Origin" }
                    dd { span.id { (id.origin) } ", epoch " (format!("{:x}", id.epoch)) ", "
                        (id.precedence.word()) ", " (id.sequence) }
                    dt { "Customer" } dd { span.id.pick { (id.origin.customer_id()) } }
                    @if let Some(message) = message {
                        dt { "Stored as" } dd { (words::count(message.seq)) }
                    }
                    dt { "Same from the shell" } dd { code { "callhome trace " (id) } }
                }
            }
            p.sm.dim.mt { "Each node writes the times by its own clock; where clocks differ, so do \
                           the spans on the links." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn bars_at_either_end_are_drawn_whatever_the_clocks_say() {
        assert_eq!(place(0, 100, (0, 100)), (0.0, 100.0));
        for (from, to) in [(100, 100), (99, 100), (500, 600), (-50, -60), (100, 0)] {
            let (x, width) = place(from, to, (0, 100));
            assert!((0.0..=99.65).contains(&x) && (0.35..=100.0).contains(&width), "{from} {to}");
        }
    }
}
