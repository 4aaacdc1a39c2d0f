//! The list of nodes: alive, ready, delivering, what waits by precedence; and why not.
use extension::records::{Node, NodeState, Reason, Waiting};
use maud::{Markup, html};
use protocol::{Precedence, heartbeat::only_warns};

use crate::{
    layout::{answers, chip, customer_chips, icon, is_delivering, is_unready, roles, time},
    source::SourceError,
    view::{ROWS, Sheet, View},
    words,
};

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let mut nodes: Vec<&Node> = view.frame.nodes.iter().filter(|n| takes(view, n)).collect();
    nodes.sort_by_key(|node| (rank(node), node.node.clone()));
    let all = nodes.len();
    let page: usize = view.query.one("page").and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
    let skip = (page - 1).saturating_mul(ROWS);
    let rows: Vec<&Node> = nodes.into_iter().skip(skip).take(ROWS).collect();
    let main = html! {
        div.head {
            h1 { "Nodes" }
            p { (words::count(all as u64)) @if view.frame.more_nodes { "+" } ", worst first" }
        }
        div.filters role="group" aria-label="Filter" {
            div {
                span.k { "State" }
                ul.chips {
                    @for state in ["operational", "silent", "registering"] {
                        (chip(view, "/nodes", "state", state, &html! { (state) }))
                    }
                }
            }
            (customer_chips(view, "/nodes"))
        }
        p.new id="new" aria-live="polite" {}
        @if all == 0 {
            p.note {
                @if view.frame.nodes.is_empty() {
                    "No node has called home yet. Start one: " code { "callhome node --role proxy" }
                } @else { "No node is like this. " a href="/nodes" { "All nodes" } }
            }
        } @else {
            (table(view, &rows))
            (paging(view, page, rows.len(), all))
        }
    };
    Ok(Sheet { title: "Nodes".to_owned(), nav: "/nodes", main })
}

fn takes(view: &View<'_>, node: &Node) -> bool {
    let is_any = |name: &str, is: &dyn Fn(&str) -> bool| {
        let mut values = view.query.many(name).peekable();
        values.peek().is_none() || values.any(is)
    };
    let id = node.node_id.to_string();
    is_any("state", &|v| v == state(node))
        && is_any("customer", &|v| v == view.customer(node.customer_id))
        && is_any("node", &|v| v == node.node || v == id || v == node.node_id.dotted())
}

fn state(node: &Node) -> &'static str {
    match node.state {
        NodeState::Registering => "registering",
        NodeState::Operational => "operational",
        NodeState::Silent => "silent",
        NodeState::Removed => "removed",
    }
}

/// Worst first.
fn rank(node: &Node) -> u8 {
    match (node.state, is_delivering(node)) {
        (NodeState::Silent, _) => 0,
        (_, false) => 1,
        _ if is_unready(node) => 1,
        (NodeState::Registering, _) => 2,
        _ if node.oldest_age_s.is_some_and(|age| age >= 60.0) => 3,
        _ => 4,
    }
}

fn table(view: &View<'_>, rows: &[&Node]) -> Markup {
    html! {
        div.tbl.nodes { table {
            caption.vh { "Nodes" }
            thead { tr {
                th scope="col" { "Node" } th scope="col" { "Health" } th scope="col" { "Role" }
                th scope="col" { "Customer" } th scope="col" class="n" { "Urgent" }
                th scope="col" class="n" { "Normal" } th scope="col" class="n" { "Bulk" }
                th scope="col" class="n" { "Empty in" } th scope="col" class="n" { "Last heard" }
                th scope="col" class="n drop" { "Version" }
            } }
            tbody { @for node in rows { (row(view, node)) } }
        } }
    }
}

fn row(view: &View<'_>, node: &Node) -> Markup {
    let now = view.now_ms();
    let unsure = if node.state == NodeState::Silent { "?" } else { "" };
    // On a small screen a zero is left out; one that is not sure is not a zero.
    let zero = |is: bool| if is && unsure.is_empty() { "n zero" } else { "n" };
    html! {
        tr id={ "n-" (node.node_id.dotted()) } data-part data-row {
            th scope="row" {
                a href={ "/nodes?node=" (node.node_id.dotted()) } { (node.node) } " "
                span.id.sm { (words::short_id(&node.node_id.to_string())) }
                @for reason in reasons(node) {
                    @let (look, sign) = reason_look(&reason.name);
                    br; span class={ "sm " (look) } { (icon(sign)) " " (reason.detail) } " "
                    span.sm.dim { (reason.help) }
                }
                @if node.state == NodeState::Silent && node.delivering.reasons.is_empty() {
                    br; span.sm.dim { "Counts as last heard. Check that it runs and reaches its \
                                       parent." }
                }
            }
            td.full { (answers(node)) }
            td { (roles(node)) }
            td { (view.customer(node.customer_id)) }
            @for precedence in Precedence::ALL {
                @let waiting = node.waiting.iter().find(|w| w.precedence == *precedence);
                td class=(zero(waiting.is_some_and(|w| w.messages == 0)))
                    data-l=(precedence.word()) { (figures(waiting, unsure)) }
            }
            td class=(zero(node.queued == 0)) data-l="empty in" {
                (words::until_empty(node.queued, node.drain_eta_s)) (unsure)
            }
            td.n data-l="heard" {
                @match node.last_heartbeat_at {
                    Some(at) => (time(at.0, "ago", now)), None => "never" }
            }
            td.n.drop { (node.version) }
        }
    }
}

/// Why it takes no messages, and why they do not get out: that it is not heard comes first, for
/// the others are what it said before; what only warns comes last.
fn reasons(node: &Node) -> Vec<&Reason> {
    let ready = node.ready.iter().flat_map(|ready| &ready.reasons);
    let mut reasons: Vec<&Reason> = ready.chain(&node.delivering.reasons).collect();
    reasons.sort_by_key(|reason| (reason.name != "silent", only_warns(&reason.name)));
    reasons
}

/// Messages of one precedence that wait, their bytes and the age of the oldest.
fn figures(waiting: Option<&Waiting>, unsure: &str) -> Markup {
    html! {
        @match waiting {
            None => { "not known" }
            Some(waiting) => {
                (words::count(waiting.messages)) (unsure)
                @if let Some(age) = waiting.oldest_age_s {
                    br; span.sm.dim {
                        (words::bytes(waiting.bytes)) br;
                        (words::short((age * 1000.0) as i64)) " old"
                    }
                }
            }
        }
    }
}

/// Class and icon of a reason: some only warn.
fn reason_look(name: &str) -> (&'static str, &'static str) {
    if only_warns(name) { ("warning", "warning") } else { ("bad-t", "no") }
}

fn paging(view: &View<'_>, page: usize, shown: usize, all: usize) -> Markup {
    let base = view.query.without(&["page"]);
    let to = |page: usize| format!("/nodes{}", base.clone().with("page", page.to_string()).words());
    html! {
        @if all > ROWS {
            p.pages {
                span { "Page " (page) ", " (shown) " of " (words::count(all as u64)) }
                span {
                    @if page > 1 { a href=(to(page - 1)) { "Before" } " " }
                    @if page.saturating_mul(ROWS) < all { a href=(to(page + 1)) { "Further" } }
                }
            }
        }
    }
}
