//! Memory is flat, whatever the dump and the files: measured at its high-water mark.

use std::io::{BufWriter, Write};

use jellyjar::sim::corpus::{CorpusConfig, Profile, write_plain};

use crate::support::{Ledger, World, events};

/// The most that a run may have resident.
const LIMIT_KIB: u64 = 150 << 10;

/// Marks all attachments as inline, so that a large dump takes its time for reading and not for fetching, save one in
/// `keep`. Lines come one at a time.
struct Inline<W> {
    out: W,
    lines: u64,
    keep: u64,
}

impl<W: Write> Write for Inline<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = std::str::from_utf8(line).map_err(std::io::Error::other)?;
        if self.lines.is_multiple_of(self.keep) {
            self.out.write_all(line)?;
        } else {
            self.out.write_all(text.replace("\"inline\":false", "\"inline\":true").as_bytes())?;
        }
        self.lines += 1;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[test]
fn a_dump_of_a_million_messages_takes_no_more_memory_than_a_small_one() {
    const MESSAGES: u64 = 1_000_000;
    let world = World::new();
    let mut process = world.start_with_stdin(world.command(&["replay", "-", "--archive", "archive", "--json"]));
    let input = process.stdin();
    let writer = std::thread::spawn(move || {
        let config =
            CorpusConfig { profile: Profile::Plain, messages: MESSAGES, sizes: (100, 1000), ..CorpusConfig::default() };
        let mut out = Inline { out: BufWriter::with_capacity(1 << 20, input), lines: 0, keep: 1000 };
        write_plain(&config, &mut out).and_then(|_| out.flush())
    });
    let ended = process.wait();
    writer.join().unwrap().unwrap();
    let receipt = ended.receipt();
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!((receipt.payloads, receipt.attachments), (MESSAGES, MESSAGES));
    assert_eq!((receipt.archived, receipt.skipped), (1000, MESSAGES - 1000));
    assert_eq!(world.jelly.stats().exchanges, 1000);
    eprintln!("1,000,000 messages: {} KiB at most, {} s", ended.peak_kib, receipt.elapsed_seconds);
    assert!((1..LIMIT_KIB).contains(&ended.peak_kib), "{} KiB", ended.peak_kib);
}

#[test]
fn sixteen_large_downloads_at_once_take_no_more_memory_than_small_ones() {
    const SIZE: u64 = 256 << 20;
    let world = World::new();
    world.dump(&events(16, 1, (SIZE, SIZE)));
    let process = world.start(world.command(&[&World::REPLAY[..], &["--concurrency", "16"]].concat()));
    let ended = process.wait();
    let receipt = ended.receipt();
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!((receipt.archived, receipt.bytes_fetched, receipt.bytes_stored), (16, 16 * SIZE, 16 * SIZE));
    assert!(world.jelly.stats().in_flight_max >= 16, "they were not at once: {:?}", world.jelly.stats());
    eprintln!("16 x 256 MiB: {} KiB at most, {} s", ended.peak_kib, receipt.elapsed_seconds);
    assert!((1..LIMIT_KIB).contains(&ended.peak_kib), "{} KiB", ended.peak_kib);
    assert_eq!(Ledger::sound(&world.archive()).blobs.len(), 16);
}
