//! Masks of 512-bit vectors, which are in mask registers: a bit a lane, those above the last lane 0.
//!
//! What has no instruction on masks is done on vectors of all ones and zeros.

use super::lower::{Compare, Lower};
use super::mach::{Arg, V, cc, imm8};
use super::view::View;
use dnnc_kir::{Bin, Cmp, Conv, Op, Ty, Un, Val};
use iced_x86::Code::{self, *};
use regalloc2::RegClass;

/// A row of codes by the number of lanes: 8, 16, 32, 64.
type ByLanes = [Code; 4];
const KAND: ByLanes = [VEX_Kandb_kr_kr_kr, VEX_Kandw_kr_kr_kr, VEX_Kandd_kr_kr_kr, VEX_Kandq_kr_kr_kr];
const KOR: ByLanes = [VEX_Korb_kr_kr_kr, VEX_Korw_kr_kr_kr, VEX_Kord_kr_kr_kr, VEX_Korq_kr_kr_kr];
const KXOR: ByLanes = [VEX_Kxorb_kr_kr_kr, VEX_Kxorw_kr_kr_kr, VEX_Kxord_kr_kr_kr, VEX_Kxorq_kr_kr_kr];
const KNOT: ByLanes = [VEX_Knotb_kr_kr, VEX_Knotw_kr_kr, VEX_Knotd_kr_kr, VEX_Knotq_kr_kr];
const KORTEST: ByLanes = [VEX_Kortestb_kr_kr, VEX_Kortestw_kr_kr, VEX_Kortestd_kr_kr, VEX_Kortestq_kr_kr];

/// Codes by the bytes of a lane: 1, 2, 4, 8.
type ByBytes = [Code; 4];
const TO_VECTOR: ByBytes = [EVEX_Vpmovm2b_xmm_kr, EVEX_Vpmovm2w_xmm_kr, EVEX_Vpmovm2d_xmm_kr, EVEX_Vpmovm2q_xmm_kr];
const TO_MASK: ByBytes = [EVEX_Vpmovb2m_kr_xmm, EVEX_Vpmovw2m_kr_xmm, EVEX_Vpmovd2m_kr_xmm, EVEX_Vpmovq2m_kr_xmm];
const COMPARE: ByBytes = [
    EVEX_Vpcmpb_kr_k1_xmm_xmmm128_imm8,
    EVEX_Vpcmpw_kr_k1_xmm_xmmm128_imm8,
    EVEX_Vpcmpd_kr_k1_xmm_xmmm128b32_imm8,
    EVEX_Vpcmpq_kr_k1_xmm_xmmm128b64_imm8,
];
const COMPARE_UNSIGNED: ByBytes = [
    EVEX_Vpcmpub_kr_k1_xmm_xmmm128_imm8,
    EVEX_Vpcmpuw_kr_k1_xmm_xmmm128_imm8,
    EVEX_Vpcmpud_kr_k1_xmm_xmmm128b32_imm8,
    EVEX_Vpcmpuq_kr_k1_xmm_xmmm128b64_imm8,
];
const BLEND: ByBytes = [
    EVEX_Vpblendmb_xmm_k1z_xmm_xmmm128,
    EVEX_Vpblendmw_xmm_k1z_xmm_xmmm128,
    EVEX_Vpblendmd_xmm_k1z_xmm_xmmm128b32,
    EVEX_Vpblendmq_xmm_k1z_xmm_xmmm128b64,
];
const KEEP: ByBytes =
    [EVEX_Vmovdqu8_xmm_k1z_xmmm128, EVEX_Vmovdqu16_xmm_k1z_xmmm128, EVEX_Vmovdqu32_xmm_k1z_xmmm128, EVEX_Vmovdqu64_xmm_k1z_xmmm128];

/// Masks of accesses that are kept in registers through a kernel, of the seven there are.
const LOOP_MASKS: usize = 5;

fn by_lanes(row: ByLanes, ty: Ty) -> Code {
    row[ty.lanes.ilog2() as usize - 3]
}

fn by_bytes(row: ByBytes, bytes: usize) -> Code {
    row[bytes.ilog2() as usize]
}

impl Lower<'_> {
    /// A mask register with a constant, made once where it can be used again.
    pub fn mask_constant(&mut self, bits: u64) -> V {
        if let Some(&(_, k)) = self.mask_constants.iter().find(|m| m.0 == bits) {
            return k;
        }
        let r = self.int_constant(bits);
        let k = self.mask_op(VEX_Kmovq_kr_r64, &[Arg::Use(r, View::Q)]);
        self.mask_constants.push((bits, k));
        k
    }

    /// Makes the masks of accesses in loops beforehand, as many as there is room for.
    pub fn loop_masks(&mut self) {
        let partial: Vec<(Ty, u8)> = self.live.partial.iter().copied().collect();
        for (ty, count) in partial {
            let (bytes, n) = (count as usize * ty.elem.bytes() % self.isa.bytes, ty.elem.bytes());
            if self.masks_access(bytes) && self.mask_constants.len() < LOOP_MASKS {
                self.mask_constant(u64::MAX >> (64 - bytes / n));
            }
        }
    }

    /// Whether an access of so many bytes of a register goes by a mask.
    pub fn masks_access(&self, bytes: usize) -> bool {
        self.isa.registers == 32 && !matches!(bytes, 0 | 4 | 8 | 16 | 32 | 64)
    }

    /// `mask ? yes : no` of lanes of `n` bytes in 512 bits.
    pub fn blend(&mut self, mask: V, n: usize, no: Arg, yes: Arg) -> V {
        self.vec_op(by_bytes(BLEND, n), View::Z, &[Arg::Mask(mask, false), no, yes])
    }

    /// `mask ? a : b`.
    pub fn select_by_mask(&mut self, mask: V, ty: Ty, a: Val, b: Val) -> V {
        let (w, n) = (View::Z, ty.elem.bytes());
        if self.constant(b) == Some(0) {
            let yes = Arg::Use(self.reg(a, 0), w);
            return self.vec_op(by_bytes(KEEP, n), w, &[Arg::Mask(mask, true), yes]);
        }
        let yes = self.rm(a, 0);
        let no = Arg::Use(self.reg(b, 0), w);
        self.blend(mask, n, no, yes)
    }

    /// A mask as a vector of all ones and zeros.
    fn spread(&mut self, mask: V, ty: Ty) -> V {
        self.vec_op(by_bytes(TO_VECTOR, ty.elem.bytes()), View::Z, &[Arg::Use(mask, View::K)])
    }

    /// The top bits of the lanes of a vector as a mask.
    fn gathered(&mut self, r: V, ty: Ty) -> V {
        self.mask_op(by_bytes(TO_MASK, ty.elem.bytes()), &[Arg::Use(r, View::Z)])
    }

    fn compare_512(&mut self, op: Cmp, a: Val, b: Val) -> V {
        let ty = self.ty(a);
        let n = ty.elem.bytes();
        let r = Arg::Use(self.reg(a, 0), View::Z);
        let y = self.rm(b, 0);
        if ty.elem.is_float() {
            let code = if n == 4 { EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8 } else { EVEX_Vcmppd_kr_k1_xmm_xmmm128b64_imm8 };
            return self.mask_op(code, &[r, y, imm8(Self::float_predicate(op))]);
        }
        let (row, predicate) = match op {
            Cmp::Eq => (COMPARE, 0),
            Cmp::Lt => (COMPARE, 1),
            Cmp::Le => (COMPARE, 2),
            Cmp::Ne => (COMPARE, 4),
            Cmp::Ge => (COMPARE, 5),
            Cmp::Gt => (COMPARE, 6),
            Cmp::LtU => (COMPARE_UNSIGNED, 1),
            Cmp::LeU => (COMPARE_UNSIGNED, 2),
            Cmp::GeU => (COMPARE_UNSIGNED, 5),
            Cmp::GtU => (COMPARE_UNSIGNED, 6),
        };
        self.mask_op(by_bytes(row, n), &[r, y, imm8(predicate)])
    }

    /// An operation that makes a mask in a mask register, or reads one by its lanes.
    pub fn masked(&mut self, v: Val, op: &Op) -> Result<V, String> {
        let ty = self.ty(v);
        let k = |r: V| Arg::Use(r, View::K);
        Ok(match *op {
            Op::Un(Un::Not, a) => {
                let r = self.reg(a, 0);
                self.mask_op(by_lanes(KNOT, ty), &[k(r)])
            }
            Op::Bin(op @ (Bin::And | Bin::Or | Bin::Xor), a, b) => {
                let (r, s) = (self.reg(a, 0), self.reg(b, 0));
                let row = match op {
                    Bin::And => KAND,
                    Bin::Or => KOR,
                    _ => KXOR,
                };
                self.mask_op(by_lanes(row, ty), &[k(r), k(s)])
            }
            Op::Cmp(op, a, b) => self.compare_512(op, a, b),
            Op::Select(mask, a, b) => {
                // b ^ ((a ^ b) & mask)
                let (m, r, s) = (self.reg(mask, 0), self.reg(a, 0), self.reg(b, 0));
                let differ = self.mask_op(by_lanes(KXOR, ty), &[k(r), k(s)]);
                let taken = self.mask_op(by_lanes(KAND, ty), &[k(differ), k(m)]);
                self.mask_op(by_lanes(KXOR, ty), &[k(taken), k(s)])
            }
            Op::Conv(Conv::MaskToInt, a) => {
                let r = self.reg(a, 0);
                self.spread(r, self.ty(a))
            }
            Op::Splat(a) => {
                let r = self.splat(ty.elem, View::Z, a);
                self.gathered(r, ty)
            }
            Op::Extract(a, lane) => {
                let from = self.ty(a);
                let r = self.reg(a, 0);
                let r = self.spread(r, from);
                self.lane(from.elem, r, lane as usize)
            }
            Op::Insert(a, value, lane) => {
                let r = self.reg(a, 0);
                let r = self.spread(r, ty);
                let all = self.splat(ty.elem, View::Z, value);
                let at = self.mask_constant(1 << lane);
                let r = self.blend(at, ty.elem.bytes(), Arg::Use(r, View::Z), Arg::Use(all, View::Z));
                self.gathered(r, ty)
            }
            Op::Shuffle(a, b, ref lanes) => {
                let mut registers: Vec<V> = vec![];
                for v in [a, b] {
                    let r = self.reg(v, 0);
                    registers.push(self.spread(r, ty));
                }
                let r = self.shuffle_registers(ty, &registers, a == b, lanes)[0];
                self.gathered(r, ty)
            }
            Op::Half(a, upper) => {
                let from = self.ty(a);
                let r = self.reg(a, 0);
                let r = self.spread(r, from);
                if upper { self.slice(r, 32) } else { r }
            }
            Op::Join(a, b) => {
                let (r, s) = (self.reg(a, 0), self.reg(b, 0));
                let r = self.join_low(r, s, 32);
                self.gathered(r, ty)
            }
            Op::Any(a) => {
                let compare = self.any(a);
                self.compares[v.0 as usize] = Some(compare);
                self.mask_of(compare)
            }
            _ => return Err(format!("{op:?} as {ty} in {}", self.func.name)),
        })
    }

    /// The test whether a bit of a mask register is set.
    pub fn any_of_mask(&mut self, mask: V, ty: Ty) -> Compare {
        debug_assert_eq!(mask.class(), RegClass::Vector);
        Compare { code: by_lanes(KORTEST, ty), args: [Arg::Use(mask, View::K); 2], cc: cc::NE }
    }
}
