//! `callhome support-bundle FILE`: what somebody who helps needs to see, in one tar, no secrets.
use std::{
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    client::Client,
    common::{Common, Failure, exit, finish},
    doctor::findings,
};

/// Files named in the listing of the data folder; a store has a handful.
const LISTED_MAX: usize = 2000;
/// How deep the listing goes.
const DEPTH_MAX: usize = 4;
/// Bytes of a block of a tar (POSIX ustar).
const BLOCK: usize = 512;

/// Flags of `callhome support-bundle`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: callhome support-bundle callhome.tar")]
pub struct Args {
    /// The tar to write; it must not be there yet
    pub file: PathBuf,
}

/// Runs `callhome support-bundle`; the exit code.
pub async fn run(args: &Args, common: &Common) -> u8 {
    finish(bundle(args, common, &mut io::stdout().lock()).await)
}

/// As `run`, printing to `out`.
pub async fn bundle(args: &Args, common: &Common, out: &mut dyn Write) -> Result<u8, Failure> {
    let failed = |error: io::Error| {
        let message = format!("{}: {error}", args.file.display());
        Failure::usage(message, "name a file that is not there yet, in a folder that is")
    };
    // Before anything is asked: a name that does not work is told at once.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
        .map_err(failed)?;
    let mut parts = vec![("about.json", about(common).to_string())];
    parts.push(("doctor.json", json!(findings(common).await).to_string()));
    parts.push(("files.json", json!(listing(&common.data)).to_string()));
    parts.extend(asked(common).await);
    let now = Timestamp::now().as_second().max(0) as u64;
    let mut tar = Vec::new();
    for (name, content) in &parts {
        append(&mut tar, name, content.as_bytes(), now);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    file.write_all(&tar).and_then(|()| file.sync_all()).map_err(failed)?;
    if common.json() {
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        writeln!(out, "{}", json!({"file": args.file, "bytes": tar.len(), "parts": names}))?;
    } else {
        writeln!(out, "{} ({} KiB, {} parts)", args.file.display(), tar.len() >> 10, parts.len())?;
    }
    Ok(exit::OK)
}

fn about(common: &Common) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "made_at": format!("{:.3}", Timestamp::now()),
        "data": common.data,
        "architecture": std::env::consts::ARCH,
        "system": std::env::consts::OS,
    })
}

/// What the doors say; what cannot be had is left out, and doctor.json says why.
async fn asked(common: &Common) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    if let Ok(door) = Client::operator(common) {
        for (name, path) in [
            ("healthz.json", "/healthz?verbose"),
            ("tree.json", "/tree"),
            ("metrics.txt", "/metrics"),
            ("queue.json", "/queue"),
        ] {
            if let Ok(look) = door.look(path).await {
                parts.push((name, look.body));
            }
        }
    }
    if let Ok(server) = Client::server(common) {
        for (name, path) in [
            ("nodes.json", "/api/v1/nodes"),
            ("integrators.json", "/api/v1/integrators"),
            ("ledger.json", "/api/v1/ledger"),
        ] {
            if let Ok(answer) = server.get(path, &[]).await {
                parts.push((name, answer.to_string()));
            }
        }
    }
    parts
}

/// Names, sizes and modes under the data folder; never what is in a file.
fn listing(data: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    let mut folders = vec![(data.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            if found.len() >= LISTED_MAX {
                return found;
            }
            found.push(json!({
                "path": path.strip_prefix(data).unwrap_or(&path),
                "bytes": meta.len(),
                "mode": format!("{:o}", meta.mode() & 0o7777),
                "changed_at": Timestamp::from_second(meta.mtime()).ok().map(|t| t.to_string()),
            }));
            if meta.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            }
        }
    }
    found
}

/// One file of a tar.
fn append(tar: &mut Vec<u8>, name: &str, content: &[u8], mtime_s: u64) {
    let mut head = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, format!("callhome/{name}").as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, format!("{mtime_s:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&head);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{common::Format, recorded::Recorded};
    use super::*;

    #[actix_web::test]
    async fn a_bundle_is_a_tar_without_the_token() {
        let server = Recorded::start(&[("GET /tree", 200, json!([{"name": "proxy"}]))]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bundle.tar");
        let args = Args { file: file.clone() };
        let common = server.common(Format::Json);
        assert_eq!(bundle(&args, &common, &mut Vec::new()).await.unwrap(), exit::OK);
        let tar = std::fs::read(&file).unwrap();
        assert_eq!(tar.len() % BLOCK, 0);
        assert_eq!(&tar[257..262], b"ustar");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let text = String::from_utf8_lossy(&tar);
        assert!(text.contains("callhome/doctor.json") && text.contains(r#"[{"name":"proxy"}]"#));
        assert!(!text.contains("t0ken"));
        let again = bundle(&args, &common, &mut Vec::new()).await.unwrap_err();
        assert_eq!(again.code, exit::USAGE);
    }

    #[test]
    fn another_tar_reads_what_we_wrote() {
        let mut tar = Vec::new();
        append(&mut tar, "a.txt", b"hello", 1_700_000_000);
        append(&mut tar, "b.txt", &[b'x'; 600], 1_700_000_000);
        tar.resize(tar.len() + 2 * BLOCK, 0);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("t.tar"), &tar).unwrap();
        let listed = std::process::Command::new("tar")
            .args(["-tvf", "t.tar"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("callhome/a.txt") && listed.contains(" 600 "), "{listed}");
    }
}
