//! Logs go to standard error, below the progress bar where there is one. `JELLYJAR_LOG` sets what is logged.

use std::io::{self, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Environment;

/// All progress bars, so that log lines can be printed above them.
pub(super) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

struct Writer;

impl<'a> MakeWriter<'a> for Writer {
    type Writer = io::LineWriter<AboveBars>;

    fn make_writer(&'a self) -> Self::Writer {
        io::LineWriter::new(AboveBars)
    }
}

/// Starts logging.
pub(super) fn start(quiet: bool) {
    let environment = Environment::from_process();
    let default = if quiet { "error" } else { "warn,jellyjar=info" };
    let wanted = environment.text("JELLYJAR_LOG").ok().flatten().unwrap_or(default);
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::IsTerminal::is_terminal(&io::stderr()) && environment.path("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_target(false).with_writer(Writer);
    // Only a second start could fail, and there is none.
    let _ = subscriber.try_init();
}
