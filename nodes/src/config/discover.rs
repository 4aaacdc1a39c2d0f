//! Where a node finds its configuration: the flag, the installation, the environment, the provider.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::problem::{Code, Place, Problem};
use super::reach::own_addresses;
use super::xml::FILE_BYTES_MAX;

/// How long a whole fetch may take: a first start with nobody watching must not hang for ever.
pub const FETCH_WITHIN: Duration = Duration::from_secs(30);

/// Most redirects followed to a configuration.
const REDIRECTS_MAX: usize = 5;

/// Most own addresses told in a fetch (INS-16): a host with more is known by its name.
const ADDRESSES_MAX: usize = 8;

/// The file of an installation.
pub const SYSTEM_FILE: &str = "/etc/callhome/callhome.xml";

/// The file's name in a data folder.
pub const FILE_NAME: &str = "callhome.xml";

/// What to look for.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// `--config`: a path or an address; nothing else is then looked at.
    pub config: Option<&'w str>,
    /// `--data`.
    pub data: &'w Path,
    /// Of the process that looks.
    pub environment: &'w Environment,
}

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of this host.
    File(PathBuf),
    /// A server; the address as it was asked, without what INS-16 adds.
    Url(String),
}

/// A configuration that was found; not yet checked.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its text.
    pub text: String,
    /// What to call it in problems.
    pub name: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Finds a node's configuration (INS-12 to INS-16): `--config`, DATA/callhome.xml,
/// /etc/callhome/callhome.xml, `$CALLHOME_CONFIG_URL`, `$CALLHOME_PROVIDER_URL/v1/configuration`.
/// A file that is there decides, also when it cannot be read; an address that fails passes to the
/// next. Takes at most twice `FETCH_WITHIN`.
///
/// # Errors
/// Nothing was found; a problem for each place that failed.
pub async fn discover(wanted: &Wanted<'_>) -> Result<Found, Vec<Problem>> {
    if let Some(config) = wanted.config {
        return fetch(config, wanted.environment).await.map_err(|problem| vec![problem]);
    }
    let here = wanted.data.join(FILE_NAME);
    for path in [here.clone(), PathBuf::from(SYSTEM_FILE)] {
        if path.symlink_metadata().is_ok() {
            return read_blocking(path).await.map_err(|problem| vec![problem]);
        }
    }
    let mut problems = Vec::new();
    let variable =
        |name: &str| wanted.environment.variable(name).filter(|v| !v.is_empty()).map(str::to_owned);
    let provider = variable("CALLHOME_PROVIDER_URL")
        .map(|url| format!("{}/v1/configuration", url.trim_end_matches('/')));
    for url in [variable("CALLHOME_CONFIG_URL"), provider].into_iter().flatten() {
        match fetch(&url, wanted.environment).await {
            Ok(found) => return Ok(found),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        let here = here.display().to_string();
        let message = "there is no configuration".to_owned();
        let help = format!(
            "put one here, at {SYSTEM_FILE}, or name it by --config or CALLHOME_CONFIG_URL; \
             callhome check --example proxy prints one"
        );
        problems.push(Problem::of_file(&here, Code::Unresolved, message, help));
    }
    Err(problems)
}

/// Reads what `--config` or a variable names: a path, `file:`, or `http:`.
async fn fetch(place: &str, environment: &Environment) -> Result<Found, Problem> {
    let scheme = place.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http") => fetch_http(place, environment).await,
        Some("https") => {
            let message = "https is not built yet: this build has no TLS";
            let help = "name a file, or an http: address on a network you trust";
            Err(unresolved(place, message, help))
        }
        Some("file") => {
            let path = place.get("file:".len()..).unwrap_or_default();
            let path = if path.starts_with("///") { &path[2..] } else { path };
            read_blocking(PathBuf::from(path)).await
        }
        _ => read_blocking(PathBuf::from(place)).await,
    }
}

fn unresolved(name: &str, message: &str, help: &str) -> Problem {
    Problem::of_file(name, Code::Unresolved, message.to_owned(), help.to_owned())
}

async fn read_blocking(path: PathBuf) -> Result<Found, Problem> {
    let name = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
    read.unwrap_or_else(|_| Err(unresolved(&name, "reading was cut off", "start again")))
}

/// Reads a file of this host, at most [`FILE_BYTES_MAX`] bytes. Blocks on the disk.
///
/// # Errors
/// It cannot be read, is longer, or is not UTF-8.
pub fn read_file(path: &Path) -> Result<Found, Problem> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        let help = "name a file that is there and may be read by this user";
        unresolved(&name, &format!("cannot be read: {error}"), help)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let text = text_of(bytes, &name)?;
    Ok(Found { text, name, origin: Origin::File(path.to_owned()) })
}

async fn fetch_http(place: &str, environment: &Environment) -> Result<Found, Problem> {
    let help = "see that the server runs and can be reached from here";
    let failed = |error: reqwest::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let error = error.without_url();
        unresolved(place, &format!("cannot be fetched: {error}{}", cause.unwrap_or_default()), help)
    };
    let mut url = reqwest::Url::parse(place).map_err(|error| {
        unresolved(place, &format!("is not an address: {error}"), "as in http://home:7443/x.xml")
    })?;
    tell_who_asks(&mut url, &own_addresses(), &environment.node_name());
    // Nodes ignore HTTPS_PROXY and its relatives (contract §2).
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(FETCH_WITHIN)
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
        .build()
        .map_err(failed)?;
    let mut response = client.get(url).send().await.map_err(failed)?;
    if !response.status().is_success() {
        let message = format!("cannot be fetched: the server answered {}", response.status());
        return Err(unresolved(place, &message, "see that the address is right"));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("is longer than {FILE_BYTES_MAX} bytes");
            return Err(unresolved(place, &message, "see that the address is right"));
        }
    }
    let name = place.to_owned();
    let text = text_of(bytes, &name)?;
    Ok(Found { text, origin: Origin::Url(name.clone()), name })
}

/// Adds this host's addresses and name to a request (INS-16).
fn tell_who_asks(url: &mut reqwest::Url, own: &[IpAddr], name: &str) {
    let mut pairs = url.query_pairs_mut();
    let told = own.iter().filter(|address| match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    });
    for address in told.take(ADDRESSES_MAX) {
        pairs.append_pair("address", &address.to_string());
    }
    pairs.append_pair("name", name);
}

/// The bytes as text, or where they stop being any.
fn text_of(bytes: Vec<u8>, name: &str) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place { line: bounded(line), column: bounded(column) };
        let message = "the file is not UTF-8 from here".to_owned();
        Problem::at(name, place, Code::NotWellFormed, message, "save it as UTF-8".to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // INS-16
    #[test]
    fn a_fetch_tells_addresses_and_name() {
        let mut url = reqwest::Url::parse("http://home/v1/configuration?x=1").unwrap();
        let own = ["127.0.0.1", "10.0.0.5", "fe80::1", "fd00::5"].map(|a| a.parse().unwrap());
        tell_who_asks(&mut url, &own, "berlin-1");
        assert_eq!(url.query(), Some("x=1&address=10.0.0.5&address=fd00%3A%3A5&name=berlin-1"));
    }

    #[test]
    fn what_is_not_utf8_is_told_with_its_place() {
        let problem = text_of(b"<a>\n\xc3\xa4 \xff".to_vec(), "x.xml").unwrap_err();
        assert_eq!(problem.place, Some(Place { line: 2, column: 3 }));
    }
}
