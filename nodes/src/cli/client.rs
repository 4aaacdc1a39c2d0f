//! Asks the application server's API or an operator's door, and says what a refusal means.
use std::{path::Path, time::Duration};

use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;

use super::{
    beside::Beside,
    common::{Common, Failure, exit, line_of},
};

/// Until there is a connection: longer is a server that is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For one answer, beyond what a request itself asks to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Largest answer, bytes: 10,000 rows of the largest kind.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How much of an answer that is no problem goes into an error message, characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Who answers at `server.url`.
const SERVER: &str = "the application server";
/// Who answers at `operator.url`.
const OPERATOR: &str = "the operator's door";

/// One server, and the token for it.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    who: &'static str,
}

/// Names and values of a query string.
pub type Query = [(&'static str, String)];

impl Client {
    /// The application server: `--server`, `$CALLHOME_SERVER`, `DATA/server.url`; with the token
    /// of `--token-file`, `$CALLHOME_TOKEN_FILE`, `DATA/operator.token`.
    pub fn server(common: &Common) -> Result<Self, Failure> {
        let beside = line_of(&common.data.join("server.url"));
        let base = match &common.server {
            Some(url) => base(url)?,
            None => base(&beside.clone()?.ok_or_else(|| not_running(common, "server.url"))?)?,
        };
        let own = common.server.is_none()
            || is_loopback(&base)
            || beside.ok().flatten().and_then(|url| self::base(&url).ok()).as_ref() == Some(&base);
        let token = match &common.token_file {
            Some(file) => Some(token(file)?),
            // The token of this machine is for this machine's server alone.
            None if own => token(&common.data.join("operator.token")).ok(),
            None => None,
        };
        Self::new(base, token, SERVER)
    }

    /// The operator's door of the process that runs with `DATA`.
    pub fn operator(common: &Common) -> Result<Self, Failure> {
        let url = line_of(&common.data.join("operator.url"))?;
        let base = base(&url.ok_or_else(|| not_running(common, "operator.url"))?)?;
        let file = match &common.token_file {
            Some(file) => file.clone(),
            None => common.data.join("operator.token"),
        };
        Self::new(base, token(&file).ok(), OPERATOR)
    }

    fn new(base: String, token: Option<String>, who: &'static str) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            // The doors are ours and near; a proxy of the environment has no business there.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .user_agent(concat!("callhome/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(exit::INTERNAL, error.to_string(), ""))?;
        Ok(Self { http, base, token, who })
    }

    /// Where it is, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// GET of JSON.
    pub async fn get(&self, path: &str, query: &Query) -> Result<Value, Failure> {
        let response = self.send(Method::GET, path, query, None, &[], 0).await?;
        json(self, response).await
    }

    /// As `get`, where the server itself may wait `wait_s` seconds for nodes; with what it says
    /// beside the answer.
    pub async fn get_waiting(
        &self,
        path: &str,
        query: &Query,
        wait_s: u64,
    ) -> Result<(Value, Beside), Failure> {
        let response = self.send(Method::GET, path, query, None, &[], wait_s).await?;
        let beside = Beside::read(response.headers());
        Ok((json(self, response).await?, beside))
    }

    /// PUT or POST of JSON, which may take `wait_s` seconds of the server's own.
    pub async fn give(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        headers: &[(&'static str, String)],
        wait_s: u64,
    ) -> Result<Value, Failure> {
        let body = Some(body.to_string());
        let response = self.send(method, path, &[], body, headers, wait_s).await?;
        json(self, response).await
    }

    /// GET of anything, whatever the status: the body, its `Date` and its type.
    pub async fn look(&self, path: &str) -> Result<Look, Failure> {
        let response = self.request(Method::GET, path, &[], None, &[], 0).await?;
        let status = response.status().as_u16();
        let header = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let date = header(header::DATE);
        let body = bytes(self, response).await?;
        Ok(Look { status, date, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Option<String>,
        headers: &[(&'static str, String)],
        wait_s: u64,
    ) -> Result<Response, Failure> {
        let asked = method == Method::GET;
        let response = self.request(method, path, query, body, headers, wait_s).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry = response.headers().get(header::RETRY_AFTER);
        let retry = retry.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = bytes(self, response).await?;
        Err(refused(status, &String::from_utf8_lossy(&body), asked, self.who, retry.as_deref()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Option<String>,
        headers: &[(&'static str, String)],
        wait_s: u64,
    ) -> Result<Response, Failure> {
        let url = format!("{}{path}{}", self.base, query_string(query));
        let within = ANSWER_WITHIN + Duration::from_secs(wait_s);
        let mut request = self.http.request(method, url).timeout(within);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.send().await.map_err(|error| unreachable(self, &error))
    }
}

/// What a door said, whatever it was.
#[derive(Clone, Debug)]
pub struct Look {
    /// HTTP status.
    pub status: u16,
    /// The server's clock.
    pub date: Option<String>,
    /// Text.
    pub body: String,
}

impl Look {
    /// The body as JSON, `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

fn not_running(common: &Common, file: &str) -> Failure {
    let data = common.data.display();
    Failure::new(
        exit::UNREACHABLE,
        format!("nothing runs with {data}: there is no {data}/{file}"),
        format!(
            "start it with `callhome up --data {data}`, name another folder with --data, or a \
             server with --server URL --token-file FILE"
        ),
    )
}

fn unreachable(client: &Client, error: &reqwest::Error) -> Failure {
    let why = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        // The innermost cause says most: "Connection refused (os error 111)".
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        cause.to_string()
    };
    Failure::new(
        exit::UNREACHABLE,
        format!("{} at {} cannot be reached: {why}", client.who, client.base),
        "see whether it runs: callhome doctor",
    )
}

/// An address of ours without a slash at the end.
pub fn base(url: &str) -> Result<String, Failure> {
    let url = url.trim().trim_end_matches('/');
    let help = "an address looks like http://127.0.0.1:7080";
    if url.starts_with("https://") {
        let message = format!("{url}: https is not built yet");
        return Err(Failure::usage(message, help));
    }
    match url.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(url.to_owned()),
        _ => Err(Failure::usage(format!("{url:?} is not an address of a server"), help)),
    }
}

fn is_loopback(base: &str) -> bool {
    let host = base.trim_start_matches("http://").split('/').next().unwrap_or("");
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token in a file.
fn token(file: &Path) -> Result<String, Failure> {
    let help = "name the file with --token-file FILE; `callhome up` keeps it in \
                DATA/operator.token";
    match line_of(file)? {
        Some(token) if !token.is_empty() => Ok(token),
        Some(_) => {
            Err(Failure::new(exit::TOKEN, format!("{} holds no token", file.display()), help))
        }
        None => Err(Failure::new(exit::TOKEN, format!("{} is not there", file.display()), help)),
    }
}

async fn bytes(client: &Client, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(client, &error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::new(
                exit::INTERNAL,
                format!("{} answered more than {ANSWER_BYTES_MAX} bytes", client.who),
                "ask for less with --limit",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn json(client: &Client, response: Response) -> Result<Value, Failure> {
    let body = bytes(client, response).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|_| {
        Failure::new(
            exit::UNREACHABLE,
            format!("what answers at {} is not {}", client.base, client.who),
            "look at --server, or at server.url in the data folder",
        )
    })
}

/// What a status other than success means here (contract §2, §6).
fn refused(
    status: StatusCode,
    body: &str,
    asked: bool,
    who: &str,
    retry_after: Option<&str>,
) -> Failure {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let detail = match problem["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None if body.trim().is_empty() => format!("{who} answered {status}"),
        None => {
            let shown: String = body.trim().chars().take(SHOWN_CHARS_MAX).collect();
            format!("{who} answered {status}: {shown}")
        }
    };
    let detail = super::table::plain(&detail);
    let try_again = match problem["verdict"].as_str() {
        Some(verdict) => verdict == "try_again",
        None => matches!(status.as_u16(), 429 | 500..=599),
    };
    let again = match retry_after {
        Some(seconds) => format!("try again in {} s", super::table::plain(seconds)),
        None => "try again".to_owned(),
    };
    let (code, help) = match status.as_u16() {
        // The operator's door says 403 for what is not allowed there at all, such as drills.
        403 if who == OPERATOR => (exit::REFUSED, String::new()),
        401 | 403 => (
            exit::TOKEN,
            "name the file of a token this server knows with --token-file FILE".to_owned(),
        ),
        404 if who == OPERATOR => (exit::NO_SUCH_ID, String::new()),
        404 => (exit::NO_SUCH_ID, "callhome ls lists what there is, ids in full".to_owned()),
        400 if asked => (exit::USAGE, "see `callhome help` for the flags".to_owned()),
        _ if try_again => (exit::TRY_AGAIN, again),
        _ => (exit::REFUSED, String::new()),
    };
    Failure::new(code, detail, help)
}

/// `?a=b&…`, encoded as forms are; empty without parameters.
fn query_string(query: &Query) -> String {
    let Ok(mut url) = reqwest::Url::parse("http://query/") else { return String::new() };
    if query.is_empty() {
        return String::new();
    }
    url.query_pairs_mut().extend_pairs(query);
    format!("?{}", url.query().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(status: u16, body: &str, asked: bool) -> u8 {
        let status = StatusCode::from_u16(status).unwrap();
        refused(status, body, asked, "the server", None).code
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let again = r#"{"detail": "d", "verdict": "try_again"}"#;
        let never = r#"{"detail": "d", "verdict": "give_up"}"#;
        for (status, body, asked, expected) in [
            (400, never, true, 64),
            (400, never, false, 65),
            (401, never, true, 77),
            (403, never, false, 77),
            (404, never, true, 66),
            (409, never, false, 65),
            (413, never, false, 65),
            (429, again, true, 75),
            (500, again, true, 75),
            (503, again, false, 75),
            (503, "", false, 75),
            (502, "<html>", true, 75),
        ] {
            assert_eq!(code(status, body, asked), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_address_is_http_without_a_slash_at_its_end() {
        assert_eq!(base(" http://a:1/ ").unwrap(), "http://a:1");
        for wrong in ["", "a:1", "https://a", "http://", "ftp://a", "http://a b"] {
            assert_eq!(base(wrong).unwrap_err().code, exit::USAGE, "{wrong}");
        }
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for url in ["http://127.0.0.1:7080", "http://[::1]:1", "http://localhost"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://10.0.0.1:7080", "http://localhost.example", "http://[::2]"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn values_are_percent_encoded() {
        assert_eq!(query_string(&[]), "");
        let query = [("type", "a b&c".to_owned()), ("limit", "1".to_owned())];
        assert_eq!(query_string(&query), "?type=a+b%26c&limit=1");
    }
}
