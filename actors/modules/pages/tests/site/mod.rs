//! A portal on a socket for the tests, the recorded server behind it, and somebody with a browser.
#![allow(dead_code, reason = "each test uses a part")]
use std::time::Duration;

use actix_web::{App, HttpServer};
use module_pages::{Portal, Settings, configure};
use reqwest::{RequestBuilder, Response, StatusCode};

use crate::fake::{self, Server, TOKEN};

/// A portal on a socket, the server behind it, and somebody with a browser.
pub struct Site {
    pub api: Server,
    pub portal: Portal,
    pub url: String,
    pub client: reqwest::Client,
    pub cookie: String,
}

impl Site {
    /// Signed in.
    pub async fn start(cache_s: u32) -> Self {
        let mut site = Self::signed_out(cache_s).await;
        site.cookie = site.sign_in().await;
        site
    }

    pub async fn signed_out(cache_s: u32) -> Self {
        let api = fake::start();
        let settings = Settings { server_url: api.url(), token: TOKEN.to_owned(), cache_s };
        let portal = Portal::new(&settings).unwrap();
        let served = portal.clone();
        let server = HttpServer::new(move || {
            let portal = served.clone();
            App::new().configure(move |cfg| configure(cfg, portal))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { api, portal, url, client, cookie: String::new() }
    }

    pub async fn sign_in(&self) -> String {
        let code = self.portal.sessions().new_code().unwrap();
        let answer = self.post("/sign-in", &format!("code={code}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        header(&answer, "set-cookie").split(';').next().unwrap().to_owned()
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).header("cookie", &self.cookie)
    }

    pub fn post(&self, path: &str, form: &str) -> RequestBuilder {
        self.client
            .post(format!("{}{path}", self.url))
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
    }

    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub async fn csrf(&self) -> String {
        let page = self.page("/alarms").await;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }
}

pub fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}
