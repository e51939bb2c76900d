//! The inbox under kills and failing disks: a process of its own appends from many tasks at once and says what was
//! acknowledged; afterwards all of that has to be there, whole and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jellyjar::clock::Clock;
use jellyjar::config::InboxConfig;
use jellyjar::inbox::Inboxes;

use crate::support::{Ended, Process, until};

const CHILD: &str = "inbox::a_process_that_appends";
const LANES: usize = 16;
const TEAM: &str = "default";

/// A record: the task that appended it, and its place among that task's.
type Record = (usize, usize);

fn config(tight: bool) -> InboxConfig {
    let config =
        InboxConfig { allow_tmpfs: true, min_free_bytes: 0, segment_bytes: 96 << 10, ..InboxConfig::default() };
    if !tight {
        return config;
    }
    InboxConfig { write_timeout: Duration::from_millis(100), max_waiting: LANES / 2, ..config }
}

fn open(folder: &Path, config: &InboxConfig) -> Inboxes {
    Inboxes::open(config, folder, &[TEAM.into()], Clock::system()).unwrap()
}

fn say(text: &str) {
    // In one call, so that a kill does not cut it off behind the number.
    let _ = std::io::stdout().lock().write_all(format!("\n{text}\n").as_bytes());
}

/// Not a test of its own: what the tests below start, kill, and let fail.
#[test]
#[ignore = "started as a process by other tests"]
fn a_process_that_appends() {
    let variable = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let Some(folder) = variable("INBOX_FOLDER") else { return };
    let first_lane: usize = variable("INBOX_LANE").unwrap().parse().unwrap();
    let count: usize = variable("INBOX_COUNT").unwrap().parse().unwrap();
    let config = config(variable("INBOX_TIGHT").is_some());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let inboxes = open(Path::new(&folder), &config);
        let lanes = (first_lane..first_lane + LANES).map(|lane| {
            let inboxes = inboxes.clone();
            tokio::spawn(async move {
                for number in 0..count {
                    let filling = "x".repeat((lane * 31 + number * 517) % 4096);
                    let body = format!(r#"{{"lane":{lane},"number":{number},"filling":"{filling}"}}"#);
                    match inboxes.append(TEAM, "webhook", body.into()).await {
                        Ok(()) => say(&format!("accepted {lane} {number}")),
                        Err(error) => say(&format!("refused {lane} {number}: {error}")),
                    }
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        inboxes.close().await;
        say("done");
    });
}

/// Starts it, below `wrapper` where there is one.
fn start(folder: &Path, wrapper: &[&str], life: usize, count: usize, tight: bool) -> Process {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(|word| std::ffi::OsString::from(*word)).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args([CHILD, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("INBOX_FOLDER", folder.join("inbox")).env("INBOX_LANE", (life * LANES).to_string());
    command.env("INBOX_COUNT", count.to_string());
    if tight {
        command.env("INBOX_TIGHT", "1");
    }
    Process::start(command, folder, Stdio::null())
}

/// The records that were acknowledged.
fn accepted(stdout: &str) -> BTreeSet<Record> {
    let whole = stdout.rfind('\n').map_or("", |at| &stdout[..at]);
    let numbers = whole.lines().filter_map(|line| line.strip_prefix("accepted ")?.split_once(' '));
    numbers.map(|(lane, number)| (lane.parse().unwrap(), number.parse().unwrap())).collect()
}

/// All records that a reader gives, each whole and with the right checksum, in order for each lane.
async fn records(folder: &Path) -> BTreeSet<Record> {
    let inboxes = open(&folder.join("inbox"), &config(false));
    let mut left: u64 = inboxes.segments(TEAM).unwrap().iter().map(|segment| segment.bytes).sum();
    let mut reader = inboxes.reader(TEAM, None).unwrap();
    let (mut found, mut last) = (BTreeSet::new(), BTreeMap::new());
    while left > 0 {
        let batch = reader.next(50_000).await.unwrap();
        left -= batch.bytes.len() as u64;
        assert!(batch.bytes.ends_with(b"\n"));
        for line in std::str::from_utf8(&batch.bytes).unwrap().lines() {
            let (covered, crc) = line.rsplit_once(r#","crc":""#).unwrap();
            let expected = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, covered.as_bytes());
            assert_eq!(crc, format!("{expected:08x}\"}}"));
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let body: serde_json::Value = serde_json::from_str(record["body"].as_str().unwrap()).unwrap();
            let number = |key: &str| usize::try_from(body[key].as_u64().unwrap()).unwrap();
            let (lane, number) = (number("lane"), number("number"));
            assert!(found.insert((lane, number)), "{lane} {number} is there twice");
            let before = last.insert(lane, number);
            assert!(before < Some(number), "lane {lane}: {number} comes behind {before:?}");
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_by_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    // Seeded: a number of acknowledgements after which each life ends.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for life in 0..20 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wanted = usize::try_from((random >> 33) % 400).unwrap();
        let process = start(folder.path(), &[], life, 100_000, false);
        until("enough is accepted", || accepted(&process.stdout()).len() > wanted);
        let ended = process.kill();
        all.extend(accepted(&ended.stdout));
        let missing: Vec<_> = all.difference(&records(folder.path()).await).copied().collect();
        assert!(missing.is_empty(), "life {life}: {missing:?} are gone");
    }
    assert!(all.len() > 2000, "{}", all.len());
}

/// Runs it to its end under a tool that lets system calls fail, and checks what it has acknowledged.
async fn run_with(wrapper: &[&str], count: usize, tight: bool) -> (Ended, BTreeSet<Record>) {
    let folder = tempfile::tempdir().unwrap();
    let ended = start(folder.path(), wrapper, 0, count, tight).wait();
    let accepted = accepted(&ended.stdout);
    let missing: Vec<_> = accepted.difference(&records(folder.path()).await).copied().collect();
    assert!(missing.is_empty(), "{wrapper:?}: {missing:?} are gone");
    (ended, accepted)
}

/// The system call tracer with failures to inject; nothing where there is none.
fn strace(injections: &[&str]) -> Option<Vec<String>> {
    Command::new("strace").arg("-V").output().ok()?;
    let traced = "trace=fdatasync,fsync,pwrite64,ftruncate";
    let mut words: Vec<String> = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", traced].map(Into::into).into();
    if !injections.iter().any(|injection| injection.contains("signal=")) {
        // Much faster, but it does not deliver signals.
        words.push("--seccomp-bpf".into());
    }
    for injection in injections {
        words.extend(["-e".to_owned(), format!("inject={injection}")]);
    }
    Some(words)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_or_sync_is_told_to_all_it_concerns_and_nobody_else() {
    // Threads count their own calls; the first few are those of opening.
    for (injections, words) in [
        (&["fdatasync:error=EIO:when=3+10"][..], "cannot sync the inbox segment"),
        (&["fdatasync:error=EIO:when=3+10", "ftruncate:error=EIO"], "cannot sync the inbox segment"),
        (&["pwrite64:error=ENOSPC:when=2+9"], "cannot write to the inbox segment"),
        (&["fsync:error=EIO:when=9+5"], "cannot sync the folder"),
    ] {
        let Some(wrapper) = strace(injections) else { return };
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let (ended, accepted) = run_with(&wrapper, 60, false).await;
        assert_eq!(ended.code(), Some(0), "{injections:?}: {ended:?}");
        assert!(ended.stdout.contains("\ndone\n"), "{injections:?}: {ended:?}");
        let refused: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("refused ")).collect();
        assert_eq!(refused.len() + accepted.len(), 60 * LANES, "{injections:?}");
        assert!(!refused.is_empty(), "{injections:?} hit nothing");
        assert!(accepted.len() > LANES, "{injections:?}: {} were accepted", accepted.len());
        assert!(refused.iter().all(|line| line.contains(words)), "{injections:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_by_a_kill_before_any_step() {
    for injection in ["pwrite64:signal=KILL:when=20", "fdatasync:signal=KILL:when=20", "fsync:signal=KILL:when=8"] {
        let Some(wrapper) = strace(&[injection]) else { return };
        let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
        let (ended, accepted) = run_with(&wrapper, 2000, false).await;
        assert_ne!(ended.code(), Some(0), "{injection} hit nothing");
        assert!(!accepted.is_empty(), "{injection}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_slow_makes_senders_come_again() {
    let Some(wrapper) = strace(&["fdatasync:delay_enter=400000:when=2+3"]) else { return };
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let (ended, accepted) = run_with(&wrapper, 5, true).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!accepted.is_empty());
    for words in ["was not written within 100ms (inbox.write_timeout)", "too many webhooks wait"] {
        assert!(ended.stdout.contains(words), "{words}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_grow_leaves_half_a_record_that_is_no_record() {
    // The limit of sh is in blocks of 512 bytes, below the size at which segments close.
    let wrapper = ["sh", "-c", r#"trap "" XFSZ; ulimit -f 150; exec "$0" "$@""#];
    let (ended, accepted) = run_with(&wrapper, 60, false).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("File too large"), "{ended:?}");
    assert!(accepted.len() > 30 * LANES, "{}", accepted.len());
}

/// Prints how many webhooks of 8 KiB are made durable in a second where 200 senders wait for each.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test it inbox::throughput -- --ignored --nocapture"]
async fn throughput() {
    const SENDERS: usize = 200;
    const EACH: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path(), &InboxConfig::default());
    let body = format!(r#"{{"event":"x","text":"{}"}}"#, "lorem ipsum, \\\"dolor\\\" ".repeat(340));
    let body = bytes::Bytes::from(body);
    let start = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (inboxes, body) = (inboxes.clone(), body.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for _ in 0..EACH {
                    let begin = Instant::now();
                    inboxes.append(TEAM, "webhook", body.clone()).await.unwrap();
                    slowest = slowest.max(begin.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for sender in senders {
        slowest = slowest.max(sender.await.unwrap());
    }
    let count = u32::try_from(SENDERS * EACH).unwrap();
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    say(&format!("{count} webhooks of {} bytes: {rate:.0} in a second, the slowest took {slowest:?}", body.len()));
}
