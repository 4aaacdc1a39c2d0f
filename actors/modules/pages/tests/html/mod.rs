//! Looks at a page as a checker of HTML would: tags balanced, ids unique, labels, scopes.
#![allow(dead_code, reason = "each test uses a part")]
use std::collections::BTreeSet;

/// A tag with its attributes.
#[derive(Clone, Debug, Default)]
pub struct Tag {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

const VOID: &[&str] = &["meta", "link", "input", "br", "hr", "img"];

/// All opening tags; panics where tags are not balanced.
pub fn tags(page: &str) -> Vec<Tag> {
    let mut all = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (inside, after) = rest.split_at(end);
        rest = &after[1..];
        if inside.starts_with('!') {
            continue;
        }
        if let Some(name) = inside.strip_prefix('/') {
            let was = open.pop();
            assert_eq!(was.as_deref(), Some(name), "closed before its time");
            continue;
        }
        let tag = tag(inside.trim_end_matches('/'));
        if !VOID.contains(&tag.name.as_str()) && !inside.ends_with('/') {
            open.push(tag.name.clone());
        }
        all.push(tag);
    }
    assert_eq!(open, Vec::<String>::new(), "left open");
    all
}

fn tag(inside: &str) -> Tag {
    let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if let Some(quoted) = after.strip_prefix("=\"") {
            let (value, after) = quoted.split_once('"').expect("a quote ends");
            attributes.push((name.to_owned(), value.to_owned()));
            rest = after;
        } else {
            assert!(!after.starts_with('='), "{name} is not quoted in {inside}");
            attributes.push((name.to_owned(), String::new()));
            rest = after;
        }
    }
    Tag { name: name.to_owned(), attributes }
}

/// What every page must be (design notes, "Measure").
pub fn check(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    let tags = tags(page);
    let count = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
    assert_eq!((count("h1"), count("main"), count("title")), (1, 1, 1));
    let mut ids = BTreeSet::new();
    for id in tags.iter().filter_map(|tag| tag.get("id")) {
        assert!(ids.insert(id), "two elements have the id {id}");
        assert!(!id.contains(' ') && !id.is_empty(), "{id:?} is no id");
    }
    let mut level = 1;
    for tag in &tags {
        for attribute in ["for", "aria-labelledby", "popovertarget"] {
            if let Some(id) = tag.get(attribute) {
                assert!(ids.contains(id), "{attribute} names {id}, which is not there");
            }
        }
        if tag.name == "use" {
            let symbol = tag.get("href").unwrap().trim_start_matches('#');
            assert!(ids.contains(symbol), "no symbol {symbol}");
        }
        assert!(tag.attributes.iter().all(|(name, _)| !name.starts_with("on")), "{tag:?}");
        match tag.name.as_str() {
            "th" => assert!(tag.get("scope").is_some(), "{tag:?} has no scope"),
            "script" => assert_eq!(tag.get("src"), Some("/live.js"), "an inline script"),
            "style" => panic!("an inline sheet"),
            "input" | "select" | "textarea" => labelled(tag, &tags),
            name if name.len() == 2 && name.starts_with('h') && name != "hr" => {
                let this: u8 = name[1..].parse().unwrap();
                assert!(this <= level + 1, "h{this} after h{level}");
                level = this;
            }
            _ => (),
        }
    }
}

fn labelled(tag: &Tag, tags: &[Tag]) {
    let kind = tag.get("type").unwrap_or_default();
    // A radio button stands in its label.
    if matches!(kind, "hidden" | "radio") || tag.get("aria-label").is_some() {
        return;
    }
    let id = tag.get("id").unwrap_or_default();
    assert!(tags.iter().any(|other| other.get("for") == Some(id)), "{tag:?} has no label");
}

/// Paths of all links and forms.
pub fn links(page: &str) -> BTreeSet<String> {
    let all = tags(page);
    let all = all.iter().filter(|tag| matches!(tag.name.as_str(), "a" | "form"));
    let paths = all.filter_map(|tag| tag.get("href").or_else(|| tag.get("action")));
    let paths = paths.filter(|path| path.starts_with('/')).map(|path| path.replace("&amp;", "&"));
    paths.collect()
}
