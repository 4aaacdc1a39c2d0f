//! The metrics that integrators tell their proxy, in Prometheus' text form (contract §4).
//!
//! They are not this process's own counters but the last report of another: shown as told, so that
//! one that was started again begins at 0, which Prometheus takes for the reset it is. After an
//! integrator has gone its last values stay, until this node ends.
use std::fmt::Write;

use roles::proxy::counted::Counted;

/// A figure of an integrator that has one value.
struct Figure {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: fn(&Counted) -> Option<u64>,
}

const FIGURES: [Figure; 6] = [
    Figure {
        name: "callhome_integrator_received_total",
        kind: "counter",
        help: "Messages that came to an integrator and could be read.",
        of: |counted| counted.counters.as_ref().map(|c| c.received),
    },
    Figure {
        name: "callhome_integrator_ignored_total",
        kind: "counter",
        help: "Of these, what a rule ignores or what was there already.",
        of: |counted| counted.counters.as_ref().map(|c| c.ignored),
    },
    Figure {
        name: "callhome_integrator_dropped_total",
        kind: "counter",
        help: "Of these, what is lost: not allowed, no room, or refused for good.",
        of: |counted| counted.counters.as_ref().map(|c| c.dropped),
    },
    Figure {
        name: "callhome_integrator_rule_gaps_total",
        kind: "counter",
        help: "Values that a rule names and a message did not have.",
        of: |counted| counted.counters.as_ref().map(|c| c.rule_gaps),
    },
    Figure {
        name: "callhome_integrator_spill_bytes",
        kind: "gauge",
        help: "Bytes in an integrator's spill that the proxy has not taken.",
        of: |counted| counted.counters.as_ref().and_then(|c| c.spill_bytes),
    },
    Figure {
        name: "callhome_integrator_reports_refused_total",
        kind: "counter",
        help: "Reports of an integrator that the proxy could not read.",
        of: |counted| Some(counted.refused),
    },
];

/// The lines of all integrators of all nodes; none where no integrator has told anything.
pub fn text(nodes: &[(String, Vec<(String, Counted)>)]) -> String {
    let all = || {
        nodes.iter().flat_map(|(node, integrators)| {
            integrators.iter().map(move |(name, counted)| (labels(node, name), counted))
        })
    };
    let mut text = String::new();
    for figure in FIGURES {
        let series = all().filter_map(|(labels, counted)| Some((labels, (figure.of)(counted)?)));
        family(&mut text, (figure.name, figure.kind, figure.help), series);
    }
    let malformed = all().flat_map(|(labels, counted)| {
        let reasons = counted.counters.iter().flat_map(|counters| &counters.malformed);
        // A reason is a plain word: it was checked when it came.
        reasons.map(move |(reason, count)| (format!("{labels},reason=\"{reason}\""), *count))
    });
    let head = (
        "callhome_integrator_malformed_total",
        "counter",
        "Messages that came to an integrator and could not be read, by reason.",
    );
    family(&mut text, head, malformed);
    text
}

fn labels(node: &str, integrator: &str) -> String {
    format!("node=\"{}\",integrator=\"{}\"", escaped(node), escaped(integrator))
}

/// The series of one metric, with its two lines of head where there are any.
fn family(
    text: &mut String,
    (name, kind, help): (&str, &str, &str),
    series: impl Iterator<Item = (String, u64)>,
) {
    let mut series = series.peekable();
    if series.peek().is_none() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in series {
        let _ = writeln!(text, "{name}{{{labels}}} {value}");
    }
    text.push('\n');
}

/// A label's value: an integrator chooses its name, and it must not end the line.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use protocol::socket::Counters;
    use roles::proxy::counted::Reports;

    use super::*;

    #[test]
    fn each_metric_is_one_block_with_a_line_an_integrator() {
        let reports = Reports::default();
        let malformed = [("cut".to_owned(), 2), ("no_count".to_owned(), 3)].into();
        let counters = Counters { received: 9, malformed, ..Counters::default() };
        reports.take("syslog", Ok(Counters { spill_bytes: Some(7), ..counters.clone() }), 0);
        reports.take("odd\"\\", Ok(counters), 0);
        let text = text(&[("proxy".to_owned(), reports.all()), ("mlm".to_owned(), Vec::new())]);
        let block = "# HELP callhome_integrator_received_total Messages that came to an integrator \
            and could be read.\n# TYPE callhome_integrator_received_total counter\n\
            callhome_integrator_received_total{node=\"proxy\",integrator=\"odd\\\"\\\\\"} 9\n\
            callhome_integrator_received_total{node=\"proxy\",integrator=\"syslog\"} 9\n";
        assert!(text.starts_with(block), "{text}");
        let spill = "callhome_integrator_spill_bytes{node=\"proxy\",integrator=\"syslog\"} 7\n";
        assert!(text.contains(spill), "{text}");
        assert_eq!(text.matches("callhome_integrator_spill_bytes{").count(), 1);
        let cut = "_malformed_total{node=\"proxy\",integrator=\"syslog\",reason=\"cut\"} 2\n";
        assert!(text.contains(cut), "{text}");
        assert_eq!(text.matches("# TYPE").count(), 7);
    }

    #[test]
    fn where_nobody_told_anything_there_is_nothing() {
        assert_eq!(text(&[("proxy".to_owned(), Vec::new())]), "");
    }
}
