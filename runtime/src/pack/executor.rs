//! Runs all models of a pack once, by a static plan: a helper thread reads the constants of the next models while one computes, as far as memory allows.

use super::file::{Arena, Pack, PackError};
use crate::plan::load::{self, Job, Plan};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// When one model was loaded and computed, in seconds from the start.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Measured {
    /// The number of the model.
    pub model: usize,
    /// Begin and end of the load.
    pub load: (f64, f64),
    /// Begin and end of the computation.
    pub compute: (f64, f64),
}

/// What the threads tell each other.
#[derive(Default)]
struct State {
    /// Models that are loaded, and that are done, in the order of the plan.
    loaded: usize,
    done: usize,
    used: u64,
    failed: Option<PackError>,
    loads: Vec<(f64, f64)>,
}

/// Plans one round over models (numbers and what they need), within `limit` bytes of constants.
pub fn plan(pack: &Pack, jobs: &[Job], limit: u64) -> Result<Plan, PackError> {
    load::plan(jobs, limit, false).map_err(|e| {
        let model = pack.model(e.job);
        let text = format!("`{}` has {} bytes of constants, and the limit leaves {limit} for them; raise --ram", model.name, model.bytes());
        PackError::Usage(text)
    })
}

/// Runs the models in the order of `plan`, whose jobs are the models of the pack; `run` computes a model by its number. With `overlap` false each is loaded only after the one
/// before is done: what the plan is compared with.
pub fn execute(
    pack: &Pack,
    plan: &Plan,
    limit: u64,
    overlap: bool,
    mut run: impl FnMut(usize) -> Result<(), PackError>,
) -> Result<Vec<Measured>, PackError> {
    let begin = Instant::now();
    let now = || begin.elapsed().as_secs_f64();
    let order: Vec<usize> = plan.slots.iter().map(|s| s.job).collect();
    let (state, changed) = (Mutex::new(State::default()), Condvar::new());
    let locked = || state.lock().unwrap_or_else(|e| e.into_inner());
    std::thread::scope(|scope| {
        // The helper ends, too, when `run` panics.
        let _stop = Stop(&state, &changed);
        scope.spawn(|| {
            for (i, &model) in order.iter().enumerate() {
                let bytes = pack.model(model).bytes() as u64;
                let full = |s: &mut State| s.failed.is_none() && (s.used + bytes > limit && s.used > 0 || !overlap && s.done < i);
                let mut s = changed.wait_while(locked(), full).unwrap_or_else(|e| e.into_inner());
                if s.failed.is_some() {
                    return;
                }
                s.used += bytes;
                drop(s);
                let from = now();
                let loaded = pack.load(model);
                let mut s = locked();
                match loaded {
                    Ok(()) => s.loaded += 1,
                    Err(e) => s.failed = Some(e),
                }
                s.loads.push((from, now()));
                changed.notify_all();
            }
        });
        let mut out = vec![];
        for (i, &model) in order.iter().enumerate() {
            let s = changed.wait_while(locked(), |s| s.failed.is_none() && s.loaded <= i).unwrap_or_else(|e| e.into_inner());
            if let Some(e) = &s.failed {
                return Err(e.clone());
            }
            let load = s.loads[i];
            drop(s);
            let from = now();
            let ran = run(model);
            let to = now();
            pack.release(model);
            let mut s = locked();
            s.used -= pack.model(model).bytes() as u64;
            s.done += 1;
            if let Err(e) = ran {
                s.failed = Some(e.clone());
                changed.notify_all();
                return Err(e);
            }
            changed.notify_all();
            out.push(Measured { model, load, compute: (from, to) });
        }
        Ok(out)
    })
}

/// Ends the helper when it is dropped.
struct Stop<'a>(&'a Mutex<State>, &'a Condvar);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).failed.get_or_insert(PackError::Usage("the round ended early".into()));
        self.1.notify_all();
    }
}

/// An arena that is large enough for every model of a pack.
pub fn arena(pack: &Pack) -> Arena {
    Arena::new(pack.contents().models.iter().map(|m| m.arena).max().unwrap_or(0))
}
