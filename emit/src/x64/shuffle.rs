//! Any rearrangement of lanes, as a rearrangement of bytes: the cheapest instruction that does it, else byte shuffles joined by or.
//! Registers of up to 32 bytes; `shuffle64` has those of 64.

use super::lower::Lower;
use super::mach::{Arg, V, imm8};
use super::view::View;
use dnnc_kir::{Ty, Val};
use iced_x86::Code::*;

/// Where each byte of a result register comes from: which source, which byte of it.
pub type Pattern = [(u8, u8)];

impl Lower<'_> {
    /// Lanes of two vectors by index.
    pub fn shuffle(&mut self, ty: Ty, a: Val, b: Val, lanes: &[u8]) -> Vec<V> {
        let mut registers = self.regs(a);
        if a != b && lanes.iter().any(|&l| l >= ty.lanes) {
            registers.extend(self.regs(b));
        }
        self.shuffle_registers(ty, &registers, a == b, lanes)
    }

    /// Lanes of two vectors of a type in registers, or of one that is both, by index.
    pub fn shuffle_registers(&mut self, ty: Ty, registers: &[V], same: bool, lanes: &[u8]) -> Vec<V> {
        let (n, each) = (ty.elem.bytes(), self.isa.bytes);
        let per_value = self.parts_of(ty);
        let source = |i: usize| {
            let (lane, byte) = (lanes[i / n] as usize, i % n);
            let (value, at) = (lane / ty.lanes as usize, lane % ty.lanes as usize * n + byte);
            let value = if same { 0 } else { value };
            ((value * per_value + at / each) as u8, (at % each) as u8)
        };
        let pattern: Vec<(u8, u8)> = (0..ty.bytes()).map(source).collect();
        pattern.chunks(each).map(|p| self.permute_one(registers, ty.bytes() > 16, p)).collect()
    }

    /// The bytes of a value of `total` bytes picked by index.
    pub fn permute(&mut self, registers: &[V], total: usize, bytes: &[usize]) -> Vec<V> {
        let each = self.isa.bytes;
        let pattern: Vec<(u8, u8)> = bytes.iter().map(|&b| ((b / each) as u8, (b % each) as u8)).collect();
        pattern.chunks(each).map(|p| self.permute_one(registers, total > 16, p)).collect()
    }

    /// One result register.
    fn permute_one(&mut self, registers: &[V], wide: bool, pattern: &Pattern) -> V {
        // Only the sources that are used, in order of first use.
        let mut sources: Vec<V> = vec![];
        let mut used: Vec<u8> = vec![];
        let pattern: Vec<(u8, u8)> = pattern
            .iter()
            .map(|&(s, b)| {
                let at = used.iter().position(|&u| u == s).unwrap_or_else(|| {
                    used.push(s);
                    sources.push(registers[s as usize]);
                    used.len() - 1
                });
                (at as u8, b)
            })
            .collect();
        match (sources.as_slice(), wide, pattern.len() > 16) {
            (&[a], ..) if pattern.iter().enumerate().all(|(i, p)| p.1 as usize == i) => a,
            (&[a], ..) if let Some(r) = self.splat_lane(a, &pattern) => r,
            _ if pattern.len() > 32 => self.permute_64(&sources, &pattern),
            (&[a], false, false) => self.permute_16(a, &pattern),
            (&[a], true, false) => self.narrow_32(a, &pattern),
            (&[a], _, true) => self.permute_32(a, &pattern),
            (&[a, b], false, false) if let Some(r) = self.two(a, b, View::X, &pattern) => r,
            (&[a, b], true, true) if let Some(r) = self.two(a, b, View::Y, &pattern) => r,
            _ => self.gather(&sources, wide, &pattern),
        }
    }

    /// One element in every lane.
    fn splat_lane(&mut self, a: V, pattern: &Pattern) -> Option<V> {
        let total = pattern.len();
        let n = [1, 2, 4, 8].into_iter().find(|&n| {
            let first = pattern[0].1 as usize;
            n < total && first.is_multiple_of(n) && pattern.iter().enumerate().all(|(i, p)| p.1 as usize == first + i % n)
        })?;
        let at = pattern[0].1 as usize;
        if total == 32 && n == 8 && at > 0 {
            let lane = at as u8 / 8;
            return Some(self.vec_op(VEX_Vpermq_ymm_ymmm256_imm8, View::Y, &[Arg::Use(a, View::Y), imm8(lane * 0b0101_0101)]));
        }
        if total <= 16 && at < 16 && at > 0 {
            return None;
        }
        let low = self.slice(a, at);
        Some(self.broadcast(low, n, self.width_of(total)))
    }

    /// Bytes of a 16-byte register.
    fn permute_16(&mut self, a: V, pattern: &Pattern) -> V {
        if pattern.iter().enumerate().all(|(i, p)| p.1 as usize == i) {
            return a;
        }
        if let Some(words) = units(pattern, 4) {
            return self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::X, &[Arg::Use(a, View::X), imm8(quad(&words))]);
        }
        let mask = self.byte_mask(pattern.iter().map(|p| Some(p.1)), 16);
        self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, View::X, &[Arg::Use(a, View::X), mask])
    }

    /// At most 16 bytes out of a 32-byte register.
    fn narrow_32(&mut self, a: V, pattern: &Pattern) -> V {
        if pattern.iter().all(|p| p.1 < 16) {
            return self.permute_16(a, pattern);
        }
        if pattern.iter().all(|p| p.1 >= 16) {
            let high = self.slice(a, 16);
            let pattern: Vec<(u8, u8)> = pattern.iter().map(|&(s, b)| (s, b - 16)).collect();
            return self.permute_16(high, &pattern);
        }
        let half = pattern.len() / 2;
        if pattern[..half].iter().all(|p| p.1 < 16) && pattern[half..].iter().all(|p| p.1 >= 16) {
            // Each half of the result out of one half of the source: shuffle in place, then bring together.
            let both = (0..32).map(|i| pattern.get(if i < 16 { i } else { half + i - 16 }).filter(|_| i % 16 < half).map(|p| p.1 % 16));
            let mask = self.byte_mask(both, 32);
            let shuffled = self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, View::Y, &[Arg::Use(a, View::Y), mask]);
            if half == 8 {
                return self.vec_op(VEX_Vpermq_ymm_ymmm256_imm8, View::Y, &[Arg::Use(shuffled, View::Y), imm8(0b1000)]);
            }
            let high = self.slice(shuffled, 16);
            return self.join_low(shuffled, high, half);
        }
        self.gather(&[a], true, pattern)
    }

    /// 32 bytes out of one register.
    fn permute_32(&mut self, a: V, pattern: &Pattern) -> V {
        let y = Arg::Use(a, View::Y);
        if let Some(quads) = units(pattern, 8) {
            return self.vec_op(VEX_Vpermq_ymm_ymmm256_imm8, View::Y, &[y, imm8(quad(&quads))]);
        }
        if let Some(words) = units(pattern, 4) {
            let same = (0..4).all(|i| words[i] < 4 && words[i + 4] == words[i] + 4);
            if same {
                return self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::Y, &[y, imm8(quad(&words[..4]))]);
            }
            let index: Vec<u8> = words.iter().flat_map(|&w| [w, 0, 0, 0]).collect();
            let index = Arg::Mem(self.m.pool(index));
            let index = self.vec_op(VEX_Vmovups_xmm_xmmm128, View::Y, &[index]);
            return self.vec_op(VEX_Vpermd_ymm_ymm_ymmm256, View::Y, &[Arg::Use(index, View::Y), y]);
        }
        if pattern.iter().enumerate().all(|(i, p)| p.1 as usize / 16 == i / 16) {
            let mask = self.byte_mask(pattern.iter().map(|p| Some(p.1 % 16)), 32);
            return self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, View::Y, &[y, mask]);
        }
        self.gather(&[a], true, pattern)
    }

    /// Two sources as wide as the result: interleavings, blends and their like, in either order.
    fn two(&mut self, a: V, b: V, w: View, pattern: &Pattern) -> Option<V> {
        if let Some(r) = self.two_ordered(a, b, w, pattern) {
            return Some(r);
        }
        let swapped: Vec<(u8, u8)> = pattern.iter().map(|&(s, p)| (1 - s, p)).collect();
        self.two_ordered(b, a, w, &swapped)
    }

    /// As `two`, in this order.
    pub fn two_ordered(&mut self, a: V, b: V, w: View, pattern: &Pattern) -> Option<V> {
        let args = [Arg::Use(a, w), Arg::Use(b, w)];
        let n = pattern.len();
        // Interleave the low or the high halves of each 16 bytes. A shorter vector interleaves its low half only.
        let unpack = [
            (1, VEX_Vpunpcklbw_xmm_xmm_xmmm128, VEX_Vpunpckhbw_xmm_xmm_xmmm128),
            (2, VEX_Vpunpcklwd_xmm_xmm_xmmm128, VEX_Vpunpckhwd_xmm_xmm_xmmm128),
            (4, VEX_Vunpcklps_xmm_xmm_xmmm128, VEX_Vunpckhps_xmm_xmm_xmmm128),
            (8, VEX_Vunpcklpd_xmm_xmm_xmmm128, VEX_Vunpckhpd_xmm_xmm_xmmm128),
        ];
        for (size, low, high) in unpack {
            for (code, start) in [(low, 0), (high, 8)] {
                let expected = |i: usize| {
                    let (lane, at) = (i / 16 * 16, i % 16);
                    ((at / size % 2) as u8, (lane + start + at / (2 * size) * size + at % size) as u8)
                };
                if (0..n).all(|i| pattern[i] == expected(i)) {
                    return Some(self.vec_op(code, w, &args));
                }
            }
        }
        // Blend: every byte stays at its place.
        if w != View::Z && pattern.iter().enumerate().all(|(i, p)| p.1 as usize == i) {
            if let Some(words) = whole(pattern, 4) {
                let mask = words.iter().enumerate().fold(0, |m, (i, p)| m | p.0 << i);
                return Some(self.vec_op(VEX_Vpblendd_xmm_xmm_xmmm128_imm8, w, &[args[0], args[1], imm8(mask)]));
            }
            let mask = self.m.pool((0..w.bytes()).map(|i| if pattern.get(i).is_some_and(|p| p.0 == 1) { 0xFF } else { 0 }).collect());
            let mask = self.vec_op(VEX_Vmovups_xmm_xmmm128, w, &[Arg::Mem(mask)]);
            return Some(self.vec_op(VEX_Vpblendvb_xmm_xmm_xmmm128_xmm, w, &[args[0], args[1], Arg::Use(mask, w)]));
        }
        // Bytes of the two laid end to end in each 16, from some byte on.
        if n >= 16 {
            let shift = if pattern[0].0 == 0 { pattern[0].1 } else { 16 };
            let expected = |i: usize| {
                let at = i % 16 + shift as usize;
                ((at / 16) as u8, (i / 16 * 16 + at % 16) as u8)
            };
            if shift < 16 && (0..n).all(|i| pattern[i] == expected(i)) {
                return Some(self.vec_op(VEX_Vpalignr_xmm_xmm_xmmm128_imm8, w, &[args[1], args[0], imm8(shift)]));
            }
        }
        // Halves of 16 bytes.
        if let Some(halves) = whole(pattern, 16).filter(|_| w == View::Y) {
            let pick = |(s, b): (u8, u8)| s * 2 + b / 16;
            let mask = pick(halves[0]) | pick(halves[1]) << 4;
            return Some(self.vec_op(VEX_Vperm2i128_ymm_ymm_ymmm256_imm8, w, &[args[0], args[1], imm8(mask)]));
        }
        // Two of a, then two of b, in each 16 bytes.
        let words = whole(pattern, 4)?;
        if n >= 16 {
            let same = (0..words.len()).all(|i| {
                let (s, at) = words[i];
                s as usize == i / 2 % 2 && at as usize / 16 == i / 4 && at % 16 == words[i % 4].1
            });
            if same {
                let mask = quad(&words[..4].iter().map(|p| p.1 / 4).collect::<Vec<u8>>());
                return Some(self.vec_op(VEX_Vshufps_xmm_xmm_xmmm128_imm8, w, &[args[0], args[1], imm8(mask)]));
            }
        }
        if w == View::Y {
            // Each source permuted to its places, then a blend.
            let mask = words.iter().enumerate().fold(0, |m, (i, p)| m | p.0 << i);
            let [r, s] = [(a, 0), (b, 1)].map(|(source, which)| {
                let pattern: Vec<(u8, u8)> =
                    (0..32).map(|i| if pattern[i].0 == which { (0, pattern[i].1) } else { (0, i as u8) }).collect();
                self.permute_whole(source, &pattern)
            });
            return Some(self.vec_op(VEX_Vpblendd_xmm_xmm_xmmm128_imm8, w, &[Arg::Use(r, w), Arg::Use(s, w), imm8(mask)]));
        }
        None
    }

    fn permute_whole(&mut self, a: V, pattern: &Pattern) -> V {
        if pattern.iter().enumerate().all(|(i, p)| p.1 as usize == i) { a } else { self.permute_32(a, pattern) }
    }

    /// The general way: every source's 16-byte halves shuffled to where they go, zeros elsewhere, and all joined by or.
    fn gather(&mut self, sources: &[V], wide: bool, pattern: &Pattern) -> V {
        let w = if pattern.len() > 16 { View::Y } else { View::X };
        let mut result: Option<V> = None;
        let mut pieces: Vec<(V, Vec<Option<u8>>)> = vec![];
        for (s, &source) in sources.iter().enumerate() {
            // Bytes from the same half as they go to, and from the other half.
            for crossing in [false, true] {
                let picked: Vec<Option<u8>> = pattern
                    .iter()
                    .enumerate()
                    .map(|(i, &(from, byte))| (from as usize == s && (byte as usize / 16 != i / 16) == crossing).then_some(byte % 16))
                    .collect();
                if picked.iter().all(Option::is_none) {
                    continue;
                }
                let r = match (crossing, wide) {
                    (false, _) => source,
                    (true, true) if w == View::X => self.slice(source, 16),
                    (true, true) => self.vec_op(VEX_Vpermq_ymm_ymmm256_imm8, View::Y, &[Arg::Use(source, View::Y), imm8(0b0100_1110)]),
                    (true, false) => self.broadcast(source, 16, View::Y),
                };
                pieces.push((r, picked));
            }
        }
        for (r, picked) in pieces {
            let mask = self.byte_mask(picked.into_iter(), w.bytes());
            let piece = self.vec_op(VEX_Vpshufb_xmm_xmm_xmmm128, w, &[Arg::Use(r, w), mask]);
            result = Some(match result {
                None => piece,
                Some(sum) => self.vec_op(VEX_Vpor_xmm_xmm_xmmm128, w, &[Arg::Use(sum, w), Arg::Use(piece, w)]),
            });
        }
        result.expect("a result has bytes")
    }

    /// The operand of a byte shuffle; `None` gives zero.
    pub fn byte_mask(&mut self, bytes: impl Iterator<Item = Option<u8>>, total: usize) -> Arg {
        let mut mask: Vec<u8> = bytes.map(|b| b.unwrap_or(0x80)).collect();
        mask.resize(total, 0x80);
        Arg::Mem(self.m.pool(mask))
    }
}

/// The pattern in units of `n` bytes (source, first byte), if it moves whole aligned ones. What is missing at the end counts as in place.
pub fn whole(pattern: &Pattern, n: usize) -> Option<Vec<(u8, u8)>> {
    if !pattern.len().is_multiple_of(n) {
        return None;
    }
    pattern
        .chunks(n)
        .map(|c| {
            ((c[0].1 as usize).is_multiple_of(n) && c.iter().enumerate().all(|(i, &p)| p == (c[0].0, c[0].1 + i as u8))).then_some(c[0])
        })
        .collect()
}

/// The indices of units of `n` bytes of one source.
pub fn units(pattern: &Pattern, n: usize) -> Option<Vec<u8>> {
    whole(pattern, n).map(|w| w.iter().map(|p| p.1 / n as u8).collect())
}

/// Four 2-bit indices as an immediate; missing ones stay in place.
pub fn quad(indices: &[u8]) -> u8 {
    (0..4).fold(0, |m, i| m | (indices.get(i as usize).copied().unwrap_or(i) & 3) << (2 * i))
}
