//! Operations, one after another: arithmetic, comparison and selection; lanes, memory and changes of type are beside it.

use super::translator::{Translator, access, lane_type, lanes_of, part_count, part_type, value_type};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::I8;
use cranelift_codegen::ir::{InstBuilder, Value};
use dnnc_kir::{Bin, Cmp, Elem, Op, Ty, Un, Val};

impl<'a> Translator<'a> {
    pub fn op(&mut self, ty: Ty, op: &'a Op) -> Vec<Value> {
        let vector = ty.is_vector();
        match op {
            Op::Const(bits) if vector => vec![self.splat_bits(ty.elem, *bits); part_count(ty)],
            Op::Const(bits) => vec![self.scalar_bits(ty.elem, *bits)],
            Op::Un(op, a) => self.get(*a).into_iter().map(|a| self.un(*op, ty, a)).collect(),
            Op::Bin(op @ (Bin::Shl | Bin::ShrS | Bin::ShrU), a, b) if vector => self.shift_lanes(*op, ty, *a, *b),
            Op::Bin(op, a, b) if !vector && !ty.elem.is_float() => vec![self.int_bin(*op, ty, *a, *b)],
            Op::Bin(op, a, b) => self.map2(*a, *b, |t, a, b| t.bin(*op, ty, a, b)),
            Op::Fma(a, b, c) => {
                let (a, b) = if self.factors.contains_key(b) { (b, a) } else { (a, b) };
                let a = match self.factors.get(a).copied() {
                    Some((register, lane)) => {
                        vec![self.pick(ty.elem, &[register], &vec![lane; lanes_of(ty.elem)]); part_count(ty)]
                    }
                    None => self.get(*a),
                };
                let products = a.into_iter().zip(self.get(*b)).zip(self.get(*c));
                products.map(|((a, b), c)| self.fma(a, b, c)).collect()
            }
            Op::Cmp(op, a, b) => {
                let of = self.ty(*a);
                self.map2(*a, *b, |t, a, b| t.cmp(*op, of, a, b))
            }
            Op::Select(m, a, b) => {
                let arms = self.get(*m).into_iter().zip(self.get(*a)).zip(self.get(*b));
                arms.map(|((m, a), b)| self.select(ty, m, a, b)).collect()
            }
            Op::Conv(op, a) => self.conv(*op, self.ty(*a), ty, *a),
            Op::Splat(a) => vec![self.splat(ty, *a); part_count(ty)],
            Op::Extract(a, lane) => {
                let n = lanes_of(ty.elem);
                let part = self.get(*a)[*lane as usize / n];
                vec![self.extract(ty.elem, part, *lane as usize % n)]
            }
            Op::Insert(a, x, lane) => {
                let (mut parts, n) = (self.get(*a), lanes_of(ty.elem));
                let x = self.lane(ty.elem, *x);
                let part = &mut parts[*lane as usize / n];
                *part = self.b.ins().insertlane(*part, x, (*lane as usize % n) as u8);
                parts
            }
            Op::Shuffle(a, b, pick) => self.shuffle(ty, *a, *b, pick),
            Op::Half(a, upper) => self.half(ty, *a, *upper),
            Op::Join(a, b) => self.join(ty, *a, *b),
            Op::Reduce(fold, a) => vec![self.reduce(*fold, *a)],
            Op::Any(a) => vec![self.any(*a)],
            Op::Dot2(acc, a, b) => self.dot(ty, *acc, *a, *b, Self::dot2),
            Op::Dot4(acc, a, b) => self.dot(ty, *acc, *a, *b, Self::dot4),
            Op::Dot4u(acc, a, b) => self.dot(ty, *acc, *a, *b, Self::dot4u),
            Op::Offset(p, bytes) => {
                let (p, bytes) = (self.one(*p), self.one(*bytes));
                vec![self.b.ins().iadd(p, bytes)]
            }
            Op::Load(ptr, disp, count) => self.load(ty, *ptr, *disp, *count),
            Op::LoadSplat(ptr, disp) => {
                let p = self.one(*ptr);
                let x = self.b.ins().load(lane_type(ty.elem), access(), p, *disp);
                vec![if vector { self.b.ins().splat(part_type(ty.elem), x) } else { x }; part_count(ty)]
            }
        }
    }

    pub fn un(&mut self, op: Un, ty: Ty, a: Value) -> Value {
        let float = ty.elem.is_float();
        match op {
            Un::Neg if float => self.b.ins().fneg(a),
            Un::Neg => self.b.ins().ineg(a),
            Un::Abs if float => self.b.ins().fabs(a),
            Un::Abs => self.b.ins().iabs(a),
            Un::Sqrt => self.b.ins().sqrt(a),
            Un::Floor if self.features.round => self.b.ins().floor(a),
            Un::Ceil if self.features.round => self.b.ins().ceil(a),
            Un::Trunc if self.features.round => self.b.ins().trunc(a),
            Un::Nearest if self.features.round => self.b.ins().nearest(a),
            Un::Floor | Un::Ceil | Un::Trunc | Un::Nearest => self.round(op, ty, a),
            Un::Not if ty.elem.is_mask() && !ty.is_vector() => {
                let one = self.b.ins().iconst(I8, 1);
                self.b.ins().bxor(a, one)
            }
            Un::Not => self.b.ins().bnot(a),
        }
    }

    /// Rounding by arithmetic: adding and subtracting 2^23 (2^52) leaves no bit for a fraction. Larger numbers have none, and NaN stays.
    pub fn round(&mut self, op: Un, ty: Ty, x: Value) -> Value {
        let (limit, sign_bit) = if ty.elem == Elem::F64 { (2f64.powi(52), 1 << 63) } else { (2f64.powi(23), 1 << 31) };
        let (limit, one) = (self.number(ty, limit), self.number(ty, 1.0));
        let magnitude = self.b.ins().fabs(x);
        let up = self.b.ins().fadd(magnitude, limit);
        let near = self.b.ins().fsub(up, limit);
        let int = Ty { elem: ty.elem.int(), ..ty };
        let sign = self.bits(int, sign_bit);
        let bits = self.cast(value_type(int), x);
        let sign = self.b.ins().band(bits, sign);
        let signed = |t: &mut Self, y: Value| {
            let y = t.cast(value_type(int), y);
            let y = t.b.ins().bor(y, sign);
            t.cast(value_type(ty), y)
        };
        let less_one = |t: &mut Self, too_far: Value, y: Value, up: bool| {
            let next = if up { t.b.ins().fadd(y, one) } else { t.b.ins().fsub(y, one) };
            t.select(ty, too_far, next, y)
        };
        let rounded = match op {
            Un::Nearest => signed(self, near),
            Un::Trunc => {
                let too_far = self.cmp(Cmp::Gt, ty, near, magnitude);
                let y = less_one(self, too_far, near, false);
                signed(self, y)
            }
            _ => {
                let near = signed(self, near);
                let too_far = self.cmp(if op == Un::Floor { Cmp::Gt } else { Cmp::Lt }, ty, near, x);
                let y = less_one(self, too_far, near, op == Un::Ceil);
                // −0.5 rounds up to −0.
                if op == Un::Ceil { signed(self, y) } else { y }
            }
        };
        let has_fraction = self.cmp(Cmp::Lt, ty, magnitude, limit);
        self.select(ty, has_fraction, rounded, x)
    }

    pub fn bin(&mut self, op: Bin, ty: Ty, a: Value, b: Value) -> Value {
        let (float, vector) = (ty.elem.is_float(), ty.is_vector());
        let by_compare = |t: &mut Self, cmp| {
            let m = t.cmp(cmp, ty, a, b);
            t.select(ty, m, a, b)
        };
        match op {
            Bin::Min | Bin::Max if !vector && self.features.select_lanes => {
                let part = part_type(ty.elem);
                let (a, b) = (self.b.ins().scalar_to_vector(part, a), self.b.ins().scalar_to_vector(part, b));
                let lanes = Ty::vector(ty.elem, lanes_of(ty.elem) as u8);
                let y = self.bin(op, lanes, a, b);
                self.b.ins().extractlane(y, 0)
            }
            Bin::Min => by_compare(self, Cmp::Lt),
            // `b < a` rather than `a > b`: the form Cranelift knows as an instruction.
            Bin::Max => {
                let m = self.cmp(Cmp::Lt, ty, b, a);
                self.select(ty, m, a, b)
            }
            Bin::MinS if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::Lt),
            Bin::MaxS if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::Gt),
            Bin::MinU if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::LtU),
            Bin::MaxU if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::GtU),
            Bin::MinS => self.b.ins().smin(a, b),
            Bin::MaxS => self.b.ins().smax(a, b),
            Bin::MinU => self.b.ins().umin(a, b),
            Bin::MaxU => self.b.ins().umax(a, b),
            Bin::Add if float => self.b.ins().fadd(a, b),
            Bin::Sub if float => self.b.ins().fsub(a, b),
            Bin::Mul if float => self.b.ins().fmul(a, b),
            Bin::Div => self.b.ins().fdiv(a, b),
            Bin::Add => self.b.ins().iadd(a, b),
            Bin::Sub => self.b.ins().isub(a, b),
            Bin::Mul if vector && ty.elem == Elem::I8 && !self.features.byte_mul => self.byte_mul(a, b),
            Bin::Mul => self.b.ins().imul(a, b),
            Bin::DivS | Bin::DivU | Bin::RemS | Bin::RemU => self.divide(op, ty, a, b),
            Bin::And => self.b.ins().band(a, b),
            Bin::Or => self.b.ins().bor(a, b),
            Bin::Xor => self.b.ins().bxor(a, b),
            Bin::Shl => self.b.ins().ishl(a, b),
            Bin::ShrS => self.b.ins().sshr(a, b),
            Bin::ShrU => self.b.ins().ushr(a, b),
        }
    }

    pub fn byte_mul(&mut self, a: Value, b: Value) -> Value {
        let (al, bl) = (self.b.ins().uwiden_low(a), self.b.ins().uwiden_low(b));
        let (ah, bh) = (self.b.ins().uwiden_high(a), self.b.ins().uwiden_high(b));
        let (low, high) = (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh));
        self.narrow_pair(2, low, high)
    }

    /// The divisor is replaced by 1 where the quotient would trap, and the result by 0.
    pub fn divide(&mut self, op: Bin, ty: Ty, a: Value, b: Value) -> Value {
        let int = lane_type(ty.elem);
        let zero = self.b.ins().iconst(int, 0);
        let mut bad = self.b.ins().icmp(IntCC::Equal, b, zero);
        if matches!(op, Bin::DivS | Bin::RemS) {
            let ones = ty.elem.ones();
            let (least, minus) = (self.scalar_bits(ty.elem, ones ^ (ones >> 1)), self.scalar_bits(ty.elem, ones));
            let (least, minus) = (self.b.ins().icmp(IntCC::Equal, a, least), self.b.ins().icmp(IntCC::Equal, b, minus));
            let overflow = self.b.ins().band(least, minus);
            bad = self.b.ins().bor(bad, overflow);
        }
        let one = self.b.ins().iconst(int, 1);
        let b = self.b.ins().select(bad, one, b);
        let y = match op {
            Bin::DivS => self.b.ins().sdiv(a, b),
            Bin::DivU => self.b.ins().udiv(a, b),
            Bin::RemS => self.b.ins().srem(a, b),
            _ => self.b.ins().urem(a, b),
        };
        self.b.ins().select(bad, zero, y)
    }

    pub fn shift_lanes(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Vec<Value> {
        let shift = |t: &mut Self, x: Value, n: Value| match op {
            Bin::Shl => t.b.ins().ishl(x, n),
            Bin::ShrS => t.b.ins().sshr(x, n),
            _ => t.b.ins().ushr(x, n),
        };
        let by = match self.ops[b.0 as usize] {
            Some(Op::Const(bits)) => Some(self.scalar_bits(ty.elem, *bits)),
            Some(Op::Splat(n)) => Some(self.one(*n)),
            _ => None,
        };
        match by {
            Some(n) => self.get(a).into_iter().map(|x| shift(self, x, n)).collect(),
            None => self.map2(a, b, |t, a, b| {
                (0..lanes_of(ty.elem) as u8).fold(a, |made, lane| {
                    let (x, n) = (t.b.ins().extractlane(a, lane), t.b.ins().extractlane(b, lane));
                    let y = shift(t, x, n);
                    t.b.ins().insertlane(made, y, lane)
                })
            }),
        }
    }

    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.features.fma {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    pub fn cmp(&mut self, op: Cmp, ty: Ty, a: Value, b: Value) -> Value {
        if ty.elem.is_float() {
            let cc = match op {
                Cmp::Eq => FloatCC::Equal,
                Cmp::Ne => FloatCC::NotEqual,
                Cmp::Lt | Cmp::LtU => FloatCC::LessThan,
                Cmp::Le | Cmp::LeU => FloatCC::LessThanOrEqual,
                Cmp::Gt | Cmp::GtU => FloatCC::GreaterThan,
                Cmp::Ge | Cmp::GeU => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, a, b);
        }
        let cc = match op {
            Cmp::Eq => IntCC::Equal,
            Cmp::Ne => IntCC::NotEqual,
            Cmp::Lt => IntCC::SignedLessThan,
            Cmp::Le => IntCC::SignedLessThanOrEqual,
            Cmp::Gt => IntCC::SignedGreaterThan,
            Cmp::Ge => IntCC::SignedGreaterThanOrEqual,
            Cmp::LtU => IntCC::UnsignedLessThan,
            Cmp::LeU => IntCC::UnsignedLessThanOrEqual,
            Cmp::GtU => IntCC::UnsignedGreaterThan,
            Cmp::GeU => IntCC::UnsignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, a, b)
    }

    pub fn select(&mut self, ty: Ty, m: Value, a: Value, b: Value) -> Value {
        if !ty.is_vector() {
            return self.b.ins().select(m, a, b);
        }
        let m = self.cast(part_type(ty.elem), m);
        self.b.ins().bitselect(m, a, b)
    }
}
