//! What overview and list of nodes say: three answers of each, and queues by precedence.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken set-up should panic")]

mod fake;
mod html;
mod site;

use fake::fixture;
use site::Site;

/// The text of an element of a page: from where it begins to the first end of such a tag.
fn element(page: &str, begin: &str, end: &str) -> String {
    let (_, rest) = page.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    let inside = rest.split(end).next().unwrap();
    let mut text = String::new();
    let mut in_tag = !inside.starts_with('<') && begin.ends_with(|c| c != '>');
    for letter in inside.chars() {
        match letter {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                text.push(' ');
            }
            letter if !in_tag => text.push(letter),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// DESIGN §4.10: alive, ready and delivering are three answers; queues are shown by precedence.
#[actix_web::test]
async fn whether_nodes_are_ready_and_what_waits_by_precedence_is_on_overview_and_list() {
    let site = Site::start(5).await;
    let overview = site.page("/").await;
    let line = element(&overview, "<ul id=\"line\"", "</ul>");
    for said in ["Alive 7 of 8", "Ready 6 of 8", "Delivering 7 of 8", "Oldest urgent none?"] {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert!(line.contains("Oldest normal 1 h 01 min?"), "{line}");
    assert!(line.contains("Oldest bulk 2 h 01 min?"), "{line}");
    // Which takes no messages, and what to do.
    let attention = element(&overview, "<ol class=\"att\"", "</ol>");
    assert!(attention.contains("nw-mlm is not ready"), "{attention}");
    assert!(attention.contains("It takes some messages only. New messages"), "{attention}");
    assert!(attention.contains("New messages are refused or evict older ones"), "{attention}");
    let id = |node: &str| {
        let nodes = fixture("nodes");
        let node = nodes["items"].as_array().unwrap().iter().find(|n| n["node"] == node).unwrap();
        node["node_id"].as_str().unwrap().replace('/', ".")
    };
    let card = |node: &str| element(&overview, &format!("id=\"n-{}\"", id(node)), "</article>");
    let full = card("nw-mlm");
    assert!(full.contains("alive not ready delivering"), "{full}");
    assert!(full.contains("urgent 0 normal 11,840 bulk 14"), "{full}");
    assert!(full.contains("queue_full"), "{full}");
    let good = card("rz1");
    assert!(
        good.contains("alive ready delivering urgent 0 normal 2 bulk 0 oldest 1.0 s"),
        "{good}"
    );
    assert!(card("dock-7").contains("alive? ready? not heard urgent 0? normal 2? bulk 13?"));

    let list = site.page("/nodes").await;
    let row = |node: &str| element(&list, &format!("id=\"n-{}\"", id(node)), "</tr>");
    let full = row("nw-mlm");
    assert!(full.contains("alive not ready delivering"), "{full}");
    assert!(full.contains("0 11,840 9.1 MiB 1 h 01 min old 14 16.0 MiB 2 h 01 min old"), "{full}");
    assert!(full.contains("raise &lt;store bytes&gt;"), "{full}");

    // A server of an older version does not say it: that is not the same as no.
    let mut nodes = fixture("nodes");
    for node in nodes["items"].as_array_mut().unwrap() {
        node.as_object_mut().unwrap().retain(|key, _| key != "ready" && key != "waiting");
    }
    let site = Site::start(5).await;
    site.api.set("/nodes", nodes);
    let overview = site.page("/").await;
    html::check(&overview);
    assert!(overview.contains("ready?") && !overview.contains("not ready"));
    assert!(site.page("/nodes").await.contains("not known"));
}

// DESIGN §4.10: what is not known is said, and what matters most comes first.
#[actix_web::test]
async fn a_silent_node_is_first_of_all_silent_and_its_figures_are_not_certain() {
    let mut nodes = fixture("nodes");
    let items = nodes["items"].as_array_mut().unwrap();
    // No other node is unready; the silent one said that it held nothing, without encryption.
    items.retain(|node| node["node"] != "nw-mlm");
    let silent = items.iter_mut().find(|node| node["node"] == "dock-7").unwrap();
    let id = silent["node_id"].as_str().unwrap().replace('/', ".");
    silent["queued"] = 0.into();
    for waiting in silent["waiting"].as_array_mut().unwrap() {
        waiting["messages"] = 0.into();
    }
    let reason = |name: &str, detail: &str| serde_json::json!({ "name": name, "detail": detail, "help": "h" });
    silent["delivering"]["reasons"] = serde_json::json!([
        reason("plain_links", "links are plain"),
        reason("parent_unreachable", "agg-2 does not answer"),
        reason("silent", "no heartbeat came in time"),
    ]);
    let site = Site::start(5).await;
    site.api.set("/nodes", nodes);
    let list = site.page("/nodes").await;
    html::check(&list);
    let (_, row) = list.split_once(&format!("id=\"n-{id}\"")).unwrap();
    let row = row.split("</tr>").next().unwrap();
    let at = |words: &str| row.find(words).unwrap_or_else(|| panic!("no {words}: {row}"));
    assert!(at("no heartbeat came") < at("agg-2 does not") && at("agg-2 does") < at("are plain"));
    // A zero of class `zero` is left out on a small screen.
    assert!(!row.contains("zero") && row.contains("0?"), "{row}");
    // Not heard is neither alive nor ready, in the same colour.
    let (_, line) = list.split_once("<ul id=\"line\"").unwrap();
    let cells: Vec<&str> = line.split("</li>").take(3).collect();
    for (cell, name) in cells.iter().zip(["Alive", "Ready", "Delivering"]) {
        assert!(cell.contains(name) && cell.contains("<li class=\"bad\">"), "{cell}");
    }
}
