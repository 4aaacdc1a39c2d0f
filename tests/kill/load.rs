//! An integrator of the integrator API with a spill, as a process that can be killed. Its own
//! record on disk says which calls were accepted.
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use integrator_api::{Call, Client, EventCall, Options, Severity, Ticket};

use super::sandbox::LONG;

/// Calls that wait for their answers at once.
const OPEN_MAX: usize = 4000;
/// Where the process finds what it is to do; set by the test that starts it.
const FOLDER: &str = "CALLHOME_KILL_LOAD";

/// The process, and its folder.
pub struct Load {
    folder: PathBuf,
    socket: PathBuf,
    rate: u64,
    life: u32,
    child: Child,
}

impl Load {
    /// Starts the first.
    pub fn start(folder: &Path, socket: &Path, rate: u64) -> Self {
        let child = run(folder, socket, rate, 0);
        Self { folder: folder.to_owned(), socket: socket.to_owned(), rate, life: 0, child }
    }

    /// KILL, then the next one, which goes on with what the last left in the spill.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.life += 1;
        self.child = run(&self.folder, &self.socket, self.rate, self.life);
    }

    /// Tells it to end when the proxy has taken all. What all of them said was accepted.
    pub fn finish(mut self) -> Vec<String> {
        File::create(self.folder.join("stop")).expect("written");
        let end = Instant::now() + LONG;
        while self.child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < end, "the load does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let record = std::fs::read_to_string(self.folder.join("accepted")).expect("a record");
        // A line that a kill cut off was not recorded.
        let whole = record.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, socket: &Path, rate: u64, life: u32) -> Child {
    let own = std::env::current_exe().expect("the test's own program");
    let mut command = Command::new(own);
    command.args(["--exact", "load::integrator_that_sends_until_it_is_killed", "--nocapture"]);
    command.env(FOLDER, folder).env("CALLHOME_KILL_SOCKET", socket);
    command.env("CALLHOME_KILL_RATE", rate.to_string());
    command.env("CALLHOME_KILL_LIFE", life.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts")
}

fn word(name: &str) -> String {
    std::env::var(name).expect("set with the folder")
}

/// Not a test of its own: the process of [`Load`], in the test's own program.
#[test]
fn integrator_that_sends_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (rate, life) =
        (word("CALLHOME_KILL_RATE").parse::<u64>().unwrap(), word("CALLHOME_KILL_LIFE"));
    let options =
        Options::new(word("CALLHOME_KILL_SOCKET"), "load", "1").spill(folder.join("spill"));
    let client = Client::open(options).expect("a client");
    let mut record =
        OpenOptions::new().append(true).create(true).open(folder.join("accepted")).unwrap();
    let (started, mut next) = (Instant::now(), 0_u64);
    let mut open: VecDeque<(String, Ticket)> = VecDeque::new();
    loop {
        let stopping = folder.join("stop").exists();
        if stopping && open.is_empty() {
            break;
        }
        let due = started.elapsed().as_millis() as u64 * rate / 1000;
        while next < due && open.len() < OPEN_MAX && !stopping {
            // Never a text of an earlier life: what that one sent and did not record may be stored.
            let text = format!("n{life}.{next}");
            let at = jiff::Timestamp::now().as_millisecond();
            let host = format!("host-{}", next % 7);
            let event = EventCall::new(&host, at, "load", Severity::Major, &text);
            open.push_back((text, client.send(Call::Event(event))));
            next += 1;
        }
        let mut lines = String::new();
        while let Some((text, ticket)) = open.front() {
            let Some(answer) = ticket.wait_for(Duration::from_millis(2)) else { break };
            if answer.is_ok() {
                lines.push_str(text);
                lines.push('\n');
            }
            open.pop_front();
        }
        // The page cache outlives the process; what is meant here is a kill, not a power cut.
        record.write_all(lines.as_bytes()).unwrap();
    }
    assert!(client.wait_taken(LONG), "the proxy takes what the spill holds");
    client.close(LONG);
}
