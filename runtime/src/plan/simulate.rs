//! What a plan of pipelines does in time: inputs come, stages run on their cores by the earliest deadline, gates let events pass.

use super::pipeline::{Machine, Plan, Stage};
use super::random::Random;

/// A run of a stage.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// The stage.
    pub stage: usize,
    /// Its core.
    pub core: usize,
    /// Inputs that it took.
    pub inputs: usize,
    /// Seconds at which it began and ended.
    pub begin: f64,
    /// As above.
    pub end: f64,
    /// The earliest deadline of its inputs.
    pub deadline: f64,
}

/// When inputs come, and which of them gates let pass.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Arrivals {
    /// For each stage without a predecessor the seconds at which inputs come, rising; empty for the others.
    pub times: Vec<Vec<f64>>,
}

/// What happened.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Schedule {
    /// All runs, by their begin.
    pub runs: Vec<Run>,
    /// Runs that ended after their deadline.
    pub missed: usize,
    /// Seconds of core time, by core.
    pub busy: Vec<f64>,
    /// Largest latency of a result of each stage from the input on, in seconds.
    pub latency: Vec<f64>,
}

/// Inputs at even intervals for so many seconds.
pub fn periodic(stages: &[Stage], seconds: f64) -> Arrivals {
    let times = |s: &Stage| match s.after {
        None if s.rate > 0.0 => (0..).map(|k| f64::from(k) / s.rate).take_while(|&t| t < seconds).collect(),
        _ => vec![],
    };
    Arrivals { times: stages.iter().map(times).collect() }
}

/// A result on its way: when it is there, and when its pipeline began with it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Item {
    ready: f64,
    born: f64,
}

/// Simulates: a core that is free takes the stage with the earliest deadline of those that have a full batch, or a part of one that can wait no longer. A
/// gate passes an item as `gate(stage, number of the item)` says.
pub fn simulate(
    stages: &[Stage],
    machine: Machine,
    plan: &Plan,
    arrivals: &Arrivals,
    mut gate: impl FnMut(usize, usize) -> bool,
) -> Schedule {
    let n = stages.len();
    let mut queues: Vec<Vec<Item>> = vec![vec![]; n];
    for (i, times) in arrivals.times.iter().enumerate() {
        queues[i] = times.iter().map(|&t| Item { ready: t, born: t }).collect();
    }
    let mut taken = vec![0usize; n];
    let mut passed = vec![0usize; n];
    let mut free = vec![0.0f64; machine.cores];
    let mut out = Schedule { runs: vec![], missed: 0, busy: vec![0.0; machine.cores], latency: vec![0.0; n] };
    let children: Vec<Vec<usize>> = (0..n).map(|i| (0..n).filter(|&k| stages[k].after == Some(i)).collect()).collect();
    loop {
        // Of all cores the run that begins first; of runs that could begin at once the one with the earliest deadline.
        let mut next: Option<(f64, f64, usize, usize)> = None;
        for i in 0..n {
            let waiting = &queues[i][taken[i]..];
            let Some(first) = waiting.first() else { continue };
            let (core, batch) = (plan.places[i].core, plan.places[i].batch);
            let run = stages[i].wake + stages[i].compute * batch as f64;
            let deadline = first.born + stages[i].deadline;
            // A batch that does not fill in time goes as it is.
            let (ready, count) = match waiting.get(batch - 1) {
                Some(last) if last.ready <= (deadline - run).max(first.ready) => (last.ready, batch),
                _ => {
                    let latest = if batch == 1 { first.ready } else { (deadline - 2.0 * run).max(first.ready) };
                    (latest, waiting.iter().take(batch).take_while(|x| x.ready <= latest).count().max(1))
                }
            };
            let begin = ready.max(free[core]);
            let better = next.is_none_or(|(b, d, ..)| begin < b || (begin == b && deadline < d));
            if better {
                next = Some((begin, deadline, i, count));
            }
        }
        let Some((begin, deadline, i, count)) = next else { break };
        let core = plan.places[i].core;
        let hop = stages[i].after.map_or(0.0, |b| if plan.places[b].core == core { 0.0 } else { machine.hop });
        let time = stages[i].wake + hop + stages[i].compute * count as f64;
        let end = begin + time;
        free[core] = end;
        out.busy[core] += time;
        let items: Vec<Item> = queues[i][taken[i]..taken[i] + count].to_vec();
        taken[i] += count;
        for item in items {
            out.latency[i] = out.latency[i].max(end - item.born);
            let pass = stages[i].pass >= 1.0 || gate(i, passed[i]);
            passed[i] += 1;
            if pass {
                for &k in &children[i] {
                    let item = Item { ready: end, born: item.born };
                    // Runs of a stage end in order, so its results come in order.
                    queues[k].push(item);
                }
            }
        }
        out.missed += usize::from(end > deadline + 1e-9);
        out.runs.push(Run { stage: i, core, inputs: count, begin, end, deadline });
    }
    out.runs.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.core.cmp(&b.core)));
    out
}

/// Gates that pass each item with the probability of their stage, by a seed.
pub fn by_chance(stages: &[Stage], seed: u64) -> impl FnMut(usize, usize) -> bool + use<> {
    let pass: Vec<f64> = stages.iter().map(|s| s.pass).collect();
    move |stage, number| Random(seed ^ ((stage as u64) << 40) ^ number as u64).unit() < pass[stage]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::pipeline::{Place, plan};

    fn stage(name: &str, after: Option<usize>, rate: f64, pass: f64, compute: f64, deadline: f64) -> Stage {
        Stage { name: name.into(), after, rate, pass, compute, wake: 0.0, deadline, batch: 1 }
    }

    #[test]
    fn nothing_is_missed_at_80_percent() {
        let stages = [
            stage("detect", None, 20.0, 1.0, 0.020, 0.2),
            stage("landmark", Some(0), 0.0, 1.0, 0.010, 0.2),
            stage("vad", None, 100.0, 0.1, 0.004, 0.1),
            stage("speech", Some(2), 0.0, 1.0, 0.060, 0.5),
        ];
        let machine = Machine { cores: 2, hop: 20e-6 };
        let plan = plan(&stages, machine);
        assert_eq!(plan.excess, 0.0, "{plan:?}");
        let s = simulate(&stages, machine, &plan, &periodic(&stages, 60.0), |_, number| number % 10 == 0);
        assert_eq!(s.missed, 0, "{:?}", s.latency);
        assert!((s.busy.iter().sum::<f64>() / 60.0 - plan.cost).abs() < 0.1 * plan.cost);
    }

    #[test]
    fn a_gate_saves_what_is_behind_it() {
        let busy = |pass| {
            let stages = [stage("gate", None, 50.0, pass, 0.0005, 0.1), stage("net", Some(0), 0.0, 1.0, 0.015, 0.3)];
            let machine = Machine { cores: 1, hop: 0.0 };
            let places = vec![Place { core: 0, batch: 1 }; 2];
            let plan = Plan { places, cost: 0.0, excess: 0.0, complete: true };
            simulate(&stages, machine, &plan, &periodic(&stages, 60.0), by_chance(&stages, 3)).busy[0]
        };
        assert!(busy(1.0) >= 5.0 * busy(0.1));
    }
}
