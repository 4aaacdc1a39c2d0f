//! What each metric is: its kind and a sentence, for HELP and TYPE at `/metrics` (contract §4).

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts times by their length.
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Names without `callhome_`, kind, what is told to people.
pub const METRICS: &[(&str, Kind, &str)] = &[
    ("build_info", Gauge, "The program's version; always 1"),
    ("queue_messages", Gauge, "Messages in a queue"),
    ("queue_bytes", Gauge, "Wire bytes in a queue"),
    ("queue_oldest_age_seconds", Gauge, "How long the oldest message of a queue has waited here"),
    (
        "queue_drain_eta_seconds",
        Gauge,
        "Until a queue is empty at the rate of the last minute; +Inf: it does not drain",
    ),
    ("ledger_in_total", Counter, "Messages taken into custody"),
    ("ledger_delivered_total", Counter, "Messages that the parent, or every module, has"),
    ("ledger_expired_total", Counter, "Messages whose time to live ran out"),
    ("ledger_evicted_total", Counter, "Messages that made room in a full queue"),
    ("ledger_consumed_total", Counter, "Messages that a module dropped or replaced"),
    ("ledger_refused_total", Counter, "Messages given up or set aside, by reason"),
    ("ledger_queued", Gauge, "Messages held now"),
    ("ledger_balanced", Gauge, "1 where every message is accounted for"),
    ("intake_duplicates_total", Counter, "Messages that came again"),
    (
        "intake_turned_away_total",
        Counter,
        "Messages, and exchanges as a whole, that the door refused, by reason",
    ),
    ("intake_dropped_total", Counter, "Messages accepted before registration and not stored"),
    ("store_commit_seconds", Histogram, "Time of a commit"),
    ("store_commit_jobs", Histogram, "Orders that went into one commit"),
    ("exchange_seconds", Histogram, "Time until the parent answered an exchange"),
    ("exchange_bytes_total", Counter, "Bytes of exchanges with the parent, up and down"),
    ("supervision_restarts_total", Counter, "Restarts of actors, by how they ended"),
    ("supervision_escalations_total", Counter, "Times a supervisor gave up"),
    ("ready", Gauge, "1 where the node takes messages"),
    ("delivering", Gauge, "1 where messages get out, or are held on purpose"),
];

/// Tells the recorder of all of them. Call it when there is one.
pub fn describe() {
    for (name, kind, help) in METRICS {
        let name = format!("callhome_{name}");
        match kind {
            Counter => metrics::describe_counter!(name, *help),
            Gauge => metrics::describe_gauge!(name, *help),
            Histogram => metrics::describe_histogram!(name, *help),
        }
    }
}

/// HELP and TYPE of those that nothing was counted of yet, behind `text`: who scrapes learns that
/// they exist.
pub fn with_absent(mut text: String) -> String {
    for (name, kind, help) in METRICS {
        if text.contains(&format!("# TYPE callhome_{name} ")) {
            continue;
        }
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        };
        let line = format!("# HELP callhome_{name} {help}\n# TYPE callhome_{name} {kind}\n\n");
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_yet_is_told_once() {
        let text = with_absent("# TYPE callhome_ready gauge\ncallhome_ready 1\n".to_owned());
        assert_eq!(text.matches("# TYPE callhome_ready ").count(), 1);
        assert!(text.contains("# TYPE callhome_supervision_escalations_total counter\n"));
        assert_eq!(text, with_absent(text.clone()));
    }
}
