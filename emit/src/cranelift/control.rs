//! Statements, loops and branches.

use super::folding::Folded;
use super::translator::{Translator, args, part_count, value_type};
use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{Block, Value};
use dnnc_kir::{Carried, Stmt, Val};

impl<'a> Translator<'a> {
    pub fn body(&mut self, body: &'a [Stmt]) {
        for stmt in body {
            self.stmt(stmt);
        }
    }

    pub fn stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Let(v, op) => {
                match self.fold(self.ty(*v), op) {
                    Folded::Known(bits) => self.known[v.0 as usize] = Some(bits),
                    Folded::Same(other) => self.alias(*v, other),
                    Folded::Not => {
                        let parts = self.op(self.ty(*v), op);
                        self.set(*v, parts);
                    }
                }
                self.ops[v.0 as usize] = Some(op);
            }
            Stmt::Store { ptr, disp, val, count } => self.store(*ptr, *disp, *val, *count),
            // Cranelift has no instruction for it.
            Stmt::Prefetch { .. } => {}
            Stmt::For { iv, start, end, step, carried, body } => self.for_loop(*iv, *start, *end, *step, carried, body),
            Stmt::While { carried, head, cond, body } => self.while_loop(carried, head, *cond, body),
            Stmt::If { cond, then, otherwise, results } => self.branch(*cond, then, otherwise, results),
            Stmt::Fail(status) => {
                self.leave(*status);
                // What follows cannot be reached, but it has to be somewhere.
                let after = self.b.create_block();
                self.b.switch_to_block(after);
                self.b.seal_block(after);
            }
        }
    }

    pub fn leave(&mut self, status: i32) {
        let status = self.b.ins().iconst(I32, i64::from(status as u32));
        self.b.ins().return_(&[status]);
    }

    pub fn all(&mut self, values: impl Iterator<Item = Val>) -> Vec<Value> {
        values.flat_map(|v| self.get(v)).collect()
    }

    /// Names the parameters of a block after kir values.
    pub fn accept(&mut self, block: Block, values: impl Iterator<Item = Val>) {
        for v in values {
            let ty = self.ty(v);
            let parts = (0..part_count(ty)).map(|_| self.b.append_block_param(block, value_type(ty))).collect();
            self.set(v, parts);
        }
    }

    pub fn alias(&mut self, to: Val, from: Val) {
        self.known[to.0 as usize] = self.known(from);
        self.parts[to.0 as usize] = self.parts[from.0 as usize].clone();
    }

    pub fn for_loop(&mut self, iv: Val, start: Val, end: Val, step: i64, carried: &'a [Carried], body: &'a [Stmt]) {
        let known = self.known(start).zip(self.known(end)).map(|(start, end)| (start as i64, end as i64));
        match known {
            Some((start, end)) if start >= end => carried.iter().for_each(|c| self.alias(c.result, c.init)),
            Some((first, last)) if first.saturating_add(step) >= last => {
                self.alias(iv, start);
                carried.iter().for_each(|c| self.alias(c.param, c.init));
                self.body(body);
                carried.iter().for_each(|c| self.alias(c.result, c.next));
            }
            _ => {
                let (head, exit) = (self.b.create_block(), self.b.create_block());
                let (first, last) = (self.one(start), self.one(end));
                let inits = self.all(carried.iter().map(|c| c.init));
                let enter = args(std::iter::once(&first).chain(&inits));
                if known.is_some() {
                    self.b.ins().jump(head, &enter);
                } else {
                    self.accept(exit, carried.iter().map(|c| c.result));
                    let any = self.b.ins().icmp(IntCC::SignedLessThan, first, last);
                    self.b.ins().brif(any, head, &enter, exit, &args(&inits));
                }
                self.accept(head, std::iter::once(iv).chain(carried.iter().map(|c| c.param)));
                self.b.switch_to_block(head);
                self.body(body);
                let nexts = self.all(carried.iter().map(|c| c.next));
                let i = self.one(iv);
                let step = self.b.ins().iconst(I64, step);
                let i = self.b.ins().iadd(i, step);
                let more = self.b.ins().icmp(IntCC::SignedLessThan, i, last);
                let again = args(std::iter::once(&i).chain(&nexts));
                // A loop that is entered for certain has one way out, which its last values dominate.
                let out = if known.is_some() { vec![] } else { args(&nexts) };
                self.b.ins().brif(more, head, &again, exit, &out);
                self.b.seal_block(head);
                self.b.switch_to_block(exit);
                self.b.seal_block(exit);
                if known.is_some() {
                    carried.iter().for_each(|c| self.alias(c.result, c.next));
                }
            }
        }
    }

    pub fn while_loop(&mut self, carried: &'a [Carried], head: &'a [Stmt], cond: Val, body: &'a [Stmt]) {
        let (top, inside, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let inits = self.all(carried.iter().map(|c| c.init));
        self.b.ins().jump(top, &args(&inits));
        self.accept(top, carried.iter().map(|c| c.param));
        self.b.switch_to_block(top);
        self.body(head);
        let cond = self.one(cond);
        self.b.ins().brif(cond, inside, &[], exit, &[]);
        self.b.switch_to_block(inside);
        self.b.seal_block(inside);
        self.body(body);
        let nexts = self.all(carried.iter().map(|c| c.next));
        self.b.ins().jump(top, &args(&nexts));
        self.b.seal_block(top);
        self.b.switch_to_block(exit);
        self.b.seal_block(exit);
        carried.iter().for_each(|c| self.alias(c.result, c.param));
    }

    pub fn branch(&mut self, cond: Val, then: &'a [Stmt], otherwise: &'a [Stmt], results: &'a [(Val, Val, Val)]) {
        let (yes, no, merge) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let cond = self.one(cond);
        self.b.ins().brif(cond, yes, &[], no, &[]);
        self.accept(merge, results.iter().map(|r| r.0));
        for (block, body, upper) in [(yes, then, true), (no, otherwise, false)] {
            self.b.switch_to_block(block);
            self.b.seal_block(block);
            self.body(body);
            let values = self.all(results.iter().map(|r| if upper { r.1 } else { r.2 }));
            self.b.ins().jump(merge, &args(&values));
        }
        self.b.switch_to_block(merge);
        self.b.seal_block(merge);
    }
}
