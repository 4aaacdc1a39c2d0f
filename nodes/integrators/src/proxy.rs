//! The sink of integrators that run: the proxy's socket, with a spill on disk behind it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use integrator_api::{
    Accepted, AlarmCall, Call as ApiCall, CallError, Callback, Client, DataCall, EventCall,
    Handler, Options, Qos,
};

use crate::common::{CommonArgs, Counters, IntegratorError, socket_path};
use crate::sink::{Call, Emitted, Quality, Receipt, Refused, Sink, What};

/// How often it is looked whether the proxy is there, until it is.
const LOOK_EACH: Duration = Duration::from_millis(50);

/// How often it is said that the proxy is not there.
const SAY_EACH: Duration = Duration::from_secs(30);

/// How long the end waits until all calls are answered or in the spill.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// Sends calls to the proxy; what it cannot take now is kept in the spill.
pub struct ProxySink {
    client: Client,
    socket: PathBuf,
    name: Arc<str>,
}

impl ProxySink {
    /// Opens a client for the integrator `kind`, which connects by itself, now and whenever the
    /// connection is lost. `data` is the data directory: the socket and the spill lie in it where
    /// the flags do not say otherwise.
    ///
    /// # Errors
    /// The spill that was named cannot be used.
    pub fn open(kind: &str, args: &CommonArgs, data: &Path) -> Result<Arc<Self>, IntegratorError> {
        let name = args.name.as_deref().unwrap_or(kind);
        let socket = socket_path(args.socket.as_deref(), data);
        Self::open_at(socket, name, args.spill.as_deref(), data)
    }

    /// As [`ProxySink::open`], of the integrator `name` at `socket`.
    ///
    /// # Errors
    /// The spill that was named cannot be used.
    pub fn open_at(
        socket: PathBuf,
        name: &str,
        spill: Option<&Path>,
        data: &Path,
    ) -> Result<Arc<Self>, IntegratorError> {
        let told = spill.is_some();
        let folder = spill.map_or_else(|| data.join("spill"), Path::to_owned);
        let handler = Answers { counters: Counters::new(name) };
        let version = env!("CARGO_PKG_VERSION");
        let options = Options::new(&socket, name, version).handler(handler);
        let opened = match Client::open(options.clone().spill(&folder)) {
            Err(error) if !told => {
                let spill = folder.display();
                tracing::warn!(%spill, %error, "no spill: senders wait while the proxy is away");
                Client::open(options)
            }
            opened => opened,
        };
        let client = opened.map_err(|error| IntegratorError::Configuration {
            message: format!("the spill {} cannot be used: {error}", folder.display()),
            help: "--spill takes a folder that this user may write".to_owned(),
        })?;
        Ok(Arc::new(Self { client, socket, name: name.into() }))
    }

    /// Ends the conversation once all calls are answered or in the spill, at most after
    /// [`CLOSE_WITHIN`]. `false`: not in time.
    pub async fn close(&self) -> bool {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || client.close(CLOSE_WITHIN)).await.unwrap_or(false)
    }
}

impl Sink for ProxySink {
    fn emit(&self, call: Call) -> Emitted {
        let ticket = self.client.send(api_call(call));
        let (client, name) = (self.client.clone(), self.name.clone());
        Box::pin(async move {
            let answer = ticket.await;
            let integrator = name.to_string();
            metrics::gauge!("callhome_integrator_spill_bytes", "integrator" => integrator)
                .set(client.spill_bytes() as f64);
            answer.map(receipt).map_err(refused)
        })
    }

    fn connected(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (client, socket) = (self.client.clone(), self.socket.display().to_string());
        Box::pin(async move {
            let mut waited = Duration::ZERO;
            while client.connected().is_none() {
                tokio::time::sleep(LOOK_EACH).await;
                waited += LOOK_EACH;
                if waited >= SAY_EACH {
                    let trouble = client.trouble().unwrap_or_default();
                    tracing::warn!(socket, trouble, "no proxy yet");
                    waited = Duration::ZERO;
                }
            }
        })
    }
}

/// What the proxy may ask of an integrator that only listens: how it is.
struct Answers {
    counters: Counters,
}

impl Handler for Answers {
    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::Status]
    }

    fn refused(&self, _call: &ApiCall, error: &CallError) {
        self.counters.dropped();
        let refusal = error.name.name();
        tracing::warn!(refusal, detail = error.detail, "call out of the spill refused");
    }
}

fn receipt(accepted: Accepted) -> Receipt {
    Receipt { message_id: accepted.message_id().map(|id| id.to_string()) }
}

fn refused(error: CallError) -> Refused {
    Refused { refusal: error.name, detail: error.detail }
}

/// The same call in the words of the integrator API.
fn api_call(call: Call) -> ApiCall {
    let Call { instance, occurred_at_ms, what, quality } = call;
    let qos = qos(quality);
    match what {
        What::Alarm(alarm) => ApiCall::Alarm(AlarmCall {
            instance,
            occurred_at_ms,
            kind: alarm.kind,
            severity: alarm.severity,
            text: alarm.text,
            key: alarm.key,
            state: alarm.state,
            close_after_s: alarm.close_after_s,
            data: alarm.payload.data,
            encoding: alarm.payload.encoding,
            qos,
            answers: None,
            seq: None,
        }),
        What::Event(event) => ApiCall::Event(EventCall {
            instance,
            occurred_at_ms,
            kind: event.kind,
            event_id: event.event_id,
            severity: event.severity,
            state: event.state,
            text: event.text,
            data: event.payload.data,
            encoding: event.payload.encoding,
            qos,
            answers: None,
            seq: None,
        }),
        What::Data(data) => ApiCall::Data(DataCall {
            instance,
            class: data.kind,
            subclass: data.subtype,
            data: data.payload.data,
            encoding: data.payload.encoding,
            qos,
            answers: None,
            seq: None,
        }),
    }
}

fn qos(quality: Quality) -> Qos {
    Qos {
        precedence: Some(quality.precedence),
        persistence: quality.persistence,
        time_to_live_s: quality.time_to_live_s,
    }
}
