//! The content MLM's door: portal and API on one origin.
use std::net::{SocketAddr, TcpListener};

use actix_web::{App, HttpServer, dev::ServerHandle};

use crate::{assemble, launch::LaunchError};

/// A portal that serves.
pub struct OpenPortal {
    /// Where.
    pub address: SocketAddr,
    handle: ServerHandle,
    portal: assemble::Portal,
}

impl OpenPortal {
    /// A one-time code to sign in with.
    pub fn new_code(&self) -> Result<String, LaunchError> {
        new_code(self.portal.sessions())
    }

    /// What makes codes.
    pub fn sessions(&self) -> assemble::Sessions {
        self.portal.sessions().clone()
    }

    /// Ends it.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

/// Opens the portal at `address` over the API at `server`.
pub fn open(address: SocketAddr, server: &str, token: &str) -> Result<OpenPortal, LaunchError> {
    let failed = |e: std::io::Error| {
        LaunchError::new(
            69,
            format!("portal cannot listen on {address}: {e}"),
            "free the address, or choose another with --listen",
        )
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let portal = assemble::portal(server, token)?;
    let shown = portal.clone();
    let make = move || {
        let portal = shown.clone();
        App::new().configure(move |app| assemble::configure_portal(app, portal))
    };
    let server = HttpServer::new(make)
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)
        .map_err(failed)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(OpenPortal { address, handle, portal })
}

/// A one-time code.
pub fn new_code(sessions: &assemble::Sessions) -> Result<String, LaunchError> {
    let help = "the kernel gives no random numbers: see /dev/urandom";
    sessions.new_code().map_err(|e| LaunchError::new(70, e, help))
}
