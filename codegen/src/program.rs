//! What the emitters are given beside the kernels: the order of calls, the constants and where everything lies.

use crate::kir::Func;
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

/// Alignment of constants, of the arena and of every buffer in it: a cache line.
pub const ALIGN: usize = 64;

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
    /// `for iter in 0..min(trip, max_trip)` while the bool at `cond` is not 0.
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
}
