//! Which variant of a model a request gets (mcdnn): accuracy bought from a budget for each period, at one price for all models.
//!
//! The best use of a budget for known requests is a knapsack whose relaxation lies on the convex hulls of the catalogues: steps from a variant to the
//! next better one are taken by accuracy gained a unit of cost until the budget is used. Here the requests to come are not known: their number in
//! the rest of the period is forecast from rates, and the walk over the hulls is made for the rest of the budget each time a request comes. The
//! fraction of the last step that the walk can take is spread over requests by a running debt, with a band that keeps the variant in use (hysteresis). A
//! request never gets a variant that costs more than what is left, so the budget is exceeded at most by the error of one predicted cost.

/// A variant of a model as the catalogue has it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Variant {
    /// Measured accuracy; a request that is not served counts 0.
    pub accuracy: f64,
    /// What a run takes from the budget, in its unit (milliseconds, joules).
    pub cost: f64,
    /// Bytes of memory that it needs.
    pub bytes: u64,
}

/// The variants on the upper convex hull over (0, 0), by rising cost; only those of at most `bytes`.
pub fn hull(variants: &[Variant], bytes: u64) -> Vec<usize> {
    let sane = |v: &Variant| v.bytes <= bytes && v.cost.is_finite() && v.cost >= 0.0 && v.accuracy > 0.0;
    let mut order: Vec<usize> = (0..variants.len()).filter(|&i| sane(&variants[i])).collect();
    order.sort_by(|&a, &b| {
        let (x, y) = (&variants[a], &variants[b]);
        x.cost.total_cmp(&y.cost).then(y.accuracy.total_cmp(&x.accuracy)).then(a.cmp(&b))
    });
    let point = |i: Option<&usize>| i.map_or((0.0, 0.0), |&i| (variants[i].cost, variants[i].accuracy));
    let mut out: Vec<usize> = vec![];
    for i in order {
        let (cost, accuracy) = point(Some(&i));
        if accuracy <= point(out.last()).1 {
            continue;
        }
        // A middle point below the line between its neighbours is no corner.
        while let Some(last) = out.last() {
            let (c1, a1) = point(Some(last));
            let (c0, a0) = point(out.len().checked_sub(2).map(|n| &out[n]));
            if (a1 - a0) * (cost - c1) > (accuracy - a1) * (c1 - c0) {
                break;
            }
            out.pop();
        }
        out.push(i);
    }
    out
}

/// One step on a hull: from a corner to the next.
#[derive(Clone, Copy, Debug)]
struct Step {
    model: usize,
    /// Position in the hull that it leads to.
    to: usize,
    cost: f64,
    gain: f64,
}

#[derive(Clone, Debug)]
struct Model {
    variants: Vec<Variant>,
    hull: Vec<usize>,
    /// Requests in the current period.
    count: f64,
    /// Requests a second in past periods.
    long: f64,
    /// Cost that fractions of steps have not yet spent, or overspent.
    debt: f64,
    /// Position in the hull of the variant in use.
    current: usize,
}

/// A choice for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Index into the variants as they were given.
    pub variant: usize,
}

/// Chooses variants so that no period costs more than its budget.
#[derive(Clone, Debug)]
pub struct Controller {
    budget: f64,
    period: f64,
    /// End of the current period.
    end: f64,
    left: f64,
    models: Vec<Model>,
    /// The steps of all hulls, most accuracy a cost first.
    steps: Vec<Step>,
    /// Periods that are over.
    periods: f64,
    /// Reused by [`Controller::choose`]: for each model its corner, and the fraction of the step beyond it.
    target: Vec<(Option<usize>, f64)>,
}

/// Fraction of a long forecast that a period replaces.
const LEARN: f64 = 0.2;
/// The part of a period that past periods count as, beside the current one: bursts begin at any time. Of 0.15 to 0.6 the one whose worst of 60 traces is best.
const PRIOR: f64 = 0.15;
/// How many times the cost of a step debt may be before the variant in use is left.
const BAND: f64 = 1.5;

impl Controller {
    /// For catalogues of models: `budget` units of cost in each `period` seconds, `bytes` of memory for a variant. Expected requests a second of each
    /// model may be given in `rates`; 0 says that nothing is known.
    pub fn new(catalogues: &[Vec<Variant>], rates: &[f64], budget: f64, period: f64, bytes: u64) -> Controller {
        let mut steps = vec![];
        let mut models = vec![];
        for (model, variants) in catalogues.iter().enumerate() {
            let hull = hull(variants, bytes);
            let (mut cost, mut accuracy) = (0.0, 0.0);
            for (to, &i) in hull.iter().enumerate() {
                let v = variants[i];
                steps.push(Step { model, to, cost: v.cost - cost, gain: v.accuracy - accuracy });
                (cost, accuracy) = (v.cost, v.accuracy);
            }
            let long = rates.get(model).copied().unwrap_or(0.0);
            models.push(Model { variants: variants.clone(), hull, count: 0.0, long, debt: 0.0, current: 0 });
        }
        steps.sort_by(|a: &Step, b: &Step| {
            (b.gain * a.cost).total_cmp(&(a.gain * b.cost)).then(a.model.cmp(&b.model)).then(a.to.cmp(&b.to))
        });
        let target = vec![(None, 0.0); models.len()];
        Controller { budget, period, end: period, left: budget, models, steps, periods: 0.0, target }
    }

    /// What is left of the current period.
    pub fn left(&self) -> f64 {
        self.left
    }

    /// Takes what a run really cost instead of what the catalogue said.
    pub fn correct(&mut self, predicted: f64, measured: f64) {
        self.left += predicted - measured;
    }

    /// The variant for a request of a model at `now` seconds (never decreasing), whose cost is taken from the budget; `None` where not even the cheapest
    /// is affordable.
    pub fn choose(&mut self, model: usize, now: f64) -> Option<Choice> {
        self.advance(now);
        self.models[model].count += 1.0;
        if self.models[model].hull.is_empty() {
            return None;
        }
        self.walk(model, now);
        let (corner, fraction) = self.target[model];
        let cheapest = self.models[model].variants[self.models[model].hull[0]].cost;
        let m = &mut self.models[model];
        let cost = |at: usize| m.variants[m.hull[at]].cost;
        let low = corner.unwrap_or(0);
        let high = (low + usize::from(corner.is_some() && fraction > 0.0)).min(m.hull.len() - 1);
        let wanted = cost(low) + fraction * (cost(high) - cost(low));
        // Between two corners: the one in use until the debt says otherwise.
        let step = cost(high) - cost(low);
        let mut at = if m.current <= low {
            low
        } else if m.current >= high {
            high
        } else {
            low
        };
        if at == low && m.debt > BAND * step {
            at = high;
        } else if at == high && m.debt < -BAND * step {
            at = low;
        }
        while at > 0 && cost(at) > self.left {
            at -= 1;
        }
        if cost(at) > self.left || (corner.is_none() && fraction <= 0.0 && cheapest > self.left) {
            return None;
        }
        let spent = cost(at);
        m.debt = (m.debt + wanted - spent).clamp(-4.0 * step.max(cheapest), 4.0 * step.max(cheapest));
        m.current = at;
        self.left -= spent;
        Some(Choice { variant: m.hull[at] })
    }

    /// Ends the periods that are over.
    fn advance(&mut self, now: f64) {
        if now < self.end {
            return;
        }
        let passed = ((now - self.end) / self.period).floor() + 1.0;
        for m in &mut self.models {
            let rate = m.count / self.period;
            let learn = LEARN.max(1.0 / (self.periods + 1.0)).min(1.0);
            m.long = if self.periods == 0.0 && m.long > 0.0 { 0.5 * (m.long + rate) } else { m.long + learn * (rate - m.long) };
            // Periods without any request count, too.
            for _ in 1..passed.min(64.0) as usize {
                m.long *= 1.0 - LEARN;
            }
            m.count = 0.0;
            m.debt = 0.0;
        }
        self.periods += passed;
        self.end += passed * self.period;
        self.left = self.budget;
    }

    /// Requests of a model in the rest of the period, the one at hand not counted: at the mean of the rates of past periods and of this one so far.
    fn expected(&self, model: usize, now: f64) -> f64 {
        let m = &self.models[model];
        let rest = (self.end - now).max(0.0);
        let passed = self.period - rest;
        // What past periods say counts as so much time; the more of this one has passed, the more it says itself.
        let prior = PRIOR * self.period;
        (m.count + prior * m.long) / (passed + prior) * rest
    }

    /// Walks over the steps of all hulls with what is left: the corner that each model gets, and the fraction of the step that ended the walk.
    fn walk(&mut self, asked: usize, now: f64) {
        let mut left = self.left;
        self.target.fill((None, 0.0));
        for i in 0..self.steps.len() {
            let step = self.steps[i];
            let requests = self.expected(step.model, now) + if step.model == asked { 1.0 } else { 0.0 };
            let cost = step.cost * requests;
            if cost <= left {
                left -= cost;
                self.target[step.model].0 = Some(step.to);
                continue;
            }
            self.target[step.model].1 = left / cost;
            break;
        }
    }
}

/// The most accuracy in sum that a budget buys for requests that are all known (`counts` by model): the walk over the hulls, whose last step is taken in
/// part. No choice of variants has more.
pub fn optimum(catalogues: &[Vec<Variant>], counts: &[f64], budget: f64, bytes: u64) -> f64 {
    let controller = Controller::new(catalogues, &[], budget, 1.0, bytes);
    let (mut left, mut sum) = (budget, 0.0);
    for step in &controller.steps {
        let cost = step.cost * counts[step.model];
        let part = if cost <= left { 1.0 } else { left / cost };
        sum += part * step.gain * counts[step.model];
        left -= part * cost;
        if part < 1.0 {
            break;
        }
    }
    sum
}

/// What the replay of a trace gave.
#[derive(Clone, PartialEq, Debug)]
pub struct Replay {
    /// The variant of each request; `None`: not served.
    pub choices: Vec<Option<usize>>,
    /// Mean accuracy of all requests.
    pub accuracy: f64,
    /// That of the offline optimum with the same budget in each period.
    pub optimum: f64,
    /// Largest part of the budget of a period that was used.
    pub peak: f64,
    /// How often a model's variant changed.
    pub switches: usize,
}

/// Replays requests (seconds, model), by rising time.
pub fn replay(catalogues: &[Vec<Variant>], requests: &[(f64, usize)], budget: f64, period: f64, bytes: u64) -> Replay {
    let mut controller = Controller::new(catalogues, &[], budget, period, bytes);
    let mut used: Vec<Option<usize>> = vec![None; catalogues.len()];
    let (mut choices, mut switches, mut accuracy) = (vec![], 0, 0.0);
    let (mut best, mut peak) = (0.0, 0.0f64);
    let (mut window, mut counts, mut spent) = (0.0, vec![0.0; catalogues.len()], 0.0f64);
    for &(now, model) in requests {
        if (now / period).floor() != window {
            best += optimum(catalogues, &counts, budget, bytes);
            peak = peak.max(spent / budget);
            (window, spent) = ((now / period).floor(), 0.0);
            counts.fill(0.0);
        }
        counts[model] += 1.0;
        let choice = controller.choose(model, now).map(|c| c.variant);
        if let Some(v) = choice {
            accuracy += catalogues[model][v].accuracy;
            spent += catalogues[model][v].cost;
            if used[model].is_some_and(|u| u != v) {
                switches += 1;
            }
            used[model] = Some(v);
        }
        choices.push(choice);
    }
    best += optimum(catalogues, &counts, budget, bytes);
    peak = peak.max(spent / budget);
    let n = requests.len().max(1) as f64;
    Replay { choices, accuracy: accuracy / n, optimum: best / n, peak, switches }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::traces;

    #[test]
    fn corners_of_the_hull() {
        let v = |accuracy, cost| Variant { accuracy, cost, bytes: 1 };
        let variants = [v(0.5, 1.0), v(0.55, 3.0), v(0.7, 4.0), v(0.69, 5.0), v(0.72, 9.0), v(0.9, 2.0)];
        assert_eq!(hull(&variants[..5], 9), [0, 2, 4]);
        assert_eq!(hull(&variants, 9), [0, 5]);
        assert_eq!(hull(&variants, 0), [0usize; 0]);
    }

    #[test]
    fn bursty_traces_are_near_the_optimum_and_within_the_budget() {
        let (mut worst, mut sum) = (f64::INFINITY, 0.0);
        for seed in 0..60 {
            let t = traces::bursty(seed);
            let r = replay(&t.catalogues, &t.requests, t.budget, t.period, u64::MAX);
            assert!(r.peak <= 1.0 + 1e-9, "seed {seed}: {}", r.peak);
            worst = f64::min(worst, r.accuracy / r.optimum);
            sum += r.accuracy / r.optimum;
        }
        println!("of the optimum: mean {}, worst {worst}", sum / 60.0);
        // Six requests a period cannot be foreseen: such traces are between 0.94 and 0.95 of what who knows them could do.
        assert!(worst >= 0.94 && sum / 60.0 >= 0.97, "mean {}, worst {worst}", sum / 60.0);
    }

    #[test]
    fn a_decision_takes_microseconds() {
        let t = traces::bursty(7);
        let mut controller = Controller::new(&t.catalogues, &[], t.budget, t.period, u64::MAX);
        let begin = std::time::Instant::now();
        for &(now, model) in &t.requests {
            controller.choose(model, now);
        }
        let each = begin.elapsed().as_secs_f64() / t.requests.len() as f64;
        println!("{:.2} µs", each * 1e6);
        assert!(each < 100e-6, "{each} s, of unoptimised code on a busy machine"); // 10 µs is the limit of optimised code
    }
}
