//! Operations on vectors, and on scalar floats, which are the low lane of one. Vectors of more than 32 bytes are several registers.

use super::lower::{Compare, Lower, sized};
use super::mach::{Arg, V, View, cc, imm8, x};
use super::scalar::float_code;
use dnnc_kir::{Bin, Cmp, Elem, Fold, Op, Ty, Un, Val};
use iced_x86::Code::{self, *};
use iced_x86::OpKind;
use regalloc2::RegClass;

impl Lower<'_> {
    /// Whether an operation works in vector registers.
    pub fn in_vectors(&self, v: Val, op: &Op) -> bool {
        let ty = self.ty(v);
        match op {
            Op::Extract(..) | Op::Half(..) | Op::Reduce(..) | Op::Any(_) | Op::Dot2(..) | Op::Dot4(..) => true,
            Op::Un(..) | Op::Bin(..) | Op::Fma(..) | Op::Select(..) => ty.is_vector() || ty.elem.is_float(),
            _ => ty.is_vector(),
        }
    }

    /// An operation in vector registers; gives the registers of the result.
    pub fn vector(&mut self, v: Val, op: &Op) -> Result<Vec<V>, String> {
        let ty = self.ty(v);
        let parts = Self::parts_of(ty);
        let w = Self::width(ty);
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
            Op::Dot4(acc, a, b) => (0..parts).map(|p| self.dot4(ty, acc, a, b, p)).collect(),
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
        self.vec_op(sized(code, w), w, &[Arg::Use(a, w), b])
    }

    /// A constant in every lane of `elem`, as an operand.
    pub fn splat_in_memory(&mut self, elem: Elem, w: View, bits: u64) -> Arg {
        Arg::Mem(self.constant_in_memory(Ty::vector(elem, (w.bytes() / elem.bytes()) as u8), bits))
    }

    fn not(&mut self, w: View, a: V) -> V {
        let ones = self.splat_in_memory(Elem::I64, w, u64::MAX);
        self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, a, ones)
    }

    fn vec_un(&mut self, op: Un, ty: Ty, a: Val, p: usize) -> Result<V, String> {
        let (elem, w) = (ty.elem, Self::width(ty));
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
            (Un::Abs, 8) => {
                let zero = self.zero();
                let sign = self.op2(VEX_Vpcmpgtq_xmm_xmm_xmmm128, w, zero, Arg::Use(r, w));
                let flipped = self.op2(VEX_Vpxor_xmm_xmm_xmmm128, w, r, Arg::Use(sign, w));
                Ok(self.op2(VEX_Vpsubq_xmm_xmm_xmmm128, w, flipped, Arg::Use(sign, w)))
            }
            (Un::Abs, n) => {
                let code = [VEX_Vpabsb_xmm_xmmm128, VEX_Vpabsw_xmm_xmmm128, VEX_Vpabsd_xmm_xmmm128][n.ilog2() as usize];
                Ok(self.vec_op(sized(code, w), w, &[Arg::Use(r, w)]))
            }
            _ => Err(format!("{op:?} of integers")),
        }
    }

    fn vec_bin(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Result<Vec<V>, String> {
        let w = Self::width(ty);
        if matches!(op, Bin::DivS | Bin::DivU | Bin::RemS | Bin::RemU) {
            return self.lane_by_lane(ty, &[a, b], |l| Op::Bin(op, l[0], l[1]));
        }
        let shift = matches!(op, Bin::Shl | Bin::ShrS | Bin::ShrU);
        (0..Self::parts_of(ty))
            .map(|p| {
                if let (true, Some(count)) = (shift, self.constant(b)) {
                    let r = self.reg(a, p);
                    return Ok(self.shift_by(op, ty.elem.bytes(), w, r, (count % (ty.elem.bytes() as u64 * 8)) as u8));
                }
                if let Some((code, commutes)) = direct(op, ty).filter(|_| ty.is_vector() || float_code(op, ty).is_some()) {
                    let swap = commutes && self.in_memory(a) && !self.in_memory(b);
                    let (a, b) = if swap { (b, a) } else { (a, b) };
                    let y = self.rm(b, p);
                    let r = self.reg(a, p);
                    return Ok(self.vec_op(code, w, &[Arg::Use(r, w), y]));
                }
                let (r, y) = (self.reg(a, p), self.reg(b, p));
                self.bin_of(op, ty, r, y)
            })
            .collect()
    }

    /// An operation of two registers, composed where the machine has no instruction.
    fn bin_of(&mut self, op: Bin, ty: Ty, a: V, b: V) -> Result<V, String> {
        let (elem, w) = (ty.elem, Self::width(ty));
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
            (Bin::Mul, 8) => {
                let low = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, a, rb);
                let (high_a, high_b) = (self.shift_by(Bin::ShrU, 8, w, a, 32), self.shift_by(Bin::ShrU, 8, w, b, 32));
                let cross = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, high_a, rb);
                let other = self.op2(VEX_Vpmuludq_xmm_xmm_xmmm128, w, high_b, ra);
                let cross = self.op2(VEX_Vpaddq_xmm_xmm_xmmm128, w, cross, Arg::Use(other, w));
                let cross = self.shift_by(Bin::Shl, 8, w, cross, 32);
                self.op2(VEX_Vpaddq_xmm_xmm_xmmm128, w, low, Arg::Use(cross, w))
            }
            (Bin::MinS | Bin::MaxS | Bin::MinU | Bin::MaxU | Bin::Min | Bin::Max, 8) => {
                let cmp = if matches!(op, Bin::MinU | Bin::MaxU) { Cmp::GtU } else { Cmp::Gt };
                let greater = self.cmp_of(cmp, elem, w, a, b);
                let (yes, no) = if matches!(op, Bin::MinS | Bin::MinU | Bin::Min) { (rb, ra) } else { (ra, rb) };
                self.vec_op(sized(VEX_Vblendvpd_xmm_xmm_xmmm128_xmm, w), w, &[no, yes, Arg::Use(greater, w)])
            }
            (Bin::Shl | Bin::ShrS | Bin::ShrU, n) => self.shift(op, n, w, a, b),
            _ => return Err(format!("{op:?} of {ty:?} in {}", self.func.name)),
        })
    }

    /// A shift of lanes of `n` bytes by one count below their width.
    fn shift_by(&mut self, op: Bin, n: usize, w: View, a: V, count: u8) -> V {
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
                let shifted = self.vec_op(sized(shift(op, 2), w), w, &[Arg::Use(a, w), imm8(count)]);
                let kept = if op == Bin::Shl { 0xFFu64 << count & 0xFF } else { 0xFF >> count };
                let kept = self.splat_in_memory(Elem::I8, w, kept);
                self.op2(VEX_Vpand_xmm_xmm_xmmm128, w, shifted, kept)
            }
            _ => self.vec_op(sized(shift(op, n), w), w, &[Arg::Use(a, w), imm8(count)]),
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
        let w = Self::width(ty);
        let f32s = ty.elem == Elem::F32;
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        // From here on a is the one that is rather in a register.
        let over = |l: &Self, v: Val| l.dies(v) && !l.in_memory(v);
        if over(self, c) || !over(self, a) && (self.in_memory(b) || !over(self, b)) && !self.in_memory(c) {
            let y = self.rm(b, p);
            let (acc, r) = (self.reg(c, p), self.reg(a, p));
            return Ok(self.in_place(pick(f32s, ty, VFMADD231), w, acc, &[Arg::Use(r, w), y]));
        }
        // One factor is overwritten; the other and c remain, and one of those may be in memory.
        let (over, other) =
            if over(self, a) || !over(self, b) && !self.constant(b).is_some_and(|_| self.in_memory(b)) { (a, b) } else { (b, a) };
        if self.in_memory(other) && !self.in_memory(c) {
            let y = self.rm(other, p);
            let (d, r) = (self.reg(over, p), self.reg(c, p));
            return Ok(self.in_place(pick(f32s, ty, VFMADD132), w, d, &[Arg::Use(r, w), y]));
        }
        let y = self.rm(c, p);
        let (d, r) = (self.reg(over, p), self.reg(other, p));
        Ok(self.in_place(pick(f32s, ty, VFMADD213), w, d, &[Arg::Use(r, w), y]))
    }

    /// A mask from floats.
    pub fn float_cmp(&mut self, op: Cmp, ty: Ty, a: Val, b: Val, p: usize) -> V {
        let predicate = match op {
            Cmp::Eq => 0,
            Cmp::Ne => 4,
            Cmp::Lt | Cmp::LtU => 0x11,
            Cmp::Le | Cmp::LeU => 0x12,
            Cmp::Gt | Cmp::GtU => 0x1E,
            Cmp::Ge | Cmp::GeU => 0x1D,
        };
        let w = Self::width(ty);
        let y = self.rm(b, p);
        let r = self.reg(a, p);
        self.vec_op(pick(ty.elem == Elem::F32, ty, VCMP), w, &[Arg::Use(r, w), y, imm8(predicate)])
    }

    fn vec_cmp(&mut self, op: Cmp, ty: Ty, a: Val, b: Val, p: usize) -> V {
        let (ra, rb) = (self.reg(a, p), self.reg(b, p));
        self.cmp_of(op, ty.elem, Self::width(ty), ra, rb)
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
        let w = Self::width(ty);
        let mut m = self.reg(mask, p);
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
        self.vec_op(sized(code, w), w, &[Arg::Use(no, w), yes, Arg::Use(m, w)])
    }

    // Lanes

    /// A scalar in every lane.
    fn splat(&mut self, elem: Elem, w: View, a: Val) -> V {
        let r = self.reg(a, 0);
        let low = match (r.class(), elem.bytes()) {
            (RegClass::Int, 8) => self.vec_op(VEX_Vmovq_xmm_rm64, View::X, &[Arg::Use(r, View::Q)]),
            (RegClass::Int, _) => self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[Arg::Use(r, View::D)]),
            _ => r,
        };
        self.broadcast(low, elem.bytes(), w)
    }

    /// The low `n` bytes of a register again and again.
    pub fn broadcast(&mut self, low: V, n: usize, w: View) -> V {
        let code = match n {
            1 => VEX_Vpbroadcastb_xmm_xmmm8,
            2 => VEX_Vpbroadcastw_xmm_xmmm16,
            4 => VEX_Vbroadcastss_xmm_xmm,
            8 if w == View::X => return self.vec_op(VEX_Vmovddup_xmm_xmmm64, w, &[x(low)]),
            8 => return self.vec_op(VEX_Vbroadcastsd_ymm_xmm, w, &[x(low)]),
            _ if w == View::X => return low,
            _ => return self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, w, &[Arg::Use(low, w), x(low), imm8(1)]),
        };
        self.vec_op(sized(code, w), w, &[x(low)])
    }

    /// Bytes from `at` on as the low ones of a 16-byte register; what is above them is undefined.
    pub fn slice(&mut self, v: V, at: usize) -> V {
        match at {
            0 => v,
            16.. => {
                let high = self.vec_op(VEX_Vextracti128_xmmm128_ymm_imm8, View::X, &[Arg::Use(v, View::Y), imm8(1)]);
                self.slice(high, at - 16)
            }
            8 => self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::X, &[x(v), imm8(0xEE)]),
            4 => self.vec_op(VEX_Vmovshdup_xmm_xmmm128, View::X, &[x(v)]),
            12 => self.vec_op(VEX_Vpshufd_xmm_xmmm128_imm8, View::X, &[x(v), imm8(0xFF)]),
            _ => self.vec_op(VEX_Vpsrldq_xmm_xmm_imm8, View::X, &[x(v), imm8(at as u8)]),
        }
    }

    /// A lane of a register as a scalar.
    fn lane(&mut self, elem: Elem, v: V, lane: usize) -> V {
        let n = elem.bytes();
        if elem.is_float() {
            return self.slice(v, lane * n);
        }
        let at = lane * n;
        let (v, lane) = if at >= 16 { (self.slice(v, 16), (at - 16) / n) } else { (v, lane) };
        let view = if n == 8 { View::Q } else { View::D };
        let r = match (n, lane) {
            (8, 0) => self.int_op(VEX_Vmovq_rm64_xmm, view, &[x(v)]),
            (4, 0) => self.int_op(VEX_Vmovd_rm32_xmm, view, &[x(v)]),
            (8, _) => self.int_op(VEX_Vpextrq_rm64_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (4, _) => self.int_op(VEX_Vpextrd_rm32_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (2, _) => self.int_op(VEX_Vpextrw_r32_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
            (..) => self.int_op(VEX_Vpextrb_r32m8_xmm_imm8, view, &[x(v), imm8(lane as u8)]),
        };
        if !elem.is_mask() || n == 8 {
            return r;
        }
        let (code, view) = match n {
            1 => (Movsx_r64_rm8, View::B),
            2 => (Movsx_r64_rm16, View::W),
            _ => (Movsxd_r64_rm32, View::D),
        };
        self.int_op(code, View::Q, &[Arg::Use(r, view)])
    }

    fn extract(&mut self, a: Val, lane: usize) -> V {
        let ty = self.ty(a);
        if !ty.is_vector() {
            return self.reg(a, 0);
        }
        let each = ty.lanes as usize / Self::parts_of(ty);
        let r = self.reg(a, lane / each);
        self.lane(ty.elem, r, lane % each)
    }

    fn insert(&mut self, a: Val, value: Val, lane: usize) -> Vec<V> {
        let ty = self.ty(a);
        let each = ty.lanes as usize / Self::parts_of(ty);
        let mut registers = self.regs(a);
        let (part, lane) = (lane / each, lane % each);
        let (w, n) = (Self::width(ty), ty.elem.bytes());
        let r = registers[part];
        registers[part] = if w == View::X {
            let value = if ty.elem.is_float() { self.reg(value, 0) } else { self.int(value) };
            self.insert_low(ty.elem, r, value, lane)
        } else if n >= 4 {
            let all = self.splat(ty.elem, w, value);
            let mask = if n == 4 { 1 << lane } else { 3 << (2 * lane) };
            self.vec_op(VEX_Vpblendd_ymm_ymm_ymmm256_imm8, w, &[Arg::Use(r, w), Arg::Use(all, w), imm8(mask)])
        } else {
            let value = self.int(value);
            let half = self.slice(r, lane * n / 16 * 16);
            let half = self.insert_low(ty.elem, half, value, lane % (16 / n));
            let upper = lane * n >= 16;
            if upper {
                self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, w, &[Arg::Use(r, w), x(half), imm8(1)])
            } else {
                self.vec_op(VEX_Vpblendd_ymm_ymm_ymmm256_imm8, w, &[Arg::Use(r, w), Arg::Use(half, w), imm8(0x0F)])
            }
        };
        registers
    }

    /// Puts a scalar into a lane of a 16-byte register.
    fn insert_low(&mut self, elem: Elem, r: V, value: V, lane: usize) -> V {
        let at = imm8(lane as u8);
        let (code, arg, imm) = match (elem, elem.bytes()) {
            (Elem::F32, _) => (VEX_Vinsertps_xmm_xmm_xmmm32_imm8, x(value), imm8((lane as u8) << 4)),
            (Elem::F64, _) => {
                let code = if lane == 0 { VEX_Vmovsd_xmm_xmm_xmm } else { VEX_Vmovlhps_xmm_xmm_xmm };
                return self.vec_op(code, View::X, &[x(r), x(value)]);
            }
            (_, 1) => (VEX_Vpinsrb_xmm_xmm_r32m8_imm8, Arg::Use(value, View::D), at),
            (_, 2) => (VEX_Vpinsrw_xmm_xmm_r32m16_imm8, Arg::Use(value, View::D), at),
            (_, 4) => (VEX_Vpinsrd_xmm_xmm_rm32_imm8, Arg::Use(value, View::D), at),
            (..) => (VEX_Vpinsrq_xmm_xmm_rm64_imm8, Arg::Use(value, View::Q), at),
        };
        self.vec_op(code, View::X, &[x(r), arg, imm])
    }

    fn half(&mut self, a: Val, upper: bool) -> Vec<V> {
        let ty = self.ty(a);
        let half = ty.bytes() / 2;
        if half >= 32 {
            let registers = self.regs(a);
            return registers[registers.len() / 2 * usize::from(upper)..][..registers.len() / 2].to_vec();
        }
        let r = self.reg(a, 0);
        if ty.lanes == 2 {
            return vec![self.lane(ty.elem, r, usize::from(upper))];
        }
        vec![if upper { self.slice(r, half) } else { r }]
    }

    fn join(&mut self, a: Val, b: Val) -> Vec<V> {
        let ty = self.ty(a);
        if ty.bytes() >= 32 {
            let mut registers = self.regs(a);
            registers.extend(self.regs(b));
            return registers;
        }
        if ty.is_vector() || ty.elem.is_float() {
            let (r, s) = (self.reg(a, 0), self.reg(b, 0));
            return vec![self.join_low(r, s, ty.bytes())];
        }
        let (r, s) = (self.int(a), self.int(b));
        let (code, view) = if ty.elem.bytes() == 8 { (VEX_Vmovq_xmm_rm64, View::Q) } else { (VEX_Vmovd_xmm_rm32, View::D) };
        let low = self.vec_op(code, View::X, &[Arg::Use(r, view)]);
        vec![self.insert_low(ty.elem.int(), low, s, 1)]
    }

    /// The low `n` bytes of two registers side by side.
    pub fn join_low(&mut self, a: V, b: V, n: usize) -> V {
        let code = match n {
            16 => return self.vec_op(VEX_Vinserti128_ymm_ymm_xmmm128_imm8, View::Y, &[Arg::Use(a, View::Y), x(b), imm8(1)]),
            8 => VEX_Vpunpcklqdq_xmm_xmm_xmmm128,
            4 => VEX_Vpunpckldq_xmm_xmm_xmmm128,
            2 => VEX_Vpunpcklwd_xmm_xmm_xmmm128,
            _ => VEX_Vpunpcklbw_xmm_xmm_xmmm128,
        };
        self.vec_op(code, View::X, &[x(a), x(b)])
    }

    /// Pieces of `each` bytes joined to registers of a value of `total` bytes.
    pub fn assemble(&mut self, mut pieces: Vec<V>, mut each: usize, total: usize) -> Vec<V> {
        while each < 32.min(total) && pieces.len() > 1 {
            pieces = pieces.chunks(2).map(|pair| self.join_low(pair[0], pair[1], each)).collect();
            each *= 2;
        }
        pieces
    }

    fn reduce(&mut self, fold: Fold, a: Val) -> Result<V, String> {
        let ty = self.ty(a);
        if !ty.is_vector() {
            return Ok(self.reg(a, 0));
        }
        let op = match fold {
            Fold::Add => Bin::Add,
            Fold::Min => Bin::Min,
            Fold::Max => Bin::Max,
        };
        let op = match op {
            Bin::Min if !ty.elem.is_float() => Bin::MinS,
            Bin::Max if !ty.elem.is_float() => Bin::MaxS,
            op => op,
        };
        let n = ty.elem.bytes();
        let mut registers = self.regs(a);
        let whole = Ty::vector(ty.elem, (32 / n) as u8);
        while registers.len() > 1 {
            let half = registers.len() / 2;
            registers = (0..half).map(|i| self.bin_of(op, whole, registers[i], registers[i + half])).collect::<Result<_, _>>()?;
        }
        let mut r = registers[0];
        let mut bytes = ty.bytes().min(32);
        let narrow = Ty::vector(ty.elem, (16 / n) as u8);
        while bytes > n {
            bytes /= 2;
            let upper = self.slice(r, bytes);
            r = self.bin_of(op, narrow, r, upper)?;
        }
        Ok(self.lane(ty.elem, r, 0))
    }

    /// The test whether a lane of a mask is set.
    pub fn any(&mut self, mask: Val) -> Compare {
        let ty = self.ty(mask);
        if !ty.is_vector() {
            return self.test(mask);
        }
        let registers = self.regs(mask);
        let w = Self::width(ty);
        let all =
            registers.into_iter().reduce(|a, b| self.op2(VEX_Vpor_xmm_xmm_xmmm128, w, a, Arg::Use(b, w))).expect("at least one register");
        let code = if w == View::Y { VEX_Vpmovmskb_r32_ymm } else { VEX_Vpmovmskb_r32_xmm };
        let bits = Arg::Use(self.int_op(code, View::D, &[Arg::Use(all, w)]), View::D);
        if ty.bytes() >= 16 {
            return Compare { code: Test_rm32_r32, args: [bits, bits], cc: cc::NE };
        }
        let valid = Arg::Imm(OpKind::Immediate32, (1 << ty.bytes()) - 1);
        Compare { code: Test_rm32_imm32, args: [bits, valid], cc: cc::NE }
    }

    // Dot products

    /// The accumulator of a dot product in a vector register.
    fn accumulator(&mut self, acc: Val, p: usize) -> V {
        let r = self.reg(acc, p);
        match r.class() {
            RegClass::Int => self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[Arg::Use(r, View::D)]),
            _ => r,
        }
    }

    fn dot_result(&mut self, ty: Ty, r: V) -> V {
        if ty.is_vector() { r } else { self.int_op(VEX_Vmovd_rm32_xmm, View::D, &[x(r)]) }
    }

    fn dot2(&mut self, ty: Ty, acc: Val, a: Val, b: Val, p: usize) -> Result<V, String> {
        let w = Self::width(ty);
        let (a, b) = if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) };
        let y = self.rm(b, p);
        let r = self.reg(a, p);
        let products = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, r, y);
        let acc = self.accumulator(acc, p);
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, acc, Arg::Use(products, w));
        Ok(self.dot_result(ty, sum))
    }

    /// Even bytes and odd bytes widened to 16 bits and multiplied: the four products of a lane stay in it.
    fn dot4(&mut self, ty: Ty, acc: Val, a: Val, b: Val, p: usize) -> Result<V, String> {
        let w = Self::width(ty);
        let (ra, rb) = (self.reg(a, p), self.reg(b, p));
        let (even_a, odd_a) = self.even_odd(w, ra);
        let (even_b, odd_b) = self.even_odd(w, rb);
        let even = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, even_a, Arg::Use(even_b, w));
        let odd = self.op2(VEX_Vpmaddwd_xmm_xmm_xmmm128, w, odd_a, Arg::Use(odd_b, w));
        let acc = self.accumulator(acc, p);
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, acc, Arg::Use(even, w));
        let sum = self.op2(VEX_Vpaddd_xmm_xmm_xmmm128, w, sum, Arg::Use(odd, w));
        Ok(self.dot_result(ty, sum))
    }

    /// The even and the odd bytes of a register as signed 16-bit lanes; remembered, as tiles ask for the same again.
    fn even_odd(&mut self, w: View, r: V) -> (V, V) {
        if let Some(&(_, even, odd)) = self.split_bytes.iter().find(|s| s.0 == r) {
            return (even, odd);
        }
        let up = self.shift_by(Bin::Shl, 2, w, r, 8);
        let even = self.shift_by(Bin::ShrS, 2, w, up, 8);
        let odd = self.shift_by(Bin::ShrS, 2, w, r, 8);
        self.split_bytes.push((r, even, odd));
        (even, odd)
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
    let code = forms[usize::from(!f32s) + if ty.is_vector() { 2 } else { 0 }];
    if ty.is_vector() { sized(code, Lower::width(ty)) } else { code }
}

/// The instruction of an operation, where there is one, and whether its operands may be swapped.
fn direct(op: Bin, ty: Ty) -> Option<(Code, bool)> {
    if ty.elem.is_float() {
        if let Some(code) = float_code(op, ty) {
            return Some((code, matches!(op, Bin::Add | Bin::Mul)));
        }
        let bitwise = matches!(op, Bin::And | Bin::Or | Bin::Xor);
        return bitwise.then(|| (sized(int_code(op, 1).expect("bitwise"), Lower::width(ty)), ty.is_vector()));
    }
    let code = int_code(op, ty.elem.bytes())?;
    Some((sized(code, Lower::width(ty)), op != Bin::Sub))
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
