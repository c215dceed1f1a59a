//! Writes kernels.

use crate::element::{Bin, Cmp, Conv, Fold, Un};
use crate::func::{Carried, Func, Stmt, Tuning};
use crate::op::Op;
use crate::ty::{Elem, Ty, Val};
use std::collections::HashMap;

/// Builds a [`Func`]. Constants are made once a function, at its head.
pub struct Builder {
    func: Func,
    /// Open bodies, innermost last.
    open: Vec<Vec<Stmt>>,
    head: Vec<Stmt>,
    constants: HashMap<(Ty, u64), Val>,
}

impl Builder {
    /// A kernel with so many pointer parameters.
    pub fn new(name: impl Into<String>, pointers: usize) -> Builder {
        let mut types = vec![Ty::PTR; pointers];
        types.push(Ty::I64);
        let func = Func { name: name.into(), pointers, types, body: vec![], tuning: Tuning::default() };
        Builder { func, open: vec![vec![]], head: vec![], constants: HashMap::new() }
    }

    /// Sets how the kernel should be emitted.
    pub fn tune(&mut self, tuning: Tuning) {
        self.func.tuning = tuning;
    }

    /// The kernel.
    pub fn finish(mut self) -> Func {
        assert_eq!(self.open.len(), 1, "a body is still open");
        self.func.body = self.head;
        self.func.body.append(&mut self.open[0]);
        self.func
    }

    /// Pointer parameter `i`.
    pub fn param(&self, i: usize) -> Val {
        assert!(i < self.func.pointers);
        Val(i as u32)
    }

    /// The number of the task.
    pub fn task(&self) -> Val {
        self.func.task()
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.func.ty(v)
    }

    /// A constant by its bits, in every lane.
    pub fn bits(&mut self, ty: Ty, bits: u64) -> Val {
        if let Some(&v) = self.constants.get(&(ty, bits)) {
            return v;
        }
        let v = self.fresh(ty);
        self.head.push(Stmt::Let(v, Op::Const(bits)));
        self.constants.insert((ty, bits), v);
        v
    }

    /// A number in every lane of `ty`, converted to its element type.
    pub fn number(&mut self, ty: Ty, value: f64) -> Val {
        let bits = match ty.elem {
            Elem::F32 => u64::from((value as f32).to_bits()),
            Elem::F64 => value.to_bits(),
            elem => (value as i64 as u64) & elem.ones(),
        };
        self.bits(ty, bits)
    }

    /// An integer in every lane of `ty`.
    pub fn int(&mut self, ty: Ty, value: i64) -> Val {
        let bits = (value as u64) & ty.elem.ones();
        self.bits(ty, bits)
    }

    /// An index.
    pub fn index(&mut self, value: usize) -> Val {
        self.int(Ty::I64, value as i64)
    }

    /// Any operation, with the type of its result.
    pub fn push(&mut self, ty: Ty, op: Op) -> Val {
        let v = self.fresh(ty);
        self.stmt(Stmt::Let(v, op));
        v
    }

    /// An operation of one operand.
    pub fn un(&mut self, op: Un, a: Val) -> Val {
        self.push(self.ty(a), Op::Un(op, a))
    }

    /// An operation of two operands.
    pub fn bin(&mut self, op: Bin, a: Val, b: Val) -> Val {
        assert_eq!(self.ty(a), self.ty(b), "operands of {op:?} in {}", self.func.name);
        self.push(self.ty(a), Op::Bin(op, a, b))
    }

    /// a + b.
    pub fn add(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Add, a, b)
    }

    /// a − b.
    pub fn sub(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Sub, a, b)
    }

    /// a · b.
    pub fn mul(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Mul, a, b)
    }

    /// a / b, floats.
    pub fn div(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Div, a, b)
    }

    /// `a < b ? a : b`, floats.
    pub fn min(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Min, a, b)
    }

    /// `a > b ? a : b`, floats.
    pub fn max(&mut self, a: Val, b: Val) -> Val {
        self.bin(Bin::Max, a, b)
    }

    /// Integer plus a constant.
    pub fn add_int(&mut self, a: Val, value: i64) -> Val {
        if value == 0 {
            return a;
        }
        let c = self.int(self.ty(a), value);
        self.add(a, c)
    }

    /// Integer times a constant.
    pub fn mul_int(&mut self, a: Val, value: i64) -> Val {
        if value == 1 {
            return a;
        }
        let c = self.int(self.ty(a), value);
        self.mul(a, c)
    }

    /// a·b + c.
    pub fn fma(&mut self, a: Val, b: Val, c: Val) -> Val {
        assert!(self.ty(a) == self.ty(b) && self.ty(b) == self.ty(c), "operands of fma in {}", self.func.name);
        self.push(self.ty(c), Op::Fma(a, b, c))
    }

    /// A comparison.
    pub fn cmp(&mut self, op: Cmp, a: Val, b: Val) -> Val {
        assert_eq!(self.ty(a), self.ty(b), "operands of {op:?} in {}", self.func.name);
        let ty = self.ty(a);
        self.push(ty.of(ty.elem.mask()), Op::Cmp(op, a, b))
    }

    /// mask ? a : b.
    pub fn select(&mut self, mask: Val, a: Val, b: Val) -> Val {
        assert_eq!(self.ty(a), self.ty(b), "arms of select in {}", self.func.name);
        assert_eq!(self.ty(mask), self.ty(a).of(self.ty(a).elem.mask()), "mask of select in {}", self.func.name);
        self.push(self.ty(a), Op::Select(mask, a, b))
    }

    /// A change of type.
    pub fn conv(&mut self, op: Conv, a: Val, to: Elem) -> Val {
        self.push(self.ty(a).of(to), Op::Conv(op, a))
    }

    /// The bytes of a vector as another type of as many.
    pub fn regroup(&mut self, a: Val, ty: Ty) -> Val {
        if self.ty(a) == ty { a } else { self.push(ty, Op::Conv(Conv::Bits, a)) }
    }

    /// A scalar in `lanes` lanes.
    pub fn splat(&mut self, a: Val, lanes: u8) -> Val {
        if lanes == 1 {
            return a;
        }
        self.push(Ty::vector(self.ty(a).elem, lanes), Op::Splat(a))
    }

    /// Lane `lane`.
    pub fn extract(&mut self, a: Val, lane: u8) -> Val {
        if !self.ty(a).is_vector() {
            return a;
        }
        self.push(Ty::scalar(self.ty(a).elem), Op::Extract(a, lane))
    }

    /// Vector `a` with lane `lane` replaced.
    pub fn insert(&mut self, a: Val, x: Val, lane: u8) -> Val {
        self.push(self.ty(a), Op::Insert(a, x, lane))
    }

    /// Lanes of a and b by index.
    pub fn shuffle(&mut self, a: Val, b: Val, lanes: &[u8]) -> Val {
        self.push(self.ty(a), Op::Shuffle(a, b, lanes.into()))
    }

    /// Two scalars or vectors as one vector of twice the lanes.
    pub fn join(&mut self, a: Val, b: Val) -> Val {
        let ty = self.ty(a);
        self.push(Ty::vector(ty.elem, 2 * ty.lanes), Op::Join(a, b))
    }

    /// All lanes combined into a scalar.
    pub fn reduce(&mut self, fold: Fold, a: Val) -> Val {
        if !self.ty(a).is_vector() {
            return a;
        }
        self.push(Ty::scalar(self.ty(a).elem), Op::Reduce(fold, a))
    }

    /// Address plus bytes.
    pub fn offset(&mut self, ptr: Val, bytes: Val) -> Val {
        self.push(Ty::PTR, Op::Offset(ptr, bytes))
    }

    /// Address plus a constant number of bytes.
    pub fn offset_int(&mut self, ptr: Val, bytes: i64) -> Val {
        if bytes == 0 {
            return ptr;
        }
        let c = self.int(Ty::I64, bytes);
        self.offset(ptr, c)
    }

    /// Address plus index · bytes.
    pub fn element(&mut self, ptr: Val, index: Val, bytes: usize) -> Val {
        let off = self.mul_int(index, bytes as i64);
        self.offset(ptr, off)
    }

    /// Reads all lanes.
    pub fn load(&mut self, ty: Ty, ptr: Val, disp: i32) -> Val {
        self.push(ty, Op::Load(ptr, disp, ty.lanes))
    }

    /// Reads the first `count` lanes.
    pub fn load_part(&mut self, ty: Ty, ptr: Val, disp: i32, count: usize) -> Val {
        self.push(ty, Op::Load(ptr, disp, count as u8))
    }

    /// Reads one element into all lanes.
    pub fn load_splat(&mut self, ty: Ty, ptr: Val, disp: i32) -> Val {
        if !ty.is_vector() {
            return self.load(ty, ptr, disp);
        }
        self.push(ty, Op::LoadSplat(ptr, disp))
    }

    /// Writes all lanes.
    pub fn store(&mut self, val: Val, ptr: Val, disp: i32) {
        let count = self.ty(val).lanes;
        self.stmt(Stmt::Store { ptr, disp, val, count });
    }

    /// Writes the first `count` lanes.
    pub fn store_part(&mut self, val: Val, ptr: Val, disp: i32, count: usize) {
        self.stmt(Stmt::Store { ptr, disp, val, count: count as u8 });
    }

    /// Says that a line will be read soon.
    pub fn prefetch(&mut self, ptr: Val, disp: i32) {
        self.stmt(Stmt::Prefetch { ptr, disp });
    }

    /// `for iv in (start..end).step_by(step)` with carried values; the body returns their next values.
    pub fn for_range(
        &mut self,
        start: Val,
        end: Val,
        step: i64,
        init: &[Val],
        body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let iv = self.fresh(Ty::I64);
        let params: Vec<Val> = init.iter().map(|v| self.fresh(self.ty(*v))).collect();
        self.open.push(vec![]);
        let next = body(self, iv, &params);
        let body = self.open.pop().expect("pushed above");
        let (carried, results) = self.carry(init, &params, &next);
        self.stmt(Stmt::For { iv, start, end, step, carried, body });
        results
    }

    /// `for iv in 0..count`, with carried values.
    pub fn for_count(&mut self, count: usize, init: &[Val], body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>) -> Vec<Val> {
        let (start, end) = (self.index(0), self.index(count));
        self.for_range(start, end, 1, init, body)
    }

    /// A loop `0..count` without carried values; a count of 1 is no loop.
    pub fn each(&mut self, count: usize, body: impl FnOnce(&mut Builder, Val)) {
        if count == 1 {
            let zero = self.index(0);
            body(self, zero);
        } else {
            self.for_count(count, &[], |b, iv, _| {
                body(b, iv);
                vec![]
            });
        }
    }

    /// Runs `body` while the condition that `head` computes holds. `head` gives a scalar mask.
    pub fn while_loop(
        &mut self,
        init: &[Val],
        head: impl FnOnce(&mut Builder, &[Val]) -> Val,
        body: impl FnOnce(&mut Builder, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let params: Vec<Val> = init.iter().map(|v| self.fresh(self.ty(*v))).collect();
        self.open.push(vec![]);
        let cond = head(self, &params);
        let head = self.open.pop().expect("pushed above");
        self.open.push(vec![]);
        let next = body(self, &params);
        let body = self.open.pop().expect("pushed above");
        let (carried, results) = self.carry(init, &params, &next);
        self.stmt(Stmt::While { carried, head, cond, body });
        results
    }

    /// One of two bodies; both give as many values of the same types.
    pub fn branch(
        &mut self,
        cond: Val,
        then: impl FnOnce(&mut Builder) -> Vec<Val>,
        otherwise: impl FnOnce(&mut Builder) -> Vec<Val>,
    ) -> Vec<Val> {
        self.open.push(vec![]);
        let a = then(self);
        let then = self.open.pop().expect("pushed above");
        self.open.push(vec![]);
        let b = otherwise(self);
        let otherwise = self.open.pop().expect("pushed above");
        assert_eq!(a.len(), b.len(), "results of a branch in {}", self.func.name);
        let results: Vec<(Val, Val, Val)> = a.iter().zip(&b).map(|(&a, &b)| (self.fresh(self.ty(a)), a, b)).collect();
        let out = results.iter().map(|r| r.0).collect();
        self.stmt(Stmt::If { cond, then, otherwise, results });
        out
    }

    /// Runs `then` when the mask is true.
    pub fn when(&mut self, cond: Val, then: impl FnOnce(&mut Builder)) {
        self.branch(
            cond,
            |b| {
                then(b);
                vec![]
            },
            |_| vec![],
        );
    }

    /// Ends the kernel with a status.
    pub fn fail(&mut self, status: i32) {
        self.stmt(Stmt::Fail(status));
    }

    fn carry(&mut self, init: &[Val], params: &[Val], next: &[Val]) -> (Vec<Carried>, Vec<Val>) {
        assert_eq!(init.len(), next.len(), "carried values of a loop in {}", self.func.name);
        let carried: Vec<Carried> = init
            .iter()
            .zip(params)
            .zip(next)
            .map(|((&init, &param), &next)| Carried { param, init, next, result: self.fresh(self.ty(init)) })
            .collect();
        let results = carried.iter().map(|c| c.result).collect();
        (carried, results)
    }

    fn fresh(&mut self, ty: Ty) -> Val {
        self.func.types.push(ty);
        Val(self.func.types.len() as u32 - 1)
    }

    fn stmt(&mut self, stmt: Stmt) {
        self.open.last_mut().expect("the outermost body").push(stmt);
    }
}
