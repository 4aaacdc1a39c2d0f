//! The chain: proxy, MLM and provider, a process each, or `callhome up` with all in one.
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::sandbox::{
    self, Process,
    chain::{PROVIDER, free_port},
    get, request, wait_for,
};

/// A provider that takes nothing for so long has taken what was there before the load: twenty
/// times the longest wait of a settlement.
const REST: Duration = Duration::from_secs(1);

/// How the chain is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Applications MLM and application server are one node.
    Three,
    /// They are two.
    Four,
    /// Everything in one process.
    One,
    /// The provider alone: what is below it is played.
    Top,
    /// An MLM and the provider: what is below the MLM is played.
    Hop,
}

/// One process of the chain.
pub struct Node {
    pub name: &'static str,
    roles: &'static [&'static str],
    pub folder: PathBuf,
    process: Option<Process>,
}

/// The chain, lowest first.
pub struct Chain {
    pub nodes: Vec<Node>,
    pub socket: PathBuf,
    /// Id of the customer that was made.
    pub customer: String,
    /// Where the provider takes exchanges, where nothing is below it.
    pub door: String,
}

const PROXY: (&str, &[&str]) = ("proxy", &["proxy"]);
const MLM: (&str, &[&str]) = ("mlm", &["mlm"]);
const THREE: &[(&str, &[&str])] = &[PROXY, MLM, ("provider", &["applications-mlm", "app-server"])];
const FOUR: &[(&str, &[&str])] =
    &[PROXY, MLM, ("applications-mlm", &["applications-mlm"]), ("app-server", &["app-server"])];

fn configuration(node: &Node, customer: &str, parent: Option<u16>, door: Option<u16>) -> String {
    let parents = parent.map_or(String::new(), |port| {
        format!("<parents><parent url=\"http://127.0.0.1:{port}\" via=\"line\"/></parents>")
    });
    let exchange = door.map_or(String::new(), |port| {
        format!("<exchange bind=\"127.0.0.1:{port}\" via=\"line\"/>")
    });
    let own = match (door, parent) {
        (None, _) => format!("<integrator socket=\"{}\"/>", node.folder.join("i.sock").display()),
        (_, None) => "<api bind=\"127.0.0.1:0\"/>".to_owned(),
        _ => String::new(),
    };
    let (name, roles) = (node.name, node.roles.join(" "));
    format!(
        "<?xml version=\"1.0\"?>\n<node xmlns=\"urn:callhome:config:1\" name=\"{name}\" roles=\"{roles}\">\
        <identity customer=\"{customer}\"/>\
        <communications><module name=\"line\" protocol=\"http\" encryption=\"none\" authentication=\"none\"/></communications>\
        {parents}<doors>{exchange}{own}<operator bind=\"127.0.0.1:0\"/></doors>\
        <heartbeat every-s=\"1\"/></node>\n"
    )
}

impl Chain {
    /// Starts all, the top first.
    pub fn start(folder: &Path, shape: Shape) -> Self {
        let made = |(name, roles): &(&'static str, &'static [&'static str])| {
            let folder = folder.join(name);
            std::fs::create_dir_all(&folder).expect("a folder");
            Node { name, roles, folder, process: None }
        };
        let nodes: Vec<Node> = match shape {
            Shape::One => return Self::up(folder),
            Shape::Three => THREE.iter().map(made).collect(),
            Shape::Four => FOUR.iter().map(made).collect(),
            Shape::Top => THREE.iter().skip(2).map(made).collect(),
            Shape::Hop => THREE.iter().skip(1).map(made).collect(),
        };
        let socket = nodes[0].folder.join("i.sock");
        let (top, port) = (nodes.len() - 1, free_port());
        let (customer, door) = (PROVIDER.to_owned(), format!("127.0.0.1:{port}"));
        let mut chain = Self { nodes, socket, customer, door };
        let ports: Vec<u16> = (0..top).map(|_| free_port()).collect();
        for i in (0..=top).rev() {
            let is_customers = ["proxy", "mlm"].contains(&chain.nodes[i].name);
            let whose = if is_customers { &chain.customer } else { PROVIDER };
            let below = i.checked_sub(1).map(|below| ports[below]);
            let door = below.or(matches!(shape, Shape::Top | Shape::Hop).then_some(port));
            let text = configuration(&chain.nodes[i], whose, ports.get(i).copied(), door);
            let node = &mut chain.nodes[i];
            std::fs::write(node.folder.join("callhome.xml"), text).expect("written");
            node.start();
            if i == top {
                chain.customer = chain.make_customer();
            }
        }
        chain
    }

    fn up(folder: &Path) -> Self {
        let data = folder.display().to_string();
        let process = Process::start(&[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--no-inventory",
            "--snmp",
            "off",
            "--syslog",
            "off",
            "--data",
            &data,
            "--log",
            "warn",
        ]);
        let socket = folder.join("proxy/integrator.sock");
        let folder = folder.to_owned();
        let node = Node { name: "up", roles: &[], folder, process: Some(process) };
        Self { nodes: vec![node], socket, customer: String::new(), door: String::new() }
    }

    pub fn top(&self) -> &Node {
        self.nodes.last().expect("a node")
    }

    /// What the provider's API answers to a GET, with the operator's token.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let folder = &self.top().folder;
        let token = std::fs::read_to_string(folder.join("operator.token")).expect("a token");
        get(&sandbox::server_in(folder), path, token.trim())
    }

    /// The customer is made known before anybody of it registers (IDM-2).
    fn make_customer(&self) -> String {
        let folder = &self.top().folder;
        let token = std::fs::read_to_string(folder.join("operator.token")).expect("a token");
        let headers = format!(
            "Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
            Idempotency-Key: customer-1\r\n",
            token.trim()
        );
        let server = sandbox::server_in(folder);
        let body = "{\"customer\":\"plant\"}";
        let (status, said) = request(&server, "POST /api/v1/customers", &headers, body);
        assert_eq!(status, 201, "{said}");
        let made: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        made["customer_id"].as_str().expect("an id").to_owned()
    }

    /// What the provider has taken.
    pub fn taken(&self) -> u64 {
        self.top().account().taken
    }

    /// What the provider has taken once no registration is on its way any more.
    pub fn at_rest(&self) -> u64 {
        let mut before = self.taken();
        loop {
            std::thread::sleep(REST);
            let now = self.taken();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// Waits until every account balances and nothing waits below the top; panics otherwise.
    pub fn settle(&self) {
        for node in &self.nodes {
            wait_for("the accounts to balance", || {
                let account = node.account();
                assert!(account.balanced, "{}: {account:?}", node.name);
                let below = node.name != self.top().name;
                (!below || account.queued == 0).then_some(())
            });
        }
    }
}

impl Node {
    /// Starts it, and waits until it is ready.
    pub fn start(&mut self) {
        let data = self.folder.display().to_string();
        let mut arguments = vec!["node", "--insecure", "--data", &data, "--log", "warn"];
        self.roles.iter().for_each(|role| arguments.extend(["--role", role]));
        self.process = Some(Process::start(&arguments));
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
    }

    /// Ends it without warning, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.kill();
        self.start();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").child.id()
    }

    /// The account, by the node's own metrics.
    pub fn account(&self) -> Account {
        let url = std::fs::read_to_string(self.folder.join("operator.url"));
        let host = url.expect("an address").trim().replace("http://", "");
        let (status, text) = get(&host, "/metrics", "");
        assert_eq!(status, 200);
        // Of `up` all nodes stand in one text; the application server's is the provider's.
        let own = |l: &&str| self.name != "up" || l.contains("node=\"app-server\"");
        let value = |name: &str| {
            let lines = text.lines().filter(|l| l.starts_with(name)).filter(own);
            lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Account {
            taken: value("callhome_ledger_in_total"),
            duplicates: value("callhome_intake_duplicates_total"),
            queued: value("callhome_ledger_queued"),
            balanced: value("callhome_ledger_balanced") == 1,
        }
    }
}

/// Figures of a node's ledger.
#[derive(Debug)]
pub struct Account {
    pub taken: u64,
    pub duplicates: u64,
    pub queued: u64,
    pub balanced: bool,
}
