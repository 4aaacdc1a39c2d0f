//! Which path is served by what: the table that openapi.json is checked against.
use actix_web::{
    HttpResponse, Resource, Route,
    dev::HttpServiceFactory,
    guard,
    http::header,
    middleware::from_fn,
    web::{self, ServiceConfig},
};

use crate::{Api, BODY_BYTES_MAX, change, guard as around, named, problem::Problem, read, stream};

/// A path of openapi.json, as actix matches it, and its methods. Ids may hold slashes, so a
/// longer path stands before the one it starts with.
pub(crate) struct Served {
    pub(crate) path: &'static str,
    pattern: &'static str,
    pub(crate) methods: &'static [&'static str],
}

const fn served(
    path: &'static str,
    pattern: &'static str,
    methods: &'static [&'static str],
) -> Served {
    Served { path, pattern, methods }
}

/// Everything under `/api/v1`.
pub(crate) const SERVED: &[Served] = &[
    served("/customers", "/customers", &["get", "post"]),
    served("/customers/{customer_id}", "/customers/{id:.+}", &["get"]),
    served("/nodes", "/nodes", &["get"]),
    served("/nodes/{node_id}", "/nodes/{id:.+}", &["get"]),
    served("/integrators", "/integrators", &["get"]),
    served("/integrators/{integrator_id}", "/integrators/{id:.+}", &["get"]),
    served("/instances", "/instances", &["get"]),
    served("/instances/{instance_id}", "/instances/{id:.+}", &["get"]),
    served("/alarms", "/alarms", &["get"]),
    served("/alarms/{alarm_id}", "/alarms/{id}", &["get"]),
    served(
        "/alarms/{alarm_id}/acknowledgement",
        "/alarms/{id}/acknowledgement",
        &["put", "delete"],
    ),
    served("/alarms/{alarm_id}/silence", "/alarms/{id}/silence", &["put", "delete"]),
    served("/alarms/{alarm_id}/closure", "/alarms/{id}/closure", &["put"]),
    served("/alarms/{alarm_id}/history", "/alarms/{id}/history", &["get"]),
    served("/events", "/events", &["get"]),
    served("/messages", "/messages", &["get"]),
    served("/messages/{message_id}/data", "/messages/{id:.+}/data", &["get"]),
    served("/messages/{message_id}", "/messages/{id:.+}", &["get"]),
    served("/trace/{message_id}", "/trace/{id:.+}", &["get"]),
    served("/ledger", "/ledger", &["get"]),
    served("/actions", "/actions", &["get", "post"]),
    served("/actions/{action_id}", "/actions/{id}", &["get"]),
    served("/stream", "/stream", &["get"]),
];

/// Adds `/api/v1`, `/api/openapi.json` and `/problems/NAME` to an application. Call it once a
/// worker with clones of one `Data`, so that rates and remembered answers are the server's.
pub fn configure(app: &mut ServiceConfig, api: web::Data<Api>) {
    let mut v1 = web::scope("/v1")
        .wrap(from_fn(around::authenticated))
        .default_service(web::to(|| async { nothing_here() }));
    for served in SERVED {
        v1 = v1.service(resource(served));
    }
    let openapi = web::resource("/openapi.json")
        .route(get().to(read::openapi))
        .default_service(web::to(|| async { wrong_method(&["get"]) }));
    app.service(
        web::scope("/problems")
            .wrap(from_fn(around::around))
            .service(
                web::resource("/{name}")
                    .route(get().to(named::problem))
                    .default_service(web::to(|| async { wrong_method(&["get"]) })),
            )
            .default_service(web::to(named::none)),
    );
    app.service(
        web::scope("/api")
            .app_data(api)
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .wrap(from_fn(around::around))
            .service(openapi)
            .service(v1)
            .default_service(web::to(|| async { nothing_here() })),
    );
}

fn nothing_here() -> HttpResponse {
    HttpResponse::from_error(Problem::not_found("path like this; see /api/openapi.json"))
}

fn wrong_method(methods: &[&str]) -> HttpResponse {
    let mut allow: Vec<String> = methods.iter().map(|method| method.to_uppercase()).collect();
    if methods.contains(&"get") {
        allow.push("HEAD".to_owned());
    }
    let allow = allow.join(", ");
    let mut answer = HttpResponse::from_error(Problem::method(format!("this path takes {allow}")));
    if let Ok(value) = header::HeaderValue::from_str(&allow) {
        answer.headers_mut().insert(header::ALLOW, value);
    }
    answer
}

/// GET, and HEAD with it.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn resource(served: &'static Served) -> impl HttpServiceFactory + use<> {
    let methods = served.methods;
    routes(served.path, web::resource(served.pattern))
        .default_service(web::to(move || async move { wrong_method(methods) }))
}

fn routes(path: &str, at: Resource) -> Resource {
    match path {
        "/customers" => {
            at.route(get().to(read::customers)).route(web::post().to(change::register_customer))
        }
        "/customers/{customer_id}" => at.route(get().to(read::customer)),
        "/nodes" => at.route(get().to(read::nodes)),
        "/nodes/{node_id}" => at.route(get().to(read::node)),
        "/integrators" => at.route(get().to(read::integrators)),
        "/integrators/{integrator_id}" => at.route(get().to(read::integrator)),
        "/instances" => at.route(get().to(read::instances)),
        "/instances/{instance_id}" => at.route(get().to(read::instance)),
        "/alarms" => at.route(get().to(read::alarms)),
        "/alarms/{alarm_id}" => at.route(get().to(read::alarm)),
        "/alarms/{alarm_id}/acknowledgement" => at
            .route(web::put().to(change::acknowledge))
            .route(web::delete().to(change::unacknowledge)),
        "/alarms/{alarm_id}/silence" => {
            at.route(web::put().to(change::silence)).route(web::delete().to(change::unsilence))
        }
        "/alarms/{alarm_id}/closure" => at.route(web::put().to(change::close)),
        "/alarms/{alarm_id}/history" => at.route(get().to(read::alarm_history)),
        "/events" => at.route(get().to(read::events)),
        "/messages" => at.route(get().to(read::messages)),
        "/messages/{message_id}/data" => at.route(get().to(read::message_data)),
        "/messages/{message_id}" => at.route(get().to(read::message)),
        "/trace/{message_id}" => at.route(get().to(read::trace)),
        "/ledger" => at.route(get().to(read::ledger)),
        "/actions" => {
            at.route(get().to(read::actions)).route(web::post().to(change::request_actions))
        }
        "/actions/{action_id}" => at.route(get().to(read::action)),
        "/stream" => at.route(web::get().to(stream::stream)),
        // A row of SERVED without an arm answers 405 to all; the test of openapi.json sees it.
        _ => at,
    }
}
