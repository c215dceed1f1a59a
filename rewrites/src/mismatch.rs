//! Why a rule does not hold where its left side was found.

/// Why a rule does not hold at a place where its left side was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Completes "did not apply: …".
    pub reason: &'static str,
    /// Whether the place is one the rule aims at, so that a person may want to know.
    pub near: bool,
}

/// The rule aims at such a place, but something stands in the way.
pub const fn near_miss(reason: &'static str) -> Mismatch {
    Mismatch { reason, near: true }
}

/// The place is another than the rule aims at.
pub const fn no_match(reason: &'static str) -> Mismatch {
    Mismatch { reason, near: false }
}
