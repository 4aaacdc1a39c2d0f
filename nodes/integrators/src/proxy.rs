//! The sink of integrators that run: the proxy's socket, with a spill on disk behind it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use integrator_api::{
    Accepted, AlarmCall, Call as ApiCall, CallError, Callback, Client, Counters as Told, DataCall,
    EventCall, Handler, Options, Qos,
};

use crate::common::{CommonArgs, IntegratorError, socket_path};
use crate::counters::Counters;
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
    /// None: there is no spill.
    spill: Option<PathBuf>,
    counters: Counters,
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
        let counters = Counters::default();
        let handler = Answers { counters: counters.clone() };
        let version = env!("CARGO_PKG_VERSION");
        let options = Options::new(&socket, name, version).handler(handler);
        let opened = match Client::open(options.clone().spill(&folder)) {
            Err(error) if !told => {
                let spill = folder.display();
                tracing::warn!(%spill, %error, "no spill: senders wait while the proxy is away");
                Client::open(options).map(|client| (client, None))
            }
            opened => opened.map(|client| (client, Some(folder.clone()))),
        };
        let (client, spill) = opened.map_err(|error| IntegratorError::Configuration {
            message: format!("the spill {} cannot be used: {error}", folder.display()),
            help: "--spill takes a folder that this user may write".to_owned(),
        })?;
        Ok(Arc::new(Self { client, socket, spill, counters }))
    }

    /// Ends the conversation once all calls are answered or in the spill, at most after `within`.
    /// `false`: not in time.
    pub async fn close(&self, within: Duration) -> bool {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || client.close(within)).await.unwrap_or(false)
    }

    /// Ends when the proxy has taken all, also what the spill holds of earlier runs.
    pub async fn taken(&self) {
        while !self.client.wait_taken(Duration::ZERO) {
            tokio::time::sleep(LOOK_EACH).await;
        }
    }

    /// Where its proxy is looked for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// That the proxy has not taken all, what stands in its way, and where the rest is.
    pub fn not_taken(&self) -> IntegratorError {
        let trouble = match self.client.connected() {
            Some(answer) => format!("it is {}", answer.registration),
            None => self.client.trouble().unwrap_or_else(|| "it does not answer".to_owned()),
        };
        let message = format!("the proxy has not taken all: {trouble}");
        match &self.spill {
            Some(folder) => IntegratorError::TryAgain {
                message,
                help: format!(
                    "{} bytes are kept in {} and go at the next start",
                    self.client.spill_bytes(),
                    folder.display()
                ),
            },
            None => IntegratorError::Unavailable {
                message,
                help: "nothing is kept without a spill: start it again when the proxy is there"
                    .to_owned(),
            },
        }
    }
}

impl Sink for ProxySink {
    fn emit(&self, call: Call) -> Emitted {
        let ticket = self.client.send(api_call(call));
        Box::pin(async move { ticket.await.map(receipt).map_err(refused) })
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
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

/// What the proxy may ask of an integrator that only listens, how it is; and what it is told.
struct Answers {
    counters: Counters,
}

impl Handler for Answers {
    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::Status]
    }

    fn counters(&self) -> Option<Told> {
        Some(self.counters.told())
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
    let Call { instance, occurred_at_ms, what, quality, once } = call;
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
            once,
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
            once,
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
            once,
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
