//! What the user chose.

/// What the user chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep the rounding of the model as written: only rules that are exact for every number.
    pub precise: bool,
    /// Allow rules that hold for finite numbers only, and products with rounded reciprocals instead of quotients.
    pub relaxed: bool,
    /// Kernels compute the zeros of constants like all other numbers, so sparsity saves no time.
    pub dense: bool,
}

impl Options {
    /// Whether rules may assume finite numbers.
    pub fn finite_math(&self) -> bool {
        self.relaxed && !self.precise
    }
}
