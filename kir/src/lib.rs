//! The vector kernel IR: the one thing emitters see.
//!
//! A [`Func`] is a small structured program in single-assignment form: pointers, scalars, vectors, counted loops with carried
//! values. Generators write it through [`Builder`]; [`interp`] is its meaning; emitters make machine code of it. It knows
//! nothing of networks, and no generator asks which architecture it is for.
//!
//! Meaning of what is not obvious:
//! - Integers wrap. Shifts take their count modulo the width. `DivS`/`RemS`/`DivU`/`RemU` are scalar only; by 0 (or MIN by −1) gives 0.
//! - Float `Min`/`Max` are `a < b ? a : b` and `a > b ? a : b`: the second operand when one is NaN or both are zeros.
//! - A comparison gives a mask of the width of what was compared; `Select` takes a mask of the width of its arms.
//! - Loads and stores are little-endian and need no alignment. `Load`/`Store` of a vector with `count` < lanes touches only the
//!   first `count` elements in memory; the other lanes load as 0.
//! - A kernel is `fn(ptr × n, task: i64) -> i32`; falling off the end returns 0, [`Builder::fail`] returns a status at once.

mod builder;
pub mod interp;
pub mod interpret;
pub mod program;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
mod verify;

pub use builder::Builder;
pub use verify::verify;

/// Type of a scalar or of a lane. Masks are booleans that are as wide as what was compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Elem {
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    /// An address.
    Ptr,
    M8,
    M16,
    M32,
    M64,
}

impl Elem {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Elem::I8 | Elem::M8 => 1,
            Elem::I16 | Elem::M16 => 2,
            Elem::I32 | Elem::F32 | Elem::M32 => 4,
            Elem::I64 | Elem::F64 | Elem::Ptr | Elem::M64 => 8,
        }
    }

    /// Whether it is a floating-point number.
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// Whether it is a mask.
    pub fn is_mask(self) -> bool {
        matches!(self, Elem::M8 | Elem::M16 | Elem::M32 | Elem::M64)
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
}

/// Type of a value: `lanes` = 1 is a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Ty {
    /// Type of a lane.
    pub elem: Elem,
    /// Number of lanes: a power of two.
    pub lanes: u8,
}

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
}

/// A value: an index into [`Func::types`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Val(pub u32);

/// Operations of one operand; the result has its type where nothing else is said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Un {
    /// −a (floats flip the sign bit).
    Neg,
    /// |a| (floats clear the sign bit).
    Abs,
    /// √a, floats.
    Sqrt,
    /// Round down, floats.
    Floor,
    /// Round up, floats.
    Ceil,
    /// Round towards zero, floats.
    Trunc,
    /// Round to nearest, ties to even, floats.
    Nearest,
    /// All bits flipped; integers and masks.
    Not,
}

/// Operations of two operands of one type, which the result has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Bin {
    Add,
    Sub,
    Mul,
    /// Float division.
    Div,
    DivS,
    DivU,
    RemS,
    RemU,
    Min,
    Max,
    MinS,
    MaxS,
    MinU,
    MaxU,
    And,
    Or,
    Xor,
    /// Shift counts are a scalar or vector of the same type as what is shifted.
    Shl,
    ShrS,
    ShrU,
}

/// Comparisons; the ordered ones are false where a float is NaN, `Ne` is true.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    LtU,
    LeU,
    GtU,
    GeU,
}

/// Changes of type; the number of lanes stays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Conv {
    /// Wider integer, sign kept.
    Sext,
    /// Wider integer, zeros above.
    Zext,
    /// Narrower integer, high bits dropped.
    Wrap,
    /// Signed integer to float, rounded to nearest even (I32→F32, I32→F64, I64→F32, I64→F64; vectors: I32→F32 and I32→F64).
    IntToFloat,
    /// Unsigned 64-bit or 32-bit integer to float, scalar only.
    UintToFloat,
    /// Float to signed integer, towards zero, saturating, NaN to 0 (vectors: F32→I32).
    FloatToInt,
    /// Float to unsigned integer, towards zero, saturating, NaN to 0, scalar only.
    FloatToUint,
    /// F32→F64 (exact) or F64→F32 (to nearest even).
    FloatToFloat,
    /// The same bits as another type of the same width; also between Ptr and I64.
    Bits,
    /// Mask to integer of its width: 0 or −1.
    MaskToInt,
    /// The 16 bits of an f16 in I16 to F32, exactly.
    HalfToFloat,
    /// F32 to the 16 bits of an f16 in I16, to nearest even; a NaN keeps sign and high payload bits.
    FloatToHalf,
}

/// How lanes are combined into one number. On integers minimum and maximum are signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Fold {
    Add,
    /// As [`Bin::Min`], pairwise from the two halves.
    Min,
    /// As [`Bin::Max`], pairwise from the two halves.
    Max,
}

/// An operation that makes one value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A number by its bits, in every lane. Pointers cannot be constants.
    Const(u64),
    /// One operand.
    Un(Un, Val),
    /// Two operands.
    Bin(Bin, Val, Val),
    /// a·b + c, rounded once where the target has a fused multiply-add, else twice. Floats.
    Fma(Val, Val, Val),
    /// A comparison.
    Cmp(Cmp, Val, Val),
    /// mask ? a : b, lane by lane.
    Select(Val, Val, Val),
    /// Change of type.
    Conv(Conv, Val),
    /// A scalar in every lane.
    Splat(Val),
    /// Lane `1` of a vector.
    Extract(Val, u8),
    /// The vector with lane `2` replaced by scalar `1`.
    Insert(Val, Val, u8),
    /// Lanes of a followed by lanes of b, picked by index; as many as the result has lanes (those of a).
    Shuffle(Val, Val, Box<[u8]>),
    /// Halves: lanes `0..n/2` (false) or `n/2..n` (true) of a vector, as a vector or scalar of half the lanes.
    Half(Val, bool),
    /// Two vectors (or scalars) as one of twice the lanes.
    Join(Val, Val),
    /// All lanes combined, pairwise: first lane i of the lower half (first operand) with lane i of the upper half, and so on.
    Reduce(Fold, Val),
    /// Whether any lane of the mask is set (scalar mask M8).
    Any(Val),
    /// Pairs of i16 multiplied and added into i32: lane i of the result = acc + a[2i]·b[2i] + a[2i+1]·b[2i+1].
    /// Operands: acc <n x i32>, a and b <2n x i16>.
    Dot2(Val, Val, Val),
    /// Quads of i8 multiplied and added into i32: acc <n x i32>, a and b <4n x i8>, both signed, exact.
    Dot4(Val, Val, Val),
    /// Address plus bytes (I64).
    Offset(Val, Val),
    /// Read from address + displacement in bytes; `count` elements, the other lanes 0.
    Load {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
        /// Elements read; lanes of the type for all.
        count: u8,
    },
    /// Read one element from address + displacement into every lane.
    LoadSplat {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
    },
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stmt {
    /// A value is made.
    Let(Val, Op),
    /// A value is written to address + displacement.
    Store {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
        /// What is written; masks cannot be.
        val: Val,
        /// Elements written; lanes of the type for all.
        count: u8,
    },
    /// The line at address + displacement will be read soon. No effect on results.
    Prefetch {
        /// Address.
        ptr: Val,
        /// Bytes added to it.
        disp: i32,
    },
    /// `for iv in (start..end).step_by(step)`, step > 0; start and end are I64, read once.
    For {
        /// Counter.
        iv: Val,
        /// First value.
        start: Val,
        /// Bound, not reached.
        end: Val,
        /// Increment.
        step: i64,
        /// Values that go from one iteration to the next.
        carried: Vec<Carried>,
        /// Body.
        body: Vec<Stmt>,
    },
    /// Runs the body as long as `cond`, computed by `head` from the carried values, is true.
    While {
        /// Values that go from one iteration to the next; `result` has their value when the condition fails.
        carried: Vec<Carried>,
        /// Computes the condition; its values can be used in the body.
        head: Vec<Stmt>,
        /// A scalar mask.
        cond: Val,
        /// Body.
        body: Vec<Stmt>,
    },
    /// One of two bodies.
    If {
        /// A scalar mask.
        cond: Val,
        /// When it is true.
        then: Vec<Stmt>,
        /// When it is false.
        otherwise: Vec<Stmt>,
        /// Results: (result, value in `then`, value in `otherwise`).
        results: Vec<(Val, Val, Val)>,
    },
    /// Ends the kernel with this status.
    Fail(i32),
}

/// A value that a loop carries.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Carried {
    /// Its name in the body.
    pub param: Val,
    /// Before the first iteration.
    pub init: Val,
    /// At the end of the body.
    pub next: Val,
    /// Its name after the loop (`init` when no iteration ran).
    pub result: Val,
}

/// A kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Func {
    /// A name for people; identical bodies are emitted once whatever they are called.
    pub name: String,
    /// Number of pointer parameters; they are values `0..n`, and value `n` is the task number (I64).
    pub pointers: usize,
    /// Type of every value.
    pub types: Vec<Ty>,
    /// The program.
    pub body: Vec<Stmt>,
    /// How the optimiser of an emitter should treat it.
    pub tuning: Tuning,
}

/// What a generator knows of how its kernel should be emitted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Tuning {
    /// Keep the order of operations: multiply-add tiles written for the register file.
    #[default]
    AsWritten,
    /// Hoist constants and schedule: long chains of arithmetic with many constants.
    Optimise,
}

impl Func {
    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    /// The task number.
    pub fn task(&self) -> Val {
        Val(self.pointers as u32)
    }

    /// Widest vector, in bytes (at least 1).
    pub fn widest(&self) -> usize {
        self.types.iter().map(|t| t.bytes()).max().unwrap_or(1)
    }
}
