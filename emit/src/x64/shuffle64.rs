//! Rearrangements of the bytes of 512-bit registers.

use super::lower::Lower;
use super::mach::{Arg, V, imm8};
use super::shuffle::{Pattern, quad, units, whole};
use super::view::View;
use iced_x86::Code::{self, *};

const W: View = View::Z;

fn z(v: V) -> Arg {
    Arg::Use(v, W)
}

impl Lower<'_> {
    /// 64 bytes out of one or two registers.
    pub fn permute_64(&mut self, sources: &[V], pattern: &Pattern) -> V {
        match *sources {
            [a] => self.permute_one_64(a, pattern),
            [a, b] => self.permute_two_64(a, b, pattern),
            _ => unreachable!("a shuffle has two operands"),
        }
    }

    fn permute_one_64(&mut self, a: V, pattern: &Pattern) -> V {
        if pattern.iter().enumerate().all(|(i, p)| p.1 as usize / 16 == i / 16) {
            if let Some(words) = units(pattern, 4)
                && (4..16).all(|i| words[i] == words[i % 4] + (i / 4 * 4) as u8)
            {
                return self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, W, &[z(a), imm8(quad(&words[..4]))]);
            }
            let mask = self.byte_mask(pattern.iter().map(|p| Some(p.1 % 16)), 64);
            return self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, W, &[z(a), mask]);
        }
        let rows: [(usize, Code, bool); 4] = [
            (8, EVEX_Vpermq_ymm_k1z_ymm_ymmm256b64, true),
            (4, EVEX_Vpermd_ymm_k1z_ymm_ymmm256b32, true),
            (2, EVEX_Vpermw_xmm_k1z_xmm_xmmm128, true),
            (1, EVEX_Vpermb_xmm_k1z_xmm_xmmm128, self.isa.vbmi),
        ];
        for (n, code, has) in rows {
            if let Some(indices) = units(pattern, n).filter(|_| has) {
                let index = self.indices(&indices, n);
                return self.vec_op(code, W, &[z(index), z(a)]);
            }
        }
        self.gather_64(&[a], pattern)
    }

    fn permute_two_64(&mut self, a: V, b: V, pattern: &Pattern) -> V {
        if let Some(r) = self.two_ordered(a, b, W, pattern) {
            return r;
        }
        let swapped: Vec<(u8, u8)> = pattern.iter().map(|&(s, p)| (1 - s, p)).collect();
        if let Some(r) = self.two_ordered(b, a, W, &swapped) {
            return r;
        }
        // Every byte stays where it is.
        if pattern.iter().enumerate().all(|(i, p)| p.1 as usize == i) {
            let n = [8, 4, 2, 1].into_iter().find(|&n| whole(pattern, n).is_some()).expect("bytes are units");
            let from_b = (0..64 / n).fold(0u64, |m, i| m | u64::from(pattern[i * n].0) << i);
            let mask = self.mask_constant(from_b);
            return self.blend(mask, n, z(a), z(b));
        }
        let rows: [(usize, Code, bool); 4] = [
            (8, EVEX_Vpermi2q_xmm_k1z_xmm_xmmm128b64, true),
            (4, EVEX_Vpermi2d_xmm_k1z_xmm_xmmm128b32, true),
            (2, EVEX_Vpermi2w_xmm_k1z_xmm_xmmm128, true),
            (1, EVEX_Vpermi2b_xmm_k1z_xmm_xmmm128, self.isa.vbmi),
        ];
        for (n, code, has) in rows {
            if let Some(picks) = whole(pattern, n).filter(|_| has) {
                let indices: Vec<u8> = picks.iter().map(|&(s, at)| (s as usize * (64 / n) + at as usize / n) as u8).collect();
                let index = self.indices(&indices, n);
                return self.in_place(code, W, index, &[z(a), z(b)]);
            }
        }
        self.gather_64(&[a, b], pattern)
    }

    /// A register of indices in lanes of `n` bytes.
    fn indices(&mut self, indices: &[u8], n: usize) -> V {
        let bytes: Vec<u8> = indices.iter().flat_map(|&i| u64::from(i).to_le_bytes()[..n].to_vec()).collect();
        let mem = Arg::Mem(self.m.pool(bytes));
        self.vec_op(VEX_Vmovups_xmm_xmmm128, W, &[mem])
    }

    /// The general way: the 16-byte quarters of every source shuffled to where they go, zeros elsewhere, and all joined by or.
    fn gather_64(&mut self, sources: &[V], pattern: &Pattern) -> V {
        let mut result: Option<V> = None;
        for (s, &source) in sources.iter().enumerate() {
            // Bytes that stay in their quarter, then those that leave it, quarter by quarter.
            for from in [None, Some(0), Some(1), Some(2), Some(3)] {
                let picked: Vec<Option<u8>> = pattern
                    .iter()
                    .enumerate()
                    .map(|(i, &(value, byte))| {
                        let (stays, quarter) = (byte as usize / 16 == i / 16, byte as usize / 16);
                        let here = if stays { from.is_none() } else { from == Some(quarter) };
                        (value as usize == s && here).then_some(byte % 16)
                    })
                    .collect();
                if picked.iter().all(Option::is_none) {
                    continue;
                }
                let r = match from {
                    None => source,
                    Some(quarter) => {
                        let args = [z(source), z(source), imm8(quarter as u8 * 0b0101_0101)];
                        self.vec_op(EVEX_Vshufi32x4_ymm_k1z_ymm_ymmm256b32_imm8, W, &args)
                    }
                };
                let mask = self.byte_mask(picked.into_iter(), 64);
                let piece = self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, W, &[z(r), mask]);
                result = Some(match result {
                    None => piece,
                    Some(sum) => self.vec_op(VEX_Vpor_xmm_xmm_xmmm128, W, &[z(sum), z(piece)]),
                });
            }
        }
        result.expect("a result has bytes")
    }
}
