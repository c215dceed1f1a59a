//! The state of lowering: which registers a value has, what constants are, and one operation after another.
//!
//! Everything beside it (`address`, `control`, `scalar`, `vector`, `lanes`, `dot`, `mask`, `convert`, `shuffle`, `memory`) adds to the same
//! [`Lower`].

use super::isa::IsaFeatures;
use super::liveness::Liveness;
use super::mach::{Arg, Kind, Mach, Mem, V, gpr, imm8};
use super::sym::Sym;
use super::view::View;
use dnnc_kir::{Bin, Conv, Elem, Func, Op, Ty, Val};
use iced_x86::{Code, OpKind};
use regalloc2::RegClass;
use std::collections::HashMap;

/// An integer comparison that can be done again where its flags are needed.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub code: Code,
    pub args: [Arg; 2],
    pub cc: u8,
}

/// How bytes are widened to 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    Signed,
    Unsigned,
}

/// The state of lowering.
pub struct Lower<'a> {
    pub func: &'a Func,
    pub isa: IsaFeatures,
    pub live: &'a Liveness,
    pub m: Mach,
    /// Types of values, with those that lowering itself makes.
    pub types: Vec<Ty>,
    /// Registers of values: first in `flat`, and how many.
    pub ranges: Vec<(u32, u8)>,
    pub flat: Vec<V>,
    pub syms: Vec<Option<Sym>>,
    /// Loads that may be operands of their only use, and loads of one element that may be.
    pub foldable: Vec<Option<Mem>>,
    pub broadcasts: Vec<Option<Mem>>,
    pub compares: Vec<Option<Compare>>,
    pub constants: Vec<Option<u64>>,
    pub hoisted: Vec<Option<V>>,
    pub hoisted_now: usize,
    /// Mask registers with constants.
    pub mask_constants: Vec<(u64, V)>,
    /// Registers of bytes with their even and odd bytes widened.
    pub split_bytes: Vec<(V, Split, V, V)>,
    /// Indices and addresses computed so far, where they can be used again.
    pub known: HashMap<Op, Val>,
    pub known_in_order: Vec<Op>,
    pub at: u32,
    pub next_loop: u32,
    pub stack: Vec<u32>,
    /// The statements that follow cannot be reached.
    pub dead: bool,
}

/// Lowers a function.
pub fn lower(func: &Func, isa: IsaFeatures) -> Result<Mach, String> {
    let live = Liveness::of(func, &isa);
    let n = func.types.len();
    let mut l = Lower {
        func,
        isa,
        live: &live,
        m: Mach::default(),
        types: func.types.clone(),
        ranges: vec![(0, 0); n],
        flat: Vec::with_capacity(n),
        syms: vec![None; n],
        foldable: vec![None; n],
        broadcasts: vec![None; n],
        compares: vec![None; n],
        constants: live.constants.clone(),
        hoisted: vec![None; n],
        hoisted_now: 0,
        mask_constants: vec![],
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
    l.loop_masks();
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

    /// An instruction whose result is a new mask register, its first operand.
    pub fn mask_op(&mut self, code: Code, args: &[Arg]) -> V {
        let d = self.m.fresh(RegClass::Vector);
        self.define(code, d, View::K, args)
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

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    /// Number of registers of a type.
    pub fn parts_of(&self, ty: Ty) -> usize {
        ty.bytes().div_ceil(self.isa.bytes)
    }

    /// Width of each of its vector registers.
    pub fn width(&self, ty: Ty) -> View {
        self.width_of(ty.bytes())
    }

    /// The narrowest view of a vector register that has so many bytes, or the widest there is.
    pub fn width_of(&self, bytes: usize) -> View {
        match bytes.min(self.isa.bytes) {
            0..=16 => View::X,
            17..=32 => View::Y,
            _ => View::Z,
        }
    }

    /// The class of the registers of a value.
    pub fn class_of(&self, ty: Ty) -> RegClass {
        match ty.is_vector() {
            true if self.in_masks(ty) => RegClass::Vector,
            true => RegClass::Float,
            false if ty.elem.is_float() => RegClass::Float,
            false => RegClass::Int,
        }
    }

    /// Whether values of a type are in mask registers: masks as long as the widest registers that have any.
    pub fn in_masks(&self, ty: Ty) -> bool {
        ty.elem.is_mask() && ty.bytes() == 64 && self.isa.bytes == 64
    }

    /// The bits of a constant.
    pub fn constant(&self, v: Val) -> Option<u64> {
        self.constants[v.0 as usize]
    }

    /// The register that a value has, if it is no constant.
    pub fn own(&self, v: Val, part: usize) -> V {
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
        (0..self.parts_of(self.ty(v))).map(|p| self.reg(v, p)).collect()
    }

    /// Whether the current statement is the last to need a value; a constant that was not hoisted is made for the one use.
    pub fn dies(&self, v: Val) -> bool {
        match self.constant(v) {
            Some(_) => self.hoisted[v.0 as usize].is_none(),
            None => self.live.dies(v, self.at),
        }
    }

    /// A part of a vector (or a scalar float) as the operand that may be in memory.
    pub fn rm(&mut self, v: Val, part: usize) -> Arg {
        let ty = self.ty(v);
        let view = self.width(ty);
        if self.hoisted[v.0 as usize].is_none() {
            if let Some(bits) = self.constant(v) {
                return Arg::Mem(self.constant_in_memory(ty, bits));
            }
            if let Some(mut mem) = self.foldable[v.0 as usize].filter(|_| fills_operand(ty)) {
                mem.disp += (part * self.isa.bytes) as i32;
                return Arg::Mem(mem);
            }
        }
        Arg::Use(self.reg(v, part), view)
    }

    /// As `rm`, for instructions that can read one element for every lane.
    pub fn rm_broadcast(&mut self, v: Val, part: usize) -> Arg {
        match self.broadcasts[v.0 as usize] {
            Some(mem) => Arg::Broadcast(mem),
            None => self.rm(v, part),
        }
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

    /// The loop whose body is being lowered.
    pub fn loop_now(&self) -> u32 {
        self.stack.last().copied().unwrap_or(u32::MAX)
    }

    /// Makes a value.
    pub fn let_(&mut self, v: Val, op: &Op) -> Result<(), String> {
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
            Op::Load(ptr, disp, count) => {
                let ty = self.ty(v);
                let mem = self.address(ptr, disp);
                let registers = self.load(ty, mem, count as usize)?;
                self.set(v, &registers);
                if self.live.movable(v) && count == ty.lanes {
                    self.foldable[v.0 as usize] = Some(mem);
                }
            }
            Op::LoadSplat(ptr, disp) => {
                let ty = self.ty(v);
                let mem = self.address(ptr, disp);
                let r = self.load_splat(ty, mem)?;
                self.set(v, &vec![r; self.parts_of(ty)]);
                if self.live.movable(v) && self.width(ty) == View::Z && ty.elem.bytes() >= 4 {
                    self.broadcasts[v.0 as usize] = Some(mem);
                }
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
    pub fn fold(&self, v: Val, op: &Op) -> Option<u64> {
        let elem = self.ty(v).elem;
        if self.ty(v).is_vector() || elem.is_float() {
            return None;
        }
        let of = |v: Val| self.constant(v).filter(|_| !self.ty(v).is_vector() && !self.ty(v).elem.is_float());
        match *op {
            Op::Un(op, a) => Some(op.on(elem)(of(a)?)),
            Op::Bin(op, a, b) => match (op, of(a), of(b)) {
                (op, Some(x), Some(y)) => Some(op.on(elem)(x, y)),
                (Bin::Mul | Bin::And, Some(0), _) | (Bin::Mul | Bin::And, _, Some(0)) => Some(0),
                _ => None,
            },
            Op::Cmp(op, a, b) => Some(op.on(self.ty(a).elem)(of(a)?, of(b)?)),
            Op::Select(mask, a, b) => of(if of(mask)? != 0 { a } else { b }),
            Op::Conv(op @ (Conv::Sext | Conv::Zext | Conv::Wrap | Conv::MaskToInt), a) => Some(op.convert(self.ty(a).elem, elem, of(a)?)),
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
        self.broadcasts.push(None);
        self.compares.push(None);
        self.constants.push(None);
        self.hoisted.push(None);
        self.let_(v, op)?;
        Ok(v)
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

impl Lower<'_> {
    /// A constant's register.
    pub fn make_constant(&mut self, ty: Ty, bits: u64) -> V {
        if !ty.is_vector() && !ty.elem.is_float() {
            let bits = if ty.elem.is_mask() { if bits == 0 { 0 } else { u64::MAX } } else { bits };
            return self.int_constant(bits);
        }
        if self.in_masks(ty) {
            return self.mask_constant(if bits == 0 { 0 } else { u64::MAX >> (64 - ty.lanes) });
        }
        let view = self.width(ty);
        let bytes = constant_bytes(ty.elem, bits, 64);
        if bytes.iter().all(|&b| b == 0) {
            return self.zero();
        }
        if ty.is_vector() && bytes.iter().all(|&b| b == 0xFF) {
            let code = Code::VEX_Vpcmpeqd_xmm_xmm_xmmm128;
            if view == View::Z {
                // The comparison gives a mask there; any function that is true of all three bits is as good.
                let args = [Arg::Again(view), Arg::Again(view), imm8(0xFF)];
                return self.vec_op(Code::EVEX_Vpternlogd_xmm_k1z_xmm_xmmm128b32_imm8, view, &args);
            }
            return self.vec_op(code, view, &[Arg::Again(view); 2]);
        }
        // A scalar is not repeated, whatever its halves are.
        let eight = bytes[..4] != bytes[4..8] || !ty.is_vector() && ty.elem.bytes() == 8;
        let mem = self.m.pool(bytes[..if eight { 8 } else { 4 }].to_vec());
        let code = match (ty.is_vector(), eight, view) {
            (false, false, _) => Code::VEX_Vmovss_xmm_m32,
            (false, true, _) => Code::VEX_Vmovsd_xmm_m64,
            (true, false, _) => Code::VEX_Vbroadcastss_xmm_m32,
            (true, true, View::X) => Code::VEX_Vmovddup_xmm_xmmm64,
            (true, true, _) => Code::VEX_Vbroadcastsd_ymm_m64,
        };
        self.vec_op(code, view, &[Arg::Mem(mem)])
    }

    /// A constant as an operand in memory, as wide as its register.
    pub fn constant_in_memory(&mut self, ty: Ty, bits: u64) -> Mem {
        let bytes = if ty.is_vector() { self.width(ty).bytes() } else { ty.elem.bytes() };
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
