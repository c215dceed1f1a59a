//! Says what is wrong with a kernel: types, scopes, counts, constants.

use crate::func::{Carried, Func, Stmt};
use crate::op::in_memory;
use crate::text;
use crate::ty::{Ty, Val};

/// Checks a kernel; the error is a sentence that names the kernel and the statement.
pub fn verify(func: &Func) -> Result<(), String> {
    let fail = |what: String| Err(format!("kernel {}: {what}", func.name));
    if func.types.len() <= func.pointers {
        return fail("the task number has no type".into());
    }
    for (i, ty) in func.types.iter().enumerate() {
        if !ty.is_valid() {
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
                op.check(self.func.ty(*v), |v| self.ty(v))?;
                self.define(*v)
            }
            Stmt::Store { ptr, val, count, .. } => {
                self.is(*ptr, Ty::PTR)?;
                in_memory(self.ty(*val)?, *count)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bin, Builder, Cmp, Elem, Op};

    #[test]
    fn what_is_wrong_is_said() {
        let bad = |f: &dyn Fn(&mut Builder)| {
            let mut b = Builder::new("k", 1);
            f(&mut b);
            verify(&b.finish()).unwrap_err()
        };
        let f32x4 = Ty::vector(Elem::F32, 4);
        let why = bad(&|b| {
            b.push(f32x4, Op::Load(Val(0), 0, 5));
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
