//! Statements, addresses and control flow to machine instructions. Operations are in `scalar`, `vector` and `shuffle`.

use super::facts::Facts;
use super::mach::{Arg, Base, Kind, Mach, Mem, V, View, cc, gpr};
use crate::kir::{Bin, Carried, Conv, Elem, Func, Op, Stmt, Ty, Val, interp};
use iced_x86::{Code, OpKind};
use regalloc2::RegClass;
use std::collections::HashMap;

/// Vector registers that a loop may fill with its values and hoisted constants; the others are for steps of longer operations.
const HOIST_LIMIT: usize = 14;

/// Bytes of the widest vector: 255 lanes are the most.
const VECTOR_BYTES: i64 = 2048;

/// An address or index as base + index·scale + displacement.
#[derive(Clone, Copy, Debug)]
struct Sym {
    base: Option<V>,
    index: Option<(V, u8)>,
    disp: i64,
    /// The loop body it belongs to: deeper ones use the finished sum instead of keeping two registers.
    home: u32,
}

/// An integer comparison that can be done again where its flags are needed.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub code: Code,
    pub args: [Arg; 2],
    pub cc: u8,
}

/// The state of lowering.
pub struct Lower<'a> {
    pub func: &'a Func,
    facts: &'a Facts,
    pub m: Mach,
    /// Types of values, with those that lowering itself makes.
    types: Vec<Ty>,
    /// Registers of values: first in `flat`, and how many.
    ranges: Vec<(u32, u8)>,
    flat: Vec<V>,
    syms: Vec<Option<Sym>>,
    /// Loads that may be operands of their only use.
    foldable: Vec<Option<Mem>>,
    pub compares: Vec<Option<Compare>>,
    pub constants: Vec<Option<u64>>,
    hoisted: Vec<Option<V>>,
    hoisted_now: usize,
    /// Registers of bytes with their even and odd bytes widened.
    pub split_bytes: Vec<(V, V, V)>,
    /// Indices and addresses computed so far, where they can be used again.
    known: HashMap<Op, Val>,
    known_in_order: Vec<Op>,
    at: u32,
    next_loop: u32,
    stack: Vec<u32>,
    /// The statements that follow cannot be reached.
    dead: bool,
}

/// Lowers a function.
pub fn lower(func: &Func) -> Result<Mach, String> {
    let facts = Facts::of(func);
    let n = func.types.len();
    let mut l = Lower {
        func,
        facts: &facts,
        m: Mach::default(),
        types: func.types.clone(),
        ranges: vec![(0, 0); n],
        flat: Vec::with_capacity(n),
        syms: vec![None; n],
        foldable: vec![None; n],
        compares: vec![None; n],
        constants: facts.constants.clone(),
        hoisted: vec![None; n],
        hoisted_now: 0,
        split_bytes: vec![],
        known: HashMap::new(),
        known_in_order: vec![],
        at: 0,
        next_loop: 0,
        stack: vec![],
        dead: false,
    };
    let entry = l.m.block(vec![]);
    l.m.begin(entry);
    let params: Vec<V> = (0..=func.pointers).map(|_| l.int_register()).collect();
    let in_registers: Vec<Arg> = params.iter().zip(gpr::PARAMS).map(|(&v, r)| Arg::FixedDef(v, r)).collect();
    l.m.push(Kind::Entry, &in_registers);
    for (k, &v) in params.iter().skip(gpr::PARAMS.len()).enumerate() {
        l.m.push(Kind::StackParam(k as u32), &[Arg::Def(v, View::Q)]);
    }
    for (i, &v) in params.iter().enumerate() {
        l.set(Val(i as u32), &[v]);
    }
    l.body(&func.body)?;
    if !l.dead {
        l.m.push(Kind::Ret(0), &[]);
    }
    Ok(l.m)
}

impl Lower<'_> {
    /// A new general register.
    pub fn int_register(&mut self) -> V {
        self.m.fresh(RegClass::Int)
    }

    /// A new vector register.
    pub fn vec_register(&mut self) -> V {
        self.m.fresh(RegClass::Float)
    }

    /// An instruction whose result is a new general register, its first operand.
    pub fn int_op(&mut self, code: Code, view: View, args: &[Arg]) -> V {
        let d = self.int_register();
        self.define(code, d, view, args)
    }

    /// An instruction whose result is a new vector register, its first operand.
    pub fn vec_op(&mut self, code: Code, view: View, args: &[Arg]) -> V {
        let d = self.vec_register();
        self.define(code, d, view, args)
    }

    fn define(&mut self, code: Code, d: V, view: View, args: &[Arg]) -> V {
        let mut all = [Arg::Again(view); 5];
        all[0] = Arg::Def(d, view);
        all[1..=args.len()].copy_from_slice(args);
        self.m.push(Kind::Op(code), &all[..=args.len()]);
        d
    }

    /// An instruction that overwrites its first operand.
    pub fn in_place(&mut self, code: Code, view: View, from: V, args: &[Arg]) -> V {
        let d = self.m.fresh(from.class());
        let mut all = [Arg::Again(view); 5];
        all[0] = Arg::Mod(from, d, view);
        all[1..=args.len()].copy_from_slice(args);
        self.m.push(Kind::Op(code), &all[..=args.len()]);
        d
    }

    /// Names the registers of a value.
    pub fn set(&mut self, v: Val, registers: &[V]) {
        self.ranges[v.0 as usize] = (self.flat.len() as u32, registers.len() as u8);
        self.flat.extend_from_slice(registers);
    }

    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    /// Number of registers of a type.
    pub fn parts_of(ty: Ty) -> usize {
        ty.bytes().div_ceil(32)
    }

    /// Width of each of its vector registers.
    pub fn width(ty: Ty) -> View {
        if ty.bytes() > 16 { View::Y } else { View::X }
    }

    /// The bits of a constant.
    pub fn constant(&self, v: Val) -> Option<u64> {
        self.constants[v.0 as usize]
    }

    /// The register that a value has, if it is no constant.
    fn own(&self, v: Val, part: usize) -> V {
        let (start, count) = self.ranges[v.0 as usize];
        assert!(part < count as usize, "{v:?} of {} is used before it is made", self.func.name);
        self.flat[start as usize + part]
    }

    /// A register with (a part of) a value; constants are made afresh unless they were hoisted.
    pub fn reg(&mut self, v: Val, part: usize) -> V {
        if let Some(r) = self.hoisted[v.0 as usize] {
            return r;
        }
        match self.constant(v) {
            Some(bits) => self.make_constant(self.ty(v), bits),
            None => self.own(v, part),
        }
    }

    /// All registers of a value.
    pub fn regs(&mut self, v: Val) -> Vec<V> {
        (0..Self::parts_of(self.ty(v))).map(|p| self.reg(v, p)).collect()
    }

    /// Whether the current statement is the last to need a value; a constant that was not hoisted is made for the one use.
    pub fn dies(&self, v: Val) -> bool {
        match self.constant(v) {
            Some(_) => self.hoisted[v.0 as usize].is_none(),
            None => self.facts.dies(v, self.at),
        }
    }

    /// A part of a vector (or a scalar float) as the operand that may be in memory.
    pub fn rm(&mut self, v: Val, part: usize) -> Arg {
        let ty = self.ty(v);
        let view = Self::width(ty);
        if self.hoisted[v.0 as usize].is_none() {
            if let Some(bits) = self.constant(v) {
                return Arg::Mem(self.constant_in_memory(ty, bits));
            }
            if let Some(mut mem) = self.foldable[v.0 as usize].filter(|_| fills_operand(ty)) {
                mem.disp += part as i32 * 32;
                return Arg::Mem(mem);
            }
        }
        Arg::Use(self.reg(v, part), view)
    }

    /// Whether `rm` would give a memory operand.
    pub fn in_memory(&self, v: Val) -> bool {
        let i = v.0 as usize;
        self.hoisted[i].is_none() && (self.constants[i].is_some() || self.foldable[i].is_some() && fills_operand(self.ty(v)))
    }

    /// The load that a value is, where it may move to this use whatever its width.
    pub fn load_of(&self, v: Val) -> Option<Mem> {
        self.foldable[v.0 as usize]
    }

    fn loop_now(&self) -> u32 {
        self.stack.last().copied().unwrap_or(u32::MAX)
    }

    // Addresses

    fn sym(&self, v: Val) -> Sym {
        let home = self.loop_now();
        match self.syms[v.0 as usize] {
            Some(sym) if sym.index.is_none() || sym.home == home => Sym { home, ..sym },
            _ => self.whole(v),
        }
    }

    /// An address or index as the register that has it.
    fn whole(&self, v: Val) -> Sym {
        let home = self.loop_now();
        match self.constant(v) {
            Some(bits) => Sym { base: None, index: None, disp: bits as i64, home },
            None => Sym { base: Some(self.own(v, 0)), index: None, disp: 0, home },
        }
    }

    /// The operand of an access to address + displacement.
    pub fn address(&mut self, ptr: Val, disp: i32) -> Mem {
        let mut sym = self.sym(ptr);
        sym.disp = sym.disp.wrapping_add(i64::from(disp));
        // Parts of a vector lie at larger displacements.
        if let Ok(disp) = i32::try_from(sym.disp.saturating_add(VECTOR_BYTES)) {
            return sym.mem(disp - VECTOR_BYTES as i32);
        }
        Mem { base: Base::Reg(self.sum(sym, false)), index: None, disp: 0 }
    }

    /// Records that an I64 or pointer is a sum, and makes it, in case the sum is needed as a whole.
    pub fn define_sum(&mut self, v: Val, a: Val, b: Val) {
        let (x, y) = (self.sym(a), self.sym(b));
        let sum = x.plus(y).or_else(|| x.plus(self.whole(b))).or_else(|| self.whole(a).plus(y));
        let sum = sum.unwrap_or_else(|| self.whole(a).plus(self.whole(b)).expect("two registers make a sum"));
        self.define_sym(v, sum);
    }

    /// Records that an I64 is another plus a number.
    pub fn define_shifted(&mut self, v: Val, a: Val, by: i64) {
        let mut sym = self.sym(a);
        sym.disp = sym.disp.wrapping_add(by);
        self.define_sym(v, sym);
    }

    /// Records that an I64 is another times 1, 2, 4 or 8, if that can be said; else does nothing.
    pub fn define_scaled(&mut self, v: Val, a: Val, by: u64) -> bool {
        let Some(sym) = self.sym(a).times(by).or_else(|| self.whole(a).times(by)) else { return false };
        self.define_sym(v, sym);
        true
    }

    fn define_sym(&mut self, v: Val, sym: Sym) {
        let r = self.sum(sym, false);
        self.set(v, &[r]);
        if i32::try_from(sym.disp).is_ok() {
            self.syms[v.0 as usize] = Some(sym);
        }
    }

    /// Computes a sum; `over` writes it over its first term, which is right where that is not needed any more.
    fn sum(&mut self, sym: Sym, over: bool) -> V {
        let Ok(disp) = i32::try_from(sym.disp) else {
            let rest = Sym { disp: 0, ..sym };
            let number = self.int_constant(sym.disp as u64);
            if rest.base.is_none() && rest.index.is_none() {
                return number;
            }
            let rest = self.sum(rest, over);
            return self.int_op(Code::Lea_r64_m, View::Q, &[Arg::Mem(Mem { base: Base::Reg(rest), index: Some((number, 1)), disp: 0 })]);
        };
        match (sym.base, sym.index) {
            (None, None) => self.int_constant(sym.disp as u64),
            (Some(base), None) if disp == 0 => base,
            (Some(base), None) if over => self.add_immediate(base, disp),
            (Some(base), Some((index, 1))) if over && disp == 0 => {
                self.in_place(Code::Add_r64_rm64, View::Q, base, &[Arg::Use(index, View::Q)])
            }
            _ => self.int_op(Code::Lea_r64_m, View::Q, &[Arg::Mem(sym.mem(disp))]),
        }
    }

    fn add_immediate(&mut self, to: V, by: i32) -> V {
        if i8::try_from(by).is_ok() {
            self.in_place(Code::Add_rm64_imm8, View::Q, to, &[Arg::Imm(OpKind::Immediate8to64, i64::from(by))])
        } else {
            self.in_place(Code::Add_rm64_imm32, View::Q, to, &[Arg::Imm(OpKind::Immediate32to64, i64::from(by))])
        }
    }

    /// A 64-bit integer in a register.
    pub fn int_constant(&mut self, bits: u64) -> V {
        if u32::try_from(bits).is_ok() {
            return self.int_op(Code::Mov_r32_imm32, View::D, &[Arg::Imm(OpKind::Immediate32, bits as i64)]);
        }
        match i32::try_from(bits as i64) {
            Ok(n) => self.int_op(Code::Mov_rm64_imm32, View::Q, &[Arg::Imm(OpKind::Immediate32to64, i64::from(n))]),
            Err(_) => self.int_op(Code::Mov_r64_imm64, View::Q, &[Arg::Imm(OpKind::Immediate64, bits as i64)]),
        }
    }

    // Statements

    fn body(&mut self, body: &[Stmt]) -> Result<(), String> {
        for stmt in body {
            if self.dead {
                self.skip(std::slice::from_ref(stmt));
                continue;
            }
            self.at += 1;
            match stmt {
                Stmt::Let(v, op) => self.let_(*v, op)?,
                Stmt::Store { ptr, disp, val, count } => self.store(*ptr, *disp, *val, *count)?,
                Stmt::Prefetch { ptr, disp } => {
                    let mem = self.address(*ptr, *disp);
                    self.m.push(Kind::Op(Code::Prefetcht0_m8), &[Arg::Mem(mem)]);
                }
                Stmt::For { iv, start, end, step, carried, body } => self.for_loop(*iv, *start, *end, *step, carried, body)?,
                Stmt::While { carried, head, cond, body } => self.while_loop(carried, head, *cond, body)?,
                Stmt::If { cond, then, otherwise, results } => self.branch(*cond, then, otherwise, results)?,
                Stmt::Fail(status) => {
                    self.m.push(Kind::Ret(*status), &[]);
                    self.dead = true;
                }
            }
        }
        Ok(())
    }

    /// Passes over statements that are not emitted, keeping the numbers of statements and loops right.
    fn skip(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.at += 1;
            match stmt {
                Stmt::For { body, .. } => {
                    self.next_loop += 1;
                    self.skip(body);
                    self.at += 2;
                }
                Stmt::While { head, body, .. } => {
                    self.next_loop += 1;
                    self.skip(head);
                    self.at += 1;
                    self.skip(body);
                    self.at += 2;
                }
                Stmt::If { then, otherwise, .. } => {
                    self.skip(then);
                    self.at += 1;
                    self.skip(otherwise);
                    self.at += 1;
                }
                _ => {}
            }
        }
    }

    fn let_(&mut self, v: Val, op: &Op) -> Result<(), String> {
        if let Some(bits) = self.fold(v, op) {
            self.constants[v.0 as usize] = Some(bits);
            return Ok(());
        }
        let index = matches!(self.ty(v), Ty::I64 | Ty::PTR) && matches!(op, Op::Bin(..) | Op::Offset(..));
        if index && let Some(&same) = self.known.get(op) {
            self.alias(v, same);
            return Ok(());
        }
        if index {
            self.known.insert(op.clone(), v);
            self.known_in_order.push(op.clone());
        }
        match *op {
            Op::Const(bits) => self.constants[v.0 as usize] = Some(bits),
            Op::Offset(a, b) => self.define_sum(v, a, b),
            Op::Load { ptr, disp, count } => {
                let ty = self.ty(v);
                let mem = self.address(ptr, disp);
                let registers = self.load(ty, mem, count as usize)?;
                self.set(v, &registers);
                if self.facts.movable(v) && count == ty.lanes {
                    self.foldable[v.0 as usize] = Some(mem);
                }
            }
            Op::LoadSplat { ptr, disp } => {
                let ty = self.ty(v);
                let mem = self.address(ptr, disp);
                let r = self.load_splat(ty, mem)?;
                self.set(v, &vec![r; Self::parts_of(ty)]);
            }
            _ if self.in_vectors(v, op) => {
                let registers = self.vector(v, op)?;
                self.set(v, &registers);
            }
            _ => self.scalar(v, op)?,
        }
        Ok(())
    }

    /// The value of a scalar integer or mask that is made of constants.
    fn fold(&self, v: Val, op: &Op) -> Option<u64> {
        let elem = self.ty(v).elem;
        if self.ty(v).is_vector() || elem.is_float() {
            return None;
        }
        let of = |v: Val| self.constant(v).filter(|_| !self.ty(v).is_vector() && !self.ty(v).elem.is_float());
        match *op {
            Op::Un(op, a) => Some(interp::un(op, elem)(of(a)?)),
            Op::Bin(op, a, b) => match (op, of(a), of(b)) {
                (op, Some(x), Some(y)) => Some(interp::bin(op, elem)(x, y)),
                (Bin::Mul | Bin::And, Some(0), _) | (Bin::Mul | Bin::And, _, Some(0)) => Some(0),
                _ => None,
            },
            Op::Cmp(op, a, b) => Some(interp::cmp(op, self.ty(a).elem)(of(a)?, of(b)?)),
            Op::Select(mask, a, b) => of(if of(mask)? != 0 { a } else { b }),
            Op::Conv(op @ (Conv::Sext | Conv::Zext | Conv::Wrap | Conv::MaskToInt), a) => {
                Some(interp::conv(op, self.ty(a).elem, elem, of(a)?))
            }
            _ => None,
        }
    }

    /// Lowers an operation that is part of another; gives its value.
    pub fn make(&mut self, ty: Ty, op: &Op) -> Result<Val, String> {
        let v = Val(self.types.len() as u32);
        self.types.push(ty);
        self.ranges.push((0, 0));
        self.syms.push(None);
        self.foldable.push(None);
        self.compares.push(None);
        self.constants.push(None);
        self.hoisted.push(None);
        self.let_(v, op)?;
        Ok(v)
    }

    /// Runs `work` as the body of the next loop, with its most used constants in registers.
    fn in_loop<T>(&mut self, hoist: bool, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let id = self.next_loop;
        let mut mine = vec![];
        if hoist {
            let facts = self.facts;
            let l = &facts.loops[id as usize];
            let room = HOIST_LIMIT.saturating_sub(l.pressure + self.hoisted_now);
            let mut wanted: Vec<(u32, Val)> = l.constants.iter().filter(|(v, _)| self.worth_hoisting(**v)).map(|(&v, &n)| (n, v)).collect();
            wanted.sort_by_key(|&(n, v)| (std::cmp::Reverse(n), v));
            for (_, v) in wanted.into_iter().take(room) {
                let r = self.reg(v, 0);
                self.hoisted[v.0 as usize] = Some(r);
                mine.push(v);
            }
        }
        self.hoisted_now += mine.len();
        let scope = self.scope();
        self.next_loop += 1;
        self.stack.push(id);
        let done = work(self);
        self.stack.pop();
        self.leave(scope);
        self.hoisted_now -= mine.len();
        mine.into_iter().for_each(|v| self.hoisted[v.0 as usize] = None);
        done
    }

    /// What is known before a body that may not run, to be forgotten to by `leave`.
    fn scope(&self) -> (usize, usize) {
        (self.split_bytes.len(), self.known_in_order.len())
    }

    fn leave(&mut self, scope: (usize, usize)) {
        self.split_bytes.truncate(scope.0);
        for op in self.known_in_order.drain(scope.1..) {
            self.known.remove(&op);
        }
    }

    fn worth_hoisting(&self, v: Val) -> bool {
        let ty = self.ty(v);
        (ty.is_vector() || ty.elem.is_float()) && self.constants[v.0 as usize] != Some(0) && self.hoisted[v.0 as usize].is_none()
    }

    /// Registers that hand a value to a block's parameters. Sums are made here, over their first term.
    fn passed(&mut self, v: Val) -> Vec<V> {
        let made_here = self.constant(v).is_none() && self.facts.def_loop(v) == self.loop_now();
        if let Some(sym) = self.syms[v.0 as usize].filter(|_| made_here) {
            return vec![self.sum(sym, true)];
        }
        if let Some(r) = self.hoisted[v.0 as usize] {
            return vec![r; Self::parts_of(self.ty(v))];
        }
        let ty = self.ty(v);
        if !ty.is_vector() && !ty.elem.is_float() {
            return vec![self.int(v)];
        }
        self.regs(v)
    }

    fn all_passed(&mut self, values: impl Iterator<Item = Val>) -> Vec<Arg> {
        let values: Vec<Val> = values.collect();
        values.into_iter().flat_map(|v| self.passed(v)).map(|r| Arg::Use(r, View::Q)).collect()
    }

    /// New registers for values, as parameters of a block.
    fn params(&mut self, values: impl Iterator<Item = Val>) -> Vec<V> {
        let mut all = vec![];
        for v in values {
            let ty = self.ty(v);
            let vector = ty.is_vector() || ty.elem.is_float();
            let registers: Vec<V> =
                (0..Self::parts_of(ty)).map(|_| if vector { self.vec_register() } else { self.int_register() }).collect();
            self.set(v, &registers);
            all.extend(registers);
        }
        all
    }

    /// Gives a value the registers (or the constant) of another.
    fn alias(&mut self, v: Val, of: Val) {
        let i = v.0 as usize;
        match self.constant(of) {
            Some(bits) => self.constants[i] = Some(bits),
            None => {
                let registers = self.regs(of);
                self.set(v, &registers);
                self.syms[i] = self.syms[of.0 as usize];
            }
        }
    }

    fn for_loop(&mut self, iv: Val, start: Val, end: Val, step: i64, carried: &[Carried], body: &[Stmt]) -> Result<(), String> {
        if step <= 0 {
            return Err(format!("a loop of {} has step {step}", self.func.name));
        }
        let trips = match (self.constant(start), self.constant(end)) {
            (Some(s), Some(e)) => Some((e as i64).saturating_sub(s as i64).max(0) as u64).map(|n| n.div_ceil(step as u64)),
            _ => None,
        };
        match trips {
            Some(0) => {
                self.next_loop += 1;
                self.skip(body);
                self.at += 2;
                carried.iter().for_each(|c| self.alias(c.result, c.init));
                return Ok(());
            }
            Some(1) => {
                self.constants[iv.0 as usize] = self.constant(start);
                carried.iter().for_each(|c| self.alias(c.param, c.init));
                self.in_loop(false, |l| l.body(body))?;
                self.at += 2;
                if !self.dead {
                    carried.iter().for_each(|c| self.alias(c.result, c.next));
                }
                return Ok(());
            }
            _ => {}
        }
        let counted = self.facts.uses[iv.0 as usize] == 0;
        // The way around the loop, where it may not run at all.
        let around = match trips {
            Some(_) => None,
            None => {
                let (inside, around) = (self.m.block(vec![]), self.m.block(vec![]));
                let s = self.int(start);
                let e = self.int_arg(end, View::Q);
                let code = compare_code(&e, View::Q);
                self.m.push_after(Some(code), &[Arg::Use(s, View::Q), e], Kind::Branch(cc::L, inside, around), &[]);
                self.m.begin(inside);
                Some(around)
            }
        };
        let latch = self.in_loop(true, |l| {
            // Entry: counter and initial values.
            let first = match (counted, trips) {
                (true, Some(n)) => l.int_constant(n),
                (true, None) => {
                    let (s, e) = (l.int(start), l.int(end));
                    l.in_place(Code::Sub_r64_rm64, View::Q, e, &[Arg::Use(s, View::Q)])
                }
                _ => l.int(start),
            };
            let mut entering = vec![Arg::Use(first, View::Q)];
            entering.extend(l.all_passed(carried.iter().map(|c| c.init)));
            let counter = l.int_register();
            let mut params = vec![counter];
            params.extend(l.params(carried.iter().map(|c| c.param)));
            let head = l.m.block(params);
            if l.facts.loops[l.loop_now() as usize].innermost {
                l.m.align(head);
            }
            l.m.push(Kind::Jump(head), &entering);
            l.m.begin(head);
            l.set(iv, &[counter]);
            l.body(body)?;
            l.at += 1;
            if l.dead {
                return Ok(None);
            }
            // Latch: next values, then the counter, whose flags decide.
            let mut going = l.all_passed(carried.iter().map(|c| c.next));
            let (again, exit) = (l.m.block(vec![]), l.m.block(vec![]));
            let next;
            if counted {
                let by = if trips.is_some() { 1 } else { step };
                next = l.subtract(counter, by);
                let condition = if trips.is_some() { cc::NE } else { cc::G };
                l.m.push(Kind::Branch(condition, again, exit), &[]);
            } else {
                next = match i32::try_from(step) {
                    Ok(step) => l.add_immediate(counter, step),
                    Err(_) => {
                        let step = l.int_constant(step as u64);
                        l.in_place(Code::Add_r64_rm64, View::Q, counter, &[Arg::Use(step, View::Q)])
                    }
                };
                let e = l.int_arg(end, View::Q);
                let code = compare_code(&e, View::Q);
                l.m.push_after(Some(code), &[Arg::Use(next, View::Q), e], Kind::Branch(cc::L, again, exit), &[]);
            }
            going.insert(0, Arg::Use(next, View::Q));
            l.m.begin(again);
            l.m.push(Kind::Jump(head), &going);
            l.m.begin(exit);
            // The registers that have the carried values on the way out.
            Ok(Some(going.into_iter().skip(1).collect::<Vec<Arg>>()))
        })?;
        self.at += 1;
        let Some(around) = around else {
            match latch {
                Some(values) => self.take_results(carried, &values),
                None => self.dead = true,
            }
            return Ok(());
        };
        match latch {
            Some(values) => {
                let params = self.params(carried.iter().map(|c| c.result));
                let merge = self.m.block(params);
                self.m.push(Kind::Jump(merge), &values);
                self.m.begin(around);
                let values = self.all_passed(carried.iter().map(|c| c.init));
                self.m.push(Kind::Jump(merge), &values);
                self.m.begin(merge);
            }
            None => {
                self.dead = false;
                self.m.begin(around);
                carried.iter().for_each(|c| self.alias(c.result, c.init));
            }
        }
        Ok(())
    }

    fn take_results(&mut self, carried: &[Carried], values: &[Arg]) {
        let mut values = values.iter().map(|a| match a {
            Arg::Use(v, _) => *v,
            _ => unreachable!("carried values are registers"),
        });
        for c in carried {
            let registers: Vec<V> = values.by_ref().take(Self::parts_of(self.ty(c.result))).collect();
            self.set(c.result, &registers);
        }
    }

    fn while_loop(&mut self, carried: &[Carried], head: &[Stmt], cond: Val, body: &[Stmt]) -> Result<(), String> {
        self.in_loop(true, |l| {
            let entering = l.all_passed(carried.iter().map(|c| c.init));
            let params = l.params(carried.iter().map(|c| c.param));
            let top = l.m.block(params);
            l.m.push(Kind::Jump(top), &entering);
            l.m.begin(top);
            l.body(head)?;
            l.at += 1;
            if l.dead {
                l.skip(body);
                l.at += 1;
                return Ok(());
            }
            let (inside, exit) = (l.m.block(vec![]), l.m.block(vec![]));
            l.branch_on(cond, inside, exit)?;
            l.m.begin(inside);
            l.body(body)?;
            l.at += 1;
            if !l.dead {
                let going = l.all_passed(carried.iter().map(|c| c.next));
                l.m.push(Kind::Jump(top), &going);
            }
            l.dead = false;
            l.m.begin(exit);
            carried.iter().for_each(|c| l.alias(c.result, c.param));
            Ok(())
        })?;
        self.at += 1;
        Ok(())
    }

    fn branch_on(&mut self, cond: Val, yes: u32, no: u32) -> Result<(), String> {
        let test = self.test(cond);
        self.m.push_after(Some(test.code), &test.args, Kind::Branch(test.cc, yes, no), &[]);
        Ok(())
    }

    fn branch(&mut self, cond: Val, then: &[Stmt], otherwise: &[Stmt], results: &[(Val, Val, Val)]) -> Result<(), String> {
        if let Some(bits) = self.constant(cond) {
            let taken = bits != 0;
            if taken {
                self.body(then)?;
            } else {
                self.skip(then);
            }
            self.at += 1;
            if taken {
                self.skip(otherwise);
            } else {
                self.body(otherwise)?;
            }
            self.at += 1;
            if !self.dead {
                results.iter().for_each(|r| self.alias(r.0, if taken { r.1 } else { r.2 }));
            }
            return Ok(());
        }
        let (yes, no) = (self.m.block(vec![]), self.m.block(vec![]));
        let params = self.params(results.iter().map(|r| r.0));
        let merge = self.m.block(params);
        self.branch_on(cond, yes, no)?;
        let scope = self.scope();
        self.m.begin(yes);
        self.body(then)?;
        self.leave(scope);
        self.at += 1;
        let then_dead = std::mem::take(&mut self.dead);
        if !then_dead {
            let values = self.all_passed(results.iter().map(|r| r.1));
            self.m.push(Kind::Jump(merge), &values);
        }
        self.m.begin(no);
        self.body(otherwise)?;
        self.leave(scope);
        self.at += 1;
        let otherwise_dead = std::mem::take(&mut self.dead);
        if !otherwise_dead {
            let values = self.all_passed(results.iter().map(|r| r.2));
            self.m.push(Kind::Jump(merge), &values);
        }
        self.dead = then_dead && otherwise_dead;
        if !self.dead {
            self.m.begin(merge);
        }
        Ok(())
    }

    fn subtract(&mut self, from: V, by: i64) -> V {
        match (i8::try_from(by), i32::try_from(by)) {
            (Ok(_), _) => self.in_place(Code::Sub_rm64_imm8, View::Q, from, &[Arg::Imm(OpKind::Immediate8to64, by)]),
            (_, Ok(_)) => self.in_place(Code::Sub_rm64_imm32, View::Q, from, &[Arg::Imm(OpKind::Immediate32to64, by)]),
            _ => {
                let by = self.int_constant(by as u64);
                self.in_place(Code::Sub_r64_rm64, View::Q, from, &[Arg::Use(by, View::Q)])
            }
        }
    }
}

/// Whether a value in memory is as long as an instruction would read.
fn fills_operand(ty: Ty) -> bool {
    !ty.is_vector() || ty.bytes() >= 16
}

/// The comparison of a register with an operand of this kind.
pub fn compare_code(b: &Arg, view: View) -> Code {
    let wide = view == View::Q;
    match b {
        Arg::Imm(OpKind::Immediate8to32 | OpKind::Immediate8to64, _) if wide => Code::Cmp_rm64_imm8,
        Arg::Imm(OpKind::Immediate8to32 | OpKind::Immediate8to64, _) => Code::Cmp_rm32_imm8,
        Arg::Imm(..) if wide => Code::Cmp_rm64_imm32,
        Arg::Imm(..) => Code::Cmp_rm32_imm32,
        _ if wide => Code::Cmp_r64_rm64,
        _ => Code::Cmp_r32_rm32,
    }
}

impl Sym {
    fn mem(self, disp: i32) -> Mem {
        match (self.base, self.index) {
            (Some(base), index) => Mem { base: Base::Reg(base), index, disp },
            (None, Some((r, 1))) => Mem { base: Base::Reg(r), index: None, disp },
            (None, index) => Mem { base: Base::None, index, disp },
        }
    }

    /// The sum of two, if it has at most one scaled term and one more.
    fn plus(self, other: Sym) -> Option<Sym> {
        let terms = [self.base.map(|v| (v, 1)), self.index, other.base.map(|v| (v, 1)), other.index];
        let mut terms = terms.into_iter().flatten();
        let (first, second) = (terms.next(), terms.next());
        if terms.next().is_some() {
            return None;
        }
        let disp = self.disp.wrapping_add(other.disp);
        let home = self.home;
        match (first, second) {
            (Some((a, 1)), index) => Some(Sym { base: Some(a), index, disp, home }),
            (Some(index), Some((b, 1))) => Some(Sym { base: Some(b), index: Some(index), disp, home }),
            (Some(index), None) => Some(Sym { base: None, index: Some(index), disp, home }),
            (None, None) => Some(Sym { base: None, index: None, disp, home }),
            _ => None,
        }
    }

    fn times(self, by: u64) -> Option<Sym> {
        let (v, scale) = match (self.base, self.index) {
            (Some(v), None) => (v, 1),
            (None, Some(term)) => term,
            _ => return None,
        };
        let scale = u64::from(scale).checked_mul(by).filter(|s| matches!(s, 1 | 2 | 4 | 8))?;
        Some(Sym { base: None, index: Some((v, scale as u8)), disp: self.disp.wrapping_mul(by as i64), home: self.home })
    }
}

impl Lower<'_> {
    /// A constant's register.
    pub fn make_constant(&mut self, ty: Ty, bits: u64) -> V {
        if !ty.is_vector() && !ty.elem.is_float() {
            let bits = if ty.elem.is_mask() { if bits == 0 { 0 } else { u64::MAX } } else { bits };
            return self.int_constant(bits);
        }
        let view = Self::width(ty);
        let bytes = constant_bytes(ty.elem, bits, 32);
        if bytes.iter().all(|&b| b == 0) {
            return self.zero();
        }
        if ty.is_vector() && bytes.iter().all(|&b| b == 0xFF) {
            let code = sized(Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128, view);
            return self.vec_op(code, view, &[Arg::Again(view); 2]);
        }
        let eight = bytes[..4] != bytes[4..8];
        let mem = self.m.pool(bytes[..if eight { 8 } else { 4 }].to_vec());
        let code = match (ty.is_vector(), eight, view) {
            (false, false, _) => Code::VEX_Vmovss_xmm_m32,
            (false, true, _) => Code::VEX_Vmovsd_xmm_m64,
            (true, false, View::Y) => Code::VEX_Vbroadcastss_ymm_m32,
            (true, false, _) => Code::VEX_Vbroadcastss_xmm_m32,
            (true, true, View::Y) => Code::VEX_Vbroadcastsd_ymm_m64,
            (true, true, _) => Code::VEX_Vmovddup_xmm_xmmm64,
        };
        self.vec_op(code, view, &[Arg::Mem(mem)])
    }

    /// A constant as an operand in memory, as wide as its register.
    pub fn constant_in_memory(&mut self, ty: Ty, bits: u64) -> Mem {
        let bytes = if ty.is_vector() { Self::width(ty).bytes() } else { ty.elem.bytes() };
        self.m.pool(constant_bytes(ty.elem, bits, bytes))
    }

    /// A vector register of zeros.
    pub fn zero(&mut self) -> V {
        self.vec_op(Code::VEX_Vxorps_xmm_xmm_xmmm128, View::X, &[Arg::Again(View::X); 2])
    }
}

/// The bytes of a constant repeated; masks are all ones or zero.
pub fn constant_bytes(elem: Elem, bits: u64, count: usize) -> Vec<u8> {
    let bits = if elem.is_mask() && bits != 0 { u64::MAX } else { bits };
    bits.to_le_bytes()[..elem.bytes()].iter().copied().cycle().take(count).collect()
}

/// The 128- or 256-bit form of an instruction, given the first: it is the next in the encoder's list.
pub fn sized(code: Code, view: View) -> Code {
    match view {
        View::Y => Code::try_from(code as usize + 1).expect("the 256-bit form follows the 128-bit form"),
        _ => code,
    }
}

impl View {
    /// Bytes of a vector register in this view.
    pub fn bytes(self) -> usize {
        match self {
            View::Y => 32,
            View::X => 16,
            View::Q => 8,
            View::D => 4,
            View::W => 2,
            View::B => 1,
        }
    }
}
