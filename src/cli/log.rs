//! Logs go to standard error, below the progress bar where there is one. `JELLYJAR_LOG` sets what is logged.

use std::io::{self, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
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

/// What `JELLYJAR_LOG` asks for, or what is wrong with it.
fn filter(wanted: &str) -> Result<EnvFilter, String> {
    // A word alone would be taken for a module's name, and nothing else be logged.
    let is_misspelt = |part: &&str| !part.contains(['=', '[', ']']) && part.parse::<LevelFilter>().is_err();
    if let Some(word) = wanted.split(',').map(str::trim).find(is_misspelt) {
        return Err(format!("{word:?} is no level"));
    }
    EnvFilter::try_new(wanted).map_err(|error| error.to_string())
}

/// Starts logging.
pub(super) fn start(quiet: bool) {
    let environment = Environment::from_process();
    let default = if quiet { "error" } else { "warn,jellyjar=info" };
    let wanted = environment.text("JELLYJAR_LOG").map_err(|error| error.to_string());
    let chosen = wanted.and_then(|wanted| wanted.map(filter).transpose());
    let (chosen, trouble) = match chosen {
        Ok(chosen) => (chosen, None),
        Err(trouble) => (None, Some(trouble)),
    };
    let filter = chosen.unwrap_or_else(|| EnvFilter::new(default));
    let colours = io::IsTerminal::is_terminal(&io::stderr()) && environment.path("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_target(false).with_writer(Writer);
    // Only a second start could fail, and there is none.
    let _ = subscriber.try_init();
    if let Some(trouble) = trouble {
        tracing::warn!(
            "JELLYJAR_LOG has no effect: {trouble}; write error, warn, info, debug or trace, or a level for each part as in \
             warn,jellyjar=debug"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_silences_nothing() {
        for wanted in ["debug", "INFO", "off", "warn,jellyjar=debug", "warn,jellyjar::web=trace", "info,[{team}]=debug"]
        {
            assert!(filter(wanted).is_ok(), "{wanted}");
        }
        for wanted in ["degub", "verbose", "warn,verbose", "jellyjar=degub"] {
            let trouble = filter(wanted).unwrap_err();
            assert!(!trouble.is_empty(), "{wanted}");
        }
    }
}
