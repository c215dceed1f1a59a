//! Steps and places before the memory plan: buffers have numbers, not yet offsets in the arena.

use dnnc_kir::program::{Call, Loc, Step};

/// Where a value lies, before the memory plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    pub base: Base,
    pub offset: usize,
}

/// What a place is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Base {
    Input(usize),
    Output(usize),
    Const(usize),
    Buffer(usize),
}

impl Place {
    /// The place `bytes` behind.
    pub fn at(self, bytes: usize) -> Place {
        Place { offset: self.offset + bytes, ..self }
    }

    fn loc(self, offsets: &[usize]) -> Loc {
        match self.base {
            Base::Input(i) => Loc::Input(i, self.offset),
            Base::Output(i) => Loc::Output(i, self.offset),
            Base::Const(i) => Loc::Const(i, self.offset),
            Base::Buffer(i) => Loc::Arena(offsets[i] + self.offset),
        }
    }
}

/// A step before the memory plan.
pub(crate) enum Draft {
    /// A call, and where its pointers point.
    Call(Call, Vec<Place>),
    If {
        cond: Place,
        then: Vec<Draft>,
        otherwise: Vec<Draft>,
    },
    Loop {
        trip: Place,
        cond: Place,
        iter: Place,
        max_trip: usize,
        body: Vec<Draft>,
    },
}

impl Draft {
    /// The step, once the plan has given each buffer its offset in the arena.
    pub fn placed(self, offsets: &[usize]) -> Step {
        let all = |steps: Vec<Draft>| steps.into_iter().map(|s| s.placed(offsets)).collect();
        match self {
            Draft::Call(call, args) => Step::Call(Call { args: args.into_iter().map(|p| p.loc(offsets)).collect(), ..call }),
            Draft::If { cond, then, otherwise } => Step::If { cond: cond.loc(offsets), then: all(then), otherwise: all(otherwise) },
            Draft::Loop { trip, cond, iter, max_trip, body } => {
                Step::Loop { trip: trip.loc(offsets), cond: cond.loc(offsets), iter: iter.loc(offsets), max_trip, body: all(body) }
            }
        }
    }
}
