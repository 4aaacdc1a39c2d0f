//! Logs, the panic hook and the metrics of a process.
use std::{
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::error;
use tracing_subscriber::{EnvFilter, Registry, fmt::format::JsonFields, prelude::*, reload};

use crate::log_lines::JsonLines;

use crate::metric_names;

static FILTER: OnceLock<Mutex<reload::Handle<EnvFilter, Registry>>> = OnceLock::new();
static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Bounds of the time histograms, seconds: from an idle commit to a hung disk.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 45.0];

/// Bounds of the histogram of orders in a commit.
const JOBS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// Time between two sortings of samples.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Put before every filter, so that what follows may say otherwise: the web server tells of its
/// workers, which are none of a node's events.
const BY_DEFAULT: &str = "actix_server=warn";

fn filter_of(filter: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("{BY_DEFAULT},{filter}"))
}

/// Starts logging to stderr and counting. `format` is `auto`, `json` or `text`; auto is text on a
/// terminal. A second call changes nothing.
pub fn start(filter: &str, format: &str) {
    let Ok(filter) = filter_of(filter) else {
        eprintln!("callhome: error: log filter {filter:?} is not one");
        eprintln!("  help: as in info or info,delivery=debug");
        return start("info", format);
    };
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let json = format == "json" || (format != "text" && !terminal);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match json {
        true => layer.fmt_fields(JsonFields::new()).event_format(JsonLines).boxed(),
        false => layer.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        let _ = FILTER.set(Mutex::new(handle));
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("panic without a text");
        error!(target: "supervision", place, "panicked: {text}");
    }));
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Suffix("_jobs".to_owned()), JOBS));
    if let Ok(builder) = builder {
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if METRICS.set(handle.clone()).is_ok() {
            keep_small(handle);
        }
        // A second recorder in one process is a test's.
        if metrics::set_global_recorder(recorder).is_ok() {
            metric_names::describe();
        }
    }
}

/// Sorts samples into their histograms now and then: they gather in memory where nobody scrapes.
fn keep_small(handle: PrometheusHandle) {
    let keep = move || {
        loop {
            std::thread::sleep(UPKEEP_EVERY);
            handle.run_upkeep();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("metrics".to_owned()).spawn(keep) {
        error!(target: "node", %error, "metrics are sorted at each scrape only");
    }
}

/// Changes what is logged from now on.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let filter = filter_of(filter).map_err(|e| e.to_string())?;
    let handle = FILTER.get().ok_or("this process logs in another way")?;
    let handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
    handle.reload(filter).map_err(|e| e.to_string())
}

/// The metrics of now, in Prometheus' text form.
pub fn metrics_text() -> String {
    METRICS.get().map(|handle| metric_names::with_absent(handle.render())).unwrap_or_default()
}
