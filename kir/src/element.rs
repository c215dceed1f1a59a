//! Operations on elements by table: a row has a name, its word, the types it is defined on and what it computes.
//!
//! Elements are given and returned as bits, zero above their width.

use crate::ty::{Elem, Ty};
use half::f16;
use std::fmt;

/// Defines a family of operations.
macro_rules! family {
    ($(#[$doc:meta])* $name:ident($on:ty) -> $compute:ty {
        $($(#[$row:meta])* $variant:ident $word:literal $defined:expr, $f:expr;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum $name {
            $($(#[$row])* $variant),*
        }

        impl $name {
            /// Every one, in the order of the table.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// Its name in text.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word),*
                }
            }

            /// Whether it is defined on operands (or from, to) of such types.
            pub fn defined(self, on: $on) -> bool {
                let defined: fn($on) -> bool = match self {
                    $($name::$variant => $defined),*
                };
                defined(on)
            }

            fn compute(self) -> $compute {
                match self {
                    $($name::$variant => $f),*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

/// A function on bits that works on integers of the width of an element type, as signed `S` and unsigned `U`.
macro_rules! int {
    ($elem:expr, |$a:ident| $e:expr) => {
        int!(@ $elem, fn(u64) -> u64, |$a: u64| -> u64 { let $a = $a as S; ($e) as U as u64 })
    };
    ($elem:expr, |$a:ident, $b:ident| $e:expr) => {
        int!(@ $elem, fn(u64, u64) -> u64, |$a: u64, $b: u64| -> u64 { let ($a, $b) = ($a as S, $b as S); ($e) as U as u64 })
    };
    (@ $elem:expr, $ty:ty, $f:expr) => {{
        #[allow(clippy::unnecessary_cast)]
        let f: $ty = match $elem.bytes() {
            1 => { type S = i8; type U = u8; $f }
            2 => { type S = i16; type U = u16; $f }
            4 => { type S = i32; type U = u32; $f }
            _ => { type S = i64; type U = u64; $f }
        };
        f
    }};
}

/// A function on bits that works on floats of an element type.
macro_rules! float {
    ($elem:expr, |$a:ident| $e:expr) => {{
        let f: fn(u64) -> u64 = match $elem {
            Elem::F64 => |$a: u64| -> u64 {
                let $a = f64($a);
                ($e).to_bits()
            },
            _ => |$a: u64| -> u64 {
                let $a = f32($a);
                b32($e)
            },
        };
        f
    }};
    ($elem:expr, |$a:ident, $b:ident| $e:expr) => {{
        let f: fn(u64, u64) -> u64 = match $elem {
            Elem::F64 => |$a: u64, $b: u64| -> u64 {
                let ($a, $b) = (f64($a), f64($b));
                ($e).to_bits()
            },
            _ => |$a: u64, $b: u64| -> u64 {
                let ($a, $b) = (f32($a), f32($b));
                b32($e)
            },
        };
        f
    }};
}

/// The same expression on floats of an element type, else one on integers.
macro_rules! number {
    ($elem:expr, |$($a:ident),*| $float:expr, $int:expr) => {
        if $elem.is_float() { float!($elem, |$($a),*| $float) } else { int!($elem, |$($a),*| $int) }
    };
}

/// A comparison of floats or signed integers.
macro_rules! compare {
    ($elem:expr, |$a:ident, $b:ident| $e:expr) => {{
        let f: fn(u64, u64) -> u64 = match $elem {
            Elem::F64 => |$a, $b| {
                let ($a, $b) = (f64($a), f64($b));
                if $e { u64::MAX } else { 0 }
            },
            Elem::F32 => |$a, $b| {
                let ($a, $b) = (f32($a), f32($b));
                if $e { u64::from(u32::MAX) } else { 0 }
            },
            elem => int!(elem, |$a, $b| if $e { -1 } else { 0 }),
        };
        f
    }};
}

fn floats(t: Ty) -> bool {
    t.elem.is_float()
}

fn ints(t: Ty) -> bool {
    t.elem.is_int()
}

fn numbers(t: Ty) -> bool {
    floats(t) || ints(t)
}

fn bitwise(t: Ty) -> bool {
    ints(t) || t.elem.is_mask()
}

fn comparable(t: Ty) -> bool {
    !t.elem.is_mask()
}

fn unsigned(t: Ty) -> bool {
    comparable(t) && !floats(t)
}

fn int_scalars(t: Ty) -> bool {
    ints(t) && !t.is_vector()
}

family! {
    /// Operations of one operand, whose type the result has.
    Un(Ty) -> fn(Elem) -> fn(u64) -> u64 {
        /// −a (floats flip the sign bit).
        Neg "neg" numbers, |e| number!(e, |a| -a, a.wrapping_neg());
        /// |a| (floats clear the sign bit).
        Abs "abs" numbers, |e| number!(e, |a| a.abs(), a.wrapping_abs());
        /// √a, floats.
        Sqrt "sqrt" floats, |e| float!(e, |a| a.sqrt());
        /// Round down, floats.
        Floor "floor" floats, |e| float!(e, |a| a.floor());
        /// Round up, floats.
        Ceil "ceil" floats, |e| float!(e, |a| a.ceil());
        /// Round towards zero, floats.
        Trunc "trunc" floats, |e| float!(e, |a| a.trunc());
        /// Round to nearest, ties to even, floats.
        Nearest "nearest" floats, |e| float!(e, |a| a.round_ties_even());
        /// All bits flipped; integers and masks.
        Not "not" bitwise, |e| int!(e, |a| !a);
    }
}

family! {
    /// Operations of two operands of one type, which the result has.
    Bin(Ty) -> fn(Elem) -> fn(u64, u64) -> u64 {
        Add "add" numbers, |e| number!(e, |a, b| a + b, a.wrapping_add(b));
        Sub "sub" numbers, |e| number!(e, |a, b| a - b, a.wrapping_sub(b));
        Mul "mul" numbers, |e| number!(e, |a, b| a * b, a.wrapping_mul(b));
        /// Float division.
        Div "div" floats, |e| float!(e, |a, b| a / b);
        DivS "div_s" int_scalars, |e| int!(e, |a, b| a.checked_div(b).unwrap_or(0));
        DivU "div_u" int_scalars, |e| int!(e, |a, b| (a as U).checked_div(b as U).unwrap_or(0));
        RemS "rem_s" int_scalars, |e| int!(e, |a, b| a.checked_rem(b).unwrap_or(0));
        RemU "rem_u" int_scalars, |e| int!(e, |a, b| (a as U).checked_rem(b as U).unwrap_or(0));
        Min "min" floats, |e| float!(e, |a, b| if a < b { a } else { b });
        Max "max" floats, |e| float!(e, |a, b| if a > b { a } else { b });
        MinS "min_s" ints, |e| int!(e, |a, b| a.min(b));
        MaxS "max_s" ints, |e| int!(e, |a, b| a.max(b));
        MinU "min_u" ints, |e| int!(e, |a, b| (a as U).min(b as U));
        MaxU "max_u" ints, |e| int!(e, |a, b| (a as U).max(b as U));
        And "and" bitwise, |_| |a, b| a & b;
        Or "or" bitwise, |_| |a, b| a | b;
        Xor "xor" bitwise, |_| |a, b| a ^ b;
        /// Shift counts are a scalar or vector of the same type as what is shifted.
        Shl "shl" ints, |e| int!(e, |a, b| a.wrapping_shl(b as u32));
        ShrS "shr_s" ints, |e| int!(e, |a, b| a.wrapping_shr(b as u32));
        ShrU "shr_u" ints, |e| int!(e, |a, b| (a as U).wrapping_shr(b as u32));
    }
}

family! {
    /// Comparisons; the ordered ones are false where a float is NaN, `Ne` is true. True is all bits of the width of what was compared.
    Cmp(Ty) -> fn(Elem) -> fn(u64, u64) -> u64 {
        Eq "eq" comparable, |e| compare!(e, |a, b| a == b);
        Ne "ne" comparable, |e| compare!(e, |a, b| a != b);
        Lt "lt" comparable, |e| compare!(e, |a, b| a < b);
        Le "le" comparable, |e| compare!(e, |a, b| a <= b);
        Gt "gt" comparable, |e| compare!(e, |a, b| a > b);
        Ge "ge" comparable, |e| compare!(e, |a, b| a >= b);
        LtU "lt_u" unsigned, |e| int!(e, |a, b| if (a as U) < (b as U) { -1 } else { 0 });
        LeU "le_u" unsigned, |e| int!(e, |a, b| if (a as U) <= (b as U) { -1 } else { 0 });
        GtU "gt_u" unsigned, |e| int!(e, |a, b| if (a as U) > (b as U) { -1 } else { 0 });
        GeU "ge_u" unsigned, |e| int!(e, |a, b| if (a as U) >= (b as U) { -1 } else { 0 });
    }
}

family! {
    /// Changes of type; the number of lanes stays.
    Conv((Ty, Ty)) -> fn(Elem, Elem, u64) -> u64 {
        /// Wider integer, sign kept.
        Sext "sext" |(f, t)| ints(f) && ints(t) && f.elem.bytes() < t.elem.bytes(), |f, t, a| signed(a, f) as u64 & t.ones();
        /// Wider integer, zeros above.
        Zext "zext" |(f, t)| ints(f) && ints(t) && f.elem.bytes() < t.elem.bytes(), |_, _, a| a;
        /// Narrower integer, high bits dropped.
        Wrap "wrap" |(f, t)| ints(f) && ints(t) && f.elem.bytes() > t.elem.bytes(), |_, t, a| a & t.ones();
        /// Signed integer to float, rounded to nearest even (I32→F32, I32→F64, I64→F32, I64→F64; vectors: I32→F32 and I32→F64).
        IntToFloat "int_to_float" |(f, t)| floats(t) && (f.elem == Elem::I32 || f == Ty::I64), |f, t, a| match t {
            Elem::F64 => (signed(a, f) as f64).to_bits(),
            _ => b32(signed(a, f) as f32),
        };
        /// Unsigned 64-bit or 32-bit integer to float, scalar only.
        UintToFloat "uint_to_float" |(f, t)| matches!(f, Ty::I32 | Ty::I64) && floats(t), |_, t, a| match t {
            Elem::F64 => (a as f64).to_bits(),
            _ => b32(a as f32),
        };
        /// Float to signed integer, towards zero, saturating, NaN to 0 (vectors: F32→I32).
        FloatToInt "float_to_int" |(f, t)| (f.elem == Elem::F32 && t.elem == Elem::I32) || (floats(f) && matches!(t, Ty::I32 | Ty::I64)),
        |f, t, a| match (f, t) {
            (Elem::F64, Elem::I64) => f64(a) as i64 as u64,
            (Elem::F64, _) => u64::from(f64(a) as i32 as u32),
            (_, Elem::I64) => f32(a) as i64 as u64,
            _ => u64::from(f32(a) as i32 as u32),
        };
        /// Float to unsigned integer, towards zero, saturating, NaN to 0, scalar only.
        FloatToUint "float_to_uint" |(f, t)| floats(f) && matches!(t, Ty::I32 | Ty::I64), |f, t, a| match (f, t) {
            (Elem::F64, Elem::I64) => f64(a) as u64,
            (Elem::F64, _) => u64::from(f64(a) as u32),
            (_, Elem::I64) => f32(a) as u64,
            _ => u64::from(f32(a) as u32),
        };
        /// F32→F64 (exact) or F64→F32 (to nearest even).
        FloatToFloat "float_to_float" |(f, t)| floats(f) && floats(t) && f != t, |_, t, a| match t {
            Elem::F64 => f64::from(f32(a)).to_bits(),
            _ => b32(f64(a) as f32),
        };
        /// The same bits as another type of the same width, also between Ptr and I64; or the bytes of a vector in lanes of another width.
        Bits "bits" |(f, t)| f.bytes() == t.bytes() && !f.elem.is_mask() && !t.elem.is_mask() && f.is_valid() && t.is_valid(), |_, _, a| a;
        /// Mask to integer of its width: 0 or −1.
        MaskToInt "mask_to_int" |(f, t)| f.elem.is_mask() && t.elem == f.elem.int(), |_, _, a| a;
        /// The 16 bits of an f16 in I16 to F32, exactly.
        HalfToFloat "half_to_float" |(f, t)| f.elem == Elem::I16 && t.elem == Elem::F32, |_, _, a| b32(f16::from_bits(a as u16).to_f32());
        /// F32 to the 16 bits of an f16 in I16, to nearest even; a NaN keeps sign and high payload bits.
        FloatToHalf "float_to_half" |(f, t)| f.elem == Elem::F32 && t.elem == Elem::I16, |_, _, a| u64::from(f16::from_f32(f32(a)).to_bits());
    }
}

family! {
    /// How lanes are combined into one number. On integers minimum and maximum are signed.
    Fold(Ty) -> fn(Elem) -> Bin {
        Add "reduce_add" numbers, |_| Bin::Add;
        /// As [`Bin::Min`], pairwise from the two halves.
        Min "reduce_min" numbers, |e| if e.is_float() { Bin::Min } else { Bin::MinS };
        /// As [`Bin::Max`], pairwise from the two halves.
        Max "reduce_max" numbers, |e| if e.is_float() { Bin::Max } else { Bin::MaxS };
    }
}

impl Un {
    /// What it computes on an element type.
    pub fn on(self, elem: Elem) -> fn(u64) -> u64 {
        self.compute()(elem)
    }
}

impl Bin {
    /// What it computes on an element type.
    pub fn on(self, elem: Elem) -> fn(u64, u64) -> u64 {
        self.compute()(elem)
    }
}

impl Cmp {
    /// What it computes on an element type.
    pub fn on(self, elem: Elem) -> fn(u64, u64) -> u64 {
        self.compute()(elem)
    }
}

impl Conv {
    /// Converts an element.
    pub fn convert(self, from: Elem, to: Elem, a: u64) -> u64 {
        self.compute()(from, to, a)
    }
}

impl Fold {
    /// The operation of two operands that it repeats.
    pub fn of(self, elem: Elem) -> Bin {
        self.compute()(elem)
    }
}

/// `a·b + c` of floats, rounded once (`fused`) or twice.
pub fn fma(elem: Elem, fused: bool) -> fn(u64, u64, u64) -> u64 {
    match (elem, fused) {
        (Elem::F64, true) => |a, b, c| f64(a).mul_add(f64(b), f64(c)).to_bits(),
        (Elem::F64, false) => |a, b, c| (f64(a) * f64(b) + f64(c)).to_bits(),
        (_, true) => |a, b, c| b32(f32(a).mul_add(f32(b), f32(c))),
        (_, false) => |a, b, c| b32(f32(a) * f32(b) + f32(c)),
    }
}

/// The bits of an integer as a number.
pub fn signed(a: u64, elem: Elem) -> i64 {
    let shift = 64 - 8 * elem.bytes();
    ((a << shift) as i64) >> shift
}

fn f32(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn f64(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn b32(x: f32) -> u64 {
    u64::from(x.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_trip_and_round_to_even() {
        for h in 0..=u16::MAX {
            let x = f16::from_bits(h).to_f32();
            let back = f16::from_f32(x).to_bits();
            assert_eq!(back, if x.is_nan() { h | 0x200 } else { h }, "{h:#x} = {x}");
        }
        let cases = [(65519.0, 0x7bff), (65520.0, 0x7c00), (2049.0, 0x6800), (2051.0, 0x6802), (1e-8, 0), (2f32.powi(-25) * 1.01, 1)];
        for (x, h) in cases {
            assert_eq!(f16::from_f32(x).to_bits(), h, "{x}");
        }
    }

    #[test]
    fn division_by_zero_gives_zero() {
        for op in [Bin::DivS, Bin::RemS, Bin::DivU, Bin::RemU] {
            assert_eq!(op.on(Elem::I32)(7, 0), 0);
        }
        assert_eq!(Bin::DivS.on(Elem::I8)(0x80, 0xff), 0);
        assert_eq!(Bin::RemS.on(Elem::I8)(0xf9, 2), 0xff);
    }
}
