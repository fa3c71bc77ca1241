//! A headless Chromium, driven by chromedriver over WebDriver (<https://www.w3.org/TR/webdriver2/>), both from
//! Debian's packages.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use serde_json::{Value, json};

use crate::http;
use crate::process::Process;

const DRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";
const START_WITHIN: Duration = Duration::from_secs(30);
/// A page that a balancer keeps waiting for a node that is gone is longer on its way than any other.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a page that is on its way.
const PAUSE: Duration = Duration::from_millis(10);
/// The key of an element's id, by the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window, and a profile that is new and is removed with it.
#[derive(Debug)]
pub struct Chromium {
    // Ends after the session, which ends the browser.
    driver: Process,
    address: SocketAddr,
    session: String,
    profile: PathBuf,
}

/// Whether it is installed; if not, that it is skipped, and the line that installs it, stands on the standard
/// error even of a test that passes.
#[must_use]
pub fn is_installed() -> bool {
    let is_here = [DRIVER, CHROMIUM].iter().all(|program| Path::new(program).exists());
    if !is_here {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no browser is installed; apt-get install -y --no-install-recommends chromium \
             chromium-driver"
        );
    }
    is_here
}

impl Chromium {
    /// Starts one whose log is in `directory`. It knows no address but this machine's.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(directory: &Path) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir_all(directory).map_err(text)?;
        let mut command = Command::new(DRIVER);
        let log = directory.join("chromedriver.log");
        // 0: any port that is free.
        command.arg("--port=0").arg(format!("--log-path={}", log.display()));
        command.stderr(fs::File::create(directory.join("chromium.txt")).map_err(text)?);
        let driver = Process::start("chromedriver", command)?;
        let port =
            driver.await_line("ChromeDriver was started successfully on port ", START_WITHIN)?;
        let port = port.trim_end_matches('.').parse().map_err(|_| format!("port {port}"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let profile = directory.join("profile");
        let mut words = vec![
            "--headless=new".to_owned(),
            format!("--user-data-dir={}", profile.display()),
            "--window-size=900,600".into(),
            "--no-first-run".into(),
            "--disable-gpu".into(),
            // A container's /dev/shm is small.
            "--disable-dev-shm-usage".into(),
            // Nothing of a test leaves the machine.
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--no-proxy-server".into(),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".into(),
        ];
        if Uid::effective().is_root() {
            // Its sandbox refuses root.
            words.push("--no-sandbox".into());
        }
        let wish = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": CHROMIUM, "args": words},
        }}});
        let mut chromium = Self { driver, address, session: String::new(), profile };
        let made = chromium.call("POST", "/session", &wish)?;
        let id = made["sessionId"].as_str().ok_or_else(|| format!("no session: {made}"))?;
        chromium.session = format!("/session/{id}");
        Ok(chromium)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let sent = if method == "POST" { body.to_string() } else { String::new() };
        let call = http::Call { method, path, media: "application/json", body: &sent };
        let answer = http::Browser::default().call(self.address, &call, ANSWER_WITHIN);
        let answer = answer.map_err(|error| format!("{method} {path}: {error}"))?;
        let value: Value = serde_json::from_str(&answer.body)
            .map_err(|error| format!("{method} {path}: {error} in {}", answer.body))?;
        if answer.status == 200 {
            return Ok(value["value"].clone());
        }
        let (error, why) = (&value["value"]["error"], &value["value"]["message"]);
        Err(format!("{method} {path}: {error}: {why}"))
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        self.call("GET", &format!("{}{path}", self.session), &Value::Null)
    }

    fn tell(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.call("POST", &format!("{}{path}", self.session), body)
    }

    /// Opens an address, and waits for the page.
    ///
    /// # Errors
    /// There is no answer.
    pub fn open(&self, url: &str) -> Result<(), String> {
        self.tell("/url", &json!({ "url": url })).map(drop)
    }

    fn elements(&self, selector: &str) -> Result<Vec<String>, String> {
        let wish = json!({"using": "css selector", "value": selector});
        let found = self.tell("/elements", &wish)?;
        let found = found.as_array().ok_or_else(|| format!("no list: {found}"))?;
        Ok(found.iter().filter_map(|one| one[ELEMENT].as_str().map(str::to_owned)).collect())
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let mut found = self.elements(selector)?;
        if found.len() == 1 {
            return Ok(found.remove(0));
        }
        let page = self.texts("body")?.join(" ");
        Err(format!("{} of {selector} on the page: {page}", found.len()))
    }

    /// What can be read in all elements that fit the CSS selector.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn texts(&self, selector: &str) -> Result<Vec<String>, String> {
        let text = |id: &String| {
            let text = self.ask(&format!("/element/{id}/text"))?;
            text.as_str().map(str::to_owned).ok_or_else(|| format!("no text: {text}"))
        };
        self.elements(selector)?.iter().map(text).collect()
    }

    /// Types into the one element that fits.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn type_into(&self, selector: &str, text: &str) -> Result<(), String> {
        let path = format!("/element/{}/value", self.element(selector)?);
        self.tell(&path, &json!({ "text": text })).map(drop)
    }

    /// Clicks on the one element that fits, and waits for the page that this opens.
    ///
    /// # Errors
    /// There is none, or more than one; no other page came.
    pub fn click(&self, selector: &str) -> Result<(), String> {
        // The driver's answer comes before the browser leaves the page: its root is known no more then.
        let root = self.element("html")?;
        let path = format!("/element/{}/click", self.element(selector)?);
        self.tell(&path, &json!({}))?;
        let until = Instant::now() + ANSWER_WITHIN;
        let whole = json!({"script": "return document.readyState", "args": []});
        while self.ask(&format!("/element/{root}/name")).is_ok()
            || !self.tell("/execute/sync", &whole).is_ok_and(|state| state == "complete")
        {
            if Instant::now() > until {
                return Err(format!("{selector} opens no page within {ANSWER_WITHIN:?}"));
            }
            std::thread::park_timeout(PAUSE);
        }
        Ok(())
    }

    /// The value of a cookie of the page, if there is one.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn cookie(&self, name: &str) -> Result<Option<String>, String> {
        let all = self.ask("/cookie")?;
        let is_it = |cookie: &&Value| cookie["name"] == name;
        let found = all.as_array().and_then(|all| all.iter().find(is_it));
        Ok(found.and_then(|cookie| cookie["value"].as_str().map(str::to_owned)))
    }

    /// Forgets all cookies.
    ///
    /// # Errors
    /// The browser does not answer.
    pub fn forget_cookies(&self) -> Result<(), String> {
        self.call("DELETE", &format!("{}/cookie", self.session), &Value::Null).map(drop)
    }

    /// Writes what is seen into a PNG file.
    ///
    /// # Errors
    /// The browser does not answer, or the file cannot be written.
    pub fn screenshot(&self, file: &Path) -> Result<(), String> {
        let picture = self.ask("/screenshot")?;
        let picture = picture.as_str().and_then(base64).ok_or("no picture")?;
        fs::write(file, picture).map_err(|error| format!("{}: {error}", file.display()))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The browser ends with its session, and its driver when told so.
        let _ = self.call("DELETE", &self.session, &Value::Null);
        let _ = self.driver.stop(Duration::from_secs(10));
        let _ = fs::remove_dir_all(&self.profile);
    }
}

/// The bytes of a text in base64; none if it is no such text.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut bits_count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(digit(letter)?);
        bits_count += 6;
        if bits_count >= 8 {
            bits_count -= 8;
            bytes.push(u8::try_from(bits >> bits_count & 0xff).ok()?);
        }
    }
    Some(bytes)
}
