//! Pipelines over cores (leo): which core runs each stage, and how many inputs it takes at once.
//!
//! A stage runs `rate` times a second on average, after all gates before it; a run takes `wake` seconds once and `compute` for each input, so a batch of
//! `b` costs `wake + b·compute` and is waited for `(b − 1)/rate`. Where a stage's predecessor is on another core, each run pays `hop` more. What is minimised
//! is seconds of core time a second; a plan is feasible where no core is used more than [`FULL`] and the latency of each stage, from the input of its
//! pipeline on (waiting for batches, computing, and once the longest run of any other stage on each core that it passes), is within its deadline.
//! Infeasible plans are compared by how far they are off first.

/// A stage of a pipeline.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// Name, for schedules.
    pub name: String,
    /// The stage whose results it takes; `None` for the first of a pipeline. Smaller than the number of the stage itself.
    pub after: Option<usize>,
    /// Inputs a second, of the first stage of a pipeline; later ones follow from it.
    pub rate: f64,
    /// Which part of its inputs a stage passes on: 1 unless it is a gate.
    pub pass: f64,
    /// Seconds for each input.
    pub compute: f64,
    /// Seconds for each run, whatever it takes up.
    pub wake: f64,
    /// Seconds from the input of the pipeline until its result must be there.
    pub deadline: f64,
    /// Most inputs that one run may take; 1: no batches.
    pub batch: usize,
}

/// The machine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Machine {
    /// Cores, at least 1.
    pub cores: usize,
    /// Seconds to hand data to another core.
    pub hop: f64,
}

/// Where and how a stage runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The core.
    pub core: usize,
    /// Inputs a run.
    pub batch: usize,
}

/// Places of all stages, and what they cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// A place for each stage.
    pub places: Vec<Place>,
    /// Seconds of core time a second.
    pub cost: f64,
    /// How far the plan is from feasible; 0: it is.
    pub excess: f64,
    /// Whether every plan was considered.
    pub complete: bool,
}

/// Largest utilisation of a core; the rest is for what is not planned.
pub const FULL: f64 = 0.95;
/// Most stages that are searched completely.
pub const COMPLETE: usize = 8;
/// Most plans that local search looks at from one start: about 0.3 µs each for 20 stages.
const QUICK: usize = 600;
/// Most partial plans that the complete search visits; beyond, the best so far is taken. About 20 ns each.
const VISITS: usize = 20_000_000;

/// Inputs a second of each stage, behind the gates.
pub fn rates(stages: &[Stage]) -> Vec<f64> {
    let mut out: Vec<f64> = Vec::with_capacity(stages.len());
    for s in stages {
        out.push(match s.after {
            Some(before) => out[before] * stages[before].pass,
            None => s.rate,
        });
    }
    out
}

/// What is the same for all plans of a workload.
struct Work<'a> {
    stages: &'a [Stage],
    machine: Machine,
    rates: Vec<f64>,
    /// Sizes of batches that a stage may take.
    sizes: Vec<Vec<usize>>,
}

/// What a plan costs.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Score {
    excess: f64,
    cost: f64,
}

impl Score {
    /// Costs that differ by rounding are the same.
    fn better(self, other: Score) -> bool {
        self.excess < other.excess - 1e-12 || (self.excess <= other.excess + 1e-12 && self.cost < other.cost - 1e-12)
    }
}

const MAX_CORES: usize = 16;

impl<'a> Work<'a> {
    fn new(stages: &'a [Stage], machine: Machine) -> Work<'a> {
        let rates = rates(stages);
        let sizes = stages.iter().zip(&rates).map(|(s, &rate)| sizes(s, rate)).collect();
        Work { stages, machine: Machine { cores: machine.cores.clamp(1, MAX_CORES), ..machine }, rates, sizes }
    }

    /// Seconds of one run, and core time a second.
    fn load(&self, places: &[Place], i: usize) -> (f64, f64) {
        let (s, place) = (&self.stages[i], places[i]);
        let hop = match s.after {
            Some(b) if places[b].core != place.core => self.machine.hop,
            _ => 0.0,
        };
        let run = s.wake + hop + s.compute * place.batch as f64;
        (run, run * self.rates[i] / place.batch as f64)
    }

    /// The score of the first `places.len()` stages; that of all is not lower.
    fn score(&self, places: &[Place]) -> Score {
        let (mut used, mut longest) = ([0.0f64; MAX_CORES], [(0.0f64, usize::MAX, 0.0f64); MAX_CORES]);
        let mut cost = 0.0;
        for i in 0..places.len() {
            let (run, load) = self.load(places, i);
            let core = places[i].core;
            used[core] += load;
            cost += load;
            let top = &mut longest[core];
            if run > top.0 {
                *top = (run, i, top.0);
            } else {
                top.2 = top.2.max(run);
            }
        }
        let mut excess: f64 = used[..self.machine.cores].iter().map(|u| (u - FULL).max(0.0)).sum();
        for i in 0..places.len() {
            let limit = self.stages[i].deadline;
            let (mut latency, mut seen, mut at) = (0.0, 0u64, Some(i));
            while let Some(s) = at {
                let core = places[s].core;
                latency += self.load(places, s).0;
                if places[s].batch > 1 {
                    latency += (places[s].batch - 1) as f64 / self.rates[s].max(1e-12);
                }
                if seen & (1 << core) == 0 {
                    seen |= 1 << core;
                    let top = longest[core];
                    latency += if top.1 == s { top.2 } else { top.0 };
                }
                at = self.stages[s].after;
            }
            excess += (latency / limit - 1.0).max(0.0);
        }
        Score { excess, cost }
    }

    /// Load first, the longest: each stage where it costs least beside those before. Then changes of one stage and swaps of two cores.
    fn greedy(&self, tries: usize) -> (Vec<Place>, Score) {
        let mut starts = vec![];
        for largest in [false, true] {
            let mut places: Vec<Place> = vec![];
            for i in 0..self.stages.len() {
                let mut best: Option<(Score, Place)> = None;
                for core in 0..self.machine.cores {
                    let batches = if largest { &self.sizes[i][..] } else { &self.sizes[i][..1] };
                    for &batch in batches {
                        places.push(Place { core, batch });
                        let score = self.score(&places);
                        if best.is_none_or(|(b, _)| score.better(b)) {
                            best = Some((score, places[i]));
                        }
                        places.pop();
                    }
                }
                places.extend(best.map(|b| b.1));
            }
            let score = self.score(&places);
            starts.push(self.improve(places, score, tries));
        }
        let (second, first) = (starts.pop(), starts.pop());
        match (first, second) {
            (Some(a), Some(b)) if b.1.better(a.1) => b,
            (Some(a), _) => a,
            (None, _) => (vec![], Score { excess: 0.0, cost: 0.0 }),
        }
    }

    fn improve(&self, mut places: Vec<Place>, mut score: Score, tries: usize) -> (Vec<Place>, Score) {
        let mut left = tries;
        while left > 0 {
            let mut better = false;
            for i in 0..places.len() {
                let mut kept = places[i];
                for core in 0..self.machine.cores {
                    for &batch in &self.sizes[i] {
                        if left == 0 {
                            break;
                        }
                        left -= 1;
                        places[i] = Place { core, batch };
                        let tried = self.score(&places);
                        if tried.better(score) {
                            (score, kept, better) = (tried, places[i], true);
                        }
                    }
                }
                places[i] = kept;
            }
            if !better {
                for i in 0..places.len() {
                    for k in i + 1..places.len() {
                        if places[i].core == places[k].core || left == 0 {
                            continue;
                        }
                        left -= 1;
                        let (a, b) = (places[i].core, places[k].core);
                        (places[i].core, places[k].core) = (b, a);
                        let tried = self.score(&places);
                        if tried.better(score) {
                            (score, better) = (tried, true);
                        } else {
                            (places[i].core, places[k].core) = (a, b);
                        }
                    }
                }
            }
            if !better {
                break;
            }
        }
        (places, score)
    }

    /// All plans, except those whose beginning is already no better than the best.
    fn search(&self, places: &mut Vec<Place>, best: &mut (Vec<Place>, Score), visits: &mut usize, rest: &[f64]) {
        let i = places.len();
        if i == self.stages.len() {
            let score = self.score(places);
            if score.better(best.1) {
                *best = (places.clone(), score);
            }
            return;
        }
        // Cores are alike: of those not yet used one is as good as another.
        let used = places.iter().map(|p| p.core + 1).max().unwrap_or(0);
        for core in 0..self.machine.cores.min(used + 1) {
            for &batch in self.sizes[i].iter().rev() {
                if *visits == 0 {
                    return;
                }
                *visits -= 1;
                places.push(Place { core, batch });
                let mut bound = self.score(places);
                bound.cost += rest[i + 1];
                if bound.better(best.1) {
                    self.search(places, best, visits, rest);
                }
                places.pop();
            }
        }
    }
}

/// Sizes of batches: powers of two and the most that waits no longer than the deadline.
fn sizes(stage: &Stage, rate: f64) -> Vec<usize> {
    let mut out = vec![1];
    let waits = |b: usize| (b - 1) as f64 / rate.max(1e-12) + stage.wake + stage.compute * b as f64 <= stage.deadline;
    let mut b = 2;
    while b <= stage.batch && waits(b) {
        out.push(b);
        b *= 2;
    }
    let most = (2..=stage.batch).take_while(|&b| waits(b)).last();
    out.extend(most.filter(|m| out.last().is_some_and(|l| l < m)));
    out
}

/// Places for all stages: the best there are up to [`COMPLETE`] stages, else good ones, found in less than a millisecond for 20.
pub fn plan(stages: &[Stage], machine: Machine) -> Plan {
    let work = Work::new(stages, machine);
    if stages.len() > COMPLETE {
        let (places, score) = work.greedy(QUICK);
        return Plan { places, cost: score.cost, excess: score.excess, complete: false };
    }
    let mut best = work.greedy(usize::MAX);
    let mut visits = VISITS;
    let mut rest = vec![0.0; stages.len() + 1];
    for i in (0..stages.len()).rev() {
        let s = &stages[i];
        let least = |b: &usize| (s.wake / *b as f64 + s.compute) * work.rates[i];
        rest[i] = rest[i + 1] + work.sizes[i].iter().map(least).fold(f64::INFINITY, f64::min);
    }
    work.search(&mut vec![], &mut best, &mut visits, &rest);
    Plan { places: best.0, cost: best.1.cost, excess: best.1.excess, complete: visits > 0 }
}

/// A plan by local search alone, as for more than [`COMPLETE`] stages.
pub fn plan_quickly(stages: &[Stage], machine: Machine) -> Plan {
    let (places, score) = Work::new(stages, machine).greedy(QUICK);
    Plan { places, cost: score.cost, excess: score.excess, complete: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::random::Random;
    use std::time::Instant;

    /// Pipelines of 1 to 4 stages at 60 to 80 % of two cores.
    pub(crate) fn workload(seed: u64, count: usize) -> (Vec<Stage>, Machine) {
        let mut r = Random(seed);
        let mut stages: Vec<Stage> = vec![];
        while stages.len() < count {
            let (rate, length) = (r.between(1.0, 60.0), 1 + r.below(4));
            for k in 0..length.min(count - stages.len()) {
                stages.push(Stage {
                    name: format!("s{}", stages.len()),
                    after: (k > 0).then(|| stages.len() - 1),
                    rate,
                    pass: if r.below(3) == 0 { r.between(0.05, 0.9) } else { 1.0 },
                    compute: r.between(0.1, 1.0),
                    wake: r.between(0.0, 0.5),
                    deadline: r.between(4.0, 12.0) / rate,
                    batch: 1 + r.below(8),
                });
            }
        }
        let machine = Machine { cores: 2, hop: 0.0 };
        let used: f64 = rates(&stages).iter().zip(&stages).map(|(rate, s)| rate * (s.compute + s.wake)).sum();
        let scale = r.between(0.6, 0.8) * 2.0 / used;
        for s in &mut stages {
            s.compute *= scale;
            s.wake *= scale;
        }
        (stages, Machine { hop: 20e-6, ..machine })
    }

    /// Every plan, without a bound.
    fn exhaustive(work: &Work, places: &mut Vec<Place>, best: &mut Score) {
        let i = places.len();
        if i == work.stages.len() {
            let score = work.score(places);
            if score.better(*best) {
                *best = score;
            }
            return;
        }
        for core in 0..work.machine.cores {
            for &batch in &work.sizes[i] {
                places.push(Place { core, batch });
                exhaustive(work, places, best);
                places.pop();
            }
        }
    }

    #[test]
    fn the_search_is_complete_and_the_quick_one_near() {
        let (mut near, mut all) = (0, 0);
        for seed in 0..40 {
            let (stages, machine) = workload(seed, 2 + seed as usize % 4);
            let work = Work::new(&stages, machine);
            let mut best = Score { excess: f64::INFINITY, cost: f64::INFINITY };
            exhaustive(&work, &mut vec![], &mut best);
            let plan = plan(&stages, machine);
            assert!(plan.complete);
            assert!((plan.excess - best.excess).abs() < 1e-9 && (plan.cost - best.cost).abs() < 1e-9, "{plan:?} {best:?}");
            let quick = plan_quickly(&stages, machine);
            all += 1;
            near += usize::from(quick.excess <= best.excess + 1e-9 && quick.cost <= 1.05 * best.cost);
        }
        println!("quick within 5 %: {near} of {all}");
        assert!(near * 10 >= all * 8, "{near} of {all}");
    }

    #[test]
    fn plans_come_in_time() {
        for count in [8, 20] {
            let mut worst = 0.0f64;
            for seed in 0..20 {
                let (stages, machine) = workload(100 + seed, count);
                let timed = |_| {
                    let begin = Instant::now();
                    let plan = plan(&stages, machine);
                    (begin.elapsed().as_secs_f64(), plan)
                };
                // The least of three: others use the machine, too.
                let (time, plan) = (0..3).map(timed).min_by(|a, b| a.0.total_cmp(&b.0)).expect("three");
                worst = worst.max(time);
                assert_eq!((plan.places.len(), count > COMPLETE), (count, !plan.complete));
            }
            println!("{count} stages: {:.3} ms", worst * 1e3);
            // Unoptimised, on a busy machine; optimised code takes 20 ms and 1 ms.
            assert!(worst < 1.0);
        }
    }

    #[test]
    fn batches_save_wakes_where_the_deadline_allows() {
        let stage =
            |deadline| Stage { name: "a".into(), after: None, rate: 10.0, pass: 1.0, compute: 0.001, wake: 0.02, deadline, batch: 16 };
        let one = Machine { cores: 1, hop: 0.0 };
        assert_eq!(plan(&[stage(0.05)], one).places, [Place { core: 0, batch: 1 }]);
        assert_eq!(plan(&[stage(0.5)], one).places, [Place { core: 0, batch: 5 }]);
        let gated = |pass| {
            [Stage { pass, compute: 0.001, wake: 0.0, ..stage(1.0) }, Stage { after: Some(0), wake: 0.0, compute: 0.06, ..stage(1.0) }]
        };
        assert!(plan(&gated(1.0), one).cost >= 5.0 * plan(&gated(0.1), one).cost);
    }
}
