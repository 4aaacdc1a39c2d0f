//! A line of the log in JSON: flat, with what is known of where it was said (contract §4).
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{Event, Subscriber, field::Field, field::Visit};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::LookupSpan,
};

/// Writes `timestamp level target message`, then the fields of the spans around it, outermost
/// first (`node role` of the node, `peer` of an exchange …), then its own.
pub struct JsonLines;

/// In the order in which people read it.
#[derive(Serialize)]
struct Line<'l> {
    timestamp: String,
    level: &'l str,
    target: &'l str,
    message: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (mut own, mut around) = (Fields::default(), Map::new());
        event.record(&mut own);
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            if let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields) {
                around.extend(fields);
            }
        }
        around.extend(own.0);
        let message = around.remove("message").unwrap_or_else(|| "".into());
        let line = Line {
            timestamp: format!("{:.3}", jiff::Timestamp::now()),
            level: event.metadata().level().as_str(),
            target: event.metadata().target(),
            message,
            rest: around,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(to, "{line}")
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    use tracing_subscriber::prelude::*;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(part);
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_flat_and_its_own_fields_win() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let node = tracing::info_span!("node", node = "proxy", role = "proxy");
            let _node = node.enter();
            let exchange = tracing::info_span!("exchange", peer = "a", refusal = "none");
            let _exchange = exchange.enter();
            tracing::warn!(target: "delivery", refusal = "malformed", count = 3_u64, "turned away");
        });
        let bytes = kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let line: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let keys: Vec<&str> =
            line.as_object().into_iter().flat_map(|line| line.keys().map(String::as_str)).collect();
        let all = ["count", "level", "message", "node", "peer", "refusal", "role", "target"];
        assert!(all.iter().all(|key| keys.contains(key)), "{line}");
        assert_eq!((&line["message"], &line["level"]), (&"turned away".into(), &"WARN".into()));
        assert_eq!((&line["refusal"], &line["count"]), (&"malformed".into(), &3.into()));
        let at = line["timestamp"].as_str().unwrap_or_default();
        assert!(at.ends_with('Z') && at.len() == 24, "{at}");
    }
}
