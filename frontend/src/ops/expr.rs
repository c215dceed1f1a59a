//! Formulas over values, written as formulas: `(v(x) * 0.5 + 1.0).clamp(0.0, 1.0)`.

use crate::build::{Build, Result};
use dnnc_ir::{Attr, Kind, Type, Value};
use std::ops;

/// A formula of element-wise operators. A number takes the element type of the operand it meets.
#[derive(Clone)]
pub(super) enum Expr {
    /// A value of the graph.
    Value(Value),
    /// A number.
    Num(f64),
    /// An operator on formulas.
    Op(Kind, Vec<(&'static str, Attr)>, Vec<Expr>),
}

/// The formula that is one value.
pub(super) fn v(value: Value) -> Expr {
    Expr::Value(value)
}

/// The formula that is one number.
pub(super) fn num(value: f64) -> Expr {
    Expr::Num(value)
}

impl From<Value> for Expr {
    fn from(value: Value) -> Expr {
        Expr::Value(value)
    }
}

impl From<f64> for Expr {
    fn from(value: f64) -> Expr {
        Expr::Num(value)
    }
}

macro_rules! unary {
    ($($name:ident $kind:ident),*) => {
        #[allow(missing_docs, dead_code)] // the name of the operator says it
        // A formula is built from formulas by value, also by those that ask (`is_nan`).
        #[allow(clippy::wrong_self_convention)]
        impl Expr { $(pub(super) fn $name(self) -> Expr { Expr::Op(Kind::$kind, vec![], vec![self]) })* }
    };
}
unary! {
    abs Abs, floor Floor, ceil Ceil, round Round, trunc Trunc, sqrt Sqrt, recip Recip, exp Exp, log Log, log1p Log1p, expm1 Expm1, cos Cos,
    sin Sin, tanh Tanh, erf Erf, sigmoid Sigmoid, softplus Softplus, relu Relu, silu Silu, gelu Gelu, gelu_tanh GeluTanh, not Not,
    is_inf IsInf, is_nan IsNan, sign Sign
}

macro_rules! binary {
    ($($name:ident $kind:ident),*) => {
        #[allow(missing_docs, dead_code)]
        impl Expr { $(pub(super) fn $name(self, other: impl Into<Expr>) -> Expr { Expr::Op(Kind::$kind, vec![], vec![self, other.into()]) })* }
    };
}
binary! { pow Pow, min Min, max Max, and And, or Or, eq Eq, lt Lt, le Le }

#[allow(dead_code)]
impl Expr {
    /// min(max(x, lo), hi).
    pub(super) fn clamp(self, lo: f64, hi: f64) -> Expr {
        Expr::Op(Kind::Clamp, vec![("lo", lo.into()), ("hi", hi.into())], vec![self])
    }

    /// Converted to `to`.
    pub(super) fn cast(self, to: Type) -> Expr {
        Expr::Op(Kind::Cast, vec![("to", to.into())], vec![self])
    }

    /// Remainder with the sign of the divisor.
    pub(super) fn modulo(self, by: impl Into<Expr>) -> Expr {
        Expr::Op(Kind::Mod, vec![], vec![self, by.into()])
    }

    /// Where this is true `yes`, elsewhere `no`.
    pub(super) fn select(self, yes: impl Into<Expr>, no: impl Into<Expr>) -> Expr {
        Expr::Op(Kind::Select, vec![], vec![self, yes.into(), no.into()])
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $kind:ident),*) => { $(
        impl<R: Into<Expr>> ops::$trait<R> for Expr {
            type Output = Expr;
            fn $method(self, other: R) -> Expr {
                Expr::Op(Kind::$kind, vec![], vec![self, other.into()])
            }
        }
        impl ops::$trait<Expr> for f64 {
            type Output = Expr;
            fn $method(self, other: Expr) -> Expr {
                Expr::Op(Kind::$kind, vec![], vec![Expr::Num(self), other])
            }
        }
    )* };
}
operators! { Add add Add, Sub sub Sub, Mul mul Mul, Div div Div }

impl ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::Op(Kind::Neg, vec![], vec![self])
    }
}

impl Build {
    /// Adds the operators of a formula; numbers that meet no value become f32.
    pub(super) fn emit(&mut self, formula: impl Into<Expr>) -> Result<Value> {
        self.put_as(formula.into(), Type::F32)
    }

    fn put_as(&mut self, formula: Expr, number: Type) -> Result<Value> {
        let (kind, attrs, operands) = match formula {
            Expr::Value(value) => return Ok(value),
            Expr::Num(n) => return Ok(self.scalar(number, n)),
            Expr::Op(kind, attrs, operands) => (kind, attrs, operands),
        };
        // The condition of a select says nothing of the type of its numbers.
        let first = usize::from(kind == Kind::Select);
        let number = operands[first..].iter().find_map(|e| self.type_of(e)).unwrap_or(number);
        let values = operands.into_iter().map(|e| self.put_as(e, number)).collect::<Result<Vec<_>>>()?;
        if kind == Kind::Cast && attrs == [("to", Attr::Type(self.elem(values[0])))] {
            return Ok(values[0]);
        }
        self.op(kind, attrs, &values)
    }

    fn type_of(&self, formula: &Expr) -> Option<Type> {
        match formula {
            Expr::Value(value) => Some(self.elem(*value)),
            Expr::Num(_) => None,
            Expr::Op(Kind::Eq | Kind::Lt | Kind::Le | Kind::IsInf | Kind::IsNan, ..) => Some(Type::Bool),
            Expr::Op(Kind::Cast, attrs, _) => match attrs[0].1 {
                Attr::Type(to) => Some(to),
                _ => None,
            },
            Expr::Op(kind, _, operands) => operands[usize::from(*kind == Kind::Select)..].iter().find_map(|e| self.type_of(e)),
        }
    }
}
