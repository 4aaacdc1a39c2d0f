//! Picks modules by configuration: the only place that names them.
pub mod stores;

use std::{ffi::OsString, net::SocketAddr, path::Path, sync::Arc};

use actix_web::{
    App, HttpServer,
    dev::{ServerHandle, Service as _},
    web,
};
use extension::{
    communications::{Door, Protocol},
    records::Records,
    storage::QueueStore,
};
use module_redb::{OpenError, Options, RedbStore};
use roles::app_server::tree::Make;
use tracing::{Instrument, Span, info, warn};

use crate::{
    config::{Code, Config, Problem},
    launch::LaunchError,
    role::Role,
};

/// Bytes of the store's cache by role: a proxy is to fit small machines.
const CACHE_BYTES_PROXY: usize = 16 << 20;
const CACHE_BYTES: usize = 32 << 20;

/// A node's store.
pub struct OpenedStore {
    /// It.
    pub store: Arc<dyn QueueStore>,
    /// It is the one this machine last closed.
    pub proved: bool,
}

/// Opens the store in a node's folder, and says what was set aside.
pub fn open_store(folder: &Path, config: &Config) -> Result<OpenedStore, LaunchError> {
    let probe = std::env::current_exe().ok().map(|program| {
        vec![program.into_os_string(), OsString::from("queue"), OsString::from("probe")]
    });
    let proxy = config.roles.has(Role::Proxy);
    let options = Options {
        cache_bytes: if proxy { CACHE_BYTES_PROXY } else { CACHE_BYTES },
        keep_free_bytes: config.store.keep_free_bytes,
        probe,
        ..Options::default()
    };
    let opened = RedbStore::open(folder, &options).map_err(|e| open_failed(&e))?;
    let report = &opened.report;
    if !report.set_aside.is_empty() || report.damaged > 0 {
        warn!(target: "storage", node = config.name, set_aside = report.set_aside.len(),
            salvaged_runs = report.salvaged.runs, salvaged_rows = report.salvaged.rows,
            damaged = report.damaged, "store was damaged; what is good was salvaged");
        for aside in &report.set_aside {
            warn!(target: "storage", path = %aside.path.display(), why = aside.why, "set aside");
        }
    }
    if let (false, Some(why)) = (report.created, &report.unproved) {
        info!(target: "storage", node = config.name, why, "a new epoch is drawn");
    }
    Ok(OpenedStore { store: Arc::new(opened.store), proved: opened.proved })
}

fn open_failed(error: &OpenError) -> LaunchError {
    let (code, help) = match error {
        OpenError::InUse { .. } => (69, "stop the process that has it, or choose another folder"),
        OpenError::UnknownFormat { .. } => (78, "use the version that wrote it, or a newer one"),
        OpenError::Io { .. } => (69, "look at the folder's rights and the disk's room"),
        OpenError::Damaged { .. } => (70, "callhome queue fsck tells more"),
        OpenError::Store { .. } => (70, "look at the disk; callhome queue fsck tells more"),
    };
    LaunchError::new(code, error, help)
}

/// The way to the parents.
pub fn uplink_protocol() -> Result<Arc<dyn Protocol>, LaunchError> {
    match module_https::HttpProtocol::new() {
        Ok(http) => Ok(Arc::new(http)),
        Err(error) => Err(LaunchError::new(70, error, "restart the node")),
    }
}

/// A door that is open: where, and what ends it.
pub struct OpenDoor {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends it.
    pub handle: ServerHandle,
}

/// Opens a door for children.
pub fn exchange_door(address: SocketAddr, door: Arc<dyn Door>) -> Result<OpenDoor, LaunchError> {
    let server = module_https::serve(address, door)
        .map_err(|e| LaunchError::new(69, e, "free the address, or bind another"))?;
    let open = OpenDoor { address: server.address, handle: server.handle.clone() };
    actix_web::rt::spawn(server.run());
    Ok(open)
}

/// Opens the JSON API.
pub fn api_door(
    address: SocketAddr,
    records: Arc<dyn Records>,
    token: &str,
) -> std::io::Result<OpenDoor> {
    let mut tokens = module_api::Tokens::new();
    tokens.add("operator", token);
    let api = web::Data::new(module_api::Api::new(records, Arc::new(tokens)));
    let listener = std::net::TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let span = Span::current();
    let make = move || {
        let (api, span) = (api.clone(), span.clone());
        App::new()
            .wrap_fn(move |request, next| next.call(request).instrument(span.clone()))
            .configure(move |app| module_api::configure(app, api))
    };
    let server = HttpServer::new(make)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(OpenDoor { address, handle })
}

/// The service modules of an application server. Those we ship are always there; the
/// configuration's own kinds come with the issue that loads programs.
pub fn service_modules() -> Vec<Make> {
    vec![
        Arc::new(|| Box::new(module_services::Alarms::default())),
        Arc::new(|| Box::new(module_services::Inventory)),
    ]
}

/// What makes one-time codes.
pub type Sessions = module_pages::Sessions;
/// The portal.
pub type Portal = module_pages::Portal;

/// The portal over the API at `server`.
pub fn portal(server: &str, token: &str) -> Result<Portal, LaunchError> {
    let settings = module_pages::Settings {
        server_url: server.to_owned(),
        token: token.to_owned(),
        cache_s: module_pages::CACHE_S_DEFAULT,
    };
    let help = "see <content server> and its token";
    module_pages::Portal::new(&settings).map_err(|e| LaunchError::new(78, e, help))
}

/// Its routes.
pub fn configure_portal(app: &mut web::ServiceConfig, portal: Portal) {
    module_pages::configure(app, portal);
}

/// Problems of the store in a folder, for `check`; none where there is no store.
pub fn check_store(folder: &Path) -> Vec<Problem> {
    if !folder.join(module_redb::STORE).exists() {
        return Vec::new();
    }
    let told = |code: Code, message: String, help: &str| {
        let file = folder.join(module_redb::STORE).display().to_string();
        Problem::of_file(&file, code, message, help.to_owned())
    };
    let problem = |message: String, help: &str| told(Code::Damaged, message, help);
    match module_redb::fsck(folder, &mut |_, _, _| {}) {
        Ok(report) if report.ok => Vec::new(),
        Ok(report) => vec![problem(
            report.broken.unwrap_or_else(|| format!("{} damaged values", report.damaged)),
            "the node starts all the same and sets them aside; callhome queue fsck shows them",
        )],
        // A node that runs checks each value as it reads it.
        Err(module_redb::OpenError::InUse { .. }) => Vec::new(),
        Err(error) => {
            let unknown = matches!(error, module_redb::OpenError::UnknownFormat { .. });
            let code = if unknown { Code::UnknownFormat } else { Code::Damaged };
            vec![told(code, error.to_string(), open_failed(&error).help.as_str())]
        }
    }
}

/// The integrators' socket, open.
pub struct OpenSocket {
    stop: tokio::sync::oneshot::Sender<()>,
    task: actix_web::rt::task::JoinHandle<()>,
}

impl OpenSocket {
    /// Tells integrators, answers what they sent, and removes the file.
    pub async fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Opens the integrators' socket.
pub fn integrator_socket(
    path: &Path,
    group: Option<&str>,
    door: Arc<dyn extension::integrators::IntegratorDoor>,
) -> Result<OpenSocket, LaunchError> {
    if let Some(folder) = path.parent() {
        // Binding tells what is wrong with it.
        let _ = std::fs::create_dir_all(folder);
    }
    let options = module_ipc::Options::new(path);
    let options = match group {
        Some(group) => options.group(group),
        None => options,
    };
    let socket = module_ipc::Socket::bind(&options).map_err(|e| {
        let help = "stop the proxy that has it, or give <integrator socket> another path";
        LaunchError::new(69, e, help)
    })?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = async move {
        let stopped = async {
            let _ = stopped.await;
        };
        if let Err(error) = socket.serve(door, stopped).await {
            tracing::error!(target: "ipc", %error, "integrator socket ended");
        }
    };
    let task = actix_web::rt::spawn(serving.in_current_span());
    Ok(OpenSocket { stop, task })
}

/// Runs `callhome queue probe FILE`, which only an opening store starts: the exit code, or none
/// where the command line says something else.
pub fn asked_to_probe() -> Option<u8> {
    let mut arguments = std::env::args_os().skip(1);
    let probe = arguments.next()? == "queue" && arguments.next()? == "probe";
    let file = arguments.next().filter(|_| probe)?;
    match module_redb::probe(Path::new(&file)) {
        Ok(()) => Some(0),
        Err(why) => {
            eprintln!("callhome: error: {why}");
            Some(65)
        }
    }
}
