//! The rules about one file, and about what documents name; each says what is wrong and where.
use super::source;

pub const FILE_LINES_MAX: usize = 500;
pub const FUNCTION_LINES_MAX: usize = 70;
pub const COLUMNS_MAX: usize = 100;

/// Words that may not stand in code, and why. Put together here so that this file passes.
pub fn banned() -> Vec<(String, &'static str)> {
    [
        ("to", "do!(", "finish it"),
        ("db", "g!(", "take it out"),
        ("FIX", "ME", "mend it, or say what is and why"),
        ("unimple", "mented!(", "finish it"),
        ("#[ig", "nore", "a test runs or is not there"),
    ]
    .map(|(a, b, why)| (format!("{a}{b}"), why))
    .to_vec()
}

/// Paths that exist on one machine only.
pub fn machine_paths() -> [String; 2] {
    [format!("/{}/", "work"), format!("/{}/", "root")]
}

/// What is wrong with a Rust file by itself.
pub fn source_file(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//! ") || first.len() < 15 {
        wrong.push(format!("{path}:1: begin with a line `//! …` that says what the file is for"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        wrong.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}: divide it"));
    }
    let narrow = source::without_literals(text);
    for (n, (line, bare)) in text.lines().zip(narrow.lines()).enumerate() {
        if line.chars().count() > COLUMNS_MAX && bare.chars().count() > COLUMNS_MAX {
            wrong.push(format!("{path}:{}: wider than {COLUMNS_MAX} columns", n + 1));
        }
    }
    for function in source::functions(text).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
        let (name, line, lines) = (&function.name, function.line, function.lines);
        wrong
            .push(format!("{path}:{line}: {name} has {lines} lines, at most {FUNCTION_LINES_MAX}"));
    }
    wrong
}

/// Banned words, in code and in comments, but not in strings.
pub fn banned_words(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, line) in source::without_literals(text).lines().enumerate() {
        for (word, why) in banned() {
            if line.contains(&word) {
                wrong.push(format!("{path}:{}: `{word}`: {why}", n + 1));
            }
        }
    }
    wrong
}

/// Paths of one machine, in any file.
pub fn foreign_paths(path: &str, text: &str) -> Vec<String> {
    let holds = |line: &str| machine_paths().into_iter().find(|p| line.contains(p.as_str()));
    let found = text.lines().enumerate().filter_map(|(n, line)| {
        let foreign = holds(line)?;
        Some(format!("{path}:{}: `{foreign}` is a path of one machine", n + 1))
    });
    found.collect()
}

/// What a crate may know of ours (its own name, the crates it may depend on) and what it must not
/// name at all.
pub struct Boundary {
    pub folder: &'static str,
    pub may_use: &'static [&'static str],
    pub never: &'static [(&'static str, &'static str)],
}

const DISK: &str = "files belong to modules";
const NET: &str = "the network belongs to modules";
const CLOCK: &str = "time is an argument";
const ACTIX: &str = "actors belong to roles and supervision";

/// Who may import whom (ARCHITECTURE.md, code map).
pub const BOUNDARIES: &[Boundary] = &[
    Boundary {
        folder: "protocol",
        may_use: &[],
        never: &[
            ("std::fs", DISK),
            ("std::net::Tcp", NET),
            ("SystemTime", CLOCK),
            ("Instant::now", CLOCK),
            ("std::thread", "no threads"),
            ("actix", ACTIX),
            ("tokio", "no I/O"),
        ],
    },
    Boundary {
        folder: "protocol/integrator-api",
        may_use: &["protocol"],
        never: &[("actix", ACTIX), ("tokio", "programs without a runtime link this")],
    },
    Boundary {
        folder: "nodes/integrators",
        may_use: &["integrator-api", "protocol"],
        never: &[("actix", ACTIX)],
    },
    Boundary {
        folder: "actors/supervision",
        may_use: &[],
        never: &[("protocol::", "no messages")],
    },
    Boundary {
        folder: "actors/extension",
        may_use: &["protocol"],
        never: &[("actix", ACTIX), ("redb::", "no implementation here")],
    },
    Boundary {
        folder: "actors/modules/*",
        may_use: &["protocol", "extension"],
        never: &[("roles::", "no module knows an actor"), ("supervision::", "nor its supervisor")],
    },
    Boundary {
        folder: "actors/roles",
        may_use: &["protocol", "extension", "supervision"],
        never: &[("std::fs", DISK), ("tokio::fs", DISK), ("tokio::net", NET), ("actix_web", NET)],
    },
];

/// The boundary of the crate in `folder`; the root package has none.
pub fn boundary(folder: &str) -> Option<&'static Boundary> {
    BOUNDARIES.iter().find(|b| match b.folder.strip_suffix('*') {
        Some(parent) => folder.starts_with(parent),
        None => folder == b.folder,
    })
}

/// Dependencies of ours that a crate must not have.
pub fn dependencies(folder: &str, ours: &[String]) -> Vec<String> {
    let Some(boundary) = boundary(folder) else { return Vec::new() };
    let wrong = ours.iter().filter(|name| !boundary.may_use.contains(&name.as_str()));
    wrong.map(|name| format!("{folder}/Cargo.toml: may not depend on `{name}`")).collect()
}

/// The crates of `actors/modules`; a test compares them with the folders.
pub const MODULES: [&str; 7] = ["api", "https", "ipc", "memory", "pages", "redb", "services"];

/// Names in a source file (not a test) that its crate must not know.
pub fn imports(folder: &str, path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let never = boundary(folder).map_or(&[][..], |b| b.never);
    for (n, line) in shipped(text).lines().enumerate() {
        for (name, why) in never.iter().filter(|(name, _)| names(line, name)) {
            wrong.push(format!("{path}:{}: `{name}`: {why}", n + 1));
        }
    }
    wrong
}

/// Another role that a role's file imports; what two roles share is in `delivery`.
pub fn other_roles(path: &str, roles: &[String], text: &str) -> Vec<String> {
    let own = path.strip_prefix("actors/roles/src/").and_then(|p| p.split('/').next());
    let Some(own) = own.filter(|own| roles.iter().any(|r| r == own)) else { return Vec::new() };
    let mut wrong = Vec::new();
    for (n, line) in shipped(text).lines().enumerate() {
        for other in roles.iter().filter(|r| *r != own && *r != "delivery") {
            if names(line, &format!("crate::{other}::"))
                || names(line, &format!("super::super::{other}"))
            {
                wrong.push(format!("{path}:{}: `{own}` imports the role `{other}`", n + 1));
            }
        }
    }
    wrong
}

/// Modules that a file names; of those that are shipped only `assemble.rs` of the node may.
pub fn module_names(path: &str, text: &str) -> Vec<String> {
    if path == "nodes/src/assemble.rs" || path.starts_with("nodes/src/assemble/") {
        return Vec::new();
    }
    let code = shipped(text);
    let module = |line: &str| MODULES.iter().any(|m| names(line, &format!("module_{m}::")));
    let lines = code.lines().enumerate().filter(|(_, line)| module(line));
    lines.map(|(n, _)| format!("{path}:{}: only assemble.rs names modules", n + 1)).collect()
}

/// The code in front of the module of tests.
fn shipped(text: &str) -> String {
    let code = source::code_only(text);
    let lines: Vec<&str> = code.lines().collect();
    let attribute = |line: &&&str| line.starts_with(['#', ' ', ')']);
    let begins = |at: &usize| {
        let item = lines[at + 1..].iter().find(|line| !attribute(line));
        lines[*at] == "#[cfg(test)]" && item.is_some_and(|line| line.starts_with("mod "))
    };
    let tests = (0..lines.len()).find(begins).unwrap_or(lines.len());
    lines[..tests].join("\n")
}

/// Whether `name` begins a word of the line.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

/// Paths in back-ticks that a document names: those in the tree, and bare names of Rust files.
pub fn named_paths(document: &str) -> Vec<String> {
    const TOPS: [&str; 8] =
        ["protocol/", "actors/", "nodes/", "deploy/", "tests/", "benches/", ".ci/", ".cargo/"];
    let spans = document.split('`').skip(1).step_by(2);
    let path = |span: &&str| {
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        plain && (TOPS.iter().any(|top| span.starts_with(top)) || span.ends_with(".rs"))
    };
    spans.filter(path).map(|span| span.trim_end_matches('/').to_owned()).collect()
}

/// Tests in back-ticks that a document names: sentences of at least three words.
pub fn named_tests(document: &str) -> Vec<String> {
    let spans = document.split('`').skip(1).step_by(2);
    let test = |span: &&str| {
        let plain = span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        plain && span.matches('_').count() >= 2
    };
    spans.filter(test).map(str::to_owned).collect()
}

/// Rows of a table of refusals: name and whether the sender gives up.
pub fn refusals(table: &str) -> Vec<(String, bool)> {
    let mut rows = Vec::new();
    for line in table.lines().filter(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, names, verdict, ..] = cells[..] else { continue };
        let give_up = match verdict {
            "give up" => true,
            "try again" => false,
            _ => continue,
        };
        // "stopping, or no proxy": what is not one word is no name.
        for name in names.split(", ").filter(|name| !name.contains(' ')) {
            rows.push((name.to_owned(), give_up));
        }
    }
    rows
}
