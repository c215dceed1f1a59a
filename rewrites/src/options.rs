//! What the user asked for.

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep the rounding of the model as written: only rules that are exact for every number.
    pub precise: bool,
    /// Allow rules that hold for finite numbers only.
    pub relaxed: bool,
    /// Kernels compute the zeros of constants like all other numbers: then they save no time.
    pub dense: bool,
}
