//! Nodes as the lists show them: what their last heartbeat said, and whether they are still heard.
use extension::records::{
    Answer, Delivering, Node, NodeFilter, NodeState, Page, Paging, Ready, Reason, RecordsError,
    Time, Waiting,
};
use protocol::{
    Precedence, RemoteId,
    codec::Reader,
    heartbeat::{Depth, Heartbeat, Mode, PLAIN_LINKS, only_warns},
};

use super::{
    query::{Desk, page_back, takes},
    query_directory::INTERVAL_MS,
    rows::{NODES, NodeRow, STATUS, StatusRow, from_row},
};
use crate::delivery::durable_queue::SET_ASIDE;

/// A node is silent after so many halves of its interval without a heartbeat.
const SILENT_HALVES: i64 = 5;
/// Never silent before that, ms: heartbeats are fetched each second.
const SILENT_MS_MIN: i64 = 10_000;

impl Desk {
    pub(crate) fn nodes(&self, filter: &NodeFilter, paging: &Paging) -> Answer<Page<Node>> {
        let whose = self.whose(filter.customer.as_deref(), None)?;
        page_back(&*self.store, NODES, whose.prefix(), paging, |key, value| {
            let id = RemoteId::from_bytes(key).ok().filter(|id| whose.takes(id));
            let Some((id, row)) = id.zip(from_row(value)) else { return Ok(None) };
            let node = self.node_view(id, row)?;
            Ok(takes(&filter.state, &node.state).then_some(node))
        })
    }

    pub(crate) fn node(&self, id: RemoteId) -> Answer<Node> {
        let row = self.value(NODES, id.as_bytes())?.ok_or(RecordsError::NotFound)?;
        self.node_view(id, row)
    }

    /// The last heartbeat of a node, and what is known of it.
    pub(crate) fn beat(&self, id: &RemoteId) -> Answer<Option<(StatusRow, Heartbeat)>> {
        let row: Option<StatusRow> = self.value(STATUS, id.as_bytes())?;
        Ok(row.and_then(|row| {
            let beat = Heartbeat::read(&mut Reader::new(&row.beat)).ok()?;
            Some((row, beat))
        }))
    }

    fn node_view(&self, id: RemoteId, row: NodeRow) -> Answer<Node> {
        if id == self.identity().id {
            return Ok(self.own_view(id, row));
        }
        let heard = self.beat(&id)?;
        let mode = heard.as_ref().map_or(Mode::Session, |(_, beat)| beat.mode);
        let state = match (&row.removed_at, &heard) {
            (Some(_), _) => NodeState::Removed,
            (None, None) => NodeState::Registering,
            (None, Some((status, _))) if self.is_silent(status, mode) => NodeState::Silent,
            _ => NodeState::Operational,
        };
        let mut node = blank(id, row, state, mode);
        let Some((status, beat)) = heard else { return Ok(node) };
        node.version.clone_from(&beat.version);
        node.roles.clone_from(&beat.roles);
        node.parent_id = beat.path.iter().find(|hop| **hop != id).copied();
        node.parent_id = node.parent_id.or(Some(self.identity().id));
        // All it has in custody: what waits for children and integrators, too.
        node.queued = beat.account.queued;
        wait(&mut node, &beat.depths);
        let held = beat.reasons.iter().find(|(name, _)| name == "throttle" || name == "stopped");
        node.delivering = Delivering {
            ok: beat.reasons.iter().all(|(name, _)| only_warns(name))
                && state == NodeState::Operational,
            held: held.map(|(name, _)| name.clone()),
            oldest_age_s: node.oldest_age_s,
            reasons: beat.reasons.iter().map(|(name, detail)| reason(name, detail)).collect(),
        };
        node.ready = beat.ready.as_ref().map(|reasons| Ready {
            ok: reasons.is_empty(),
            reasons: reasons.iter().map(|(name, detail)| reason(name, detail)).collect(),
        });
        if state == NodeState::Silent {
            node.delivering.reasons.push(reason("silent", "no heartbeat came in time"));
        }
        node.configuration_digest =
            Some(beat.configuration.clone()).filter(|digest| !digest.is_empty());
        node.last_heartbeat_at = Some(Time(status.heard_at));
        Ok(node)
    }

    pub(crate) fn is_silent(&self, status: &StatusRow, mode: Mode) -> bool {
        let usual = if mode == Mode::Session { INTERVAL_MS.0 } else { INTERVAL_MS.1 };
        let interval = if status.interval_ms > 0 { status.interval_ms } else { usual };
        let patience = (interval.min(usual) * SILENT_HALVES / 2).max(SILENT_MS_MIN);
        self.now() - status.heard_at > patience
    }

    /// This server: it needs no heartbeat to know of itself.
    fn own_view(&self, id: RemoteId, row: NodeRow) -> Node {
        let mut node = blank(id, row, NodeState::Operational, Mode::Session);
        node.delivering.ok = true;
        let mut ready = Ready { ok: true, reasons: Vec::new() };
        if let Some((at, figures)) = self.own.get() {
            wait(&mut node, &all_below(&figures.queues));
            node.queued = figures.account.queued;
            node.last_heartbeat_at = Some(Time(at));
            if let Some(storage) = &figures.storage {
                node.delivering.ok = false;
                node.delivering.reasons.push(reason("storage_down", storage));
                ready = Ready { ok: false, reasons: vec![reason("storage_down", storage)] };
            }
        }
        node.ready = Some(ready);
        node
    }
}

/// Fills in what waits, by precedence.
fn wait(node: &mut Node, depths: &[Depth; 3]) {
    let of = |(precedence, depth): (&Precedence, &Depth)| Waiting {
        precedence: *precedence,
        messages: depth.messages,
        bytes: depth.bytes,
        oldest_age_s: (depth.messages > 0).then_some(depth.oldest_age_ms as f64 / 1000.0),
    };
    node.waiting = Precedence::ALL.iter().zip(depths).map(of).collect();
    node.queued_bytes = depths.iter().map(|depth| depth.bytes).sum();
    let ages = node.waiting.iter().filter_map(|waiting| waiting.oldest_age_s);
    node.oldest_age_s = ages.reduce(f64::max);
}

/// The top has no way up: what waits there is all that it holds for those below.
fn all_below(queues: &[(String, [Depth; 3])]) -> [Depth; 3] {
    let mut all = [Depth::default(); 3];
    for (_, depths) in queues.iter().filter(|(name, _)| name != SET_ASIDE) {
        for (sum, depth) in all.iter_mut().zip(depths) {
            sum.messages += depth.messages;
            sum.bytes += depth.bytes;
            sum.oldest_age_ms = sum.oldest_age_ms.max(depth.oldest_age_ms);
        }
    }
    all
}

fn blank(id: RemoteId, row: NodeRow, state: NodeState, mode: Mode) -> Node {
    Node {
        node_id: id,
        node: row.name,
        customer_id: id.customer_id(),
        roles: row.roles,
        version: row.version,
        state,
        mode,
        parent_id: None,
        ready: None,
        delivering: Delivering { ok: false, held: None, oldest_age_s: None, reasons: Vec::new() },
        waiting: Vec::new(),
        queued: 0,
        queued_bytes: 0,
        oldest_age_s: None,
        drain_eta_s: None,
        configuration_digest: None,
        last_heartbeat_at: None,
    }
}

fn reason(name: &str, detail: &str) -> Reason {
    let help = match name {
        "silent" => "look at the node and the line to it",
        PLAIN_LINKS => "keep it to a network you trust until mTLS exists",
        "storage_down" => "make room on the disk of the node",
        "throttle" => "it goes on when the window opens",
        "stopped" => "start delivery again when it may go on",
        "registering" => "check its customer id and that its parents answer",
        "queue_full" => "see why its parent does not take them, or raise <store bytes>",
        "parent_unreachable" => "is its parent running, does a firewall stop the way out",
        "parent_refuses" => "the log of its parent names the reason",
        _ => "see the log of the node",
    };
    Reason { name: name.to_owned(), detail: detail.to_owned(), help: help.to_owned() }
}
