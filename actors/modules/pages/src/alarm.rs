//! One alarm: what it says, how it came, who has it; acknowledge, silence, close.
use extension::records::{Alarm, AlarmState, Message, Page as Listed};
use maud::{Markup, html};
use uuid::Uuid;

use crate::{
    alarms,
    layout::{at, csrf, icon, sev, time},
    overview::message_path,
    source::SourceError,
    view::{Sheet, View},
    words,
};

/// Messages of the history that are shown.
const HISTORY: usize = 20;
/// Alarms in the list beside it.
const BESIDE: usize = 12;
/// Bytes of data that are shown as text: what is longer is for a file.
const DATA_SHOWN_MAX: usize = 4096;

pub(crate) async fn show(view: &mut View<'_>, id: Uuid) -> Result<Sheet, SourceError> {
    let alarm: Alarm = view.get(&format!("/alarms/{id}")).await?;
    let history: Listed<Message> =
        view.get(&format!("/alarms/{id}/history?limit={HISTORY}")).await?;
    let same = format!("/alarms?state=all&limit=50&instance={}", alarm.instance_id.dotted());
    let same: Listed<Alarm> = view.get(&same).await?;
    let newest = history.items.iter().find(|message| message.message_id == alarm.message_id);
    let data = match newest {
        Some(message) => data(view, message).await,
        None => None,
    };
    let title = format!("{}: {}", alarm.severity.word(), alarm.text);
    let main = html! {
        h1.vh { "Alarm: " (alarm.text) }
        div.split {
            div.list { (beside(view, &alarm)) }
            aside aria-labelledby="al-h" {
                div id="alarm" data-part { (head(view, &alarm)) }
                (forms(view, &alarm))
                (way(&alarm))
                div id="facts" data-part { (facts(view, &alarm, newest)) }
                div id="history" data-part { (past(view, &alarm, &history)) }
                (others(view, &alarm, &same))
                @if let Some(data) = &data { (raw(&alarm, data)) }
            }
        }
    };
    Ok(Sheet { title, nav: "/alarms", main })
}

/// The data of a message where it is text short enough to read; the type says what it is, the
/// bytes say whether they are text.
async fn data(view: &View<'_>, message: &Message) -> Option<(String, u64)> {
    message.encoding.as_ref().filter(|encoding| !encoding.is_empty())?;
    let id = words::in_path(&message.message_id.to_string());
    let bytes = view.source.bytes(&format!("/messages/{id}/data")).await.ok()?;
    if bytes.is_empty() {
        return None;
    }
    let shown = &bytes[..bytes.len().min(DATA_SHOWN_MAX)];
    // A character may be cut in two at the end.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => text,
        Err(error) if shown.len() - error.valid_up_to() < 4 && bytes.len() > shown.len() => {
            std::str::from_utf8(&shown[..error.valid_up_to()]).ok()?
        }
        Err(_) => "not text: download it to look at it",
    };
    Some((text.to_owned(), bytes.len() as u64))
}

fn beside(view: &View<'_>, alarm: &Alarm) -> Markup {
    let now = view.now_ms();
    let mut open: Vec<&Alarm> = view.frame.alarms.iter().collect();
    open.sort_by_key(|a| {
        (a.alarm_id != alarm.alarm_id, std::cmp::Reverse((a.severity, a.opened_at)))
    });
    open.truncate(BESIDE);
    open.sort_by_key(|a| std::cmp::Reverse((a.severity, a.opened_at)));
    html! {
        div.h {
            h2 { a href="/alarms" { "Alarms" } }
            p { (words::count(view.frame.alarms.len() as u64)) " not closed" }
        }
        @if open.is_empty() { p.note { "No alarm is open." } } @else {
            div.tbl.two { table {
                caption.vh { "Alarms" }
                thead { tr {
                    th scope="col" { "Severity" } th scope="col" { "Alarm" }
                    th scope="col" { "Instance" } th scope="col" class="n" { "Since" }
                } }
                tbody { @for other in open {
                    @let on = other.alarm_id == alarm.alarm_id;
                    tr data-row class=[on.then_some("on")] aria-current=[on.then_some("true")] {
                        td { (sev(other.severity)) }
                        th scope="row" class="full" {
                            a href={ "/alarms/" (other.alarm_id) } { (other.text) }
                        }
                        td { (other.instance) }
                        td.n { (time(other.opened_at.0, "for", now)) }
                    }
                } }
            } }
        }
    }
}

fn head(view: &View<'_>, alarm: &Alarm) -> Markup {
    let now = view.now_ms();
    let done = match view.query.one("done") {
        Some("acknowledge") => Some("Acknowledged."),
        Some("unacknowledge") => Some("The acknowledgement is taken back."),
        Some("silence") => Some("Silenced: nobody is notified until then."),
        Some("unsilence") => Some("The silence ended."),
        Some("close") => Some("Closed by hand."),
        _ => None,
    };
    html! {
        p.sm { a href="/alarms" data-key="u" { "Back to the list" } }
        @if let Some(done) = done { div.note role="status" { (icon("yes")) " " (done) } }
        p.row.mid { (sev(alarm.severity)) (alarms::state(alarm, now)) }
        h2 id="al-h" { (alarm.text) }
        p {
            a href={ "/instances?instance=" (alarm.instance_id.dotted()) } { (alarm.instance) }
            ", " (view.customer(alarm.customer_id)) ". "
            @match alarm.closed_at {
                Some(closed) => { "Closed " (time(closed.0, "ago", now)) }
                None => { "Since " (time(alarm.opened_at.0, "for", now)) }
            }
        }
        @if let Some(by) = &alarm.acknowledged_by {
            p { "Acknowledged by " b { (by) }
                @if let Some(comment) = &alarm.comment { ": " (comment) } }
        }
    }
}

fn form(view: &View<'_>, alarm: &Alarm, fields: &Markup) -> Markup {
    html! {
        form method="post" action={ "/alarms/" (alarm.alarm_id) } { (csrf(view)) (fields) }
    }
}

fn comment(id: &str) -> Markup {
    html! {
        div.field {
            label for=(id) { "Comment " span.hint { "optional, kept with the alarm" } }
            textarea id=(id) name="comment" maxlength="1024" {}
        }
    }
}

fn forms(view: &View<'_>, alarm: &Alarm) -> Markup {
    let now = view.now_ms();
    let silenced = alarm.silenced_until.is_some_and(|until| until.0 > now);
    html! {
        @if alarm.state == AlarmState::Opened {
            details.box id="ack" open {
                summary { "Acknowledge" }
                (form(view, alarm, &html! {
                    (comment("ac"))
                    button.go name="do" value="acknowledge" data-key="a" { "Acknowledge" }
                }))
            }
        }
        @if alarm.state == AlarmState::Acknowledged {
            (form(view, alarm, &html! {
                button name="do" value="unacknowledge" data-key="a" {
                    "Take the acknowledgement back"
                }
            }))
        }
        @if silenced {
            (form(view, alarm, &html! {
                button name="do" value="unsilence" data-key="s" { "End the silence" }
            }))
        } @else if alarm.state != AlarmState::Closed {
            details.box id="silence" {
                summary { "Silence with an end" }
                (form(view, alarm, &html! {
                    fieldset.field {
                        legend.hint { "Nobody is notified; the state does not change" }
                        @for (at, (seconds, words)) in alarms::SILENCES.iter().enumerate() {
                            label.in {
                                input type="radio" name="for_s" value=(seconds) checked[at == 0];
                                (words)
                            }
                        }
                    }
                    (comment("sc"))
                    button name="do" value="silence" data-key="s" { "Silence" }
                }))
            }
        }
        @if alarm.state != AlarmState::Closed {
            details.box id="close" {
                summary { "Close by hand" }
                (form(view, alarm, &html! {
                    p.hint { "What is closed stays closed; a new message opens a new alarm." }
                    (comment("cc"))
                    button.no-b name="do" value="close" { "Close" }
                }))
            }
        }
    }
}

fn way(alarm: &Alarm) -> Markup {
    let took = words::short(alarm.stored_at.0 - alarm.accepted_at.0);
    html! {
        div {
            h3 { "Did it get out" }
            p { (icon("yes")) " Stored " (took) " after it was accepted. "
                a href=(message_path(&alarm.message_id)) data-key="t" { "Trace" } }
        }
    }
}

fn facts(view: &View<'_>, alarm: &Alarm, newest: Option<&Message>) -> Markup {
    let now = view.now_ms();
    html! {
        dl.kv {
            dt { "Message" } dd { span.id.pick { (alarm.message_id) } }
            dt { "Instance id" } dd { span.id.pick { (alarm.instance_id) } }
            dt { "Type" } dd { code { (alarm.kind) } }
            @if !alarm.key.is_empty() { dt { "Key" } dd { code { (alarm.key) } } }
            dt { "Integrator" }
            dd {
                @if alarm.integrator.is_empty() { "the node itself" }
                @else { (alarm.integrator) }
            }
            @if let Some(message) = newest {
                dt { "Precedence" }
                dd { (message.precedence.word()) ", persistence " (message.persistence.word()) }
            }
            dt { "Occurred" } dd { (at(alarm.occurred_at.0, now)) }
            dt { "Accepted" } dd { (at(alarm.accepted_at.0, now)) }
            dt { "Stored" } dd { (at(alarm.stored_at.0, now)) }
            dt { "Messages" } dd { (words::count(alarm.count)) }
            dt { "Alarm id" } dd { span.id.pick { (alarm.alarm_id) } }
        }
    }
}

fn past(view: &View<'_>, alarm: &Alarm, history: &Listed<Message>) -> Markup {
    let now = view.now_ms();
    let last = history.items.len().saturating_sub(1);
    html! {
        h3 { "History" }
        ol.hist {
            @for (n, message) in history.items.iter().enumerate() {
                li {
                    span { (at(message.occurred_at.0, now)) }
                    span {
                        b {
                            @if n == last && history.next.is_none() { "opened" }
                            @else if n == 0 && alarm.closed_at == Some(message.occurred_at) {
                                "closed"
                            }
                            @else { "repeated" }
                        }
                        ", stored in "
                        (words::short(message.stored_at.0 - message.accepted_at.0)) ", "
                        a href=(message_path(&message.message_id)) { "trace" }
                        @if message.replayed { " " span.tag { (icon("replay")) "replayed" } }
                    }
                }
            }
        }
        @if history.next.is_some() { p.sm.dim { "Older messages are not shown." } }
    }
}

fn others(view: &View<'_>, alarm: &Alarm, same: &Listed<Alarm>) -> Markup {
    let others = || same.items.iter().filter(|other| other.alarm_id != alarm.alarm_id);
    let count = others().count() as u64;
    html! {
        div {
            h3 { "Same instance" }
            p {
                @if count == 0 { "No other alarm." } @else {
                    a href={ "/alarms?state=all&instance=" (alarm.instance_id.dotted()) } {
                        (words::count(count)) @if same.next.is_some() { "+" } " other"
                    }
                    ", the newest "
                    @for other in others().take(1) {
                        a href={ "/alarms/" (other.alarm_id) } { (other.text) } " "
                        (time(other.opened_at.0, "ago", view.now_ms()))
                    }
                }
            }
        }
    }
}

fn raw(alarm: &Alarm, (text, size): &(String, u64)) -> Markup {
    let id = words::in_path(&alarm.message_id.to_string());
    html! {
        details.box {
            summary { "Data " span.dim { (words::bytes(*size)) ", as received" } }
            pre { (text) }
            p.sm { a href={ "/api/v1/messages/" (id) "/data" } download { "Download as received" } }
        }
    }
}
