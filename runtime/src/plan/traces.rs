//! Made-up traces of requests with bursts, by seed: for tests and measurements of the budget.

use super::budget::Variant;
use super::random::Random;

/// Requests of several models, their catalogues and a budget.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The variants of each model.
    pub catalogues: Vec<Vec<Variant>>,
    /// Seconds and model, by rising time.
    pub requests: Vec<(f64, usize)>,
    /// Budget of a period, in the unit of the costs.
    pub budget: f64,
    /// Seconds of a period.
    pub period: f64,
}

/// 1 to 4 models with 3 to 8 variants; each is asked for at a base rate, in bursts 2 to 6 times as often (a Markov chain of two states with mean stays
/// of 2 to 20 s). The budget pays for between the cheapest variants with room to spare and nearly the best, at the mean rate.
pub fn bursty(seed: u64) -> Trace {
    let mut r = Random(seed);
    let models = 1 + r.below(4);
    let (seconds, period) = (120.0, 1.0);
    let (mut catalogues, mut requests) = (vec![], vec![]);
    let (mut cheap, mut dear) = (0.0f64, 0.0);
    for model in 0..models {
        let (base, burst) = (r.between(5.0, 40.0), r.between(2.0, 6.0));
        let (calm, busy) = (r.between(5.0, 20.0), r.between(2.0, 8.0));
        let (mut now, mut inside, mut until) = (0.0, false, r.wait(1.0 / calm));
        let mut count = 0;
        loop {
            now += r.wait(if inside { base * burst } else { base });
            while now > until {
                inside = !inside;
                until += r.wait(1.0 / if inside { busy } else { calm });
            }
            if now >= seconds {
                break;
            }
            requests.push((now, model));
            count += 1;
        }
        let mut cost = r.between(0.2, 2.0);
        let mut accuracy = r.between(0.45, 0.65);
        let mut variants = vec![];
        for _ in 0..3 + r.below(6) {
            variants.push(Variant { accuracy, cost, bytes: (cost * 1e6) as u64 });
            accuracy += (0.95 - accuracy) * r.between(0.1, 0.5);
            cost *= r.between(1.3, 2.5);
        }
        let rate = f64::from(count) / seconds;
        cheap += rate * burst * variants[0].cost;
        dear += rate * variants[variants.len() - 1].cost;
        catalogues.push(variants);
    }
    requests.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let budget = cheap + r.between(0.05, 0.9) * (dear - cheap).max(0.0);
    Trace { catalogues, requests, budget, period }
}
