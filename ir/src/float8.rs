//! Floats of 16 bits and less: between bits and `f64`, rounded once.

use crate::types::Type;

/// How a small binary float is laid out: sign, exponent, mantissa from the top.
struct Format {
    mantissa_bits: u32,
    bias: i32,
    /// Bits of the largest finite value.
    largest: u32,
    /// Bits of +∞, if there is one.
    infinity: Option<u32>,
    /// Bits of a NaN, which takes the sign of its source; or those of the only one.
    nan: Nan,
    sign: u32,
}

enum Nan {
    Signed(u32),
    Only(u32),
}

/// The layout of a float of at most 16 bits; f8e8m0 has neither sign nor mantissa and is treated apart.
fn format(ty: Type) -> Format {
    let (mantissa_bits, bias, largest, infinity, nan, sign) = match ty {
        Type::F16 => (10, 15, 0x7bff, Some(0x7c00), Nan::Signed(0x7e00), 0x8000),
        Type::BF16 => (7, 127, 0x7f7f, Some(0x7f80), Nan::Signed(0x7fc0), 0x8000),
        Type::F8E4M3FN => (3, 7, 0x7e, None, Nan::Signed(0x7f), 0x80),
        Type::F8E4M3FNUZ => (3, 8, 0x7f, None, Nan::Only(0x80), 0x80),
        Type::F8E5M2 => (2, 15, 0x7b, Some(0x7c), Nan::Signed(0x7e), 0x80),
        Type::F8E5M2FNUZ => (2, 16, 0x7f, None, Nan::Only(0x80), 0x80),
        // No NaN at all: ONNX gives −0.
        Type::F4E2M1 => (1, 1, 0x7, None, Nan::Only(0x8), 0x8),
        other => unreachable!("{other} is not a small float"),
    };
    Format { mantissa_bits, bias, largest, infinity, nan, sign }
}

/// 2 to the power of `e`, which must be that of a normal f64.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}

/// The value of the bits of a float of at most 16 bits.
pub fn decode(ty: Type, bits: u32) -> f64 {
    if ty == Type::F8E8M0 {
        return if bits == 0xff { f64::NAN } else { power_of_two(bits as i32 - 127) };
    }
    let f = format(ty);
    let magnitude = bits & (f.sign - 1);
    let negative = bits & f.sign != 0;
    let value = match f.nan {
        Nan::Only(nan) if bits == nan && ty != Type::F4E2M1 => return f64::NAN,
        _ if f.infinity == Some(magnitude) => f64::INFINITY,
        _ if magnitude > f.largest => f64::NAN,
        _ => {
            let exponent = (magnitude >> f.mantissa_bits) as i32;
            let mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
            let implied = if exponent > 0 { 1 << f.mantissa_bits } else { 0 };
            f64::from(mantissa + implied) * power_of_two(exponent.max(1) - f.bias - f.mantissa_bits as i32)
        }
    };
    if negative { -value } else { value }
}

/// The bits of the float nearest to `x`, ties to even. Values beyond the largest finite one (and infinities) become that if `saturate`,
/// else infinity, or NaN where the type has none; a type without NaN always saturates. f16 and bf16 are never saturated by ONNX:
/// pass `false`.
pub fn encode(ty: Type, x: f64, saturate: bool) -> u32 {
    let f = format(ty);
    let sign = if x.is_sign_negative() { f.sign } else { 0 };
    let nan = match f.nan {
        Nan::Signed(bits) => bits | sign,
        Nan::Only(bits) => bits,
    };
    if x.is_nan() {
        return nan;
    }
    let mut bits = f.largest + 1;
    if x.is_finite() {
        // One unit of the last place is 2^unit; scaling by a power of two is exact, so the value is rounded once.
        let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let unit = exponent.max(1 - f.bias) - f.mantissa_bits as i32;
        let units = (x.abs() * power_of_two(-unit)).round_ties_even();
        // A mantissa rounded up to the next power of two carries into the exponent as it should.
        bits = (((unit + f.mantissa_bits as i32 + f.bias - 1) as u32) << f.mantissa_bits) + units as u32;
    }
    match bits {
        0 if matches!(f.nan, Nan::Only(_)) && ty != Type::F4E2M1 => 0, // there is no −0
        _ if bits <= f.largest => bits | sign,
        _ if saturate || ty == Type::F4E2M1 => f.largest | sign,
        _ => f.infinity.map_or(nan, |infinity| infinity | sign),
    }
}

/// How a float becomes a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Round {
    /// To the next larger.
    Up,
    /// To the next smaller.
    Down,
    /// To the nearest, halves up.
    Nearest,
}

/// The bits of `x` as f8e8m0, as ONNX defines it on the bits of an f32: the sign is lost, infinities and NaN are NaN.
pub fn encode_e8m0(x: f64, saturate: bool, round: Round) -> u8 {
    let bits = (x as f32).to_bits();
    let exponent = (bits >> 23) & 0xff;
    let fraction = bits & 0x7f_ffff;
    if exponent == 0xff {
        return 0xff;
    }
    let up = match round {
        Round::Up => fraction > 0,
        Round::Down => false,
        Round::Nearest => fraction > 0x40_0000 || fraction == 0x40_0000 && exponent > 0,
    };
    if up && !(saturate && exponent == 0xfe) { exponent as u8 + 1 } else { exponent as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[Type] = &[Type::F8E4M3FN, Type::F8E4M3FNUZ, Type::F8E5M2, Type::F8E5M2FNUZ, Type::F4E2M1];

    /// All finite values of a type, by the definition in words: not by the code above.
    fn finite(ty: Type) -> Vec<(u32, f64)> {
        let codes: u32 = if ty == Type::F4E2M1 { 16 } else { 256 };
        let value = |b: u32| {
            let (mantissa, bias): (u32, i32) = match ty {
                Type::F8E4M3FN => (3, 7),
                Type::F8E4M3FNUZ => (3, 8),
                Type::F8E5M2 => (2, 15),
                Type::F8E5M2FNUZ => (2, 16),
                _ => (1, 1),
            };
            let (s, e, m) = (b / (codes / 2), (b % (codes / 2)) >> mantissa, b % (1 << mantissa));
            let special = match ty {
                Type::F8E4M3FN => e == 15 && m == 7,
                Type::F8E5M2 => e == 31,
                Type::F4E2M1 => false,
                _ => b == 0x80,
            };
            let fraction = f64::from(m) / f64::from(1 << mantissa);
            let magnitude = if e == 0 { fraction * 2f64.powi(1 - bias) } else { (1.0 + fraction) * 2f64.powi(e as i32 - bias) };
            (!special).then_some((b, if s == 1 { -magnitude } else { magnitude }))
        };
        (0..codes).filter_map(value).collect()
    }

    #[test]
    fn every_code_has_its_value() {
        for &ty in SMALL {
            let finite = finite(ty);
            for &(bits, value) in &finite {
                assert_eq!(decode(ty, bits).to_bits(), value.to_bits(), "{ty} {bits:#x}");
                assert_eq!(encode(ty, value, true), bits, "{ty} {value}");
            }
            let largest = finite.iter().map(|&(_, v)| v).fold(0.0, f64::max);
            let expected = match ty {
                Type::F8E4M3FN => 448.0,
                Type::F8E4M3FNUZ => 240.0,
                Type::F4E2M1 => 6.0,
                _ => 57344.0,
            };
            assert_eq!(largest, expected, "{ty}");
        }
        assert_eq!(decode(Type::F8E5M2, 0x7c), f64::INFINITY);
        assert_eq!(decode(Type::F8E5M2, 0xfc), f64::NEG_INFINITY);
        for (ty, bits) in [(Type::F8E5M2, 0x7d), (Type::F8E4M3FN, 0x7f), (Type::F8E4M3FNUZ, 0x80), (Type::F8E8M0, 0xff)] {
            assert!(decode(ty, bits).is_nan(), "{ty} {bits:#x}");
        }
    }

    #[test]
    fn values_between_two_codes_go_to_the_nearer_or_to_the_even_one() {
        for &ty in SMALL {
            let mut codes: Vec<(u32, f64)> = finite(ty).into_iter().filter(|&(_, v)| v > 0.0 || v == 0.0 && v.is_sign_positive()).collect();
            codes.sort_by(|a, b| a.1.total_cmp(&b.1));
            for pair in codes.windows(2) {
                let [(low, a), (high, b)] = [pair[0], pair[1]];
                let middle = (a + b) / 2.0;
                let even = if low % 2 == 0 { low } else { high };
                assert_eq!(encode(ty, middle, true), even, "{ty} {middle}");
                assert_eq!(encode(ty, middle * (1.0 - 1e-12), true), low, "{ty} below {middle}");
                assert_eq!(encode(ty, middle * (1.0 + 1e-12), true), high, "{ty} above {middle}");
            }
        }
    }

    #[test]
    fn beyond_the_largest() {
        // From the conversion tables of ONNX Cast: 1e6, ∞, −∞ with saturation, then without.
        let table = [
            (Type::F8E4M3FN, [0x7e, 0x7e, 0xfe], [0x7f, 0x7f, 0xff]),
            (Type::F8E4M3FNUZ, [0x7f, 0x7f, 0xff], [0x80, 0x80, 0x80]),
            (Type::F8E5M2, [0x7b, 0x7b, 0xfb], [0x7c, 0x7c, 0xfc]),
            (Type::F8E5M2FNUZ, [0x7f, 0x7f, 0xff], [0x80, 0x80, 0x80]),
            (Type::F4E2M1, [0x7, 0x7, 0xf], [0x7, 0x7, 0xf]),
        ];
        for (ty, saturated, free) in table {
            let x = [1e6, f64::INFINITY, f64::NEG_INFINITY];
            assert_eq!(x.map(|x| encode(ty, x, true)), saturated, "{ty}");
            assert_eq!(x.map(|x| encode(ty, x, false)), free, "{ty}");
        }
        assert_eq!(encode(Type::F8E4M3FNUZ, -0.0, true), 0);
        assert_eq!(encode(Type::F8E4M3FNUZ, -1e-9, true), 0);
        assert_eq!(encode(Type::F8E4M3FN, -0.0, true), 0x80);
        assert_eq!(encode(Type::F4E2M1, f64::NAN, true), 0x8);
    }

    #[test]
    fn sixteen_bits_agree_with_half() {
        for bits in 0..=u16::MAX {
            let (f, b) = (half::f16::from_bits(bits), half::bf16::from_bits(bits));
            if !f.is_nan() {
                assert_eq!(decode(Type::F16, bits.into()), f.to_f64());
                assert_eq!(encode(Type::F16, f.to_f64(), false), u32::from(bits));
            }
            if !b.is_nan() {
                assert_eq!(decode(Type::BF16, bits.into()), b.to_f64());
                assert_eq!(encode(Type::BF16, b.to_f64(), false), u32::from(bits));
            }
        }
        // f32 values of a simple generator, through the conversion of the library.
        let mut state = 1u32;
        for _ in 0..100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(state);
            if !x.is_nan() {
                assert_eq!(encode(Type::BF16, x.into(), false), half::bf16::from_f32(x).to_bits().into(), "{x}");
                assert_eq!(encode(Type::F16, x.into(), false), half::f16::from_f32(x).to_bits().into(), "{x}");
            }
        }
        // Just above a tie: by way of f32 it would round to even.
        assert_eq!(encode(Type::F16, 1.0 + 2f64.powi(-11) + 2f64.powi(-40), false), 0x3c01);
    }

    #[test]
    fn powers_of_two() {
        let up = |x| encode_e8m0(x, true, Round::Up);
        assert_eq!([0.0, 0.124, 0.25, 1.1, 8.0].map(up), [0, 124, 125, 128, 130]);
        assert_eq!([f64::NAN, f64::INFINITY].map(up), [0xff, 0xff]);
        assert_eq!(up(f32::MAX.into()), 0xfe);
        assert_eq!(encode_e8m0(f32::MAX.into(), false, Round::Up), 0xff);
        assert_eq!([1.4, 1.5, 1.6].map(|x| encode_e8m0(x, true, Round::Nearest)), [127, 128, 128]);
        assert_eq!([1.4, 1.5, 1.9].map(|x| encode_e8m0(x, true, Round::Down)), [127, 127, 127]);
        assert_eq!(decode(Type::F8E8M0, 0), 2f64.powi(-127));
        assert_eq!(decode(Type::F8E8M0, 127), 1.0);
    }
}
