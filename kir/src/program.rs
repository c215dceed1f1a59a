//! What the emitters are given beside the kernels: the order of calls, the constants and where everything lies.

use crate::Func;
use dnnc_ir::TensorType;

/// A compiled network before machine code.
pub struct Program {
    /// Name of the entry.
    pub name: String,
    /// Distinct kernels.
    pub kernels: Vec<Func>,
    /// Constant data, each aligned to [`ALIGN`].
    pub constants: Vec<Vec<u8>>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Names and types of the inputs.
    pub inputs: Vec<(String, TensorType)>,
    /// Names and types of the results.
    pub outputs: Vec<(String, TensorType)>,
    /// Bytes of the arena, which the caller provides, aligned to [`ALIGN`].
    pub arena_bytes: usize,
}

pub use dnnc_runtime::abi::ALIGN;

/// Where a pointer of a step points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Loc {
    /// Bytes into an input.
    Input(usize, usize),
    /// Bytes into a result.
    Output(usize, usize),
    /// Bytes into the arena.
    Arena(usize),
    /// Bytes into a constant.
    Const(usize, usize),
}

/// One thing that is done.
#[derive(Clone)]
pub enum Step {
    /// A kernel runs for each task in `0..tasks`, in any order or at once.
    Call(Call),
    /// One of two lists, by the byte (bool) at `cond`.
    If {
        /// A bool.
        cond: Loc,
        /// When it is not 0.
        then: Vec<Step>,
        /// When it is 0.
        otherwise: Vec<Step>,
    },
    /// `for iter in 0..trip` while the bool at `cond` is not 0; the run ends with an error where that is more than `max_trip` times.
    Loop {
        /// An i64.
        trip: Loc,
        /// A bool, which the body rewrites.
        cond: Loc,
        /// An i64 that holds the number of the iteration.
        iter: Loc,
        /// Upper bound of the trip count.
        max_trip: usize,
        /// What is done each time.
        body: Vec<Step>,
    },
}

/// A use of a kernel.
#[derive(Clone, Default)]
pub struct Call {
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// Its pointers.
    pub args: Vec<Loc>,
    /// Number of tasks.
    pub tasks: usize,
    /// Operators computed, for reports: `conv+add+relu`.
    pub label: String,
    /// Name of the ONNX node it stands for.
    pub node: String,
    /// Multiply-accumulates (or scalar operations where there are none).
    pub work: u64,
    /// Bytes read and written at least once.
    pub traffic: u64,
    /// Predicted time on one thread, in nanoseconds.
    pub ns: f64,
    /// Whether the thread that calls does all tasks: others would help too little.
    pub alone: bool,
    /// Which algorithm was taken, where there were several.
    pub choice: Option<Choice>,
}

/// What was taken, and what was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Name of the algorithm.
    pub name: String,
    /// Every algorithm that came into question, with its time in nanoseconds.
    pub considered: Vec<(String, f64)>,
    /// Whether the times are measured, not predicted.
    pub measured: bool,
    /// Where constant weights are not 0, when that mattered.
    pub density: Option<Density>,
}

impl Choice {
    /// Nanoseconds of the algorithm that was chosen.
    pub fn ns(&self) -> f64 {
        self.considered.iter().find(|c| c.0 == self.name).map_or(0.0, |c| c.1)
    }
}

/// Shares of the elements of a constant, and of blocks of neighbours in it, that are not 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Density {
    /// Elements.
    pub elements: f64,
    /// Blocks of four neighbouring outputs.
    pub fours: f64,
    /// Blocks of eight neighbouring outputs.
    pub eights: f64,
}

/// All calls of these steps and of the steps inside them, in order.
pub fn calls(steps: &[Step]) -> Vec<&Call> {
    let mut out = vec![];
    for step in steps {
        match step {
            Step::Call(c) => out.push(c),
            Step::If { then, otherwise, .. } => {
                out.extend(calls(then));
                out.extend(calls(otherwise));
            }
            Step::Loop { body, .. } => out.extend(calls(body)),
        }
    }
    out
}

/// A row for each outer step: label, node, work, traffic and tasks; the steps inside an `If` or a `Loop` are added up.
pub fn top_calls(steps: &[Step]) -> Vec<(String, String, u64, u64, usize)> {
    steps
        .iter()
        .map(|step| match step {
            Step::Call(c) => (c.label.clone(), c.node.clone(), c.work, c.traffic, c.tasks),
            other => {
                let (label, times) = match other {
                    Step::Loop { max_trip, .. } => ("loop", *max_trip as u64),
                    _ => ("if", 1),
                };
                let inside = calls(std::slice::from_ref(other));
                let sum = |f: fn(&Call) -> u64| inside.iter().map(|c| f(c)).sum::<u64>() * times;
                (label.to_string(), String::new(), sum(|c| c.work), sum(|c| c.traffic), 1)
            }
        })
        .collect()
}
