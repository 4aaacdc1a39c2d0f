//! What is around every page: head, menu, delivery line, list of keys; and the shared parts.
use extension::records::{Node, NodeState};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use protocol::{Precedence, service::Severity};

use crate::{
    live, parts,
    view::{Page, Sheet, View},
    words,
};

/// Symbols of all pages: shape, word, then colour.
const SYMBOLS: &str = include_str!("assets/symbols.svg");
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 \
     16' fill='none' stroke='%231d4ab8' stroke-width='2'%3E%3Cpath d='M2 8.2 8 2.6l6 5.6M4.6 11 8 \
     7.9l3.4 3.1M8 13v2'/%3E%3C/svg%3E";
/// Menu: path, name, key after `g`.
const MENU: &[(&str, &str, &str)] = &[
    ("/", "Overview", "o"),
    ("/alarms", "Alarms", "a"),
    ("/events", "Events", "e"),
    ("/instances", "Instances", "i"),
    ("/nodes", "Nodes", "n"),
    ("/messages", "Messages", "m"),
    ("/ledger", "Ledger", "l"),
    ("/customers", "Customers", "c"),
];
/// What the delivery line says of each precedence.
const OLDEST: [(Precedence, &str); 3] = [
    (Precedence::Urgent, "Oldest urgent"),
    (Precedence::Normal, "Oldest normal"),
    (Precedence::Bulk, "Oldest bulk"),
];
/// Further keys: what they do, which they are.
const KEYS: &[(&str, &[&str])] = &[
    ("Search", &["/"]),
    ("Next, previous row", &["j", "k"]),
    ("Open the row", &["Enter"]),
    ("Select the row", &["x"]),
    ("Acknowledge", &["a"]),
    ("Silence", &["s"]),
    ("Trace the message", &["t"]),
    ("Back to the list", &["u"]),
    ("This list", &["?"]),
];

pub(crate) fn icon(name: &str) -> Markup {
    icon_as("i", name)
}

pub(crate) fn icon_as(class: &str, name: &str) -> Markup {
    html! { svg class=(class) aria-hidden="true" { use href={ "#" (name) } {} } }
}

/// A severity: shape and word.
pub(crate) fn sev(severity: Severity) -> Markup {
    let look = match severity {
        Severity::Unknown | Severity::Other => "information",
        other => other.word(),
    };
    html! { span class={ "sev " (look) } { (icon(look)) (severity.word()) } }
}

/// A time twice: how long, and absolute. `rel` is `ago`, `for` or `in`.
pub(crate) fn time(ms: i64, rel: &str, now_ms: i64) -> Markup {
    let span = |ms: i64| words::span(ms as f64 / 1000.0);
    let words = match rel {
        "ago" => format!("{} ago", span(now_ms - ms)),
        "in" => format!("in {}", span(ms - now_ms)),
        _ => span(now_ms - ms),
    };
    html! {
        time datetime=(words::iso(ms)) data-rel=(rel) {
            span { (words) } " " span.abs { (words::clock(ms, now_ms)) }
        }
    }
}

/// An absolute time.
pub(crate) fn at(ms: i64, now_ms: i64) -> Markup {
    html! { time datetime=(words::iso(ms)) { (words::clock(ms, now_ms)) } }
}

/// Head of a section: a title and a line beside it.
pub(crate) fn section_head(id: &str, title: &str, beside: &Markup) -> Markup {
    html! { div.h { h2 id=(id) { (title) } p { (beside) } } }
}

/// Hidden fields of a form that changes something.
pub(crate) fn csrf(view: &View<'_>) -> Markup {
    html! { input type="hidden" name="csrf" value=(view.csrf); }
}

/// A filter as a link: pressed again it goes away.
pub(crate) fn chip(view: &View<'_>, path: &str, name: &str, value: &str, face: &Markup) -> Markup {
    let on = view.query.many(name).any(|v| v == value);
    let href = format!("{path}{}", view.query.toggled(name, value).words());
    html! { li { a href=(href) aria-current=[on.then_some("true")] { (face) } } }
}

/// Chips of all customers, where there are some but not too many to read.
pub(crate) fn customer_chips(view: &View<'_>, path: &str) -> Markup {
    let count = view.customers().count();
    html! {
        @if (2..=12).contains(&count) {
            div {
                span.k { "Customer" }
                ul.chips {
                    @for customer in view.customers() {
                        (chip(view, path, "customer", &customer.customer,
                            &html! { (customer.customer) }))
                    }
                }
            }
        }
    }
}

/// Links to the first and the next page of a list with cursors.
pub(crate) fn pages(view: &View<'_>, path: &str, rows: usize, next: Option<&str>) -> Markup {
    let base = view.query.without(&["cursor", "done", "at"]);
    html! {
        p.pages {
            span { (words::counted(rows as u64, "row")) ", newest first" }
            span {
                @if view.query.one("cursor").is_some() {
                    a href={ (path) (base.words()) } { "Newest" } " "
                }
                @if let Some(next) = next {
                    a href={ (path) (base.clone().with("cursor", next).words()) } { "Older" }
                }
            }
        }
    }
}

/// Whether a node is heard, takes messages and delivers: the answers of principle 3.
pub(crate) fn answers(node: &Node) -> Markup {
    let delivering = &node.delivering;
    html! {
        ul.ans aria-label="health" {
            @match node.state {
                NodeState::Operational => { li { (icon("yes")) "alive" } }
                NodeState::Registering => { li.unk { (icon("unk")) "registering" } }
                NodeState::Silent => { li.unk { (icon("unk")) "alive?" } }
                NodeState::Removed => { li.unk { (icon("unk")) "removed" } }
            }
            @match (&node.ready, node.state) {
                (Some(ready), NodeState::Operational) if ready.ok => { li { (icon("yes")) "ready" } }
                (Some(ready), NodeState::Operational) if !ready.ok => {
                    li.no { (icon("no")) "not ready" }
                }
                _ => { li.unk { (icon("unk")) "ready?" } }
            }
            @if node.state == NodeState::Silent {
                li.no { (icon("no")) "not heard" }
            } @else if !delivering.ok {
                li.no { (icon("no")) "not delivering" }
            } @else if let Some(held) = &delivering.held {
                li.unk { (icon("clock")) "held: " (held) }
            } @else if node.state == NodeState::Registering {
                li.unk { (icon("unk")) "delivering?" }
            } @else {
                li { (icon("yes")) "delivering" }
            }
        }
    }
}

/// What a node is for.
pub(crate) fn roles(node: &Node) -> String {
    node.roles.join(", ")
}

/// The parts that change while a page stands open: delivery line, menu, middle.
pub(crate) fn fragments(view: &View<'_>, sheet: &Sheet) -> (String, String, String) {
    (
        line(view).into_string(),
        menu(view, sheet.nav).into_string(),
        sheet.main.clone().into_string(),
    )
}

/// The title of the window.
pub(crate) fn title(view: &View<'_>, sheet: &Sheet) -> String {
    match view.stale_for_ms() {
        Some(ms) => format!("{} ({} old) · Callhome", sheet.title, words::short(ms)),
        None => format!("{} · Callhome", sheet.title),
    }
}

/// The whole page.
pub(crate) fn document(view: &View<'_>, page: Page, sheet: &Sheet) -> String {
    let (line, menu, main) = fragments(view, sheet);
    let seen = parts::version(&parts::of(&[&line, &menu, &main]));
    let events = live::url(page, &view.query, seen);
    let body = html! {
        body.stale[view.stale_since_ms.is_some()] data-events=(events) data-keys="on" {
            a.skip href="#main" { "Skip to content" }
            (PreEscaped(SYMBOLS))
            div.frame {
                (top())
                (PreEscaped(&menu))
                div.line role="region" aria-label="Delivery now" { (PreEscaped(&line)) }
                main id="main" tabindex="-1" {
                    (stale_note(view))
                    (PreEscaped(&main))
                }
            }
            (keys())
        }
    };
    html! { (DOCTYPE) html lang="en" { (head(&title(view, sheet), true)) (body) } }.into_string()
}

/// A page without menu and line: sign-in, and errors where nothing is known.
pub(crate) fn bare(title: &str, main: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("{title} · Callhome"), false))
            body {
                a.skip href="#main" { "Skip to content" }
                (PreEscaped(SYMBOLS))
                div.frame.bare {
                    main.plain id="main" tabindex="-1" {
                        a.brand href="/" { (icon("home")) "Callhome" }
                        (main)
                    }
                }
            }
        }
    }
    .into_string()
}

fn head(title: &str, script: bool) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) }
            link rel="icon" href=(ICON);
            link rel="stylesheet" href="/style.css";
            @if script { script src="/live.js" defer {} }
        }
    }
}

fn top() -> Markup {
    html! {
        header.top {
            a.brand href="/" { (icon("home")) "Callhome" }
            form.find role="search" action="/search" {
                label.vh for="q" { "Search" }
                (icon("find"))
                input id="q" name="q" type="search" placeholder="id or text"
                    aria-keyshortcuts="/";
                kbd aria-hidden="true" { "/" }
            }
            span.who {
                "signed in as operator "
                button type="button" popovertarget="keys" aria-label="Keys" { "?" }
            }
            button.menu type="button" popovertarget="nav" { "Menu" }
        }
    }
}

fn menu(view: &View<'_>, current: &str) -> Markup {
    html! {
        nav.side id="nav" popover aria-label="Main" {
            a.brand href="/" { (icon("home")) "Callhome" }
            ul id="menu" data-part {
                @for (path, name, key) in MENU {
                    li {
                        a href=(path) aria-current=[(*path == current).then_some("page")]
                            data-g=(key) { (name) " " (figure(view, path)) }
                    }
                }
            }
            hr;
            form method="post" action="/sign-out" { (csrf(view)) button { "Sign out" } }
        }
    }
}

/// The figure beside a line of the menu.
fn figure(view: &View<'_>, path: &str) -> Markup {
    let frame = &view.frame;
    let silent = frame.nodes.iter().filter(|node| !is_delivering(node)).count();
    let off = frame.ledgers.iter().filter(|ledger| !ledger.balanced).count();
    html! {
        @match path {
            "/alarms" if !frame.alarms.is_empty() => {
                b { (words::count(frame.alarms.len() as u64))
                    @if frame.more_alarms { "+" } }
            }
            "/nodes" if silent > 0 => {
                b.bad { span.vh { "not delivering: " } (silent) }
            }
            "/ledger" if off > 0 => {
                b.bad { span.vh { "not balanced: " } (off) }
            }
            _ => {}
        }
    }
}

/// Heard, and said that it does not take every message.
pub(crate) fn is_unready(node: &Node) -> bool {
    node.state == NodeState::Operational && node.ready.as_ref().is_some_and(|ready| !ready.ok)
}

/// Heard, and not failing to deliver.
pub(crate) fn is_delivering(node: &Node) -> bool {
    node.delivering.ok && node.state != NodeState::Silent
}

fn line(view: &View<'_>) -> Markup {
    let nodes = &view.frame.nodes;
    let all = nodes.len();
    let alive = nodes.iter().filter(|node| node.state == NodeState::Operational).count();
    let silent = nodes.iter().any(|node| node.state == NodeState::Silent);
    let delivering = nodes.iter().filter(|node| is_delivering(node)).count();
    let is_ready = |node: &&Node| {
        node.state == NodeState::Operational && node.ready.as_ref().is_some_and(|ready| ready.ok)
    };
    let ready = nodes.iter().filter(is_ready).count();
    let off = view.frame.ledgers.iter().filter(|ledger| !ledger.balanced).count();
    // What a silent node holds is what it held.
    let unsure = if silent { "?" } else { "" };
    html! {
        ul id="line" data-part {
            (cell("/nodes", "Alive", alive < all && silent, &format!("{alive} of {all}")))
            (cell("/nodes", "Ready", silent || nodes.iter().any(is_unready),
                &format!("{ready} of {all}")))
            (cell("/nodes", "Delivering", delivering < all, &format!("{delivering} of {all}")))
            @for (precedence, name) in OLDEST {
                (cell("/nodes", name, false, &match oldest(nodes, precedence) {
                    Some(seconds) => format!("{}{unsure}", words::span(seconds)),
                    None => format!("none{unsure}"),
                }))
            }
            @if view.frame.ledgers.is_empty() {
                (cell("/ledger", "Ledger", false, "no account yet"))
            } @else if off > 0 {
                (cell("/ledger", "Ledger", true,
                    &format!("{off} of {} off", view.frame.ledgers.len())))
            } @else {
                (cell("/ledger", "Ledger", false, "balanced"))
            }
            (live_cell(view))
        }
    }
}

/// Age of the oldest message of a precedence that any node has not sent yet, seconds.
fn oldest(nodes: &[Node], precedence: Precedence) -> Option<f64> {
    let waiting = nodes.iter().flat_map(|node| &node.waiting);
    let ages = waiting.filter(|w| w.precedence == precedence).filter_map(|w| w.oldest_age_s);
    ages.reduce(f64::max)
}

fn cell(href: &str, name: &str, bad: bool, words: &str) -> Markup {
    html! {
        li.bad[bad] {
            a href=(href) { small { (name) } " " b { @if bad { (icon("no")) " " } (words) } }
        }
    }
}

fn live_cell(view: &View<'_>) -> Markup {
    let now = view.now_ms();
    html! {
        @if view.stale_since_ms.is_some() {
            li.live id="live" role="status" {
                (icon("clock")) " " b { "Not live." } " All figures are as of "
                time datetime=(words::iso(now)) { (words::clock(now, now)) }
                ". The page asks again by itself."
            }
        } @else {
            li.live id="live" {
                small { (icon("dot")) " live" } " "
                b { time datetime=(words::iso(now)) data-clock { (words::clock(now, now)) } }
            }
        }
    }
}

fn stale_note(view: &View<'_>) -> Markup {
    let now = view.now_ms();
    html! {
        @if let Some(ms) = view.stale_for_ms() {
            div.note.warn role="alert" {
                h2 { "This page shows how things stood at " (words::clock(now, now)) }
                p {
                    "The application server has not answered for " (words::short(ms)) ". Nodes \
                     keep collecting and queueing; nothing is lost by this. All durations below \
                     count to " (words::clock(now, now)) ", not to now. To mend it, ask its own \
                     door (" code { "/healthz?verbose" } ") or start it. "
                    a href="" { "Ask now" }
                }
            }
        }
    }
}

fn keys() -> Markup {
    html! {
        dialog popover id="keys" aria-labelledby="keys-h" {
            div.h {
                h2 id="keys-h" { "Keys" }
                button type="button" popovertarget="keys" popovertargetaction="hide" { "Close" }
            }
            dl.keys {
                @for (what, keys) in KEYS {
                    div { dt { (what) } dd { @for key in *keys { kbd { (key) } " " } } }
                }
                @for (_, name, key) in MENU {
                    div { dt { (name) } dd { kbd { "g" } " " kbd { (key) } } }
                }
            }
        }
    }
}
