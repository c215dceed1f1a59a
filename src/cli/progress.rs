//! Progress on a terminal: a spinner for work that takes longer than a second.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Shows `what` and the elapsed time while `work` runs, when it takes longer than a second and standard error is a terminal.
pub fn with_spinner<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let done = Mutex::new(false);
    let wake = Condvar::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let guard = done.lock().unwrap_or_else(|e| e.into_inner());
            let (guard, _) = wake.wait_timeout_while(guard, Duration::from_secs(1), |d| !*d).unwrap_or_else(|e| e.into_inner());
            if *guard {
                return;
            }
            let bar = ProgressBar::new_spinner(); // draws on standard error, and only when that is a terminal
            bar.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a fixed template"));
            bar.set_message(what.to_string());
            let mut guard = guard;
            while !*guard {
                bar.tick();
                guard = wake.wait_timeout(guard, Duration::from_millis(100)).unwrap_or_else(|e| e.into_inner()).0;
            }
            bar.finish_and_clear();
        });
        let _end = End { done: &done, wake: &wake };
        work()
    })
}

/// Signals the end of the work when it is dropped, also by a panic; otherwise the spinner would wait for ever.
struct End<'a> {
    done: &'a Mutex<bool>,
    wake: &'a Condvar,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.done.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.wake.notify_all();
    }
}

/// A spinner with a message that the caller updates; on a terminal only.
pub fn counter() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a fixed template"));
    bar
}
