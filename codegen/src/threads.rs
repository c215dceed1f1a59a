//! Which steps are spread over threads: those that predictably gain more than it costs to hand work over and to wake who sleeps.
//!
//! Workers spin for a while after a step that they shared and then sleep (`pool.rs`). So a shared step soon after another costs little, one after
//! long work of a single thread costs a wake-up. Which steps to share is a shortest path along the network; where a path
//! gains next to nothing, all is left to one thread.

use dnnc_ir::{Attrs, Kind};
use dnnc_kir::program::{Call, Step};
use dnnc_targets::Target;

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

/// Nanoseconds to share a step with workers that are awake, and to wait for the last of them: 300 on Zen 3.
const SHARE_NS: f64 = 600.0;
/// Nanoseconds until a sleeping worker helps, of which its waker loses about half: 15 to 100 µs in virtual machines, less without one.
const WAKE_NS: f64 = 25_000.0;
/// Nanoseconds for which workers are awake after a shared step: the polls of `pool.rs` take longer on all machines measured.
const AWAKE_NS: f64 = 40_000.0;
/// Part of the time of one thread that several must save.
const WORTH: f64 = 0.04;
/// Nanoseconds of a call of nothing.
const CALL_NS: f64 = 50.0;

/// Predicted nanoseconds of an operator on one thread (`None`: element-wise operators), by its work and its traffic.
pub fn predicted(op: Option<(Kind, &Attrs)>, work: u64, traffic: u64, target: &Target) -> f64 {
    let lanes = target.vector.bits as f64 / 32.0;
    let ghz = target.mhz as f64 / 1e3;
    let peak = target.peak_macs() / 1e9;
    let rate = match op {
        // Depthwise and grouped convolutions wait for loads.
        Some((Kind::Conv, attrs)) if attrs.int("groups") > 1 => peak * 0.35,
        Some((Kind::Conv | Kind::MatMul | Kind::Attention, _)) => peak * 0.85,
        Some((Kind::ConvTranspose, _)) => peak * 0.5,
        Some((Kind::Lstm | Kind::Gru | Kind::Rnn, _)) => peak * 0.45,
        _ => lanes * ghz,
    };
    let bytes = traffic as f64;
    // A register in two cycles from the second-level cache, the same in twice the time from the last.
    let cache = ghz * lanes * 2.0;
    let bandwidth = match traffic as usize {
        n if n <= target.l2 => cache,
        n if n <= target.l3 => cache / 2.0,
        _ => target.memory_mb_s as f64 / 1e3,
    };
    CALL_NS + (work as f64 / rate).max(bytes / bandwidth)
}

/// Says of each call whether one thread does it alone, and what that gives.
pub fn settle(steps: &mut [Step], threads: usize) -> Plan {
    let (together_ns, alone_ns) = path(steps, threads);
    let worth = together_ns < alone_ns * (1.0 - WORTH);
    Plan { threads: if worth { threads } else { 1 }, together_ns, alone_ns }
}

/// Nanoseconds of a call on several threads that are awake.
fn shared(call: &Call, threads: usize) -> f64 {
    call.ns * call.tasks.div_ceil(threads) as f64 / call.tasks as f64 + SHARE_NS
}

/// The shortest path: nanoseconds with several threads and with one.
fn path(steps: &mut [Step], threads: usize) -> (f64, f64) {
    // Nanoseconds of each step on one thread, on several (∞ where it cannot be shared), and of all before it on one.
    let (mut alone, mut together, mut before) = (vec![], vec![], vec![0.0]);
    let mut total_alone = 0.0;
    for step in steps.iter_mut() {
        let (one, here, several) = match step {
            Step::Call(call) if call.tasks > 1 => (call.ns, call.ns, shared(call, threads)),
            Step::Call(call) => (call.ns, call.ns, f64::INFINITY),
            Step::If { then, otherwise, .. } => {
                let (a, b) = (path(then, threads), path(otherwise, threads));
                (a.1.max(b.1), a.0.max(b.0), f64::INFINITY)
            }
            Step::Loop { max_trip, body, .. } => {
                let (several, one) = path(body, threads);
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
        let mut least = (far.0 + WAKE_NS, far.1);
        let near = (0..i).rev().take_while(|&j| before[i] - before[j + 1] <= AWAKE_NS).filter(|&j| best[j].0.is_finite());
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
        let plan = settle(&mut steps, 2);
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
