//! Arithmetic on vectors, and on scalar floats, which are the low lane of one. A value longer than the widest register has several.

use super::lower::{Lower, Split};
use super::mach::{Arg, V, imm8, x};
use super::scalar::float_code;
use super::view::View;
use dnnc_kir::{Bin, Cmp, Elem, Op, Ty, Un, Val};
use iced_x86::Code::{self, *};
use regalloc2::RegClass;

impl Lower<'_> {
    /// Whether an operation works in vector registers.
    pub fn in_vectors(&self, v: Val, op: &Op) -> bool {
        let ty = self.ty(v);
        match op {
            Op::Extract(..) | Op::Half(..) | Op::Reduce(..) | Op::Any(_) | Op::Dot2(..) | Op::Dot4(..) | Op::Dot4u(..) => true,
            Op::Un(..) | Op::Bin(..) | Op::Fma(..) | Op::Select(..) => ty.is_vector() || ty.elem.is_float(),
            _ => ty.is_vector(),
        }
    }

    /// An operation in vector registers; gives the registers of the result.
    pub fn vector(&mut self, v: Val, op: &Op) -> Result<Vec<V>, String> {
        let ty = self.ty(v);
        let parts = self.parts_of(ty);
        let w = self.width(ty);
        if self.in_masks(ty) || matches!(*op, Op::Any(m) | Op::Extract(m, _) | Op::Half(m, _) | Op::Conv(_, m) if self.in_masks(self.ty(m)))
        {
            return self.masked(v, op).map(|r| vec![r]);
        }
        match *op {
            Op::Un(op, a) => (0..parts).map(|p| self.vec_un(op, ty, a, p)).collect(),
            Op::Bin(op, a, b) => self.vec_bin(op, ty, a, b),
            Op::Fma(a, b, c) => (0..parts).map(|p| self.fma(ty, a, b, c, p)).collect(),
            Op::Cmp(op, a, b) => {
                let ty = self.ty(a);
                Ok((0..parts)
                    .map(|p| if ty.elem.is_float() { self.float_cmp(op, ty, a, b, p) } else { self.vec_cmp(op, ty, a, b, p) })
                    .collect())
            }
            Op::Select(mask, a, b) => Ok((0..parts).map(|p| self.vec_select(mask, a, b, p)).collect()),
            Op::Conv(op, a) => self.vec_conv(op, a, ty),
            Op::Splat(a) => {
                let r = match self.load_of(a) {
                    Some(mem) => self.load_splat(ty, mem)?,
                    None => self.splat(ty.elem, w, a),
                };
                Ok(vec![r; parts])
            }
            Op::Extract(a, lane) => Ok(vec![self.extract(a, lane as usize)]),
            Op::Insert(a, value, lane) => Ok(self.insert(a, value, lane as usize)),
            Op::Shuffle(a, b, ref lanes) => Ok(self.shuffle(ty, a, b, lanes)),
            Op::Half(a, upper) => Ok(self.half(a, upper)),
            Op::Join(a, b) => Ok(self.join(a, b)),
            Op::Reduce(fold, a) => self.reduce(fold, a).map(|r| vec![r]),
            Op::Any(mask) => {
                let compare = self.any(mask);
                self.compares[v.0 as usize] = Some(compare);
                Ok(vec![self.mask_of(compare)])
            }
            Op::Dot2(acc, a, b) => (0..parts).map(|p| self.dot2(ty, acc, a, b, p)).collect(),
            Op::Dot4(acc, a, b) => (0..parts).map(|p| self.dot4(ty, acc, a, b, p, Split::Signed)).collect(),
            Op::Dot4u(acc, a, b) => (0..parts).map(|p| self.dot4(ty, acc, a, b, p, Split::Unsigned)).collect(),
            _ => Err(format!("{op:?} as {ty:?} in {}", self.func.name)),
        }
    }

    /// Does an operation that has no vector form once a lane.
    pub fn lane_by_lane(&mut self, ty: Ty, operands: &[Val], op: impl Fn(&[Val]) -> Op) -> Result<Vec<V>, String> {
        let mut lanes = vec![];
        for lane in 0..ty.lanes {
            let mut scalars = vec![];
            for &o in operands {
                scalars.push(self.make(Ty::scalar(self.ty(o).elem), &Op::Extract(o, lane))?);
            }
            lanes.push(self.make(Ty::scalar(ty.elem), &op(&scalars))?);
        }
        while lanes.len() > 1 {
            let ty = Ty::vector(ty.elem, ty.lanes / lanes.len() as u8 * 2);
            lanes = lanes.chunks(2).map(|pair| self.make(ty, &Op::Join(pair[0], pair[1]))).collect::<Result<_, _>>()?;
        }
        Ok(self.regs(lanes[0]))
    }

    /// An instruction of two operands of the same width.
    pub fn op2(&mut self, code: Code, w: View, a: V, b: Arg) -> V {
        self.vec_op(code, w, &[Arg::Use(a, w), b])
    }

    /// A constant in every lane of `elem`, as an operand.
    pub fn splat_in_memory(&mut self, elem: Elem, w: View, bits: u64) -> Arg {
        Arg::Mem(self.constant_in_memory(Ty::vector(elem, (w.bytes() / elem.bytes()) as u8), bits))
    }

    /// All bits flipped.
    pub fn not(&mut self, w: View, a: V) -> V {
        let ones = self.splat_in_memory(Elem::I64, w, u64::MAX);
        self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, a, ones)
    }

    fn vec_un(&mut self, op: Un, ty: Ty, a: Val, p: usize) -> Result<V, String> {
        let (elem, w) = (ty.elem, self.width(ty));
        if let Un::Not = op {
            let r = self.reg(a, p);
            return Ok(self.not(w, r));
        }
        if elem.is_float() {
            let sign = 1u64 << (elem.bytes() * 8 - 1);
            let f32s = elem == Elem::F32;
            let rounding = |mode| (pick(f32s, ty, VROUND), Some(mode));
            let (code, mode) = match op {
                Un::Neg | Un::Abs => {
                    let (code, bits) =
                        if op == Un::Neg { (VEX_Vxorps_xmm_xmm_xmmm128, sign) } else { (VEX_Vandps_xmm_xmm_xmmm128, sign - 1) };
                    let mask = self.splat_in_memory(elem, w, bits);
                    let r = self.reg(a, p);
                    return Ok(self.op2(code, w, r, mask));
                }
                Un::Sqrt => (pick(f32s, ty, VSQRT), None),
                Un::Floor => rounding(9),
                Un::Ceil => rounding(10),
                Un::Trunc => rounding(11),
                _ => rounding(8),
            };
            let mut args = vec![];
            if !ty.is_vector() {
                args.push(x(self.reg(a, p)));
                args.push(x(self.reg(a, p)));
            } else {
                args.push(self.rm(a, p));
            }
            args.extend(mode.map(imm8));
            return Ok(self.vec_op(code, w, &args));
        }
        let r = self.reg(a, p);
        match (op, elem.bytes()) {
            (Un::Neg, n) => {
                let zero = self.zero();
                Ok(self.op2(int_code(Bin::Sub, n).expect("every width"), w, zero, Arg::Use(r, w)))
            }
            (Un::Abs, 8) if w == View::Z => Ok(self.vec_op(EVEX_Vpabsq_xmm_k1z_xmmm128b64, w, &[Arg::Use(r, w)])),
            (Un::Abs, 8) => {
                let zero = self.zero();
                let sign = self.op2(VEX_Vpcmpgtq_xmm_xmm_xmmm128, w, zero, Arg::Use(r, w));
                let flipped = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, r, Arg::Use(sign, w));
                Ok(self.op2(VEX_Vpsubq_xmm_xmm_xmmm128, w, flipped, Arg::Use(sign, w)))
            }
            (Un::Abs, n) => {
                let code = [VEX_Vpabsb_xmm_xmmm128, VEX_Vpabsw_xmm_xmmm128, VEX_Vpabsd_xmm_xmmm128][n.ilog2() as usize];
                Ok(self.vec_op(code, w, &[Arg::Use(r, w)]))
            }
            _ => Err(format!("{op:?} of integers")),
        }
    }

    fn vec_bin(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Result<Vec<V>, String> {
        let w = self.width(ty);
        if matches!(op, Bin::DivS | Bin::DivU | Bin::RemS | Bin::RemU) {
            return self.lane_by_lane(ty, &[a, b], |l| Op::Bin(op, l[0], l[1]));
        }
        let shift = matches!(op, Bin::Shl | Bin::ShrS | Bin::ShrU);
        (0..self.parts_of(ty))
            .map(|p| {
                if let (true, Some(count)) = (shift, self.constant(b)) {
                    let r = self.reg(a, p);
                    return Ok(self.shift_by(op, ty.elem.bytes(), w, r, (count % (ty.elem.bytes() as u64 * 8)) as u8));
                }
                if let Some((code, commutes)) = direct(op, ty).filter(|_| ty.is_vector() || float_code(op, ty).is_some()) {
                    let swap = commutes && self.in_memory(a) && !self.in_memory(b);
                    let (a, b) = if swap { (b, a) } else { (a, b) };
                    let y = if ty.elem.is_float() { self.rm_broadcast(b, p) } else { self.rm(b, p) };
                    let r = self.reg(a, p);
                    return Ok(self.vec_op(code, w, &[Arg::Use(r, w), y]));
                }
                let (r, y) = (self.reg(a, p), self.reg(b, p));
                self.bin_of(op, ty, r, y)
            })
            .collect()
    }

    /// An operation of two registers, composed where the machine has no instruction.
    pub fn bin_of(&mut self, op: Bin, ty: Ty, a: V, b: V) -> Result<V, String> {
        let (elem, w) = (ty.elem, self.width(ty));
        let (ra, rb) = (Arg::Use(a, w), Arg::Use(b, w));
        if let Some((code, _)) = direct(op, ty) {
            return Ok(self.vec_op(code, w, &[ra, rb]));
        }
        Ok(match (op, elem.bytes()) {
            (Bin::Mul, 1) => {
                let even = self.op2(VEX_Vpmullw_xmm_xmm_xmmm128, w, a, rb);
                let low = self.splat_in_memory(Elem::I16, w, 0xFF);
                let even = self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, even, low);
                let (odd_a, odd_b) = (self.shift_by(Bin::ShrU, 2, w, a, 8), self.shift_by(Bin::ShrU, 2, w, b, 8));
                let odd = self.op2(VEX_Vpmullw_xmm_xmm_xmmm128, w, odd_a, Arg::Use(odd_b, w));
                let odd = self.shift_by(Bin::Shl, 2, w, odd, 8);
                self.op2(VEX_Vpor_xmm_xmm_xmmm128, w, even, Arg::Use(odd, w))
            }
            (Bin::Mul, 8) if w == View::Z => self.vec_op(EVEX_Vpmullq_xmm_k1z_xmm_xmmm128b64, w, &[ra, rb]),
            (Bin::Mul, 8) => {
                let low = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, a, rb);
                let (high_a, high_b) = (self.shift_by(Bin::ShrU, 8, w, a, 32), self.shift_by(Bin::ShrU, 8, w, b, 32));
                let cross = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, high_a, rb);
                let other = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, high_b, ra);
                let cross = self.op2(VEX_Vpaddq_xmm_xmm_xmmm128, w, cross, Arg::Use(other, w));
                let cross = self.shift_by(Bin::Shl, 8, w, cross, 32);
                self.op2(VEX_Vpaddq_xmm_xmm_xmmm128, w, low, Arg::Use(cross, w))
            }
            (Bin::MinS | Bin::Min, 8) if w == View::Z => self.vec_op(EVEX_Vpminsq_xmm_k1z_xmm_xmmm128b64, w, &[ra, rb]),
            (Bin::MaxS | Bin::Max, 8) if w == View::Z => self.vec_op(EVEX_Vpmaxsq_xmm_k1z_xmm_xmmm128b64, w, &[ra, rb]),
            (Bin::MinU, 8) if w == View::Z => self.vec_op(EVEX_Vpminuq_xmm_k1z_xmm_xmmm128b64, w, &[ra, rb]),
            (Bin::MaxU, 8) if w == View::Z => self.vec_op(EVEX_Vpmaxuq_xmm_k1z_xmm_xmmm128b64, w, &[ra, rb]),
            (Bin::MinS | Bin::MaxS | Bin::MinU | Bin::MaxU | Bin::Min | Bin::Max, 8) => {
                let cmp = if matches!(op, Bin::MinU | Bin::MaxU) { Cmp::GtU } else { Cmp::Gt };
                let greater = self.cmp_of(cmp, elem, w, a, b);
                let (yes, no) = if matches!(op, Bin::MinS | Bin::MinU | Bin::Min) { (rb, ra) } else { (ra, rb) };
                self.vec_op(VEX_Vblendvpd_xmm_xmm_xmmm128_xmm, w, &[no, yes, Arg::Use(greater, w)])
            }
            (Bin::Shl | Bin::ShrS | Bin::ShrU, n) => self.shift(op, n, w, a, b),
            _ => return Err(format!("{op:?} of {ty:?} in {}", self.func.name)),
        })
    }

    /// A shift of lanes of `n` bytes by one count below their width.
    pub fn shift_by(&mut self, op: Bin, n: usize, w: View, a: V, count: u8) -> V {
        let shift = |op: Bin, n: usize| match (op, n) {
            (Bin::Shl, 2) => VEX_Vpsllw_xmm_xmm_imm8,
            (Bin::Shl, 4) => VEX_Vpslld_xmm_xmm_imm8,
            (Bin::Shl, _) => VEX_Vpsllq_xmm_xmm_imm8,
            (Bin::ShrS, 2) => VEX_Vpsraw_xmm_xmm_imm8,
            (Bin::ShrS, _) => VEX_Vpsrad_xmm_xmm_imm8,
            (_, 2) => VEX_Vpsrlw_xmm_xmm_imm8,
            (_, 4) => VEX_Vpsrld_xmm_xmm_imm8,
            (..) => VEX_Vpsrlq_xmm_xmm_imm8,
        };
        let elem = if n == 1 { Elem::I8 } else { Elem::I64 };
        match (op, n) {
            _ if count == 0 => a,
            (Bin::ShrS, 1 | 8) => {
                let bits = n as u32 * 8;
                let shifted = self.shift_by(Bin::ShrU, n, w, a, count);
                let sign = self.splat_in_memory(elem, w, (1u64 << (bits - 1)) >> count);
                let flipped = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, shifted, sign);
                self.op2(int_code(Bin::Sub, n).expect("every width"), w, flipped, sign)
            }
            (_, 1) => {
                let shifted = self.vec_op(shift(op, 2), w, &[Arg::Use(a, w), imm8(count)]);
                let kept = if op == Bin::Shl { 0xFFu64 << count & 0xFF } else { 0xFF >> count };
                let kept = self.splat_in_memory(Elem::I8, w, kept);
                self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, shifted, kept)
            }
            _ => self.vec_op(shift(op, n), w, &[Arg::Use(a, w), imm8(count)]),
        }
    }

    /// A shift of lanes of `n` bytes by a count each.
    fn shift(&mut self, op: Bin, n: usize, w: View, a: V, count: V) -> V {
        let elem = [Elem::I8, Elem::I16, Elem::I32, Elem::I64][n.ilog2() as usize];
        let wide = [Elem::I16, Elem::I32, Elem::I64, Elem::I64][n.ilog2() as usize];
        let bits = n as u8 * 8;
        if n < 4 {
            // Even lanes and odd lanes, each in lanes of twice the width.
            let low = self.splat_in_memory(wide, w, (1 << bits) - 1);
            let below = self.splat_in_memory(wide, w, u64::from(bits) - 1);
            let even = match op {
                Bin::Shl => a,
                Bin::ShrU => self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, a, low),
                _ => {
                    let up = self.shift_by(Bin::Shl, 2 * n, w, a, bits);
                    self.shift_by(Bin::ShrS, 2 * n, w, up, bits)
                }
            };
            let odd = self.shift_by(if op == Bin::ShrS { Bin::ShrS } else { Bin::ShrU }, 2 * n, w, a, bits);
            let even_count = self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, count, below);
            let odd_count = self.shift_by(Bin::ShrU, 2 * n, w, count, bits);
            let odd_count = self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, odd_count, below);
            let even = self.shift(op, 2 * n, w, even, even_count);
            let odd = self.shift(op, 2 * n, w, odd, odd_count);
            let even = self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, even, low);
            let odd = self.shift_by(Bin::Shl, 2 * n, w, odd, bits);
            return self.op2(VEX_Vpor_xmm_xmm_xmmm128, w, even, Arg::Use(odd, w));
        }
        let below = self.splat_in_memory(elem, w, u64::from(bits) - 1);
        let count = Arg::Use(self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, count, below), w);
        let code = match (op, n) {
            (Bin::Shl, 4) => VEX_Vpsllvd_xmm_xmm_xmmm128,
            (Bin::Shl, _) => VEX_Vpsllvq_xmm_xmm_xmmm128,
            (Bin::ShrU, 4) => VEX_Vpsrlvd_xmm_xmm_xmmm128,
            (Bin::ShrS, 4) => VEX_Vpsravd_xmm_xmm_xmmm128,
            (Bin::ShrU, _) => VEX_Vpsrlvq_xmm_xmm_xmmm128,
            (..) => {
                let shifted = self.op2(VEX_Vpsrlvq_xmm_xmm_xmmm128, w, a, count);
                let sign = self.make_splat(Elem::I64, w, 1 << 63);
                let sign = Arg::Use(self.op2(VEX_Vpsrlvq_xmm_xmm_xmmm128, w, sign, count), w);
                let flipped = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, shifted, sign);
                return self.op2(VEX_Vpsubq_xmm_xmm_xmmm128, w, flipped, sign);
            }
        };
        self.op2(code, w, a, count)
    }

    fn make_splat(&mut self, elem: Elem, w: View, bits: u64) -> V {
        self.make_constant(Ty::vector(elem, (w.bytes() / elem.bytes()) as u8), bits)
    }

    /// a·b + c in the form that overwrites an operand that is not needed any more and reads another from memory.
    pub fn fma(&mut self, ty: Ty, a: Val, b: Val, c: Val, p: usize) -> Result<V, String> {
        if !ty.elem.is_float() {
            return Err(format!("a fused multiply-add of {ty:?} in {}", self.func.name));
        }
        let w = self.width(ty);
        let f32s = ty.elem == Elem::F32;
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        // From here on a is the one that is rather in a register.
        let over = |l: &Self, v: Val| l.dies(v) && !l.in_memory(v);
        if over(self, c) || !over(self, a) && (self.in_memory(b) || !over(self, b)) && !self.in_memory(c) {
            let y = self.rm_broadcast(b, p);
            let (acc, r) = (self.reg(c, p), self.reg(a, p));
            return Ok(self.in_place(pick(f32s, ty, VFMADD231), w, acc, &[Arg::Use(r, w), y]));
        }
        // One factor is overwritten; the other and c remain, and one of those may be in memory.
        let (over, other) =
            if over(self, a) || !over(self, b) && !self.constant(b).is_some_and(|_| self.in_memory(b)) { (a, b) } else { (b, a) };
        if self.in_memory(other) && !self.in_memory(c) {
            let y = self.rm_broadcast(other, p);
            let (d, r) = (self.reg(over, p), self.reg(c, p));
            return Ok(self.in_place(pick(f32s, ty, VFMADD132), w, d, &[Arg::Use(r, w), y]));
        }
        let y = self.rm_broadcast(c, p);
        let (d, r) = (self.reg(over, p), self.reg(other, p));
        Ok(self.in_place(pick(f32s, ty, VFMADD213), w, d, &[Arg::Use(r, w), y]))
    }

    /// The predicate of an instruction that compares floats.
    pub fn float_predicate(op: Cmp) -> u8 {
        match op {
            Cmp::Eq => 0,
            Cmp::Ne => 4,
            Cmp::Lt | Cmp::LtU => 0x11,
            Cmp::Le | Cmp::LeU => 0x12,
            Cmp::Gt | Cmp::GtU => 0x1E,
            Cmp::Ge | Cmp::GeU => 0x1D,
        }
    }

    /// A mask from floats.
    pub fn float_cmp(&mut self, op: Cmp, ty: Ty, a: Val, b: Val, p: usize) -> V {
        let predicate = Self::float_predicate(op);
        let w = self.width(ty);
        let y = self.rm(b, p);
        let r = self.reg(a, p);
        self.vec_op(pick(ty.elem == Elem::F32, ty, VCMP), w, &[Arg::Use(r, w), y, imm8(predicate)])
    }

    fn vec_cmp(&mut self, op: Cmp, ty: Ty, a: Val, b: Val, p: usize) -> V {
        let (ra, rb) = (self.reg(a, p), self.reg(b, p));
        self.cmp_of(op, ty.elem, self.width(ty), ra, rb)
    }

    fn cmp_of(&mut self, op: Cmp, elem: Elem, w: View, a: V, b: V) -> V {
        let n = elem.bytes();
        let at = n.ilog2() as usize;
        let equal =
            [VEX_Vpcmpeqb_xmm_xmm_xmmm128, VEX_Vpcmpeqw_xmm_xmm_xmmm128, VEX_Vpcmpeqd_xmm_xmm_xmmm128, VEX_Vpcmpeqq_xmm_xmm_xmmm128][at];
        let greater =
            [VEX_Vpcmpgtb_xmm_xmm_xmmm128, VEX_Vpcmpgtw_xmm_xmm_xmmm128, VEX_Vpcmpgtd_xmm_xmm_xmmm128, VEX_Vpcmpgtq_xmm_xmm_xmmm128][at];
        let (ra, rb) = (Arg::Use(a, w), Arg::Use(b, w));
        match op {
            Cmp::Eq => self.op2(equal, w, a, rb),
            Cmp::Gt => self.op2(greater, w, a, rb),
            Cmp::Lt => self.op2(greater, w, b, ra),
            Cmp::Ne | Cmp::Le | Cmp::Ge => {
                let opposite = match op {
                    Cmp::Ne => Cmp::Eq,
                    Cmp::Le => Cmp::Gt,
                    _ => Cmp::Lt,
                };
                let r = self.cmp_of(opposite, elem, w, a, b);
                self.not(w, r)
            }
            _ if n == 8 => {
                let sign = self.splat_in_memory(Elem::I64, w, 1 << 63);
                let flipped_a = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, a, sign);
                let flipped_b = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, b, sign);
                let signed = match op {
                    Cmp::LtU => Cmp::Lt,
                    Cmp::LeU => Cmp::Le,
                    Cmp::GtU => Cmp::Gt,
                    _ => Cmp::Ge,
                };
                self.cmp_of(signed, elem, w, flipped_a, flipped_b)
            }
            Cmp::GeU | Cmp::LeU => {
                let extreme = int_code(if op == Cmp::GeU { Bin::MaxU } else { Bin::MinU }, n).expect("up to 32 bits");
                let r = self.op2(extreme, w, a, rb);
                self.op2(equal, w, r, ra)
            }
            Cmp::LtU | Cmp::GtU => {
                let r = self.cmp_of(if op == Cmp::LtU { Cmp::GeU } else { Cmp::LeU }, elem, w, a, b);
                self.not(w, r)
            }
        }
    }

    fn vec_select(&mut self, mask: Val, a: Val, b: Val, p: usize) -> V {
        let ty = self.ty(a);
        let w = self.width(ty);
        let mut m = self.reg(mask, p);
        if m.class() == RegClass::Vector {
            return self.select_by_mask(m, ty, a, b);
        }
        if m.class() == RegClass::Int {
            m = self.vec_op(VEX_Vmovq_xmm_rm64, View::X, &[Arg::Use(m, View::Q)]);
        }
        if self.constant(b) == Some(0) {
            let r = self.reg(a, p);
            return self.op2(VEX_Vandps_xmm_xmm_xmmm128, w, m, Arg::Use(r, w));
        }
        if self.constant(a) == Some(0) {
            let r = self.reg(b, p);
            return self.op2(VEX_Vandnps_xmm_xmm_xmmm128, w, m, Arg::Use(r, w));
        }
        let code = match ty.elem.bytes() {
            4 => VEX_Vblendvps_xmm_xmm_xmmm128_xmm,
            8 => VEX_Vblendvpd_xmm_xmm_xmmm128_xmm,
            _ => VEX_Vpblendvb_xmm_xmm_xmmm128_xmm,
        };
        // A scalar in memory is too narrow for the instruction.
        let yes = if ty.is_vector() { self.rm(a, p) } else { Arg::Use(self.reg(a, p), w) };
        let no = self.reg(b, p);
        self.vec_op(code, w, &[Arg::Use(no, w), yes, Arg::Use(m, w)])
    }
}

/// Scalar and packed forms, F32 and F64.
type Forms = [Code; 4];
const VFMADD231: Forms =
    [VEX_Vfmadd231ss_xmm_xmm_xmmm32, VEX_Vfmadd231sd_xmm_xmm_xmmm64, VEX_Vfmadd231ps_xmm_xmm_xmmm128, VEX_Vfmadd231pd_xmm_xmm_xmmm128];
const VFMADD213: Forms =
    [VEX_Vfmadd213ss_xmm_xmm_xmmm32, VEX_Vfmadd213sd_xmm_xmm_xmmm64, VEX_Vfmadd213ps_xmm_xmm_xmmm128, VEX_Vfmadd213pd_xmm_xmm_xmmm128];
const VFMADD132: Forms =
    [VEX_Vfmadd132ss_xmm_xmm_xmmm32, VEX_Vfmadd132sd_xmm_xmm_xmmm64, VEX_Vfmadd132ps_xmm_xmm_xmmm128, VEX_Vfmadd132pd_xmm_xmm_xmmm128];
const VSQRT: Forms = [VEX_Vsqrtss_xmm_xmm_xmmm32, VEX_Vsqrtsd_xmm_xmm_xmmm64, VEX_Vsqrtps_xmm_xmmm128, VEX_Vsqrtpd_xmm_xmmm128];
const VROUND: Forms =
    [VEX_Vroundss_xmm_xmm_xmmm32_imm8, VEX_Vroundsd_xmm_xmm_xmmm64_imm8, VEX_Vroundps_xmm_xmmm128_imm8, VEX_Vroundpd_xmm_xmmm128_imm8];
const VCMP: Forms =
    [VEX_Vcmpss_xmm_xmm_xmmm32_imm8, VEX_Vcmpsd_xmm_xmm_xmmm64_imm8, VEX_Vcmpps_xmm_xmm_xmmm128_imm8, VEX_Vcmppd_xmm_xmm_xmmm128_imm8];

fn pick(f32s: bool, ty: Ty, forms: Forms) -> Code {
    forms[usize::from(!f32s) + if ty.is_vector() { 2 } else { 0 }]
}

/// The instruction of an operation, where there is one, and whether its operands may be swapped.
fn direct(op: Bin, ty: Ty) -> Option<(Code, bool)> {
    if ty.elem.is_float() {
        if let Some(code) = float_code(op, ty) {
            return Some((code, matches!(op, Bin::Add | Bin::Mul)));
        }
        let bitwise = matches!(op, Bin::And | Bin::Or | Bin::Xor);
        return bitwise.then(|| (int_code(op, 1).expect("bitwise"), ty.is_vector()));
    }
    let code = int_code(op, ty.elem.bytes())?;
    Some((code, op != Bin::Sub))
}

/// The 128-bit instruction of integers of `n` bytes.
fn int_code(op: Bin, n: usize) -> Option<Code> {
    let row = match op {
        Bin::Add => [VEX_Vpaddb_xmm_xmm_xmmm128, VEX_Vpaddw_xmm_xmm_xmmm128, VEX_Vpaddd_xmm_xmm_xmmm128, VEX_Vpaddq_xmm_xmm_xmmm128],
        Bin::Sub => [VEX_Vpsubb_xmm_xmm_xmmm128, VEX_Vpsubw_xmm_xmm_xmmm128, VEX_Vpsubd_xmm_xmm_xmmm128, VEX_Vpsubq_xmm_xmm_xmmm128],
        Bin::Mul => [INVALID, VEX_Vpmullw_xmm_xmm_xmmm128, VEX_Vpmulld_xmm_xmm_xmmm128, INVALID],
        Bin::MinS | Bin::Min => [VEX_Vpminsb_xmm_xmm_xmmm128, VEX_Vpminsw_xmm_xmm_xmmm128, VEX_Vpminsd_xmm_xmm_xmmm128, INVALID],
        Bin::MaxS | Bin::Max => [VEX_Vpmaxsb_xmm_xmm_xmmm128, VEX_Vpmaxsw_xmm_xmm_xmmm128, VEX_Vpmaxsd_xmm_xmm_xmmm128, INVALID],
        Bin::MinU => [VEX_Vpminub_xmm_xmm_xmmm128, VEX_Vpminuw_xmm_xmm_xmmm128, VEX_Vpminud_xmm_xmm_xmmm128, INVALID],
        Bin::MaxU => [VEX_Vpmaxub_xmm_xmm_xmmm128, VEX_Vpmaxuw_xmm_xmm_xmmm128, VEX_Vpmaxud_xmm_xmm_xmmm128, INVALID],
        Bin::And => [VEX_Vpand_xmm_xmm_xmmm128; 4],
        Bin::Or => [VEX_Vpor_xmm_xmm_xmmm128; 4],
        Bin::Xor => [VEX_Vpxor_xmm_xmm_xmmm128; 4],
        _ => return None,
    };
    Some(row[n.ilog2() as usize]).filter(|&c| c != INVALID)
}
