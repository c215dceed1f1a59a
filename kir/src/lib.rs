//! The vector kernel IR: the one thing emitters see.
//!
//! A [`Func`] is a small structured program in single-assignment form: pointers, scalars, vectors, counted loops with carried
//! values. Generators write it through [`Builder`]; [`interp`] is its meaning; emitters make machine code of it. It knows
//! nothing of networks, and no generator asks which architecture it is for.
//!
//! Meaning of what is not obvious:
//! - Integers wrap. Shifts take their count modulo the width. `DivS`/`RemS`/`DivU`/`RemU` are scalar only; by 0 (or MIN by −1) gives 0.
//! - Float `Min`/`Max` are `a < b ? a : b` and `a > b ? a : b`: the second operand when one is NaN or both are zeros.
//! - A comparison gives a mask of the width of what was compared; `Select` takes a mask of the width of its arms.
//! - Loads and stores are little-endian and need no alignment. `Load`/`Store` of a vector with `count` < lanes touches only the
//!   first `count` elements in memory; the other lanes load as 0.
//! - A kernel is `fn(ptr × n, task: i64) -> i32`; falling off the end returns 0, [`Builder::fail`] returns a status at once.
//!
//! An operation is a row of a table ([`Op`], and [`element`] for what works element by element); a new one is a row there, an arm in each
//! emitter and, where it helps, a method of [`Builder`].

mod builder;
pub mod element;
mod field;
mod func;
pub mod interp;
pub mod interpret;
mod lanes;
mod op;
pub mod program;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
mod ty;
mod verify;
mod words;

pub use builder::Builder;
pub use element::{Bin, Cmp, Conv, Fold, Un};
pub use field::{On, Shape};
pub use func::{Carried, Func, Stmt, Tuning};
pub use op::Op;
pub use ty::{Elem, MAX_BYTES, Ty, Val};
pub use verify::verify;
