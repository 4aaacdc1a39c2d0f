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
