//! Fields of operations: how each kind of them is printed, read, visited and tried; and the types that operands may have.

use crate::element::{Bin, Cmp, Conv, Fold, Un};
use crate::ty::{Elem, MAX_BYTES, Ty, Val};
use crate::words::Words;
use std::fmt::Write;

/// A kind of field. `ty` is the type of the operation's result.
pub trait Field {
    /// What the operation holds.
    type Is: Clone;

    /// Writes it, with what parts it from the word before.
    fn print(is: &Self::Is, ty: Ty, out: &mut String);

    /// Reads what `print` writes.
    fn parse(words: &mut Words, ty: Ty) -> Result<Self::Is, String>;

    /// Values that tests try where the operation works on a type.
    fn samples(of: Ty) -> Vec<Self::Is>;

    /// The value that the operation reads by it.
    fn operand(_: &mut Self::Is) -> Option<&mut Val> {
        None
    }
}

/// A value that is read.
pub struct Use;

impl Field for Use {
    type Is = Val;

    fn print(is: &Val, _: Ty, out: &mut String) {
        let _ = write!(out, " {is}");
    }

    fn parse(words: &mut Words, _: Ty) -> Result<Val, String> {
        words.val()
    }

    /// Stands for whatever value is put in its place.
    fn samples(_: Ty) -> Vec<Val> {
        vec![Val(0)]
    }

    fn operand(is: &mut Val) -> Option<&mut Val> {
        Some(is)
    }
}

/// An address, followed by its displacement.
pub struct Ptr;

impl Field for Ptr {
    type Is = Val;

    fn print(is: &Val, _: Ty, out: &mut String) {
        let _ = write!(out, " [{is}");
    }

    fn parse(words: &mut Words, _: Ty) -> Result<Val, String> {
        words.expect("[")?;
        words.val()
    }

    fn samples(_: Ty) -> Vec<Val> {
        vec![Val(0)]
    }

    fn operand(is: &mut Val) -> Option<&mut Val> {
        Some(is)
    }
}

/// Bytes added to the address before it.
pub struct Disp;

impl Field for Disp {
    type Is = i32;

    fn print(is: &i32, _: Ty, out: &mut String) {
        let _ = if *is == 0 { write!(out, "]") } else { write!(out, "{is:+}]") };
    }

    fn parse(words: &mut Words, _: Ty) -> Result<i32, String> {
        let disp = if words.peek() == "]" { 0 } else { words.number()? };
        words.expect("]")?;
        Ok(disp)
    }

    fn samples(_: Ty) -> Vec<i32> {
        vec![0]
    }
}

/// How many elements an access touches; not printed where it is all.
pub struct Count;

impl Field for Count {
    type Is = u8;

    fn print(is: &u8, ty: Ty, out: &mut String) {
        if *is != ty.lanes {
            let _ = write!(out, " count {is}");
        }
    }

    fn parse(words: &mut Words, ty: Ty) -> Result<u8, String> {
        if words.eat("count") { words.number() } else { Ok(ty.lanes) }
    }

    fn samples(of: Ty) -> Vec<u8> {
        vec![of.lanes]
    }
}

/// The number of a lane.
pub struct Lane;

impl Field for Lane {
    type Is = u8;

    fn print(is: &u8, _: Ty, out: &mut String) {
        let _ = write!(out, " {is}");
    }

    fn parse(words: &mut Words, _: Ty) -> Result<u8, String> {
        words.number()
    }

    fn samples(of: Ty) -> Vec<u8> {
        let mut lanes = vec![0, of.lanes / 2, of.lanes - 1];
        lanes.dedup();
        lanes
    }
}

/// The upper half (or the lower).
pub struct Upper;

impl Field for Upper {
    type Is = bool;

    fn print(is: &bool, _: Ty, out: &mut String) {
        out.push_str(if *is { " upper" } else { " lower" });
    }

    fn parse(words: &mut Words, _: Ty) -> Result<bool, String> {
        match words.next().as_str() {
            "upper" => Ok(true),
            "lower" => Ok(false),
            _ => Err("expected upper or lower".into()),
        }
    }

    fn samples(_: Ty) -> Vec<bool> {
        vec![false, true]
    }
}

/// The bits of a number.
pub struct Bits;

impl Field for Bits {
    type Is = u64;

    fn print(is: &u64, ty: Ty, out: &mut String) {
        let _ = write!(out, " {is:#x}");
        let _ = match ty.elem {
            Elem::F32 => write!(out, " ; {:?}", f32::from_bits(*is as u32)),
            Elem::F64 => write!(out, " ; {:?}", f64::from_bits(*is)),
            _ if *is > 9 && !ty.elem.is_mask() => write!(out, " ; {is}"),
            _ => Ok(()),
        };
    }

    fn parse(words: &mut Words, _: Ty) -> Result<u64, String> {
        let word = words.next();
        let bits = word.strip_prefix("0x").and_then(|w| u64::from_str_radix(w, 16).ok());
        bits.ok_or_else(|| "expected a number like 0x1f".into())
    }

    fn samples(of: Ty) -> Vec<u64> {
        vec![0, 1, of.elem.ones() >> 1, of.elem.ones()]
    }
}

/// A lane of the operands for each lane of the result.
pub struct Pick;

impl Field for Pick {
    type Is = Box<[u8]>;

    fn print(is: &Box<[u8]>, _: Ty, out: &mut String) {
        is.iter().for_each(|p| {
            let _ = write!(out, " {p}");
        });
    }

    fn parse(words: &mut Words, ty: Ty) -> Result<Box<[u8]>, String> {
        (0..ty.lanes).map(|_| words.number()).collect()
    }

    /// Orders that machines have an instruction for, and some that they have not.
    fn samples(of: Ty) -> Vec<Box<[u8]>> {
        let n = of.lanes;
        if n == 1 {
            return vec![];
        }
        let by = |f: &dyn Fn(u8) -> u8| -> Box<[u8]> { (0..n).map(f).collect() };
        let pairs = |i: u8| if i.is_multiple_of(2) { 0 } else { n };
        let mut out = vec![
            by(&|i| n - 1 - i),
            by(&|i| i / 2 + pairs(i)),
            by(&|i| i / 2 + n / 2 + pairs(i)),
            by(&|i| 2 * i),
            by(&|i| 2 * i + 1),
            by(&|i| (i + 1) % n),
            by(&|i| i + n / 2),
            by(&|i| i ^ (n / 2)),
            by(&|i| i ^ 1),
            by(&|_| n / 2),
            by(&|i| i + pairs(i)),
        ];
        // No order at all: products of odd numbers, modulo what there is.
        for k in [37u32, 101, 223] {
            out.push(by(&|i| ((u32::from(i) + 3) * (u32::from(i) + k) * k / 7 % (2 * u32::from(n))) as u8));
        }
        out
    }
}

/// A family of operations is the first field of its row; its word stands for the row's.
macro_rules! families {
    ($($family:ident)*) => {
        $(
            impl Field for $family {
                type Is = $family;

                fn print(is: &$family, _: Ty, out: &mut String) {
                    out.push_str(is.word());
                }

                fn parse(words: &mut Words, _: Ty) -> Result<$family, String> {
                    let word = words.next();
                    $family::ALL.iter().copied().find(|f| f.word() == word).ok_or_else(|| "expected an operation".into())
                }

                fn samples(_: Ty) -> Vec<$family> {
                    $family::ALL.to_vec()
                }
            }
        )*
    };
}

families! { Un Bin Cmp Conv Fold }

/// The type of an operand or of the result, given the type T that an operation works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// T.
    Same,
    /// The mask of T.
    Mask,
    /// A lane of T.
    Scalar,
    /// Half the lanes of T.
    Half,
    /// As many lanes as T of any type, or as many bytes.
    Lanes,
    /// So many lanes of this type for each lane of T.
    Group(Elem, u8),
    /// This type.
    Is(Ty),
}

impl Shape {
    /// The type, where T has such a one and it is the only one.
    pub fn of(self, t: Ty) -> Option<Ty> {
        let ty = match self {
            Shape::Same => t,
            Shape::Mask => t.of(t.elem.mask()),
            Shape::Scalar => Ty::scalar(t.elem),
            Shape::Half => Ty { lanes: t.lanes / 2, ..t },
            Shape::Lanes => return None,
            Shape::Group(elem, n) => Ty { elem, lanes: t.lanes.checked_mul(n)? },
            Shape::Is(ty) => ty,
        };
        (ty.lanes > 0 && ty.bytes() <= MAX_BYTES).then_some(ty)
    }
}

/// The type that an operation works on, and that of its result.
#[derive(Clone, Copy, Debug)]
pub struct On {
    /// T.
    pub t: Ty,
    /// Of the result.
    pub result: Ty,
}
