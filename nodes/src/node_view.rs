//! What the operator's door shows of one node: health, queues, ledger metrics.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use protocol::{Precedence, heartbeat::Depth};
use roles::{
    delivery::{
        durable_queue::UP,
        orders::{AskFigures, Figures},
        registration::NodeStatus,
        tree::Delivery,
    },
    proxy::{counted::Reports, identifiers::Identifiers},
};
use tokio::sync::watch;

use crate::health::{NodeHealth, Seen, judge};

/// A node that runs in this process.
#[derive(Clone)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its parts.
    pub delivery: Delivery,
    /// How registration stands.
    pub status: watch::Receiver<NodeStatus>,
    /// Not delivering after so long, ms.
    pub patience_ms: i64,
    /// Bytes its queue up may hold.
    pub bytes_max: u64,
    /// What of its links nothing protects, by `node --insecure`.
    pub plain: Option<String>,
    /// What its integrators count; at a proxy.
    pub integrators: Option<Arc<Reports>>,
    /// Numbers of integrators and instances; at a proxy.
    pub identifiers: Option<Arc<Identifiers>>,
    /// Queues that were told of at the last scrape.
    pub told: Arc<Mutex<BTreeSet<String>>>,
}

impl NodeView {
    /// The queue's figures; none when it does not answer.
    pub async fn figures(&self) -> Option<Figures> {
        self.delivery.queue.ask(AskFigures).await.ok()
    }

    /// Health as of now.
    pub async fn health(&self) -> NodeHealth {
        let figures = self.figures().await;
        let hung: Vec<String> =
            supervision::watchdog::hung().into_iter().map(|hung| format!("{hung:?}")).collect();
        let link = self.delivery.link.as_ref().map(|link| link.borrow().clone());
        let status = self.status.borrow().clone();
        judge(&Seen {
            node: &self.name,
            status: &status,
            figures: figures.as_ref(),
            link: link.as_ref(),
            hung: &hung,
            bytes_max: self.bytes_max,
            patience_ms: self.patience_ms,
            plain: self.plain.as_deref(),
            now: (self.delivery.clock)(),
        })
    }

    /// Sets the gauges that are counted in the store and not where they happen.
    pub async fn gauge(&self) {
        let health = self.health().await;
        let node = self.name.clone();
        let label = |name: &'static str, value: f64| {
            metrics::gauge!(name, "node" => node.clone()).set(value);
        };
        label("callhome_ready", f64::from(u8::from(health.ready.ok)));
        label("callhome_delivering", f64::from(u8::from(health.delivering.ok)));
        if let Some(figures) = self.figures().await {
            gauge_figures(&self.name, &figures);
            self.gauge_queues(&figures);
        }
    }

    /// Sets the gauges of the queues. One that is empty now is told of once more, and `up` always.
    fn gauge_queues(&self, figures: &Figures) {
        let mut rows: BTreeMap<&str, _> = BTreeMap::new();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = ([Depth::default(); 3], [Some(0.0); 3]);
        rows.extend(told.iter().map(|queue| (queue.as_str(), empty)));
        if self.delivery.link.is_some() {
            rows.insert(UP, empty);
        }
        for ((queue, depths), drains) in figures.queues.iter().zip(&figures.drains_in_s) {
            rows.insert(queue, (*depths, *drains));
        }
        for (queue, (depths, drains)) in rows {
            for ((precedence, depth), drain) in Precedence::ALL.iter().zip(depths).zip(drains) {
                let set = |name: &'static str, value: f64| {
                    metrics::gauge!(name, "node" => self.name.clone(), "queue" => queue.to_owned(),
                        "precedence" => precedence.word())
                    .set(value);
                };
                set("callhome_queue_messages", depth.messages as f64);
                set("callhome_queue_bytes", depth.bytes as f64);
                set("callhome_queue_oldest_age_seconds", depth.oldest_age_ms as f64 / 1000.0);
                set("callhome_queue_drain_eta_seconds", drain.unwrap_or(f64::INFINITY));
            }
        }
        *told = figures.queues.iter().map(|(queue, _)| queue.clone()).collect();
    }
}

fn gauge_figures(node: &str, figures: &Figures) {
    let node = node.to_owned();
    let count = |name: &'static str, value: u64| {
        metrics::counter!(name, "node" => node.clone()).absolute(value);
    };
    let account = &figures.account;
    count("callhome_ledger_in_total", account.taken);
    count("callhome_ledger_delivered_total", account.delivered);
    count("callhome_ledger_expired_total", account.expired);
    count("callhome_ledger_evicted_total", account.evicted);
    count("callhome_ledger_consumed_total", account.consumed);
    count("callhome_intake_duplicates_total", account.duplicates);
    count("callhome_intake_dropped_total", account.dropped);
    for (reason, value) in &figures.refused {
        metrics::counter!("callhome_ledger_refused_total",
            "node" => node.clone(), "reason" => reason.clone())
        .absolute(*value);
    }
    for (reason, value) in &figures.turned_away {
        metrics::counter!("callhome_intake_turned_away_total",
            "node" => node.clone(), "reason" => reason.clone())
        .absolute(*value);
    }
    let gauge = |name: &'static str, value: f64| {
        metrics::gauge!(name, "node" => node.clone()).set(value);
    };
    gauge("callhome_ledger_queued", account.queued as f64);
    gauge("callhome_ledger_balanced", f64::from(u8::from(account.balanced())));
}

/// The nodes of this process.
#[derive(Clone, Default)]
pub struct Nodes(Arc<RwLock<Vec<NodeView>>>);

impl Nodes {
    /// A node started.
    pub fn add(&self, node: NodeView) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).push(node);
    }

    /// Those that run.
    pub fn all(&self) -> Vec<NodeView> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
