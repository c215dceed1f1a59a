//! The memory plan: every buffer gets an offset in one arena.
//!
//! Buffers that are alive at the same time must not overlap. The plan tries several orders of greedy first-fit and keeps the smallest;
//! [`Plan::bound`] is the most that is alive at once, below which no plan can go.

/// A buffer to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes.
    pub bytes: usize,
    /// First step that writes it.
    pub first: usize,
    /// Last step that reads or writes it.
    pub last: usize,
}

/// Where the buffers lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offset of each buffer, a multiple of the alignment.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub bytes: usize,
    /// The most bytes that are alive at once: no plan is smaller.
    pub bound: usize,
}

/// Places buffers, each at a multiple of `align`.
pub fn plan(buffers: &[Buffer], align: usize) -> Plan {
    let rounded: Vec<Buffer> = buffers.iter().map(|b| Buffer { bytes: b.bytes.next_multiple_of(align), ..*b }).collect();
    let bound = bound(&rounded);
    let span = |b: &Buffer| b.last - b.first;
    // By size is the order of TFLite's planner; the others win on chains with a few long-lived buffers.
    let orders: [&dyn Fn(&Buffer) -> (usize, usize); 4] = [
        &|b| (usize::MAX - b.bytes, b.first),
        &|b| (usize::MAX - b.bytes.saturating_mul(span(b) + 1), b.first),
        &|b| (usize::MAX - span(b), usize::MAX - b.bytes),
        &|b| (b.first, usize::MAX - b.bytes),
    ];
    let mut best: Option<Plan> = None;
    for key in orders {
        let mut order: Vec<usize> = (0..rounded.len()).collect();
        order.sort_by_key(|&i| (key(&rounded[i]), i));
        let plan = first_fit(&rounded, &order, bound);
        let done = plan.bytes == bound;
        if best.as_ref().is_none_or(|b| plan.bytes < b.bytes) {
            best = Some(plan);
        }
        if done {
            break;
        }
    }
    best.expect("there is at least one order")
}

/// The most bytes alive at one step.
fn bound(buffers: &[Buffer]) -> usize {
    let mut changes: Vec<(usize, bool, usize)> = vec![];
    for b in buffers {
        changes.push((b.first, true, b.bytes));
        changes.push((b.last + 1, false, b.bytes));
    }
    changes.sort(); // at one step, ends (false) come before starts
    let (mut live, mut most) = (0, 0);
    for (_, starts, bytes) in changes {
        if starts {
            live += bytes;
            most = most.max(live);
        } else {
            live -= bytes;
        }
    }
    most
}

fn first_fit(buffers: &[Buffer], order: &[usize], bound: usize) -> Plan {
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = vec![]; // sorted by offset
    let mut bytes = 0;
    for &i in order {
        let b = &buffers[i];
        let mut at = 0;
        for &p in &placed {
            let q = &buffers[p];
            let apart = q.last < b.first || b.last < q.first;
            if apart || b.bytes == 0 {
                continue;
            }
            if offsets[p] >= at + b.bytes {
                break;
            }
            at = at.max(offsets[p] + q.bytes);
        }
        offsets[i] = at;
        bytes = bytes.max(at + b.bytes);
        let slot = placed.partition_point(|&p| offsets[p] <= at);
        placed.insert(slot, i);
    }
    Plan { offsets, bytes, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(buffers: &[Buffer], plan: &Plan) {
        for (i, a) in buffers.iter().enumerate() {
            assert_eq!(plan.offsets[i] % 64, 0);
            assert!(plan.offsets[i] + a.bytes <= plan.bytes);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let alive = a.first <= b.last && b.first <= a.last;
                let overlap = plan.offsets[i] < plan.offsets[j] + b.bytes && plan.offsets[j] < plan.offsets[i] + a.bytes;
                assert!(!(alive && overlap), "{a:?} and {b:?}");
            }
        }
        assert!(plan.bound <= plan.bytes);
    }

    #[test]
    fn a_chain_needs_two_neighbours() {
        let buffers: Vec<Buffer> = (0..10).map(|i| Buffer { bytes: 100 * (i + 1), first: i, last: i + 1 }).collect();
        let plan = plan(&buffers, 64);
        check(&buffers, &plan);
        assert_eq!(plan.bytes, plan.bound);
    }

    #[test]
    fn random_lifetimes_never_overlap() {
        let mut state = 1u64;
        let mut next = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for _ in 0..200 {
            let buffers: Vec<Buffer> = (0..1 + next(40))
                .map(|_| {
                    let first = next(30);
                    Buffer { bytes: next(5000), first, last: first + next(8) }
                })
                .collect();
            check(&buffers, &plan(&buffers, 64));
        }
    }
}
