//! The first page: what is wrong, since when, is every site delivering, what came last.
use extension::records::{
    Alarm, AlarmState, Event, Ledger, Node, NodeState, Page as Listed, Reason,
};
use maud::{Markup, html};
use protocol::{Refusal, heartbeat::only_warns, service::Severity};

use crate::{
    layout::{answers, icon, is_delivering, is_unready, roles, section_head, sev, time},
    ledger, picture,
    source::SourceError,
    view::{Sheet, View},
    words,
};

/// Sentences shown: more would not be read; the alarms have a page of their own.
const SHOWN: usize = 8;
/// What waits longer is a sentence, seconds: the time after which a node is not delivering.
const BEHIND_S: f64 = 60.0;
/// Events shown.
const EVENTS: usize = 6;
/// Nodes up to which the picture is drawn (design notes); above it the worst are listed.
const DRAWN_MAX: usize = 12;

/// One sentence of what needs attention.
struct Attention {
    severity: Severity,
    since_ms: Option<i64>,
    href: String,
    title: String,
    text: String,
    act: &'static str,
    act_href: String,
}

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let events: Listed<Event> = view.get(&format!("/events?limit={EVENTS}")).await?;
    let mut all = attention(view);
    all.sort_by_key(|one| (std::cmp::Reverse(one.severity), one.since_ms.map(|ms| -ms)));
    let title = match all.len() {
        0 => "Overview".to_owned(),
        1 => "1 needs attention, Overview".to_owned(),
        n => format!("{n} need attention, Overview"),
    };
    let main = html! {
        h1.vh { "Overview" }
        @if view.frame.nodes.is_empty() { (nobody_yet()) } @else {
            (attention_list(view, &all))
            (tiers(view))
        }
        (latest(view, &events.items))
    };
    Ok(Sheet { title, nav: "/", main })
}

fn attention(view: &View<'_>) -> Vec<Attention> {
    let now = view.now_ms();
    let frame = &view.frame;
    let alarms = frame.alarms.iter().filter(|alarm| is_pressing(alarm, now));
    let mut all: Vec<Attention> = alarms.map(|alarm| of_alarm(view, alarm)).collect();
    all.extend(frame.nodes.iter().filter_map(|node| of_node(view, node)));
    all.extend(frame.ledgers.iter().filter(|ledger| !ledger.balanced).map(of_ledger));
    all
}

/// Open, major or worse, nobody has seen it, not silenced.
fn is_pressing(alarm: &Alarm, now_ms: i64) -> bool {
    alarm.state == AlarmState::Opened
        && alarm.severity >= Severity::Major
        && alarm.silenced_until.is_none_or(|until| until.0 <= now_ms)
}

fn of_alarm(view: &View<'_>, alarm: &Alarm) -> Attention {
    let href = format!("/alarms/{}", alarm.alarm_id);
    let took = words::short(alarm.stored_at.0 - alarm.accepted_at.0);
    let customer = view.customer(alarm.customer_id);
    let often = if alarm.count > 1 {
        format!(" {} messages.", words::count(alarm.count))
    } else {
        String::new()
    };
    Attention {
        severity: alarm.severity,
        since_ms: Some(alarm.opened_at.0),
        title: format!("{}: {}", alarm.instance, alarm.text),
        text: format!(
            "{customer}. Stored {took} after it was accepted.{often} Nobody has acknowledged it."
        ),
        act: "Acknowledge",
        act_href: format!("{href}#ack"),
        href,
    }
}

fn of_node(view: &View<'_>, node: &Node) -> Option<Attention> {
    let now = view.now_ms();
    let href = format!("/nodes?node={}", node.node_id.dotted());
    let customer = view.customer(node.customer_id);
    let waiting = words::counted(node.queued, "message");
    let (severity, title, text, since_ms) = if node.state == NodeState::Silent {
        let heard = node.last_heartbeat_at.map(|at| at.0);
        let last = heard.map_or("It was never heard".to_owned(), |at| {
            format!("Last heard {}; {waiting} waited then", words::clock(at, now))
        });
        let text = format!("{customer}. {last}. What it holds now is not known.");
        (Severity::Critical, format!("{} is not heard", node.node), text, heard)
    } else if !node.delivering.ok {
        let text = format!("{customer}. {waiting} wait. {}", why(&node.delivering.reasons));
        (Severity::Critical, format!("{} is not delivering", node.node), text, behind(node, now))
    } else if let Some(ready) = node.ready.as_ref().filter(|_| is_unready(node)) {
        // A full queue still takes what makes room for itself.
        let is_full = !ready.reasons.is_empty()
            && ready.reasons.iter().all(|r| r.name == Refusal::QueueFull.name());
        let takes = if is_full { "It takes some messages only" } else { "It takes no messages" };
        let text = format!("{customer}. {takes}. {}", why(&ready.reasons));
        (Severity::Major, format!("{} is not ready", node.node), text, None)
    } else if let Some(age) = node.oldest_age_s.filter(|age| *age >= BEHIND_S) {
        let text = format!(
            "{customer}. {waiting} wait, the oldest for {}; {}.",
            words::span(age),
            words::empty_in(node.queued, node.drain_eta_s)
        );
        let title = match &node.delivering.held {
            Some(held) => format!("{} is held: {held}", node.node),
            None => format!("{} is catching up", node.node),
        };
        (Severity::Minor, title, text, behind(node, now))
    } else {
        let warns = node.delivering.reasons.iter().find(|reason| only_warns(&reason.name))?;
        let text = format!("{customer}. {}; {}.", warns.detail, warns.help);
        (Severity::Warning, format!("{} has plain links", node.node), text, None)
    };
    let act_href = href.clone();
    Some(Attention { severity, since_ms, href, title, text, act: "What to check", act_href })
}

/// Each reason, and what to do.
fn why(reasons: &[Reason]) -> String {
    let sentences = reasons.iter().map(|r| {
        let detail = words::sentence(&r.detail);
        format!("{detail}: {}.", r.help.trim_end_matches('.'))
    });
    sentences.collect::<Vec<String>>().join(" ")
}

/// When the oldest unsent message came.
fn behind(node: &Node, now_ms: i64) -> Option<i64> {
    let at = node.last_heartbeat_at.map_or(now_ms, |at| at.0);
    node.oldest_age_s.map(|age| at.saturating_sub((age * 1000.0) as i64))
}

fn of_ledger(account: &Ledger) -> Attention {
    let off = ledger::off_by(account);
    Attention {
        severity: Severity::Critical,
        since_ms: None,
        href: "/ledger".to_owned(),
        title: format!("The ledger of {} is off by {off}", account.node),
        text: "What it took in is not what it delivered, expired, evicted, refused, consumed or \
               holds. Look whether its store was restored from a copy."
            .to_owned(),
        act: "See the account",
        act_href: "/ledger".to_owned(),
    }
}

fn attention_list(view: &View<'_>, all: &[Attention]) -> Markup {
    let now = view.now_ms();
    let shown = all.len().min(SHOWN);
    let beside = html! {
        @if all.len() > shown { "The " (shown) " worst of " (all.len()) ". " }
        a href="/alarms" { "All open alarms" }
    };
    html! {
        section id="att" data-part aria-labelledby="att-h" {
            (section_head("att-h", "Needs attention", &beside))
            @if all.is_empty() {
                div.att {
                    p.calm { span.ok { (crate::layout::icon_as("i ok", "yes")) }
                        b { "Nothing needs attention." }
                        " All nodes deliver, the ledger balances, no major alarm is open." }
                }
            } @else {
                ol.att {
                    @for one in &all[..shown] {
                        li {
                            div { (sev(one.severity)) }
                            div.what { h3 { a href=(one.href) { (one.title) } } p { (one.text) } }
                            div.since {
                                @if let Some(since) = one.since_ms { (time(since, "for", now)) }
                            }
                            div.act { a href=(one.act_href) { (one.act) } }
                        }
                    }
                }
            }
        }
    }
}

fn tiers(view: &View<'_>) -> Markup {
    let nodes = &view.frame.nodes;
    let customers = view.customers().count() as u64;
    let beside = html! {
        (words::counted(nodes.len() as u64, "node"))
        @if view.frame.more_nodes { " and more" }
        ", " (words::counted(customers, "customer")) ". " a href="/nodes" { "As a list" }
    };
    html! {
        section id="tiers" data-part aria-labelledby="map-h" {
            (section_head("map-h", "Tiers", &beside))
            @if nodes.len() <= DRAWN_MAX { (picture::map(view)) } @else { (worst(view)) }
        }
    }
}

/// Of a large fleet the exceptions only.
fn worst(view: &View<'_>) -> Markup {
    let now = view.now_ms();
    let is_off = |node: &&Node| !is_delivering(node) || is_unready(node);
    let mut off: Vec<&Node> = view.frame.nodes.iter().filter(is_off).collect();
    off.truncate(DRAWN_MAX);
    html! {
        @if off.is_empty() {
            p.note { (icon("yes")) " All " (words::count(view.frame.nodes.len() as u64))
                " nodes are heard, take messages and deliver." }
        } @else {
            div.tbl { table {
                caption.vh { "Nodes that do not deliver, or are not ready" }
                thead { tr {
                    th scope="col" { "Node" } th scope="col" { "Health" }
                    th scope="col" { "Role" } th scope="col" { "Customer" }
                    th scope="col" class="n" { "Last heard" }
                } }
                tbody { @for node in off { tr {
                    th scope="row" {
                        a href={ "/nodes?node=" (node.node_id.dotted()) } { (node.node) }
                    }
                    td.full { (answers(node)) }
                    td { (roles(node)) }
                    td { (view.customer(node.customer_id)) }
                    td.n { @if let Some(at) = node.last_heartbeat_at { (time(at.0, "ago", now)) }
                        @else { "never" } }
                } } }
            } }
        }
    }
}

fn latest(view: &View<'_>, events: &[Event]) -> Markup {
    let now = view.now_ms();
    html! {
        @if !events.is_empty() {
            section id="latest" data-part aria-labelledby="lat-h" {
                (section_head("lat-h", "Latest events", &html! {
                    a href="/events" { "All events" } }))
                div.tbl.two { table {
                    caption.vh { "Latest events" }
                    thead { tr {
                        th scope="col" { "Severity" } th scope="col" { "When" }
                        th scope="col" { "What" } th scope="col" { "Instance" }
                    } }
                    tbody { @for event in events { tr {
                        td { (sev(event.severity)) }
                        td { (time(event.occurred_at.0, "ago", now)) }
                        th scope="row" class="full" {
                            a href=(message_path(&event.message_id)) { (event.text) }
                        }
                        td { (event.instance) }
                    } } }
                } }
            }
        }
    }
}

/// Path of a message's page.
pub(crate) fn message_path(id: &protocol::MessageId) -> String {
    format!("/messages/{}", words::in_path(&id.to_string()))
}

fn nobody_yet() -> Markup {
    html! {
        section id="tiers" data-part {
            div.plain.wide {
                h2 { "No site yet" }
                p { "Nothing has called home. A site takes about two minutes; it needs no inbound \
                     port." }
                ol.steps {
                    li { b { "On the site’s machine, write a configuration and start the proxy" }
                        pre { "callhome check --example proxy > callhome.xml\n\
                               callhome node --role proxy --config callhome.xml" } }
                    li { b { "Connect something that reports" }
                        pre { "callhome integrator snmp" } }
                    li { b { "Send a test alarm" }
                        pre { "callhome send alarm --instance test --type hello \
                               --severity warning --text \"Hello\"" } }
                }
                p.note { (icon("clock")) " Waiting for the first exchange. This page shows the \
                         site as soon as it calls. " a href="/" { "Look again" } }
                p { "Just trying it out? " code { "callhome up" }
                    " starts every tier on this machine." }
            }
        }
    }
}
