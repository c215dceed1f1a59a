//! Fewer and shared weights: layer by layer, from the outputs of the layers before, which are compressed already.

use crate::layers::{Layer, layers};
use crate::reconstruct::{Factors, Hessian, Mask, Matrix, Pattern, admm, least_squares, obs, share};
use crate::runner::Runner;
use dnnc_frontend::{Draft, Limits};
use dnnc_ir::Type;

/// How the weights that stay are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The largest weights; they keep their values.
    Magnitude,
    /// The largest products of a weight and the norm of its input (Sun et al., *Wanda*, 2023); they keep their values.
    Wanda,
    /// Optimal brain surgeon, and least squares.
    Obs,
    /// The alternating direction method of multipliers, and least squares.
    Admm,
}

/// What is done to a network.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How weights are chosen.
    pub method: Method,
    /// How zeros are grouped.
    pub pattern: Pattern,
    /// The fraction of the weights of all layers that stays; 1 keeps all.
    pub density: f64,
    /// The logarithm of the number of different values of a layer, where they are shared.
    pub share_bits: Option<u32>,
    /// λ as a part of the mean of the diagonal of H.
    pub damping: f64,
}

/// What became of a layer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub layer: String,
    /// Inputs and outputs.
    pub size: (usize, usize),
    /// The fraction of the weights that are not zero.
    pub density: f64,
    /// The error of its output on the calibration data over the signal.
    pub error: f64,
}

/// A compressed network.
pub struct Compressed {
    /// The network.
    pub draft: Draft,
    /// Its layers.
    pub layers: Vec<Outcome>,
    /// Nodes with weights that were kept as they are, and why.
    pub kept: Vec<(String, &'static str)>,
}

/// What is known of a network before anything is chosen: its layers, the Hessians of their inputs.
pub struct Survey {
    draft: Draft,
    limits: Limits,
    layers: Vec<(Layer, Hessian)>,
    kept: Vec<(String, &'static str)>,
}

impl Survey {
    /// Runs the network once for each layer. An error is a sentence.
    pub fn new(draft: &Draft, limits: &Limits, runner: &mut dyn Runner) -> Result<Survey, String> {
        let (found, kept) = layers(draft, limits);
        if found.is_empty() {
            return Err(
                "the network has no layer whose weights can be compressed: no Gemm, MatMul or Conv with constant 32-bit weights".into()
            );
        }
        let mut measured = vec![];
        for layer in found {
            runner.progress(&format!("reading the inputs of {}", layer.name));
            let hessian = inputs(draft, &layer, runner)?;
            measured.push((layer, hessian));
        }
        Ok(Survey { draft: draft.clone(), limits: *limits, layers: measured, kept })
    }

    /// Weights of all layers.
    pub fn weights(&self) -> usize {
        self.layers.iter().map(|(l, _)| l.size.0 * l.size.1).sum()
    }

    /// The network with fewer weights. An error is a sentence.
    pub fn compress(&self, plan: &Plan, runner: &mut dyn Runner) -> Result<Compressed, String> {
        let densities = self.allocate(plan);
        let mut draft = self.draft.clone();
        let mut outcomes = vec![];
        let mut changed = false;
        for ((layer, before), density) in self.layers.iter().zip(densities) {
            runner.progress(&format!("compressing {}", layer.name));
            let hessian = if changed { inputs(&draft, layer, runner)? } else { before.clone() };
            let w = layer.matrix(&draft, &self.limits);
            let new = self.solve(layer, &hessian, &w, density, plan);
            changed |= new != w;
            layer.write(&mut draft, &new, &self.limits);
            let zeros = new.rows(0, layer.size.0).iter().filter(|v| **v as f32 == 0.0).count();
            outcomes.push(Outcome {
                layer: layer.name.clone(),
                size: layer.size,
                density: 1.0 - zeros as f64 / (layer.size.0 * layer.size.1) as f64,
                error: hessian.error(&new, &w) / hessian.variance(&w),
            });
        }
        Ok(Compressed { draft, layers: outcomes, kept: self.kept.clone() })
    }

    fn solve(&self, layer: &Layer, hessian: &Hessian, w: &Matrix, density: f64, plan: &Plan) -> Matrix {
        let free = layer.size.0;
        let factors = || {
            let mut f = Factors::new(hessian, plan.damping);
            if layer.bias.is_none() {
                // Without a bias nothing may move to the last row: its input is independent of all others.
                let last = free;
                for i in 0..free {
                    (f.h[(i, last)], f.h[(last, i)]) = (0.0, 0.0);
                }
                if let Some(factor) = nalgebra::Cholesky::new(f.h.clone()) {
                    f.inverse = factor.inverse();
                }
            }
            f
        };
        let dense = density >= 1.0 && !matches!(plan.pattern, Pattern::Of { .. });
        let mut factored = None;
        let mut new = match plan.method {
            _ if dense => w.clone(),
            Method::Obs | Method::Admm if pruned(w, free) => {
                // A network that was pruned before keeps its zeros: what goes is chosen among the other weights.
                let f = factored.insert(factors());
                let scores = Matrix::from_fn(w.nrows(), w.ncols(), |r, c| w[(r, c)].powi(2) / f.inverse[(r, r)]);
                let mut there = Mask::of(w);
                there.keep_below(free);
                least_squares(&f.h, w, &Mask::best(&scores, plan.pattern, density, free).and(&there))
            }
            Method::Magnitude => Mask::best(&w.map(f64::abs), plan.pattern, density, free).applied(w),
            Method::Wanda => {
                let h = hessian.damped(plan.damping);
                let scores = Matrix::from_fn(w.nrows(), w.ncols(), |r, c| w[(r, c)].powi(2) * h[(r, r)]);
                Mask::best(&scores, plan.pattern, density, free).applied(w)
            }
            Method::Obs => obs(factored.insert(factors()), w, plan.pattern, density, free).0,
            Method::Admm => admm(factored.insert(factors()), w, plan.pattern, density, free).0,
        };
        if let Some(bits) = plan.share_bits {
            let h = hessian.damped(plan.damping);
            let importance: Vec<f64> = (0..=free).map(|i| h[(i, i)]).collect();
            new = share(&new, &importance, 1 << bits, free);
            if layer.bias.is_some() {
                // The bias takes over what the shared weights miss on average.
                let last = h.row(free) * (w - &new);
                let scale = h[(free, free)];
                (0..w.ncols()).for_each(|c| new[(free, c)] += last[c] / scale);
            }
        }
        new
    }

    /// The density of each layer. A weight costs the same in each; the weights that stay are those whose removal would add most error to the signal of their
    /// layer, by w²/(H⁻¹)ᵢᵢ.
    fn allocate(&self, plan: &Plan) -> Vec<f64> {
        if plan.density >= 1.0 {
            return vec![1.0; self.layers.len()];
        }
        let mut scores: Vec<(f64, usize)> = vec![];
        for (index, (layer, hessian)) in self.layers.iter().enumerate() {
            let w = layer.matrix(&self.draft, &self.limits);
            let (factors, signal) = (Factors::new(hessian, plan.damping), hessian.variance(&w));
            for c in 0..w.ncols() {
                scores.extend((0..layer.size.0).map(|r| (w[(r, c)].powi(2) / factors.inverse[(r, r)] / signal, index)));
            }
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut kept = vec![0usize; self.layers.len()];
        let count = (plan.density * scores.len() as f64).round() as usize;
        scores[..count.min(scores.len())].iter().for_each(|(_, index)| kept[*index] += 1);
        self.layers.iter().zip(kept).map(|((l, _), n)| n as f64 / (l.size.0 * l.size.1) as f64).collect()
    }
}

/// Whether weights were pruned before: one of twenty is exactly zero.
fn pruned(w: &Matrix, free: usize) -> bool {
    w.rows(0, free).iter().filter(|v| **v == 0.0).count() * 20 > free * w.ncols()
}

/// The Hessian of a layer's inputs in a network.
fn inputs(draft: &Draft, layer: &Layer, runner: &mut dyn Runner) -> Result<Hessian, String> {
    let mut hessian = Hessian::new(layer.size.0 + 1);
    runner.run(&draft.with_outputs(std::slice::from_ref(&layer.input)).bytes(), &mut |results| {
        let tensor = results.first().filter(|t| t.ty().ty == Type::F32);
        let tensor = tensor.ok_or_else(|| format!("layer `{}`: its input is no 32-bit float", layer.name))?;
        hessian.add(&layer.rows(tensor)?);
        Ok(())
    })?;
    Ok(hessian)
}
