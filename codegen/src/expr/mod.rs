//! Element-wise expressions: what fusion makes of trees of `Class::Elementwise` operators.

mod convert;
mod float;
mod int;
mod memory;
mod small_float;

pub(crate) use int::int_min_max;
pub use memory::{constant, load_element, load_element_splat, memory, register, round_to, store_element};

use crate::math;
use convert::{range, resize, to_float, to_int, to_odd_float, wrap};
use dnnc_ir::{Kind, Op, Tensor, Type};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Un, Val};
use float::{float_binary, float_mod, float_unary, square_root, whole_or_any_power};
use int::{bitwise, each_lane, int_binary, int_mod, int_pow, int_unary};
use memory::{bits_of, from_memory, to_f64, to_memory};
use small_float::{decode, decode_power, encode, encode_power, small};

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
