//! Management actions: asked at the server, decided by the customer's policy, done by a callback.
use std::sync::{Arc, Mutex};

use integrator_api::{
    ActionRequest, AlarmCall, Call, Callback, CallbackError, Client, Handler, Options, Severity,
};
use serde_json::Value;

use crate::{
    sandbox::{Up, callhome, chain::Chain, text, wait_for},
    schema::check,
    support::{QUIET, against, http},
};

const POLICY: &str = "<?xml version=\"1.0\"?>\n<policy xmlns=\"urn:callhome:config:1\" \
    zone=\"UTC\"><rule what=\"action\" name=\"collect-now\" decision=\"allow\"/></policy>\n";

/// Notes what it was asked and answers 7.
struct Plant(Arc<Mutex<Vec<ActionRequest>>>);

impl Handler for Plant {
    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::Action]
    }

    fn action(&self, request: ActionRequest) -> Result<i64, CallbackError> {
        self.0.lock().unwrap().push(request);
        Ok(7)
    }
}

fn plant(socket: std::path::PathBuf) -> (Client, Arc<Mutex<Vec<ActionRequest>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let options = Options::new(socket, "plant", "1").handler(Plant(asked.clone()));
    let client = Client::open(options).unwrap();
    let at = jiff::Timestamp::now().as_millisecond();
    let alarm = AlarmCall::new("press-1", at, "oil", Severity::Minor, "here I am");
    client.send(Call::Alarm(alarm)).wait().unwrap();
    (client, asked)
}

fn json(up: &Up, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    let output = against(up, &all);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {} {}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn an_allowed_action_is_done_once_and_its_status_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("proxy")).unwrap();
    std::fs::write(folder.path().join("proxy/policy.xml"), POLICY).unwrap();
    let process = Up::process(folder.path(), &QUIET);
    let up = Up { folder, process };
    let (client, asked) = plant(up.data().join("proxy/integrator.sock"));
    up.alarm("the instance", |a| a["instance"] == "press-1");
    let action =
        json(&up, &["action", "press-1", "collect-now", "--param", "depth=3", "--wait", "20"]);
    check("Action", &action);
    assert_eq!(action["state"], "answered", "{action}");
    assert_eq!(action["status"], 7);
    assert_eq!(action["name"], "collect-now");
    let requests = asked.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].action_id, action["action_id"].as_str().unwrap());
    assert_eq!(requests[0].instance, "press-1");
    assert_eq!(requests[0].message_id.to_string(), action["message_id"]);
    for part in ["<action", "collect-now", "name=\"depth\"", ">3<"] {
        assert!(requests[0].action.contains(part), "{}", requests[0].action);
    }
    // DAT-14: the answer is a message that quotes the request.
    let answer = wait_for("the answer", || {
        let list = up.api("/messages?class=action-answer");
        list["items"].get(0).cloned()
    });
    assert_eq!(answer["answers"], action["message_id"]);

    // What the policy does not name is denied, and never reaches the integrator.
    let denied = against(&up, &["action", "press-1", "format-disk", "--wait", "20", "-o", "json"]);
    let action: Value = serde_json::from_slice(&denied.stdout).expect("an Action");
    check("Action", &action);
    assert_eq!((&action["state"], &action["reason"]), (&"refused".into(), &"denied".into()));
    assert_eq!(asked.lock().unwrap().len(), 1);
    let listed = json(&up, &["ls", "actions"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);

    // The customer allows it, and HUP reads the policy again; a broken one changes nothing.
    let policy = up.data().join("proxy/policy.xml");
    let hup = || {
        let pid = up.process.child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success()
        );
    };
    std::fs::write(&policy, POLICY.replace("collect-now", "format-*")).unwrap();
    hup();
    wait_for("the policy to be read again", || {
        let action = json(&up, &["action", "press-1", "format-disk", "--wait", "20"]);
        (action["state"] == "answered").then_some(())
    });
    std::fs::write(&policy, "<policy").unwrap();
    hup();
    let action = json(&up, &["action", "press-1", "format-disk", "--wait", "20"]);
    assert_eq!(action["state"], "answered", "{action}");
    // The same Idempotency-Key asks once.
    let headers = format!(
        "{}Content-Type: application/json\r\nIdempotency-Key: again\r\n",
        crate::support::bearer(&up.token())
    );
    let target = action["target_id"].as_str().unwrap();
    let order = format!("{{\"targets\":[\"{target}\"],\"name\":\"collect-now\"}}");
    let post = || http(&up.server(), "POST /api/v1/actions", &headers, order.as_bytes());
    let (first, second) = (post(), post());
    assert_eq!(first.status, second.status);
    assert_eq!(first.body, second.body);
    assert!(client.close(std::time::Duration::from_secs(2)));
}

// MLM-6: an action for a proxy that is away waits at the MLM and is delivered when it asks again.
#[test]
fn an_action_for_a_proxy_that_is_away_waits_at_the_mlm() {
    let mut chain = Chain::start("");
    std::fs::write(chain.nodes[0].folder.join("policy.xml"), POLICY).unwrap();
    chain.kill(0);
    let (client, asked) = plant(chain.socket());
    wait_for("the instance", || {
        (chain.api("/instances?instance=press-1")["items"].as_array()?.len() == 1).then_some(())
    });
    chain.nodes[0].process.take().unwrap().kill();
    let server = chain.nodes[3].folder.display().to_string();
    let output = callhome(&["action", "press-1", "collect-now", "--data", &server, "-o", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let action: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mlm = chain.nodes[1].folder.display().to_string();
    let id = action["message_id"].as_str().unwrap();
    wait_for("the action at the MLM", || {
        let shown = callhome(&["queue", "show", id, "--data", &mlm, "-o", "json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        shown["queue"].as_str()?.starts_with("down/").then_some(())
    });
    assert!(asked.lock().unwrap().is_empty());
    chain.run(0);
    let path = format!("/actions/{}", action["action_id"].as_str().unwrap());
    wait_for("the answer", || (chain.api(&path)["state"] == "answered").then_some(()));
    assert_eq!(chain.api(&path)["status"], 7);
    assert_eq!(asked.lock().unwrap().len(), 1);
    drop(client);
}
