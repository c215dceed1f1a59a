//! A small fork-join pool for the JIT. Workers sleep while no network runs.
//!
//! A job is a body and a count; indices are handed out by a counter, so that a slow core takes fewer. Nothing is allocated per job. Between the steps of
//! one inference a worker spins for a few microseconds, which is less than a sleep and a wake-up would take; then it parks.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

/// The body of a parallel loop, in the C ABI of compiled networks.
pub type Body = unsafe extern "C" fn(ctx: *mut c_void, i: usize);

/// Polls of an idle worker before it parks: about 20 µs on the reference machine.
const SPINS: usize = 4000;

/// Threads that share the iterations of parallel loops with the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
    /// Held while a job runs: jobs of several callers take turns.
    turn: Mutex<()>,
}

struct Shared {
    /// Counts jobs: a worker takes part once in each.
    epoch: AtomicUsize,
    body: AtomicPtr<c_void>,
    ctx: AtomicPtr<c_void>,
    count: AtomicUsize,
    next: AtomicUsize,
    /// Workers that have not yet left the current job.
    busy: AtomicUsize,
    stop: AtomicBool,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller being one of them.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            body: AtomicPtr::new(std::ptr::null_mut()),
            ctx: AtomicPtr::new(std::ptr::null_mut()),
            count: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let workers: Vec<JoinHandle<()>> = (1..threads)
            .filter_map(|_| {
                let shared = shared.clone();
                // A thread that cannot be had is one less: the caller does its share.
                std::thread::Builder::new().name("dnnc".into()).spawn(move || shared.work()).ok()
            })
            .collect();
        let threads = workers.iter().map(|w| w.thread().clone()).collect();
        Pool { shared, workers, threads, turn: Mutex::new(()) }
    }

    /// Runs `body(ctx, i)` for every `i` below `count`, on all threads, and returns when all are done.
    pub fn run(&self, count: usize, body: Body, ctx: *mut c_void) {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let s = &*self.shared;
        s.body.store(body as *mut c_void, Ordering::Relaxed);
        s.ctx.store(ctx, Ordering::Relaxed);
        s.count.store(count, Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        s.busy.store(self.threads.len(), Ordering::Relaxed);
        s.epoch.fetch_add(1, Ordering::Release);
        for t in &self.threads {
            t.unpark();
        }
        s.share(body, ctx, count);
        while s.busy.load(Ordering::Acquire) != 0 {
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    fn share(&self, body: Body, ctx: *mut c_void, count: usize) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            // The caller of `run` guarantees that body and ctx belong together and live until `run` returns.
            #[allow(unsafe_code)]
            unsafe {
                body(ctx, i);
            }
        }
    }

    fn work(&self) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            let epoch = loop {
                let epoch = self.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    break epoch;
                }
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                spins += 1;
                if spins > SPINS {
                    std::thread::park();
                } else {
                    std::hint::spin_loop();
                }
            };
            seen = epoch;
            let body = self.body.load(Ordering::Relaxed);
            let (ctx, count) = (self.ctx.load(Ordering::Relaxed), self.count.load(Ordering::Relaxed));
            // `run` stored a `Body` before it advanced the epoch.
            #[allow(unsafe_code)]
            let body = unsafe { std::mem::transmute::<*mut c_void, Body>(body) };
            self.share(body, ctx, count);
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join(); // a worker that panicked has nothing more to tell
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(unsafe_code)]
    unsafe extern "C" fn count(ctx: *mut c_void, i: usize) {
        // The test passes an array of 1,000 counters that outlives the call.
        let counters = unsafe { std::slice::from_raw_parts(ctx as *const AtomicUsize, 1000) };
        counters[i].fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let counters: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            for n in [0, 1, 2, 3, 1000] {
                pool.run(n, count, counters.as_ptr() as *mut c_void);
            }
            let seen: Vec<usize> = counters.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            assert_eq!(seen[..4], [4, 3, 2, 1]);
            assert!(seen[4..].iter().all(|&c| c == 1));
        }
    }
}
