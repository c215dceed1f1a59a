//! kir through Cranelift, for every instruction set it knows.
//!
//! Cranelift's vectors have 128 bits. A wider kir vector becomes several of them, a narrower one lies in the low lanes of one, with anything
//! above. Vector masks are integer vectors of all ones or zeros; a scalar mask is an I8 that is 0 or 1. No operation may become a call of a library:
//! what the machine has no instruction for is written out here.

use crate::code::Code;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, F64, F64X2, I8, I8X16, I16, I16X8, I32, I32X4, I64};
use cranelift_codegen::ir::{
    AbiParam, BlockArg, ConstantData, Endianness, Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value,
};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, isa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use dnnc_kir::{Bin, Carried, Cmp, Conv, Elem, Fold, Func, Op, Stmt, Tuning, Ty, Un, Val};
use dnnc_targets::Target;
use std::collections::{BTreeSet, HashMap};
use target_lexicon::{Architecture, Triple};

/// Cranelift for one machine, with and without its optimiser.
pub struct Clif {
    as_written: OwnedTargetIsa,
    optimise: OwnedTargetIsa,
    facts: Facts,
}

/// What the machine has, where the way to write an operation depends on it.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// Fused multiply-add.
    fma: bool,
    /// Any permutation of bytes in an instruction.
    permute: bool,
    /// Rounding of floats to integral floats.
    round: bool,
    /// Truncation of lanes by taking every second of two registers.
    unzip: bool,
    /// Narrowing 32-bit lanes to 16 bits with unsigned saturation.
    pack_unsigned: bool,
    /// Selection between scalar floats costs a branch; between lanes it does not.
    select_lanes: bool,
    /// Multiplication of bytes.
    byte_mul: bool,
    /// A vector operand in memory may lie anywhere.
    unaligned_operands: bool,
    /// Pairs of 16-bit products summed in one instruction.
    pair_products: bool,
    /// A factor of a multiply-add may be one lane of a register.
    by_element: bool,
}

/// An instruction set with the flags we compile with.
pub fn isa(target: &Target, opt_level: &str, pic: bool) -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("opt_level", opt_level),
        ("is_pic", if pic { "true" } else { "false" }),
        ("enable_verifier", verifier),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
    ] {
        flags.set(name, value).map_err(|e| format!("Cranelift's flag {name}: {e}"))?;
    }
    let triple: Triple = target.triple.parse().map_err(|e| format!("target {}: {e}", target.name))?;
    let mut builder = isa::lookup(triple).map_err(|e| format!("target {}: {e}", target.name))?;
    for feature in target.features {
        builder.enable(feature).map_err(|e| format!("target {}: feature {feature}: {e}", target.name))?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|e| format!("target {}: {e}", target.name))
}

impl Clif {
    /// Cranelift for a machine; fails when its triple or a feature is unknown.
    pub fn new(target: &Target) -> Result<Clif, String> {
        let optimise = isa(target, "speed", true)?;
        let x64 = optimise.triple().architecture == Architecture::X86_64;
        let has = |feature: &str| !x64 || target.features.contains(&feature);
        let facts = Facts {
            fma: has("has_fma"),
            permute: has("has_ssse3"),
            round: has("has_sse41"),
            unzip: !x64,
            pack_unsigned: has("has_sse41"),
            select_lanes: x64,
            byte_mul: !x64,
            unaligned_operands: has("has_avx"),
            pair_products: x64,
            by_element: target.vector.by_element,
        };
        Ok(Clif { as_written: isa(target, "none", true)?, optimise, facts })
    }

    /// Emits a kernel.
    pub fn emit(&self, func: &Func) -> Result<Code, String> {
        self.compile(func, false).map(|(code, _)| code)
    }

    /// The instructions of a kernel before encoding, for people and for tests that count spills.
    pub fn listing(&self, func: &Func) -> Result<String, String> {
        self.compile(func, true).map(|(_, text)| text)
    }

    fn compile(&self, func: &Func, listing: bool) -> Result<(Code, String), String> {
        let isa = match func.tuning {
            Tuning::AsWritten => &self.as_written,
            Tuning::Optimise => &self.optimise,
        };
        let mut context = Context::for_function(translate(func, self.facts, isa.as_ref()));
        context.set_disasm(listing);
        let compiled =
            context.compile(isa.as_ref(), &mut Default::default()).map_err(|e| format!("kernel {}: {:?}", func.name, e.inner))?;
        if let Some(reloc) = compiled.buffer.relocs().first() {
            return Err(format!("kernel {}: the machine code refers to {:?}", func.name, reloc.target));
        }
        let code = Code { bytes: compiled.code_buffer().to_vec(), align: u64::from(compiled.buffer.alignment).max(16) };
        Ok((code, compiled.vcode.clone().unwrap_or_default()))
    }
}

/// Parameters and results of a kernel with so many pointers.
pub fn signature(pointers: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); pointers + 1];
    signature.returns = vec![AbiParam::new(I32)];
    signature
}

fn translate(func: &Func, facts: Facts, isa: &dyn isa::TargetIsa) -> Function {
    let mut function = Function::with_name_signature(UserFuncName::user(0, 0), signature(func.pointers));
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let params = b.block_params(entry).to_vec();
    let count = func.types.len();
    let (parts, ops, known) = (vec![vec![]; count], vec![None; count], vec![None; count]);
    let mut t = Translator { b, func, facts, parts, ops, known, factors: HashMap::new() };
    for (i, p) in params.into_iter().enumerate() {
        t.parts[i] = vec![p];
    }
    if facts.by_element {
        t.gather_factors();
    }
    t.body(&func.body);
    t.leave(0);
    t.b.finalize(isa.frontend_config());
    function
}

/// Values that are factors of multiply-adds.
fn factors(body: &[Stmt], found: &mut BTreeSet<Val>) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, Op::Fma(a, b, _)) => found.extend([*a, *b]),
            Stmt::For { body, .. } => factors(body, found),
            Stmt::While { head, body, .. } => [head, body].into_iter().for_each(|body| factors(body, found)),
            Stmt::If { then, otherwise, .. } => [then, otherwise].into_iter().for_each(|body| factors(body, found)),
            Stmt::Let(..) | Stmt::Store { .. } | Stmt::Prefetch { .. } | Stmt::Fail(_) => {}
        }
    }
}

/// What is known of the result of an operation.
enum Folded {
    Known(u64),
    Same(Val),
    Not,
}

/// (m, s, carries) such that ⌊x / by⌋ is ⌊x·m / 2^(64 + s)⌋ for all x of 64 bits, or ⌊x·(m + 2^64) / 2^(64 + s)⌋ where it carries; not for powers
/// of two (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994).
fn reciprocal(by: u64) -> (u64, u32, bool) {
    let most = u64::BITS - by.leading_zeros();
    let factor = |s: u32| {
        // 2^(64 + s) may have 129 bits: rounded up from 2^(64 + s) − 1, which is no multiple of `by` less one.
        let power = if s == 64 { u128::MAX } else { (1u128 << (64 + s)) - 1 };
        power / u128::from(by) + 1
    };
    for s in 0..most {
        let m = factor(s);
        let error = (m * u128::from(by)).wrapping_sub(1u128 << (64 + s));
        if m <= u128::from(u64::MAX) && error <= 1 << s {
            return (m as u64, s, false);
        }
    }
    (factor(most) as u64, most, true)
}

struct Translator<'a> {
    b: FunctionBuilder<'a>,
    func: &'a Func,
    facts: Facts,
    /// The 128-bit values of a vector, or the one of a scalar.
    parts: Vec<Vec<Value>>,
    /// What made a value.
    ops: Vec<Option<&'a Op>>,
    /// Scalar integers that are constants: they have no part, and are written out at each use, where most become a part of the instruction.
    known: Vec<Option<u64>>,
    /// Constant factors of multiply-adds: lanes of registers that hold several of them.
    factors: HashMap<Val, (Value, usize)>,
}

/// Bytes of a vector register.
const REGISTER: usize = 16;

fn access() -> MemFlagsData {
    // Not `trusted`: that would promise alignment, which kir does not.
    MemFlagsData::new().with_notrap()
}

fn lane_type(elem: Elem) -> Type {
    match elem {
        Elem::F32 => F32,
        Elem::F64 => F64,
        elem => match elem.bytes() {
            1 => I8,
            2 => I16,
            4 => I32,
            _ => I64,
        },
    }
}

fn part_type(elem: Elem) -> Type {
    lane_type(elem).by(lanes_of(elem) as u32).expect("a register of lanes is a type")
}

/// Type of a scalar, or of each part of a vector.
fn value_type(ty: Ty) -> Type {
    match ty {
        Ty { elem, lanes: 1 } if elem.is_mask() => I8,
        Ty { elem, lanes: 1 } => lane_type(elem),
        Ty { elem, .. } => part_type(elem),
    }
}

fn lanes_of(elem: Elem) -> usize {
    REGISTER / elem.bytes()
}

fn part_count(ty: Ty) -> usize {
    ty.bytes().div_ceil(REGISTER)
}

fn args<'v>(values: impl IntoIterator<Item = &'v Value>) -> Vec<BlockArg> {
    values.into_iter().map(|v| BlockArg::from(*v)).collect()
}

impl<'a> Translator<'a> {
    fn ty(&self, v: Val) -> Ty {
        self.func.ty(v)
    }

    fn get(&mut self, v: Val) -> Vec<Value> {
        match self.known[v.0 as usize] {
            Some(bits) => vec![self.scalar_bits(self.ty(v).elem, bits)],
            None => self.parts[v.0 as usize].clone(),
        }
    }

    fn one(&mut self, v: Val) -> Value {
        match self.known[v.0 as usize] {
            Some(bits) => self.scalar_bits(self.ty(v).elem, bits),
            None => self.parts[v.0 as usize][0],
        }
    }

    fn set(&mut self, v: Val, parts: Vec<Value>) {
        debug_assert_eq!(parts.len(), part_count(self.ty(v)), "{v} of {}", self.func.name);
        self.parts[v.0 as usize] = parts;
    }

    fn known(&self, v: Val) -> Option<u64> {
        self.known[v.0 as usize]
    }

    /// Puts the constant factors of multiply-adds side by side, so that many of them take few registers.
    fn gather_factors(&mut self) {
        let mut used = BTreeSet::new();
        factors(&self.func.body, &mut used);
        let constants = self.func.body.iter().filter_map(|stmt| match stmt {
            Stmt::Let(v, Op::Const(bits)) if used.contains(v) => Some((*v, *bits)),
            _ => None,
        });
        for elem in [Elem::F32, Elem::F64] {
            let of: Vec<(Val, u64)> = constants.clone().filter(|(v, _)| self.ty(*v).elem == elem && self.ty(*v).is_vector()).collect();
            for some in of.chunks(lanes_of(elem)) {
                let mut bytes: Vec<u8> = some.iter().flat_map(|(_, bits)| bits.to_le_bytes()[..elem.bytes()].to_vec()).collect();
                bytes.resize(REGISTER, 0);
                let register = self.vector_bytes(part_type(elem), bytes);
                self.factors.extend(some.iter().enumerate().map(|(lane, (v, _))| (*v, (register, lane))));
            }
        }
    }

    // Statements.

    fn body(&mut self, body: &'a [Stmt]) {
        for stmt in body {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &'a Stmt) {
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

    fn leave(&mut self, status: i32) {
        let status = self.b.ins().iconst(I32, i64::from(status as u32));
        self.b.ins().return_(&[status]);
    }

    fn all(&mut self, values: impl Iterator<Item = Val>) -> Vec<Value> {
        values.flat_map(|v| self.get(v)).collect()
    }

    /// Names the parameters of a block after kir values.
    fn accept(&mut self, block: cranelift_codegen::ir::Block, values: impl Iterator<Item = Val>) {
        for v in values {
            let ty = self.ty(v);
            let parts = (0..part_count(ty)).map(|_| self.b.append_block_param(block, value_type(ty))).collect();
            self.set(v, parts);
        }
    }

    fn alias(&mut self, to: Val, from: Val) {
        self.known[to.0 as usize] = self.known(from);
        self.parts[to.0 as usize] = self.parts[from.0 as usize].clone();
    }

    fn for_loop(&mut self, iv: Val, start: Val, end: Val, step: i64, carried: &'a [Carried], body: &'a [Stmt]) {
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

    fn while_loop(&mut self, carried: &'a [Carried], head: &'a [Stmt], cond: Val, body: &'a [Stmt]) {
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

    fn branch(&mut self, cond: Val, then: &'a [Stmt], otherwise: &'a [Stmt], results: &'a [(Val, Val, Val)]) {
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

    // Memory.

    fn load(&mut self, ty: Ty, ptr: Val, disp: i32, count: u8) -> Vec<Value> {
        let p = self.one(ptr);
        if !ty.is_vector() {
            return vec![self.b.ins().load(lane_type(ty.elem), access(), p, disp)];
        }
        let bytes = count as usize * ty.elem.bytes();
        (0..part_count(ty)).map(|i| self.load_part(ty.elem, p, disp + (i * REGISTER) as i32, bytes.saturating_sub(i * REGISTER))).collect()
    }

    /// A register of which the first `bytes` come from memory and the others are 0.
    fn load_part(&mut self, elem: Elem, p: Value, disp: i32, bytes: usize) -> Value {
        let ty = part_type(elem);
        if bytes == 0 {
            return self.splat_bits(elem, 0);
        }
        if bytes >= REGISTER {
            if self.facts.unaligned_operands {
                return self.b.ins().load(ty, access(), p, disp);
            }
            // Cranelift 0.135 takes a load into `cmpps` as a memory operand, which has to be aligned, but no bitcast of one.
            let x = self.b.ins().load(I8X16, access(), p, disp);
            return self.cast(ty, x);
        }
        // Pieces of 8, 4, 2 and 1 bytes, the largest first, so that each lies at a multiple of its size.
        let mut made: Option<Value> = None;
        let mut at = 0;
        for (size, lane) in [(8, F64), (4, F32), (2, I16), (1, I8)] {
            if bytes - at < size {
                continue;
            }
            let vector = lane.by((REGISTER / size) as u32).expect("a register of lanes is a type");
            made = Some(match made {
                None if size >= 4 => {
                    let x = self.b.ins().load(lane, access(), p, disp);
                    self.b.ins().scalar_to_vector(vector, x)
                }
                None => {
                    let x =
                        if size == 2 { self.b.ins().uload16(I32, access(), p, disp) } else { self.b.ins().uload8(I32, access(), p, disp) };
                    self.b.ins().scalar_to_vector(I32X4, x)
                }
                Some(rest) => {
                    let x = self.b.ins().load(lane, access(), p, disp + at as i32);
                    let rest = self.cast(vector, rest);
                    self.b.ins().insertlane(rest, x, (at / size) as u8)
                }
            });
            at += size;
        }
        let made = made.expect("at least one byte is read");
        self.cast(ty, made)
    }

    fn store(&mut self, ptr: Val, disp: i32, val: Val, count: u8) {
        let (ty, p) = (self.ty(val), self.one(ptr));
        if !ty.is_vector() {
            let x = self.one(val);
            self.b.ins().store(access(), x, p, disp);
            return;
        }
        let bytes = count as usize * ty.elem.bytes();
        for (i, x) in self.get(val).into_iter().enumerate() {
            let (disp, bytes) = (disp + (i * REGISTER) as i32, bytes.saturating_sub(i * REGISTER));
            if bytes >= REGISTER {
                self.b.ins().store(access(), x, p, disp);
                continue;
            }
            let mut at = 0;
            for (size, lane) in [(8, F64), (4, F32), (2, I16), (1, I8)] {
                if bytes - at >= size {
                    let vector = self.cast(lane.by((REGISTER / size) as u32).expect("a register of lanes is a type"), x);
                    let piece = self.b.ins().extractlane(vector, (at / size) as u8);
                    self.b.ins().store(access(), piece, p, disp + at as i32);
                    at += size;
                }
            }
        }
    }

    // Operations.

    fn op(&mut self, ty: Ty, op: &'a Op) -> Vec<Value> {
        let vector = ty.is_vector();
        match op {
            Op::Const(bits) if vector => vec![self.splat_bits(ty.elem, *bits); part_count(ty)],
            Op::Const(bits) => vec![self.scalar_bits(ty.elem, *bits)],
            Op::Un(op, a) => self.get(*a).into_iter().map(|a| self.un(*op, ty, a)).collect(),
            Op::Bin(op @ (Bin::Shl | Bin::ShrS | Bin::ShrU), a, b) if vector => self.shift_lanes(*op, ty, *a, *b),
            Op::Bin(op, a, b) if !vector && !ty.elem.is_float() => vec![self.int_bin(*op, ty, *a, *b)],
            Op::Bin(op, a, b) => self.map2(*a, *b, |t, a, b| t.bin(*op, ty, a, b)),
            Op::Fma(a, b, c) => {
                let (a, b) = if self.factors.contains_key(b) { (b, a) } else { (a, b) };
                let a = match self.factors.get(a).copied() {
                    Some((register, lane)) => {
                        vec![self.pick(ty.elem, &[register], &vec![lane; lanes_of(ty.elem)]); part_count(ty)]
                    }
                    None => self.get(*a),
                };
                let products = a.into_iter().zip(self.get(*b)).zip(self.get(*c));
                products.map(|((a, b), c)| self.fma(a, b, c)).collect()
            }
            Op::Cmp(op, a, b) => {
                let of = self.ty(*a);
                self.map2(*a, *b, |t, a, b| t.cmp(*op, of, a, b))
            }
            Op::Select(m, a, b) => {
                let arms = self.get(*m).into_iter().zip(self.get(*a)).zip(self.get(*b));
                arms.map(|((m, a), b)| self.select(ty, m, a, b)).collect()
            }
            Op::Conv(op, a) => self.conv(*op, self.ty(*a), ty, *a),
            Op::Splat(a) => vec![self.splat(ty, *a); part_count(ty)],
            Op::Extract(a, lane) => {
                let n = lanes_of(ty.elem);
                let part = self.get(*a)[*lane as usize / n];
                vec![self.extract(ty.elem, part, *lane as usize % n)]
            }
            Op::Insert(a, x, lane) => {
                let (mut parts, n) = (self.get(*a), lanes_of(ty.elem));
                let x = self.lane(ty.elem, *x);
                let part = &mut parts[*lane as usize / n];
                *part = self.b.ins().insertlane(*part, x, (*lane as usize % n) as u8);
                parts
            }
            Op::Shuffle(a, b, pick) => self.shuffle(ty, *a, *b, pick),
            Op::Half(a, upper) => self.half(ty, *a, *upper),
            Op::Join(a, b) => self.join(ty, *a, *b),
            Op::Reduce(fold, a) => vec![self.reduce(*fold, *a)],
            Op::Any(a) => vec![self.any(*a)],
            Op::Dot2(acc, a, b) => self.dot(ty, *acc, *a, *b, Self::dot2),
            Op::Dot4(acc, a, b) => self.dot(ty, *acc, *a, *b, Self::dot4),
            Op::Offset(p, bytes) => {
                let (p, bytes) = (self.one(*p), self.one(*bytes));
                vec![self.b.ins().iadd(p, bytes)]
            }
            Op::Load(ptr, disp, count) => self.load(ty, *ptr, *disp, *count),
            Op::LoadSplat(ptr, disp) => {
                let p = self.one(*ptr);
                let x = self.b.ins().load(lane_type(ty.elem), access(), p, *disp);
                vec![if vector { self.b.ins().splat(part_type(ty.elem), x) } else { x }; part_count(ty)]
            }
        }
    }

    /// Integers that are known before the kernel runs.
    fn fold(&self, ty: Ty, op: &Op) -> Folded {
        match op {
            _ if ty.is_vector() || ty.elem.is_float() || ty.elem.is_mask() => Folded::Not,
            Op::Const(bits) => Folded::Known(*bits),
            Op::Offset(p, bytes) if self.known(*bytes) == Some(0) => Folded::Same(*p),
            Op::Bin(op, a, b) => match (op, self.known(*a), self.known(*b)) {
                (_, Some(x), Some(y)) => Folded::Known(op.on(ty.elem)(x, y)),
                (Bin::Mul, Some(0), _) | (Bin::Mul, _, Some(0)) => Folded::Known(0),
                (Bin::Add, Some(0), _) | (Bin::Mul, Some(1), _) => Folded::Same(*b),
                (Bin::Add | Bin::Sub, _, Some(0)) | (Bin::Mul | Bin::DivU, _, Some(1)) => Folded::Same(*a),
                _ => Folded::Not,
            },
            _ => Folded::Not,
        }
    }

    /// An operation of two scalar integers; multiplications and divisions by what is known need no such instruction.
    fn int_bin(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Value {
        match (op, self.known(a), self.known(b)) {
            (Bin::Mul, Some(by), _) if by.is_power_of_two() => self.shift_left(ty, b, by),
            (Bin::Mul, _, Some(by)) if by.is_power_of_two() => self.shift_left(ty, a, by),
            (Bin::DivU, _, Some(by)) if by != 0 && ty.elem == Elem::I64 => {
                let a = self.one(a);
                self.quotient(a, by)
            }
            (Bin::RemU, _, Some(by)) if by != 0 && ty.elem == Elem::I64 => {
                let a = self.one(a);
                let quotient = self.quotient(a, by);
                let by = self.b.ins().iconst(I64, by as i64);
                let whole = self.b.ins().imul(quotient, by);
                self.b.ins().isub(a, whole)
            }
            _ => {
                let (a, b) = (self.one(a), self.one(b));
                self.bin(op, ty, a, b)
            }
        }
    }

    fn shift_left(&mut self, ty: Ty, x: Val, by: u64) -> Value {
        let x = self.one(x);
        let bits = self.scalar_bits(ty.elem, by.trailing_zeros().into());
        self.b.ins().ishl(x, bits)
    }

    /// An unsigned number of 64 bits by a constant that is not 0.
    fn quotient(&mut self, x: Value, by: u64) -> Value {
        let shift = |t: &mut Self, x: Value, bits: u32| {
            let bits = t.b.ins().iconst(I64, i64::from(bits));
            t.b.ins().ushr(x, bits)
        };
        if by.is_power_of_two() {
            return shift(self, x, by.trailing_zeros());
        }
        let (factor, bits, carries) = reciprocal(by);
        let factor = self.b.ins().iconst(I64, factor as i64);
        let high = self.b.ins().umulhi(x, factor);
        if !carries {
            return shift(self, high, bits);
        }
        // high + x may have 65 bits.
        let rest = self.b.ins().isub(x, high);
        let half = shift(self, rest, 1);
        let sum = self.b.ins().iadd(half, high);
        shift(self, sum, bits - 1)
    }

    fn map2(&mut self, a: Val, b: Val, mut f: impl FnMut(&mut Self, Value, Value) -> Value) -> Vec<Value> {
        self.get(a).into_iter().zip(self.get(b)).map(|(a, b)| f(self, a, b)).collect()
    }

    /// The same bits as another type.
    fn cast(&mut self, to: Type, x: Value) -> Value {
        if self.b.func.dfg.value_type(x) == to {
            return x;
        }
        self.b.ins().bitcast(to, MemFlagsData::new().with_endianness(Endianness::Little), x)
    }

    fn scalar_bits(&mut self, elem: Elem, bits: u64) -> Value {
        match elem {
            Elem::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
            Elem::F64 => self.b.ins().f64const(f64::from_bits(bits)),
            elem if elem.is_mask() => self.b.ins().iconst(I8, i64::from(bits != 0)),
            elem => self.b.ins().iconst(lane_type(elem), bits as i64),
        }
    }

    fn splat_bits(&mut self, elem: Elem, bits: u64) -> Value {
        let bytes: Vec<u8> = bits.to_le_bytes()[..elem.bytes()].iter().copied().cycle().take(REGISTER).collect();
        self.vector_bytes(part_type(elem), bytes)
    }

    fn vector_bytes(&mut self, ty: Type, bytes: Vec<u8>) -> Value {
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(ty, constant)
    }

    /// A constant of the type of a scalar or part.
    fn bits(&mut self, ty: Ty, bits: u64) -> Value {
        if ty.is_vector() { self.splat_bits(ty.elem, bits) } else { self.scalar_bits(ty.elem, bits) }
    }

    fn number(&mut self, ty: Ty, x: f64) -> Value {
        self.bits(ty, if ty.elem == Elem::F64 { x.to_bits() } else { u64::from((x as f32).to_bits()) })
    }

    /// A scalar as a lane: a mask becomes all ones or zeros.
    fn lane(&mut self, elem: Elem, x: Val) -> Value {
        let x = self.one(x);
        if elem.is_mask() { self.b.ins().bmask(lane_type(elem), x) } else { x }
    }

    fn extract(&mut self, elem: Elem, part: Value, lane: usize) -> Value {
        let x = self.b.ins().extractlane(part, lane as u8);
        if elem.is_mask() { self.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0) } else { x }
    }

    fn un(&mut self, op: Un, ty: Ty, a: Value) -> Value {
        let float = ty.elem.is_float();
        match op {
            Un::Neg if float => self.b.ins().fneg(a),
            Un::Neg => self.b.ins().ineg(a),
            Un::Abs if float => self.b.ins().fabs(a),
            Un::Abs => self.b.ins().iabs(a),
            Un::Sqrt => self.b.ins().sqrt(a),
            Un::Floor if self.facts.round => self.b.ins().floor(a),
            Un::Ceil if self.facts.round => self.b.ins().ceil(a),
            Un::Trunc if self.facts.round => self.b.ins().trunc(a),
            Un::Nearest if self.facts.round => self.b.ins().nearest(a),
            Un::Floor | Un::Ceil | Un::Trunc | Un::Nearest => self.round(op, ty, a),
            Un::Not if ty.elem.is_mask() && !ty.is_vector() => {
                let one = self.b.ins().iconst(I8, 1);
                self.b.ins().bxor(a, one)
            }
            Un::Not => self.b.ins().bnot(a),
        }
    }

    /// Rounding by arithmetic: adding and subtracting 2^23 (2^52) leaves no bit for a fraction. Larger numbers have none, and NaN stays.
    fn round(&mut self, op: Un, ty: Ty, x: Value) -> Value {
        let (limit, sign_bit) = if ty.elem == Elem::F64 { (2f64.powi(52), 1 << 63) } else { (2f64.powi(23), 1 << 31) };
        let (limit, one) = (self.number(ty, limit), self.number(ty, 1.0));
        let magnitude = self.b.ins().fabs(x);
        let up = self.b.ins().fadd(magnitude, limit);
        let near = self.b.ins().fsub(up, limit);
        let int = Ty { elem: ty.elem.int(), ..ty };
        let sign = self.bits(int, sign_bit);
        let bits = self.cast(value_type(int), x);
        let sign = self.b.ins().band(bits, sign);
        let signed = |t: &mut Self, y: Value| {
            let y = t.cast(value_type(int), y);
            let y = t.b.ins().bor(y, sign);
            t.cast(value_type(ty), y)
        };
        let less_one = |t: &mut Self, too_far: Value, y: Value, up: bool| {
            let next = if up { t.b.ins().fadd(y, one) } else { t.b.ins().fsub(y, one) };
            t.select(ty, too_far, next, y)
        };
        let rounded = match op {
            Un::Nearest => signed(self, near),
            Un::Trunc => {
                let too_far = self.cmp(Cmp::Gt, ty, near, magnitude);
                let y = less_one(self, too_far, near, false);
                signed(self, y)
            }
            _ => {
                let near = signed(self, near);
                let too_far = self.cmp(if op == Un::Floor { Cmp::Gt } else { Cmp::Lt }, ty, near, x);
                let y = less_one(self, too_far, near, op == Un::Ceil);
                // −0.5 rounds up to −0.
                if op == Un::Ceil { signed(self, y) } else { y }
            }
        };
        let has_fraction = self.cmp(Cmp::Lt, ty, magnitude, limit);
        self.select(ty, has_fraction, rounded, x)
    }

    fn bin(&mut self, op: Bin, ty: Ty, a: Value, b: Value) -> Value {
        let (float, vector) = (ty.elem.is_float(), ty.is_vector());
        let by_compare = |t: &mut Self, cmp| {
            let m = t.cmp(cmp, ty, a, b);
            t.select(ty, m, a, b)
        };
        match op {
            Bin::Min | Bin::Max if !vector && self.facts.select_lanes => {
                let part = part_type(ty.elem);
                let (a, b) = (self.b.ins().scalar_to_vector(part, a), self.b.ins().scalar_to_vector(part, b));
                let lanes = Ty::vector(ty.elem, lanes_of(ty.elem) as u8);
                let y = self.bin(op, lanes, a, b);
                self.b.ins().extractlane(y, 0)
            }
            Bin::Min => by_compare(self, Cmp::Lt),
            // `b < a` rather than `a > b`: the form Cranelift knows as an instruction.
            Bin::Max => {
                let m = self.cmp(Cmp::Lt, ty, b, a);
                self.select(ty, m, a, b)
            }
            Bin::MinS if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::Lt),
            Bin::MaxS if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::Gt),
            Bin::MinU if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::LtU),
            Bin::MaxU if !vector || ty.elem == Elem::I64 => by_compare(self, Cmp::GtU),
            Bin::MinS => self.b.ins().smin(a, b),
            Bin::MaxS => self.b.ins().smax(a, b),
            Bin::MinU => self.b.ins().umin(a, b),
            Bin::MaxU => self.b.ins().umax(a, b),
            Bin::Add if float => self.b.ins().fadd(a, b),
            Bin::Sub if float => self.b.ins().fsub(a, b),
            Bin::Mul if float => self.b.ins().fmul(a, b),
            Bin::Div => self.b.ins().fdiv(a, b),
            Bin::Add => self.b.ins().iadd(a, b),
            Bin::Sub => self.b.ins().isub(a, b),
            Bin::Mul if vector && ty.elem == Elem::I8 && !self.facts.byte_mul => self.byte_mul(a, b),
            Bin::Mul => self.b.ins().imul(a, b),
            Bin::DivS | Bin::DivU | Bin::RemS | Bin::RemU => self.divide(op, ty, a, b),
            Bin::And => self.b.ins().band(a, b),
            Bin::Or => self.b.ins().bor(a, b),
            Bin::Xor => self.b.ins().bxor(a, b),
            Bin::Shl => self.b.ins().ishl(a, b),
            Bin::ShrS => self.b.ins().sshr(a, b),
            Bin::ShrU => self.b.ins().ushr(a, b),
        }
    }

    fn byte_mul(&mut self, a: Value, b: Value) -> Value {
        let (al, bl) = (self.b.ins().uwiden_low(a), self.b.ins().uwiden_low(b));
        let (ah, bh) = (self.b.ins().uwiden_high(a), self.b.ins().uwiden_high(b));
        let (low, high) = (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh));
        self.narrow_pair(2, low, high)
    }

    /// The divisor is replaced by 1 where the quotient would trap, and the result by 0.
    fn divide(&mut self, op: Bin, ty: Ty, a: Value, b: Value) -> Value {
        let int = lane_type(ty.elem);
        let zero = self.b.ins().iconst(int, 0);
        let mut bad = self.b.ins().icmp(IntCC::Equal, b, zero);
        if matches!(op, Bin::DivS | Bin::RemS) {
            let ones = ty.elem.ones();
            let (least, minus) = (self.scalar_bits(ty.elem, ones ^ (ones >> 1)), self.scalar_bits(ty.elem, ones));
            let (least, minus) = (self.b.ins().icmp(IntCC::Equal, a, least), self.b.ins().icmp(IntCC::Equal, b, minus));
            let overflow = self.b.ins().band(least, minus);
            bad = self.b.ins().bor(bad, overflow);
        }
        let one = self.b.ins().iconst(int, 1);
        let b = self.b.ins().select(bad, one, b);
        let y = match op {
            Bin::DivS => self.b.ins().sdiv(a, b),
            Bin::DivU => self.b.ins().udiv(a, b),
            Bin::RemS => self.b.ins().srem(a, b),
            _ => self.b.ins().urem(a, b),
        };
        self.b.ins().select(bad, zero, y)
    }

    fn shift_lanes(&mut self, op: Bin, ty: Ty, a: Val, b: Val) -> Vec<Value> {
        let shift = |t: &mut Self, x: Value, n: Value| match op {
            Bin::Shl => t.b.ins().ishl(x, n),
            Bin::ShrS => t.b.ins().sshr(x, n),
            _ => t.b.ins().ushr(x, n),
        };
        let by = match self.ops[b.0 as usize] {
            Some(Op::Const(bits)) => Some(self.scalar_bits(ty.elem, *bits)),
            Some(Op::Splat(n)) => Some(self.one(*n)),
            _ => None,
        };
        match by {
            Some(n) => self.get(a).into_iter().map(|x| shift(self, x, n)).collect(),
            None => self.map2(a, b, |t, a, b| {
                (0..lanes_of(ty.elem) as u8).fold(a, |made, lane| {
                    let (x, n) = (t.b.ins().extractlane(a, lane), t.b.ins().extractlane(b, lane));
                    let y = shift(t, x, n);
                    t.b.ins().insertlane(made, y, lane)
                })
            }),
        }
    }

    fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.facts.fma {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    fn cmp(&mut self, op: Cmp, ty: Ty, a: Value, b: Value) -> Value {
        if ty.elem.is_float() {
            let cc = match op {
                Cmp::Eq => FloatCC::Equal,
                Cmp::Ne => FloatCC::NotEqual,
                Cmp::Lt | Cmp::LtU => FloatCC::LessThan,
                Cmp::Le | Cmp::LeU => FloatCC::LessThanOrEqual,
                Cmp::Gt | Cmp::GtU => FloatCC::GreaterThan,
                Cmp::Ge | Cmp::GeU => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, a, b);
        }
        let cc = match op {
            Cmp::Eq => IntCC::Equal,
            Cmp::Ne => IntCC::NotEqual,
            Cmp::Lt => IntCC::SignedLessThan,
            Cmp::Le => IntCC::SignedLessThanOrEqual,
            Cmp::Gt => IntCC::SignedGreaterThan,
            Cmp::Ge => IntCC::SignedGreaterThanOrEqual,
            Cmp::LtU => IntCC::UnsignedLessThan,
            Cmp::LeU => IntCC::UnsignedLessThanOrEqual,
            Cmp::GtU => IntCC::UnsignedGreaterThan,
            Cmp::GeU => IntCC::UnsignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, a, b)
    }

    fn select(&mut self, ty: Ty, m: Value, a: Value, b: Value) -> Value {
        if !ty.is_vector() {
            return self.b.ins().select(m, a, b);
        }
        let m = self.cast(part_type(ty.elem), m);
        self.b.ins().bitselect(m, a, b)
    }

    // Moves of lanes.

    fn splat(&mut self, ty: Ty, a: Val) -> Value {
        // The lane of a register, where the machine multiplies by one: Cranelift knows it by this form.
        if let Some(Op::Extract(v, lane)) = self.ops[a.0 as usize]
            && ty.elem.bytes() >= 4
            && !ty.elem.is_mask()
        {
            let n = lanes_of(ty.elem);
            let part = self.get(*v)[*lane as usize / n];
            return self.pick(ty.elem, &[part], &vec![*lane as usize % n; n]);
        }
        let x = self.lane(ty.elem, a);
        self.b.ins().splat(part_type(ty.elem), x)
    }

    /// A register whose lane `i` is lane `lanes[i]` of the sources one after another.
    fn pick(&mut self, elem: Elem, sources: &[Value], lanes: &[usize]) -> Value {
        let n = lanes_of(elem);
        // Lanes nobody asked for repeat the others: that form is most often an instruction.
        let lanes: Vec<usize> = lanes.iter().copied().cycle().take(n).collect();
        let mut used: Vec<usize> = lanes.iter().map(|l| l / n).collect();
        used.sort_unstable();
        used.dedup();
        if let [only] = used[..]
            && lanes.iter().enumerate().all(|(i, l)| l % n == i)
        {
            return sources[only];
        }
        let words = elem.bytes() >= 4 && used.len() == 1;
        if !self.facts.permute && !words {
            return lanes.iter().enumerate().fold(sources[used[0]], |made, (i, l)| {
                let x = self.b.ins().extractlane(sources[l / n], (l % n) as u8);
                self.b.ins().insertlane(made, x, i as u8)
            });
        }
        let size = elem.bytes();
        let mut made = self.cast(I8X16, sources[used[0]]);
        let mut have = vec![used[0]];
        for second in used.iter().skip(1).map(|s| Some(*s)).chain(if used.len() == 1 { vec![None] } else { vec![] }) {
            let from = match second {
                Some(s) => self.cast(I8X16, sources[s]),
                None => made,
            };
            let bytes: Vec<u8> = (0..n)
                .flat_map(|i| {
                    let (source, lane) = (lanes[i] / n, lanes[i] % n);
                    let lane = match second {
                        Some(s) if source == s => n + lane,
                        // After the first step what was picked lies in its place.
                        _ if have.len() > 1 => i,
                        _ if have.contains(&source) => lane,
                        _ => i,
                    };
                    (0..size).map(move |byte| (lane * size + byte) as u8)
                })
                .collect();
            let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes));
            made = self.b.ins().shuffle(made, from, mask);
            have.extend(second);
        }
        self.cast(part_type(elem), made)
    }

    fn shuffle(&mut self, ty: Ty, a: Val, b: Val, pick: &[u8]) -> Vec<Value> {
        let (n, lanes) = (lanes_of(ty.elem), ty.lanes as usize);
        let mut sources = self.get(a);
        let second = sources.len() * n;
        sources.extend(self.get(b));
        let lanes: Vec<usize> = pick.iter().map(|p| *p as usize).map(|p| if p < lanes { p } else { second + p - lanes }).collect();
        lanes.chunks(n).map(|lanes| self.pick(ty.elem, &sources, lanes)).collect()
    }

    fn half(&mut self, ty: Ty, a: Val, upper: bool) -> Vec<Value> {
        let (parts, n) = (self.get(a), ty.lanes as usize);
        let first = if upper { n } else { 0 };
        if !ty.is_vector() {
            let all = lanes_of(ty.elem);
            return vec![self.extract(ty.elem, parts[first / all], first % all)];
        }
        if parts.len() > 1 {
            let count = parts.len() / 2;
            return if upper { parts[count..].to_vec() } else { parts[..count].to_vec() };
        }
        if !upper {
            return parts;
        }
        let lanes: Vec<usize> = (first..first + n).collect();
        vec![self.pick(ty.elem, &parts, &lanes)]
    }

    fn join(&mut self, ty: Ty, a: Val, b: Val) -> Vec<Value> {
        let half = ty.lanes as usize / 2;
        if half == 1 {
            let (x, y) = (self.lane(ty.elem, a), self.lane(ty.elem, b));
            let x = self.b.ins().splat(part_type(ty.elem), x);
            return vec![self.b.ins().insertlane(x, y, 1)];
        }
        let sources = [self.get(a), self.get(b)].concat();
        if ty.bytes() / 2 >= REGISTER {
            return sources;
        }
        let n = lanes_of(ty.elem);
        let lanes: Vec<usize> = (0..half).chain(n..n + half).collect();
        vec![self.pick(ty.elem, &sources, &lanes)]
    }

    fn reduce(&mut self, fold: Fold, a: Val) -> Value {
        let (ty, mut parts) = (self.ty(a), self.get(a));
        let op = fold.of(ty.elem);
        while parts.len() > 1 {
            let upper = parts.split_off(parts.len() / 2);
            parts = parts.into_iter().zip(upper).map(|(a, b)| self.bin(op, ty, a, b)).collect();
        }
        let mut x = parts[0];
        let mut lanes = lanes_of(ty.elem).min(ty.lanes as usize);
        while lanes > 1 {
            lanes /= 2;
            let upper: Vec<usize> = (lanes..2 * lanes).collect();
            let upper = self.pick(ty.elem, &[x], &upper);
            x = self.bin(op, ty, x, upper);
        }
        self.b.ins().extractlane(x, 0)
    }

    fn any(&mut self, a: Val) -> Value {
        let (ty, parts) = (self.ty(a), self.get(a));
        if !ty.is_vector() {
            return parts[0];
        }
        let mut x = parts[1..].iter().fold(parts[0], |x, y| self.b.ins().bor(x, *y));
        if ty.bytes() < REGISTER {
            let bytes = (0..REGISTER).map(|i| if i < ty.bytes() { 0xff } else { 0 }).collect();
            let lanes = self.vector_bytes(part_type(ty.elem), bytes);
            x = self.b.ins().band(x, lanes);
        }
        self.b.ins().vany_true(x)
    }

    // Dot products.

    fn dot(&mut self, ty: Ty, acc: Val, a: Val, b: Val, f: fn(&mut Self, Value, Value, Value) -> Value) -> Vec<Value> {
        let mut accs = self.get(acc);
        if !ty.is_vector() {
            accs[0] = self.b.ins().scalar_to_vector(I32X4, accs[0]);
        }
        let operands = accs.into_iter().zip(self.get(a)).zip(self.get(b));
        let mut out: Vec<Value> = operands.map(|((acc, a), b)| f(self, acc, a, b)).collect();
        if !ty.is_vector() {
            out[0] = self.b.ins().extractlane(out[0], 0);
        }
        out
    }

    fn widened_products(&mut self, a: Value, b: Value) -> (Value, Value) {
        let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
        let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
        (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh))
    }

    fn dot2(&mut self, acc: Value, a: Value, b: Value) -> Value {
        // The form that is `pmaddwd` on x86.
        let (low, high) = self.widened_products(a, b);
        let pairs = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(pairs, acc)
    }

    fn dot4(&mut self, acc: Value, a: Value, b: Value) -> Value {
        if self.facts.pair_products {
            let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
            let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
            let (low, high) = (self.widened_products(al, bl), self.widened_products(ah, bh));
            let (low, high) = (self.b.ins().iadd_pairwise(low.0, low.1), self.b.ins().iadd_pairwise(high.0, high.1));
            let quads = self.b.ins().iadd_pairwise(low, high);
            return self.b.ins().iadd(quads, acc);
        }
        // The form that is `sdot` on AArch64. A product of bytes fits 16 bits.
        let (low, high) = self.widened_products(a, b);
        let mut pairs = |x| {
            let (l, h) = (self.b.ins().swiden_low(x), self.b.ins().swiden_high(x));
            self.b.ins().iadd_pairwise(l, h)
        };
        let (low, high) = (pairs(low), pairs(high));
        let quads = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(quads, acc)
    }

    // Changes of type.

    fn conv(&mut self, op: Conv, from: Ty, to: Ty, a: Val) -> Vec<Value> {
        let parts = self.get(a);
        if from.is_vector() {
            return self.conv_lanes(op, from, to, parts);
        }
        let (a, ty) = (parts[0], value_type(to));
        vec![match op {
            Conv::Sext => self.b.ins().sextend(ty, a),
            Conv::Zext => self.b.ins().uextend(ty, a),
            Conv::Wrap => self.b.ins().ireduce(ty, a),
            Conv::IntToFloat => self.b.ins().fcvt_from_sint(ty, a),
            Conv::UintToFloat => self.b.ins().fcvt_from_uint(ty, a),
            Conv::FloatToInt => self.b.ins().fcvt_to_sint_sat(ty, a),
            Conv::FloatToUint => self.b.ins().fcvt_to_uint_sat(ty, a),
            Conv::FloatToFloat if to.elem == Elem::F64 => self.b.ins().fpromote(F64, a),
            Conv::FloatToFloat => self.b.ins().fdemote(F32, a),
            Conv::Bits => self.cast(ty, a),
            Conv::MaskToInt => self.b.ins().bmask(ty, a),
            Conv::HalfToFloat => {
                let wide = self.b.ins().uextend(I32, a);
                self.half_to_float(Ty::F32, wide)
            }
            Conv::FloatToHalf => {
                let wide = self.float_to_half(Ty::F32, a);
                self.b.ins().ireduce(I16, wide)
            }
        }]
    }

    fn conv_lanes(&mut self, op: Conv, from: Ty, to: Ty, parts: Vec<Value>) -> Vec<Value> {
        match op {
            Conv::Sext | Conv::Zext => self.widen(from, to, parts, op == Conv::Sext),
            Conv::Wrap => self.narrow(from, to, parts),
            Conv::IntToFloat if to.elem == Elem::F32 => parts.into_iter().map(|x| self.b.ins().fcvt_from_sint(F32X4, x)).collect(),
            Conv::IntToFloat => self.by_halves(from, to, parts, |t, x| {
                let wide = t.b.ins().swiden_low(x);
                t.b.ins().fcvt_from_sint(F64X2, wide)
            }),
            Conv::FloatToInt => parts.into_iter().map(|x| self.b.ins().fcvt_to_sint_sat(I32X4, x)).collect(),
            Conv::FloatToFloat if to.elem == Elem::F64 => self.by_halves(from, to, parts, |t, x| t.b.ins().fvpromote_low(x)),
            Conv::FloatToFloat => parts
                .chunks(2)
                .map(|pair| {
                    let halves: Vec<Value> = pair.iter().map(|x| self.b.ins().fvdemote(*x)).collect();
                    if halves.len() == 1 { halves[0] } else { self.pick(Elem::F32, &halves, &[0, 1, 4, 5]) }
                })
                .collect(),
            Conv::Bits => parts.into_iter().map(|x| self.cast(part_type(to.elem), x)).collect(),
            Conv::MaskToInt => parts,
            Conv::HalfToFloat => {
                let wide = self.widen(from, to.of(Elem::I32), parts, false);
                wide.into_iter().map(|x| self.half_to_float(Ty::vector(Elem::F32, 4), x)).collect()
            }
            Conv::FloatToHalf => {
                let wide = parts.into_iter().map(|x| self.float_to_half(Ty::vector(Elem::F32, 4), x)).collect();
                self.narrow(from.of(Elem::I32), to, wide)
            }
            Conv::UintToFloat | Conv::FloatToUint => unreachable!("the verifier admits it for scalars only"),
        }
    }

    /// A conversion to lanes of twice the width that reads the low half of a register.
    fn by_halves(&mut self, from: Ty, to: Ty, parts: Vec<Value>, mut f: impl FnMut(&mut Self, Value) -> Value) -> Vec<Value> {
        let n = lanes_of(from.elem);
        let upper: Vec<usize> = (n / 2..n).collect();
        let mut out = vec![];
        for x in parts {
            out.push(f(self, x));
            if out.len() < part_count(to) {
                let x = self.pick(from.elem, &[x], &upper);
                out.push(f(self, x));
            }
        }
        out
    }

    fn widen(&mut self, from: Ty, to: Ty, mut parts: Vec<Value>, signed: bool) -> Vec<Value> {
        let mut bytes = from.elem.bytes();
        while bytes < to.elem.bytes() {
            bytes *= 2;
            let count = (bytes * from.lanes as usize).div_ceil(REGISTER);
            let mut out = Vec::with_capacity(count);
            for x in parts {
                out.push(if signed { self.b.ins().swiden_low(x) } else { self.b.ins().uwiden_low(x) });
                if out.len() < count {
                    out.push(if signed { self.b.ins().swiden_high(x) } else { self.b.ins().uwiden_high(x) });
                }
            }
            parts = out;
        }
        parts
    }

    fn narrow(&mut self, from: Ty, to: Ty, mut parts: Vec<Value>) -> Vec<Value> {
        let mut bytes = from.elem.bytes();
        while bytes > to.elem.bytes() {
            parts = parts.chunks(2).map(|pair| self.narrow_pair(bytes, pair[0], *pair.last().expect("chunks are not empty"))).collect();
            bytes /= 2;
        }
        parts
    }

    /// The low halves of the lanes of two registers.
    fn narrow_pair(&mut self, bytes: usize, low: Value, high: Value) -> Value {
        if bytes == 8 || self.facts.unzip {
            let (half, to) = match bytes {
                8 => (Elem::I32, I32X4),
                4 => (Elem::I16, I16X8),
                _ => (Elem::I8, I8X16),
            };
            let (low, high) = (self.cast(to, low), self.cast(to, high));
            let lanes: Vec<usize> = (0..lanes_of(half)).map(|i| 2 * i).collect();
            return self.pick(half, &[low, high], &lanes);
        }
        if bytes == 2 || self.facts.pack_unsigned {
            let mask = if bytes == 2 { self.splat_bits(Elem::I16, 0xff) } else { self.splat_bits(Elem::I32, 0xffff) };
            let (low, high) = (self.b.ins().band(low, mask), self.b.ins().band(high, mask));
            return self.b.ins().unarrow(low, high);
        }
        let sixteen = self.b.ins().iconst(I32, 16);
        let mut extend = |x| {
            let x = self.b.ins().ishl(x, sixteen);
            self.b.ins().sshr(x, sixteen)
        };
        let (low, high) = (extend(low), extend(high));
        self.b.ins().snarrow(low, high)
    }

    /// The bits of an f16, in 32-bit lanes, to a float: shifted into place and scaled by 2^112, which rebiases the exponent and is right for
    /// subnormal numbers too; infinities and NaN get the largest exponent.
    fn half_to_float(&mut self, ty: Ty, h: Value) -> Value {
        let int = ty.of(Elem::I32);
        let (value, bits) = (value_type(ty), value_type(int));
        let shift = |t: &mut Self, x, n| {
            let n = t.b.ins().iconst(I32, n);
            t.b.ins().ishl(x, n)
        };
        let (sign, rest) = (self.bits(int, 0x8000), self.bits(int, 0x7fff));
        let (sign, rest) = (self.b.ins().band(h, sign), self.b.ins().band(h, rest));
        let (sign, rest) = (shift(self, sign, 16), shift(self, rest, 13));
        let scale = self.number(ty, 2f64.powi(112));
        let x = self.cast(value, rest);
        let x = self.b.ins().fmul(x, scale);
        let x = self.cast(bits, x);
        let (largest, special) = (self.bits(int, 0x0f7f_ffff), self.bits(int, 0x7f80_0000));
        let is_special = self.cmp(Cmp::Gt, int, rest, largest);
        let with = self.b.ins().bor(x, special);
        let x = self.select(int, is_special, with, x);
        let x = self.b.ins().bor(x, sign);
        self.cast(value, x)
    }

    /// A float to the bits of an f16 in the low half of 32-bit lanes.
    fn float_to_half(&mut self, ty: Ty, x: Value) -> Value {
        let int = ty.of(Elem::I32);
        let bits = value_type(int);
        let shift = |t: &mut Self, x, n| {
            let n = t.b.ins().iconst(I32, n);
            t.b.ins().ushr(x, n)
        };
        let all = self.cast(bits, x);
        let (sign, rest) = (self.bits(int, 0x8000_0000), self.bits(int, 0x7fff_ffff));
        let (sign, rest) = (self.b.ins().band(all, sign), self.b.ins().band(all, rest));
        let sign = shift(self, sign, 16);
        // Normal: rebias, add half a unit less one and the lowest kept bit, which rounds ties to even, and drop 13 bits.
        let (rebias, one) = (self.bits(int, u64::from((15u32.wrapping_sub(127) << 23).wrapping_add(0xfff))), self.bits(int, 1));
        let kept = shift(self, rest, 13);
        let odd = self.b.ins().band(kept, one);
        let normal = self.b.ins().iadd(rest, rebias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = shift(self, normal, 13);
        // Subnormal: adding 1/2 leaves units of 2^-24 in the low bits, rounded by the addition.
        let half = self.number(ty, 0.5);
        let magnitude = self.cast(value_type(ty), rest);
        let sum = self.b.ins().fadd(magnitude, half);
        let (sum, half) = (self.cast(bits, sum), self.cast(bits, half));
        let subnormal = self.b.ins().isub(sum, half);
        let least = self.bits(int, 113 << 23);
        let is_small = self.cmp(Cmp::Lt, int, rest, least);
        let finite = self.select(int, is_small, subnormal, normal);
        // From 65536 on infinity; NaN keeps the high bits of its payload.
        let (infinity, payload, quiet) = (self.bits(int, 0x7c00), self.bits(int, 0x3ff), self.bits(int, 0x7e00));
        let (inf_bits, most) = (self.bits(int, 0x7f80_0000), self.bits(int, 0x477f_ffff));
        let payload = self.b.ins().band(kept, payload);
        let nan = self.b.ins().bor(payload, quiet);
        let is_nan = self.cmp(Cmp::Gt, int, rest, inf_bits);
        let special = self.select(int, is_nan, nan, infinity);
        let is_large = self.cmp(Cmp::Gt, int, rest, most);
        let y = self.select(int, is_large, special, finite);
        self.b.ins().bor(y, sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_kir::Builder;
    use dnnc_kir::testing::{Case, every_op, random};

    #[cfg(target_arch = "x86_64")]
    fn check(target: &str, cases: impl Iterator<Item = Case>) {
        let target = dnnc_targets::find(target).expect("a target of the table");
        let clif = Clif::new(target).unwrap();
        for case in cases {
            crate::testing::check(&case, clif.facts.fma, &|func| clif.emit(func));
        }
    }

    /// The native machine has to have what the target says; these run on any x86-64 with AVX2.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_operation_means_what_the_interpreter_says() {
        for target in ["x86-64-v3", "x86-64-v2", "x86-64"] {
            check(target, every_op(64).into_iter());
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn random_kernels_mean_what_the_interpreter_says() {
        for (i, target) in ["x86-64-v3", "x86-64-v2", "x86-64"].into_iter().enumerate() {
            check(target, (0..300).map(|seed| random(1000 * i as u64 + seed, [16, 32, 64][seed as usize % 3])));
        }
    }

    #[test]
    fn reciprocals_divide() {
        let near = |n: u64| [n.wrapping_sub(1), n, n.wrapping_add(1)];
        let divisors = (3..200).chain((7..64).flat_map(|bits| near(1 << bits))).chain([u64::MAX, u64::MAX / 3]);
        for by in divisors.filter(|by| !by.is_power_of_two()) {
            let (factor, bits, carries) = reciprocal(by);
            let most = u64::MAX / by;
            for x in [0, 1, most / 2, most].into_iter().flat_map(|q| near(q * by)) {
                let high = (u128::from(x) * u128::from(factor)) >> 64;
                let sum = if carries { high + u128::from(x) } else { high };
                assert_eq!((sum >> bits) as u64, x / by, "{x} / {by}");
            }
        }
    }

    /// Integers and constants in all places: what is known beforehand is as the interpreter has it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn known_integers_are_folded_rightly() {
        let constants = [0, 1, 2, 3, 5, 7, 8, 10, 96, 641, 1 << 20, (1 << 33) + 1, i64::MAX, i64::MIN, -1, -2];
        let numbers: Vec<i64> = constants.iter().flat_map(|c: &i64| [c.wrapping_sub(1), *c, c.wrapping_mul(3)]).collect();
        let ops = [Bin::Add, Bin::Sub, Bin::Mul, Bin::DivU, Bin::RemU, Bin::DivS, Bin::RemS, Bin::MinS, Bin::Shl, Bin::ShrU];
        for op in ops {
            let mut b = Builder::new("known", 2);
            let (from, to) = (b.param(0), b.param(1));
            let mut at = 0;
            let mut keep = |b: &mut Builder, v: Val| {
                b.store(v, to, at);
                at += 8;
            };
            for (i, c) in constants.into_iter().enumerate() {
                let known = b.int(Ty::I64, c);
                for n in 0..numbers.len() {
                    let x = b.load(Ty::I64, from, 8 * n as i32);
                    let (left, right) = (b.bin(op, x, known), b.bin(op, known, x));
                    keep(&mut b, left);
                    keep(&mut b, right);
                }
                let other = b.int(Ty::I64, constants[(i + 1) % constants.len()]);
                let both = b.bin(op, known, other);
                keep(&mut b, both);
            }
            let buffers = vec![numbers.iter().flat_map(|n| n.to_le_bytes()).collect(), vec![0; at as usize]];
            check("x86-64", [Case { func: b.finish(), buffers, tasks: 1, floats: vec![] }].into_iter());
        }
    }

    #[test]
    fn constant_factors_share_registers_on_aarch64() {
        let v = Ty::vector(Elem::F32, 4);
        let mut b = Builder::new("factors", 2);
        let (from, to) = (b.param(0), b.param(1));
        let x = b.load(v, from, 0);
        let sum = (2..10).fold(x, |sum, factor| {
            let factor = b.number(v, f64::from(factor) / 3.0);
            b.fma(factor, x, sum)
        });
        b.store(sum, to, 0);
        let text = Clif::new(dnnc_targets::find("aarch64").unwrap()).unwrap().listing(&b.finish()).unwrap();
        let count = |word: &str| text.lines().filter(|l| l.contains(word)).count();
        assert_eq!(count("fmla "), 8, "{text}");
        assert_eq!(count("ldr q"), 1 + 2, "{text}");
    }

    /// C += A·B as kernels of products write it: rows read as vectors of four steps, whose lanes are factors.
    fn tile(rows: usize, vectors: usize) -> Func {
        let v = Ty::vector(Elem::F32, 4);
        let mut b = Builder::new(format!("tile {rows}x{vectors}"), 3);
        let zero = b.number(v, 0.0);
        let init: Vec<Val> = [b.param(0), b.param(1)].into_iter().chain(vec![zero; rows * vectors]).collect();
        let out = b.for_count(64, &init, |b, _, carried| {
            let mut acc = carried[2..].to_vec();
            let a: Vec<Val> = (0..rows).map(|i| b.load(v, carried[0], (i * 1024) as i32)).collect();
            for step in 0..4 {
                let w: Vec<Val> = (0..vectors).map(|j| b.load(v, carried[1], ((step * vectors + j) * 16) as i32)).collect();
                for i in 0..rows {
                    let x = b.shuffle(a[i], a[i], &[step as u8; 4]);
                    for j in 0..vectors {
                        acc[i * vectors + j] = b.fma(x, w[j], acc[i * vectors + j]);
                    }
                }
            }
            let next = [b.offset_int(carried[0], 16), b.offset_int(carried[1], (64 * vectors) as i64)];
            next.into_iter().chain(acc).collect()
        });
        for (i, x) in out[2..].iter().enumerate() {
            b.store(*x, b.param(2), 16 * i as i32);
        }
        b.finish()
    }

    #[test]
    fn tiles_of_multiply_adds_spill_nothing_on_aarch64() {
        let clif = Clif::new(dnnc_targets::find("aarch64").unwrap()).unwrap();
        for (rows, vectors) in [(8, 2), (4, 4), (6, 3), (7, 3), (5, 4)] {
            let text = clif.listing(&tile(rows, vectors)).unwrap();
            let count = |word: &str| text.lines().filter(|l| l.contains(word)).count();
            assert_eq!(count("fmla "), 4 * rows * vectors, "{rows}x{vectors}: {text}");
            assert_eq!(count("ldr q") + count("ldp q"), rows + 4 * vectors, "{text}");
        }
    }
}
