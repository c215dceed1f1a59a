//! Types of values: elements, and vectors of them.

use std::fmt;

/// What an element is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Int,
    Float,
    Ptr,
    Mask,
}

/// Defines [`Elem`]: a row has a name, its word in text, its bytes and its class.
macro_rules! elems {
    ($($(#[$doc:meta])* $variant:ident $word:literal $bytes:literal $class:ident;)*) => {
        /// Type of a scalar or of a lane. Masks are booleans that are as wide as what was compared.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Elem {
            $($(#[$doc])* $variant),*
        }

        impl Elem {
            /// Every one.
            pub const ALL: &'static [Elem] = &[$(Elem::$variant),*];

            /// Bytes of one.
            pub fn bytes(self) -> usize {
                match self {
                    $(Elem::$variant => $bytes),*
                }
            }

            /// Its name in text.
            pub fn word(self) -> &'static str {
                match self {
                    $(Elem::$variant => $word),*
                }
            }

            fn class(self) -> Class {
                match self {
                    $(Elem::$variant => Class::$class),*
                }
            }
        }
    };
}

elems! {
    I8 "i8" 1 Int;
    I16 "i16" 2 Int;
    I32 "i32" 4 Int;
    I64 "i64" 8 Int;
    F32 "f32" 4 Float;
    F64 "f64" 8 Float;
    /// An address.
    Ptr "ptr" 8 Ptr;
    M8 "m8" 1 Mask;
    M16 "m16" 2 Mask;
    M32 "m32" 4 Mask;
    M64 "m64" 8 Mask;
}

impl Elem {
    /// Whether it is an integer; addresses are none.
    pub fn is_int(self) -> bool {
        self.class() == Class::Int
    }

    /// Whether it is a floating-point number.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Whether it is a mask.
    pub fn is_mask(self) -> bool {
        self.class() == Class::Mask
    }

    /// Whether it can be in memory.
    pub fn is_stored(self) -> bool {
        self.is_int() || self.is_float()
    }

    /// The mask of a comparison of such values.
    pub fn mask(self) -> Elem {
        match self.bytes() {
            1 => Elem::M8,
            2 => Elem::M16,
            4 => Elem::M32,
            _ => Elem::M64,
        }
    }

    /// The integer of the same width.
    pub fn int(self) -> Elem {
        match self.bytes() {
            1 => Elem::I8,
            2 => Elem::I16,
            4 => Elem::I32,
            _ => Elem::I64,
        }
    }

    /// All its bits set.
    pub fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Type of a value: `lanes` = 1 is a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Ty {
    /// Type of a lane.
    pub elem: Elem,
    /// Number of lanes: a power of two.
    pub lanes: u8,
}

/// Bytes of the widest vector.
pub const MAX_BYTES: usize = 64;

impl Ty {
    /// An address.
    pub const PTR: Ty = Ty::scalar(Elem::Ptr);
    /// A 64-bit integer: indices and trip counts.
    pub const I64: Ty = Ty::scalar(Elem::I64);
    /// A 32-bit integer.
    pub const I32: Ty = Ty::scalar(Elem::I32);
    /// A float.
    pub const F32: Ty = Ty::scalar(Elem::F32);
    /// A double.
    pub const F64: Ty = Ty::scalar(Elem::F64);

    /// One number.
    pub const fn scalar(elem: Elem) -> Ty {
        Ty { elem, lanes: 1 }
    }

    /// Several numbers.
    pub const fn vector(elem: Elem, lanes: u8) -> Ty {
        Ty { elem, lanes }
    }

    /// Bytes of all lanes.
    pub fn bytes(self) -> usize {
        self.elem.bytes() * self.lanes as usize
    }

    /// The same number of lanes of another type.
    pub fn of(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    /// Whether there are several lanes.
    pub fn is_vector(self) -> bool {
        self.lanes > 1
    }

    /// Whether a value can have it.
    pub fn is_valid(self) -> bool {
        self.lanes.is_power_of_two() && self.bytes() <= MAX_BYTES && (self.elem != Elem::Ptr || !self.is_vector())
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => write!(f, "{}", self.elem),
            n => write!(f, "{}x{n}", self.elem),
        }
    }
}

/// A value: an index into the types of its function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Val(pub u32);

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
