//! Bisection: the first wrong step of a network, found by a binary search over its nodes with the reference evaluator as the oracle.

use super::backends::{Backend, executor};
use crate::{Error, Options};
use dnnc_ir::eval::{eval, eval_with};
use dnnc_ir::{Graph, Kind, Tensor, Value};
use dnnc_kir::program::calls;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The part of the compiler that a wrong result comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The result is wrong without rewrites, too.
    CodeGeneration,
    /// The result is wrong only with rewrites.
    Rewriting,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::CodeGeneration => "code generation: the result is wrong without rewrites, too",
            Cause::Rewriting => "rewriting: without rewrites the result is right",
        })
    }
}

/// The first node whose result differs from the evaluator's.
#[derive(Clone, Debug)]
pub struct FirstWrong {
    /// Its name in the model; may be empty.
    pub node: String,
    /// Its operator in the IR.
    pub op: &'static str,
    /// The node in the text form of the IR.
    pub line: String,
    /// How its result differs.
    pub error: String,
    /// Number of preceding nodes that have to be compiled with it to reproduce the error; the others may become inputs.
    pub before: usize,
    /// A graph that reproduces the error, in the text form of the IR, without large constants.
    pub graph: String,
    /// Where the error comes from.
    pub cause: Cause,
    /// The steps that compute the node: operators and kernel.
    pub steps: Vec<String>,
}

impl fmt::Display for FirstWrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.node.is_empty() { String::new() } else { format!(" of node \"{}\"", self.node) };
        writeln!(f, "first wrong step: `{}`{name}: {}", self.op, self.error)?;
        writeln!(f, "  {}", self.line)?;
        match self.before {
            0 => writeln!(f, "  reproduced by this node alone")?,
            1 => writeln!(f, "  reproduced together with the node before it")?,
            n => writeln!(f, "  reproduced together with {n} nodes before it")?,
        }
        writeln!(f, "  cause: {}", self.cause)?;
        write!(f, "  computed by {}", if self.steps.is_empty() { "no step".into() } else { self.steps.join(", ") })
    }
}

/// Compiles a graph as the options say and runs it.
type Run<'a> = dyn Fn(&Graph, &[Tensor], &Options) -> Result<Vec<Tensor>, Error> + 'a;

/// Decides whether a compiled graph is right: how it is run, and how far its results may be from the evaluator's.
pub struct Oracle<'a> {
    /// Compiles and runs.
    run: Box<Run<'a>>,
    /// Options of the compilation.
    options: &'a Options,
    /// Allowed error as a fraction of the largest number of a result.
    tolerance: f64,
}

impl<'a> Oracle<'a> {
    /// The oracle for a backend.
    pub fn new(backend: Backend, options: &'a Options, tolerance: f64) -> Oracle<'a> {
        Oracle::of(options, tolerance, move |graph, inputs, options| executor(graph.clone(), backend, options)?.run(inputs))
    }

    /// The oracle for a function that compiles and runs a graph.
    pub fn of(
        options: &'a Options,
        tolerance: f64,
        run: impl Fn(&Graph, &[Tensor], &Options) -> Result<Vec<Tensor>, Error> + 'a,
    ) -> Oracle<'a> {
        Oracle { run: Box::new(run), options, tolerance }
    }

    /// How the results of `graph` are wrong; `None` when they agree with the evaluator's.
    pub fn wrong(&self, graph: &Graph, inputs: &[Tensor], want: &[Tensor]) -> Option<String> {
        self.wrong_with(self.options, graph, inputs, want)
    }

    fn wrong_with(&self, options: &Options, graph: &Graph, inputs: &[Tensor], want: &[Tensor]) -> Option<String> {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(graph, inputs, options))) {
            Ok(Ok(got)) => self.differ(&got, want),
            Ok(Err(e)) => Some(format!("no result: {e}")),
            Err(_) => Some("the compiler panics".into()),
        }
    }

    /// How results differ from the evaluator's; `None` where they agree.
    pub fn differ(&self, got: &[Tensor], want: &[Tensor]) -> Option<String> {
        got.iter().zip(want).enumerate().find_map(|(i, (g, w))| difference(g, w, self.tolerance).map(|e| format!("result {i}: {e}")))
    }

    /// The first wrong node of a graph; `None` when every prefix of the graph is right.
    pub fn first_wrong(&self, graph: &Graph, inputs: &[Tensor]) -> Result<Option<FirstWrong>, Error> {
        let live = graph.live();
        let mut values: BTreeMap<Value, Tensor> = BTreeMap::new();
        let keep = |n: usize, results: &[Tensor]| {
            values.extend(results.iter().enumerate().map(|(i, t)| (Value { node: n as u32, index: i as u32 }, t.clone())));
        };
        eval_with(graph, inputs, keep).map_err(|e| Error::Run(e.to_string()))?;
        let computes = |n: &u32| live[*n as usize] && !matches!(graph.nodes()[*n as usize].op.kind(), Kind::Input | Kind::Const);
        let order: Vec<u32> = (0..graph.nodes().len() as u32).filter(computes).collect();
        let prefix_is_wrong = |at: usize| {
            let results = results_of(graph, order[at]);
            let want: Vec<Tensor> = results.iter().map(|v| values[v].clone()).collect();
            self.wrong(&graph.with_outputs(&results), inputs, &want)
        };
        // The search begins at a wrong result of the graph.
        let outputs: BTreeSet<u32> = graph.outputs().iter().map(|(_, v)| v.node).collect();
        let Some(mut wrong) = outputs.iter().filter_map(|n| order.iter().position(|o| o == n)).find(|&at| prefix_is_wrong(at).is_some())
        else {
            return Ok(None);
        };
        let ancestors = ancestors(graph, order[wrong]);
        let path: Vec<usize> = (0..=wrong).filter(|&at| ancestors[order[at] as usize]).collect();
        let (mut right, mut at) = (0, path.len() - 1);
        while right < at {
            let middle = (right + at) / 2;
            if prefix_is_wrong(path[middle]).is_some() { at = middle } else { right = middle + 1 }
        }
        wrong = path[at];
        let error = prefix_is_wrong(wrong).unwrap_or_else(|| "the error is not reproducible".into());
        Ok(Some(self.describe(graph, inputs, &values, order[wrong], error)))
    }

    /// Finds how many nodes before a wrong one are needed to reproduce the error, and its cause.
    fn describe(&self, graph: &Graph, inputs: &[Tensor], values: &BTreeMap<Value, Tensor>, n: u32, error: String) -> FirstWrong {
        let results = results_of(graph, n);
        let want: Vec<Tensor> = results.iter().map(|v| values[v].clone()).collect();
        // More and more nodes before it are compiled with it; the values that these read become inputs.
        let mut kept = BTreeSet::from([n]);
        let (window, fed) = loop {
            let (window, fed) = cut_out(graph, values, &kept, &results);
            if self.wrong(&window, &fed, &want).is_some() {
                break (window, fed);
            }
            let computed = |v: &&Value| !matches!(graph.node(**v).op.kind(), Kind::Input | Kind::Const);
            let more: BTreeSet<u32> = kept
                .iter()
                .flat_map(|n| &graph.nodes()[*n as usize].inputs)
                .filter(computed)
                .map(|v| v.node)
                .filter(|n| !kept.contains(n))
                .collect();
            match more.last() {
                Some(&last) => kept.insert(last),
                None => break (graph.with_outputs(&results), inputs.to_vec()),
            };
        };
        let as_imported = Options { rewrites: false, ..self.options.clone() };
        let cause = if !self.options.rewrites || self.wrong_with(&as_imported, &window, &fed, &want).is_some() {
            Cause::CodeGeneration
        } else {
            Cause::Rewriting
        };
        let steps = crate::build(&window, "model", self.options).map_or_else(
            |_| vec![],
            |built| calls(&built.program.steps).iter().map(|c| format!("{} ({})", c.label, built.program.kernels[c.kernel].name)).collect(),
        );
        let node = &graph.nodes()[n as usize];
        let line = graph.with_outputs(&results).brief().to_string();
        let line = line.lines().rev().nth(2).unwrap_or_default().trim().to_string();
        let (op, before) = (node.op.kind().name(), kept.len() - 1);
        FirstWrong { node: node.name.clone(), op, line, error, before, graph: window.brief().to_string(), cause, steps }
    }
}

/// For each node, whether node `n` is or depends on it.
fn ancestors(graph: &Graph, n: u32) -> Vec<bool> {
    let mut found = vec![false; graph.nodes().len()];
    found[n as usize] = true;
    for i in (0..=n as usize).rev() {
        if found[i] {
            graph.nodes()[i].inputs.iter().for_each(|v| found[v.node as usize] = true);
        }
    }
    found
}

fn results_of(graph: &Graph, n: u32) -> Vec<Value> {
    (0..graph.nodes()[n as usize].types.len() as u32).map(|index| Value { node: n, index }).collect()
}

/// The nodes of `kept` as a graph whose inputs are the values that they read, except constants; and the data of these inputs.
fn cut_out(graph: &Graph, values: &BTreeMap<Value, Tensor>, kept: &BTreeSet<u32>, results: &[Value]) -> (Graph, Vec<Tensor>) {
    let (mut window, mut fed) = (Graph::new(), vec![]);
    let mut mapped: BTreeMap<Value, Value> = BTreeMap::new();
    let read: BTreeSet<Value> = kept.iter().flat_map(|n| &graph.nodes()[*n as usize].inputs).copied().collect();
    for v in read.iter().filter(|v| !kept.contains(&v.node)) {
        let new = match graph.const_of(*v) {
            Some(tensor) => window.constant(tensor.clone()),
            None => {
                fed.push(values[v].clone());
                window.input(&format!("x{}", fed.len() - 1), graph.ty(*v).clone())
            }
        };
        mapped.insert(*v, new);
    }
    for &n in kept {
        let node = &graph.nodes()[n as usize];
        let operands = node.inputs.iter().map(|v| mapped[v]).collect();
        let new = window.add(node.op.clone(), operands, &node.name).expect("types are as they were");
        mapped.extend(results_of(graph, n).into_iter().map(|v| (v, new.result(v.index))));
    }
    for (i, v) in results.iter().enumerate() {
        window.output(&format!("y{i}"), mapped[v]);
    }
    (window, fed)
}

/// How a result differs by more than a fraction of its largest number; `None` where it does not.
fn difference(got: &Tensor, want: &Tensor, tolerance: f64) -> Option<String> {
    if got.ty() != want.ty() {
        return Some(format!("{}, not {}", got.ty(), want.ty()));
    }
    let (g, w) = (got.to_f64s(), want.to_f64s());
    let top = w.iter().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
    let allowed = if want.ty().ty.is_float() { tolerance * top + 1e-7 } else { 0.0 };
    let same = |g: f64, w: f64| g == w || (g - w).abs() <= allowed || g.is_nan() && w.is_nan();
    let wrong: Vec<usize> = (0..w.len()).filter(|&i| !same(g[i], w[i])).collect();
    let error = |i: &usize| (g[*i] - w[*i]).abs();
    let worst = wrong.iter().copied().max_by(|a, b| error(a).total_cmp(&error(b)))?;
    let count = wrong.len();
    Some(format!(
        "{count} of {} values differ, most at index {worst}: {}, the evaluator has {} (largest: {top:.3e})",
        w.len(),
        g[worst],
        w[worst]
    ))
}

/// The first wrong node of a model, whose stages are run one after the other by the evaluator.
pub fn first_wrong_of(model: &dnnc_frontend::Model, inputs: &[Tensor], oracle: &Oracle) -> Result<Option<FirstWrong>, Error> {
    let mut found = None;
    let stage = |graph: &Graph, inputs: &[Tensor]| {
        let want = eval(graph, inputs).map_err(|e| e.to_string())?;
        if found.is_none() && oracle.wrong(graph, inputs, &want).is_some() {
            found = oracle.first_wrong(graph, inputs).map_err(|e| e.to_string())?;
        }
        Ok(want)
    };
    match dnnc_frontend::run_with(model, inputs, stage) {
        Ok(_) => Ok(found),
        Err(dnnc_frontend::RunError::Refused(r)) => Err(Error::Refused(r)),
        Err(dnnc_frontend::RunError::Failed(reason)) => Err(Error::Run(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_ir::text::parse;

    /// A network with two functions before a matmul and one after it.
    const NETWORK: &str = "graph(x: f32[2,3]) {
        %a = exp(%x)                      ; first
        %b = tanh(%a)                     ; second
        %w = const f32[3,2] splat 0.5
        %c = matmul(%b, %w)               ; third
        %d = abs(%c)                      ; fourth
        return d = %d, a = %a }";

    /// The evaluator, but with 1 added to the results of nodes for which `wrong` holds.
    fn broken(
        wrong: impl Fn(&Graph, &Options, &dnnc_ir::Node) -> bool,
    ) -> impl Fn(&Graph, &[Tensor], &Options) -> Result<Vec<Tensor>, Error> {
        move |graph, inputs, options| {
            let mut other = Graph::new();
            let mut mapped: BTreeMap<Value, Value> = BTreeMap::new();
            for (n, node) in graph.nodes().iter().enumerate() {
                let operands: Vec<Value> = node.inputs.iter().map(|v| mapped[v]).collect();
                let mut new = match node.op.kind() {
                    Kind::Input => other.input("x", node.types[0].clone()),
                    _ => other.add(node.op.clone(), operands, "").expect("as before"),
                };
                if wrong(graph, options, node) {
                    let one = other.constant(Tensor::scalar(1f32));
                    new = other.apply(Kind::Add, [], &[new, one]).expect("two numbers");
                }
                mapped.insert(Value { node: n as u32, index: 0 }, new);
            }
            graph.outputs().iter().for_each(|(name, v)| other.output(name, mapped[v]));
            eval(&other, inputs).map_err(|e| Error::Run(e.to_string()))
        }
    }

    fn found(run: impl Fn(&Graph, &[Tensor], &Options) -> Result<Vec<Tensor>, Error>) -> Option<FirstWrong> {
        let graph = parse(NETWORK).expect("a graph");
        let inputs = [Tensor::new([2, 3], &[0.1f32, -0.2, 0.3, 0.4, -0.5, 0.6])];
        Oracle::of(&Options::default(), 1e-3, run).first_wrong(&graph, &inputs).expect("the evaluator has an answer")
    }

    #[test]
    fn a_correct_graph_has_no_wrong_step() {
        assert!(found(broken(|_, _, _| false)).is_none());
    }

    #[test]
    fn a_wrong_kernel_is_named() {
        let step = found(broken(|_, _, node| node.op.kind() == Kind::Tanh)).expect("a wrong step");
        assert_eq!((step.node.as_str(), step.op, step.before, step.cause), ("second", "tanh", 0, Cause::CodeGeneration));
        assert!(step.error.contains("6 of 6 values differ"), "{step}");
        assert_eq!(step.graph, "graph(x0: f32[2,3]) {\n  %1: f32[2,3] = tanh(%x0) ; second\n  return y0 = %1\n}");
        assert!(!step.steps.is_empty());
    }

    #[test]
    fn a_wrong_rewrite_is_distinguished_from_a_wrong_kernel() {
        // As if a rule for the matmul of a tanh were wrong.
        let rule = |graph: &Graph, options: &Options, node: &dnnc_ir::Node| {
            options.rewrites && node.op.kind() == Kind::MatMul && graph.node(node.inputs[0]).op.kind() == Kind::Tanh
        };
        let step = found(broken(rule)).expect("a wrong step");
        assert_eq!((step.node.as_str(), step.before, step.cause), ("third", 1, Cause::Rewriting));
    }
}
