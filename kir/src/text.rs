//! The text form of kir: what people and snapshots read. What is printed parses back to the same kernel.

use crate::func::{Carried, Func, Stmt, Tuning};
use crate::op::Op;
use crate::ty::{Ty, Val};
use crate::words::Words;
use std::fmt;

/// The first line of a statement, as error messages quote it.
pub fn line(func: &Func, stmt: &Stmt) -> String {
    let mut out = String::new();
    let _ = Printer { func, out: &mut out, shallow: true }.stmt(stmt, 0);
    out.truncate(out.find('\n').unwrap_or(out.len()));
    out
}

impl fmt::Display for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.replace('\\', "\\\\").replace('"', "\\\"");
        writeln!(f, "kernel \"{name}\" pointers={} {} {{", self.pointers, self.tuning.word())?;
        let mut out = String::new();
        Printer { func: self, out: &mut out, shallow: false }.body(&self.body, 1)?;
        f.write_str(&out)?;
        // A pass that dropped statements leaves values without a definition; their types keep their place.
        let mut made = vec![false; self.types.len()];
        made[..=self.pointers].fill(true);
        defined(&self.body, &mut |v| made[v.0 as usize] = true);
        for (i, ty) in self.types.iter().enumerate().filter(|(i, _)| !made[*i]) {
            writeln!(f, "  unused v{i}:{ty}")?;
        }
        f.write_str("}\n")
    }
}

/// Visits every value that a body defines.
pub(super) fn defined(body: &[Stmt], visit: &mut impl FnMut(Val)) {
    for stmt in body {
        match stmt {
            Stmt::Let(v, _) => visit(*v),
            Stmt::For { iv, carried, body, .. } => {
                visit(*iv);
                carried.iter().for_each(|c| [c.param, c.result].into_iter().for_each(&mut *visit));
                defined(body, visit);
            }
            Stmt::While { carried, head, body, .. } => {
                carried.iter().for_each(|c| [c.param, c.result].into_iter().for_each(&mut *visit));
                defined(head, visit);
                defined(body, visit);
            }
            Stmt::If { then, otherwise, results, .. } => {
                results.iter().for_each(|r| visit(r.0));
                defined(then, visit);
                defined(otherwise, visit);
            }
            Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Fail(_) => {}
        }
    }
}

struct Printer<'a> {
    func: &'a Func,
    out: &'a mut String,
    /// Bodies are left out.
    shallow: bool,
}

impl Printer<'_> {
    fn body(&mut self, body: &[Stmt], depth: usize) -> fmt::Result {
        if !self.shallow {
            for stmt in body {
                self.out.push_str(&"  ".repeat(depth));
                self.stmt(stmt, depth)?;
                self.out.push('\n');
            }
        }
        Ok(())
    }

    fn block(&mut self, body: &[Stmt], depth: usize) -> fmt::Result {
        self.out.push_str("{\n");
        self.body(body, depth + 1)?;
        self.out.push_str(&"  ".repeat(depth));
        self.out.push('}');
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) -> fmt::Result {
        use fmt::Write;
        match stmt {
            Stmt::Let(v, op) => {
                let ty = self.func.ty(*v);
                write!(self.out, "{v}:{ty} = ")?;
                op.print(ty, self.out);
                Ok(())
            }
            Stmt::Store { ptr, disp, val, count } => {
                write!(self.out, "store {val} {}", address(*ptr, *disp))?;
                if *count == self.func.ty(*val).lanes { Ok(()) } else { write!(self.out, " count {count}") }
            }
            Stmt::Prefetch { ptr, disp } => write!(self.out, "prefetch {}", address(*ptr, *disp)),
            Stmt::For { iv, start, end, step, carried, body } => {
                write!(self.out, "for {iv} = {start} to {end} step {step} ")?;
                self.carried(carried)?;
                self.block(body, depth)
            }
            Stmt::While { carried, head, cond, body } => {
                self.out.push_str("while ");
                self.carried(carried)?;
                self.block(head, depth)?;
                write!(self.out, " {cond} ")?;
                self.block(body, depth)
            }
            Stmt::If { cond, then, otherwise, results } => {
                write!(self.out, "if {cond} ")?;
                for (result, a, b) in results {
                    write!(self.out, "({result}:{} = {a} | {b}) ", self.func.ty(*result))?;
                }
                self.block(then, depth)?;
                self.out.push_str(" else ");
                self.block(otherwise, depth)
            }
            Stmt::Fail(status) => write!(self.out, "fail {status}"),
        }
    }

    fn carried(&mut self, carried: &[Carried]) -> fmt::Result {
        use fmt::Write;
        for c in carried {
            write!(self.out, "({}:{} = {} then {} gives {}) ", c.param, self.func.ty(c.param), c.init, c.next, c.result)?;
        }
        Ok(())
    }
}

fn address(ptr: Val, disp: i32) -> String {
    if disp == 0 { format!("[{ptr}]") } else { format!("[{ptr}{disp:+}]") }
}

/// Reads a kernel. The error says what was expected, and at which line.
pub fn parse(text: &str) -> Result<Func, String> {
    let mut p = Parser { words: Words::new(text), types: vec![] };
    p.func().map_err(|why| {
        let (line, word) = p.words.last();
        format!("line {line}, at {word:?}: {why}")
    })
}

struct Parser {
    words: Words,
    types: Vec<Option<Ty>>,
}

impl Parser {
    fn define(&mut self, v: Val, ty: Ty) {
        let i = v.0 as usize;
        if i >= self.types.len() {
            self.types.resize(i + 1, None);
        }
        self.types[i] = Some(ty);
    }

    /// `v1:f32x4`
    fn definition(&mut self) -> Result<(Val, Ty), String> {
        let v = self.words.val()?;
        self.words.expect(":")?;
        let ty = self.words.ty()?;
        self.define(v, ty);
        Ok((v, ty))
    }

    fn func(&mut self) -> Result<Func, String> {
        self.words.expect("kernel")?;
        let name = self.words.next().strip_prefix('"').ok_or("expected a quoted name")?.to_string();
        self.words.expect("pointers")?;
        self.words.expect("=")?;
        let pointers: u8 = self.words.number()?;
        let pointers = usize::from(pointers);
        let word = self.words.next();
        let tuning =
            [Tuning::AsWritten, Tuning::Optimise].into_iter().find(|t| t.word() == word).ok_or("expected as_written or optimise")?;
        self.types = vec![Some(Ty::PTR); pointers];
        self.types.push(Some(Ty::I64));
        let body = self.block()?;
        if !self.words.is_empty() {
            self.words.next();
            return Err("expected nothing more".into());
        }
        let types = self.types.iter().enumerate().map(|(i, t)| t.ok_or(format!("v{i} has no definition"))).collect::<Result<_, _>>()?;
        Ok(Func { name, pointers, types, body, tuning })
    }

    fn block(&mut self) -> Result<Vec<Stmt>, String> {
        self.words.expect("{")?;
        let mut body = vec![];
        while !self.words.eat("}") {
            if self.words.eat("unused") {
                self.definition()?;
            } else {
                body.push(self.stmt()?);
            }
        }
        Ok(body)
    }

    fn stmt(&mut self) -> Result<Stmt, String> {
        match self.words.peek() {
            "store" => {
                self.words.next();
                let val = self.words.val()?;
                let (ptr, disp) = self.address()?;
                let lanes = self.types.get(val.0 as usize).copied().flatten().ok_or("expected a value that is defined")?.lanes;
                let count = if self.words.eat("count") { self.words.number()? } else { lanes };
                Ok(Stmt::Store { ptr, disp, val, count })
            }
            "prefetch" => {
                self.words.next();
                let (ptr, disp) = self.address()?;
                Ok(Stmt::Prefetch { ptr, disp })
            }
            "for" => {
                self.words.next();
                let iv = self.words.val()?;
                self.define(iv, Ty::I64);
                self.words.expect("=")?;
                let start = self.words.val()?;
                self.words.expect("to")?;
                let end = self.words.val()?;
                self.words.expect("step")?;
                let step = self.words.number()?;
                Ok(Stmt::For { iv, start, end, step, carried: self.carried()?, body: self.block()? })
            }
            "while" => {
                self.words.next();
                Ok(Stmt::While { carried: self.carried()?, head: self.block()?, cond: self.words.val()?, body: self.block()? })
            }
            "if" => {
                self.words.next();
                let cond = self.words.val()?;
                let mut results = vec![];
                while self.words.eat("(") {
                    let (result, _) = self.definition()?;
                    self.words.expect("=")?;
                    let a = self.words.val()?;
                    self.words.expect("|")?;
                    results.push((result, a, self.words.val()?));
                    self.words.expect(")")?;
                }
                let then = self.block()?;
                self.words.expect("else")?;
                Ok(Stmt::If { cond, then, otherwise: self.block()?, results })
            }
            "fail" => {
                self.words.next();
                Ok(Stmt::Fail(self.words.number()?))
            }
            _ => {
                let (v, ty) = self.definition()?;
                self.words.expect("=")?;
                Ok(Stmt::Let(v, Op::parse(&mut self.words, ty)?))
            }
        }
    }

    fn carried(&mut self) -> Result<Vec<Carried>, String> {
        let mut out = vec![];
        while self.words.eat("(") {
            let (param, ty) = self.definition()?;
            self.words.expect("=")?;
            let init = self.words.val()?;
            self.words.expect("then")?;
            let next = self.words.val()?;
            self.words.expect("gives")?;
            let result = self.words.val()?;
            self.define(result, ty);
            self.words.expect(")")?;
            out.push(Carried { param, init, next, result });
        }
        Ok(out)
    }

    fn address(&mut self) -> Result<(Val, i32), String> {
        self.words.expect("[")?;
        let ptr = self.words.val()?;
        let disp = if self.words.peek() == "]" { 0 } else { self.words.number()? };
        self.words.expect("]")?;
        Ok((ptr, disp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Cmp, Elem, Fold};

    #[test]
    fn a_kernel_reads_as_written() {
        let mut b = Builder::new("sum \"of\" rows", 2);
        let ty = Ty::vector(Elem::F32, 8);
        let zero = b.number(ty, 0.0);
        let sum = b.for_count(4, &[zero], |b, i, v| {
            let p = b.element(b.param(0), i, 12);
            let x = b.load_part(ty, p, -4, 3);
            vec![b.add(v[0], x)]
        });
        let total = b.reduce(Fold::Add, sum[0]);
        let zero = b.number(Ty::F32, 0.0);
        let bad = b.cmp(Cmp::Lt, total, zero);
        b.when(bad, |b| b.fail(3));
        b.store(total, b.param(1), 0);
        let func = b.finish();
        let text = func.to_string();
        assert_eq!(
            text,
            r#"kernel "sum \"of\" rows" pointers=2 as_written {
  v3:f32x8 = const 0x0 ; 0.0
  v4:i64 = const 0x0
  v5:i64 = const 0x4
  v8:i64 = const 0xc ; 12
  v15:f32 = const 0x0 ; 0.0
  for v6 = v4 to v5 step 1 (v7:f32x8 = v3 then v12 gives v13) {
    v9:i64 = mul v6 v8
    v10:ptr = offset v0 v9
    v11:f32x8 = load [v10-4] count 3
    v12:f32x8 = add v7 v11
  }
  v14:f32 = reduce_add v13
  v16:m32 = lt v14 v15
  if v16 {
    fail 3
  } else {
  }
  store v14 [v1]
}
"#
        );
        assert_eq!(parse(&text).unwrap(), func);
    }

    #[test]
    fn errors_name_line_and_word() {
        let why = parse("kernel \"k\" pointers=1 as_written {\n  v2:f32 = lode [v0]\n}\n").unwrap_err();
        assert_eq!(why, "line 2, at \"lode\": expected an operation");
    }
}
