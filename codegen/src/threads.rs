//! Which steps are spread over threads: those that predictably gain more than it costs to hand work over and to wake who sleeps.
//!
//! Workers spin for a while after a step that they shared and then sleep (`pool.rs`). So a shared step soon after another costs little, one after
//! long work of a single thread costs a wake-up. Which steps to share is a shortest path along the network; where a path
//! gains next to nothing, all is left to one thread.

use dnnc_kir::program::{Call, Step};
use dnnc_targets::Overheads;

/// What the threads of a network are predicted to gain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Threads that the network is cut for: those asked for, or 1.
    pub threads: usize,
    /// Predicted time with all threads asked for, in nanoseconds.
    pub together_ns: f64,
    /// Predicted time of one, in nanoseconds.
    pub alone_ns: f64,
}

/// Part of the time of one thread that several must save.
const WORTH: f64 = 0.04;

/// Says of each call whether one thread does it alone, and what that gives.
pub fn plan_parallelism(steps: &mut [Step], threads: usize, overheads: &Overheads) -> Plan {
    let (together_ns, alone_ns) = path(steps, threads, overheads);
    let worth = together_ns < alone_ns * (1.0 - WORTH);
    Plan { threads: if worth { threads } else { 1 }, together_ns, alone_ns }
}

/// Nanoseconds of a call on several threads that are awake.
fn shared(call: &Call, threads: usize, overheads: &Overheads) -> f64 {
    call.ns * call.tasks.div_ceil(threads) as f64 / call.tasks as f64 + overheads.share
}

/// The shortest path: nanoseconds with several threads and with one.
fn path(steps: &mut [Step], threads: usize, overheads: &Overheads) -> (f64, f64) {
    // Nanoseconds of each step on one thread, on several (∞ where it cannot be shared), and of all before it on one.
    let (mut alone, mut together, mut before) = (vec![], vec![], vec![0.0]);
    let mut total_alone = 0.0;
    for step in steps.iter_mut() {
        let (one, here, several) = match step {
            Step::Call(call) if call.tasks > 1 => (call.ns, call.ns, shared(call, threads, overheads)),
            Step::Call(call) => (call.ns, call.ns, f64::INFINITY),
            Step::If { then, otherwise, .. } => {
                let (a, b) = (path(then, threads, overheads), path(otherwise, threads, overheads));
                (a.1.max(b.1), a.0.max(b.0), f64::INFINITY)
            }
            Step::Loop { max_trip, body, .. } => {
                let (several, one) = path(body, threads, overheads);
                (one * *max_trip as f64, several * *max_trip as f64, f64::INFINITY)
            }
        };
        total_alone += one;
        alone.push(here);
        together.push(several);
        before.push(before[before.len() - 1] + here);
    }
    let n = steps.len();
    // Of each shared step: the least time to its end, and the shared step before it. `far`: the best to be woken after.
    let mut best: Vec<(f64, Option<usize>)> = vec![(f64::INFINITY, None); n];
    let mut far: (f64, Option<usize>) = (0.0, None);
    let mut last: (f64, Option<usize>) = (before[n], None);
    for i in (0..n).filter(|&i| together[i] < alone[i]) {
        let mut least = (far.0 + overheads.wake, far.1);
        let near = (0..i).rev().take_while(|&j| before[i] - before[j + 1] <= overheads.awake).filter(|&j| best[j].0.is_finite());
        for j in near {
            let until = best[j].0 - before[j + 1];
            if until < least.0 {
                least = (until, Some(j));
            }
        }
        best[i] = (least.0 + before[i] + together[i], least.1);
        let until = best[i].0 - before[i + 1];
        if until < far.0 {
            far = (until, Some(i));
        }
        if until + before[n] < last.0 {
            last = (until + before[n], Some(i));
        }
    }
    let mut chosen = vec![false; n];
    let mut at = last.1;
    while let Some(i) = at {
        chosen[i] = true;
        at = best[i].1;
    }
    for (step, chosen) in steps.iter_mut().zip(chosen) {
        if let Step::Call(call) = step {
            call.alone = !chosen;
        }
    }
    (last.0, total_alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(steps: &[(f64, usize)]) -> Vec<Step> {
        steps.iter().map(|&(us, tasks)| Step::Call(Call { tasks, ns: us * 1e3, ..Call::default() })).collect()
    }

    fn shared_steps(steps: &[(f64, usize)]) -> (Vec<usize>, usize) {
        let mut steps = network(steps);
        let plan = plan_parallelism(&mut steps, 2, &dnnc_targets::find("x86-64-v3").expect("a record").overheads);
        let shared = |s: &Step| matches!(s, Step::Call(call) if !call.alone);
        ((0..steps.len()).filter(|&i| shared(&steps[i])).collect(), plan.threads)
    }

    #[test]
    fn work_that_repays_the_waking_is_shared() {
        assert_eq!(shared_steps(&[(10.0, 4), (10.0, 4)]), (vec![], 1));
        assert_eq!(shared_steps(&[(100.0, 4)]), (vec![0], 2));
        // Awake for the first, workers help with what is small, but not with what cannot be cut or is too small.
        assert_eq!(shared_steps(&[(100.0, 4), (3.0, 2), (1.0, 2), (5.0, 1), (5.0, 2)]), (vec![0, 1, 4], 2));
        // After long work of one thread they would have to be woken again.
        assert_eq!(shared_steps(&[(100.0, 4), (200.0, 1), (30.0, 4)]), (vec![0], 2));
        assert_eq!(shared_steps(&[(100.0, 4), (200.0, 1), (90.0, 4)]), (vec![0, 2], 2));
        // Two threads do three tasks in the time of two.
        assert_eq!(shared_steps(&[(60.0, 3)]), (vec![], 1));
        // The gain is too small a part.
        assert_eq!(shared_steps(&[(2000.0, 1), (100.0, 2)]).1, 1);
    }
}
