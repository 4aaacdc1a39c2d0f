//! Alive, ready, delivering: three answers, each with its reasons (DESIGN §4.10).
use protocol::heartbeat::{Depth, PLAIN_LINKS, only_warns};
use roles::delivery::{
    durable_queue::UP, heartbeat::Health, link::LinkStatus, orders::Figures,
    registration::NodeStatus,
};
use serde::Serialize;

/// Why an answer is no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A stable name (contract §4).
    pub name: &'static str,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub help: &'static str,
}

/// One of the three answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Yes or no.
    pub ok: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
}

/// Whether messages get out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delivering {
    /// Yes or no; `held` is yes.
    pub ok: bool,
    /// Why not.
    pub reasons: Vec<Reason>,
    /// Throttled or stopped by hand, and why.
    pub held: Option<String>,
    /// Age of the oldest unsent message, seconds.
    pub oldest_age_s: Option<f64>,
    /// When the parent acknowledged last.
    pub last_acknowledged_at: Option<String>,
}

/// A node's health.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeHealth {
    /// Its name.
    pub node: String,
    /// Its id; none until it is registered.
    pub node_id: Option<String>,
    /// Its actors run.
    pub alive: Verdict,
    /// It takes messages.
    pub ready: Verdict,
    /// They get out.
    pub delivering: Delivering,
}

/// What each answer looks at, by the names of the reasons it may give.
const LOOKED_AT: [(&str, &[&str]); 3] = [
    ("alive", &["arbiter_hung"]),
    ("ready", &["registering", "storage_down", "queue_full"]),
    ("delivering", &["parent_unreachable", "parent_refuses", PLAIN_LINKS]),
];

impl NodeHealth {
    /// What a heartbeat tells of it.
    pub fn for_heartbeat(self) -> Health {
        let told = |reasons: Vec<Reason>| {
            reasons.into_iter().map(|reason| (reason.name.to_owned(), reason.detail)).collect()
        };
        Health { ready: told(self.ready.reasons), delivering: told(self.delivering.reasons) }
    }

    /// One answer in JSON: `alive`, `ready` or `delivering`; null for another word. `verbose` adds
    /// `passed`, the names of what was looked at and found in order.
    pub fn part(&self, part: &str, verbose: bool) -> serde_json::Value {
        let mut said = serde_json::to_value(self).unwrap_or_default()[part].take();
        let looked_at = LOOKED_AT.iter().find(|(name, _)| *name == part);
        if let (true, Some((_, names)), Some(fields)) = (verbose, looked_at, said.as_object_mut()) {
            let reasons = fields["reasons"].as_array().cloned().unwrap_or_default();
            let passed: Vec<_> =
                names.iter().filter(|name| reasons.iter().all(|r| r["name"] != **name)).collect();
            fields.insert("passed".to_owned(), serde_json::json!(passed));
        }
        said
    }
}

/// What health is decided from.
pub struct Seen<'s> {
    /// Name of the node.
    pub node: &'s str,
    /// How registration stands.
    pub status: &'s NodeStatus,
    /// The queue's figures; none: the queue did not answer.
    pub figures: Option<&'s Figures>,
    /// The link; none at the top.
    pub link: Option<&'s LinkStatus>,
    /// Arbiters that are silent.
    pub hung: &'s [String],
    /// Bytes its queue up may hold.
    pub bytes_max: u64,
    /// Not delivering after so long, ms.
    pub patience_ms: i64,
    /// What of its links nothing protects, by `node --insecure`.
    pub plain: Option<&'s str>,
    /// The clock, ms since 1970 UTC.
    pub now: i64,
}

fn verdict(reasons: Vec<Reason>) -> Verdict {
    Verdict { ok: reasons.is_empty(), reasons }
}

/// Decides (pure).
pub fn judge(seen: &Seen<'_>) -> NodeHealth {
    let mut alive = Vec::new();
    for hung in seen.hung {
        alive.push(Reason {
            name: "arbiter_hung",
            detail: hung.clone(),
            help: "the process ends by itself and is started again; the log names what hung",
        });
    }
    if seen.figures.is_none() && seen.hung.is_empty() {
        alive.push(Reason {
            name: "arbiter_hung",
            detail: "the durable queue did not answer".to_owned(),
            help: "look at /tree: it may be restarting; look at the disk's latency",
        });
    }
    let mut ready = Vec::new();
    if seen.status.id.is_none() {
        ready.push(Reason {
            name: "registering",
            detail: seen.status.detail.clone(),
            help: "check the customer id and that the parents answer; callhome doctor tells more",
        });
    }
    if let Some(why) = seen.figures.and_then(|f| f.storage.clone()) {
        ready.push(Reason {
            name: "storage_down",
            detail: why,
            help: "make room on the disk of the data folder; the node goes on by itself",
        });
    }
    let used: u64 = up(seen).map_or(0, |depths| depths.iter().map(|d| d.bytes).sum());
    if used.saturating_mul(100) >= seen.bytes_max.saturating_mul(99) {
        ready.push(Reason {
            name: "queue_full",
            detail: "new messages are refused or evict older ones".to_owned(),
            help: "see why the parent does not take them, or raise <store bytes>",
        });
    }
    NodeHealth {
        node: seen.node.to_owned(),
        node_id: seen.status.id.map(|id| id.to_string()),
        alive: verdict(alive),
        ready: verdict(ready),
        delivering: delivering(seen),
    }
}

/// The queue towards the parent, where it holds anything.
fn up<'s>(seen: &Seen<'s>) -> Option<&'s [Depth; 3]> {
    let queues = &seen.figures?.queues;
    queues.iter().find(|(name, _)| name == UP).map(|(_, depths)| depths)
}

fn delivering(seen: &Seen<'_>) -> Delivering {
    let oldest = up(seen).and_then(|depths| depths.iter().map(|d| d.oldest_age_ms).max());
    let acknowledged = seen.figures.map_or(0, |f| f.last_acknowledged_at);
    let mut reasons = Vec::new();
    let waited = oldest.is_some_and(|age| age as i64 > seen.patience_ms);
    let silent = seen.now - acknowledged > seen.patience_ms;
    if let Some(link) = seen.link
        && waited
        && silent
    {
        let why = link.failing.as_ref().map_or("it does not acknowledge", |f| &f.1);
        let refuses = why.contains("refuses");
        reasons.push(Reason {
            name: if refuses { "parent_refuses" } else { "parent_unreachable" },
            detail: format!("{}: {why}", link.url),
            help: if refuses {
                "the parent's log names the reason; callhome doctor at the parent"
            } else {
                "is it running, is the URL right, does a firewall stop the way out"
            },
        });
    }
    if let Some(plain) = seen.plain {
        reasons.push(Reason {
            name: PLAIN_LINKS,
            detail: plain.to_owned(),
            help: "keep it to a network you trust until mTLS exists",
        });
    }
    let at = jiff::Timestamp::from_millisecond(acknowledged).ok();
    Delivering {
        ok: reasons.iter().all(|reason| only_warns(reason.name)),
        reasons,
        held: None,
        oldest_age_s: oldest.map(|ms| ms as f64 / 1000.0),
        last_acknowledged_at: at.filter(|_| acknowledged > 0).map(|at| format!("{at:.3}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'s>(figures: &'s Figures, status: &'s NodeStatus, link: &'s LinkStatus) -> Seen<'s> {
        Seen {
            node: "proxy",
            status,
            figures: Some(figures),
            link: Some(link),
            hung: &[],
            bytes_max: 1 << 20,
            patience_ms: 60_000,
            plain: None,
            now: 1_000_000,
        }
    }

    #[test]
    fn node_that_looks_healthy_while_nothing_gets_out_is_told() {
        let failing = Some((0, "parent cannot be reached: refused".to_owned()));
        let link = LinkStatus { failing, ..LinkStatus::of("http://127.0.0.1:1".to_owned()) };
        let status = NodeStatus { id: None, detail: String::new() };
        let mut figures = Figures::default();
        assert!(judge(&seen(&figures, &status, &link)).delivering.ok, "nothing waits");
        let depth = Depth { messages: 1, bytes: 1, oldest_age_ms: 61_000 };
        figures.queues = vec![("up".to_owned(), [depth, Depth::default(), Depth::default()])];
        let health = judge(&seen(&figures, &status, &link));
        assert_eq!(health.delivering.reasons[0].name, "parent_unreachable");
        assert_eq!(health.ready.reasons[0].name, "registering");
        let ready = health.part("ready", true);
        assert_eq!(ready["passed"], serde_json::json!(["storage_down", "queue_full"]));
        assert!(health.part("ready", false)["passed"].is_null());
        assert!(health.alive.ok);
    }

    #[test]
    fn full_queue_is_not_ready_and_a_heartbeat_tells_it_apart_from_delivering() {
        let link = LinkStatus::of("http://127.0.0.1:1".to_owned());
        let id = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42/3".parse().ok();
        let status = NodeStatus { id, detail: String::new() };
        let full = Depth { messages: 9, bytes: 1 << 20, oldest_age_ms: 1 };
        let queues = vec![("up".to_owned(), [Depth::default(), full, Depth::default()])];
        let figures = Figures { queues, ..Figures::default() };
        let mut seen = seen(&figures, &status, &link);
        seen.plain = Some("link");
        let told = judge(&seen).for_heartbeat();
        let names = |reasons: &[(String, String)]| -> Vec<String> {
            reasons.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&told.ready), ["queue_full"]);
        assert_eq!(names(&told.delivering), [PLAIN_LINKS]);
        seen.bytes_max = 2 << 20;
        assert_eq!(judge(&seen).for_heartbeat().ready, []);
    }
}
