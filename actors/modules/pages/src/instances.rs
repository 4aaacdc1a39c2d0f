//! The list of support instances.
use extension::records::{Instance, InstanceState, Page as Listed};
use maud::{Markup, html};

use crate::{
    layout::{chip, customer_chips, icon, pages, time},
    source::SourceError,
    view::{ROWS, Sheet, View},
    words,
};

const FILTERS: &[&str] = &["customer", "node", "integrator", "instance", "state", "cursor"];

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let filter = view.query.only(FILTERS);
    let path = format!("/instances{}", filter.with("limit", ROWS.to_string()).words());
    let listed: Listed<Instance> = view.get(&path).await?;
    let all: u64 = view.customers().map(|customer| customer.instances).sum();
    let main = html! {
        div.head {
            h1 { "Instances" }
            p { (words::count(listed.items.len() as u64)) " of " (words::count(all))
                ", newest registered first" }
        }
        (filters(view))
        p.new id="new" aria-live="polite" {}
        @if listed.items.is_empty() {
            p.note {
                @if view.query.0.is_empty() {
                    "No instance yet. Connect something that reports: "
                    code { "callhome integrator snmp" }
                } @else { "No instance is like this. " a href="/instances" { "All instances" } }
            }
        } @else {
            (table(view, &listed.items))
            (pages(view, "/instances", listed.items.len(), listed.next.as_deref()))
        }
    };
    Ok(Sheet { title: "Instances".to_owned(), nav: "/instances", main })
}

fn filters(view: &View<'_>) -> Markup {
    let kept = view.query.without(&["instance", "integrator", "cursor"]);
    html! {
        div.filters role="group" aria-label="Filter" {
            form action="/instances" role="search" aria-label="Find instances" {
                div.row.mid {
                    @for (name, value) in &kept.0 { input type="hidden" name=(name) value=(value); }
                    label.in for="fi" { "Instance" }
                    input id="fi" type="search" name="instance" size="24" placeholder="name or id"
                        value=[view.query.one("instance")];
                    label.in for="fg" { "Integrator" }
                    input id="fg" type="search" name="integrator" size="16"
                        value=[view.query.one("integrator")];
                    button { "Find" }
                }
            }
            div {
                span.k { "State" }
                ul.chips { @for state in ["active", "registering", "removed", "deleting"] {
                    (chip(view, "/instances", "state", state, &html! { (state) }))
                } }
            }
            (customer_chips(view, "/instances"))
        }
    }
}

fn table(view: &View<'_>, instances: &[Instance]) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Instances" }
            thead { tr {
                th scope="col" { "Open alarms" } th scope="col" { "Instance" }
                th scope="col" { "State" } th scope="col" { "Customer" }
                th scope="col" { "Integrator" } th scope="col" { "See" }
                th scope="col" class="n" { "Last message" }
            } }
            tbody { @for instance in instances {
                @let id = instance.instance_id.dotted();
                tr id={ "i-" (id) } data-part data-row {
                    td {
                        @if instance.alarms == 0 { span.dim { (icon("yes")) " none" } } @else {
                            a href={ "/alarms?instance=" (id) } {
                                (words::counted(instance.alarms, "alarm")) }
                        }
                    }
                    th scope="row" class="full" {
                        a href={ "/messages?instance=" (id) } { (instance.instance) } " "
                        span.id.sm { (words::short_id(&instance.instance_id.to_string())) }
                    }
                    td { span.tag { (state(instance.state)) } }
                    td { (view.customer(instance.customer_id)) }
                    td { (instance.integrator) }
                    td { a href={ "/events?instance=" (id) } { "events" } " "
                        a href={ "/alarms?state=all&instance=" (id) } { "all alarms" } }
                    td.n data-l="last message" {
                        @match instance.last_message_at {
                            Some(at) => (time(at.0, "ago", now)), None => "none" }
                    }
                }
            } }
        } }
    }
}

fn state(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Registering => "registering",
        InstanceState::Active => "active",
        InstanceState::Removed => "removed",
        InstanceState::Deleting => "deleting",
    }
}
