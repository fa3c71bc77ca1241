//! A small HTTP/1.1 client with cookies: what a browser with one tab would do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// GET, POST ...
    pub method: &'c str,
    /// Path and query.
    pub path: &'c str,
    /// Media type of the body.
    pub media: &'c str,
    /// Body; an empty one is none.
    pub body: &'c str,
}

impl<'c> Call<'c> {
    const fn get(path: &'c str) -> Self {
        Self { method: "GET", path, media: "", body: "" }
    }
}

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A browser: it remembers its session cookie.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    cookie: Option<String>,
}

impl Browser {
    /// GET `path` from the server at `address`, on a connection of its own.
    ///
    /// # Errors
    /// No connection, or no whole answer in 10 s.
    pub fn get(&mut self, address: SocketAddr, path: &str) -> Result<Answer, String> {
        let answer = self.call(address, &Call::get(path), WITHIN);
        answer.map_err(|error| format!("GET {address}{path}: {error}"))
    }

    /// Asks the server at `address`, on a connection of its own.
    ///
    /// # Errors
    /// No connection, or for so long not a byte of the answer.
    pub fn call(
        &mut self,
        address: SocketAddr,
        call: &Call<'_>,
        within: Duration,
    ) -> std::io::Result<Answer> {
        let mut stream = connect(address, within)?;
        stream.write_all(request(call, self.session(), "close").as_bytes())?;
        let told = Told::read(&mut BufReader::new(stream))?;
        self.heard(&told);
        Ok(told.answer)
    }

    /// An answer came on a connection of somebody else's.
    fn heard(&mut self, told: &Told) {
        if let Some(id) = &told.session {
            self.cookie = Some(id.clone());
        }
    }

    /// The session's id, as the server named it.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.cookie.as_deref()
    }
}

/// A connection that stays open for the next request; several of them ask at the same time.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    open: Option<BufReader<TcpStream>>,
    asked: String,
}

impl Connection {
    /// One that is opened when it is first used.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, open: None, asked: String::new() }
    }

    /// Asks for `path` with the session of `browser`, and does not wait for the answer.
    ///
    /// # Errors
    /// It cannot be opened, or written to.
    pub fn ask(&mut self, browser: &Browser, path: &str) -> Result<(), String> {
        self.asked = format!("GET {}{path}", self.address);
        let request = request(&Call::get(path), browser.session(), "keep-alive");
        self.try_ask(&request).map_err(|error| format!("{}: {error}", self.asked))
    }

    fn try_ask(&mut self, request: &str) -> std::io::Result<()> {
        if self.open.is_none() {
            self.open = Some(BufReader::new(connect(self.address, WITHIN)?));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.get_mut().write_all(request.as_bytes())
    }

    /// The answer to what was asked; `browser` takes the session that it names.
    ///
    /// # Errors
    /// Nothing was asked, or no whole answer came in 10 s.
    pub fn answer(&mut self, browser: &mut Browser) -> Result<Answer, String> {
        let mut open = self.open.take().ok_or("nothing was asked")?;
        let told = Told::read(&mut open).map_err(|error| format!("{}: {error}", self.asked))?;
        browser.heard(&told);
        if !told.is_last {
            self.open = Some(open);
        }
        Ok(told.answer)
    }
}

fn connect(address: SocketAddr, within: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(call: &Call<'_>, session: Option<&str>, connection: &str) -> String {
    let Call { method, path, media, body } = call;
    let cookie = session.map(|id| format!("Cookie: JSESSIONID={id}\r\n")).unwrap_or_default();
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: {media}\r\nContent-Length: {}\r\n", body.len())
    };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{cookie}{content}\
         Connection: {connection}\r\n\r\n{body}"
    )
}

/// An answer and what else is of use in it.
struct Told {
    answer: Answer,
    session: Option<String>,
    /// Whether the connection ends with it.
    is_last: bool,
}

impl Told {
    fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other("no status line"))?;
        let (mut length, mut session) = (None, None);
        let (mut is_chunked, mut is_last) = (false, false);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            let (name, value) = line.trim_end().split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok(),
                "transfer-encoding" => is_chunked = value.contains("chunked"),
                "connection" => is_last = value.trim().eq_ignore_ascii_case("close"),
                "set-cookie" => {
                    if let Some(id) = value.trim().strip_prefix("JSESSIONID=") {
                        session = id.split(';').next().map(str::to_owned);
                    }
                }
                _ => {}
            }
        }
        let mut body = Vec::new();
        if is_chunked {
            loop {
                line.clear();
                reader.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = length {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        } else {
            is_last = true;
            reader.read_to_end(&mut body)?;
        }
        let answer = Answer { status, body: String::from_utf8_lossy(&body).into_owned() };
        Ok(Self { answer, session, is_last })
    }
}
