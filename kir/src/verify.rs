//! Says what is wrong with a kernel: types, scopes, counts, constants.

use super::interp::mask;
use super::{Bin, Carried, Cmp, Conv, Elem, Func, Op, Stmt, Ty, Un, Val, text};

/// Checks a kernel; the error is a sentence that names the kernel and the statement.
pub fn verify(func: &Func) -> Result<(), String> {
    let fail = |what: String| Err(format!("kernel {}: {what}", func.name));
    if func.types.len() <= func.pointers {
        return fail("the task number has no type".into());
    }
    for (i, ty) in func.types.iter().enumerate() {
        if !ty.lanes.is_power_of_two() || ty.bytes() > 64 || (ty.elem == Elem::Ptr && ty.is_vector()) {
            return fail(format!("v{i} has type {ty}, which is none"));
        }
        if i <= func.pointers && *ty != if i == func.pointers { Ty::I64 } else { Ty::PTR } {
            return fail(format!("parameter v{i} has type {ty}"));
        }
    }
    let mut made = vec![false; func.types.len()];
    made[..=func.pointers].fill(true);
    let mut checker = Checker { func, visible: made.clone(), made };
    checker.body(&func.body)
}

struct Checker<'a> {
    func: &'a Func,
    /// Values that can be used here.
    visible: Vec<bool>,
    /// Values that have had their one definition.
    made: Vec<bool>,
}

type Check = Result<(), String>;

fn need(holds: bool, what: &str) -> Check {
    if holds { Ok(()) } else { Err(what.into()) }
}

impl Checker<'_> {
    fn body(&mut self, body: &[Stmt]) -> Check {
        for stmt in body {
            self.stmt(stmt).map_err(|what| {
                let named = what.starts_with("kernel ");
                if named { what } else { format!("kernel {}: {what}, in: {}", self.func.name, text::line(self.func, stmt)) }
            })?;
        }
        Ok(())
    }

    /// Parameters and a body whose values are not visible after it; `inside` sees them.
    fn scope(&mut self, params: &[Val], inside: impl FnOnce(&mut Self) -> Check) -> Check {
        let outside = self.visible.clone();
        params.iter().try_for_each(|v| self.define(*v))?;
        inside(self)?;
        self.visible = outside;
        Ok(())
    }

    fn nexts(&self, carried: &[Carried]) -> Check {
        carried.iter().try_for_each(|c| self.is(c.next, self.func.ty(c.param)))
    }

    fn define(&mut self, v: Val) -> Check {
        let i = v.0 as usize;
        need(i < self.made.len(), &format!("{v} has no type"))?;
        need(!self.made[i], &format!("{v} is defined twice"))?;
        (self.made[i], self.visible[i]) = (true, true);
        Ok(())
    }

    fn ty(&self, v: Val) -> Result<Ty, String> {
        match self.visible.get(v.0 as usize) {
            Some(true) => Ok(self.func.ty(v)),
            _ => Err(format!("{v} is not defined here")),
        }
    }

    fn is(&self, v: Val, ty: Ty) -> Check {
        let has = self.ty(v)?;
        need(has == ty, &format!("{v} is {has}, not {ty}"))
    }

    fn mask(&self, v: Val) -> Check {
        let ty = self.ty(v)?;
        need(ty.elem.is_mask() && !ty.is_vector(), &format!("{v} is {ty}, not a scalar mask"))
    }

    fn inits(&self, carried: &[Carried]) -> Check {
        carried.iter().try_for_each(|c| {
            let bad = [c.param, c.result].into_iter().find(|v| v.0 as usize >= self.func.types.len());
            bad.map_or(Ok(()), |v| Err(format!("{v} has no type")))?;
            self.is(c.init, self.func.ty(c.param))
        })
    }

    fn stmt(&mut self, stmt: &Stmt) -> Check {
        match stmt {
            Stmt::Let(v, op) => {
                need((v.0 as usize) < self.func.types.len(), &format!("{v} has no type"))?;
                self.op(self.func.ty(*v), op)?;
                self.define(*v)
            }
            Stmt::Store { ptr, val, count, .. } => {
                self.is(*ptr, Ty::PTR)?;
                self.access(self.ty(*val)?, *count)
            }
            Stmt::Prefetch { ptr, .. } => self.is(*ptr, Ty::PTR),
            Stmt::For { iv, start, end, step, carried, body } => {
                self.is(*start, Ty::I64)?;
                self.is(*end, Ty::I64)?;
                need(*step > 0, "the step is not positive")?;
                need(self.func.types.get(iv.0 as usize) == Some(&Ty::I64), "the counter is not i64")?;
                self.inits(carried)?;
                let params: Vec<Val> = carried.iter().map(|c| c.param).chain([*iv]).collect();
                self.scope(&params, |s| {
                    s.body(body)?;
                    s.nexts(carried)
                })?;
                self.results(carried)
            }
            Stmt::While { carried, head, cond, body } => {
                self.inits(carried)?;
                let params: Vec<Val> = carried.iter().map(|c| c.param).collect();
                self.scope(&params, |s| {
                    s.body(head)?;
                    s.mask(*cond)?;
                    s.body(body)?;
                    s.nexts(carried)
                })?;
                self.results(carried)
            }
            Stmt::If { cond, then, otherwise, results } => {
                self.mask(*cond)?;
                for (result, ..) in results {
                    need((result.0 as usize) < self.func.types.len(), &format!("{result} has no type"))?;
                }
                self.scope(&[], |s| {
                    s.body(then)?;
                    results.iter().try_for_each(|r| s.is(r.1, s.func.ty(r.0)))
                })?;
                self.scope(&[], |s| {
                    s.body(otherwise)?;
                    results.iter().try_for_each(|r| s.is(r.2, s.func.ty(r.0)))
                })?;
                results.iter().try_for_each(|r| self.define(r.0))
            }
            Stmt::Fail(status) => need(*status != 0, "status 0 means success"),
        }
    }

    fn results(&mut self, carried: &[Carried]) -> Check {
        for c in carried {
            need(self.func.ty(c.result) == self.func.ty(c.param), &format!("{} and {} differ in type", c.result, c.param))?;
            self.define(c.result)?;
        }
        Ok(())
    }

    fn access(&self, ty: Ty, count: u8) -> Check {
        need(!ty.elem.is_mask() && ty.elem != Elem::Ptr, &format!("{ty} cannot be in memory"))?;
        need((1..=ty.lanes).contains(&count), &format!("a count of {count} does not fit {ty}"))
    }

    fn op(&self, ty: Ty, op: &Op) -> Check {
        let (float, mask_type, int) = (ty.elem.is_float(), ty.elem.is_mask(), is_int(ty.elem));
        let wrong = |a: Ty| format!("not defined on {a}");
        match op {
            Op::Const(bits) => {
                need(ty.elem != Elem::Ptr, "a pointer cannot be a constant")?;
                need(*bits & !mask(ty.elem) == 0, &format!("{bits:#x} has more bits than {}", ty.elem))?;
                need(!mask_type || *bits == 0 || *bits == mask(ty.elem), "a mask is 0 or all ones")
            }
            Op::Un(op, a) => {
                self.is(*a, ty)?;
                let ok = match op {
                    Un::Neg | Un::Abs => float || int,
                    Un::Not => int || mask_type,
                    _ => float,
                };
                need(ok, &wrong(ty))
            }
            Op::Bin(op, a, b) => {
                self.is(*a, ty)?;
                self.is(*b, ty)?;
                let ok = match op {
                    Bin::Add | Bin::Sub | Bin::Mul => float || int,
                    Bin::Div | Bin::Min | Bin::Max => float,
                    Bin::DivS | Bin::DivU | Bin::RemS | Bin::RemU => int && !ty.is_vector(),
                    Bin::And | Bin::Or | Bin::Xor => int || mask_type,
                    _ => int,
                };
                need(ok, &wrong(ty))
            }
            Op::Fma(a, b, c) => {
                [a, b, c].into_iter().try_for_each(|v| self.is(*v, ty))?;
                need(float, &wrong(ty))
            }
            Op::Cmp(op, a, b) => {
                let of = self.ty(*a)?;
                self.is(*b, of)?;
                need(ty == of.of(of.elem.mask()), &format!("a comparison of {of} is not {ty}"))?;
                let unsigned = matches!(op, Cmp::LtU | Cmp::LeU | Cmp::GtU | Cmp::GeU);
                need(!of.elem.is_mask() && !(unsigned && of.elem.is_float()), &wrong(of))
            }
            Op::Select(m, a, b) => {
                self.is(*m, ty.of(ty.elem.mask()))?;
                self.is(*a, ty)?;
                self.is(*b, ty)
            }
            Op::Conv(op, a) => {
                let from = self.ty(*a)?;
                need(from.lanes == ty.lanes && converts(*op, from, ty), &format!("does not convert {from} to {ty}"))
            }
            Op::Splat(a) => {
                need(ty.is_vector(), "a scalar is no splat")?;
                self.is(*a, Ty::scalar(ty.elem))
            }
            Op::Extract(a, lane) => {
                let from = self.ty(*a)?;
                need(ty == Ty::scalar(from.elem) && from.is_vector() && *lane < from.lanes, &format!("no such lane of {from}"))
            }
            Op::Insert(a, x, lane) => {
                self.is(*a, ty)?;
                self.is(*x, Ty::scalar(ty.elem))?;
                need(ty.is_vector() && *lane < ty.lanes, &format!("no such lane of {ty}"))
            }
            Op::Shuffle(a, b, pick) => {
                self.is(*a, ty)?;
                self.is(*b, ty)?;
                need(ty.is_vector() && pick.len() == ty.lanes as usize, "one index a lane is needed")?;
                need(pick.iter().all(|p| *p < 2 * ty.lanes), "an index is too large")
            }
            Op::Half(a, _) => {
                let from = self.ty(*a)?;
                need(from.elem == ty.elem && from.lanes == 2 * ty.lanes, &format!("{ty} is not half of {from}"))
            }
            Op::Join(a, b) => {
                need(ty.is_vector(), "a scalar joins nothing")?;
                let half = Ty { lanes: ty.lanes / 2, ..ty };
                self.is(*a, half)?;
                self.is(*b, half)
            }
            Op::Reduce(_, a) => {
                let from = self.ty(*a)?;
                need(ty == Ty::scalar(from.elem) && from.is_vector() && (float || int), &format!("{from} does not reduce to {ty}"))
            }
            Op::Any(a) => {
                need(ty == Ty::scalar(Elem::M8), "the result is m8")?;
                need(self.ty(*a)?.elem.is_mask(), "the operand is no mask")
            }
            Op::Dot2(acc, a, b) => self.dot(ty, *acc, *a, *b, Elem::I16, 2),
            Op::Dot4(acc, a, b) => self.dot(ty, *acc, *a, *b, Elem::I8, 4),
            Op::Offset(p, bytes) => {
                need(ty == Ty::PTR, "the result is a pointer")?;
                self.is(*p, Ty::PTR)?;
                self.is(*bytes, Ty::I64)
            }
            Op::Load { ptr, count, .. } => {
                self.is(*ptr, Ty::PTR)?;
                self.access(ty, *count)
            }
            Op::LoadSplat { ptr, .. } => {
                self.is(*ptr, Ty::PTR)?;
                self.access(ty, 1)
            }
        }
    }

    fn dot(&self, ty: Ty, acc: Val, a: Val, b: Val, elem: Elem, group: u8) -> Check {
        need(ty.elem == Elem::I32, "the result is not i32")?;
        self.is(acc, ty)?;
        let of = Ty { elem, lanes: ty.lanes * group };
        self.is(a, of)?;
        self.is(b, of)
    }
}

fn is_int(elem: Elem) -> bool {
    matches!(elem, Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64)
}

pub(super) fn converts(op: Conv, from: Ty, to: Ty) -> bool {
    use Elem::*;
    let (vector, f, t) = (from.is_vector(), from.elem, to.elem);
    match op {
        Conv::Sext | Conv::Zext => is_int(f) && is_int(t) && f.bytes() < t.bytes(),
        Conv::Wrap => is_int(f) && is_int(t) && f.bytes() > t.bytes(),
        Conv::IntToFloat => matches!((f, t), (I32, F32 | F64)) || (!vector && matches!((f, t), (I64, F32 | F64))),
        Conv::UintToFloat => !vector && matches!(f, I32 | I64) && t.is_float(),
        Conv::FloatToInt => matches!((f, t), (F32, I32)) || (!vector && f.is_float() && matches!(t, I32 | I64)),
        Conv::FloatToUint => !vector && f.is_float() && matches!(t, I32 | I64),
        Conv::FloatToFloat => matches!((f, t), (F32, F64) | (F64, F32)),
        Conv::Bits => f.bytes() == t.bytes() && !f.is_mask() && !t.is_mask() && (!vector || (f != Ptr && t != Ptr)),
        Conv::MaskToInt => f.is_mask() && t == f.int(),
        Conv::HalfToFloat => f == I16 && t == F32,
        Conv::FloatToHalf => f == F32 && t == I16,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let bad = |f: &dyn Fn(&mut Builder)| {
            let mut b = Builder::new("k", 1);
            f(&mut b);
            verify(&b.finish()).unwrap_err()
        };
        let f32x4 = Ty::vector(Elem::F32, 4);
        let why = bad(&|b| {
            b.push(f32x4, Op::Load { ptr: Val(0), disp: 0, count: 5 });
        });
        assert_eq!(why, "kernel k: a count of 5 does not fit f32x4, in: v2:f32x4 = load [v0] count 5");
        let why = bad(&|b| {
            let mut inner = Val(0);
            b.each(3, |b, i| inner = b.add_int(i, 1));
            b.add(inner, inner);
        });
        assert_eq!(why, "kernel k: v6 is not defined here, in: v7:i64 = add v6 v6");
        let why = bad(&|b| {
            let x = b.load(f32x4, Val(0), 0);
            b.bin(Bin::And, x, x);
        });
        assert_eq!(why, "kernel k: not defined on f32x4, in: v3:f32x4 = and v2 v2");
        let why = bad(&|b| {
            b.bits(Ty::scalar(Elem::I8), 256);
        });
        assert_eq!(why, "kernel k: 0x100 has more bits than i8, in: v2:i8 = const 0x100 ; 256");
    }

    #[test]
    fn good_kernels_pass() {
        let mut b = Builder::new("k", 1);
        let zero = b.index(0);
        let out = b.while_loop(
            &[zero],
            |b, v| {
                let ten = b.index(10);
                b.cmp(Cmp::Lt, v[0], ten)
            },
            |b, v| vec![b.add_int(v[0], 3)],
        );
        b.store(out[0], b.param(0), 0);
        assert_eq!(verify(&b.finish()), Ok(()));
    }
}
