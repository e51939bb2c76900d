//! The real binary as a process: started, watched, interrupted, killed; and what it said.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(5);

/// Waits until `condition` holds, and fails the test when it does not in time.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in {PATIENCE:?} it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running process. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    peak_kib: u64,
}

impl Process {
    /// Starts `command`; what it prints goes to files in `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path, stdin: Stdio) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (folder.join(format!("{number}.stdout")), folder.join(format!("{number}.stderr")));
        command.stdin(stdin).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Self { child: command.spawn().unwrap(), out, err, peak_kib: 0 }
    }

    /// Its standard input, where it was started with a pipe. Dropping it ends the input.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// What it has printed to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// What it has printed to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.note_memory();
        self.child.try_wait().unwrap().is_none()
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.send(Signal::INT);
    }

    /// Asks it to end, as service managers do.
    pub(crate) fn terminate(&self) {
        self.send(Signal::TERM);
    }

    /// Asks it to read its settings again.
    pub(crate) fn hang_up(&self) {
        self.send(Signal::HUP);
    }

    /// Kills it, as a loss of power would.
    pub(crate) fn kill(mut self) -> Ended {
        self.send(Signal::KILL);
        self.ended()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "the program does not end; it said:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(4));
        }
        self.ended()
    }

    /// The most memory it has had so far: the high-water mark of proc(5), which is gone once it has ended.
    fn note_memory(&mut self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        self.peak_kib = self.peak_kib.max(kib.unwrap_or(0));
    }

    fn ended(&mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let read = |path: &Path| String::from_utf8(std::fs::read(path).unwrap()).unwrap();
        Ended { status, stdout: read(&self.out), stderr: read(&self.err), peak_kib: self.peak_kib }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The most memory that it was seen to have, in KiB.
    pub(crate) peak_kib: u64,
}

impl Ended {
    /// Its exit code; none if a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The one JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        let mut values = serde_json::Deserializer::from_str(&self.stdout).into_iter::<Value>();
        let value = values.next().unwrap_or_else(|| panic!("nothing on standard output: {self:?}")).unwrap();
        assert!(value.is_object(), "{value}");
        assert!(values.next().is_none(), "more than one object on standard output: {}", self.stdout);
        value
    }

    /// The receipt, which must add up and fit the exit code.
    pub(crate) fn receipt(&self) -> Receipt {
        let receipt: Receipt = serde_json::from_value(self.json()).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let places = [
            receipt.archived,
            receipt.known,
            receipt.skipped,
            receipt.failed,
            receipt.quarantined,
            receipt.erased,
            receipt.pending,
        ];
        assert_eq!(places.iter().sum::<u64>(), receipt.attachments, "it does not add up: {receipt:?}");
        assert!(receipt.adds_up, "{receipt:?}");
        let code = match () {
            () if receipt.interrupted => 130,
            () if receipt.token_refused => 3,
            () => i32::from(!receipt.ok),
        };
        assert_eq!(self.code(), Some(code), "{receipt:?}\n{}", self.stderr);
        receipt
    }
}

/// A receipt, as scripts read it.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the receipt has them")]
pub(crate) struct Receipt {
    pub(crate) payloads: u64,
    pub(crate) ignored: u64,
    pub(crate) rejected: u64,
    pub(crate) attachments: u64,
    pub(crate) archived: u64,
    pub(crate) known: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) quarantined: u64,
    pub(crate) erased: u64,
    pub(crate) pending: u64,
    pub(crate) duplicates: u64,
    pub(crate) bytes_fetched: u64,
    pub(crate) bytes_stored: u64,
    pub(crate) api_requests: u64,
    pub(crate) elapsed_seconds: f64,
    pub(crate) adds_up: bool,
    pub(crate) interrupted: bool,
    pub(crate) token_refused: bool,
    pub(crate) ok: bool,
    pub(crate) notes: Vec<String>,
}
