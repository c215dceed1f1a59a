//! Why a rule does not hold for a match of its left side.

/// Why a rule does not hold for a match of its left side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Completes "did not apply: …".
    pub reason: &'static str,
    /// Whether the match is of the kind that the rule is made for, so that `explain` shows it.
    pub near: bool,
}

/// A match of the kind that the rule is made for; a condition does not hold.
pub const fn near_miss(reason: &'static str) -> Mismatch {
    Mismatch { reason, near: true }
}

/// A match of another kind than the rule is made for.
pub const fn no_match(reason: &'static str) -> Mismatch {
    Mismatch { reason, near: false }
}
