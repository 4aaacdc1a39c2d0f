//! What became of every message: the account of each node, and whether it balances.
use extension::records::Ledger;
use maud::{Markup, html};

use crate::{
    layout::{at, icon, section_head, time},
    source::SourceError,
    view::{Sheet, View},
    words,
};

/// What an account does not explain.
pub(crate) fn off_by(account: &Ledger) -> String {
    let off = i128::from(account.taken) - ends(account);
    format!("{}{}", if off < 0 { "−" } else { "" }, words::count(off.unsigned_abs() as u64))
}

fn ends(a: &Ledger) -> i128 {
    [a.delivered, a.expired, a.evicted, a.refused, a.consumed, a.queued]
        .map(i128::from)
        .iter()
        .sum()
}

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let off = view.frame.ledgers.iter().filter(|account| !account.balanced).count();
    let title = match off {
        0 => "Ledger".to_owned(),
        n => format!("Ledger: {n} off"),
    };
    let main = html! {
        div.head {
            h1 { "Ledger" }
            p { "Every message ends in exactly one account" }
            div.end { a.btn href="/api/v1/ledger" { "JSON" } }
        }
        @if view.frame.ledgers.is_empty() {
            p.note { "No node has told its account yet; the first comes with its first heartbeat." }
        } @else {
            div id="sum" data-part { (verdict(off, view.frame.ledgers.len())) }
            section aria-labelledby="pn" {
                (section_head("pn", "Per node", &html! {
                    "in = delivered + expired + evicted + refused + consumed + queued" }))
                (table(view))
            }
            section aria-labelledby="ou" {
                (section_head("ou", "Outside the account", &html! {
                    "came again, turned away at the door, or came before registration" }))
                (outside(view))
            }
        }
    };
    Ok(Sheet { title, nav: "/ledger", main })
}

fn verdict(off: usize, all: usize) -> Markup {
    html! {
        @if off == 0 {
            div.verdict role="status" {
                strong { (icon("yes")) " All " (words::counted(all as u64, "account")) " balance" }
                p { "What each node took in is what it delivered, expired, evicted, refused, \
                     consumed or still holds." }
            }
        } @else {
            div.verdict.bad role="status" {
                strong { (icon("no")) " " (off) " of " (words::counted(all as u64, "account"))
                    @if off == 1 { " does not balance" } @else { " do not balance" } }
                p { "Look whether the node’s store was restored from a copy or cut as damaged: "
                    code { "callhome queue fsck" } " tells." }
            }
        }
    }
}

fn table(view: &View<'_>) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Ledger per node" }
            thead { tr {
                th scope="col" { "Node" } th scope="col" class="n" { "In" }
                th scope="col" class="n" { "= delivered" } th scope="col" class="n" { "+ expired" }
                th scope="col" class="n" { "+ evicted" } th scope="col" class="n" { "+ refused" }
                th scope="col" class="n" { "+ consumed" } th scope="col" class="n" { "+ queued" }
                th scope="col" class="n" { "Balance" } th scope="col" class="n" { "As of" }
            } }
            tbody { @for account in &view.frame.ledgers {
                tr id={ "l-" (account.node_id.dotted()) } data-part
                    class=[(!account.balanced).then_some("gaprow")] {
                    th scope="row" {
                        a href={ "/nodes?node=" (account.node_id.dotted()) } { (account.node) } " "
                        span.dim.sm { (role(view, account)) }
                    }
                    td.n data-l="in" { b { (words::count(account.taken)) } }
                    (figure("delivered", account.delivered))
                    (figure("expired", account.expired))
                    (figure("evicted", account.evicted))
                    (figure("refused", account.refused))
                    (figure("consumed", account.consumed))
                    (figure("queued", account.queued))
                    td.n {
                        @if account.balanced { (icon("yes")) " balanced" }
                        @else { b { (icon("no")) " off by " (off_by(account)) } }
                    }
                    td.n data-l="as of" { (at(account.as_of.0, now)) }
                }
            } }
        } }
    }
}

fn figure(name: &str, value: u64) -> Markup {
    let class = if value == 0 { "n zero" } else { "n" };
    html! { td class=(class) data-l=(name) { (words::count(value)) } }
}

fn role(view: &View<'_>, account: &Ledger) -> String {
    view.node(&account.node_id).map(|node| node.roles.join(", ")).unwrap_or_default()
}

fn outside(view: &View<'_>) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Outside the account" }
            thead { tr {
                th scope="col" { "Node" } th scope="col" class="n" { "Duplicates" }
                th scope="col" class="n" { "Turned away" } th scope="col" class="n" { "Dropped" }
                th scope="col" { "Refused, by reason" } th scope="col" class="n" { "Told" }
            } }
            tbody { @for account in &view.frame.ledgers {
                tr {
                    th scope="row" { (account.node) }
                    (figure("duplicates", account.duplicates))
                    (figure("turned away", account.turned_away))
                    (figure("dropped", account.dropped))
                    td.full {
                        @for (n, (reason, count)) in account.reasons.iter().enumerate() {
                            @if n > 0 { ", " } (reason) " " (words::count(*count))
                        }
                        @if account.reasons.is_empty() { span.dim { "none" } }
                    }
                    td.n { (time(account.as_of.0, "ago", now)) }
                }
            } }
        } }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn account(taken: u64, delivered: u64) -> Ledger {
        serde_json::from_value(serde_json::json!({
            "node": "n", "node_id": "018f3a6e-9b1d-7c55-a1f0-6d20b4c7e8c2/3",
            "as_of": "2026-11-22T12:00:00.000Z", "in": taken, "delivered": delivered,
            "expired": 0, "evicted": 0, "refused": 0, "consumed": 0, "queued": 1,
            "balanced": taken == delivered + 1, "duplicates": 0, "turned_away": 0, "dropped": 0,
            "reasons": {},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_told_apart() {
        assert_eq!(off_by(&account(5, 4)), "0");
        assert_eq!(off_by(&account(8, 4)), "3");
        assert_eq!(off_by(&account(1, 4)), "−4");
        assert_eq!(off_by(&account(u64::MAX, 0)), "18,446,744,073,709,551,614");
    }
}
