//! What a table of rules is written in.

use crate::fact::Classes;
use crate::mismatch::Mismatch;
use crate::pattern::Arg;
pub use crate::pattern::Make;

/// A condition on what a left side has bound.
pub type Check = fn(&Classes, &[Arg]) -> Result<(), Mismatch>;

/// A line of a table, as written.
pub struct Line {
    /// Name of the rule.
    pub name: &'static str,
    /// What is looked for.
    pub left: &'static str,
    /// What it is equal to.
    pub right: &'static str,
    /// Names and arguments of conditions.
    pub conditions: &'static [(&'static str, &'static str)],
}

/// A table of rules: `rules! { NAME "…" : (…) => (…) if fact(x) … }`.
macro_rules! rules {
    ($(#[$doc:meta])* $table:ident; $($name:literal : $left:tt => $right:tt $(if $($cond:ident $args:tt),+)?)*) => {
        $(#[$doc])*
        pub const $table: &[$crate::rules::table::Line] = &[$($crate::rules::table::Line {
            name: $name,
            left: stringify!($left),
            right: stringify!($right),
            conditions: &[$($((stringify!($cond), stringify!($args))),+)?],
        }),*];
    };
}

/// Functions by their names: what tables call.
macro_rules! named {
    ($(#[$doc:meta])* $table:ident : $ty:ty; $($function:ident),* $(,)?) => {
        $(#[$doc])*
        pub const $table: &[(&str, $ty)] = &[$((stringify!($function), $function)),*];
    };
}
pub(crate) use {named, rules};
