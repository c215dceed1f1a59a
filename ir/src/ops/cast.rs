//! Changes of element type.

use super::check;
use super::data::{self, Results, with_int};
use super::work::{nothing, per_output};
use crate::float8::{self, Round};
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::Cast,
        doc: "x as type `to`. Floats become integers by truncation towards 0 and saturate, NaN becomes 0; those under 8 bits then keep the \
              low bits of the i32 (ONNX wraps them); integers wrap; to bool is x ≠ 0; floats round to nearest even. `saturate` decides whether floats beyond an 8-bit type become its largest value or \
              infinity/NaN; `round` is the direction for f8e8m0.",
        inputs: Arity::Exactly(1),
        attrs: &[("to", AttrKind::Type), ("saturate", AttrKind::Int(1)), ("round", AttrKind::Word(&["up", "down", "nearest"]))],
        class: Class::Elementwise,
        infer: |attrs, x| check::one(attrs.ty("to"), x[0].shape.as_slice()),
        eval: cast,
        work: per_output::<1>,
    },
    OpDef {
        kind: Kind::Bitcast,
        doc: "The bits of x read as type `to` of the same width; a bool is 0 or 1, and every other byte read as one is true.",
        inputs: Arity::Exactly(1),
        attrs: &[("to", AttrKind::Type)],
        class: Class::Elementwise,
        infer: bitcast,
        eval: |attrs, x| {
            let ty = TensorType::new(attrs.ty("to"), x[0].shape());
            let same = Tensor::from_bytes(ty, x[0].bytes()).expect("the shape rule asks for the same width");
            Ok(vec![if same.ty().ty == Type::Bool { to_bools(&x[0]) } else { same }])
        },
        work: nothing,
    },
];

fn bitcast(attrs: &Attrs, x: &[TensorType]) -> check::Types {
    let to = attrs.ty("to");
    check::ensure(to.bits() == x[0].ty.bits(), || format!("the bits of {} do not fill {to}", x[0].ty))?;
    check::one(to, x[0].shape.as_slice())
}

fn cast(attrs: &Attrs, x: &[Tensor]) -> Results {
    let x = &x[0];
    let ty = TensorType::new(attrs.ty("to"), x.shape());
    if ty.ty == x.ty().ty {
        return Ok(vec![x.clone()]);
    }
    Ok(vec![match (ty.ty, data::numbers(x)) {
        (Type::Bool, data::Numbers::Reals(v)) => Tensor::with_type(ty, &v.iter().map(|&v| u8::from(v != 0.0)).collect::<Vec<_>>()),
        (Type::Bool, data::Numbers::Ints(v)) => Tensor::with_type(ty, &v.iter().map(|&v| u8::from(v != 0)).collect::<Vec<_>>()),
        (to, data::Numbers::Reals(v)) if to.is_float() => to_floats(attrs, ty, &v),
        (Type::F64, data::Numbers::Ints(v)) => Tensor::with_type(ty, &v.iter().map(|&v| v as f64).collect::<Vec<_>>()),
        (to, data::Numbers::Ints(v)) if to.is_float() => to_floats(attrs, ty, &v.into_iter().map(to_odd).collect::<Vec<_>>()),
        (to, data::Numbers::Reals(v)) if to.is_narrow() => to_narrow(ty, v.iter().map(|&v| v as i32)),
        (to, data::Numbers::Ints(v)) if to.is_narrow() => to_narrow(ty, v.iter().map(|&v| v as i32)),
        (to, data::Numbers::Reals(v)) => with_int!(to, T => Tensor::with_type(ty, &v.iter().map(|&v| v as T).collect::<Vec<_>>())),
        (_, data::Numbers::Ints(v)) => data::from_ints(&ty, &v),
    }])
}

/// Floats of a type, each rounded once.
fn to_floats(attrs: &Attrs, ty: TensorType, values: &[f64]) -> Tensor {
    let saturate = attrs.flag("saturate");
    match ty.ty {
        to if to.is_real() => data::from_reals(&ty, values),
        Type::F8E8M0 => {
            let round = match attrs.word("round") {
                "up" => Round::Up,
                "down" => Round::Down,
                _ => Round::Nearest,
            };
            Tensor::with_type(ty, &values.iter().map(|&v| float8::encode_e8m0(v, saturate, round)).collect::<Vec<_>>())
        }
        to => {
            let bits: Vec<u8> = values.iter().map(|&v| float8::encode(to, v, saturate) as u8).collect();
            Tensor::with_type(ty, &bits)
        }
    }
}

/// Integers under 8 bits: the low bits, extended by their sign if they have one.
fn to_narrow(ty: TensorType, values: impl Iterator<Item = i32>) -> Tensor {
    let unused = 8 - ty.ty.bits();
    let signed = ty.ty.is_signed();
    let narrow = |v: i32| if signed { ((v as i8) << unused >> unused) as u8 } else { (v as u8) << unused >> unused };
    Tensor::with_type(ty, &values.map(narrow).collect::<Vec<_>>())
}

fn to_bools(x: &Tensor) -> Tensor {
    let ty = TensorType::new(Type::Bool, x.shape());
    Tensor::with_type(ty, &x.bytes().iter().map(|&b| u8::from(b != 0)).collect::<Vec<_>>())
}

/// An integer as f64 rounded to odd: a second rounding, to a type of fewer than 51 bits, then is as good as one.
fn to_odd(v: i128) -> f64 {
    let excess = (128 - v.unsigned_abs().leading_zeros()).saturating_sub(53);
    let kept = v.unsigned_abs() >> excess;
    let lost = v.unsigned_abs() != kept << excess;
    let magnitude = (kept | u128::from(lost)) as f64 * 2f64.powi(excess as i32);
    if v < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn to(ty: Type, x: Tensor) -> Tensor {
        let op = Op::new(Kind::Cast, [("to", Attr::Type(ty))]).expect("attributes");
        crate::eval::eval_op(&op, &[x]).expect("an answer").remove(0)
    }

    #[test]
    fn floats_to_integers_truncate_and_saturate() {
        let x = Tensor::new([7], &[-1.9f32, 2.9, 300.0, -300.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(to(Type::I8, x.clone()).values::<i8>(), [-1, 2, 127, -128, 0, 127, -128]);
        assert_eq!(to(Type::U8, x.clone()).values::<u8>(), [0, 2, 255, 0, 0, 255, 0]);
        assert_eq!(to(Type::I64, x.clone()).values::<i64>(), [-1, 2, 300, -300, 0, i64::MAX, i64::MIN]);
        assert_eq!(to(Type::Bool, x).values::<u8>(), [1; 7]);
        assert_eq!(to(Type::Bool, Tensor::new([2], &[0.0f32, -0.0])).values::<u8>(), [0, 0]);
    }

    #[test]
    fn integers_wrap() {
        let x = Tensor::new([3], &[-1i64, 256 + 7, i64::MIN]);
        assert_eq!(to(Type::U8, x.clone()).values::<u8>(), [255, 7, 0]);
        assert_eq!(to(Type::U32, x.clone()).values::<u32>(), [u32::MAX, 263, 0]);
        assert_eq!(to(Type::U64, x).values::<u64>(), [u64::MAX, 263, 1 << 63]);
    }

    #[test]
    fn narrow_integers_as_the_tests_of_onnx() {
        // test_cast_FLOAT_to_INT4, _UINT4, _INT2, _UINT2
        let x = Tensor::new([6], &[-9f32, -8.0, -1.0, 7.0, 8.0, 15.0]);
        assert_eq!(to(Type::I4, x.clone()).values::<i8>(), [7, -8, -1, 7, -8, -1]);
        assert_eq!(to(Type::U4, x).values::<u8>(), [7, 8, 15, 7, 8, 15]);
        let x = Tensor::new([4], &[-3f32, -2.0, -1.0, 1.0]);
        assert_eq!(to(Type::I2, x.clone()).values::<i8>(), [1, -2, -1, 1]);
        assert_eq!(to(Type::U2, x.clone()).values::<u8>(), [1, 2, 3, 1]);
        assert_eq!(to(Type::F32, to(Type::I2, x)).values::<f32>(), [1.0, -2.0, -1.0, 1.0]);
    }

    #[test]
    fn large_integers_are_rounded_once() {
        // Just above the middle of two f32, by less than the distance of two f64.
        let v = (1i64 << 62) + (1 << 38) + 1;
        assert_eq!(to(Type::F32, Tensor::new([1], &[v])).values::<f32>(), [v as f32]);
        assert_eq!(v as f32, ((1u64 << 62) + (1 << 39)) as f32);
        assert_eq!(to(Type::BF16, Tensor::new([1], &[(1i64 << 62) + (1 << 54) + 1])).values::<u16>(), [0x5e81]);
        assert_eq!(to(Type::F64, Tensor::new([1], &[u64::MAX])).values::<f64>(), [u64::MAX as f64]);
    }

    #[test]
    fn eight_bit_floats() {
        let x = Tensor::new([4], &[448f32, 500.0, 0.3, -1.0]);
        assert_eq!(to(Type::F8E4M3FN, x.clone()).values::<u8>(), [0x7e, 0x7e, 0x2a, 0xb8]);
        let op = Op::new(Kind::Cast, [("to", Attr::Type(Type::F8E4M3FN)), ("saturate", Attr::Int(0))]).expect("attributes");
        assert_eq!(crate::eval::eval_op(&op, std::slice::from_ref(&x)).expect("an answer")[0].values::<u8>(), [0x7e, 0x7f, 0x2a, 0xb8]);
        assert_eq!(to(Type::F32, to(Type::F8E4M3FN, x)).values::<f32>(), [448.0, 448.0, 0.3125, -1.0]);
        assert_eq!(to(Type::F8E8M0, Tensor::new([2], &[0.124f32, 1.1])).values::<u8>(), [124, 128]);
    }

    #[test]
    fn bits_are_kept() {
        let op = Op::new(Kind::Bitcast, [("to", Attr::Type(Type::I32))]).expect("attributes");
        let y = crate::eval::eval_op(&op, &[Tensor::new([1], &[-1f32])]).expect("an answer");
        assert_eq!(y[0].values::<u32>(), [0xbf80_0000]);
        assert!(crate::eval::eval_op(&op, &[Tensor::new([1], &[-1f64])]).is_err());
    }
}
