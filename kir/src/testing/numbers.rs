//! Random numbers, and elements that are worth a test.

use crate::{Elem, Ty};

/// Random numbers, the same everywhere.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Elements that memory can hold.
pub const STORED: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

/// Bits of an element: often one where something changes.
pub fn element(r: &mut Random, elem: Elem) -> u64 {
    let special32: [f32; 24] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.49999997,
        8388607.5,
        -8388609.0,
        2147483648.0,
        -2147483648.0,
        4294967296.0,
        65519.0,
        65520.0,
        6.1e-5,
        5.96e-8,
        1e-40,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    match (elem, r.below(4)) {
        (Elem::F32, 0) => u64::from(r.pick(&special32).to_bits()),
        (Elem::F32, 1 | 2) => u64::from((r.below(2_000_001) as f32 / 1000.0 - 1000.0).to_bits()),
        (Elem::F64, 0) => f64::from(r.pick(&special32)).to_bits(),
        (Elem::F64, 1) => {
            r.pick(&[4503599627370495.5f64, 9223372036854775808.0, -9223372036854775808.0, 1e300, 1e-310, 16777217.0]).to_bits()
        }
        (Elem::F64, 2) => (r.below(2_000_001) as f64 / 1000.0 - 1000.0).to_bits(),
        (elem, 0) if !elem.is_float() => {
            let all = elem.ones();
            r.pick(&[0, 1, 2, 7, 8, all, all - 1, all >> 1, (all >> 1) + 1])
        }
        (elem, 1) if !elem.is_float() => r.below(64) as u64,
        (elem, _) => r.bits() & elem.ones(),
    }
}

/// Appends elements of a type, often ones where something changes.
pub fn fill(r: &mut Random, ty: Ty, into: &mut Vec<u8>) {
    for _ in 0..ty.lanes {
        into.extend_from_slice(&element(r, ty.elem).to_le_bytes()[..ty.elem.bytes()]);
    }
}
