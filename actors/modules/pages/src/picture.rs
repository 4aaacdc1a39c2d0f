//! The tiers as a picture: where each node stands and which lines lead up (positions are pure).
use std::collections::BTreeMap;

use extension::records::{Node, NodeState};
use maud::{Markup, html};
use protocol::{RemoteId, heartbeat::only_warns};

use crate::{
    layout::{answers, is_delivering, is_unready},
    view::View,
    words,
};

/// Rows of the grid that a node takes.
const NODE_ROWS: usize = 5;
/// Height of a row, pixels; as in the sheet.
const ROW_PX: usize = 38;
/// Width of a gutter, pixels; as in the sheet.
const GUTTER_PX: usize = 62;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Proxy,
    CustomerMlm,
    AggregationMlm,
    ApplicationsMlm,
    AppServer,
}

impl Tier {
    fn words(self) -> &'static str {
        match self {
            Self::Proxy => "Sites: proxies",
            Self::CustomerMlm => "Customer MLM",
            Self::AggregationMlm => "Aggregation MLM",
            Self::ApplicationsMlm => "Applications MLM",
            Self::AppServer => "Application server",
        }
    }
}

/// Where a node stands: tier from the left, first row of the grid from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    column: usize,
    row: usize,
}

/// A customer's band: first row, rows, columns.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Band {
    customer: uuid::Uuid,
    row: usize,
    rows: usize,
    columns: usize,
}

#[derive(Debug)]
struct Layout {
    tiers: Vec<Tier>,
    rows: usize,
    places: BTreeMap<RemoteId, Place>,
    bands: Vec<Band>,
    /// Columns of customers' nodes; the provider's stand right of them.
    customer_columns: usize,
}

/// The provider is who has an application server or an applications MLM; its MLMs aggregate.
fn tier(node: &Node, providers: &[uuid::Uuid]) -> Tier {
    let has = |role: &str| node.roles.iter().any(|r| r == role);
    if has("app-server") {
        Tier::AppServer
    } else if has("applications-mlm") {
        Tier::ApplicationsMlm
    } else if has("proxy") {
        Tier::Proxy
    } else if providers.contains(&node.customer_id) {
        Tier::AggregationMlm
    } else {
        Tier::CustomerMlm
    }
}

fn layout(nodes: &[Node]) -> Layout {
    let top =
        |node: &&Node| node.roles.iter().any(|r| r == "app-server" || r == "applications-mlm");
    let providers: Vec<_> = nodes.iter().filter(top).map(|node| node.customer_id).collect();
    let mut tiers: Vec<Tier> = nodes.iter().map(|node| tier(node, &providers)).collect();
    tiers.sort();
    tiers.dedup();
    let column = |t: Tier| tiers.iter().position(|other| *other == t).unwrap_or_default();
    let customer_columns = tiers.iter().filter(|t| **t <= Tier::CustomerMlm).count();
    // Customers one below the other, each as high as its fullest tier; one row for its name.
    let mut customers: BTreeMap<uuid::Uuid, BTreeMap<Tier, Vec<RemoteId>>> = BTreeMap::new();
    let mut provider: BTreeMap<Tier, Vec<RemoteId>> = BTreeMap::new();
    for node in nodes {
        let t = tier(node, &providers);
        let of = if t <= Tier::CustomerMlm {
            customers.entry(node.customer_id).or_default()
        } else {
            &mut provider
        };
        of.entry(t).or_default().push(node.node_id);
    }
    let mut layout = Layout {
        rows: 0,
        places: BTreeMap::new(),
        bands: Vec::new(),
        customer_columns,
        tiers: Vec::new(),
    };
    for (customer, of) in customers {
        let most = of.values().map(Vec::len).max().unwrap_or_default();
        let (row, rows) = (layout.rows, 1 + most * NODE_ROWS);
        let columns = of.keys().map(|t| column(*t) + 1).max().unwrap_or(1);
        for (t, ids) in of {
            place(&mut layout.places, column(t), row + 1, most * NODE_ROWS, &ids);
        }
        layout.bands.push(Band { customer, row, rows, columns });
        layout.rows += rows;
    }
    let most = provider.values().map(Vec::len).max().unwrap_or_default();
    layout.rows = layout.rows.max(if most == 0 { 0 } else { 1 + most * NODE_ROWS });
    for (t, ids) in provider {
        place(&mut layout.places, column(t), 1, layout.rows - 1, &ids);
    }
    layout.tiers = tiers;
    layout
}

/// Nodes of a tier in the middle of the rows there are.
fn place(
    to: &mut BTreeMap<RemoteId, Place>,
    column: usize,
    row: usize,
    rows: usize,
    ids: &[RemoteId],
) {
    let free = rows.saturating_sub(ids.len() * NODE_ROWS);
    for (at, id) in ids.iter().enumerate() {
        // What is free is shared: half of it before the first, and evenly between.
        let above = free * (2 * at + 1) / (2 * ids.len().max(1));
        to.insert(*id, Place { column, row: row + above + at * NODE_ROWS });
    }
}

fn middle(place: Place) -> usize {
    (2 * place.row + NODE_ROWS) * ROW_PX / 2
}

pub(crate) fn map(view: &View<'_>) -> Markup {
    let nodes = &view.frame.nodes;
    let layout = layout(nodes);
    let (rows, columns) = (layout.rows, layout.tiers.len());
    let home = layout.customer_columns;
    html! {
        div class={ "map c" (columns) } style={ "--rows:" (rows) } {
            @for (at, tier) in layout.tiers.iter().enumerate() {
                h3 style={ "grid-column:" (2 * at + 1) } { (tier.words()) }
            }
            @for band in &layout.bands {
                div.band style={ "grid-area:" (band.row + 2) "/1/span " (band.rows) "/span "
                    (2 * band.columns - 1) } {
                    span.vh { "Customer: " } (view.customer(band.customer))
                }
            }
            @if home < columns {
                div.band.home style={ "grid-area:2/" (2 * home + 1) "/span " (rows) "/span "
                    (2 * (columns - home) - 1) } { span { "Provider" } }
            }
            @for gutter in 1..columns { (wires(&layout, nodes, gutter)) }
            @for node in nodes { (bridge(&layout, node)) }
            // Read from below to the top, also where the cards stand one below the other.
            @for (node, place) in from_below(nodes, &layout) { (card(view, node, place)) }
        }
        ul.legend aria-label="Legend" {
            li { "Numbers in a node: messages that wait, by precedence" }
            li { svg viewBox="0 0 26 10" aria-hidden="true" { path d="M0 5h26" {} } "delivering" }
            li { svg viewBox="0 0 26 10" aria-hidden="true" { path.busy d="M0 5h26" {} }
                "draining a backlog" }
            li { svg viewBox="0 0 26 10" aria-hidden="true" { path.down d="M0 5h26" {} }
                "not heard, or not delivering" }
        }
    }
}

/// Nodes by tier, and in a tier from the top of the picture.
fn from_below<'n>(nodes: &'n [Node], layout: &Layout) -> Vec<(&'n Node, Place)> {
    let place = |node: &'n Node| Some((node, *layout.places.get(&node.node_id)?));
    let mut placed: Vec<_> = nodes.iter().filter_map(place).collect();
    placed.sort_by_key(|(_, place)| (place.column, place.row));
    placed
}

fn look(node: &Node) -> &'static str {
    let behind = node.oldest_age_s.is_some_and(|age| age >= 60.0);
    if !is_delivering(node) {
        "down"
    } else if behind {
        "busy"
    } else {
        ""
    }
}

/// Lines of all links that end in the column right of a gutter.
fn wires(layout: &Layout, nodes: &[Node], gutter: usize) -> Markup {
    let height = layout.rows * ROW_PX;
    let half = GUTTER_PX / 2;
    html! {
        svg.wire style={ "grid-area:2/" (2 * gutter) "/span " (layout.rows) }
            viewBox={ "0 0 " (GUTTER_PX) " " (height) } height=(height) aria-hidden="true" {
            @for node in nodes {
                @if let Some((from, to)) = link(layout, node) {
                    @if to.column == gutter {
                        @let (y, z) = (middle(from), middle(to));
                        path class=(look(node)) d={ "M0 " (y) "C" (half) " " (y) " " (half) " "
                            (z) " " (GUTTER_PX) " " (z) } {}
                    }
                }
            }
        }
    }
}

/// The straight part of a link that passes over a tier.
fn bridge(layout: &Layout, node: &Node) -> Markup {
    html! {
        @if let Some((from, to)) = link(layout, node) {
            @if to.column > from.column + 1 {
                @let span = 2 * (to.column - from.column) - 2;
                div.far.ok[look(node) != "down"] aria-hidden="true"
                    style={ "grid-area:" (from.row + 2) "/" (2 * from.column + 2) "/span "
                        (NODE_ROWS) "/span " (span) } {}
            }
        }
    }
}

/// From where to where a node's link leads, where both are drawn and it leads to the right.
fn link(layout: &Layout, node: &Node) -> Option<(Place, Place)> {
    let from = layout.places.get(&node.node_id)?;
    let to = layout.places.get(node.parent_id.as_ref()?)?;
    (to.column > from.column).then_some((*from, *to))
}

fn card(view: &View<'_>, node: &Node, place: Place) -> Markup {
    let class = match look(node) {
        _ if is_unready(node) => "gap",
        "busy" => "slow",
        other => other,
    };
    let parent = node.parent_id.as_ref().and_then(|id| view.node(id));
    html! {
        article class={ "node " (class) } id={ "n-" (node.node_id.dotted()) }
            style={ "grid-area:" (place.row + 2) "/" (2 * place.column + 1) "/span " (NODE_ROWS) } {
            h4 {
                a href={ "/nodes?node=" (node.node_id.dotted()) } { (node.node) }
                small { (words::bytes(node.queued_bytes)) }
            }
            (answers(node))
            (figures(node))
            (state_of(node))
            p.up {
                (view.customer(node.customer_id)) ". "
                @match parent {
                    Some(parent) => { "To " (parent.node) } None => { "End of the way" }
                }
            }
        }
    }
}

/// Messages that wait, by precedence; of a node that does not say so, all of them.
fn figures(node: &Node) -> Markup {
    let silent = node.state == NodeState::Silent;
    let unsure = if silent { "?" } else { "" };
    let mut figures: Vec<(&str, u64)> =
        node.waiting.iter().map(|w| (w.precedence.word(), w.messages)).collect();
    if figures.is_empty() {
        figures.push(("queued", node.queued));
    }
    html! {
        dl.q3 {
            @for (name, messages) in figures {
                div class=(figure_class(silent, messages > 0)) {
                    dt { (name) } dd { (words::compact(messages)) (unsure) }
                }
            }
        }
    }
}

/// What is wrong with it, or how long its oldest message has waited; then when it is empty.
fn state_of(node: &Node) -> Markup {
    let delivering = node.delivering.reasons.iter().find(|reason| !only_warns(&reason.name));
    let ready = node.ready.iter().filter(|_| is_unready(node)).find_map(|r| r.reasons.first());
    let of_below = node.queued.saturating_sub(node.waiting.iter().map(|w| w.messages).sum());
    html! {
        p {
            @if node.state == NodeState::Silent { "figures as last heard" }
            @else if let Some(reason) = delivering.or(ready) { b.bad-t { (reason.name) } }
            @else if let Some(held) = &node.delivering.held { "held: " (held) }
            @else if let Some(age) = node.oldest_age_s {
                "oldest " b { (words::short((age * 1000.0) as i64)) }
            }
            @else if node.queued == 0 { "nothing waits" }
            @else { "nothing waits for the way up" }
            @if node.state != NodeState::Silent && node.queued > 0 {
                br;
                @if node.oldest_age_s.is_some() {
                    (words::empty_in(node.queued, node.drain_eta_s))
                }
                @else { (words::count(of_below)) " held for others" }
            }
        }
    }
}

fn figure_class(silent: bool, has: bool) -> &'static str {
    match (silent, has) {
        (true, _) => "unk",
        (false, true) => "has",
        (false, false) => "z",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(customer: u128, number: u32, role: &str, parent: Option<RemoteId>) -> Node {
        let id = RemoteId::customer(uuid::Uuid::from_u128(customer)).child(number).unwrap();
        let json = serde_json::json!({
            "node_id": id, "node": format!("n{number}"), "customer_id": id.customer_id(),
            "roles": [role], "version": "0.1.0", "state": "operational", "mode": "session",
            "parent_id": parent, "delivering": {"ok": true, "held": null, "oldest_age_s": null,
            "reasons": []}, "queued": 0, "queued_bytes": 0, "oldest_age_s": null,
            "drain_eta_s": null, "configuration_digest": null, "last_heartbeat_at": null,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn tiers_stand_from_left_to_right_and_no_two_nodes_on_one_place() {
        let top = node(9, 1, "app-server", None);
        let apps = node(9, 2, "applications-mlm", Some(top.node_id));
        let aggregation = node(9, 3, "mlm", Some(apps.node_id));
        let own = node(1, 2, "mlm", Some(aggregation.node_id));
        let proxies = [1, 3, 4].map(|n| node(1, n, "proxy", Some(own.node_id)));
        let direct = node(2, 1, "proxy", Some(aggregation.node_id));
        let mut nodes = vec![top, apps, aggregation, own, direct];
        nodes.extend(proxies);
        let layout = layout(&nodes);
        assert_eq!(layout.tiers.len(), 5);
        assert_eq!(layout.customer_columns, 2);
        let mut taken = std::collections::BTreeSet::new();
        for place in layout.places.values() {
            assert!(place.row >= 1 && place.row + NODE_ROWS <= layout.rows);
            for row in place.row..place.row + NODE_ROWS {
                assert!(taken.insert((place.column, row)), "{place:?} is taken");
            }
        }
        assert_eq!(layout.rows, 1 + 3 * NODE_ROWS + 1 + NODE_ROWS);
        // The direct proxy passes over the customer MLMs.
        let (from, to) = link(&layout, &nodes[4]).unwrap();
        assert_eq!((from.column, to.column), (0, 2));
    }

    #[test]
    fn what_up_starts_has_four_tiers() {
        let top = node(9, 1, "app-server", None);
        let apps = node(9, 2, "applications-mlm", Some(top.node_id));
        let own = node(1, 2, "mlm", Some(apps.node_id));
        let proxy = node(1, 1, "proxy", Some(own.node_id));
        let layout = layout(&[top, apps, own, proxy]);
        assert_eq!((layout.tiers.len(), layout.customer_columns, layout.rows), (4, 2, 6));
    }
}
