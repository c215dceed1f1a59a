//! Every operator on shapes of 0 to 8 axes with dimensions of 0, 1 and primes, on all backends.

mod common;

use dnnc::difftest::{Backend, executor};
use dnnc::ir::instance::generate;
use dnnc::ir::random::Rng;
use dnnc::ir::{Attr, Graph, Kind, Op, eval_op};
use dnnc::{Options, Tensor, Type};

/// Several operators in one graph, each with inputs of its own.
#[derive(Default)]
struct Uses {
    graph: Graph,
    inputs: Vec<Tensor>,
    /// The operator of each output.
    labels: Vec<String>,
}

impl Uses {
    fn generate(&mut self, kind: Kind, rng: &mut Rng) {
        let Some((op, mut inputs)) = generate(kind, rng) else { return };
        if matches!(kind, Kind::Lstm | Kind::Gru | Kind::Rnn) {
            inputs[1] = tenth(&inputs[1]);
        }
        let first = self.inputs.len();
        let operands: Vec<_> =
            inputs.iter().enumerate().map(|(i, x)| self.graph.input(&format!("x{}", first + i), x.ty().clone())).collect();
        let types: Vec<String> = inputs.iter().map(|x| x.ty().to_string()).collect();
        let label = format!("{op:?} of {}", types.join(", "));
        let node = self.graph.add(op, operands, "").expect("operators fit");
        for i in 0..self.graph.node(node).types.len() as u32 {
            self.graph.output(&format!("y{}", self.labels.len()), node.result(i));
            self.labels.push(label.clone());
        }
        self.inputs.extend(inputs);
    }

    /// Runs all of them on a backend and compares with the evaluator.
    fn check(&self, backend: Backend, options: &Options) {
        let want = dnnc::ir::eval::eval(&self.graph, &self.inputs).expect("the evaluator has a value");
        let place =
            || format!("on {}{} for {}", backend.name(), if options.rewrites { "" } else { " without rewrites" }, options.target.name);
        let all = || self.labels.join("\n");
        let run = executor(self.graph.clone(), backend, options).unwrap_or_else(|e| panic!("{}: {e}\n{}", place(), all()));
        let got = run.run(&self.inputs).unwrap_or_else(|e| panic!("{}: {e}\n{}", place(), all()));
        for ((got, want), label) in got.iter().zip(&want).zip(&self.labels) {
            close(got, want).unwrap_or_else(|e| panic!("{label} {}: {e}", place()));
        }
    }
}

/// A tenth of recurrent weights: large ones make a recurrence chaotic, and the rounding of one step grows at each step after it.
fn tenth(weights: &Tensor) -> Tensor {
    let op = |kind, attrs: &[(&'static str, Attr)]| Op::new(kind, attrs.iter().cloned()).expect("an operator");
    let factor = eval_op(&op(Kind::Cast, &[("to", Attr::from(weights.ty().ty))]), &[Tensor::scalar(0.1f32)]).expect("a cast");
    let scaled = eval_op(&op(Kind::Mul, &[]), &[weights.clone(), factor[0].clone()]).expect("a product");
    scaled[0].clone()
}

/// Compares results up to the order of sums and the last bits of functions.
fn close(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.ty() != want.ty() {
        return Err(format!("gives {}, not {}", got.ty(), want.ty()));
    }
    let ty = want.ty().ty;
    let tolerance = match ty {
        Type::F64 => 1e-12,
        Type::F32 => 2e-5,
        Type::F16 => 2e-3,
        Type::BF16 => 2e-2,
        _ if ty.is_float() => 0.13,
        _ => 0.0,
    };
    let (got, want) = (got.to_f64s(), want.to_f64s());
    let top = want.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        if g != w && (g - w).abs() > tolerance * top && !(g.is_nan() && w.is_nan()) {
            return Err(format!("element {i} is {g}, not {w}"));
        }
    }
    Ok(())
}

fn rng(kind: Kind, seed: u64) -> Rng {
    Rng::odd(seed * 1009 + kind as u64)
}

#[test]
fn one_operator_at_a_time() {
    for &kind in Kind::ALL {
        for seed in 0..12 {
            let mut uses = Uses::default();
            uses.generate(kind, &mut rng(kind, seed));
            uses.check(Backend::Jit, &Options { rewrites: seed % 2 != 0, ..Options::default() });
            if seed < 4 {
                uses.check(Backend::Kir, &Options { rewrites: seed % 2 != 0, ..Options::default() });
            }
        }
    }
}

/// A graph with one node of each operator.
fn all_operators(seed: u64) -> Uses {
    let mut uses = Uses::default();
    for &kind in Kind::ALL {
        uses.generate(kind, &mut rng(kind, seed));
    }
    uses
}

#[test]
fn all_operators_in_one_graph() {
    for seed in 100..106 {
        all_operators(seed).check(Backend::Jit, &Options { threads: 1 + seed as usize % 2, ..Options::default() });
    }
}

#[test]
fn all_operators_as_objects() {
    for (seed, target) in [(200, dnnc::targets::native()), (201, dnnc::targets::find("x86-64").expect("a known target"))] {
        all_operators(seed).check(Backend::Object, &Options { target, ..Options::default() });
    }
    if common::aarch64_runs() {
        all_operators(202).check(Backend::Aarch64, &Options::default());
    }
}
