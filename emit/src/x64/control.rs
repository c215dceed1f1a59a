//! Statements and control flow: loops, branches, what passes between their bodies.

use super::lower::{Lower, compare_code};
use super::mach::{Arg, Kind, V, cc};
use super::view::View;
use dnnc_kir::{Carried, Stmt, Val};
use iced_x86::{Code, OpKind};
use regalloc2::RegClass;

impl Lower<'_> {
    /// Statements one after another, up to one that ends the kernel.
    pub fn body(&mut self, body: &[Stmt]) -> Result<(), String> {
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
    pub fn skip(&mut self, body: &[Stmt]) {
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

    /// Runs `work` as the body of the next loop, with its most used constants in registers.
    fn in_loop<T>(&mut self, hoist: bool, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let id = self.next_loop;
        let mut mine = vec![];
        if hoist {
            let live = self.live;
            let l = &live.loops[id as usize];
            let room = self.isa.hoist_limit().saturating_sub(l.pressure + self.hoisted_now);
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
    fn scope(&self) -> [usize; 3] {
        [self.split_bytes.len(), self.mask_constants.len(), self.known_in_order.len()]
    }

    fn leave(&mut self, [split_bytes, mask_constants, known]: [usize; 3]) {
        self.split_bytes.truncate(split_bytes);
        self.mask_constants.truncate(mask_constants);
        for op in self.known_in_order.drain(known..) {
            self.known.remove(&op);
        }
    }

    fn worth_hoisting(&self, v: Val) -> bool {
        let ty = self.ty(v);
        self.class_of(ty) == RegClass::Float && self.constants[v.0 as usize] != Some(0) && self.hoisted[v.0 as usize].is_none()
    }

    /// Registers that hand a value to a block's parameters. Sums are made here, over their first term.
    fn passed(&mut self, v: Val) -> Vec<V> {
        let made_here = self.constant(v).is_none() && self.live.def_loop(v) == self.loop_now();
        if let Some(sym) = self.syms[v.0 as usize].filter(|_| made_here) {
            return vec![self.sum(sym, true)];
        }
        if let Some(r) = self.hoisted[v.0 as usize] {
            return vec![r; self.parts_of(self.ty(v))];
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
            let class = self.class_of(ty);
            let registers: Vec<V> = (0..self.parts_of(ty)).map(|_| self.m.fresh(class)).collect();
            self.set(v, &registers);
            all.extend(registers);
        }
        all
    }

    /// Gives a value the registers (or the constant) of another.
    pub fn alias(&mut self, v: Val, of: Val) {
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
        let counted = self.live.uses[iv.0 as usize] == 0;
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
            if l.live.loops[l.loop_now() as usize].innermost {
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
                let scope = self.scope();
                let values = self.all_passed(carried.iter().map(|c| c.init));
                self.leave(scope);
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
            let registers: Vec<V> = values.by_ref().take(self.parts_of(self.ty(c.result))).collect();
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
        self.at += 1;
        let then_dead = std::mem::take(&mut self.dead);
        if !then_dead {
            let values = self.all_passed(results.iter().map(|r| r.1));
            self.m.push(Kind::Jump(merge), &values);
        }
        self.leave(scope);
        self.m.begin(no);
        self.body(otherwise)?;
        self.at += 1;
        let otherwise_dead = std::mem::take(&mut self.dead);
        if !otherwise_dead {
            let values = self.all_passed(results.iter().map(|r| r.2));
            self.m.push(Kind::Jump(merge), &values);
        }
        self.leave(scope);
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
