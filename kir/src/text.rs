//! The text form of kir: what people and snapshots read. What is printed parses back to the same kernel.

use super::{Bin, Carried, Cmp, Conv, Elem, Fold, Func, Op, Stmt, Tuning, Ty, Un, Val};
use std::fmt;

macro_rules! names {
    ($($name:ident: $ty:ident { $($variant:ident $word:literal)* })*) => {
        $(
            pub(super) const $name: &[($ty, &str)] = &[$(($ty::$variant, $word)),*];
            impl fmt::Display for $ty {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(match self { $($ty::$variant => $word),* })
                }
            }
        )*
    };
}

names! {
    ELEMS: Elem { I8 "i8" I16 "i16" I32 "i32" I64 "i64" F32 "f32" F64 "f64" Ptr "ptr" M8 "m8" M16 "m16" M32 "m32" M64 "m64" }
    UNS: Un { Neg "neg" Abs "abs" Sqrt "sqrt" Floor "floor" Ceil "ceil" Trunc "trunc" Nearest "nearest" Not "not" }
    BINS: Bin {
        Add "add" Sub "sub" Mul "mul" Div "div" DivS "div_s" DivU "div_u" RemS "rem_s" RemU "rem_u" Min "min" Max "max" MinS "min_s"
        MaxS "max_s" MinU "min_u" MaxU "max_u" And "and" Or "or" Xor "xor" Shl "shl" ShrS "shr_s" ShrU "shr_u"
    }
    CMPS: Cmp { Eq "eq" Ne "ne" Lt "lt" Le "le" Gt "gt" Ge "ge" LtU "lt_u" LeU "le_u" GtU "gt_u" GeU "ge_u" }
    CONVS: Conv {
        Sext "sext" Zext "zext" Wrap "wrap" IntToFloat "int_to_float" UintToFloat "uint_to_float" FloatToInt "float_to_int"
        FloatToUint "float_to_uint" FloatToFloat "float_to_float" Bits "bits" MaskToInt "mask_to_int" HalfToFloat "half_to_float"
        FloatToHalf "float_to_half"
    }
    FOLDS: Fold { Add "reduce_add" Min "reduce_min" Max "reduce_max" }
    TUNINGS: Tuning { AsWritten "as_written" Optimise "optimise" }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => write!(f, "{}", self.elem),
            n => write!(f, "{}x{n}", self.elem),
        }
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

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
        writeln!(f, "kernel \"{name}\" pointers={} {} {{", self.pointers, self.tuning)?;
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
                self.op(ty, op)
            }
            Stmt::Store { ptr, disp, val, count } => {
                write!(self.out, "store {val} {}", address(*ptr, *disp))?;
                self.count(self.func.ty(*val), *count)
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

    fn count(&mut self, ty: Ty, count: u8) -> fmt::Result {
        use fmt::Write;
        if count == ty.lanes { Ok(()) } else { write!(self.out, " count {count}") }
    }

    fn op(&mut self, ty: Ty, op: &Op) -> fmt::Result {
        use fmt::Write;
        let out = &mut *self.out;
        match op {
            Op::Const(bits) => {
                write!(out, "const {bits:#x}")?;
                match ty.elem {
                    Elem::F32 => write!(out, " ; {:?}", f32::from_bits(*bits as u32)),
                    Elem::F64 => write!(out, " ; {:?}", f64::from_bits(*bits)),
                    _ if *bits > 9 && !ty.elem.is_mask() => write!(out, " ; {bits}"),
                    _ => Ok(()),
                }
            }
            Op::Un(op, a) => write!(out, "{op} {a}"),
            Op::Bin(op, a, b) => write!(out, "{op} {a} {b}"),
            Op::Fma(a, b, c) => write!(out, "fma {a} {b} {c}"),
            Op::Cmp(op, a, b) => write!(out, "{op} {a} {b}"),
            Op::Select(m, a, b) => write!(out, "select {m} {a} {b}"),
            Op::Conv(op, a) => write!(out, "{op} {a}"),
            Op::Splat(a) => write!(out, "splat {a}"),
            Op::Extract(a, lane) => write!(out, "extract {a} {lane}"),
            Op::Insert(a, x, lane) => write!(out, "insert {a} {x} {lane}"),
            Op::Shuffle(a, b, pick) => {
                write!(out, "shuffle {a} {b}")?;
                pick.iter().try_for_each(|p| write!(out, " {p}"))
            }
            Op::Half(a, upper) => write!(out, "{} {a}", if *upper { "upper" } else { "lower" }),
            Op::Join(a, b) => write!(out, "join {a} {b}"),
            Op::Reduce(fold, a) => write!(out, "{fold} {a}"),
            Op::Any(a) => write!(out, "any {a}"),
            Op::Dot2(acc, a, b) => write!(out, "dot2 {acc} {a} {b}"),
            Op::Dot4(acc, a, b) => write!(out, "dot4 {acc} {a} {b}"),
            Op::Offset(p, bytes) => write!(out, "offset {p} {bytes}"),
            Op::Load { ptr, disp, count } => {
                write!(out, "load {}", address(*ptr, *disp))?;
                self.count(ty, *count)
            }
            Op::LoadSplat { ptr, disp } => write!(out, "load_splat {}", address(*ptr, *disp)),
        }
    }
}

fn address(ptr: Val, disp: i32) -> String {
    if disp == 0 { format!("[{ptr}]") } else { format!("[{ptr}{disp:+}]") }
}

/// Reads a kernel. The error says what was expected, and at which line.
pub fn parse(text: &str) -> Result<Func, String> {
    let mut p = Parser { words: words(text), at: 0, types: vec![] };
    p.func().map_err(|why| {
        let (line, word) = p.words.get(p.at.saturating_sub(1)).map_or((0, "the end"), |w| (w.0, w.1.as_str()));
        format!("line {line}, at {word:?}: {why}")
    })
}

/// Words with their lines: names and numbers, quoted strings, and punctuation alone.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut out = vec![];
    let mut quoted: Option<String> = None;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            if let Some(word) = &mut quoted {
                match c {
                    '"' => out.push((n + 1, quoted.take().expect("inside a string"))),
                    '\\' => word.extend(chars.next()),
                    c => word.push(c),
                }
                continue;
            }
            match c {
                '"' => quoted = Some("\"".into()),
                ';' => break,
                c if c.is_whitespace() => {}
                c if c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '+' => {
                    let mut word = String::from(c);
                    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        word.push(c);
                    }
                    out.push((n + 1, word));
                }
                c => out.push((n + 1, c.into())),
            }
        }
    }
    out
}

struct Parser {
    words: Vec<(usize, String)>,
    at: usize,
    types: Vec<Option<Ty>>,
}

impl Parser {
    fn peek(&self) -> &str {
        self.words.get(self.at).map_or("", |w| &w.1)
    }

    fn next(&mut self) -> String {
        let word = self.peek().to_string();
        self.at += 1;
        word
    }

    fn eat(&mut self, word: &str) -> bool {
        let is = self.peek() == word;
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.next() == word { Ok(()) } else { Err(format!("expected `{word}`")) }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, String> {
        self.next().parse().map_err(|_| "expected a number in range".into())
    }

    fn val(&mut self) -> Result<Val, String> {
        let word = self.next();
        // Values are dense; the bound keeps a mistyped number from asking for gigabytes.
        let n = word.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()).filter(|n| *n < 1 << 24);
        n.map(Val).ok_or_else(|| "expected a value".into())
    }

    fn ty(&mut self) -> Result<Ty, String> {
        let word = self.next();
        let (elem, lanes) = word.split_once('x').unwrap_or((&word, "1"));
        let elem = ELEMS.iter().find(|e| e.1 == elem).ok_or("expected a type")?.0;
        Ok(Ty { elem, lanes: lanes.parse().map_err(|_| "expected a number of lanes")? })
    }

    fn define(&mut self, v: Val, ty: Ty) {
        let i = v.0 as usize;
        if i >= self.types.len() {
            self.types.resize(i + 1, None);
        }
        self.types[i] = Some(ty);
    }

    /// `v1:f32x4`
    fn definition(&mut self) -> Result<(Val, Ty), String> {
        let v = self.val()?;
        self.expect(":")?;
        let ty = self.ty()?;
        self.define(v, ty);
        Ok((v, ty))
    }

    fn func(&mut self) -> Result<Func, String> {
        self.expect("kernel")?;
        let name = self.next().strip_prefix('"').ok_or("expected a quoted name")?.to_string();
        self.expect("pointers")?;
        self.expect("=")?;
        let pointers: u8 = self.number()?;
        let pointers = usize::from(pointers);
        let word = self.next();
        let tuning = TUNINGS.iter().find(|t| t.1 == word).ok_or("expected as_written or optimise")?.0;
        self.types = vec![Some(Ty::PTR); pointers];
        self.types.push(Some(Ty::I64));
        let body = self.block()?;
        if self.at < self.words.len() {
            self.at += 1;
            return Err("expected nothing more".into());
        }
        let types = self.types.iter().enumerate().map(|(i, t)| t.ok_or(format!("v{i} has no definition"))).collect::<Result<_, _>>()?;
        Ok(Func { name, pointers, types, body, tuning })
    }

    fn block(&mut self) -> Result<Vec<Stmt>, String> {
        self.expect("{")?;
        let mut body = vec![];
        while !self.eat("}") {
            if self.eat("unused") {
                self.definition()?;
            } else {
                body.push(self.stmt()?);
            }
        }
        Ok(body)
    }

    fn stmt(&mut self) -> Result<Stmt, String> {
        match self.peek() {
            "store" => {
                self.at += 1;
                let val = self.val()?;
                let (ptr, disp) = self.address()?;
                let lanes = self.types.get(val.0 as usize).copied().flatten().ok_or("expected a value that is defined")?.lanes;
                Ok(Stmt::Store { ptr, disp, val, count: self.count(lanes)? })
            }
            "prefetch" => {
                self.at += 1;
                let (ptr, disp) = self.address()?;
                Ok(Stmt::Prefetch { ptr, disp })
            }
            "for" => {
                self.at += 1;
                let iv = self.val()?;
                self.define(iv, Ty::I64);
                self.expect("=")?;
                let start = self.val()?;
                self.expect("to")?;
                let end = self.val()?;
                self.expect("step")?;
                let step = self.number()?;
                Ok(Stmt::For { iv, start, end, step, carried: self.carried()?, body: self.block()? })
            }
            "while" => {
                self.at += 1;
                Ok(Stmt::While { carried: self.carried()?, head: self.block()?, cond: self.val()?, body: self.block()? })
            }
            "if" => {
                self.at += 1;
                let cond = self.val()?;
                let mut results = vec![];
                while self.eat("(") {
                    let (result, _) = self.definition()?;
                    self.expect("=")?;
                    let a = self.val()?;
                    self.expect("|")?;
                    results.push((result, a, self.val()?));
                    self.expect(")")?;
                }
                let then = self.block()?;
                self.expect("else")?;
                Ok(Stmt::If { cond, then, otherwise: self.block()?, results })
            }
            "fail" => {
                self.at += 1;
                Ok(Stmt::Fail(self.number()?))
            }
            _ => {
                let (v, ty) = self.definition()?;
                self.expect("=")?;
                Ok(Stmt::Let(v, self.op(ty)?))
            }
        }
    }

    fn carried(&mut self) -> Result<Vec<Carried>, String> {
        let mut out = vec![];
        while self.eat("(") {
            let (param, ty) = self.definition()?;
            self.expect("=")?;
            let init = self.val()?;
            self.expect("then")?;
            let next = self.val()?;
            self.expect("gives")?;
            let result = self.val()?;
            self.define(result, ty);
            self.expect(")")?;
            out.push(Carried { param, init, next, result });
        }
        Ok(out)
    }

    fn address(&mut self) -> Result<(Val, i32), String> {
        self.expect("[")?;
        let ptr = self.val()?;
        let disp = if self.peek() == "]" { 0 } else { self.number()? };
        self.expect("]")?;
        Ok((ptr, disp))
    }

    fn count(&mut self, lanes: u8) -> Result<u8, String> {
        if self.eat("count") { self.number() } else { Ok(lanes) }
    }

    fn op(&mut self, ty: Ty) -> Result<Op, String> {
        let word = self.next();
        fn named<T: Copy>(table: &[(T, &str)], word: &str) -> Option<T> {
            table.iter().find(|t| t.1 == word).map(|t| t.0)
        }
        if let Some(op) = named(UNS, &word) {
            return Ok(Op::Un(op, self.val()?));
        }
        if let Some(op) = named(BINS, &word) {
            return Ok(Op::Bin(op, self.val()?, self.val()?));
        }
        if let Some(op) = named(CMPS, &word) {
            return Ok(Op::Cmp(op, self.val()?, self.val()?));
        }
        if let Some(op) = named(CONVS, &word) {
            return Ok(Op::Conv(op, self.val()?));
        }
        if let Some(fold) = named(FOLDS, &word) {
            return Ok(Op::Reduce(fold, self.val()?));
        }
        Ok(match word.as_str() {
            "const" => {
                let word = self.next();
                let bits = word.strip_prefix("0x").and_then(|w| u64::from_str_radix(w, 16).ok());
                Op::Const(bits.ok_or("expected a number like 0x1f")?)
            }
            "fma" => Op::Fma(self.val()?, self.val()?, self.val()?),
            "select" => Op::Select(self.val()?, self.val()?, self.val()?),
            "splat" => Op::Splat(self.val()?),
            "extract" => Op::Extract(self.val()?, self.number()?),
            "insert" => Op::Insert(self.val()?, self.val()?, self.number()?),
            "shuffle" => {
                let (a, b) = (self.val()?, self.val()?);
                Op::Shuffle(a, b, (0..ty.lanes).map(|_| self.number()).collect::<Result<_, _>>()?)
            }
            "upper" => Op::Half(self.val()?, true),
            "lower" => Op::Half(self.val()?, false),
            "join" => Op::Join(self.val()?, self.val()?),
            "any" => Op::Any(self.val()?),
            "dot2" => Op::Dot2(self.val()?, self.val()?, self.val()?),
            "dot4" => Op::Dot4(self.val()?, self.val()?, self.val()?),
            "offset" => Op::Offset(self.val()?, self.val()?),
            "load" => {
                let (ptr, disp) = self.address()?;
                Op::Load { ptr, disp, count: self.count(ty.lanes)? }
            }
            "load_splat" => {
                let (ptr, disp) = self.address()?;
                Op::LoadSplat { ptr, disp }
            }
            _ => return Err("expected an operation".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Builder;
    use super::*;

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
