//! An arbiter that hangs: the watchdog ends the process and names it, and nothing is lost.
use std::time::{Duration, Instant};

use integrator_api::Qos;

use crate::sandbox::{
    callhome, chain::Chain, get, text, told, traffic::Traffic, wait_for, wait_within,
};

const PROXY: usize = 0;
const MLM: usize = 1;
const APPLICATIONS: usize = 2;
const SERVER: usize = 3;

/// How long the watchdog waits (30 s), three times: the machine is busy.
const ENDED_WITHIN: Duration = Duration::from_secs(90);

/// Who hangs: node, actor, and the arbiter that the watchdog has to name.
const HUNG: [(usize, &str, &str); 2] =
    [(MLM, "durable_queue", "mlm/delivery/queues/durable_queue"), (SERVER, "heartbeat", "main")];

fn alive(chain: &Chain, node: usize) -> bool {
    let url = std::fs::read_to_string(chain.nodes[node].folder.join("operator.url")).unwrap();
    get(&url.trim().replace("http://", ""), "/livez", "").0 == 200
}

// ACT-9: what hangs is named, its process ends with 70, and neighbours are unaffected.
#[test]
fn hung_arbiter_ends_its_process_by_name_and_costs_nothing() {
    let mut chain = Chain::start("");
    let traffic = Traffic::start(chain.socket(), "h", 100, Qos::default());
    traffic.flows(100);
    let ordered = Instant::now();
    for (node, actor, _) in HUNG {
        let data = chain.nodes[node].folder.display().to_string();
        let done = callhome(&["drill", "hang", actor, "--data", &data]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let mut meanwhile = 0;
    for (node, actor, arbiter) in HUNG {
        let code = wait_within(ENDED_WITHIN, "the watchdog to end it", || {
            // The nodes beside it go on: calls are accepted, doors answer.
            traffic.flows(1);
            assert!(alive(&chain, PROXY) && alive(&chain, APPLICATIONS));
            meanwhile += 1;
            chain.nodes[node].process.as_mut().unwrap().child.try_wait().unwrap()
        });
        assert_eq!(code.code(), Some(70), "{actor}");
        let log = chain.nodes[node].process.as_ref().unwrap().log();
        let line = wait_for("the name of what hangs", || {
            log.lines().find(|line| line.contains("arbiter hangs")).map(str::to_owned)
        });
        assert!(line.contains(arbiter) && line.contains(actor), "{line}");
    }
    let took = ordered.elapsed();
    assert!(meanwhile > 10, "the neighbours were looked at");
    HUNG.iter().for_each(|(node, ..)| chain.run(*node));
    let accepted = traffic.finish();
    let stored = told::once_each(&chain, &accepted);
    println!(
        "two arbiters hung, ended with 70 within {took:.0?}: {} accepted, {stored} stored, 0 lost, \
        0 twice",
        accepted.len()
    );
}
