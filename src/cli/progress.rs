//! Progress: a bar on a terminal, a plain log line every few seconds elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::log;
use super::receipt::{number, size};
use crate::archive::Tally;

/// What is to be done, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Attachments that were put in the queue.
    pub(super) attachments: AtomicU64,
    /// Payloads that were read.
    pub(super) payloads: AtomicU64,
    /// How far the input is, in words, where there is more to say.
    pub(super) stage: Mutex<String>,
}

/// Shows progress until it is dropped.
pub(super) struct Progress {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How often a plain line is logged.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// Starts showing. `None` when nothing is to be shown.
    pub(super) fn start(quiet: bool, tally: Arc<Tally>, expected: Arc<Expected>) -> Option<Self> {
        if quiet {
            return None;
        }
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = on_terminal.then(|| {
            let bar = log::bars().add(ProgressBar::new(0));
            let style = ProgressStyle::with_template("{spinner} {bar:24} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let period = if shown.is_some() { Duration::from_millis(200) } else { LINE_EVERY };
            let mut ticks = tokio::time::interval_at(started + period, period);
            loop {
                ticks.tick().await;
                let text = describe(&tally, &expected, started.elapsed());
                match &shown {
                    Some(bar) => {
                        bar.set_length(expected.attachments.load(Ordering::Relaxed));
                        bar.set_position(tally.decided.load(Ordering::Relaxed));
                        bar.set_message(text);
                    }
                    None => tracing::info!("{text}"),
                }
            }
        });
        Some(Self { task, bar })
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are positive and shown with two digits"
)]
fn describe(tally: &Tally, expected: &Expected, elapsed: Duration) -> String {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (decided, wanted, bytes) = (of(&tally.decided), of(&expected.attachments), of(&tally.bytes_fetched));
    let seconds = elapsed.as_secs_f64().max(0.001);
    let mut text = format!(
        "{} of {} attachments, {} ({}/s)",
        number(decided),
        number(wanted),
        size(bytes),
        size((bytes as f64 / seconds) as u64)
    );
    for (count, word) in
        [(of(&tally.failed), "failed"), (of(&tally.quarantined), "quarantined"), (of(&tally.retried), "retried")]
    {
        if count > 0 {
            text.push_str(&format!(", {} {word}", number(count)));
        }
    }
    if decided > 0 && wanted > decided {
        let left = (wanted - decided) as f64 * seconds / decided as f64;
        text.push_str(&format!(
            ", {} left",
            crate::config::values::format_duration(Duration::from_secs(left.ceil() as u64))
        ));
    }
    let stage = expected.stage.lock().unwrap_or_else(PoisonError::into_inner);
    if !stage.is_empty() {
        text = format!("{stage}; {text}");
    } else if wanted == 0 {
        text.push_str(&format!(", {} payloads read", number(of(&expected.payloads))));
    }
    text
}
