//! Product types: what is multiplied, how it is stored in panels, what it is summed in, and by which instruction.
//!
//! A variant is a row of [`VARIANTS`]; selection and tests are expanded from the table. A panel holds, for each step of the reduction and each
//! column, `k_step` elements side by side: what one lane of a multiply-add takes.

use crate::expr::{load_element, load_element_splat, memory};
use crate::schedule;
use dnnc_ir::{Tensor, Type};
use dnnc_kir::{Builder, Elem, Op, Ty, Val};
use dnnc_targets::{Target, Vector};
use std::borrow::Cow;

/// The instruction that multiplies and adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MultiplyAdd {
    /// A fused multiply-add, or a product and a sum where the target has none.
    Fma,
    /// A wrapping product and a sum of integers.
    MulAdd,
    /// Two products of signed 16-bit integers a lane.
    Dot2,
    /// Four products of signed bytes a lane.
    Dot4,
    /// Four products of an unsigned and a signed byte a lane.
    Dot4u,
}

/// What a variant needs of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing.
    Any,
    /// Pairs of 16-bit products summed in one instruction.
    Dot2,
    /// Quads of products of signed bytes summed in one instruction.
    Dot4,
    /// Quads of products of unsigned and signed bytes.
    Dot4u,
}

impl Needs {
    /// Whether a vector unit has it.
    pub fn met_by(self, v: &Vector) -> bool {
        match self {
            Needs::Any => true,
            Needs::Dot2 => v.pairs,
            Needs::Dot4 => v.dot.s8s8,
            Needs::Dot4u => v.dot.u8s8,
        }
    }
}

/// A way to multiply matrices of given element types.
#[derive(Debug)]
pub struct ProductType {
    /// Name, as in tests and reports: types of both sides and elements a step.
    pub name: &'static str,
    /// Element types of rows, as memory holds them.
    pub lhs: &'static [Type],
    /// Element types of columns before they are packed.
    pub rhs: &'static [Type],
    /// Element type of packed panels.
    pub panel: Elem,
    /// Type of the sums.
    pub accumulator: Elem,
    /// Elements of the reduction that one step takes; where there are several they are contiguous in a row.
    pub k_step: usize,
    /// The instruction.
    pub multiply_add: MultiplyAdd,
    /// What the machine must have.
    pub needs: Needs,
    /// Vector instructions of a step: what variants are compared by, for each element of the reduction.
    pub instructions: usize,
}

/// Integers that have 32 bits in registers.
const INTEGERS: &[Type] = &[Type::I8, Type::U8, Type::I16, Type::U16, Type::I32, Type::U32, Type::I2, Type::U2, Type::I4, Type::U4];
const REALS: &[Type] = &[Type::F32, Type::F16, Type::BF16];
const LONG: &[Type] = &[Type::I64, Type::U64];

/// Every variant.
#[rustfmt::skip]
pub const VARIANTS: &[ProductType] = &[
    variant("f32",     REALS,        REALS,                             (Elem::F32, Elem::F32), 1, MultiplyAdd::Fma,    Needs::Any,  1),
    variant("f64",     &[Type::F64], &[Type::F64],                      (Elem::F64, Elem::F64), 1, MultiplyAdd::Fma,    Needs::Any,  1),
    variant("i32",     INTEGERS,     INTEGERS,                          (Elem::I32, Elem::I32), 1, MultiplyAdd::MulAdd, Needs::Any,  2),
    variant("i64",     LONG,         LONG,                              (Elem::I64, Elem::I64), 1, MultiplyAdd::MulAdd, Needs::Any,  2),
    variant("s16s16",  &[Type::I16], &[Type::I16, Type::I8, Type::U8],  (Elem::I16, Elem::I32), 2, MultiplyAdd::Dot2,   Needs::Dot2, 2),
    variant("u8s8",    &[Type::U8],  &[Type::I8],                       (Elem::I8,  Elem::I32), 4, MultiplyAdd::Dot4u,  Needs::Dot4u, 1),
    variant("s8s8",    &[Type::I8],  &[Type::I8],                       (Elem::I8,  Elem::I32), 4, MultiplyAdd::Dot4,   Needs::Dot4, 1),
];

#[allow(clippy::too_many_arguments)]
const fn variant(
    name: &'static str,
    lhs: &'static [Type],
    rhs: &'static [Type],
    (panel, accumulator): (Elem, Elem),
    k_step: usize,
    multiply_add: MultiplyAdd,
    needs: Needs,
    instructions: usize,
) -> ProductType {
    ProductType { name, lhs, rhs, panel, accumulator, k_step, multiply_add, needs, instructions }
}

impl ProductType {
    /// The variant of fewest instructions for elements of these types on a machine; the first of equals.
    pub fn best(lhs: Type, rhs: Type, target: &Target) -> Option<&'static ProductType> {
        let fits = |p: &&ProductType| p.lhs.contains(&lhs) && p.rhs.contains(&rhs) && p.needs.met_by(&target.vector);
        VARIANTS.iter().filter(fits).min_by_key(|p| p.instructions * 4 / p.k_step)
    }
}

/// A multiply-accumulate of one product type on one machine.
#[derive(Clone, Copy, Debug)]
pub struct Mac {
    /// The variant.
    pub product: &'static ProductType,
    /// Type of the elements of rows in memory.
    pub lhs: Type,
    /// Type of accumulators.
    pub ty: Ty,
    /// Whether a multiply-add takes one lane of a vector as it is.
    pub by_element: bool,
}

impl Mac {
    /// Element by element, for rows of type `ty`; an error for types that have no product.
    pub fn new(ty: Type, target: &Target) -> Result<Mac, String> {
        let product = VARIANTS.iter().find(|p| p.k_step == 1 && p.lhs.contains(&ty));
        let product = product.ok_or_else(|| format!("sums and products of {ty} are not supported: cast to a wider type first"))?;
        Ok(Mac::of(product, ty, target))
    }

    /// By a variant, for rows of type `lhs`.
    pub fn of(product: &'static ProductType, lhs: Type, target: &Target) -> Mac {
        let elem = product.accumulator;
        // 64-bit integers have no vector product on common machines.
        let lanes = if elem == Elem::I64 { 1 } else { schedule::lanes(&target.vector, elem.bytes()) };
        let by_element = target.vector.by_element && matches!(lhs, Type::F32 | Type::F64) && lanes > 1;
        Mac { product, lhs, ty: Ty::vector(elem, lanes as u8), by_element }
    }

    /// Lanes of an accumulator.
    pub fn lanes(&self) -> usize {
        self.ty.lanes as usize
    }

    /// Elements of the reduction in a step.
    pub fn k_step(&self) -> usize {
        self.product.k_step
    }

    /// Bytes of a panel for one column and step.
    pub fn bytes(&self) -> usize {
        self.product.panel.bytes() * self.product.k_step
    }

    /// Bytes of a row for one step.
    pub fn step_bytes(&self) -> usize {
        self.lhs.bytes() * self.product.k_step
    }

    /// Type of a vector of a panel: `k_step` elements for each column.
    pub fn panel(&self) -> Ty {
        Ty::vector(self.product.panel, self.ty.lanes * self.product.k_step as u8)
    }

    /// Type of a vector register full of elements of rows.
    pub fn row_vector(&self) -> Ty {
        Ty::vector(memory(self.lhs), (self.ty.bytes() / self.lhs.bytes()) as u8)
    }

    /// The vector unit as this product uses it: by which tiles are chosen.
    pub fn vector(&self, target: &Target) -> Vector {
        if self.ty.elem.is_float() {
            return target.vector;
        }
        Vector { by_element: false, fma: self.product.instructions == 1, ..target.vector }
    }

    /// Predicted nanoseconds of a product of `rows` × `columns` in so many steps whose operands are in the second-level cache.
    pub fn product_ns(&self, target: &Target, rows: usize, columns: usize, steps: usize) -> f64 {
        schedule::product_ns(&Target { vector: self.vector(target), ..*target }, self.lanes(), rows, columns, steps)
    }

    /// acc + a·w: of each lane, or of the `k_step` elements of each lane.
    pub fn mac(&self, b: &mut Builder, a: Val, w: Val, acc: Val) -> Val {
        match self.product.multiply_add {
            MultiplyAdd::Fma => b.fma(a, w, acc),
            MultiplyAdd::MulAdd => {
                let product = b.mul(a, w);
                b.add(acc, product)
            }
            MultiplyAdd::Dot2 => b.push(self.ty, Op::Dot2(acc, a, w)),
            MultiplyAdd::Dot4 => b.push(self.ty, Op::Dot4(acc, a, w)),
            MultiplyAdd::Dot4u => b.push(self.ty, Op::Dot4u(acc, a, w)),
        }
    }

    /// The element at an address, as a number of the accumulator's type, in every lane of `ty`; a whole step for several elements.
    pub fn splat(&self, b: &mut Builder, ty: Ty, ptr: Val, disp: i32) -> Val {
        if self.product.k_step == 1 {
            return load_element_splat(b, self.lhs, ptr, disp, ty.lanes);
        }
        let step = b.load_splat(ty, ptr, disp);
        b.regroup(step, self.panel())
    }

    /// The first `count` elements of a step in every lane, zeros behind them: reads nothing else.
    pub fn splat_part(&self, b: &mut Builder, ptr: Val, disp: i32, count: usize) -> Val {
        let panel = self.panel();
        let mut v = b.load_part(Ty { lanes: self.product.k_step as u8, ..panel }, ptr, disp, count);
        while b.ty(v).lanes < panel.lanes {
            v = b.join(v, v);
        }
        v
    }

    /// The first `count` of `lanes` elements at an address, as numbers of the accumulator's type; the other lanes are 0.
    pub fn load(&self, b: &mut Builder, lanes: u8, ptr: Val, disp: i32, count: usize) -> Val {
        load_element(b, self.lhs, ptr, disp, lanes, count)
    }

    /// Elements of a constant, each as the bytes of an element of a panel: the constant itself where it is of that type.
    pub fn panel_constant<'a>(&self, t: &'a Tensor) -> Cow<'a, [u8]> {
        fn of<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
            values.iter().flat_map(|&v| bytes(v)).collect()
        }
        let panel = self.product.panel;
        Cow::Owned(match (t.ty().ty, panel) {
            (ty, panel) if memory(ty) == panel => return Cow::Borrowed(t.bytes()),
            (Type::I8, Elem::I16) => of(t.values::<i8>(), |v| i16::from(v).to_le_bytes()),
            (Type::U8, Elem::I16) => of(t.values::<u8>(), |v| i16::from(v).to_le_bytes()),
            (Type::I8, _) => of(t.values::<i8>(), |v| i32::from(v).to_le_bytes()),
            (Type::U8, _) => of(t.values::<u8>(), |v| i32::from(v).to_le_bytes()),
            (Type::I16, _) => of(t.values::<i16>(), |v| i32::from(v).to_le_bytes()),
            (Type::U16, _) => of(t.values::<u16>(), |v| i32::from(v).to_le_bytes()),
            (Type::F16, _) => of(t.values::<u16>(), |v| half::f16::from_bits(v).to_f32().to_le_bytes()),
            (Type::BF16, _) => of(t.values::<u16>(), |v| half::bf16::from_bits(v).to_f32().to_le_bytes()),
            _ => return Cow::Borrowed(t.bytes()),
        })
    }
}
