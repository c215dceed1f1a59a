//! The state of translation to Cranelift's IR: the parts of values, constants, and how types are written.

use super::machine::{IsaFeatures, signature};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{F32, F64, I8, I16, I32, I64};
use cranelift_codegen::ir::{BlockArg, ConstantData, Endianness, Function, InstBuilder, MemFlagsData, Type, UserFuncName, Value};
use cranelift_codegen::isa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use dnnc_kir::{Elem, Func, Op, Ty, Val};
use std::collections::HashMap;

/// The function of a kernel in Cranelift's IR.
pub fn translate(func: &Func, features: IsaFeatures, isa: &dyn isa::TargetIsa) -> Function {
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
    let mut t = Translator { b, func, features, parts, ops, known, factors: HashMap::new() };
    for (i, p) in params.into_iter().enumerate() {
        t.parts[i] = vec![p];
    }
    if features.by_element {
        t.gather_factors();
    }
    t.body(&func.body);
    t.leave(0);
    t.b.finalize(isa.frontend_config());
    function
}

/// The state of translation.
pub struct Translator<'a> {
    pub b: FunctionBuilder<'a>,
    pub func: &'a Func,
    pub features: IsaFeatures,
    /// The 128-bit values of a vector, or the one of a scalar.
    pub parts: Vec<Vec<Value>>,
    /// What made a value.
    pub ops: Vec<Option<&'a Op>>,
    /// Scalar integers that are constants: they have no part, and are written out at each use, where most become a part of the instruction.
    pub known: Vec<Option<u64>>,
    /// Constant factors of multiply-adds: lanes of registers that hold several of them.
    pub factors: HashMap<Val, (Value, usize)>,
}

/// Bytes of a vector register.
pub const REGISTER: usize = 16;

pub fn access() -> MemFlagsData {
    // Not `trusted`: that would promise alignment, which kir does not.
    MemFlagsData::new().with_notrap()
}

pub fn lane_type(elem: Elem) -> Type {
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

pub fn part_type(elem: Elem) -> Type {
    lane_type(elem).by(lanes_of(elem) as u32).expect("a register of lanes is a type")
}

/// Type of a scalar, or of each part of a vector.
pub fn value_type(ty: Ty) -> Type {
    match ty {
        Ty { elem, lanes: 1 } if elem.is_mask() => I8,
        Ty { elem, lanes: 1 } => lane_type(elem),
        Ty { elem, .. } => part_type(elem),
    }
}

pub fn lanes_of(elem: Elem) -> usize {
    REGISTER / elem.bytes()
}

pub fn part_count(ty: Ty) -> usize {
    ty.bytes().div_ceil(REGISTER)
}

pub fn args<'v>(values: impl IntoIterator<Item = &'v Value>) -> Vec<BlockArg> {
    values.into_iter().map(|v| BlockArg::from(*v)).collect()
}

impl<'a> Translator<'a> {
    pub fn ty(&self, v: Val) -> Ty {
        self.func.ty(v)
    }

    pub fn get(&mut self, v: Val) -> Vec<Value> {
        match self.known[v.0 as usize] {
            Some(bits) => vec![self.scalar_bits(self.ty(v).elem, bits)],
            None => self.parts[v.0 as usize].clone(),
        }
    }

    pub fn one(&mut self, v: Val) -> Value {
        match self.known[v.0 as usize] {
            Some(bits) => self.scalar_bits(self.ty(v).elem, bits),
            None => self.parts[v.0 as usize][0],
        }
    }

    pub fn set(&mut self, v: Val, parts: Vec<Value>) {
        debug_assert_eq!(parts.len(), part_count(self.ty(v)), "{v} of {}", self.func.name);
        self.parts[v.0 as usize] = parts;
    }

    pub fn known(&self, v: Val) -> Option<u64> {
        self.known[v.0 as usize]
    }

    pub fn map2(&mut self, a: Val, b: Val, mut f: impl FnMut(&mut Self, Value, Value) -> Value) -> Vec<Value> {
        self.get(a).into_iter().zip(self.get(b)).map(|(a, b)| f(self, a, b)).collect()
    }

    /// The same bits as another type.
    pub fn cast(&mut self, to: Type, x: Value) -> Value {
        if self.b.func.dfg.value_type(x) == to {
            return x;
        }
        self.b.ins().bitcast(to, MemFlagsData::new().with_endianness(Endianness::Little), x)
    }

    pub fn scalar_bits(&mut self, elem: Elem, bits: u64) -> Value {
        match elem {
            Elem::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
            Elem::F64 => self.b.ins().f64const(f64::from_bits(bits)),
            elem if elem.is_mask() => self.b.ins().iconst(I8, i64::from(bits != 0)),
            elem => self.b.ins().iconst(lane_type(elem), bits as i64),
        }
    }

    pub fn splat_bits(&mut self, elem: Elem, bits: u64) -> Value {
        let bytes: Vec<u8> = bits.to_le_bytes()[..elem.bytes()].iter().copied().cycle().take(REGISTER).collect();
        self.vector_bytes(part_type(elem), bytes)
    }

    pub fn vector_bytes(&mut self, ty: Type, bytes: Vec<u8>) -> Value {
        let constant = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(ty, constant)
    }

    /// A constant of the type of a scalar or part.
    pub fn bits(&mut self, ty: Ty, bits: u64) -> Value {
        if ty.is_vector() { self.splat_bits(ty.elem, bits) } else { self.scalar_bits(ty.elem, bits) }
    }

    pub fn number(&mut self, ty: Ty, x: f64) -> Value {
        self.bits(ty, if ty.elem == Elem::F64 { x.to_bits() } else { u64::from((x as f32).to_bits()) })
    }

    /// A scalar as a lane: a mask becomes all ones or zeros.
    pub fn lane(&mut self, elem: Elem, x: Val) -> Value {
        let x = self.one(x);
        if elem.is_mask() { self.b.ins().bmask(lane_type(elem), x) } else { x }
    }

    pub fn extract(&mut self, elem: Elem, part: Value, lane: usize) -> Value {
        let x = self.b.ins().extractlane(part, lane as u8);
        if elem.is_mask() { self.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0) } else { x }
    }
}
