//! Element-wise operators of two and three inputs; they broadcast as NumPy does.

use super::check::{self, Types};
use super::data::{self, Number, Numbers, Results};
use super::work::per_output;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
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
            class: Class::Elementwise,
            infer: $infer,
            eval: $eval,
            work: per_output::<$work>,
        }
    };
}

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    binary!(Add, "a + b; integers wrap.", numbers, 1, |_, x| total(x, f64::plus, i128::plus)),
    binary!(Sub, "a − b; integers wrap.", numbers, 1, |_, x| total(x, |a, b| a - b, i128::wrapping_sub)),
    binary!(Mul, "a · b; integers wrap.", numbers, 1, |_, x| total(x, f64::times, i128::times)),
    binary!(Div, "a / b; integers truncate towards 0, wrap, and fail where b is 0.", numbers, 4, |_, x| partial(
        x,
        |a, b| a / b,
        i128::checked_div
    )),
    binary!(
        Mod,
        "The rest of a / b with the sign of b, or with that of a if `trunc`; integers fail where b is 0.",
        &[("trunc", AttrKind::Int(0))],
        numbers,
        8,
        rest
    ),
    binary!(
        Pow,
        "a to the power of b, of the type of a; b may have another type. An integer to an integer power wraps; a negative \
         power truncates towards 0 and fails where a is 0.",
        pow,
        100, // measured: 4.6 ns an element at 8 lanes, `bench --layers` of a network with local response normalisation
        eval_pow
    ),
    binary!(Min, "The smaller of a and b; NaN if one is.", numbers, 1, |_, x| total(x, f64::smaller, i128::smaller)),
    binary!(Max, "The larger of a and b; NaN if one is.", numbers, 1, |_, x| total(x, f64::larger, i128::larger)),
    binary!(And, "Logical and of bools, bitwise and of integers.", bits, 1, |_, x| total(x, reals_have_no_bits, |a, b| a & b)),
    binary!(Or, "Logical or of bools, bitwise or of integers.", bits, 1, |_, x| total(x, reals_have_no_bits, |a, b| a | b)),
    binary!(Xor, "Logical exclusive or of bools, bitwise of integers.", bits, 1, |_, x| total(x, reals_have_no_bits, |a, b| a ^ b)),
    binary!(Shl, "The bits of a moved up by b; 0 where b is the width or more.", unsigned, 1, |_, x| total(
        x,
        reals_have_no_bits,
        |a, b| if b < 64 { a << b } else { 0 }
    )),
    binary!(Shr, "The bits of a moved down by b; 0 where b is the width or more.", unsigned, 1, |_, x| total(
        x,
        reals_have_no_bits,
        |a, b| if b < 64 { a >> b } else { 0 }
    )),
    binary!(Eq, "Whether a = b.", equal, 1, |_, x| compare(x, |a, b| a == b, |a, b| a == b)),
    binary!(Lt, "Whether a < b.", order, 1, |_, x| compare(x, |a, b| a < b, |a, b| a < b)),
    binary!(Le, "Whether a ≤ b.", order, 1, |_, x| compare(x, |a, b| a <= b, |a, b| a <= b)),
    OpDef {
        kind: Kind::Select,
        doc: "a where the condition (bool) holds, else b.",
        inputs: Arity::Exactly(3),
        attrs: &[],
        class: Class::Elementwise,
        infer: select,
        eval: eval_select,
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

/// Result shape of two inputs and their strides in it.
fn common(a: &Tensor, b: &Tensor) -> ([Vec<isize>; 2], Vec<usize>) {
    let shape = check::broadcast_of(a.ty(), b.ty()).expect("the shape rule has broadcast them");
    ([a, b].map(|x| data::broadcast_strides(x.shape(), &shape)), shape)
}

/// A function that has a value for all numbers.
fn total(x: &[Tensor], real: impl Fn(f64, f64) -> f64, int: impl Fn(i128, i128) -> i128) -> Results {
    partial(x, real, |a, b| Some(int(a, b)))
}

/// A function that has a value for all floats, but not for all integers.
fn partial(x: &[Tensor], real: impl Fn(f64, f64) -> f64, int: impl Fn(i128, i128) -> Option<i128>) -> Results {
    let ([sa, sb], shape) = common(&x[0], &x[1]);
    let ty = TensorType::new(x[0].ty().ty, shape);
    Ok(vec![match (data::numbers(&x[0]), data::numbers(&x[1])) {
        (Numbers::Reals(a), Numbers::Reals(b)) => data::from_reals(&ty, &data::zip(&ty.shape, (&a, &sa), (&b, &sb), real)),
        (Numbers::Ints(a), Numbers::Ints(b)) => {
            let values: Option<Vec<i128>> = data::zip(&ty.shape, (&a, &sa), (&b, &sb), int).into_iter().collect();
            data::from_ints(&ty, &values.ok_or("an integer is divided by 0")?)
        }
        _ => return Err(format!("the types of {} and {} differ", x[0].ty(), x[1].ty())),
    }])
}

fn reals_have_no_bits(_: f64, _: f64) -> f64 {
    unreachable!("the shape rule admits integers and bools only")
}

fn compare(x: &[Tensor], real: impl Fn(f64, f64) -> bool, int: impl Fn(i128, i128) -> bool) -> Results {
    let ([sa, sb], shape) = common(&x[0], &x[1]);
    let ty = TensorType::new(Type::Bool, shape);
    let bools: Vec<u8> = match (data::numbers(&x[0]), data::numbers(&x[1])) {
        (Numbers::Reals(a), Numbers::Reals(b)) => data::zip(&ty.shape, (&a, &sa), (&b, &sb), |a, b| real(a, b).into()),
        (Numbers::Ints(a), Numbers::Ints(b)) => data::zip(&ty.shape, (&a, &sa), (&b, &sb), |a, b| int(a, b).into()),
        _ => return Err(format!("the types of {} and {} differ", x[0].ty(), x[1].ty())),
    };
    Ok(vec![Tensor::with_type(ty, &bools)])
}

fn rest(attrs: &Attrs, x: &[Tensor]) -> Results {
    if attrs.flag("trunc") {
        return partial(x, |a, b| a % b, i128::checked_rem);
    }
    // The rest has the sign of the divisor: of the two that differ by it, take the other one if the signs differ.
    let real = |a: f64, b: f64| {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    partial(x, real, |a, b| {
        let rest = a.checked_rem(b)?;
        Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
    })
}

fn eval_pow(_: &Attrs, x: &[Tensor]) -> Results {
    let ([sa, sb], shape) = common(&x[0], &x[1]);
    let ty = TensorType::new(x[0].ty().ty, shape);
    Ok(vec![match (data::numbers(&x[0]), data::numbers(&x[1])) {
        (Numbers::Reals(a), Numbers::Reals(b)) => data::from_reals(&ty, &data::zip(&ty.shape, (&a, &sa), (&b, &sb), f64::powf)),
        (Numbers::Reals(a), Numbers::Ints(b)) => {
            data::from_reals(&ty, &data::zip(&ty.shape, (&a, &sa), (&b, &sb), |a, b| a.powf(b as f64)))
        }
        (Numbers::Ints(a), Numbers::Reals(b)) => {
            // Through a float, back as `cast` does it.
            let [least, most] = [i128::lowest(ty.ty), i128::highest(ty.ty)];
            let power = |a: i128, b: f64| ((a as f64).powf(b) as i128).clamp(least, most);
            data::from_ints(&ty, &data::zip(&ty.shape, (&a, &sa), (&b, &sb), power))
        }
        (Numbers::Ints(a), Numbers::Ints(b)) => {
            let powers = data::zip(&ty.shape, (&a, &sa), (&b, &sb), whole_power);
            let powers: Option<Vec<i128>> = powers.into_iter().collect();
            data::from_ints(&ty, &powers.ok_or("0 is raised to a negative power")?)
        }
    }])
}

/// a to the power of b by squaring, in its low bits; a negative power truncates towards 0.
fn whole_power(a: i128, b: i128) -> Option<i128> {
    match (a, b) {
        (0, ..0) => None,
        (1, _) => Some(1),
        (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
        (_, ..0) => Some(0),
        _ => {
            let (mut base, mut rest, mut power) = (a, b, 1i128);
            while rest > 0 {
                if rest % 2 == 1 {
                    power = power.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                rest /= 2;
            }
            Some(power)
        }
    }
}

fn eval_select(_: &Attrs, x: &[Tensor]) -> Results {
    let shape = select(&Attrs::default(), &[x[0].ty().clone(), x[1].ty().clone(), x[2].ty().clone()])?.remove(0).shape;
    let [c, a, b] = [0, 1, 2].map(|i| data::broadcast_strides(x[i].shape(), &shape));
    let ty = TensorType::new(x[1].ty().ty, shape);
    data::with_bits!(ty.ty, T => {
        let (cond, yes, no) = (x[0].values::<u8>(), x[1].values::<T>(), x[2].values::<T>());
        let mut out: Vec<T> = Vec::with_capacity(ty.len());
        data::Rows::new(&ty.shape, [&c, &a, &b]).each([0; 3], &mut |[i, j, k], [di, dj, dk], n| {
            let at = |start: isize, step: isize, m: isize| (start + m * step) as usize;
            out.extend((0..n as isize).map(|m| if cond[at(i, di, m)] != 0 { yes[at(j, dj, m)] } else { no[at(k, dk, m)] }));
        });
        Ok(vec![Tensor::with_type(ty, &out)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn run(kind: Kind, attrs: &[(&'static str, Attr)], x: &[Tensor]) -> Result<Tensor, String> {
        crate::eval::eval_op(&Op::new(kind, attrs.to_vec()).expect("attributes"), x).map(|mut y| y.remove(0))
    }

    fn pair<T: crate::Element>(kind: Kind, attrs: &[(&'static str, Attr)], a: &[T], b: &[T]) -> Vec<T> {
        run(kind, attrs, &[Tensor::new([a.len()], a), Tensor::new([b.len()], b)]).expect("an answer").values::<T>().to_vec()
    }

    #[test]
    fn integers_wrap_and_truncate() {
        assert_eq!(pair(Kind::Add, &[], &[127i8, -128], &[1, -1]), [-128, 127]);
        assert_eq!(pair(Kind::Mul, &[], &[u64::MAX], &[u64::MAX]), [1]);
        assert_eq!(pair(Kind::Sub, &[], &[0u8], &[1]), [255]);
        assert_eq!(pair(Kind::Div, &[], &[-7i32, 7, i32::MIN], &[2, -2, -1]), [-3, -3, i32::MIN]);
        let zero = run(Kind::Div, &[], &[Tensor::new([1], &[1i32]), Tensor::new([1], &[0i32])]);
        assert!(zero.unwrap_err().contains("divided by 0"));
    }

    #[test]
    fn the_rest_of_a_division() {
        let fmod = [("trunc", Attr::Int(1))];
        assert_eq!(pair(Kind::Mod, &[], &[-7i32, 7, -7, 7], &[3, -3, -3, 3]), [2, -2, -1, 1]);
        assert_eq!(pair(Kind::Mod, &fmod, &[-7i32, 7, -7, 7], &[3, -3, -3, 3]), [-1, 1, -1, 1]);
        assert_eq!(pair(Kind::Mod, &[], &[-4.25f32, 4.25], &[2.0, -2.0]), [1.75, -1.75]);
        assert_eq!(pair(Kind::Mod, &fmod, &[-4.25f32, 4.25], &[2.0, -2.0]), [-0.25, 0.25]);
    }

    #[test]
    fn nan_passes_on() {
        for kind in [Kind::Min, Kind::Max] {
            let y = pair(kind, &[], &[f32::NAN, 1.0], &[1.0, f32::NAN]);
            assert!(y.iter().all(|v| v.is_nan()), "{}", kind.name());
        }
        assert_eq!(pair(Kind::Max, &[], &[1.0f32, -3.0], &[2.0, -4.0]), [2.0, -3.0]);
    }

    #[test]
    fn powers() {
        assert_eq!(pair(Kind::Pow, &[], &[2.0f32, -2.0, 9.0], &[10.0, 3.0, 0.5]), [1024.0, -8.0, 3.0]);
        assert_eq!(pair(Kind::Pow, &[], &[3i32, -1, 2, 1], &[4, -3, -1, -9]), [81, -1, 0, 1]);
        assert_eq!(pair(Kind::Pow, &[], &[3u8], &[6]), [(729 % 256) as u8]);
        let mixed = run(Kind::Pow, &[], &[Tensor::new([2], &[4i64, 5]), Tensor::new([2], &[0.5f32, 2.0])]).expect("an answer");
        assert_eq!(mixed.values::<i64>(), [2, 25]);
    }

    #[test]
    fn shifts_and_bits() {
        assert_eq!(pair(Kind::Shl, &[], &[1u8, 255, 1], &[7, 4, 8]), [128, 240, 0]);
        assert_eq!(pair(Kind::Shr, &[], &[128u32, 255, 1], &[7, 4, 40]), [1, 15, 0]);
        assert_eq!(pair(Kind::Xor, &[], &[-1i16, 6], &[1, 3]), [-2, 5]);
    }

    #[test]
    fn broadcasting_as_numpy() {
        let y = run(Kind::Add, &[], &[Tensor::new([2, 1], &[10f32, 20.0]), Tensor::new([3], &[1f32, 2.0, 3.0])]).expect("an answer");
        assert_eq!((y.shape(), y.values::<f32>()), (&[2, 3][..], &[11.0f32, 12.0, 13.0, 21.0, 22.0, 23.0][..]));
        let c = Tensor::with_type(TensorType::new(Type::Bool, [2, 1]), &[1u8, 0]);
        let y = run(Kind::Select, &[], &[c, Tensor::scalar(7i64), Tensor::new([2], &[1i64, 2])]).expect("an answer");
        assert_eq!((y.shape(), y.values::<i64>()), (&[2, 2][..], &[7i64, 7, 1, 2][..]));
        let wrong = run(Kind::Add, &[], &[Tensor::new([2], &[1f32, 2.0]), Tensor::new([3], &[1f32, 2.0, 3.0])]);
        assert!(wrong.unwrap_err().contains("do not broadcast"));
    }

    #[test]
    fn half_precision_rounds_once() {
        let f16 = |v: f32| half::f16::from_f32(v);
        let x = |v: f32| Tensor::with_type(TensorType::new(Type::F16, [1]), &[f16(v)]);
        let y = run(Kind::Add, &[], &[x(2048.0), x(1.0)]).expect("an answer");
        assert_eq!(y.values::<half::f16>(), [f16(2048.0)]);
        let y = run(Kind::Mul, &[], &[x(0.1), x(3.0)]).expect("an answer");
        assert_eq!(y.values::<half::f16>(), [f16(f16(0.1).to_f32() * 3.0)]);
    }
}
