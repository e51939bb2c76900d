//! Reading what strace saw.
//!
//! strace is one process: it sees the begin and the end of every call, one after the other, and lets the program go on
//! only after it has written them down. So where one call's end stands before another's begin, the one was over before
//! the other did anything. `when=K` of an injection counts the calls of each thread by itself; the first thread that
//! comes to its K-th is the one it happens to, so that the step it hits is read from the log, not foretold.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The calls that are traced: all that change files, and the network's.
pub(crate) const TRACED: &str = "openat,write,writev,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,\
    linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate,statfs,fstatfs,connect,sendto,recvfrom";

/// One system call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    /// Which thread made it.
    pub(crate) thread: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its arguments as strace writes them.
    pub(crate) arguments: String,
    /// What it returned; `None` if it never did.
    pub(crate) result: Option<i64>,
    /// Whether strace made it fail.
    pub(crate) injected: bool,
    /// The line of the log on which it began.
    pub(crate) begin: usize,
    /// The line on which it ended.
    pub(crate) end: usize,
}

impl Call {
    /// Whether it returned without an error.
    pub(crate) fn succeeded(&self) -> bool {
        self.result.is_some_and(|result| result >= 0)
    }

    /// Whether it is one of these.
    pub(crate) fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }

    /// The path of the descriptor that is its first argument.
    pub(crate) fn descriptor_path(&self) -> &str {
        let inside = self
            .arguments
            .split_once('<')
            .map_or("", |(number, rest)| if number.bytes().all(|byte| byte.is_ascii_digit()) { rest } else { "" });
        inside.split_once('>').map_or("", |(path, _)| path)
    }

    /// Its quoted arguments, decoded.
    pub(crate) fn strings(&self) -> Vec<Vec<u8>> {
        let mut strings = Vec::new();
        let mut rest = self.arguments.as_bytes();
        while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
            let (string, length) = decode(&rest[start + 1..]);
            strings.push(string);
            rest = rest.get(start + 1 + length..).unwrap_or_default();
        }
        strings
    }

    /// The quoted argument number `index` as text.
    pub(crate) fn text(&self, index: usize) -> String {
        self.strings().get(index).map(|string| String::from_utf8_lossy(string).into_owned()).unwrap_or_default()
    }
}

/// Decodes a C string up to its closing quote; gives the bytes and how much of the input they took.
fn decode(input: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(byte) = input.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\\' => {
                let escape = input.get(at).copied().unwrap_or(b'\\');
                at += 1;
                let (radix, first, most) = match escape {
                    b'x' => (16, at, 2),
                    b'0'..=b'7' => (8, at - 1, 3),
                    _ => (0, at, 0),
                };
                if radix == 0 {
                    bytes.push(match escape {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'v' => 0x0b,
                        b'f' => 0x0c,
                        other => other,
                    });
                    continue;
                }
                let digits = input.iter().skip(first).take(most).take_while(|digit| (**digit as char).is_digit(radix));
                let (mut value, mut length) = (0, 0);
                for digit in digits {
                    value = value * radix + (*digit as char).to_digit(radix).unwrap_or(0);
                    length += 1;
                }
                bytes.push(u8::try_from(value & 0xff).unwrap_or(0));
                at = first + length;
            }
            other => bytes.push(*other),
        }
    }
    (bytes, at)
}

/// The words that run a program under strace, with its log in `log`; `injections` are values of `-e inject=`.
pub(crate) fn tracer(log: &Path, string_bytes: u32, injections: &[String]) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-f", "-y", "-x", "-qq", "-e", "signal=none"].map(String::from).into();
    if injections.is_empty() {
        // Fast, but strace 6.1 cannot deliver an injected signal at the stop that this uses.
        words.push("--seccomp-bpf".into());
    }
    words.extend(["-s".into(), string_bytes.to_string(), "-o".into(), log.display().to_string()]);
    words.extend(["-e".into(), format!("trace={TRACED}")]);
    for injection in injections {
        words.extend(["-e".into(), format!("inject={injection}")]);
    }
    words
}

/// Where the log of a run in `folder` goes.
pub(crate) fn log_path(folder: &Path) -> PathBuf {
    folder.join("strace.log")
}

/// Reads a log. Paths below `folder` become relative to it.
pub(crate) fn read(log: &Path, folder: &Path) -> Result<Vec<Call>> {
    let text = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text).replace(&format!("{}/", folder.display()), "");
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for (line_number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse::<u32>(), rest.trim_start()) else { continue };
        let tail = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((_, tail)) = resumed.split_once(" resumed>") else { continue };
            tail
        } else {
            let Some((name, tail)) = rest.split_once('(') else { continue };
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            open.insert(thread, calls.len());
            calls.push(Call { thread, name: name.into(), begin: line_number, end: usize::MAX, ..Call::default() });
            tail
        };
        let Some(call) = open.get(&thread).and_then(|index| calls.get_mut(*index)) else { continue };
        if let Some(begun) = tail.strip_suffix(" <unfinished ...>") {
            call.arguments.push_str(begun);
        } else if let Some((arguments, result)) = tail.rsplit_once(" = ") {
            call.arguments.push_str(arguments.trim_end().strip_suffix(')').unwrap_or(arguments));
            let number = result.split(|c: char| !c.is_ascii_digit() && c != '-').next().unwrap_or_default();
            call.result = number.parse().ok();
            call.injected = result.ends_with("(INJECTED)");
            call.end = line_number;
        } else {
            call.arguments.push_str(tail);
        }
    }
    Ok(calls)
}

/// What a call was about to do, in words; `None` for what is none of the program's steps.
pub(crate) fn step(call: &Call) -> Option<String> {
    let verb = match call.name.as_str() {
        "openat" if call.arguments.contains("O_CREAT") => "make",
        "write" | "pwrite64" | "writev" | "sendto" => "write to",
        "recvfrom" => "read from",
        "connect" => "connect",
        "fsync" | "fdatasync" => "sync",
        "syncfs" => return Some("sync everything written so far (syncfs)".into()),
        "rename" | "renameat" | "renameat2" => "give the name of",
        "link" | "linkat" => "link the name of",
        "unlink" | "unlinkat" => "remove",
        "mkdir" | "mkdirat" => "make the folder of",
        "ftruncate" => "cut",
        "statfs" => "ask for the free space of",
        _ => return None,
    };
    let path = match call.name.as_str() {
        "rename" | "renameat" | "renameat2" | "link" | "linkat" => call.text(1),
        "openat" | "unlink" | "unlinkat" | "mkdir" | "mkdirat" | "statfs" => call.text(0),
        _ => call.descriptor_path().to_owned(),
    };
    Some(format!("{verb} {}", place(&path)?))
}

/// What follows the last dot of a path.
pub(crate) fn kind_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, kind)| kind)
}

/// What lies at a path, in words.
fn place(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if path.starts_with("socket:") || path.starts_with("TCP") {
        return Some("a connection");
    }
    let inside = path.strip_prefix("archive").map(|inside| inside.trim_start_matches('/'))?;
    Some(match inside.split('/').next().unwrap_or_default() {
        "" => "the archive's folder",
        "jellyjar.json" => "the marker",
        "blobs" if name.len() == 64 => "a blob",
        "blobs" => "a blob (folder)",
        "messages" if kind_of(name) == "jsonl" => "a message segment",
        "messages" => "a message segment (folder)",
        "outcomes" if kind_of(name) == "jsonl" => "an outcome segment",
        "outcomes" => "an outcome segment (folder)",
        "writers" if kind_of(name) == "json" => "a writer's record",
        "writers" => "a writer's record (folder)",
        _ if name == "catalog.sqlite-wal" => "the catalog's log",
        _ if name.starts_with("catalog.sqlite") => "the catalog",
        _ if kind_of(name) == "part" => "a download's file",
        _ if kind_of(name) == "blob" => "a blob's temporary file",
        _ if name.starts_with("put-") => "a segment's or record's temporary file",
        _ if name.contains("lock") => "a lock file",
        _ => "the scratch folder",
    })
}

/// What a kill before a step means: what was done by then, for the steps that the order of a record turns on.
pub(crate) fn meaning(step: &str) -> &'static str {
    match step {
        "make a download's file" => "the link is open, nothing is spooled",
        "write to a download's file" => "spooling has begun",
        "make a blob's temporary file" => "the intent is in the catalog, no bytes are stored",
        "write to a blob's temporary file" => "the file is made, its bytes are not written",
        "sync a blob's temporary file" | "sync a download's file" => "the bytes are written, not synced",
        "give the name of a blob" => "the bytes are synced, not named",
        "sync a blob (folder)" => "the blob is named, its name not synced",
        "sync everything written so far (syncfs)" => "a batch is written or named, not synced",
        "write to a segment's or record's temporary file" => "the file is made, its lines are not written",
        "sync a segment's or record's temporary file" => "the lines are written, not synced",
        "give the name of a message segment" => "the message lines are synced, not named",
        "sync a message segment (folder)" => "the message segment is named, its name not synced",
        "give the name of an outcome segment" => "the blobs are durable, the outcome lines synced, not named",
        "sync an outcome segment (folder)" => "the outcome segment is named, its name not synced",
        "give the name of a writer's record" => "the writer's record is synced, not named",
        "give the name of the marker" => "the archive has no marker yet",
        "write to the catalog's log" => "a transaction is being written",
        "sync the catalog's log" => "a transaction is written, not synced",
        "sync the catalog" => "a checkpoint is written, not synced",
        "connect a connection" => "leases are held, nothing is asked",
        "write to a connection" => "a lease is held, its request is not sent",
        "read from a connection" => "a request is sent, its answer not read",
        "remove a blob's temporary file" => "the same content is there already",
        _ => "",
    }
}
