//! Rules about the code itself: size, borders between crates, banned words, what documents name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use protocol::{Refusal, Verdict};

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

/// Folders that hold nothing of ours.
const NOT_OURS: [&str; 5] = ["target", ".git", "callhome-data", "corpus", "artifacts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the tree, as paths from its root with `/`.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) => folders.push(path),
                kind if kind.is_file() => found.push(path.to_string_lossy().replace('\\', "/")),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rust() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|p| p.ends_with(".rs"));
    rust.map(|p| (p.clone(), read(&p))).collect()
}

/// Folders of the members of the workspace, and the manifest of each.
fn members() -> Vec<(String, toml::Table)> {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let members = manifest["workspace"]["members"].as_array().unwrap().iter();
    let folder = |m: &toml::Value| m.as_str().unwrap().to_owned();
    let all = members.map(folder).map(|f| (f.clone(), read(&format!("{f}/Cargo.toml"))));
    all.map(|(folder, text)| (folder, text.parse().unwrap())).collect()
}

/// Names of the dependencies that are ours.
fn ours(manifest: &toml::Table) -> Vec<String> {
    let workspace: toml::Table = read("Cargo.toml").parse().unwrap();
    let known = workspace["workspace"]["dependencies"].as_table().unwrap();
    let is_ours = |name: &String| known.get(name).is_some_and(|d| d.get("path").is_some());
    let names = manifest.get("dependencies").and_then(|d| d.as_table());
    names.into_iter().flat_map(|t| t.keys().cloned()).filter(is_ours).collect()
}

/// The member whose sources hold `path`, the longest first.
fn member_of<'m>(path: &str, members: &'m [(String, toml::Table)]) -> Option<&'m str> {
    let holds = |folder: &&str| path.starts_with(&format!("{folder}/src/"));
    members.iter().map(|(folder, _)| folder.as_str()).filter(holds).max_by_key(|f| f.len())
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} to mend:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_short_enough_to_read() {
    let all = rust();
    assert!(all.len() > 100, "{} files: the tree was not found", all.len());
    none(all.iter().flat_map(|(path, text)| rules::source_file(path, text)).collect());
}

#[test]
fn nothing_is_left_unfinished_and_no_test_is_switched_off() {
    none(rust().iter().flat_map(|(path, text)| rules::banned_words(path, text)).collect());
}

#[test]
fn nothing_names_a_path_of_the_machine_it_was_written_on() {
    let mut wrong = Vec::new();
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        wrong.extend(rules::foreign_paths(&path, &text));
    }
    none(wrong);
}

#[test]
fn crates_depend_only_on_what_they_may_know() {
    let members = members();
    let mut wrong = Vec::new();
    for (folder, manifest) in &members {
        assert!(rules::boundary(folder).is_some(), "{folder} has no row in BOUNDARIES");
        wrong.extend(rules::dependencies(folder, &ours(manifest)));
    }
    for (path, text) in rust() {
        if let Some(folder) = member_of(&path, &members) {
            wrong.extend(rules::imports(folder, &path, &text));
        }
    }
    none(wrong);
}

#[test]
fn no_role_imports_another() {
    let roles: Vec<String> = fs::read_dir(root().join("actors/roles/src"))
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let all = rust();
    none(all.iter().flat_map(|(path, text)| rules::other_roles(path, &roles, text)).collect());
}

#[test]
fn only_assemble_names_modules() {
    let folders = members()
        .into_iter()
        .filter_map(|(f, _)| f.strip_prefix("actors/modules/").map(str::to_owned));
    assert_eq!(folders.collect::<BTreeSet<_>>(), rules::MODULES.map(str::to_owned).into());
    let all = rust();
    let sources =
        |path: &str| path.starts_with("nodes/src/") || path.starts_with("actors/roles/src/");
    let shipped = all.iter().filter(|(path, _)| sources(path));
    none(shipped.flat_map(|(path, text)| rules::module_names(path, text)).collect());
}

#[test]
fn architecture_names_every_crate() {
    let text = read("ARCHITECTURE.md");
    let folders = members().into_iter().map(|(folder, _)| folder);
    let missing =
        folders.filter(|f| !text.contains(&format!("`{f}`")) && !text.contains(&format!("`{f}/`")));
    none(missing.map(|f| format!("ARCHITECTURE.md does not name `{f}`")).collect());
}

#[test]
fn what_documents_name_is_there() {
    let files = files();
    let there = |path: &str| {
        root().join(path).exists() || files.iter().any(|f| f.ends_with(&format!("/{path}")))
    };
    let mut wrong = Vec::new();
    for document in files.iter().filter(|f| f.ends_with(".md") && !f.contains("/fixtures/")) {
        let named = rules::named_paths(&read(document));
        let missing = named.into_iter().filter(|path| !there(path));
        wrong.extend(missing.map(|path| format!("{document}: `{path}` is not there")));
    }
    none(wrong);
}

#[test]
fn what_architecture_says_shows_a_promise_is_a_test() {
    let named = rules::named_tests(&read("ARCHITECTURE.md"));
    assert!(named.len() >= 10, "{named:?}");
    let all: String = rust().into_iter().map(|(_, text)| text).collect();
    let missing = named.into_iter().filter(|name| !all.contains(&format!("fn {name}(")));
    none(missing.map(|name| format!("ARCHITECTURE.md: no test is called `{name}`")).collect());
}

/// Refusals of `delivery.md` alone: no outsider sees them.
const BETWEEN_NODES: [&str; 2] = ["moved", "new_incarnation"];
/// A loop is a slip in a configuration, so between nodes it is try again (`delivery.md` §5), and
/// the table's verdict is for who reads the ledger.
const LOOP: &str = "loop";

#[test]
fn every_refusal_stands_in_the_contracts_table_with_its_verdict() {
    let table = rules::refusals(&read("tests/fixtures/refusals.md"));
    let named: BTreeSet<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
    let known: BTreeSet<&str> = Refusal::ALL.iter().map(|r| r.name()).collect();
    let expected: BTreeSet<&str> = named.iter().copied().chain(BETWEEN_NODES).collect();
    assert_eq!(known, expected);
    for refusal in Refusal::ALL {
        let row = table.iter().find(|(name, _)| name == refusal.name());
        let Some((name, give_up)) = row.filter(|(name, _)| name != LOOP) else { continue };
        assert_eq!(refusal.verdict() == Verdict::GiveUp, *give_up, "{name}");
    }
}

mod the_rules_themselves {
    use super::{rules, source};

    #[test]
    fn literals_and_comments_are_no_code() {
        let text = "let a = \"{ // \\\" \"; // {\nlet b = '{'; /* { /* { */ */ let c: &'static str = r#\"\"{\"#;";
        let code = source::code_only(text);
        assert!(!code.contains('{'), "{code}");
        assert!(code.contains("let c: &'static str ="), "{code}");
        assert_eq!(code.lines().count(), 2);
        assert_eq!(source::code_only("b\"{\" br\"{\" b'{' c\"{\"").trim(), "");
        assert_eq!(source::without_literals("f(\"long\") // why"), "f() // why");
    }

    #[test]
    fn functions_are_measured_by_their_braces() {
        let text = "trait T {\n    fn no_body(&self);\n}\nfn one() { \"}\" }\n\
            pub async fn two<F: Fn(u8) -> [u8; 2]>(f: F)\nwhere\n    F: Send,\n{\n    if x {\n    }\n}\n";
        let found = source::functions(text);
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(found, [("one", 4, 1), ("two", 5, 7)]);
    }

    #[test]
    fn file_without_purpose_or_too_long_or_too_wide_is_told() {
        let of = |text: &str| rules::source_file("f.rs", text);
        assert!(of("//! Says what the file is for.\n").is_empty());
        assert_eq!(of("use std::fs;\n").len(), 1);
        assert_eq!(of(&format!("//! Says what it is for.\n{}", "\n".repeat(500))).len(), 1);
        let wide = "x".repeat(101);
        assert_eq!(of(&format!("//! Says what it is for.\n// {wide}\n")).len(), 1);
        assert!(of(&format!("//! Says what it is for.\nlet a = \"{wide}\";\n")).is_empty());
        let long = format!("//! Says what it is for.\nfn f() {{{}}}\n", "\n".repeat(70));
        assert_eq!(of(&long), ["f.rs:2: f has 71 lines, at most 70"]);
    }

    #[test]
    fn banned_words_are_found_in_code_and_comments_but_not_in_strings() {
        for (word, _) in rules::banned() {
            assert_eq!(rules::banned_words("f.rs", &format!("// {word}")).len(), 1, "{word}");
            assert!(rules::banned_words("f.rs", &format!("f(\"{word}\")")).is_empty(), "{word}");
        }
        for path in rules::machine_paths() {
            assert_eq!(rules::foreign_paths("f.md", &format!("see {path}main")).len(), 1);
        }
    }

    #[test]
    fn crate_that_knows_too_much_is_told() {
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let modules = "actors/modules/redb";
        assert!(rules::dependencies(modules, &names(&["protocol", "extension"])).is_empty());
        assert_eq!(rules::dependencies(modules, &names(&["module-memory"])).len(), 1);
        assert_eq!(rules::dependencies("protocol", &names(&["extension"])).len(), 1);
        let roles = |text: &str| rules::imports("actors/roles", "actors/roles/src/a.rs", text);
        assert_eq!(roles("use std::fs;").len(), 1);
        assert!(
            roles("// std::fs\nuse my_std::fs;\n#[cfg(test)]\nmod tests { use std::fs; }")
                .is_empty()
        );
    }

    #[test]
    fn role_that_imports_another_is_told() {
        let all = ["delivery".to_owned(), "proxy".to_owned(), "mlm".to_owned()];
        let of = |path: &str, text: &str| rules::other_roles(path, &all, text);
        assert_eq!(of("actors/roles/src/mlm/tree.rs", "use crate::proxy::tree;").len(), 1);
        assert!(of("actors/roles/src/mlm/tree.rs", "use crate::delivery::tree;").is_empty());
        assert!(of("actors/roles/src/mlm/tree.rs", "use crate::mlm::tree;").is_empty());
        assert!(of("actors/roles/src/lib.rs", "use crate::proxy::tree;").is_empty());
        assert_eq!(rules::module_names("nodes/src/launch.rs", "use module_redb::A;").len(), 1);
        assert!(rules::module_names("nodes/src/assemble.rs", "use module_redb::A;").is_empty());
    }

    #[test]
    fn paths_and_refusals_are_read_out_of_documents() {
        let text = "See `protocol/src/run.rs`, `actors/`, `cargo test`, `link.rs` and `a/b`.";
        assert_eq!(rules::named_paths(text), ["protocol/src/run.rs", "actors", "link.rs"]);
        let text = "`a_test_of_it` and `two_words`, `protocol::a_b_c`";
        assert_eq!(rules::named_tests(text), ["a_test_of_it"]);
        let table = "| name | verdict |\n|---|---|\n| a, b_c | give up | 404 |\n\
            | stopping, or no proxy | try again | 503 |\n";
        let rows = rules::refusals(table);
        let rows: Vec<_> = rows.iter().map(|(n, g)| (n.as_str(), *g)).collect();
        assert_eq!(rows, [("a", true), ("b_c", true), ("stopping", false)]);
    }
}
