//! The hunt for differences: random networks, run in every way there is, against the reference evaluator.
//!
//! What may differ is the rounding. How much that moves a result is measured: [`noise`] runs the evaluator with every result rounded anew, and a
//! result may be as far from the reference as a few of these runs are. What a rounding turns over (a comparison, an index) is not compared.

pub mod generate;
pub mod noise;
pub mod shrink;

use crate::via::{Via, executor};
use crate::{Error, Options};
use dnnc_frontend::{Refusal, RefusalKind};
use dnnc_ir::random::Rng;
use dnnc_ir::{Graph, Tensor, Type};
use dnnc_targets::Target;
use generate::Case;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

/// A way to compile and run a network.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How it is run.
    pub via: Via,
    /// What is asked of the compiler.
    pub options: Options,
    /// Whether the network is written as an ONNX model and read again.
    pub onnx: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.options;
        write!(f, "--via {} --target {} --threads {}", self.via.name(), o.target.name, o.threads)?;
        let flags = [(o.plain, " --plain"), (o.precise, " --precise"), (!o.sparse, " --sparse off"), (self.onnx, ", as an ONNX model")];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, flag)| f.write_str(flag))
    }
}

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A result is not that of the evaluator.
    Wrong,
    /// There is no result, but the evaluator has one.
    Error,
    /// The compiler panicked.
    Panic,
}

/// A difference.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What went wrong.
    pub kind: Kind,
    /// A sentence.
    pub what: String,
}

/// What the evaluator says of a network, and how far results may be from it.
pub struct Reference {
    want: Vec<Tensor>,
    /// Allowed error of each element of each result; infinite where a rounding decides.
    allowed: Vec<Vec<f64>>,
}

impl Reference {
    /// Runs the evaluator; `None` when it has no value, or none that is stable.
    pub fn new(case: &Case, effort: noise::Effort) -> Option<Reference> {
        let want = dnnc_ir::eval(&case.graph, &case.inputs).ok()?;
        let allowed = noise::allowed(case, &want, effort)?;
        Some(Reference { want, allowed })
    }

    /// The share of the elements that are compared.
    pub fn sharpness(&self) -> f64 {
        let all: usize = self.allowed.iter().map(Vec::len).sum();
        let open: usize = self.allowed.iter().flatten().filter(|a| a.is_infinite()).count();
        if all == 0 { 1.0 } else { 1.0 - open as f64 / all as f64 }
    }

    /// Says where results differ by more than roundings.
    pub fn compare(&self, got: &[Tensor]) -> Result<(), String> {
        if got.len() != self.want.len() {
            return Err(format!("{} results, not {}", got.len(), self.want.len()));
        }
        for (i, ((got, want), allowed)) in got.iter().zip(&self.want).zip(&self.allowed).enumerate() {
            if got.ty() != want.ty() {
                return Err(format!("result {i} is {}, not {}", got.ty(), want.ty()));
            }
            let (g, w) = (got.to_f64s(), want.to_f64s());
            let width = want.ty().ty.bytes();
            let bits = |t: &Tensor, e: usize| t.bytes()[e * width..(e + 1) * width].to_vec();
            // Integers of 64 bits are not told apart as doubles.
            let equal = |e: usize| if want.ty().ty.is_float() { g[e] == w[e] } else { bits(got, e) == bits(want, e) };
            let near = |e: usize| want.ty().ty.is_float() && (g[e] - w[e]).abs() <= allowed[e] || g[e].is_nan() && w[e].is_nan();
            let wrong: Vec<usize> = (0..g.len()).filter(|&e| !(equal(e) || near(e) || allowed[e].is_infinite())).collect();
            if let Some(&e) = wrong.first() {
                let (all, allowed) = (g.len(), allowed[e]);
                let text = format!("element {e} is {}, not {} ± {allowed:.1e}", g[e], w[e]);
                return Err(format!("result {i} ({}): {} of {all} elements differ; {text}", want.ty(), wrong.len()));
            }
        }
        Ok(())
    }
}

/// Compiles and runs a network in one way.
pub fn run(case: &Case, setting: &Setting) -> Result<Vec<Tensor>, Finding> {
    let failed = |e: Error| Finding { kind: Kind::Error, what: e.to_string() };
    let (graph, inputs) = (&case.graph, case.inputs.as_slice());
    let all = || -> Result<Vec<Tensor>, Finding> {
        if setting.onnx {
            return through_onnx(case, setting).map(|(_, results)| results).map_err(failed);
        }
        let executor = executor(graph.clone(), setting.via, &setting.options).map_err(failed)?;
        let first = executor.run(inputs).map_err(failed)?;
        if setting.via == Via::Jit {
            // The memory it works in is not empty any more.
            let again = executor.run(inputs).map_err(failed)?;
            if first != again {
                return Err(Finding { kind: Kind::Wrong, what: "a second run gives something else".into() });
            }
        }
        Ok(first)
    };
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned().or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(Finding { kind: Kind::Panic, what: text.unwrap_or_else(|| "a panic without a sentence".into()) })
    })
}

/// Writes a network as an ONNX model and runs that. Nodes that ONNX has no operator for, or not for their types, are left out: their results become inputs.
/// Gives the network without them, and its results.
fn through_onnx(case: &Case, setting: &Setting) -> Result<(Case, Vec<Tensor>), Error> {
    let mut case = case.clone();
    loop {
        let negative = case.graph.nodes().len() % 2 == 0;
        let model = match dnnc_frontend::write(&case.graph, negative) {
            Ok(bytes) => crate::Model::from_bytes(&bytes, &setting.options).and_then(|m| m.via(setting.via)),
            Err(node) => {
                case = shrink::without_node(&case, node).expect("the evaluator has a value for it");
                continue;
            }
        };
        match model.and_then(|m| m.run(&case.inputs)) {
            Err(Error::Refused(r)) if r.list.iter().all(no_such_type) => {
                let node = r.list[0].name[1..].split('.').next().unwrap_or_default().parse().map_err(|_| Error::Refused(r.clone()))?;
                case = shrink::without_node(&case, node).ok_or(Error::Refused(r))?;
            }
            answer => return answer.map(|results| (case, results)),
        }
    }
}

/// Whether a node was refused because ONNX has no such operator for the type of an operand.
fn no_such_type(refusal: &Refusal) -> bool {
    refusal.kind == RefusalKind::Invalid && refusal.name.starts_with('n') && refusal.reason.contains("has element type")
}

/// Runs a network in one way and compares; a difference is looked at again with more effort before it is one.
pub fn check(case: &Case, setting: &Setting, reference: &Reference) -> Result<(), Finding> {
    let got = run(case, setting)?;
    if reference.compare(&got).is_ok() {
        return Ok(());
    }
    // What became an input is exact there, and does not move with what it was computed from.
    let written = if setting.onnx { through_onnx(case, setting).ok().map(|(written, _)| written) } else { None };
    match Reference::new(written.as_ref().unwrap_or(case), noise::Effort::Great) {
        Some(again) => again.compare(&got).map_err(|what| Finding { kind: Kind::Wrong, what }),
        None => Ok(()),
    }
}

/// A machine whose caches are so small that everything is done in blocks.
static TINY: LazyLock<Target> = LazyLock::new(|| Target { name: "tiny", l1d: 1 << 9, l2: 1 << 12, ..dnnc_targets::native().clone() });

/// A few ways to run a network: the usual one, and others by chance. `rare`: also those that start programs.
pub fn settings(rng: &mut Rng, work: u64, rare: bool) -> Vec<Setting> {
    let native = Options::default();
    let way = |via, options| Setting { via, options, onnx: false };
    let mut all = vec![way(Via::Jit, native.clone()), Setting { onnx: true, ..way(Via::Jit, native.clone()) }];
    let machines: Vec<&'static Target> = dnnc_targets::all()
        .into_iter()
        .filter(|t| t.triple == native.target.triple && t.vector.bits <= native.target.vector.bits)
        .collect();
    let options = |rng: &mut Rng, target: &'static Target| Options {
        target,
        plain: rng.below(3) == 0,
        precise: rng.below(6) == 0,
        sparse: rng.below(4) > 0,
        threads: 1 + rng.below(2),
        ..native.clone()
    };
    let target = if rng.below(3) == 0 { &*TINY } else { rng.pick(&machines) };
    all.push(way(Via::Jit, options(rng, target)));
    all.push(way(Via::Jit, Options { plain: true, ..native.clone() }));
    // The interpreter takes tens of nanoseconds for each element that is touched.
    if work < 1 << 19 {
        let target = if rng.below(4) == 0 { &*TINY } else { rng.pick(&dnnc_targets::all()) };
        all.push(way(Via::Kir, options(rng, target)));
    }
    if rare && rng.below(60) == 0 {
        let via = if rng.below(3) == 0 { Via::Aarch64 } else { Via::Object };
        all.push(way(via, Options { threads: 1, ..options(rng, native.target) }));
    }
    all
}

/// Scalar operations and elements that a network touches.
pub fn work(graph: &Graph) -> u64 {
    let of = |node: &dnnc_ir::Node| {
        let types: Vec<_> = node.inputs.iter().map(|v| graph.ty(*v).clone()).collect();
        (node.op.def.work)(&node.op.attrs, &types, &node.types) + node.types.iter().map(|t| t.len() as u64).sum::<u64>()
    };
    graph.nodes().iter().map(of).sum()
}

/// What came of a seed.
pub enum Outcome {
    /// All ways agree; so many of them, and the share of the elements that were compared.
    Same(usize, f64),
    /// The evaluator has no stable value.
    Unfit,
    /// A difference, and the way in which it shows.
    Different(Box<Setting>, Finding),
}

/// The network of a seed.
pub fn case(seed: u64) -> Case {
    generate::case(&mut Rng::new(seed))
}

/// Runs one network in several ways; chance is that of `rng`.
pub fn hunt(case: &Case, rng: &mut Rng, rare: bool) -> Outcome {
    let Some(reference) = Reference::new(case, noise::Effort::Little) else { return Outcome::Unfit };
    let settings = settings(rng, work(&case.graph), rare);
    for setting in &settings {
        if let Err(finding) = check(case, setting, &reference) {
            return Outcome::Different(Box::new(setting.clone()), finding);
        }
    }
    Outcome::Same(settings.len(), reference.sharpness())
}

/// A smaller network that is wrong in the same way.
pub fn shrink(case: &Case, setting: &Setting, finding: &Finding) -> Case {
    shrink::shrink(case, &mut |smaller| {
        let Some(reference) = Reference::new(smaller, noise::Effort::Little) else { return false };
        matches!(check(smaller, setting, &reference), Err(f) if f.kind == finding.kind)
    })
}

/// Whether the elements of a type are compared to the bit.
fn is_exact(ty: Type) -> bool {
    !ty.is_float()
}
