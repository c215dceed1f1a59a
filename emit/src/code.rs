//! Machine code of a kernel.

/// Machine code of one kernel: self-contained, without relocations.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Code {
    /// The bytes, code first, constants after it.
    pub bytes: Vec<u8>,
    /// Alignment that the first byte needs.
    pub align: u64,
}
