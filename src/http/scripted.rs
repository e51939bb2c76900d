//! A server for tests that says exactly the bytes it is told, in order, and keeps what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens after an answer's bytes are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Keep,
    Close,
    Stall,
}

/// One answer, as bytes.
#[derive(Debug, Clone)]
pub(crate) struct Answer(pub(crate) Vec<u8>, pub(crate) Then);

/// An answer with a status line, header lines and a body of announced length.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Answer([head.as_bytes(), body].concat(), Then::Keep)
}

impl Answer {
    /// The same, ended after `keep` bytes of the body.
    pub(crate) fn cut(mut self, keep: usize, then: Then) -> Self {
        let body = self.0.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        self.0.truncate(body + keep);
        self.1 = then;
        self
    }
}

/// The server. Stops with the runtime.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    /// Starts; each request gets the next answer, and those beyond the last are cut off.
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let log = Arc::clone(&asked);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&log)));
            }
        });
        Self { address, asked, connections }
    }

    /// The requests so far, heads and bodies.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Mutex<VecDeque<Answer>>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let mut request = String::from_utf8(std::mem::take(&mut head)).unwrap();
        let length =
            request.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        request.push_str(std::str::from_utf8(&body).unwrap());
        asked.lock().unwrap().push(request);
        let next = answers.lock().unwrap().pop_front();
        let Some(Answer(bytes, then)) = next else { return };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match then {
            Then::Keep => {}
            Then::Close => return,
            Then::Stall => std::future::pending::<()>().await,
        }
    }
}
