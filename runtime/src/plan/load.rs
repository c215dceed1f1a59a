//! Loading beside computing (deepeye): while one model computes, the constants of the next are read.
//!
//! Each model is a job of two machines in a row: the reader (load), then the cores (compute). Without a limit of memory Johnson's rule (1954) gives the
//! order of least makespan: first the jobs whose load is shorter than their compute, by rising load, then the others, by falling compute. With a limit a
//! load begins only when its bytes fit beside those of the jobs that are loaded and not yet done, so small instances are searched completely and larger
//! ones improved from Johnson's order by moves of one job.

/// A model to be run once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Job {
    /// Seconds to read its constants.
    pub load: f64,
    /// Seconds to compute.
    pub compute: f64,
    /// Bytes of its constants.
    pub bytes: u64,
}

/// When a job is loaded and computed, in seconds from the start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slot {
    /// Which job.
    pub job: usize,
    /// When its load begins and ends.
    pub load: (f64, f64),
    /// When its computation begins and ends.
    pub compute: (f64, f64),
}

/// A plan for one round over all jobs.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// The jobs in their order.
    pub slots: Vec<Slot>,
    /// Jobs whose constants stay in memory after the round: the next one need not read them.
    pub resident: Vec<bool>,
    /// Seconds until all is computed.
    pub makespan: f64,
    /// Seconds when nothing is read beside a computation.
    pub serial: f64,
    /// No order takes less: max(Σ load, Σ compute).
    pub bound: f64,
}

/// Why there is no plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge {
    /// The job that alone is larger than the limit.
    pub job: usize,
}

/// Most jobs whose orders are all tried: 8! = 40,320, a few milliseconds.
const EXHAUSTIVE: usize = 8;

/// Johnson's order for two machines in a row.
pub fn johnson(jobs: &[Job]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    let key = |&j: &usize| {
        let Job { load, compute, .. } = jobs[j];
        if load < compute { (0, load) } else { (1, -compute) }
    };
    order.sort_by(|a, b| {
        let ((first, x), (second, y)) = (key(a), key(b));
        first.cmp(&second).then(x.total_cmp(&y)).then(a.cmp(b))
    });
    order
}

/// Times of the jobs in this order; loads wait until their bytes fit under `limit` beside what is loaded and not yet computed.
pub fn timeline(jobs: &[Job], order: &[usize], limit: u64) -> Result<Vec<Slot>, TooLarge> {
    let mut slots: Vec<Slot> = Vec::with_capacity(order.len());
    let (mut reader, mut cores, mut used, mut freed) = (0.0f64, 0.0f64, 0u64, 0usize);
    for &job in order {
        let Job { load, compute, bytes } = jobs[job];
        if bytes > limit {
            return Err(TooLarge { job });
        }
        let mut begin = reader;
        // Jobs end in the order in which they were loaded.
        while used + bytes > limit {
            let done = &slots[freed];
            begin = begin.max(done.compute.1);
            used -= jobs[done.job].bytes;
            freed += 1;
        }
        used += bytes;
        reader = begin + load;
        let start = cores.max(reader);
        cores = start + compute;
        slots.push(Slot { job, load: (begin, reader), compute: (start, cores) });
    }
    Ok(slots)
}

fn makespan(jobs: &[Job], order: &[usize], limit: u64) -> Result<f64, TooLarge> {
    Ok(timeline(jobs, order, limit)?.last().map_or(0.0, |s| s.compute.1))
}

/// The plan of least makespan that was found, within `limit` bytes. `rounds` says that all jobs run again and again: then constants may stay in memory
/// from round to round, those first that save most seconds a byte, as long as the makespan of a later round gets shorter by it.
pub fn plan(jobs: &[Job], limit: u64, rounds: bool) -> Result<Plan, TooLarge> {
    let serial = jobs.iter().map(|j| j.load + j.compute).sum();
    let sum = |f: fn(&Job) -> f64| jobs.iter().map(f).sum::<f64>();
    let bound = sum(|j| j.load).max(sum(|j| j.compute));
    let mut resident = vec![false; jobs.len()];
    let mut best = ordered(jobs, limit)?;
    if rounds {
        let mut by_value: Vec<usize> = (0..jobs.len()).filter(|&j| jobs[j].bytes > 0).collect();
        let value = |j: usize| jobs[j].load / jobs[j].bytes as f64;
        by_value.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
        let (mut later, mut kept) = (jobs.to_vec(), 0u64);
        for j in by_value {
            let mut tried = later.clone();
            tried[j] = Job { load: 0.0, bytes: 0, ..jobs[j] };
            if kept + jobs[j].bytes > limit {
                continue;
            }
            let Ok(order) = ordered(&tried, limit - kept - jobs[j].bytes) else { continue };
            if order.1 <= best.1 {
                (resident[j], best, kept) = (true, order, kept + jobs[j].bytes);
                later = tried;
            }
        }
        return Ok(Plan { slots: timeline(&later, &best.0, limit - kept)?, resident, makespan: best.1, serial, bound });
    }
    Ok(Plan { slots: timeline(jobs, &best.0, limit)?, resident, makespan: best.1, serial, bound })
}

/// The best order found, and its makespan.
fn ordered(jobs: &[Job], limit: u64) -> Result<(Vec<usize>, f64), TooLarge> {
    let mut order = johnson(jobs);
    let mut best = makespan(jobs, &order, limit)?;
    let total: u64 = jobs.iter().map(|j| j.bytes).sum();
    if total <= limit || jobs.len() < 2 {
        return Ok((order, best)); // Johnson's order is optimal
    }
    if jobs.len() <= EXHAUSTIVE {
        let mut tried: Vec<usize> = (0..jobs.len()).collect();
        permutations(&mut tried, 0, &mut |candidate| {
            let time = makespan(jobs, candidate, limit).unwrap_or(f64::INFINITY);
            if time < best {
                (best, order) = (time, candidate.to_vec());
            }
        });
        return Ok((order, best));
    }
    // From Johnson's order, and with the large ones apart from each other: every other one of the order by size.
    let mut sizes: Vec<usize> = (0..jobs.len()).collect();
    sizes.sort_by_key(|&j| (jobs[j].bytes, j));
    let (small, large) = sizes.split_at(jobs.len() / 2);
    let mixed: Vec<usize> = (0..large.len()).flat_map(|i| [Some(large[i]), small.get(i).copied()]).flatten().collect();
    for start in [order.clone(), order.iter().rev().copied().collect(), mixed] {
        let found = improved(jobs, start, limit)?;
        if found.1 < best {
            (order, best) = found;
        }
    }
    Ok((order, best))
}

/// Moves and swaps of jobs as long as they shorten the makespan.
fn improved(jobs: &[Job], mut order: Vec<usize>, limit: u64) -> Result<(Vec<usize>, f64), TooLarge> {
    let mut best = makespan(jobs, &order, limit)?;
    loop {
        let mut better = false;
        for from in 0..order.len() {
            for to in 0..order.len() {
                let mut moved = order.clone();
                let job = moved.remove(from);
                moved.insert(to, job);
                let mut swapped = order.clone();
                swapped.swap(from, to);
                for candidate in [moved, swapped] {
                    let time = makespan(jobs, &candidate, limit)?;
                    if time < best * (1.0 - 1e-9) {
                        (best, order, better) = (time, candidate, true);
                    }
                }
            }
        }
        if !better {
            return Ok((order, best));
        }
    }
}

fn permutations(items: &mut [usize], at: usize, each: &mut impl FnMut(&[usize])) {
    if at + 1 >= items.len() {
        return each(items);
    }
    for i in at..items.len() {
        items.swap(at, i);
        permutations(items, at + 1, each);
        items.swap(at, i);
    }
}

/// Which of the loaded models to drop so that `needed` bytes become free: those first whose reload costs least a byte. `loaded` gives for each model
/// bytes, seconds to read it again and how often it is expected to be asked for a second. `None` where all of them are not enough.
pub fn evict(loaded: &[(u64, f64, f64)], needed: u64) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..loaded.len()).collect();
    let value = |i: usize| loaded[i].1 * loaded[i].2 / loaded[i].0.max(1) as f64;
    order.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
    let (mut freed, mut out) = (0u64, vec![]);
    for i in order {
        if freed >= needed {
            break;
        }
        freed += loaded[i].0;
        out.push(i);
    }
    (freed >= needed).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::random::Random;

    fn jobs(random: &mut Random, count: usize) -> Vec<Job> {
        let job = |r: &mut Random| Job { load: r.between(0.0, 9.0), compute: r.between(0.0, 9.0), bytes: 1 + r.below(100) as u64 };
        (0..count).map(|_| job(random)).collect()
    }

    fn exhaustive(jobs: &[Job], limit: u64) -> f64 {
        let mut best = f64::INFINITY;
        permutations(&mut (0..jobs.len()).collect::<Vec<_>>(), 0, &mut |o| {
            best = best.min(makespan(jobs, o, limit).unwrap_or(f64::INFINITY));
        });
        best
    }

    #[test]
    fn johnson_is_optimal_without_a_limit() {
        let mut random = Random(1);
        for _ in 0..60 {
            let jobs = jobs(&mut random, 6);
            let found = makespan(&jobs, &johnson(&jobs), u64::MAX).expect("no limit");
            assert!(found <= exhaustive(&jobs, u64::MAX) * (1.0 + 1e-12));
        }
    }

    #[test]
    fn with_a_limit_the_plan_is_near_the_best_and_never_above_the_limit() {
        let mut random = Random(2);
        for _ in 0..8 {
            let jobs = jobs(&mut random, 9);
            let plan = plan(&jobs, 150, false).expect("each fits");
            assert!(plan.makespan <= 1.05 * exhaustive(&jobs, 150), "{plan:?}");
            assert!(plan.makespan <= plan.serial + 1e-9 && plan.makespan >= plan.bound - 1e-9);
            for slot in &plan.slots {
                let held = |t: f64| plan.slots.iter().filter(|s| s.load.0 <= t && t < s.compute.1).map(|s| jobs[s.job].bytes).sum::<u64>();
                assert!(held(slot.load.0) <= 150);
            }
        }
    }

    #[test]
    fn what_saves_most_a_byte_stays() {
        let job = |load, bytes| Job { load, compute: 1.0, bytes };
        let plan = plan(&[job(5.0, 10), job(1.0, 50), job(4.0, 60)], 80, true).expect("each fits");
        assert_eq!(plan.resident, [true, false, false]);
        assert_eq!(super::plan(&[job(1.0, 81)], 80, true), Err(TooLarge { job: 0 }));
        assert_eq!(evict(&[(10, 5.0, 1.0), (50, 1.0, 1.0), (60, 4.0, 1.0)], 55), Some(vec![1, 2]));
        assert_eq!(evict(&[(10, 5.0, 1.0)], 55), None);
    }
}
