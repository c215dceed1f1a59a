//! Element types and the type of a tensor.

use std::fmt;

/// The type of one element.
///
/// Types narrower than a byte are kept one element a byte: only the ONNX reader and writer know their packed form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // the names are the standard ones
pub enum Type {
    Bool,
    I2,
    I4,
    I8,
    I16,
    I32,
    I64,
    U2,
    U4,
    U8,
    U16,
    U32,
    U64,
    F16,
    BF16,
    F32,
    F64,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F4E2M1,
}

impl Type {
    /// Every type, in the order of the enum.
    pub const ALL: &[Type] = &[
        Type::Bool,
        Type::I2,
        Type::I4,
        Type::I8,
        Type::I16,
        Type::I32,
        Type::I64,
        Type::U2,
        Type::U4,
        Type::U8,
        Type::U16,
        Type::U32,
        Type::U64,
        Type::F16,
        Type::BF16,
        Type::F32,
        Type::F64,
        Type::F8E4M3FN,
        Type::F8E4M3FNUZ,
        Type::F8E5M2,
        Type::F8E5M2FNUZ,
        Type::F8E8M0,
        Type::F4E2M1,
    ];

    /// Bytes an element occupies in memory.
    pub fn bytes(self) -> usize {
        use Type::*;
        match self {
            Bool | I2 | I4 | I8 | U2 | U4 | U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => 1,
            I16 | U16 | F16 | BF16 => 2,
            I32 | U32 | F32 => 4,
            I64 | U64 | F64 => 8,
        }
    }

    /// Bits of an element; unlike [`bytes`](Type::bytes) it tells the types apart that fill a byte only in part.
    pub fn bits(self) -> u32 {
        match self {
            Type::I2 | Type::U2 => 2,
            Type::I4 | Type::U4 | Type::F4E2M1 => 4,
            wide => 8 * wide.bytes() as u32,
        }
    }

    /// The least and the largest value of an integer type, 0 and 1 of `Bool`; `None` for floats.
    pub fn range(self) -> Option<[i128; 2]> {
        match self {
            Type::Bool => Some([0, 1]),
            float if float.is_float() => None,
            signed if signed.is_signed() => Some([-1 << (signed.bits() - 1), (1 << (signed.bits() - 1)) - 1]),
            unsigned => Some([0, (1 << unsigned.bits()) - 1]),
        }
    }

    /// Whether values of the type are floating-point numbers.
    pub fn is_float(self) -> bool {
        use Type::*;
        matches!(self, F16 | BF16 | F32 | F64 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }

    /// Whether values of the type are integers (`Bool` is not).
    pub fn is_int(self) -> bool {
        !self.is_float() && self != Type::Bool
    }

    /// Whether the type is a signed integer.
    pub fn is_signed(self) -> bool {
        use Type::*;
        matches!(self, I2 | I4 | I8 | I16 | I32 | I64)
    }

    /// Whether elements of the type are only moved and cast, never computed with: floats of 8 bits and less, integers under 8 bits.
    pub fn is_narrow(self) -> bool {
        use Type::*;
        matches!(self, I2 | I4 | U2 | U4 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1)
    }

    /// Whether the type is a float that is computed with: f16, bf16, f32 or f64.
    pub fn is_real(self) -> bool {
        self.is_float() && !self.is_narrow()
    }

    /// Whether the type is a number that is computed with: a float from f16 on or an integer of 8 bits or more.
    pub fn is_number(self) -> bool {
        self != Type::Bool && !self.is_narrow()
    }

    /// The name in the text form: `f32`, `i8`, `bool`, …
    pub fn name(self) -> &'static str {
        use Type::*;
        match self {
            Bool => "bool",
            I2 => "i2",
            I4 => "i4",
            I8 => "i8",
            I16 => "i16",
            I32 => "i32",
            I64 => "i64",
            U2 => "u2",
            U4 => "u4",
            U8 => "u8",
            U16 => "u16",
            U32 => "u32",
            U64 => "u64",
            F16 => "f16",
            BF16 => "bf16",
            F32 => "f32",
            F64 => "f64",
            F8E4M3FN => "f8e4m3fn",
            F8E4M3FNUZ => "f8e4m3fnuz",
            F8E5M2 => "f8e5m2",
            F8E5M2FNUZ => "f8e5m2fnuz",
            F8E8M0 => "f8e8m0",
            F4E2M1 => "f4e2m1",
        }
    }

    /// The type of a name of the text form.
    pub fn parse(name: &str) -> Option<Type> {
        Type::ALL.iter().copied().find(|t| t.name() == name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Element type and sizes of a tensor; row-major, the last axis contiguous.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// Element type.
    pub ty: Type,
    /// Sizes, outermost first; empty for a scalar; a size may be 0.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// A tensor type.
    pub fn new(ty: Type, shape: impl Into<Vec<usize>>) -> TensorType {
        TensorType { ty, shape: shape.into() }
    }

    /// A tensor type whose sizes are checked: an error when the elements or their bytes could not be addressed, so that no later
    /// arithmetic on sizes (products, strides, byte offsets) can overflow.
    pub fn checked(ty: Type, shape: impl Into<Vec<usize>>) -> Result<TensorType, String> {
        let shape = shape.into();
        // Empty axes count as 1: strides and partial products must not overflow either.
        let bytes = shape.iter().try_fold(ty.bytes(), |n, &size| n.checked_mul(size.max(1)));
        match bytes {
            Some(n) if n <= isize::MAX as usize / 2 => Ok(TensorType { ty, shape }),
            _ => Err(format!("a tensor {} is too large", TensorType { ty, shape })),
        }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.ty.bytes()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        strides
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.ty)?;
        for (i, size) in self.shape.iter().enumerate() {
            write!(f, "{}{size}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The shape that `a` and `b` broadcast to, after the rules of NumPy.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |s: &[usize], i: usize| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}
