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
        let call = Call { method: "GET", path, media: "", body: "" };
        let answer = self.call(address, &call, Duration::from_secs(10));
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
        let mut stream = TcpStream::connect_timeout(&address, within)?;
        stream.set_read_timeout(Some(within))?;
        stream.set_nodelay(true)?;
        let cookie = self.cookie.as_ref().map(|id| format!("Cookie: JSESSIONID={id}\r\n"));
        let Call { method, path, media, body } = call;
        let content = (!body.is_empty())
            .then(|| format!("Content-Type: {media}\r\nContent-Length: {}\r\n", body.len()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{}{}Connection: close\r\n\r\n{body}",
            cookie.unwrap_or_default(),
            content.unwrap_or_default()
        );
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other("no status line"))?;
        let mut length = None;
        let mut chunked = false;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            let (name, value) = line.trim_end().split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok(),
                "transfer-encoding" => chunked = value.contains("chunked"),
                "set-cookie" => {
                    if let Some(id) = value.trim().strip_prefix("JSESSIONID=") {
                        self.cookie = id.split(';').next().map(str::to_owned);
                    }
                }
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
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
            reader.read_to_end(&mut body)?;
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// The session's id, as the server named it.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.cookie.as_deref()
    }
}
