//! Names and media types: what may stand in them, and lists that name what is not there.
use crate::{
    sandbox::{Up, callhome, wait_for},
    schema::check_all,
    support::{against, bearer, done, http, refused, shared},
};

fn register(up: &Up, body: &str) -> crate::support::Answer {
    let headers = format!("{}Content-Type: application/json\r\n", bearer(&up.token()));
    http(&up.server(), "POST /api/v1/customers", &headers, body.as_bytes())
}

#[test]
fn a_customers_name_holds_no_control_character() {
    let up = shared();
    for body in [r#"{"customer":"a\u0000b"}"#, r#"{"customer":"a\nb"}"#] {
        let problem = register(&up, body).problem(400, "malformed", "give_up");
        assert_eq!(problem["errors"][0]["pointer"], "/customer");
        assert!(problem["detail"].as_str().unwrap().contains("control character"), "{problem}");
    }
    assert_eq!(register(&up, r#"{"customer":"Grüße & Co"}"#).status, 201);
    check_all("Customer", &up.api("/customers")["items"]);
}

#[test]
fn a_payload_is_of_a_media_type_and_comes_back_as_that() {
    let up = shared();
    let file = up.data().join("payload-of-a-type");
    std::fs::write(&file, "x").unwrap();
    let send = |encoding: &str| {
        let payload = file.to_str().unwrap();
        let line = ["send", "data", "--instance", "typed-1", "--class", "core", "--data", payload];
        against(&up, &[&line[..], &["--encoding", encoding]].concat())
    };
    for encoding in ["bad mime", "text", "text/plain\r\nx-evil: 1"] {
        let said = refused(&send(encoding), 64);
        assert!(said.contains("--encoding") && said.contains("media type"), "{said}");
    }
    let output = send("text/plain; charset=utf-8");
    assert_eq!(output.status.code(), Some(0), "{}", crate::sandbox::text(&output.stderr));
    let id = crate::sandbox::text(&output.stdout).trim().replace('/', ".");
    let answer = wait_for("the message", || {
        let head = format!("GET /api/v1/messages/{id}/data");
        let answer = http(&up.server(), &head, &bearer(&up.token()), b"");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body, b"x");
}

#[test]
fn a_list_by_a_name_that_is_not_there_is_66() {
    let up = shared();
    done(
        &up,
        &[
            "send",
            "event",
            "--instance",
            "i-1",
            "--type",
            "t",
            "--severity",
            "minor",
            "--text",
            "x",
        ],
    );
    wait_for("the event", || {
        up.api("/events?instance=i-1")["items"].get(0).is_some().then_some(())
    });
    for line in [
        "ls nodes --customer nope",
        "ls alarms --node nope",
        "ls events --integrator nope",
        "ls instances --customer 018f0000-0000-7000-8000-00000000000f",
    ] {
        let output = against(&up, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(crate::sandbox::text(&output.stdout), "", "no head of a table");
        let said = refused(&output, 66);
        assert!(said.contains("there is no") && said.contains("  help: callhome ls"), "{said}");
    }
    // Known, and nothing of it: an empty list is an answer.
    let provider = done(&up, &["ls", "events", "--node", "mlm", "-o", "json"]);
    assert_eq!(provider.trim(), "[]");
    let node = up.api("/nodes")["items"][0]["node_id"].as_str().unwrap().to_owned();
    for id in [node.clone(), node.replace('/', ".")] {
        done(&up, &["ls", "actions", "--node", &id]);
    }
    assert_eq!(callhome(&["ls", "kings"]).status.code(), Some(64));
}

#[test]
fn the_type_of_every_problem_can_be_followed() {
    let up = shared();
    let names = "malformed too_large unknown_instance unknown_version identity_mismatch denied \
        loop expired poison unknown_destination not_supported not_registered name_in_use \
        queue_full busy stopping storage_down internal unauthenticated not_found conflict";
    for name in names.split_whitespace() {
        // Without a token: who has none gets a problem, too.
        let answer = http(&up.server(), &format!("GET /problems/{name}"), "", b"");
        assert_eq!(answer.status, 200, "{name}");
        let said = answer.json();
        assert_eq!(said["type"], format!("/problems/{name}"));
        assert!(["give_up", "try_again"].contains(&said["verdict"].as_str().unwrap()), "{said}");
        assert!(said["help"].as_str().unwrap().len() > 20, "{said}");
    }
    let answer = http(&up.server(), "GET /problems/nothing", "", b"");
    answer.problem(404, "not_found", "give_up");
    let refused = http(&up.server(), "GET /api/v1/nodes", "", b"").json();
    let followed =
        http(&up.server(), &format!("GET {}", refused["type"].as_str().unwrap()), "", b"");
    assert_eq!(followed.json()["status"], 401);
}
