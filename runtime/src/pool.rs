//! A small fork-join pool for the JIT. Workers sleep while no network runs.
//!
//! A job is a body and a count; indices are handed out by a counter, so that a slow core takes fewer. A worker joins a job that is open and leaves it when
//! no index is left; one that wakes up too late to help is not waited for. Nothing is allocated per job. Between the steps of one inference a worker
//! spins for some microseconds, which is less than a sleep and a wake-up would take; then it parks.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::{JoinHandle, Thread};

/// The body of a parallel loop, in the C ABI of compiled networks.
pub type Body = unsafe extern "C" fn(ctx: *mut c_void, i: usize);

/// Polls of an idle worker before it parks: about 60 µs on the reference machine. To wake it then takes its waker 10 to 100 µs in a virtual machine.
const SPINS: usize = 4000;

/// Threads that share the iterations of parallel loops with the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
    /// Held while a job runs.
    turn: Mutex<()>,
}

struct Shared {
    /// The number of the current job (high half), whether it is [`OPEN`], and how many workers are in it (the low bits).
    state: AtomicU64,
    body: AtomicPtr<c_void>,
    ctx: AtomicPtr<c_void>,
    count: AtomicUsize,
    next: AtomicUsize,
    stop: AtomicBool,
}

/// Workers may join.
const OPEN: u64 = 1 << 31;

/// One more job.
const JOB: u64 = 1 << 32;

impl Pool {
    /// A pool in which `threads` threads work, the caller being one of them.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            body: AtomicPtr::new(std::ptr::null_mut()),
            ctx: AtomicPtr::new(std::ptr::null_mut()),
            count: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
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

    /// Runs `body(ctx, i)` for every `i` below `count`, on all threads, and returns when all are done. While another caller's job runs it uses this
    /// thread alone.
    ///
    /// # Safety
    /// `body` may be called with `ctx` on any thread, for each `i` below `count`, until this returns.
    #[allow(unsafe_code)]
    pub unsafe fn run(&self, count: usize, body: Body, ctx: *mut c_void) {
        let s = &*self.shared;
        let turn = self.turn.try_lock();
        if count < 2 || self.threads.is_empty() || matches!(turn, Err(TryLockError::WouldBlock)) {
            for i in 0..count {
                // The caller guarantees that body and ctx belong together.
                #[allow(unsafe_code)]
                unsafe {
                    body(ctx, i);
                }
            }
            return;
        }
        s.body.store(body as *mut c_void, Ordering::Relaxed);
        s.ctx.store(ctx, Ordering::Relaxed);
        s.count.store(count, Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        let job = (s.state.load(Ordering::Relaxed) & !(JOB - 1)).wrapping_add(JOB);
        s.state.store(job | OPEN, Ordering::Release);
        for t in self.threads.iter().take(count - 1) {
            t.unpark();
        }
        s.share();
        s.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut polls = 0;
        while s.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            polls += 1;
            // With more threads than cores, the one waited for may need this core.
            if polls > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

impl Shared {
    /// Takes indices of the current job until none is left.
    fn share(&self) {
        // `run` stored a `Body` before it opened the job.
        #[allow(unsafe_code)]
        let body = unsafe { std::mem::transmute::<*mut c_void, Body>(self.body.load(Ordering::Relaxed)) };
        let (ctx, count) = (self.ctx.load(Ordering::Relaxed), self.count.load(Ordering::Relaxed));
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            // The caller of `run` guarantees that body and ctx belong together and live until `run` returns, which waits for all who joined.
            #[allow(unsafe_code)]
            unsafe {
                body(ctx, i);
            }
        }
    }

    fn work(&self) {
        let (mut seen, mut polls) = (0, 0);
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / JOB != seen {
                // Joining fails when others join or the job closes meanwhile; then look again.
                if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    seen = state / JOB;
                    self.share();
                    self.state.fetch_sub(1, Ordering::Release);
                    polls = 0;
                }
                continue;
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            polls += 1;
            if polls > SPINS { std::thread::park() } else { std::hint::spin_loop() }
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
                // SAFETY: `count` takes these counters, which outlive the call.
                #[allow(unsafe_code)]
                unsafe {
                    pool.run(n, count, counters.as_ptr() as *mut c_void);
                }
            }
            let seen: Vec<usize> = counters.iter().map(|c| c.load(Ordering::Relaxed)).collect();
            assert_eq!(seen[..4], [4, 3, 2, 1]);
            assert!(seen[4..].iter().all(|&c| c == 1));
        }
    }

    #[test]
    fn callers_do_not_disturb_each_other() {
        let pool = Pool::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let counters: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
                    for _ in 0..200 {
                        // SAFETY: `count` takes these counters, which outlive the call.
                        #[allow(unsafe_code)]
                        unsafe {
                            pool.run(1000, count, counters.as_ptr() as *mut c_void);
                        }
                    }
                    assert!(counters.iter().all(|c| c.load(Ordering::Relaxed) == 200));
                });
            }
        });
    }
}
