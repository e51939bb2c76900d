//! Disks that are full, and disks whose syncs fail: of the inbox, the catalog and the archive.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::support::{Disk, Process, sign};

/// So many times the service must have failed to open an archive again before a test believes that it asks for nothing.
const TRIES: usize = 2;

/// Posts an event; the status, and whether the answer says when to come again.
fn post(serve: &Serve, event: &Value) -> (u16, bool) {
    let body = event.to_string();
    let signature = format!("x-jelly-signature: {}\r\n", sign(SECRET, body.as_bytes()));
    let answer = serve.sender().send("POST", "/webhooks/default", &signature, body.as_bytes()).unwrap();
    (answer.status, answer.head.contains("retry-after: "))
}

/// How often the service has said that it opens an archive again.
fn tries(serve: &Serve) -> usize {
    serve.process.stderr().matches("trying again in").count()
}

#[test]
fn a_full_disk_of_the_inbox_refuses_webhooks_and_nothing_else() {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("disk"), 4) else { return };
    world.settings(&format!("{SERVE}folder = \"disk/inbox\"\n"));
    let serve = Serve::start_with(&world, disk.enter(&Serve::command(&world)));
    until("it is ready", || serve.is_ready());
    let mail = events(10, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    disk.fill_but(0);
    // The last page of a file has room for some more.
    let mut accepted = mail.clone();
    let more = events_from(1000, 200, 1, (10, 1000));
    let mut refused = more.iter().skip_while(|event| {
        let (status, come_again) = post(&serve, event);
        assert!(status == 200 || (status == 503 && come_again), "{status}, Retry-After: {come_again}");
        accepted.extend((status == 200).then(|| (*event).clone()));
        status == 200
    });
    assert!(refused.next().is_some(), "a full disk took 200 webhooks");
    let troubles = serve.troubles();
    assert!(troubles["inbox"].contains("free") || troubles["inbox"].contains("No space"), "{troubles:?}");
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    // What was accepted is archived meanwhile.
    until_archived(&world.archive(), &ids(&accepted));

    disk.free();
    until("it is ready", || serve.is_ready());
    let last = events_from(5000, 5, 1, (10, 1000));
    for event in &last {
        serve.post(event);
    }
    accepted.extend(last);
    until_archived(&world.archive(), &ids(&accepted));
    serve.stop(&world);
    assert_eq!(world.jelly.exchanges_max(), 1);
    is_archived_once(&world, &accepted);
}

/// Lets a disk be full that the service needs beside its inbox: webhooks are taken, nothing is asked of Jelly, `/readyz`
/// says `words`, and all goes on by itself.
fn a_full_disk_behind_the_inbox(places: [&str; 2], settings: &str, left_bytes: u64, words: &[&str]) {
    let world = World::new();
    let Some(disk) = Disk::mount(&world.path("disk"), 16) else { return };
    world.settings(&format!("{settings}{SERVE}"));
    let [archive, catalog] = places;
    let mut command = world.command(&["serve", "--archive", archive, "--catalog", catalog]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET);
    let root = archive.strip_prefix("disk/").map_or_else(|| world.path(archive), |below| disk.path().join(below));
    let serve = Serve::start_with(&world, disk.enter(&command));
    let mut mail = events(5, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    until_archived(&root, &ids(&mail));
    disk.fill_but(left_bytes);
    // What is posted meanwhile has to fit on it later.
    let (mut first, last) = if archive.starts_with("disk") { (1000, 1800) } else { (1000, 40_000) };
    until("it says what is wrong", || {
        // Files that are there have room for some more.
        let more = events_from(first, 20, 2, (10_000, 20_000));
        if first < last {
            for event in &more {
                serve.post(event);
            }
            first += 100;
            mail.extend(more);
        }
        !serve.troubles().is_empty()
    });
    until("it names the disk", || {
        let troubles = serve.troubles();
        let [(name, reason)] = &troubles.iter().collect::<Vec<_>>()[..] else { return false };
        // The one that is on the small disk, by its name.
        let full = format!("{}:", if archive.starts_with("disk/") { "archive" } else { "catalog" });
        name.starts_with(&full) && words.iter().any(|words| reason.contains(words))
    });
    assert_eq!(serve.ask("/healthz").0, 200);
    let asked = world.jelly.stats().api_requests;
    let tried = tries(&serve);
    let began = Instant::now();
    until("it has tried again", || tries(&serve) >= tried + TRIES || began.elapsed() > Duration::from_secs(8));
    let still = events_from(90_000, 5, 1, (10, 1000));
    for event in &still {
        serve.post(event);
    }
    mail.extend(still);
    assert_eq!(world.jelly.stats().api_requests, asked, "requests were spent in vain");
    assert!(!serve.is_ready());

    disk.free();
    until_archived(&root, &ids(&mail));
    until("it is ready", || serve.is_ready());
    serve.stop(&world);
    let ledger = Ledger::sound(&root);
    assert_eq!(ledger.ids("archived"), ids(&mail));
    assert!(ledger.ids("failed").is_empty(), "attempts were spent");
    // Once more at most: what was on its way when the disk was full.
    assert!(world.jelly.exchanges_max() <= 2, "{}", world.jelly.exchanges_max());
}

#[test]
fn a_full_disk_of_the_catalog_pauses_work_until_there_is_room() {
    let words = ["the disk of the catalog cannot be written", "the catalog failed", "cannot open the catalog"];
    a_full_disk_behind_the_inbox(["archive", "disk/catalog"], "", 0, &words);
}

#[test]
fn a_full_disk_of_the_archive_pauses_work_until_there_is_room() {
    let words = ["the disk of the archive cannot be written", "No space left on device", "too little free space"];
    a_full_disk_behind_the_inbox(["disk/archive", "catalog"], "spool.min_free = \"0 B\"\n", 0, &words);
}

#[test]
fn an_archive_with_less_free_space_than_is_to_stay_pauses_downloads_alone() {
    let words = ["too little free space"];
    a_full_disk_behind_the_inbox(["disk/archive", "catalog"], "spool.min_free = \"6 MiB\"\n", 4 << 20, &words);
}

/// Lets these system calls of a process fail until the tracer is told to go.
fn fail(calls: &str, process: &Process, log: &std::path::Path) -> Option<std::process::Child> {
    let pid = process.id().to_string();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EIO"));
    let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &pid];
    let mut tracer =
        Command::new("strace").args(arguments).stdin(Stdio::null()).stderr(File::create(log).unwrap()).spawn().ok()?;
    let status = format!("/proc/{pid}/task");
    let mut ended = false;
    until("every thread is traced, or none can be", || {
        ended = tracer.try_wait().unwrap().is_some();
        let threads = std::fs::read_dir(&status).unwrap().flatten();
        let mut texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
        ended || texts.all(|text| !text.contains("TracerPid:\t0\n"))
    });
    if ended {
        let said = std::fs::read_to_string(log).unwrap();
        let _ = writeln!(std::io::stderr(), "skipped, as no process can be traced here: {said}");
        return None;
    }
    Some(tracer)
}

#[test]
fn syncs_that_fail_for_a_while_stop_everything_and_lose_nothing() {
    let world = World::with(SimConfig { latency: Duration::from_millis(100), ..SimConfig::default() });
    world.settings(&format!("{SERVE}[worker]\nconcurrency = 2\nbatch_size = 4\n"));
    let mut accepted = events(60, 1, (10, 2000));
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    for event in &accepted {
        serve.post(event);
    }
    let Some(mut tracer) = fail("fsync,fdatasync,syncfs", &serve.process, &world.path("strace.log")) else { return };
    assert!(archived(&world.archive()).len() < 60, "it was to fail in the middle");
    let refused = events_from(1000, 3, 1, (10, 1000));
    for event in &refused {
        assert_eq!(post(&serve, event), (503, true));
    }
    until("it says what is wrong", || {
        let troubles = serve.troubles();
        assert!(troubles["inbox"].contains("sync"), "{troubles:?}");
        (2..=3).contains(&troubles.len()) && !troubles.iter().any(|(_, reason)| reason.contains("being opened"))
    });
    until("it has tried again", || tries(&serve) >= TRIES);
    let asked = world.jelly.stats().api_requests;
    until("it has tried again", || tries(&serve) >= 2 * TRIES);
    assert_eq!(world.jelly.stats().api_requests, asked, "requests were spent in vain");

    kill_process(Pid::from_child(&tracer), Signal::TERM).unwrap();
    tracer.wait().unwrap();
    until("it is ready", || serve.is_ready());
    let last = events_from(5000, 5, 1, (10, 1000));
    for event in &last {
        serve.post(event);
    }
    accepted.extend(last);
    until_archived(&world.archive(), &ids(&accepted));
    serve.stop(&world);
    let ledger = world.ledger();
    assert!(ids(&accepted).is_subset(&ledger.ids("archived")));
    assert!(ledger.ids("failed").is_empty(), "attempts were spent");
    assert!(world.jelly.exchanges_max() <= 2, "{}", world.jelly.exchanges_max());
}
