//! Element-wise expressions: what fusion makes of trees of `Class::Elementwise` operators.

use crate::math;
use dnnc_ir::{Kind, Op, Tensor, Type, float8};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};

/// A tree (or DAG) of element-wise operators. Operands are numbered; the last node is the result.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Expr {
    /// Nodes in an order in which they can be computed.
    pub nodes: Vec<ExprNode>,
}

/// A node of an expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ExprNode {
    /// What is computed.
    pub what: What,
    /// Type of the element.
    pub ty: Type,
}

/// What a node of an expression is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// The element of operand `n`.
    Operand(usize),
    /// A constant of one element.
    Const(Tensor),
    /// An operator of `Class::Elementwise` on earlier nodes.
    Apply(Op, Vec<usize>),
}

/// An expression computed on the result of another kernel before it is stored. Operand 0 is that result; operand `i + 1` is `operands[i]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Epilogue {
    /// The expression; its result has the shape of operand 0, perhaps another element type.
    pub expr: Expr,
    /// The further operands.
    pub operands: Vec<Extra>,
}

/// A further operand of an epilogue.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extra {
    /// Element type in memory.
    pub ty: Type,
    /// How it is spread over the result.
    pub access: Access,
}

/// How an operand of an epilogue is spread over the result it is combined with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// One element for each of the result, at the same offset.
    Full,
    /// One element a channel: axis 1 of a plain convolution or pooling result; the channel `block·b + lane` of a packed one;
    /// the last axis of a matmul, norm or softmax result. Stored densely, padded to whole blocks for packed results.
    Channel,
    /// One element in all.
    Scalar,
}

impl Expr {
    /// How many elements [`Expr::emit`] can compute at once in registers of so many bits: 1 where an operator or a type has no vectors.
    pub fn lanes(&self, bits: usize) -> u8 {
        let last = self.nodes.len().saturating_sub(1);
        let double = self.nodes.iter().any(|n| n.ty == Type::F64);
        let has_vectors = self.nodes.iter().enumerate().all(|(i, n)| {
            let fits = match (double, n.ty) {
                (_, Type::I64 | Type::U64) => false,
                (true, Type::F64) | (false, _) => true,
                // Among doubles a truth value is a mask as wide as they are, which memory does not hold.
                (true, Type::Bool) => i != last && matches!(n.what, What::Apply(..)),
                (true, _) => false,
            };
            fits && match &n.what {
                What::Apply(op, args) => match op.kind() {
                    Kind::Div => n.ty.is_float(),
                    Kind::Mod => false,
                    Kind::Pow => n.ty.is_float() && self.nodes[args[1]].ty.is_float(),
                    Kind::Cast | Kind::Bitcast => !double,
                    _ => true,
                },
                _ => true,
            }
        });
        match (has_vectors, double) {
            (false, _) => 1,
            (true, true) => (bits / 64) as u8,
            (true, false) => (bits / 32) as u8,
        }
    }

    /// Type of the result.
    pub fn ty(&self) -> Type {
        self.nodes.last().expect("an expression has a node").ty
    }

    /// Computes the expression on operands in register form, `lanes` at once (at most [`Expr::lanes`]); the result is in register form,
    /// not yet rounded to a type narrower than its register, which [`store_element`] does.
    pub fn emit(&self, b: &mut Builder, lanes: u8, operands: &[Val]) -> Val {
        let mut emitter = Emitter { b, expr: self, lanes, cells: Vec::with_capacity(self.nodes.len()) };
        for (i, node) in self.nodes.iter().enumerate() {
            let cell = match &node.what {
                What::Operand(n) => Cell::value(operands[*n]),
                What::Const(tensor) => Cell::value(constant(emitter.b, lanes, tensor)),
                What::Apply(op, args) => {
                    let cell = emitter.apply(op, args, node.ty);
                    match cell.value {
                        Some(v) if i + 1 < self.nodes.len() && rounds(op.kind()) => Cell::value(round_to(emitter.b, v, node.ty)),
                        _ => cell,
                    }
                }
            };
            emitter.cells.push(cell);
        }
        emitter.value(self.nodes.len() - 1)
    }
}

impl Epilogue {
    /// Computes the epilogue on a result in register form; `load_extra` reads the lanes of a further operand (an index into
    /// [`Epilogue::operands`]) in register form.
    pub fn apply(&self, b: &mut Builder, acc: Val, load_extra: &mut dyn FnMut(&mut Builder, usize) -> Val) -> Val {
        let lanes = b.ty(acc).lanes;
        let mut operands = vec![acc];
        for i in 0..self.operands.len() {
            operands.push(load_extra(b, i));
        }
        self.expr.emit(b, lanes, &operands)
    }
}

/// A value in the course of an expression: a number in register form, a mask, or both.
#[derive(Clone, Copy)]
struct Cell {
    value: Option<Val>,
    mask: Option<Val>,
}

impl Cell {
    fn value(v: Val) -> Cell {
        Cell { value: Some(v), mask: None }
    }

    fn mask(m: Val) -> Cell {
        Cell { value: None, mask: Some(m) }
    }
}

struct Emitter<'a> {
    b: &'a mut Builder,
    expr: &'a Expr,
    lanes: u8,
    cells: Vec<Cell>,
}

impl Emitter<'_> {
    fn reg(&self, ty: Type) -> Ty {
        Ty { elem: register(ty), lanes: self.lanes }
    }

    /// Node `i` in register form.
    fn value(&mut self, i: usize) -> Val {
        if let Some(v) = self.cells[i].value {
            return v;
        }
        let mask = self.cells[i].mask.expect("a cell has one of both");
        let bits = self.b.conv(Conv::MaskToInt, mask, self.b.ty(mask).elem.int());
        let bits = resize(self.b, bits, Elem::I32, false);
        let one = self.b.int(self.b.ty(bits), 1);
        let v = self.b.bin(Bin::And, bits, one);
        self.cells[i].value = Some(v);
        v
    }

    /// Node `i`, a bool, as a mask for arms of type `elem`.
    fn mask(&mut self, i: usize, elem: Elem) -> Val {
        let want = elem.mask();
        let have = match self.cells[i].mask {
            Some(m) => m,
            None => {
                let v = self.value(i);
                let zero = self.b.int(self.b.ty(v), 0);
                let m = self.b.cmp(Cmp::Ne, v, zero);
                self.cells[i].mask = Some(m);
                m
            }
        };
        if self.b.ty(have).elem == want {
            return have;
        }
        let bits = self.b.conv(Conv::MaskToInt, have, self.b.ty(have).elem.int());
        let bits = resize(self.b, bits, want.int(), true);
        let zero = self.b.int(self.b.ty(bits), 0);
        self.b.cmp(Cmp::Ne, bits, zero)
    }

    /// The widest mask that is already there among bool nodes, or that of an I32.
    fn mask_elem(&self, nodes: &[usize]) -> Elem {
        nodes.iter().filter_map(|&i| self.cells[i].mask).map(|m| self.b.ty(m).elem).max().unwrap_or(Elem::M32)
    }

    fn masks(&mut self, args: &[usize]) -> Vec<Val> {
        let elem = self.mask_elem(args);
        args.iter().map(|&i| self.mask(i, elem)).collect()
    }

    /// The number behind node `i` if that is constant.
    fn known(&self, i: usize) -> Option<f64> {
        match &self.expr.nodes[i].what {
            What::Const(t) => Some(to_f64(t.ty().ty, bits_of(t))),
            _ => None,
        }
    }

    fn apply(&mut self, op: &Op, args: &[usize], ty: Type) -> Cell {
        let from = self.expr.nodes[args[0]].ty;
        match op.kind() {
            Kind::Cast => return self.cast(args[0], from, ty, op),
            Kind::Bitcast => {
                let v = self.value(args[0]);
                let bits = to_memory(self.b, v, from, false);
                let mut v = from_memory(self.b, bits, ty);
                if ty == Type::Bool {
                    let one = self.b.int(self.b.ty(v), 1); // any other byte is true
                    v = self.b.bin(Bin::MinU, v, one);
                }
                return Cell::value(v);
            }
            Kind::Select => return self.select(args, ty),
            Kind::Not => {
                let m = self.masks(args);
                return Cell::mask(self.b.un(Un::Not, m[0]));
            }
            Kind::Eq if from == Type::Bool => {
                let m = self.masks(args);
                let differ = self.b.bin(Bin::Xor, m[0], m[1]);
                return Cell::mask(self.b.un(Un::Not, differ));
            }
            Kind::And | Kind::Or | Kind::Xor if from == Type::Bool => {
                let m = self.masks(args);
                return Cell::mask(self.b.bin(bitwise(op.kind()), m[0], m[1]));
            }
            Kind::Eq | Kind::Lt | Kind::Le => {
                let (x, y) = (self.value(args[0]), self.value(args[1]));
                return Cell::mask(compare(self.b, op.kind(), from, x, y));
            }
            Kind::IsNan => {
                let x = self.value(args[0]);
                return Cell::mask(self.b.cmp(Cmp::Ne, x, x));
            }
            Kind::IsInf => {
                let x = self.value(args[0]);
                return Cell::mask(self.is_inf(x, op.attrs.flag("positive"), op.attrs.flag("negative")));
            }
            Kind::Pow => return Cell::value(self.pow(args, from)),
            _ => {}
        }
        let x = self.value(args[0]);
        let y = args.get(1).map(|&i| self.value(i));
        let b = &mut *self.b;
        Cell::value(match (op.kind(), y) {
            (Kind::Clamp, _) => clamp(b, x, from, op.attrs.float("lo"), op.attrs.float("hi")),
            (Kind::Mod, Some(y)) if from.is_float() => {
                let trunc = op.attrs.flag("trunc");
                each_lane(b, &[x, y], &mut |b, v| float_mod(b, v[0], v[1], trunc))
            }
            (Kind::Mod, Some(y)) => {
                let trunc = op.attrs.flag("trunc");
                each_lane(b, &[x, y], &mut |b, v| int_mod(b, v[0], v[1], from, trunc))
            }
            (Kind::Min | Kind::Max, Some(y)) if from.is_float() => {
                let op = if op.kind() == Kind::Min { Bin::Min } else { Bin::Max };
                // The second operand comes through when one is NaN: a constant is not.
                if self.known(args[1]).is_some_and(|c| !c.is_nan()) {
                    self.b.bin(op, y, x)
                } else if self.known(args[0]).is_some_and(|c| !c.is_nan()) {
                    self.b.bin(op, x, y)
                } else if op == Bin::Min {
                    math::min(self.b, x, y)
                } else {
                    math::max(self.b, x, y)
                }
            }
            (kind, Some(y)) if from.is_float() => float_binary(b, kind, x, y),
            (kind, None) if from.is_float() => float_unary(b, kind, x),
            (kind, Some(y)) => {
                let r = int_binary(b, kind, from, x, y);
                wrap(b, r, ty)
            }
            (kind, None) => {
                let r = int_unary(b, kind, from, x);
                wrap(b, r, ty)
            }
        })
    }

    fn select(&mut self, args: &[usize], ty: Type) -> Cell {
        if ty == Type::Bool && args[1..].iter().any(|&i| self.cells[i].value.is_none()) {
            let m = self.masks(args);
            let then = self.b.bin(Bin::And, m[0], m[1]);
            let not = self.b.un(Un::Not, m[0]);
            let otherwise = self.b.bin(Bin::And, not, m[2]);
            return Cell::mask(self.b.bin(Bin::Or, then, otherwise));
        }
        let (x, y) = (self.value(args[1]), self.value(args[2]));
        let mask = self.mask(args[0], self.b.ty(x).elem);
        Cell::value(self.b.select(mask, x, y))
    }

    fn is_inf(&mut self, x: Val, positive: bool, negative: bool) -> Val {
        let b = &mut *self.b;
        let y = match (positive, negative) {
            (true, true) => b.un(Un::Abs, x),
            (false, true) => b.un(Un::Neg, x),
            _ => x,
        };
        let limit = if positive || negative { f64::INFINITY } else { f64::NAN };
        let limit = math::number(b, x, limit);
        b.cmp(Cmp::Eq, y, limit)
    }

    fn pow(&mut self, args: &[usize], base: Type) -> Val {
        let exponent = self.expr.nodes[args[1]].ty;
        let x = self.value(args[0]);
        let known = self.known(args[1]);
        let b = &mut *self.b;
        if base.is_float() {
            let square = |b: &mut Builder| b.mul(x, x);
            match known {
                Some(1.0) => return x,
                Some(2.0) => return square(b),
                Some(3.0) => {
                    let z = square(b);
                    return b.mul(z, x);
                }
                Some(4.0) => {
                    let z = square(b);
                    return b.mul(z, z);
                }
                Some(-1.0) => return math::recip(b, x),
                Some(-2.0) => {
                    let z = square(b);
                    return math::recip(b, z);
                }
                Some(0.5) => return square_root(b, x),
                Some(-0.5) => {
                    let root = square_root(b, x);
                    return math::recip(b, root);
                }
                _ => {}
            }
        }
        let y = self.value(args[1]);
        let b = &mut *self.b;
        if base.is_float() {
            let y = to_float(b, y, exponent, b.ty(x).elem);
            return math::pow(b, x, y);
        }
        if exponent.is_float() {
            return each_lane(b, &[x, y], &mut |b, v| {
                let (x, y) = (to_float(b, v[0], base, Elem::F64), to_float(b, v[1], exponent, Elem::F64));
                let r = whole_or_any_power(b, x, y);
                to_int(b, r, base)
            });
        }
        let r = each_lane(b, &[x, y], &mut |b, v| int_pow(b, v[0], v[1], base, exponent));
        // Whoever reads it in a register takes it as a number of its type.
        wrap(b, r, base)
    }

    fn cast(&mut self, arg: usize, from: Type, to: Type, op: &Op) -> Cell {
        if from == to {
            return self.cells[arg];
        }
        if to == Type::Bool {
            let v = self.value(arg);
            let zero = self.b.bits(self.b.ty(v), 0);
            return Cell::mask(self.b.cmp(Cmp::Ne, v, zero));
        }
        let reg = self.reg(to);
        if from == Type::Bool && reg.elem.is_float() && self.cells[arg].value.is_none() {
            let mask = self.mask(arg, reg.elem);
            let (one, zero) = (self.b.number(reg, 1.0), self.b.number(reg, 0.0));
            return Cell::value(self.b.select(mask, one, zero));
        }
        let v = self.value(arg);
        let b = &mut *self.b;
        Cell::value(match (from.is_float(), to.is_float()) {
            (_, true) => {
                let v = if to.bytes() < 4 { to_odd_float(b, v, from) } else { to_float(b, v, from, reg.elem) };
                match small(to) {
                    Some(format) => {
                        let bits = encode(b, v, format, op.attrs.flag("saturate"));
                        decode(b, bits, format)
                    }
                    None if to == Type::F8E8M0 => {
                        let bits = encode_power(b, v, op.attrs.word("round"), op.attrs.flag("saturate"));
                        decode_power(b, bits)
                    }
                    None => round_to(b, v, to),
                }
            }
            (true, false) if to.is_narrow() => {
                let v = to_int(b, v, Type::I32);
                wrap(b, v, to)
            }
            (true, false) => to_int(b, v, to),
            (false, false) => {
                let v = resize(b, v, reg.elem, from.is_signed());
                wrap(b, v, to)
            }
        })
    }
}

/// Whether the result of an operator must be rounded to a type narrower than its register before it is used on.
fn rounds(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Neg
            | Kind::Abs
            | Kind::Sign
            | Kind::Relu
            | Kind::Min
            | Kind::Max
            | Kind::Select
            | Kind::Cast
            | Kind::Bitcast
            | Kind::Floor
            | Kind::Ceil
            | Kind::Round
            | Kind::Trunc
    )
}

/// The type that elements have in registers: f32 for floats up to 32 bits, else f64; I32 for bools and integers up to 32 bits, extended
/// by their sign, else I64.
pub fn register(ty: Type) -> Elem {
    match ty {
        Type::F64 => Elem::F64,
        Type::I64 | Type::U64 => Elem::I64,
        ty if ty.is_float() => Elem::F32,
        _ => Elem::I32,
    }
}

/// The type that elements have in memory.
pub fn memory(ty: Type) -> Elem {
    match (ty, ty.bytes()) {
        (Type::F32, _) => Elem::F32,
        (Type::F64, _) => Elem::F64,
        (_, 1) => Elem::I8,
        (_, 2) => Elem::I16,
        (_, 4) => Elem::I32,
        _ => Elem::I64,
    }
}

/// Reads `count` of `lanes` elements and brings them into register form; the other lanes are what 0 is.
pub fn load_element(b: &mut Builder, ty: Type, ptr: Val, disp: i32, lanes: u8, count: usize) -> Val {
    let v = b.load_part(Ty { elem: memory(ty), lanes }, ptr, disp, count);
    from_memory(b, v, ty)
}

/// Reads one element into all lanes, in register form.
pub fn load_element_splat(b: &mut Builder, ty: Type, ptr: Val, disp: i32, lanes: u8) -> Val {
    if memory(ty) == register(ty) {
        return b.load_splat(Ty { elem: memory(ty), lanes }, ptr, disp);
    }
    let v = load_element(b, ty, ptr, disp, 1, 1);
    b.splat(v, lanes)
}

/// Writes the first `count` lanes of a value in register form as elements of a type, rounded to it.
pub fn store_element(b: &mut Builder, ty: Type, val: Val, ptr: Val, disp: i32, count: usize) {
    // A cast has saturated where it was asked to: what is left, infinities too, is a value of the type.
    let v = to_memory(b, val, ty, false);
    b.store_part(v, ptr, disp, count);
}

/// The one element of a constant, in every lane in register form.
pub fn constant(b: &mut Builder, lanes: u8, tensor: &Tensor) -> Val {
    let ty = tensor.ty().ty;
    let (reg, bits) = (Ty { elem: register(ty), lanes }, bits_of(tensor));
    match reg.elem {
        Elem::F32 => b.number(reg, to_f64(ty, bits)),
        _ if ty.is_signed() => b.int(reg, sign_extend(bits, 8 * ty.bytes())),
        _ => b.bits(reg, bits),
    }
}

/// The bits of the first element of a tensor.
fn bits_of(tensor: &Tensor) -> u64 {
    let mut word = [0; 8];
    let width = tensor.ty().ty.bytes();
    word[..width].copy_from_slice(&tensor.bytes()[..width]);
    u64::from_le_bytes(word)
}

fn sign_extend(bits: u64, width: usize) -> i64 {
    ((bits << (64 - width)) as i64) >> (64 - width)
}

/// The number that the bits of an element are.
fn to_f64(ty: Type, bits: u64) -> f64 {
    match ty {
        Type::F64 => f64::from_bits(bits),
        Type::F32 => f64::from(f32::from_bits(bits as u32)),
        _ if ty.is_float() => float8::decode(ty, bits as u32),
        _ if ty.is_signed() => sign_extend(bits, 8 * ty.bytes()) as f64,
        _ => bits as f64,
    }
}

/// A float of 8 bits or less with sign, exponent and mantissa.
#[derive(Clone, Copy)]
struct Small {
    bits: u32,
    mantissa: u32,
    bias: i32,
    /// Largest finite magnitude.
    max: i64,
    infinity: Option<i64>,
    nan: Nan,
}

#[derive(Clone, Copy, PartialEq)]
enum Nan {
    /// This magnitude, with a sign.
    Signed(i64),
    /// The bits of −0, which therefore is not there.
    MinusZero,
    /// There is none; ONNX gives −0.
    None,
}

fn small(ty: Type) -> Option<Small> {
    let (bits, mantissa, bias, max, infinity, nan) = match ty {
        Type::F8E4M3FN => (8, 3, 7, 0x7e, None, Nan::Signed(0x7f)),
        Type::F8E4M3FNUZ => (8, 3, 8, 0x7f, None, Nan::MinusZero),
        Type::F8E5M2 => (8, 2, 15, 0x7b, Some(0x7c), Nan::Signed(0x7e)),
        Type::F8E5M2FNUZ => (8, 2, 16, 0x7f, None, Nan::MinusZero),
        Type::F4E2M1 => (4, 1, 1, 0x7, None, Nan::None),
        _ => return None,
    };
    Some(Small { bits, mantissa, bias, max, infinity, nan })
}

/// f32 to the bits (in I32) of a small float, to nearest even; what is too large becomes the largest number, or infinity or NaN.
fn encode(b: &mut Builder, x: Val, f: Small, saturate: bool) -> Val {
    let a = b.un(Un::Abs, x);
    let (xi, ai) = (b.conv(Conv::Bits, x, Elem::I32), b.conv(Conv::Bits, a, Elem::I32));
    let ty = b.ty(xi);
    let drop = i64::from(23 - f.mantissa);
    let shift = b.int(ty, drop);
    let one = b.int(ty, 1);
    let lsb = b.bin(Bin::ShrU, ai, shift);
    let lsb = b.bin(Bin::And, lsb, one);
    let r = b.add(ai, lsb);
    let r = b.add_int(r, (1 << (drop - 1)) - 1);
    let r = b.bin(Bin::ShrU, r, shift);
    let normal = b.add_int(r, -(i64::from(127 - f.bias) << f.mantissa));
    // Below the normal numbers the spacing is constant: that of a float in this range, whose last bits are the result.
    let magic = math::number(b, x, f64::powi(2.0, 23 + 1 - f.bias - f.mantissa as i32));
    let (sum, magic) = (b.add(a, magic), b.conv(Conv::Bits, magic, Elem::I32));
    let sum = b.conv(Conv::Bits, sum, Elem::I32);
    let tiny = b.sub(sum, magic);
    let least = math::number(b, x, f64::powi(2.0, 1 - f.bias));
    let is_tiny = b.cmp(Cmp::Lt, a, least);
    let r = b.select(is_tiny, tiny, normal);
    let (max, sign_bit, zero) = (b.int(ty, f.max), b.int(ty, 1 << (f.bits - 1)), b.int(ty, 0));
    let over = b.cmp(Cmp::Gt, r, max);
    let limit = match (f.infinity, f.nan) {
        _ if saturate => max,
        (Some(i), _) => b.int(ty, i),
        (None, Nan::Signed(nan)) => b.int(ty, nan),
        (None, Nan::MinusZero) => sign_bit,
        (None, Nan::None) => max,
    };
    let r = b.select(over, limit, r);
    let is_nan = b.cmp(Cmp::Ne, x, x);
    let up = b.int(ty, i64::from(32 - f.bits));
    let sign = b.bin(Bin::ShrU, xi, up);
    let sign = b.bin(Bin::And, sign, sign_bit);
    match f.nan {
        Nan::Signed(nan) => {
            let nan = b.int(ty, nan);
            let r = b.select(is_nan, nan, r);
            b.bin(Bin::Or, r, sign)
        }
        Nan::MinusZero => {
            let is_zero = b.cmp(Cmp::Eq, r, zero);
            let sign = b.select(is_zero, zero, sign);
            let r = b.bin(Bin::Or, r, sign);
            b.select(is_nan, sign_bit, r)
        }
        Nan::None => {
            let r = b.bin(Bin::Or, r, sign);
            b.select(is_nan, sign_bit, r)
        }
    }
}

/// The bits (in I32) of a small float to f32.
fn decode(b: &mut Builder, bits: Val, f: Small) -> Val {
    let ty = b.ty(bits);
    let magnitude = b.int(ty, (1 << (f.bits - 1)) - 1);
    let magnitude = b.bin(Bin::And, bits, magnitude);
    let up = b.int(ty, i64::from(23 - f.mantissa));
    let r = b.bin(Bin::Shl, magnitude, up);
    let r = b.conv(Conv::Bits, r, Elem::F32);
    let scale = math::number(b, r, f64::powi(2.0, 127 - f.bias));
    let mut r = b.mul(r, scale);
    let nan = math::number(b, r, f64::NAN);
    if let Some(i) = f.infinity {
        let (i, inf) = (b.int(ty, i), math::number(b, r, f64::INFINITY));
        let is_inf = b.cmp(Cmp::Eq, magnitude, i);
        r = b.select(is_inf, inf, r);
    }
    if let Nan::Signed(_) = f.nan {
        // What is beyond the numbers and infinity.
        let first = b.int(ty, f.infinity.unwrap_or(f.max) + 1);
        let is_nan = b.cmp(Cmp::Ge, magnitude, first);
        r = b.select(is_nan, nan, r);
    }
    let to_top = b.int(ty, i64::from(32 - f.bits));
    let top = b.int(ty, i64::from(i32::MIN));
    let sign = b.bin(Bin::Shl, bits, to_top);
    let sign = b.bin(Bin::And, sign, top);
    let r = b.conv(Conv::Bits, r, Elem::I32);
    let r = b.bin(Bin::Or, r, sign);
    let mut r = b.conv(Conv::Bits, r, Elem::F32);
    if f.nan == Nan::MinusZero {
        let minus_zero = b.int(ty, 1 << (f.bits - 1));
        let is_nan = b.cmp(Cmp::Eq, bits, minus_zero);
        r = b.select(is_nan, nan, r);
    }
    r
}

/// f32 to the exponent (in I32) of an f8e8m0: `up`, `down` or to the `nearest` power of two. The sign is lost; infinities and NaN are NaN.
fn encode_power(b: &mut Builder, x: Val, round: &str, saturate: bool) -> Val {
    let a = b.un(Un::Abs, x);
    let i = b.conv(Conv::Bits, a, Elem::I32);
    let ty = b.ty(i);
    let (shift, max, nan, zero) = (b.int(ty, 23), b.int(ty, 0xfe), b.int(ty, 0xff), b.int(ty, 0));
    let e = b.bin(Bin::ShrU, i, shift);
    let i = match round {
        "up" => b.add_int(i, 0x7f_ffff),
        "nearest" => {
            // Halves go up, but not from 0.
            let (half, less) = (b.int(ty, 0x40_0000), b.int(ty, 0x3f_ffff));
            let lowest = b.cmp(Cmp::Eq, e, zero);
            let add = b.select(lowest, less, half);
            b.add(i, add)
        }
        _ => i,
    };
    let mut r = b.bin(Bin::ShrU, i, shift);
    if saturate {
        r = b.bin(Bin::MinS, r, max);
    }
    let special = b.cmp(Cmp::Eq, e, nan);
    b.select(special, nan, r)
}

/// The exponent (in I32) of an f8e8m0 to f32.
fn decode_power(b: &mut Builder, bits: Val) -> Val {
    let ty = b.ty(bits);
    let (zero, nan, shift) = (b.int(ty, 0), b.int(ty, 0xff), b.int(ty, 23));
    // 2⁻¹²⁷ is no normal number.
    let least = b.int(ty, 0x40_0000);
    let r = b.bin(Bin::Shl, bits, shift);
    let is_zero = b.cmp(Cmp::Eq, bits, zero);
    let r = b.select(is_zero, least, r);
    let r = b.conv(Conv::Bits, r, Elem::F32);
    let is_nan = b.cmp(Cmp::Eq, bits, nan);
    let not = math::number(b, r, f64::NAN);
    b.select(is_nan, not, r)
}

/// Elements as memory holds them, in register form.
fn from_memory(b: &mut Builder, v: Val, ty: Type) -> Val {
    let signed = ty.is_signed();
    match ty {
        Type::F16 => b.conv(Conv::HalfToFloat, v, Elem::F32),
        Type::BF16 => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            let up = b.int(b.ty(v), 16);
            let v = b.bin(Bin::Shl, v, up);
            b.conv(Conv::Bits, v, Elem::F32)
        }
        Type::F8E8M0 => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            decode_power(b, v)
        }
        _ if small(ty).is_some() => {
            let v = b.conv(Conv::Zext, v, Elem::I32);
            decode(b, v, small(ty).expect("just seen"))
        }
        _ if b.ty(v).elem == register(ty) => v,
        _ if register(ty).bytes() == b.ty(v).elem.bytes() => b.conv(Conv::Bits, v, register(ty)),
        _ => b.conv(if signed { Conv::Sext } else { Conv::Zext }, v, register(ty)),
    }
}

/// Values in register form as memory holds them, rounded to the type.
fn to_memory(b: &mut Builder, v: Val, ty: Type, saturate: bool) -> Val {
    let elem = memory(ty);
    match ty {
        Type::F16 => b.conv(Conv::FloatToHalf, v, Elem::I16),
        Type::BF16 => {
            let v = bf16_bits(b, v);
            let down = b.int(b.ty(v), 16);
            let v = b.bin(Bin::ShrU, v, down);
            b.conv(Conv::Wrap, v, Elem::I16)
        }
        Type::F8E8M0 => {
            // Values of the type keep their exponent, the lowest too, which is a denormal of f32.
            let v = encode_power(b, v, "nearest", saturate);
            b.conv(Conv::Wrap, v, Elem::I8)
        }
        _ if small(ty).is_some() => {
            let v = encode(b, v, small(ty).expect("just seen"), saturate);
            b.conv(Conv::Wrap, v, Elem::I8)
        }
        _ if b.ty(v).elem == elem => v,
        _ => b.conv(Conv::Wrap, v, elem),
    }
}

/// f32 rounded to bf16, its 16 bits in the upper half of an I32.
fn bf16_bits(b: &mut Builder, v: Val) -> Val {
    let i = b.conv(Conv::Bits, v, Elem::I32);
    let ty = b.ty(i);
    let (down, one, upper, quiet) = (b.int(ty, 16), b.int(ty, 1), b.int(ty, !0xffff), b.int(ty, 0x40_0000));
    let lsb = b.bin(Bin::ShrU, i, down);
    let lsb = b.bin(Bin::And, lsb, one);
    let r = b.add(i, lsb);
    let r = b.add_int(r, 0x7fff);
    let nan = b.bin(Bin::Or, i, quiet);
    let is_nan = b.cmp(Cmp::Ne, v, v);
    let r = b.select(is_nan, nan, r);
    b.bin(Bin::And, r, upper)
}

/// A value in register form rounded to its type.
pub fn round_to(b: &mut Builder, v: Val, ty: Type) -> Val {
    match ty {
        Type::F16 => {
            let h = b.conv(Conv::FloatToHalf, v, Elem::I16);
            b.conv(Conv::HalfToFloat, h, Elem::F32)
        }
        Type::BF16 => {
            let i = bf16_bits(b, v);
            b.conv(Conv::Bits, i, Elem::F32)
        }
        _ => v,
    }
}

/// Integers of another width, the same ones if they are of this.
fn resize(b: &mut Builder, v: Val, to: Elem, signed: bool) -> Val {
    let from = b.ty(v).elem;
    match from.bytes().cmp(&to.bytes()) {
        std::cmp::Ordering::Equal => v,
        std::cmp::Ordering::Greater => b.conv(Conv::Wrap, v, to),
        std::cmp::Ordering::Less if signed => b.conv(Conv::Sext, v, to),
        std::cmp::Ordering::Less => b.conv(Conv::Zext, v, to),
    }
}

/// Bits of an integer type as a value; [`Type::bytes`] does not tell those apart that do not fill a byte.
fn width(ty: Type) -> u32 {
    match ty {
        Type::Bool => 1,
        Type::I2 | Type::U2 => 2,
        Type::I4 | Type::U4 => 4,
        ty => 8 * ty.bytes() as u32,
    }
}

/// An integer in a register, reduced to the range of its type.
fn wrap(b: &mut Builder, v: Val, ty: Type) -> Val {
    let (reg, bits) = (b.ty(v), width(ty));
    let free = 8 * reg.elem.bytes() as u32 - bits;
    if free == 0 {
        return v;
    }
    if ty.is_signed() {
        let count = b.int(reg, i64::from(free));
        let v = b.bin(Bin::Shl, v, count);
        return b.bin(Bin::ShrS, v, count);
    }
    let mask = b.int(reg, (1 << bits) - 1);
    b.bin(Bin::And, v, mask)
}

/// The least and the largest number of an integer type.
fn range(ty: Type) -> (i128, i128) {
    let bits = width(ty);
    if ty.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// A number in register form as a float, to nearest even.
pub(crate) fn to_float(b: &mut Builder, v: Val, from: Type, to: Elem) -> Val {
    if from.is_float() {
        return if b.ty(v).elem == to { v } else { b.conv(Conv::FloatToFloat, v, to) };
    }
    match from {
        Type::U32 if b.ty(v).is_vector() => {
            let ty = b.ty(v);
            let (half, low) = (b.int(ty, 16), b.int(ty, 0xffff));
            let (hi, lo) = (b.bin(Bin::ShrU, v, half), b.bin(Bin::And, v, low));
            let (hi, lo) = (b.conv(Conv::IntToFloat, hi, to), b.conv(Conv::IntToFloat, lo, to));
            let scale = math::number(b, hi, 65536.0);
            b.fma(hi, scale, lo)
        }
        Type::U32 | Type::U64 => b.conv(Conv::UintToFloat, v, to),
        _ => b.conv(Conv::IntToFloat, v, to),
    }
}

/// A number in register form as f32 rounded to odd where it is not exact: a second rounding, to fewer bits, then is as good as one.
fn to_odd_float(b: &mut Builder, v: Val, from: Type) -> Val {
    match from {
        Type::F64 => {
            let y = b.conv(Conv::FloatToFloat, v, Elem::F32);
            let back = b.conv(Conv::FloatToFloat, y, Elem::F64);
            let (a, back_a) = (b.un(Un::Abs, v), b.un(Un::Abs, back));
            let (exact, beyond) = (b.cmp(Cmp::Eq, a, back_a), b.cmp(Cmp::Gt, back_a, a));
            let i = b.conv(Conv::Bits, y, Elem::I32);
            let (zero, one) = (b.int(Ty::I32, 0), b.int(Ty::I32, 1));
            let step = b.branch(beyond, |_| vec![one], |_| vec![zero])[0];
            let odd = b.sub(i, step);
            let odd = b.bin(Bin::Or, odd, one);
            let nan = b.cmp(Cmp::Ne, y, y);
            let i = b.branch(exact, |_| vec![i], |_| vec![odd])[0];
            let odd = b.conv(Conv::Bits, i, Elem::F32);
            b.select(nan, y, odd)
        }
        Type::I32 | Type::U32 | Type::I64 | Type::U64 => {
            // Bits under the precision of the float become one that says whether there were any.
            let ty = b.ty(v);
            let lost = if ty.elem == Elem::I64 { 11 } else { 7 };
            let (low, unit, zero) = (b.int(ty, (1 << lost) - 1), b.int(ty, 1 << lost), b.int(ty, 0));
            let rest = b.bin(Bin::And, v, low);
            let inexact = b.cmp(Cmp::Ne, rest, zero);
            let sticky = b.select(inexact, unit, zero);
            let kept = b.sub(v, rest);
            let odd = b.bin(Bin::Or, kept, sticky);
            let magnitude = if from.is_signed() { b.un(Un::Abs, v) } else { v };
            let bound = b.int(ty, if ty.elem == Elem::I64 { 1 << 53 } else { 1 << 24 });
            let large = b.cmp(Cmp::GtU, magnitude, bound);
            let v = b.select(large, odd, v);
            if ty.elem == Elem::I32 {
                return to_float(b, v, from, Elem::F32);
            }
            let v = to_float(b, v, from, Elem::F64);
            to_odd_float(b, v, Type::F64)
        }
        _ => to_float(b, v, from, Elem::F32),
    }
}

/// A float as an integer in register form, towards 0, saturating; NaN is 0.
pub(crate) fn to_int(b: &mut Builder, v: Val, to: Type) -> Val {
    match to {
        Type::I32 => b.conv(Conv::FloatToInt, v, Elem::I32),
        Type::I64 => b.conv(Conv::FloatToInt, v, Elem::I64),
        Type::U64 => b.conv(Conv::FloatToUint, v, Elem::I64),
        Type::U32 if !b.ty(v).is_vector() => b.conv(Conv::FloatToUint, v, Elem::I32),
        Type::U32 => {
            let ty = b.ty(v).of(Elem::I32);
            let (zero, middle, top) = (math::number(b, v, 0.0), math::number(b, v, 2147483648.0), b.int(ty, i64::from(i32::MIN)));
            let low = b.max(v, zero);
            let low = b.conv(Conv::FloatToInt, low, Elem::I32);
            let high = b.sub(v, middle);
            let high = b.conv(Conv::FloatToInt, high, Elem::I32);
            let high = b.bin(Bin::Xor, high, top);
            let is_high = b.cmp(Cmp::Ge, v, middle);
            b.select(is_high, high, low)
        }
        _ => {
            let (lo, hi) = range(to);
            let v = math::clamp(b, v, lo as f64, hi as f64);
            b.conv(Conv::FloatToInt, v, Elem::I32)
        }
    }
}

fn bitwise(kind: Kind) -> Bin {
    match kind {
        Kind::And => Bin::And,
        Kind::Or => Bin::Or,
        _ => Bin::Xor,
    }
}

/// A mask of a comparison of two numbers of a type.
pub(crate) fn compare(b: &mut Builder, kind: Kind, ty: Type, x: Val, y: Val) -> Val {
    let op = match (kind, ty) {
        (Kind::Eq, _) => Cmp::Eq,
        (Kind::Lt, Type::U32 | Type::U64) => Cmp::LtU,
        (Kind::Le, Type::U32 | Type::U64) => Cmp::LeU,
        (Kind::Lt, _) => Cmp::Lt,
        _ => Cmp::Le,
    };
    b.cmp(op, x, y)
}

/// The minimum or maximum instruction of an integer type in its register.
pub(crate) fn int_min_max(ty: Type, max: bool) -> Bin {
    match (matches!(ty, Type::U32 | Type::U64), max) {
        (false, false) => Bin::MinS,
        (false, true) => Bin::MaxS,
        (true, false) => Bin::MinU,
        (true, true) => Bin::MaxU,
    }
}

fn clamp(b: &mut Builder, x: Val, ty: Type, lo: f64, hi: f64) -> Val {
    if ty.is_float() {
        return math::clamp(b, x, lo, hi);
    }
    let (min, max) = range(ty);
    // The casts saturate; a bound of 2⁶³ or 2⁶⁴ is beyond every number of the type.
    let (lo, hi) = ((lo.ceil() as i128).clamp(min, max), (hi.floor() as i128).clamp(min, max));
    let reg = b.ty(x);
    let mut x = x;
    if lo > min {
        let lo = b.int(reg, lo as i64);
        x = b.bin(int_min_max(ty, true), x, lo);
    }
    if hi < max {
        let hi = b.int(reg, hi as i64);
        x = b.bin(int_min_max(ty, false), x, hi);
    }
    x
}

fn square_root(b: &mut Builder, x: Val) -> Val {
    // pow(−0, ½) is +0 and pow(−∞, ½) is ∞ where √ gives −0 and NaN.
    let (zero, minus, inf) = (math::number(b, x, 0.0), math::number(b, x, f64::NEG_INFINITY), math::number(b, x, f64::INFINITY));
    let y = b.add(x, zero);
    let y = b.un(Un::Sqrt, y);
    let is_minus = b.cmp(Cmp::Eq, x, minus);
    b.select(is_minus, inf, y)
}

fn float_unary(b: &mut Builder, kind: Kind, x: Val) -> Val {
    match kind {
        Kind::Neg => b.un(Un::Neg, x),
        Kind::Abs => b.un(Un::Abs, x),
        Kind::Sign => math::sign(b, x),
        Kind::Floor => b.un(Un::Floor, x),
        Kind::Ceil => b.un(Un::Ceil, x),
        Kind::Round => b.un(Un::Nearest, x),
        Kind::Trunc => b.un(Un::Trunc, x),
        Kind::Sqrt => b.un(Un::Sqrt, x),
        Kind::Recip => math::recip(b, x),
        Kind::Exp => math::exp(b, x),
        Kind::Log => math::log(b, x),
        Kind::Log1p => math::log1p(b, x),
        Kind::Expm1 => math::expm1(b, x),
        Kind::Sin => math::sin(b, x),
        Kind::Cos => math::cos(b, x),
        Kind::Tan => math::tan(b, x),
        Kind::Asin => math::asin(b, x),
        Kind::Acos => math::acos(b, x),
        Kind::Atan => math::atan(b, x),
        Kind::Sinh => math::sinh(b, x),
        Kind::Cosh => math::cosh(b, x),
        Kind::Asinh => math::asinh(b, x),
        Kind::Acosh => math::acosh(b, x),
        Kind::Atanh => math::atanh(b, x),
        Kind::Tanh => math::tanh(b, x),
        Kind::Erf => math::erf(b, x),
        Kind::Sigmoid => math::sigmoid(b, x),
        Kind::Softplus => math::softplus(b, x),
        Kind::Relu => math::relu(b, x),
        Kind::Gelu => math::gelu(b, x),
        Kind::GeluTanh => math::gelu_tanh(b, x),
        Kind::Silu => math::silu(b, x),
        Kind::HardSwish => math::hard_swish(b, x),
        other => panic!("`{}` is no function of one float", other.name()),
    }
}

fn float_binary(b: &mut Builder, kind: Kind, x: Val, y: Val) -> Val {
    match kind {
        Kind::Add => b.add(x, y),
        Kind::Sub => b.sub(x, y),
        Kind::Mul => b.mul(x, y),
        Kind::Div => b.div(x, y),
        other => panic!("`{}` is no function of two floats", other.name()),
    }
}

fn int_unary(b: &mut Builder, kind: Kind, ty: Type, x: Val) -> Val {
    let reg = b.ty(x);
    let (zero, one) = (b.int(reg, 0), b.int(reg, 1));
    match kind {
        Kind::Neg => b.sub(zero, x),
        Kind::BitNot => b.un(Un::Not, x),
        Kind::Abs if ty.is_signed() => {
            let minus = b.sub(zero, x);
            b.bin(Bin::MaxS, x, minus)
        }
        Kind::Relu if ty.is_signed() => b.bin(Bin::MaxS, x, zero),
        Kind::Abs | Kind::Relu => x,
        Kind::Sign if ty.is_signed() => {
            let minus = b.int(reg, -1);
            let r = b.bin(Bin::MinS, x, one);
            b.bin(Bin::MaxS, r, minus)
        }
        Kind::Sign => b.bin(Bin::MinU, x, one),
        other => panic!("`{}` is no function of one integer", other.name()),
    }
}

fn int_binary(b: &mut Builder, kind: Kind, ty: Type, x: Val, y: Val) -> Val {
    match kind {
        Kind::Add => b.add(x, y),
        Kind::Sub => b.sub(x, y),
        Kind::Mul => b.mul(x, y),
        Kind::Div => each_lane(b, &[x, y], &mut |b, v| int_div(b, v[0], v[1], ty)),
        Kind::Min | Kind::Max => b.bin(int_min_max(ty, kind == Kind::Max), x, y),
        Kind::And | Kind::Or | Kind::Xor => b.bin(bitwise(kind), x, y),
        Kind::Shl | Kind::Shr => {
            let reg = b.ty(x);
            let (limit, zero) = (b.int(reg, i64::from(width(ty))), b.int(reg, 0));
            let r = b.bin(if kind == Kind::Shl { Bin::Shl } else { Bin::ShrU }, x, y);
            let fits = b.cmp(Cmp::LtU, y, limit);
            b.select(fits, r, zero)
        }
        other => panic!("`{}` is no function of two integers", other.name()),
    }
}

fn check_divisor(b: &mut Builder, y: Val) {
    let zero = b.int(b.ty(y), 0);
    let is_zero = b.cmp(Cmp::Eq, y, zero);
    b.when(is_zero, |b| b.fail(dnnc_runtime::abi::DIVISION));
}

fn int_div(b: &mut Builder, x: Val, y: Val, ty: Type) -> Val {
    check_divisor(b, y);
    if !ty.is_signed() {
        return b.bin(Bin::DivU, x, y);
    }
    let reg = b.ty(x);
    let (minus, zero) = (b.int(reg, -1), b.int(reg, 0));
    let q = b.bin(Bin::DivS, x, y);
    // The quotient of the least number by −1 wraps.
    let negated = b.sub(zero, x);
    let is_minus = b.cmp(Cmp::Eq, y, minus);
    b.select(is_minus, negated, q)
}

fn int_mod(b: &mut Builder, x: Val, y: Val, ty: Type, trunc: bool) -> Val {
    check_divisor(b, y);
    if !ty.is_signed() {
        return b.bin(Bin::RemU, x, y);
    }
    let r = b.bin(Bin::RemS, x, y);
    if trunc {
        return r;
    }
    let zero = b.int(b.ty(x), 0);
    let more = b.add(r, y);
    let signs = b.bin(Bin::Xor, r, y);
    let (differ, rest) = (b.cmp(Cmp::Lt, signs, zero), b.cmp(Cmp::Ne, r, zero));
    let other = b.bin(Bin::And, differ, rest);
    b.select(other, more, r)
}

fn float_mod(b: &mut Builder, x: Val, y: Val, trunc: bool) -> Val {
    let r = math::float_rem(b, x, y);
    if trunc {
        return r;
    }
    let zero = math::number(b, x, 0.0);
    let more = b.add(r, y);
    let (r_below, y_below) = (b.cmp(Cmp::Lt, r, zero), b.cmp(Cmp::Lt, y, zero));
    let (differ, rest) = (b.bin(Bin::Xor, r_below, y_below), b.cmp(Cmp::Ne, r, zero));
    let other = b.bin(Bin::And, differ, rest);
    b.select(other, more, r)
}

/// x (whole) to the power of y, f64 scalars. Powers that are whole are rounded once: truncation to an integer must not lose the one that is
/// meant. A fraction of 2 in y gives one where x has that root: 4 to the power of 3.5 is 2⁷.
fn whole_or_any_power(b: &mut Builder, x: Val, y: Val) -> Val {
    let one = b.number(Ty::F64, 1.0);
    let roots = b.while_loop(
        &[x, y],
        |b, v| {
            let (root, whole) = (b.un(Un::Sqrt, v[0]), b.un(Un::Trunc, v[1]));
            let square = b.un(Un::Trunc, root);
            // Of 0, 1 and numbers below 0 every power is known.
            let (fraction, more) = (b.cmp(Cmp::Ne, whole, v[1]), b.cmp(Cmp::Gt, v[0], one));
            let square = b.cmp(Cmp::Eq, square, root);
            let rooted = b.bin(Bin::And, fraction, more);
            b.bin(Bin::And, rooted, square)
        },
        |b, v| vec![b.un(Un::Sqrt, v[0]), b.add(v[1], v[1])],
    );
    let (x, y) = (roots[0], roots[1]);
    // Beyond this every power is 0, ±1 or larger than all integers, which the general function knows.
    let most = b.number(Ty::F64, 1024.0);
    let (size, whole) = (b.un(Un::Abs, y), b.un(Un::Trunc, y));
    let (small, whole) = (b.cmp(Cmp::Le, size, most), b.cmp(Cmp::Eq, whole, y));
    let whole = b.bin(Bin::And, small, whole);
    b.branch(
        whole,
        |b| {
            let (n, a) = (b.conv(Conv::FloatToInt, size, Elem::I64), b.un(Un::Abs, x));
            let p = math::whole_pow(b, a, n);
            let (zero, one) = (b.number(Ty::F64, 0.0), b.int(Ty::I64, 1));
            let (inverse, below) = (math::recip(b, p), b.cmp(Cmp::Lt, y, zero));
            let p = b.select(below, inverse, p);
            let (negative, odd) = (b.cmp(Cmp::Lt, x, zero), b.bin(Bin::And, n, one));
            let odd = b.cmp(Cmp::Eq, odd, one);
            let (minus, back) = (b.bin(Bin::And, negative, odd), b.un(Un::Neg, p));
            vec![b.select(minus, back, p)]
        },
        |b| vec![math::pow(b, x, y)],
    )[0]
}

fn int_pow(b: &mut Builder, x: Val, y: Val, base: Type, exponent: Type) -> Val {
    let reg = b.ty(x);
    let e = resize(b, y, Elem::I64, exponent.is_signed());
    let (zero, one) = (b.int(Ty::I64, 0), b.int(Ty::I64, 1));
    let (zero_x, one_x, minus_x) = (b.int(reg, 0), b.int(reg, 1), b.int(reg, -1));
    let negative = if exponent.is_signed() { b.cmp(Cmp::Lt, e, zero) } else { b.cmp(Cmp::Ne, e, e) };
    // A negative power is that of 1/x truncated: 1 and −1 are their own, all others are 0.
    let is_zero = b.cmp(Cmp::Eq, x, zero_x);
    b.when(negative, |b| b.when(is_zero, |b| b.fail(dnnc_runtime::abi::DIVISION)));
    let (is_one, is_minus) = (b.cmp(Cmp::Eq, x, one_x), b.cmp(Cmp::Eq, x, minus_x));
    let unit = if base.is_signed() { b.bin(Bin::Or, is_one, is_minus) } else { is_one };
    let inverse = b.select(unit, x, zero_x);
    let start = b.branch(negative, |_| vec![inverse], |_| vec![x])[0];
    let back = b.sub(zero, e);
    let count = b.select(negative, back, e);
    b.while_loop(
        &[one_x, start, count],
        |b, v| b.cmp(Cmp::Ne, v[2], zero),
        |b, v| {
            let bit = b.bin(Bin::And, v[2], one);
            let odd = b.cmp(Cmp::Ne, bit, zero);
            let product = b.mul(v[0], v[1]);
            let r = b.branch(odd, |_| vec![product], |_| vec![v[0]])[0];
            let square = b.mul(v[1], v[1]);
            vec![r, square, b.bin(Bin::ShrU, v[2], one)]
        },
    )[0]
}

/// Computes lane by lane what has no vectors.
fn each_lane(b: &mut Builder, args: &[Val], f: &mut dyn FnMut(&mut Builder, &[Val]) -> Val) -> Val {
    let ty = b.ty(args[0]);
    if !ty.is_vector() {
        return f(b, args);
    }
    let mut result = args[0];
    for lane in 0..ty.lanes {
        let scalars: Vec<Val> = args.iter().map(|&v| b.extract(v, lane)).collect();
        let r = f(b, &scalars);
        result = b.insert(result, r, lane);
    }
    result
}
