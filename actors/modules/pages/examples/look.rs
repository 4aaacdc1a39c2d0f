//! Serves the portal over recorded answers, for a look at the pages without any node.
//!
//! `cargo run -p callhome-module-pages --example look -- 127.0.0.1:7090` prints a sign-in link.
#![allow(clippy::unwrap_used, reason = "an example")]
#[path = "../tests/fake/mod.rs"]
mod fake;

use actix_web::{App, HttpServer};
use module_pages::{CACHE_S_DEFAULT, Portal, Settings, configure};

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7090".to_owned());
    let api = fake::start();
    let settings =
        Settings { server_url: api.url(), token: fake::TOKEN.to_owned(), cache_s: CACHE_S_DEFAULT };
    let portal = Portal::new(&settings).unwrap();
    println!("http://{listen}/sign-in?code={}", portal.sessions().new_code().unwrap());
    HttpServer::new(move || {
        let portal = portal.clone();
        App::new().configure(move |cfg| configure(cfg, portal))
    })
    .workers(1)
    .bind(listen)?
    .run()
    .await
}
