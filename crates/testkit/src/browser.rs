//! A headless browser, driven by the `DevTools` protocol: a page's content, requests and errors.

use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::child::Child;
use crate::directories::{program, scratch_dir};
use crate::http::http;
use crate::shared::servers_wanted;
use crate::wait::wait_until;

const START: Duration = Duration::from_mins(1);
const ANSWER: Duration = Duration::from_secs(30);
const ACCESSIBILITY: &str = include_str!("accessibility.js");
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A browser with one page. Dropping it kills it.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    calls: u64,
    requests: Vec<String>,
    errors: Vec<String>,
    downloads: Vec<String>,
    _process: Child,
}

impl Browser {
    /// Starts the browser that `MILLRACE_TEST_BROWSER` names, else the Chromium or Chrome of this machine.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start() -> Result<Self, String> {
        servers_wanted()?;
        let named = env::var_os("MILLRACE_TEST_BROWSER").map(Into::into);
        let found = named.or_else(|| NAMES.into_iter().find_map(program));
        let browser: PathBuf = found.ok_or("no Chromium or Chrome was found")?;
        let folder = scratch_dir("browser");
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]);
        command.arg("--disable-dev-shm-usage").arg(format!("--user-data-dir={}", folder.display())).arg("about:blank");
        let process = Child::spawn(&mut command, &folder.join("log")).map_err(|error| error.to_string())?;
        let port = || fs::read_to_string(folder.join("DevToolsActivePort")).ok()?.lines().next()?.parse::<u16>().ok();
        if !wait_until(START, || port().is_some()) {
            return Err(format!("the browser did not start: {}", process.log_tail()));
        }
        let at = ([127, 0, 0, 1], port().ok_or("the browser wrote no port")?).into();
        let page = http(at, "PUT", "/json/new?about:blank", &[], "").map_err(|error| error.to_string())?;
        let page: Value = serde_json::from_slice(&page.body).map_err(|error| error.to_string())?;
        let url = page["webSocketDebuggerUrl"].as_str().ok_or("the browser has no page")?;
        let (socket, _) = tungstenite::connect(url).map_err(|error| error.to_string())?;
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(ANSWER)).map_err(|error| error.to_string())?;
        }
        let (requests, errors, downloads) = (Vec::new(), Vec::new(), Vec::new());
        let mut browser = Self { socket, calls: 0, requests, errors, downloads, _process: process };
        for domain in ["Runtime", "Log", "Network", "Page"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        let path = folder.display().to_string();
        browser.call("Page.setDownloadBehavior", &json!({ "behavior": "allow", "downloadPath": path }));
        Ok(browser)
    }

    /// Navigates to a page.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// If the browser is gone.
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub fn wait_for(&mut self, expression: &str, within: Duration) -> bool {
        wait_until(within, || self.value(expression) == true)
    }

    /// Presses a key: `Tab`, `Enter`, `Escape` or `Space`.
    ///
    /// # Panics
    /// For any other key.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "Space" => (32, " "),
            _ => panic!("{key} is no key that is known here"),
        };
        let key = if key == "Space" { " " } else { key };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Moves the focus by the tabulator to an element that matches; whether it got there within 200 stops.
    pub fn tab_to(&mut self, selector: &str) -> bool {
        (0..200).any(|_| {
            self.press("Tab");
            self.value(&format!("document.activeElement.matches({})", json!(selector))) == true
        })
    }

    /// Moves the pointer to the middle of the first element that matches.
    pub fn hover(&mut self, selector: &str) {
        let bounds = format!("document.querySelector({}).getBoundingClientRect()", json!(selector));
        let middle = self.value(&format!("(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({bounds})"));
        for step in [1.0, 0.0] {
            let at = |index: usize| middle[index].as_f64().unwrap_or_default() + step;
            self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": at(0), "y": at(1) }));
        }
    }

    /// What keeps people from using the page as it is now: contrast, headings, labels and tables of what is shown, ids and roles,
    /// and elements that take the focus and have no name for who listens.
    ///
    /// # Panics
    /// If the page cannot be examined.
    pub fn inaccessible(&mut self) -> Vec<String> {
        let found = self.value(ACCESSIBILITY);
        let found: Vec<String> = serde_json::from_value(found).unwrap_or_else(|error| panic!("accessibility: {error}"));
        found.into_iter().chain(self.nameless().into_iter().map(|role| format!("{role} without a name"))).collect()
    }

    fn nameless(&mut self) -> Vec<String> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let focusable = |node: &Value| {
            let properties = node["properties"].as_array().cloned().unwrap_or_default();
            properties.iter().any(|one| one["name"] == "focusable" && one["value"]["value"] == true)
        };
        let nameless = |node: &&Value| focusable(node) && node["name"]["value"].as_str().unwrap_or_default().is_empty();
        nodes.iter().filter(nameless).map(|node| node["role"]["value"].to_string()).collect()
    }

    /// Every URL the page has requested so far.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Every error of the page so far: exceptions, failed loads, violations of its content security policy.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The names of the files that the page has saved so far.
    pub fn downloads(&self) -> &[String] {
        &self.downloads
    }

    /// Sets the viewport in pixels, and the color scheme.
    pub fn set_viewport(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// Writes a screenshot of the whole page to a PNG file.
    ///
    /// # Panics
    /// If it cannot.
    pub fn screenshot(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let data = answer["data"].as_str().unwrap_or_default();
        let coded = file.with_extension("base64");
        fs::write(&coded, data).unwrap_or_else(|error| panic!("{}: {error}", coded.display()));
        let open = |error| panic!("{}: {error}", file.display());
        let (from, to) = (fs::File::open(&coded).unwrap_or_else(open), fs::File::create(file).unwrap_or_else(open));
        let decoded = Command::new("base64").arg("-d").stdin(from).stdout(to).status();
        assert!(decoded.is_ok_and(|status| status.success()), "base64 -d");
        let _ = fs::remove_file(coded);
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let text = json!({ "id": id, "method": method, "params": parameters }).to_string();
        self.socket.send(Message::text(text)).unwrap_or_else(|error| panic!("browser: {error}"));
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            let message = self.socket.read().unwrap_or_else(|error| panic!("browser: {method}: {error}"));
            let Message::Text(text) = message else { continue };
            let mut message: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("browser: {error}"));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
        panic!("browser: {method} got no response");
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requests.push(parameters["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            Some("Page.downloadWillBegin") => {
                self.downloads.push(parameters["suggestedFilename"].as_str().unwrap_or_default().to_owned());
            }
            Some("Runtime.exceptionThrown") => self.errors.push(parameters["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.errors.push(parameters["entry"].to_string());
            }
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                self.errors.push(parameters["args"].to_string());
            }
            _ => {}
        }
    }
}
