//! A proxy before a PostgreSQL that cuts connections around a commit. It reads what clients send only so far as to see
//! which statements commit (the protocol's version 3: "Message Formats" in PostgreSQL's manual), and nothing of the answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinHandle;

/// How long an answer is waited for that nobody will see.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// No message of a client is longer.
const LONGEST: usize = 1 << 30;

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Before the commit reaches the server: nothing was done.
    Before,
    /// When it was sent: the server may see it or not.
    Sent,
    /// When the server has answered, and before the client hears of it: all was done.
    Answered,
}

/// What connections share.
#[derive(Debug, Default)]
struct Shared {
    /// What is to happen at the next commits, in this order.
    due: std::sync::Mutex<Vec<Cut>>,
    cuts: [AtomicU64; 3],
    /// Held while nobody may connect.
    closed: Arc<RwLock<()>>,
}

impl Shared {
    fn take(&self) -> Option<Cut> {
        let mut due = self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (!due.is_empty()).then(|| due.remove(0))
    }
}

/// See the module. Dropping it closes all connections.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where it listens.
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before the server at `server`.
    pub(super) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_all = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&of_all);
                // Whatever ends a connection is what it would have been without the proxy, or was asked for.
                connections.spawn(async move { drop(Connection::run(client, server, shared).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, shared, listening })
    }

    /// Has one more connection cut at a commit.
    pub(super) fn cut(&self, cut: Cut) {
        self.shared.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(cut);
    }

    /// Lets nobody connect as long as what it gives is kept.
    pub(super) async fn close(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.shared.closed).write_owned().await
    }

    /// How many connections were cut before a commit, when it was sent, and when it was answered.
    pub(super) fn cuts(&self) -> [u64; 3] {
        self.shared.cuts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// One client's connection.
struct Connection {
    shared: Arc<Shared>,
    server: OwnedWriteHalf,
    statements: Statements,
    /// Whether the client hears no more.
    deaf: Arc<AtomicBool>,
    /// Told when the server has answered a client that hears no more.
    answered: Arc<Notify>,
}

impl Connection {
    async fn run(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) -> Result<()> {
        let server = {
            let _open = shared.closed.read().await;
            TcpStream::connect(server).await?
        };
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (deaf, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let connection = Self {
            shared,
            server: to_server,
            statements: Statements::default(),
            deaf: Arc::clone(&deaf),
            answered: Arc::clone(&answered),
        };
        // Either end of it ends both.
        tokio::select! {
            ended = connection.forward(from_client) => ended,
            ended = back(from_server, to_client, &deaf, &answered) => ended,
        }
    }

    /// Forwards what the client sends, message by message.
    async fn forward(mut self, mut client: OwnedReadHalf) -> Result<()> {
        let mut message = Vec::new();
        // What comes first has no type: a wish for encryption, which the server of the tests refuses, then the start.
        loop {
            read_message(&mut client, &mut message, false).await?;
            self.server.write_all(&message).await?;
            let code = message.get(4..8).context("a start without a code")?;
            // 196608 is version 3.0; 80877103 and 80877104 ask for encryption.
            if !matches!(u32::from_be_bytes(code.try_into()?), 80_877_103 | 80_877_104) {
                break;
            }
        }
        loop {
            read_message(&mut client, &mut message, true).await?;
            let cut = if self.statements.commits(&message) { self.shared.take() } else { None };
            let Some(cut) = cut else {
                self.server.write_all(&message).await?;
                continue;
            };
            // From now on the client hears nothing, not even if the server is quick.
            self.deaf.store(true, Ordering::SeqCst);
            if cut != Cut::Before {
                self.server.write_all(&message).await?;
            }
            if cut == Cut::Answered {
                let _ = tokio::time::timeout(ANSWER_WITHIN, self.answered.notified()).await;
            }
            self.shared.cuts[cut as usize].fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
    }
}

/// Forwards what the server sends, as long as the client may hear of it.
async fn back(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    deaf: &AtomicBool,
    answered: &Notify,
) -> Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = server.read(&mut piece).await?;
        if deaf.load(Ordering::SeqCst) {
            answered.notify_one();
            // Whoever cuts the connection ends this.
            std::future::pending::<()>().await;
        }
        if length == 0 {
            return Ok(());
        }
        client.write_all(&piece[..length]).await?;
    }
}

/// Reads one message whole: its type, if it has one, its length, which counts itself, and the rest.
async fn read_message(client: &mut OwnedReadHalf, message: &mut Vec<u8>, typed: bool) -> Result<()> {
    let head = if typed { 5 } else { 4 };
    message.resize(head, 0);
    client.read_exact(message).await?;
    let length = usize::try_from(u32::from_be_bytes(message[head - 4..].try_into()?))?;
    anyhow::ensure!((4..LONGEST).contains(&length), "a message of {length} bytes");
    message.resize(head - 4 + length, 0);
    client.read_exact(&mut message[head..]).await?;
    Ok(())
}

/// What the statements of a connection do.
#[derive(Debug, Default)]
struct Statements {
    /// The prepared ones, by name.
    prepared: HashMap<Vec<u8>, Kind>,
    in_transaction: bool,
    /// Whether what was sent since the last `Sync` commits.
    commits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin,
    Commit,
    Rollback,
    /// Commits by itself outside of a transaction, and changes jobs.
    Write,
    Other,
}

impl Statements {
    /// Whether the server commits something when it gets this message.
    fn commits(&mut self, message: &[u8]) -> bool {
        let body = &message[5..];
        match message[0] {
            b'Q' => {
                let kind = Kind::of(until_nul(body).0);
                self.run(kind);
                std::mem::take(&mut self.commits)
            }
            // Parse: the statement's name and its text.
            b'P' => {
                let (name, rest) = until_nul(body);
                self.prepared.insert(name.to_owned(), Kind::of(until_nul(rest).0));
                false
            }
            // Bind: the portal's name and the statement's. What is bound is executed next.
            b'B' => {
                let (_, rest) = until_nul(body);
                let kind = self.prepared.get(until_nul(rest).0).copied().unwrap_or(Kind::Other);
                self.run(kind);
                false
            }
            b'S' => std::mem::take(&mut self.commits),
            _ => false,
        }
    }

    fn run(&mut self, kind: Kind) {
        match kind {
            Kind::Begin => self.in_transaction = true,
            Kind::Rollback => self.in_transaction = false,
            Kind::Commit => {
                self.in_transaction = false;
                self.commits = true;
            }
            Kind::Write => self.commits |= !self.in_transaction,
            Kind::Other => {}
        }
    }
}

impl Kind {
    /// By the first word, behind comments.
    fn of(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let words = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("--"));
        let word = words.unwrap_or_default().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        match word.to_ascii_uppercase().as_str() {
            "BEGIN" | "START" => Self::Begin,
            "COMMIT" | "END" => Self::Commit,
            "ROLLBACK" | "ABORT" if !text.to_ascii_uppercase().contains(" TO ") => Self::Rollback,
            // What a connection keeps for itself is not worth a cut.
            "INSERT" | "UPDATE" | "DELETE" | "WITH" if text.contains("attachments") => Self::Write,
            _ => Self::Other,
        }
    }
}

/// The bytes before a NUL, and those behind it.
fn until_nul(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}
