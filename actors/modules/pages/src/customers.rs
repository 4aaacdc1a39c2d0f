//! The list of customers, and the form that registers one: its id is made here (IDM-2).
use actix_web::{HttpRequest, HttpResponse, web};
use extension::records::Customer;
use maud::{Markup, html};
use protocol::limits::NAME_BYTES_MAX;
use reqwest::Method;
use serde_json::json;

use crate::{
    Portal, change, error,
    layout::{csrf, section_head, time},
    source::SourceError,
    view::{Query, Sheet, View},
    words,
};

pub(crate) async fn show(view: &mut View<'_>) -> Result<Sheet, SourceError> {
    let mut customers: Vec<&Customer> = view.customers().collect();
    customers.sort_by(|one, other| one.customer.cmp(&other.customer));
    let main = html! {
        div.head { h1 { "Customers" } p { (words::counted(customers.len() as u64, "customer")) } }
        (done(view))
        @if customers.is_empty() { p.note { "No customer yet. Register the first one below." } }
        @else { (table(view, &customers)) }
        (register(view))
    };
    Ok(Sheet { title: "Customers".to_owned(), nav: "/customers", main })
}

/// What was done by the form before.
fn done(view: &View<'_>) -> Markup {
    let made = view.query.one("done").and_then(|name| {
        view.customers().find(|customer| customer.customer == name).map(|c| (name, c.customer_id))
    });
    html! {
        @if let Some((name, id)) = made {
            div.note role="status" {
                p { (name) " is registered. Its id stands in the configuration of each of its \
                     nodes, as " code { "<identity customer=\"" (id) "\"/>" } "." }
            }
        }
    }
}

fn table(view: &View<'_>, customers: &[&Customer]) -> Markup {
    let now = view.now_ms();
    html! {
        div.tbl { table {
            caption.vh { "Customers" }
            thead { tr {
                th scope="col" { "Customer" } th scope="col" { "Id" }
                th scope="col" class="n" { "Nodes" } th scope="col" class="n" { "Instances" }
                th scope="col" class="n" { "Open alarms" } th scope="col" { "Registered" }
            } }
            tbody { @for customer in customers {
                @let only = Query::default().with("customer", customer.customer.clone()).words();
                tr id={ "c-" (customer.customer_id) } data-part data-row {
                    th scope="row" { (customer.customer) }
                    td.full { code.id { (customer.customer_id) } }
                    (figure("nodes", &only, customer.nodes))
                    (figure("instances", &only, customer.instances))
                    (figure("alarms", &only, customer.alarms))
                    td data-l="registered" { (time(customer.registered_at.0, "ago", now)) }
                }
            } }
        } }
    }
}

fn figure(page: &str, only: &str, count: u64) -> Markup {
    html! {
        td class={ "n" @if count == 0 { " zero" } } data-l=(page) {
            a href={ "/" (page) (only) } { (words::count(count)) }
        }
    }
}

fn register(view: &View<'_>) -> Markup {
    html! {
        section aria-labelledby="register" {
            (section_head("register", "Register a customer", &html! { "its id is made here" }))
            form method="post" action="/customers" {
                (csrf(view))
                div.row.mid {
                    label.in for="name" { "Name" }
                    input id="name" name="name" required maxlength=(NAME_BYTES_MAX)
                        autocomplete="off" size="32";
                    button.go { "Register" }
                }
            }
        }
    }
}

/// `POST /customers`
pub(crate) async fn add(
    request: HttpRequest,
    portal: web::Data<Portal>,
    form: web::Bytes,
) -> HttpResponse {
    let form = match change::form_of(&request, &portal, &form) {
        Ok(form) => form,
        Err(refused) => return *refused,
    };
    let name = form.one("name").unwrap_or_default().trim();
    if name.is_empty() {
        return error::malformed("Say the customer's name, and then press the button.");
    }
    let body = json!({ "customer": name });
    match portal.source.change(Method::POST, "/customers", Some(body)).await {
        Ok(()) => change::done(&Query::default().with("done", name), "/customers"),
        Err(error) => error::of(&error, "/customers"),
    }
}
