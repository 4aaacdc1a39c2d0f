//! `check` and `node`: what is sound, what is told, and which codes they end with.
use std::path::Path;

use crate::{
    sandbox::{Process, Up, callhome, text},
    support::{QUIET, refused},
};

const CUSTOMER: &str = "018f6f2a-5c3e-7c11-9a54-3d2b1a0f9e42";

/// An application server's file, the one that needs no parent.
fn top(more: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<node xmlns=\"urn:callhome:config:1\" name=\"top\" \
         roles=\"app-server\"><identity customer=\"{CUSTOMER}\"/><communications>\
         <module name=\"line\" protocol=\"http\" encryption=\"none\" authentication=\"none\"/>\
         </communications><doors><exchange bind=\"127.0.0.1:0\" via=\"line\"/>\
         <api bind=\"127.0.0.1:0\"/><operator bind=\"127.0.0.1:0\"/></doors>{more}</node>\n"
    )
}

fn written(folder: &Path, name: &str, what: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, what).unwrap();
    path.display().to_string()
}

#[test]
fn examples_of_all_roles_check_out() {
    let folder = tempfile::tempdir().unwrap();
    for role in [
        "proxy",
        "mlm",
        "applications-mlm",
        "app-server",
        "content-mlm",
        "certificate-manager",
        "bandwidth-manager",
    ] {
        let output = callhome(&["check", "--example", role]);
        assert_eq!(output.status.code(), Some(0), "{role}");
        let file = written(folder.path(), &format!("{role}.xml"), &text(&output.stdout));
        let output = callhome(&["check", "--no-environment", "--config", &file]);
        assert_eq!(output.status.code(), Some(0), "{role}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(said.starts_with(&format!("ok {file} sha256:")), "{said}");
    }
}

#[test]
fn check_tells_all_problems_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let bad = top("<heartbeat every-s=\"0\"/>\n<store bytes=\"x\"/>\n<nothing/>");
    let file = written(folder.path(), "bad.xml", &bad);
    let output = callhome(&["check", "--config", &file]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stdout) + &text(&output.stderr);
    for told in ["every-s", "bytes", "<nothing>"] {
        assert!(said.contains(told), "{told} in {said}");
    }
    assert!(said.contains(":2:") && said.contains(":3:") && said.contains(":4:"), "{said}");
    assert_eq!(callhome(&["check", "--config", "/nonexistent.xml"]).status.code(), Some(78));

    let good = written(folder.path(), "good.xml", &top(""));
    let output = callhome(&["check", "--print", "--config", &good]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("<heartbeat") && printed.contains(CUSTOMER), "{printed}");
}

#[test]
fn check_says_of_a_damaged_store_65_and_changes_nothing() {
    let up = Up::start(&QUIET);
    crate::support::alarm(&up, "press-1", &[]);
    let Up { folder, process } = up;
    assert_eq!(process.stop(), Some(0));
    let data = folder.path().to_str().unwrap();
    let output = callhome(&["check", "--data", data]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ok "));
    let store = folder.path().join("mlm/store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[..4096].fill(0x5a);
    std::fs::write(&store, &bytes).unwrap();
    let output = callhome(&["check", "--data", data]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains("mlm"), "{said}");
    // The stores are looked at whatever configuration is.
    let good = written(folder.path(), "good.xml", &top(""));
    let output = callhome(&["check", "--config", &good, "--data", data]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains("mlm"), "{said}");
    assert_eq!(std::fs::read(&store).unwrap(), bytes);
}

#[test]
fn node_wants_roles_that_agree_and_a_word_for_plain_doors() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let file = written(folder.path(), "callhome.xml", &top(""));
    let node = |arguments: &[&str]| {
        let mut all = vec!["node", "--data", data];
        all.extend(arguments);
        callhome(&all)
    };
    let said = refused(&node(&["--role", "proxy", "--insecure"]), 78);
    assert!(said.contains("app-server") && said.contains("proxy"), "{said}");
    let said = refused(&node(&["--role", "app-server"]), 78);
    assert!(said.contains("--insecure"), "{said}");
    // Plain doors stay on loopback and private addresses, whatever is allowed.
    let public = top("").replace("exchange bind=\"127.0.0.1:0\"", "exchange bind=\"8.8.8.8:7443\"");
    let public = written(folder.path(), "public.xml", &public);
    refused(&node(&["--role", "app-server", "--insecure", "--config", &public]), 78);
    let broken = written(folder.path(), "broken.xml", "<node");
    refused(&node(&["--role", "app-server", "--insecure", "--config", &broken]), 78);
    refused(&node(&["--role", "app-server", "--config", "/nonexistent.xml"]), 78);

    let arguments =
        ["node", "--role", "app-server", "--insecure", "--data", data, "--config", &file];
    let process = Process::start(&arguments);
    assert_eq!(process.word("node"), "top");
    assert_eq!(process.word("id"), format!("{CUSTOMER}/1"));
    assert!(process.word("operator").starts_with("http://127.0.0.1:"));
    for file in ["lock", "store.redb", "operator.url", "server.url", "operator.token"] {
        assert!(folder.path().join(file).exists(), "{file} directly in DATA");
    }
    let said = refused(&callhome(&arguments), 69);
    assert!(said.contains("in use"), "{said}");
    // Drills run only with --drills.
    let output = callhome(&["drill", "panic", "durable_queue", "--data", data]);
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(65)), "{:?} {said}", output.status.code());
    assert!(said.contains("--drills"), "{said}");
    assert_eq!(process.stop(), Some(0));
    assert!(!folder.path().join("operator.url").exists());
}

#[test]
fn roles_that_are_not_built_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    for role in ["certificate-manager", "bandwidth-manager"] {
        let example = text(&callhome(&["check", "--example", role]).stdout);
        let example = example.replace("${CALLHOME_CUSTOMER}", CUSTOMER);
        let file = written(folder.path(), "callhome.xml", &example);
        let output = callhome(&[
            "node",
            "--role",
            role,
            "--insecure",
            "--config",
            &file,
            "--data",
            folder.path().to_str().unwrap(),
        ]);
        let said = refused(&output, 78);
        assert!(said.contains("not built yet"), "{said}");
    }
}

#[test]
fn a_file_of_an_unknown_version_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    written(folder.path(), "callhome.xml", "<node xmlns=\"urn:callhome:config:9\"/>");
    refused(&callhome(&["node", "--role", "proxy", "--data", data]), 78);
    assert!(!folder.path().join("store.redb").exists());
}
