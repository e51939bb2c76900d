//! `jellyjar serve` as a process, and a Jelly that posts webhooks to it over sockets of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use super::{Ended, Process, World, until};

/// The signing secret: so odd that it is found wherever it leaks.
pub(crate) const SECRET: &str = "whsec-canary-7d2e90ab41";

/// What a service of the tests needs. Segments are so young when they close that a test sees their copies; there is no sweep,
/// so that requests can be counted.
pub(crate) const SERVE: &str = "\
[serve]
listen = \"127.0.0.1:0\"
ops_listen = \"127.0.0.1:0\"
[sweep]
every = \"0s\"
[inbox]
segment_age = \"1s\"
min_free = \"0 B\"
allow_tmpfs = true
";

/// A running service.
pub(crate) struct Serve {
    pub(crate) process: Process,
    public: SocketAddr,
    operations: SocketAddr,
}

impl Serve {
    /// Starts one for the team `default`, with the secret in its environment.
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, Self::command(world))
    }

    /// The command that [`Serve::start`] starts.
    pub(crate) fn command(world: &World) -> Command {
        let mut command = world.command(&["serve", "--archive", "archive"]);
        command.env("JELLY_WEBHOOK_SECRET", SECRET);
        command
    }

    /// Starts one, and waits until it listens.
    pub(crate) fn start_with(world: &World, command: Command) -> Self {
        let mut process = world.start(command);
        until("it listens", || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            process.stderr().contains("operations on http://")
        });
        let said = process.stderr();
        let (_, rest) = said.split_once("Taking webhooks on http").unwrap();
        let (_, rest) = rest.split_once("://").unwrap();
        let (public, rest) = rest.split_once('/').unwrap();
        let (public, operations) = (public.parse().unwrap(), operations_of(rest));
        Self { process, public, operations }
    }

    /// Where a team's webhooks go.
    pub(crate) fn webhook_url(&self, team: &str) -> String {
        format!("http://{}/webhooks/{team}", self.public)
    }

    /// A sender of webhooks, for any thread.
    pub(crate) const fn sender(&self) -> Sender {
        Sender(self.public)
    }

    /// Posts a signed event of the team `default`, which must be accepted.
    pub(crate) fn post(&self, event: &Value) {
        assert_eq!(self.sender().post("default", SECRET, event.to_string().as_bytes()), Some(200));
    }

    /// Asks the operations listener.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        ask(self.operations, path)
    }

    /// Whether `/readyz` says that all is well.
    pub(crate) fn is_ready(&self) -> bool {
        self.ask("/readyz").0 == 200
    }

    /// Why it is not ready, by the names of what it needs.
    pub(crate) fn troubles(&self) -> BTreeMap<String, String> {
        let (status, text) = self.ask("/readyz");
        let told: Value = serde_json::from_str(&text).unwrap();
        let all = told["dependencies"].as_array().unwrap().iter();
        let troubles: BTreeMap<String, String> = all
            .filter(|one| one["ready"] == false)
            .map(|one| (one["name"].as_str().unwrap().to_owned(), one["reason"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(status, if troubles.is_empty() { 200 } else { 503 }, "{text}");
        troubles
    }

    /// Stops it in good order, which must work.
    pub(crate) fn stop(self, world: &World) -> Ended {
        let public = self.public;
        self.process.terminate();
        let ended = self.process.wait();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(TcpStream::connect(public).is_err(), "the port is still open");
        world.check(&ended);
        assert!(!ended.stderr.contains(SECRET), "the signing secret was printed: {}", ended.stderr);
        ended
    }
}

/// A running `work`, which listens to operators alone.
pub(crate) struct Worker {
    pub(crate) process: Process,
    operations: SocketAddr,
}

impl Worker {
    /// Starts one for the team `default`.
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, Self::command(world))
    }

    /// The command that [`Worker::start`] starts.
    pub(crate) fn command(world: &World) -> Command {
        world.command(&["work", "--archive", "archive"])
    }

    /// Starts one, and waits until it listens.
    pub(crate) fn start_with(world: &World, command: Command) -> Self {
        let mut process = world.start(command);
        until("it listens", || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            process.stderr().contains("operations on http://")
        });
        let operations = operations_of(&process.stderr());
        Self { process, operations }
    }

    /// Asks the operations listener.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        ask(self.operations, path)
    }

    /// Stops it in good order, which must work.
    pub(crate) fn stop(self, world: &World) {
        self.process.terminate();
        let ended = self.process.wait();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        world.check(&ended);
    }
}

/// Where the operations listener is, of what a service says at its start.
fn operations_of(said: &str) -> SocketAddr {
    let (_, rest) = said.split_once("operations on http://").unwrap();
    rest.lines().next().unwrap().trim_end_matches('.').parse().unwrap()
}

fn ask(operations: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = exchange(operations, request.as_bytes()).unwrap();
    (answer.status, answer.body)
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head's lines after the first, in lower case, without the date.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Posts webhooks as Jelly does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender(SocketAddr);

impl Sender {
    /// Posts a body with the signature of `secret`; the status, or nothing where no answer came.
    pub(crate) fn post(self, team: &str, secret: &str, body: &[u8]) -> Option<u16> {
        let signature = format!("x-jelly-signature: {}\r\n", sign(secret, body));
        Some(self.send("POST", &format!("/webhooks/{team}"), &signature, body)?.status)
    }

    /// Where it posts to.
    pub(crate) const fn address(self) -> SocketAddr {
        self.0
    }

    /// Sends a request with these header lines.
    pub(crate) fn send(self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<Answer> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        exchange(self.0, &[head.as_bytes(), body].concat())
    }
}

/// Jelly's signature: hex HMAC-SHA256 of the raw body.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut tag = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    tag.update(body);
    HEXLOWER.encode(&tag.finalize().into_bytes())
}

fn exchange(address: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    // Who refuses a request early closes before all of it is sent; the answer is there all the same.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(length) = stream.read(&mut piece)
        && length > 0
    {
        bytes.extend_from_slice(&piece[..length]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (first, lines) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1)?.parse().unwrap();
    let lines = lines.to_ascii_lowercase();
    let head = lines.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
    Some(Answer { status, head, body: body.to_owned() })
}

/// The ids that outcome lines of an archive, which may be growing, call archived; as often as they do.
pub(crate) fn archived(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(&root.join("outcomes")) {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| line["kind"] == "archived");
        found.extend(lines.filter_map(|line| line["attachment_id"].as_str().map(str::to_owned)));
    }
    found
}

/// Waits until all of these ids are archived.
pub(crate) fn until_archived(root: &Path, ids: &BTreeSet<String>) {
    until("all is archived", || {
        let found: BTreeSet<String> = archived(root).into_iter().collect();
        ids.is_subset(&found)
    });
}

/// Every file below a folder, which may be changing, sorted.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
