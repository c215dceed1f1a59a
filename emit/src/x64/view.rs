//! Parts of registers that operands name.

/// How much of a register an operand names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// 8, 16, 32 and 64 bits of a general register.
    B,
    W,
    D,
    Q,
    /// 128, 256 and 512 bits of a vector register.
    X,
    Y,
    Z,
    /// A mask register.
    K,
}

impl View {
    /// Bytes of a register in this view.
    pub fn bytes(self) -> usize {
        match self {
            View::Z => 64,
            View::Y => 32,
            View::X => 16,
            View::Q | View::K => 8,
            View::D => 4,
            View::W => 2,
            View::B => 1,
        }
    }
}
