//! A chain of nodes, a process each, on loopback: killed and started again at will.
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use tempfile::TempDir;

use super::{LONG, Process, get, tap::Tap};

/// The provider of a test.
pub const PROVIDER: &str = "018f0000-0000-7000-8000-000000000001";

/// One node of the chain.
pub struct Node {
    /// Its role; several with a blank between.
    pub role: &'static str,
    pub folder: PathBuf,
    pub process: Option<Process>,
    /// Variables it is started with.
    pub variables: Vec<(String, String)>,
}

/// Proxy, MLM, applications MLM and application server, lowest first; then what was added.
pub struct Chain {
    home: TempDir,
    pub nodes: Vec<Node>,
    /// Roles by place, lowest first.
    roles: &'static [&'static str],
    /// Ports of the exchange doors of all but the lowest.
    ports: Vec<u16>,
    /// The customer's id, as the server made it.
    pub customer: String,
}

const ROLES: [&str; 4] = ["proxy", "mlm", "applications-mlm", "app-server"];
/// Applications MLM and application server in one node.
const THREE: [&str; 3] = ["proxy", "mlm", "applications-mlm app-server"];

/// Ports of the doors: below those that the kernel gives to connections, which would take one while
/// its node is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that is free, and that no other test of this process gets.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different places.
    let from = std::process::id() * 97;
    loop {
        let at = from.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let port = PORTS.start + at as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

struct Links {
    parent: Option<u16>,
    door: Option<u16>,
}

fn configuration(role: &str, customer: &str, links: &Links, folder: &Path, more: &str) -> String {
    let Links { parent, door } = links;
    // An intermediate MLM of the provider is an aggregation MLM.
    let kind = if role == "mlm" && customer == PROVIDER { " mlm=\"aggregation\"" } else { "" };
    let parents = parent.map_or(String::new(), |port| {
        format!("<parents><parent url=\"http://127.0.0.1:{port}\" via=\"line\"/></parents>")
    });
    let exchange = door.map_or(String::new(), |port| {
        format!("<exchange bind=\"127.0.0.1:{port}\" via=\"line\"/>")
    });
    let name = role.rsplit(' ').next().expect("a word");
    let own = match name {
        "app-server" => "<api bind=\"127.0.0.1:0\"/>".to_owned(),
        "proxy" => format!("<integrator socket=\"{}\"/>", folder.join("i.sock").display()),
        _ => String::new(),
    };
    format!(
        "<?xml version=\"1.0\"?>\n<node xmlns=\"urn:callhome:config:1\" name=\"{name}\" roles=\"{role}\"{kind}>\
        <identity customer=\"{customer}\"/>\
        <communications><module name=\"line\" protocol=\"http\" encryption=\"none\" authentication=\"none\"/></communications>\
        {parents}<doors>{exchange}{own}<operator bind=\"127.0.0.1:0\"/></doors>\
        <heartbeat every-s=\"1\"/>{more}</node>\n"
    )
}

impl Chain {
    /// Writes the configurations and starts all, the top first. `more` is XML for the proxy.
    pub fn start(more: &str) -> Self {
        Self::start_in(&std::env::temp_dir(), more)
    }

    /// As `start`, the proxy's folder below `proxy_in`.
    pub fn start_in(proxy_in: &Path, more: &str) -> Self {
        Self::start_with(proxy_in, more, false)
    }

    /// The intermediate MLM is the provider's, for many customers.
    pub fn start_aggregated() -> Self {
        Self::start_with(&std::env::temp_dir(), "", true)
    }

    /// Proxy, MLM, and a provider that is applications MLM and application server in one: the
    /// folder of each on the disk of its place, where there is one. `more` is XML for all.
    pub fn start_three(disks: &[&Path], more: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let folder = |(place, role): (usize, &&str)| match disks.get(place) {
            Some(disk) => disk.join("node"),
            None => home.path().join(role.replace(' ', "-")),
        };
        let folders = THREE.iter().enumerate().map(folder).collect();
        Self::start_on(home, &THREE, folders, &[more; 3], false)
    }

    fn start_with(proxy_in: &Path, more: &str, aggregated: bool) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let mut folders: Vec<PathBuf> = ROLES.map(|role| home.path().join(role)).into();
        folders[0] = tempfile::tempdir_in(proxy_in).expect("a folder").keep();
        Self::start_on(home, &ROLES, folders, &[more, "", "", ""], aggregated)
    }

    fn start_on(
        home: TempDir,
        roles: &'static [&'static str],
        folders: Vec<PathBuf>,
        more: &[&str],
        aggregated: bool,
    ) -> Self {
        let top = roles.len() - 1;
        let ports: Vec<u16> = (0..top).map(|_| free_port()).collect();
        let node = |(role, folder): (&&'static str, PathBuf)| {
            std::fs::create_dir_all(&folder).expect("a folder");
            Node { role, folder, process: None, variables: Vec::new() }
        };
        let nodes = roles.iter().zip(folders).map(node).collect();
        let mut chain = Self { home, nodes, roles, ports, customer: String::new() };
        chain.configure(top, PROVIDER, more[top]);
        chain.run(top);
        chain.customer = chain.make_customer("plant");
        let customer = chain.customer.clone();
        for i in (0..top).rev() {
            let provided = i == 2 || (i == 1 && aggregated);
            let whose = if provided { PROVIDER } else { &customer };
            chain.configure(i, whose, more[i]);
            chain.run(i);
        }
        chain
    }

    /// The place of the application server.
    pub fn top(&self) -> usize {
        self.roles.len() - 1
    }

    /// A customer is made known before anybody of it registers (IDM-2).
    pub fn make_customer(&self, name: &str) -> String {
        let headers = format!(
            "Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
            Idempotency-Key: customer-{name}\r\n",
            self.token()
        );
        let body = format!("{{\"customer\":\"{name}\"}}");
        let (status, said) =
            super::request(&self.server(), "POST /api/v1/customers", &headers, &body);
        assert_eq!(status, 201, "{said}");
        let made: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        made["customer_id"].as_str().expect("an id").to_owned()
    }

    /// Puts a listener on the link of node `i` to its parent: the node is started again with it.
    pub fn tap(&mut self, i: usize) -> Tap {
        let Node { role, folder, .. } = &self.nodes[i];
        let place = self.roles.iter().position(|known| known == role).expect("a role");
        let (file, parent) = (folder.join("callhome.xml"), self.ports[place]);
        let tap = Tap::to(parent);
        let text = std::fs::read_to_string(&file).expect("its configuration");
        let (from, to) =
            (format!("127.0.0.1:{parent}\" via"), format!("127.0.0.1:{}\" via", tap.port));
        std::fs::write(&file, text.replacen(&from, &to, 1)).expect("written");
        self.kill(i);
        tap
    }

    /// One more proxy below the MLM, of a customer; its index.
    pub fn add_proxy(&mut self, customer: &str) -> usize {
        let i = self.nodes.len();
        let folder = self.home.path().join(format!("proxy-{i}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        self.nodes.push(Node { role: "proxy", folder, process: None, variables: Vec::new() });
        self.configure(i, customer, "");
        self.run(i);
        i
    }

    fn configure(&self, i: usize, customer: &str, more: &str) {
        let Node { role, folder, .. } = &self.nodes[i];
        // A proxy has the lowest place, wherever it stands in the list.
        let place = self.roles.iter().position(|known| known == role).expect("a role");
        let links = Links {
            parent: self.ports.get(place).copied(),
            door: place.checked_sub(1).map(|below| self.ports[below]),
        };
        let text = configuration(role, customer, &links, folder, more);
        std::fs::write(folder.join("callhome.xml"), text).expect("written");
    }

    /// Starts node `i`, which must not run.
    pub fn run(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let folder = node.folder.display().to_string();
        let mut arguments = vec!["node", "--insecure", "--drills", "--data", &folder];
        arguments.extend(["--log", "warn"]);
        node.role.split(' ').for_each(|role| arguments.extend(["--role", role]));
        let end = Instant::now() + LONG;
        // A port of a killed process may be in use for a moment.
        let process = loop {
            match Process::try_start_with(&arguments, &node.variables) {
                Ok(process) => break process,
                Err(said) if Instant::now() > end => panic!("{}: {said}", node.role),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        };
        node.process = Some(process);
    }

    /// KILL, then started again.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut process) = self.nodes[i].process.take() {
            process.kill();
        }
        self.run(i);
    }

    /// KILL, and it stays away until [`Chain::run`].
    pub fn stop(&mut self, i: usize) {
        self.nodes[i].process = None;
    }

    /// Starts node `i` again with its folder on that disk, of which it keeps 1 MiB free.
    pub fn move_to(&mut self, i: usize, disk: &Path) {
        self.stop(i);
        let folder = disk.join("node");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([&self.nodes[i].folder, &folder])
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "copied");
        let file = folder.join("callhome.xml");
        let config = std::fs::read_to_string(&file).expect("a configuration");
        let store = "<store keep-free-bytes=\"1048576\"/></node>";
        std::fs::write(&file, config.replace("</node>", store)).expect("written");
        self.nodes[i].folder = folder;
        self.run(i);
    }

    /// The rows of `callhome queue ls` for node `i`, running or stopped.
    pub fn queues(&self, i: usize) -> Vec<serde_json::Value> {
        let folder = self.nodes[i].folder.display().to_string();
        let output = super::callhome(&["queue", "ls", "--data", &folder, "--format", "json"]);
        assert!(output.status.success(), "{}", super::text(&output.stderr));
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        rows.as_array().expect("rows").clone()
    }

    /// A page of the operator's door of node `i`.
    pub fn operator(&self, i: usize, path: &str) -> String {
        let url = std::fs::read_to_string(self.nodes[i].folder.join("operator.url"));
        let host = url.expect("an address").trim().replace("http://", "");
        let (status, text) = get(&host, path, "");
        assert_eq!(status, 200, "{text}");
        text
    }

    pub fn socket(&self) -> PathBuf {
        self.socket_of(0)
    }

    /// The integrators' socket of proxy `i`.
    pub fn socket_of(&self, i: usize) -> PathBuf {
        self.nodes[i].folder.join("i.sock")
    }

    pub fn server(&self) -> String {
        super::server_in(&self.nodes[self.top()].folder)
    }

    pub fn token(&self) -> String {
        let path = self.nodes[self.top()].folder.join("operator.token");
        std::fs::read_to_string(path).expect("a token").trim().to_owned()
    }

    /// An answer of the API.
    pub fn api(&self, path: &str) -> serde_json::Value {
        let (status, body) = get(&self.server(), &format!("/api/v1{path}"), &self.token());
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The account of node `i`, by its own metrics.
    pub fn account(&self, i: usize) -> Account {
        let text = self.operator(i, "/metrics");
        let value = |name: &str| {
            let lines = text.lines().filter(|l| l.starts_with(name));
            lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        Account {
            taken: value("callhome_ledger_in_total"),
            queued: value("callhome_ledger_queued"),
            balanced: value("callhome_ledger_balanced") == 1,
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.process = None);
        let _ = std::fs::remove_dir_all(&self.nodes[0].folder);
    }
}

/// Figures of a node's ledger.
#[derive(Debug)]
pub struct Account {
    pub taken: u64,
    pub queued: u64,
    pub balanced: bool,
}
