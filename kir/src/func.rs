//! Kernels: statements, loops and branches around operations.

use crate::op::Op;
use crate::ty::{Ty, Val};

/// A statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stmt {
    /// A value is made.
    Let(Val, Op),
    /// A value is written to address + displacement.
    Store {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
        /// What is written; masks cannot be.
        val: Val,
        /// Elements written; lanes of the type for all.
        count: u8,
    },
    /// The line at address + displacement will be read soon. No effect on results.
    Prefetch {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
    },
    /// `for iv in (start..end).step_by(step)`, step > 0; start and end are I64, read once.
    For {
        /// Counter.
        iv: Val,
        /// First value.
        start: Val,
        /// Bound, not reached.
        end: Val,
        /// Increment.
        step: i64,
        /// Values that go from one iteration to the next.
        carried: Vec<Carried>,
        /// Body.
        body: Vec<Stmt>,
    },
    /// Runs the body as long as `cond`, computed by `head` from the carried values, is true.
    While {
        /// Values that go from one iteration to the next; `result` has their value when the condition fails.
        carried: Vec<Carried>,
        /// Computes the condition; its values can be used in the body.
        head: Vec<Stmt>,
        /// A scalar mask.
        cond: Val,
        /// Body.
        body: Vec<Stmt>,
    },
    /// One of two bodies.
    If {
        /// A scalar mask.
        cond: Val,
        /// When it is true.
        then: Vec<Stmt>,
        /// When it is false.
        otherwise: Vec<Stmt>,
        /// Results: (result, value in `then`, value in `otherwise`).
        results: Vec<(Val, Val, Val)>,
    },
    /// Ends the kernel with this status.
    Fail(i32),
}

/// A value that a loop carries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Carried {
    /// Its name in the body.
    pub param: Val,
    /// Before the first iteration.
    pub init: Val,
    /// At the end of the body.
    pub next: Val,
    /// Its name after the loop (`init` when no iteration ran).
    pub result: Val,
}

/// A kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Func {
    /// A name for people; identical bodies are emitted once whatever they are called.
    pub name: String,
    /// Number of pointer parameters; they are values `0..n`, and value `n` is the task number (I64).
    pub pointers: usize,
    /// Type of every value.
    pub types: Vec<Ty>,
    /// The program.
    pub body: Vec<Stmt>,
    /// How the optimiser of an emitter should treat it.
    pub tuning: Tuning,
}

/// What a generator knows of how its kernel should be emitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Tuning {
    /// Keep the order of operations: multiply-add tiles written for the register file.
    #[default]
    AsWritten,
    /// Hoist constants and schedule: long chains of arithmetic with many constants.
    Optimise,
}

impl Tuning {
    /// Its name in text.
    pub fn word(self) -> &'static str {
        match self {
            Tuning::AsWritten => "as_written",
            Tuning::Optimise => "optimise",
        }
    }
}

impl Func {
    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    /// The task number.
    pub fn task(&self) -> Val {
        Val(self.pointers as u32)
    }

    /// Widest vector, in bytes (at least 1).
    pub fn widest(&self) -> usize {
        self.types.iter().map(|t| t.bytes()).max().unwrap_or(1)
    }
}
