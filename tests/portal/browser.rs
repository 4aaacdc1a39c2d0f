//! A headless Chromium, driven by the DevTools protocol over pipes.
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sandbox::wait_for;

/// One page of one browser.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _profile: TempDir,
    session: Option<String>,
    number: u64,
    events: VecDeque<Value>,
    /// Exceptions and errors that pages wrote to the console.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts it with a profile of its own.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        // DevTools speaks over descriptors 3 and 4: a shell moves our pipes there. `exec` keeps the
        // process id, so that ending the child ends the browser.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --no-first-run \
            --disable-dev-shm-usage --disable-background-networking --remote-debugging-pipe \
            --user-data-dir=\"$0\" about:blank 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null";
        let found = Command::new("chromium").arg("--version").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "chromium does not run: apt-get install chromium"
        );
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a shell");
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut browser = Self {
            child,
            to,
            from,
            _profile: profile,
            session: None,
            number: 0,
            events: VecDeque::new(),
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    fn receive(&mut self) -> Value {
        let mut part = Vec::new();
        self.from.read_until(0, &mut part).expect("chromium speaks");
        assert_eq!(part.pop(), Some(0), "chromium ended");
        serde_json::from_slice(&part).expect("JSON")
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut order = json!({"id": self.number, "method": method, "params": params});
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("chromium listens");
        loop {
            let said = self.receive();
            if said["id"] == self.number {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.note(said);
        }
    }

    fn note(&mut self, event: Value) {
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &event["params"]["exceptionDetails"],
            Some("Log.entryAdded") if event["params"]["entry"]["level"] == "error" => {
                &event["params"]["entry"]
            }
            _ => {
                self.events.push_back(event);
                return;
            }
        };
        self.complaints.push(complaint.to_string());
    }

    /// Opens an address and waits until the page is loaded.
    pub fn go(&mut self, url: &str) {
        // One that another navigation of the page crossed is made again.
        wait_for(url, || {
            self.events.clear();
            let gone = self.call("Page.navigate", json!({"url": url}));
            let error = gone["errorText"].as_str();
            assert!(error.is_none_or(|error| error == "net::ERR_ABORTED"), "{url}: {gone}");
            error.is_none().then_some(())
        });
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.note(event);
        }
    }

    /// Makes the window so large, in pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The value of an expression in the page; null while a page is being replaced.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// Waits until an expression is true of a page that is loaded whole: the address changes
    /// before the page's text is there.
    pub fn wait(&mut self, expression: &str, what: &str) {
        let loaded = format!("document.readyState === 'complete' && ({expression})");
        wait_for(what, || (self.evaluate(&loaded) == true).then_some(()));
    }

    /// Presses what a CSS selector finds first, as soon as it is there.
    pub fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.wait(&format!("document.querySelector({selector}) !== null"), "what is to be pressed");
        self.evaluate(&format!("document.querySelector({selector}).click()"));
    }

    /// What the page shows.
    pub fn text(&mut self) -> String {
        self.evaluate("document.body.innerText").as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
