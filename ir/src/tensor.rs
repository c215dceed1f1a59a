//! Dense constant data.

use crate::float8;
use crate::types::{TensorType, Type};
use bytemuck::Pod;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// A tensor with its data: little-endian elements, row-major, shared by reference.
#[derive(Clone)]
pub struct Tensor {
    ty: TensorType,
    data: Arc<Data>,
}

struct Data {
    /// Words, so that every element type is aligned; the last may be partly unused (zero).
    words: Vec<u64>,
    digest: OnceLock<u64>,
}

/// A Rust number that is an element type.
pub trait Element: Pod + PartialEq + fmt::Debug {
    /// Its element type.
    const TYPE: Type;
}

macro_rules! elements {
    ($($rust:ty => $ty:ident),*) => { $(impl Element for $rust { const TYPE: Type = Type::$ty; })* };
}
elements!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64, f32 => F32, f64 => F64);

impl Tensor {
    /// A tensor of the bytes of its elements, or `None` when their number does not fit the type.
    pub fn from_bytes(ty: TensorType, bytes: &[u8]) -> Option<Tensor> {
        if ty.bytes() != bytes.len() {
            return None;
        }
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Some(Tensor { ty, data: Arc::new(Data { words, digest: OnceLock::new() }) })
    }

    /// A tensor of numbers; panics when their count is not that of the shape.
    pub fn new<T: Element>(shape: impl Into<Vec<usize>>, values: &[T]) -> Tensor {
        Tensor::with_type(TensorType::new(T::TYPE, shape), values)
    }

    /// A tensor whose elements are kept as `T` (bits of f16 as u16, booleans and 8-bit floats as u8, …).
    pub fn with_type<T: Pod>(ty: TensorType, values: &[T]) -> Tensor {
        assert_eq!(ty.ty.bytes(), size_of::<T>(), "element width of {ty}");
        Tensor::from_bytes(ty, bytemuck::cast_slice(values)).expect("as many values as the shape has")
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::new([], &[value])
    }

    /// All elements zero.
    pub fn zeros(ty: TensorType) -> Tensor {
        let words = vec![0u64; ty.bytes().div_ceil(8)];
        Tensor { ty, data: Arc::new(Data { words, digest: OnceLock::new() }) }
    }

    /// Type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Sizes.
    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.ty.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.ty.is_empty()
    }

    /// The bytes of the elements.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.data.words)[..self.ty.bytes()]
    }

    /// The elements; panics when `T` has another width than the element type.
    pub fn values<T: Pod>(&self) -> &[T] {
        assert_eq!(self.ty.ty.bytes(), size_of::<T>(), "element width of {}", self.ty);
        &bytemuck::cast_slice(&self.data.words)[..self.len()]
    }

    /// The elements as `f64`: booleans as 0 and 1, integers beyond 2⁵³ rounded.
    pub fn to_f64s(&self) -> Vec<f64> {
        fn each<T: Pod>(t: &Tensor, f: impl Fn(T) -> f64) -> Vec<f64> {
            t.values::<T>().iter().map(|&v| f(v)).collect()
        }
        match self.ty.ty {
            Type::F64 => self.values().to_vec(),
            Type::F32 => each::<f32>(self, f64::from),
            Type::F16 => each(self, half::f16::to_f64),
            Type::BF16 => each(self, half::bf16::to_f64),
            Type::I2 | Type::I4 | Type::I8 => each::<i8>(self, f64::from),
            Type::I16 => each::<i16>(self, f64::from),
            Type::I32 => each::<i32>(self, f64::from),
            Type::I64 => each::<i64>(self, |v| v as f64),
            Type::Bool | Type::U2 | Type::U4 | Type::U8 => each::<u8>(self, f64::from),
            Type::U16 => each::<u16>(self, f64::from),
            Type::U32 => each::<u32>(self, f64::from),
            Type::U64 => each::<u64>(self, |v| v as f64),
            small => each::<u8>(self, |v| float8::decode(small, v.into())),
        }
    }

    /// The same data under another shape of as many elements.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Tensor {
        let ty = TensorType::new(self.ty.ty, shape);
        assert_eq!(ty.len(), self.len(), "a reshape keeps the number of elements");
        Tensor { ty, data: self.data.clone() }
    }

    /// A hash of the contents, computed once.
    pub fn digest(&self) -> u64 {
        // FNV-1a over words: stable over hosts and releases, unlike the hasher of the standard library.
        *self.data.digest.get_or_init(|| {
            self.data.words.iter().fold(0xcbf2_9ce4_8422_2325, |h, w| (h ^ w).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29))
        })
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.ty == other.ty && (Arc::ptr_eq(&self.data, &other.data) || self.data.words == other.data.words)
    }
}

impl Eq for Tensor {}

impl Hash for Tensor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ty.hash(state);
        self.digest().hash(state);
    }
}

impl PartialOrd for Tensor {
    fn partial_cmp(&self, other: &Tensor) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tensor {
    fn cmp(&self, other: &Tensor) -> std::cmp::Ordering {
        (&self.ty, self.digest()).cmp(&(&other.ty, other.digest())).then_with(|| self.data.words.cmp(&other.data.words))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}, {:016x})", self.ty, self.digest())
    }
}
