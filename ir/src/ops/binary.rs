//! Element-wise operators of two and three inputs; they broadcast as NumPy does.

use super::check::{self, Types};
use super::{not_yet, per_output};
use crate::op::{Arity, AttrKind, Attrs, Class, Kind, OpDef};
use crate::types::{TensorType, Type};

/// A row of a function of two inputs: kind, meaning, shape rule, operations an element, reference.
macro_rules! binary {
    ($kind:ident, $doc:literal, $infer:expr, $work:literal, $eval:expr) => {
        binary!($kind, $doc, &[], $infer, $work, $eval)
    };
    ($kind:ident, $doc:literal, $attrs:expr, $infer:expr, $work:literal, $eval:expr) => {
        OpDef {
            kind: Kind::$kind,
            doc: $doc,
            inputs: Arity::Exactly(2),
            attrs: $attrs,
            class: Class::Map,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    binary!(Add, "a + b; integers wrap.", numbers, 1, not_yet),
    binary!(Sub, "a − b; integers wrap.", numbers, 1, not_yet),
    binary!(Mul, "a · b; integers wrap.", numbers, 1, not_yet),
    binary!(Div, "a / b; integers truncate towards 0, wrap, and fail where b is 0.", numbers, 4, not_yet),
    binary!(
        Mod,
        "The rest of a / b with the sign of b, or with that of a if `trunc`; integers fail where b is 0.",
        &[("trunc", AttrKind::Int(0))],
        numbers,
        8,
        not_yet
    ),
    binary!(
        Pow,
        "a to the power of b, of the type of a; b may have another type. An integer to an integer power wraps; a negative \
         power truncates towards 0 and fails where a is 0.",
        pow,
        16,
        not_yet
    ),
    binary!(Min, "The smaller of a and b; NaN if one is.", numbers, 1, not_yet),
    binary!(Max, "The larger of a and b; NaN if one is.", numbers, 1, not_yet),
    binary!(And, "Logical and of bools, bitwise and of integers.", bits, 1, not_yet),
    binary!(Or, "Logical or of bools, bitwise or of integers.", bits, 1, not_yet),
    binary!(Xor, "Logical exclusive or of bools, bitwise of integers.", bits, 1, not_yet),
    binary!(Shl, "The bits of a moved up by b; 0 where b is the width or more.", unsigned, 1, not_yet),
    binary!(Shr, "The bits of a moved down by b; 0 where b is the width or more.", unsigned, 1, not_yet),
    binary!(Eq, "Whether a = b.", equal, 1, not_yet),
    binary!(Lt, "Whether a < b.", order, 1, not_yet),
    binary!(Le, "Whether a ≤ b.", order, 1, not_yet),
    OpDef {
        kind: Kind::Select,
        doc: "a where the condition (bool) holds, else b.",
        inputs: Arity::Exactly(3),
        attrs: &[],
        class: Class::Map,
        infer: select,
        eval: not_yet,
        work: per_output::<1>,
    },
];

fn numbers(_: &Attrs, x: &[TensorType]) -> Types {
    check::same_type(&x[0], &x[1])?;
    check::number("the first input", &x[0])?;
    check::one(x[0].ty, check::broadcast_of(&x[0], &x[1])?)
}

fn pow(_: &Attrs, x: &[TensorType]) -> Types {
    check::number("the base", &x[0])?;
    check::number("the exponent", &x[1])?;
    check::one(x[0].ty, check::broadcast_of(&x[0], &x[1])?)
}

fn bits(_: &Attrs, x: &[TensorType]) -> Types {
    check::same_type(&x[0], &x[1])?;
    let fits = x[0].ty == Type::Bool || x[0].ty.is_int() && !x[0].ty.is_narrow();
    check::ensure(fits, || format!("the first input is {}, but must be bools or integers", x[0]))?;
    check::one(x[0].ty, check::broadcast_of(&x[0], &x[1])?)
}

fn unsigned(_: &Attrs, x: &[TensorType]) -> Types {
    check::same_type(&x[0], &x[1])?;
    let fits = matches!(x[0].ty, Type::U8 | Type::U16 | Type::U32 | Type::U64);
    check::ensure(fits, || format!("the first input is {}, but must be unsigned integers", x[0]))?;
    check::one(x[0].ty, check::broadcast_of(&x[0], &x[1])?)
}

fn equal(_: &Attrs, x: &[TensorType]) -> Types {
    check::same_type(&x[0], &x[1])?;
    check::ensure(!x[0].ty.is_narrow(), || format!("{} cannot be compared", x[0]))?;
    check::one(Type::Bool, check::broadcast_of(&x[0], &x[1])?)
}

fn order(_: &Attrs, x: &[TensorType]) -> Types {
    check::same_type(&x[0], &x[1])?;
    check::number("the first input", &x[0])?;
    check::one(Type::Bool, check::broadcast_of(&x[0], &x[1])?)
}

fn select(_: &Attrs, x: &[TensorType]) -> Types {
    check::is_type("the condition", &x[0], Type::Bool)?;
    check::same_type(&x[1], &x[2])?;
    let both = TensorType { ty: x[1].ty, shape: check::broadcast_of(&x[1], &x[2])? };
    check::one(x[1].ty, check::broadcast_of(&x[0], &both)?)
}
