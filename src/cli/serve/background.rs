//! The threads on which archives are worked on: apart from those that take webhooks, and behind them.
//!
//! An archive can take all the processor time there is, for hours, and nobody minds; a webhook that is kept waiting may
//! be lost, as Jelly does not send it again. So the scheduler is told: where both want a processor, the webhook has it.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// How far behind: at this niceness a thread has a tenth of what one without has, so that it is never stuck with a lock.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A runtime for what may wait. Its threads, and all that they start, have a lower priority.
#[derive(Debug)]
pub(super) struct Background(Option<Runtime>);

impl Background {
    /// Starts it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().thread_name("background").on_thread_start(step_back).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs something to its end on a new thread of this kind.
    pub(super) fn spawn(&self, work: impl FnOnce(&Handle) + Send + 'static) {
        let Some(handle) = self.0.as_ref().map(|runtime| runtime.handle().clone()) else { return };
        std::thread::spawn(move || {
            step_back();
            work(&handle);
        });
    }
}

impl Drop for Background {
    /// Waits for nothing: what was to be ended in good order has ended, and the rest is begun again by the next start.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the calling thread. Linux has one for each thread, which those inherit that it starts; elsewhere
/// it is the whole process's, and stays as it is.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // Where somebody has made the process nicer than this, it stays so. Everybody may step back (setpriority(2)).
        if getpriority_process(None).is_ok_and(|niceness| niceness < NICENESS) {
            let _ = setpriority_process(None, NICENESS);
        }
    }
}
