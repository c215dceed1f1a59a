//! How big a model may be.

/// Limits on what a file may make the compiler do, so that a hostile file is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the model file.
    pub file_bytes: u64,
    /// Bytes of one constant.
    pub constant_bytes: usize,
    /// Bytes of one input or computed tensor.
    pub tensor_bytes: usize,
    /// Nodes after functions are expanded, and operators that they become.
    pub nodes: usize,
    /// Nodes that unrolling loops and taking branches may add.
    pub unrolled: usize,
    /// Graphs and functions inside one another.
    pub depth: usize,
    /// Stages of one run (see [`Stage`](crate::Stage)).
    pub stages: usize,
    /// Iterations of a loop that data ends.
    pub iterations: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: 2 << 30,
            constant_bytes: 8 << 30,
            tensor_bytes: 1 << 30,
            nodes: 100_000,
            unrolled: 25_000,
            depth: 32,
            stages: 4_000,
            iterations: 1 << 24,
        }
    }
}
