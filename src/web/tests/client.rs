//! A client on a bare socket, which says byte for byte what a test wants said.

use std::net::SocketAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

const HUNG: &str = "the server said nothing and hung";

/// The signature of a body, in hex.
pub(super) fn sign(secret: &str, body: &[u8]) -> String {
    let mut tag = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    tag.update(body);
    data_encoding::HEXLOWER.encode(&tag.finalize().into_bytes())
}

/// A request with a body and extra header lines, as bytes.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}

/// A webhook to a team, signed.
pub(super) fn webhook(team: &str, secret: &str, body: &[u8]) -> Vec<u8> {
    request("POST", &format!("/webhooks/{team}"), &[("X-Jelly-Signature", &sign(secret, body))], body)
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// All lines after the first but the date, lowercase.
    pub(super) headers: Vec<String>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client<S = TcpStream> {
    pub(super) stream: S,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends bytes. That the other side has closed is seen when it is read from.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; `None` if the connection ends before one is whole.
    pub(super) async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, length)) = parse(&self.read) {
                self.read.drain(..length);
                return Some(reply);
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Whether the connection ended with nothing more said.
    pub(super) async fn is_closed(&mut self) -> bool {
        while self.receive().await {}
        self.read.is_empty()
    }

    /// Whether the connection is ended by the other side's word, and not reset.
    pub(super) async fn is_ended_in_order(&mut self) -> bool {
        let mut buffer = [0; 4096];
        timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect(HUNG).is_ok_and(|read| read == 0)
    }

    /// Takes in what comes next; `false` at the end.
    async fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect(HUNG).unwrap_or(0);
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

/// The answer that bytes begin with, and its length.
fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n").map(str::to_ascii_lowercase);
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines.filter(|line| !line.starts_with("date: ")).collect();
    let length =
        headers.iter().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let body = bytes.get(end + 4..end + 4 + length)?;
    let body = String::from_utf8(body.to_vec()).unwrap();
    Some((Reply { status, headers, body }, end + 4 + length))
}

/// Sends one request on a connection of its own and reads the answer.
pub(super) async fn ask(address: SocketAddr, request: &[u8]) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client.reply().await.expect("no answer came")
}
