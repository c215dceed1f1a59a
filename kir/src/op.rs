//! Operations by table.
//!
//! A row says all there is of an operation: its fields, its word, the types of operands and result in terms of one type T, what else has
//! to hold, and what the interpreter does. The visitor of operands, the verifier's rule, the text form and the test cases follow.

use crate::element::{Bin, Cmp, Conv, Fold, Un, fma};
use crate::field::{Bits, Count, Disp, Field, Lane, On, Pick, Ptr, Shape, Upper, Use};
use crate::lanes::Frame;
use crate::ty::{Elem, Ty, Val};
use crate::words::Words;
use Shape::{Group, Half, Is, Lanes, Mask, Same, Scalar};

type Check = Result<(), String>;

fn need(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

fn undefined(t: Ty) -> String {
    format!("not defined on {t}")
}

fn vector(t: Ty) -> Check {
    need(t.is_vector(), || format!("{t} is no vector"))
}

/// Whether so many elements of a value can be read or written.
pub fn in_memory(t: Ty, count: u8) -> Check {
    need(t.elem.is_stored(), || format!("{t} cannot be in memory"))?;
    need((1..=t.lanes).contains(&count), || format!("a count of {count} does not fit {t}"))
}

/// All combinations of the samples of fields.
macro_rules! samples {
    ($t:ident, $out:ident, $name:ident, [$($done:ident)*];) => {
        $out.push(Op::$name($($done.clone()),*));
    };
    ($t:ident, $out:ident, $name:ident, [$($done:ident)*]; $field:ident: $kind:ident, $($rest:tt)*) => {
        for $field in <$kind as Field>::samples($t) {
            samples!($t, $out, $name, [$($done)* $field]; $($rest)*);
        }
    };
}

macro_rules! ops {
    ($(
        $(#[$doc:meta])*
        $name:ident($($field:ident: $kind:ident $([$shape:expr])?),*) $word:literal -> $result:expr,
        |$on:pat_param| $rule:expr,
        |$frame:ident| $run:expr;
    )*) => {
        /// An operation that makes one value.
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum Op {
            $($(#[$doc])* $name($(<$kind as Field>::Is),*)),*
        }

        impl Op {
            /// Visits every value that is read, to change it.
            pub fn operands_mut(&mut self, visit: &mut dyn FnMut(&mut Val)) {
                match self {
                    $(Op::$name($($field),*) => {
                        $(if let Some(v) = <$kind as Field>::operand($field) {
                            visit(v);
                        })*
                    })*
                }
            }

            /// Types of the operands, in the order in which they are visited, and of the result.
            pub fn shapes(&self) -> (&'static [Shape], Shape) {
                match self {
                    $(Op::$name(..) => {
                        const OPERANDS: &[Shape] = &[$($($shape,)?)*];
                        (OPERANDS, $result)
                    })*
                }
            }

            /// Whether fields and types go together, given operands of the types that `shapes` says.
            pub fn rule(&self, on: On) -> Result<(), String> {
                match self {
                    $(Op::$name($($field),*) => {
                        let _ = ($($field,)*);
                        let $on = on;
                        $rule
                    })*
                }
            }

            /// Computes the result.
            pub(crate) fn run(&self, frame: &mut Frame) -> Result<(), String> {
                match self {
                    $(Op::$name($($field),*) => {
                        let $frame = frame;
                        $run;
                    })*
                }
                Ok(())
            }

            /// Writes it as text.
            pub(crate) fn print(&self, ty: Ty, out: &mut String) {
                match self {
                    $(Op::$name($($field),*) => {
                        out.push_str($word);
                        $(<$kind as Field>::print($field, ty, out);)*
                    })*
                }
            }

            /// Reads an operation whose result has this type.
            pub(crate) fn parse(words: &mut Words, ty: Ty) -> Result<Op, String> {
                let start = words.position();
                $(
                    words.rewind(start);
                    if $word.is_empty() || words.eat($word) {
                        let read = |words: &mut Words| -> Result<Op, String> {
                            Ok(Op::$name($(<$kind as Field>::parse(words, ty)?),*))
                        };
                        match read(words) {
                            Ok(op) => return Ok(op),
                            // Past the word of the row, or of one of its family.
                            Err(why) if words.position() > start + 1 => return Err(why),
                            Err(_) => {}
                        }
                    }
                )*
                words.rewind(start + 1);
                Err("expected an operation".into())
            }

            /// Every operation, with fields that are worth a test on a type; operands are to be put in.
            pub fn samples(t: Ty) -> Vec<Op> {
                let mut out = vec![];
                $(samples!(t, out, $name, []; $($field: $kind,)*);)*
                out
            }

            /// The words of all operations.
            pub fn words() -> Vec<&'static str> {
                let rows = [$($word),*].into_iter().filter(|w| !w.is_empty());
                let two = Un::ALL.iter().map(|x| x.word()).chain(Bin::ALL.iter().map(|x| x.word()));
                let four = two.chain(Cmp::ALL.iter().map(|x| x.word())).chain(Conv::ALL.iter().map(|x| x.word()));
                rows.chain(four).chain(Fold::ALL.iter().map(|x| x.word())).collect()
            }
        }
    };
}

ops! {
    /// A number by its bits, in every lane. Pointers cannot be constants.
    Const(bits: Bits) "const" -> Same,
    |On { t, .. }| {
        need(t.elem != Elem::Ptr, || "a pointer cannot be a constant".into())?;
        need(*bits & !t.elem.ones() == 0, || format!("{bits:#x} has more bits than {}", t.elem))?;
        need(!t.elem.is_mask() || *bits == 0 || *bits == t.elem.ones(), || "a mask is 0 or all ones".into())
    },
    |x| x.fill(*bits);

    /// One operand.
    Un(op: Un, a: Use[Same]) "" -> Same,
    |On { t, .. }| need(op.defined(t), || undefined(t)),
    |x| x.map(*a, op.on(x.ty().elem));

    /// Two operands.
    Bin(op: Bin, a: Use[Same], b: Use[Same]) "" -> Same,
    |On { t, .. }| need(op.defined(t), || undefined(t)),
    |x| x.map2(*a, *b, op.on(x.ty().elem));

    /// a·b + c, rounded once where the target has a fused multiply-add, else twice. Floats.
    Fma(a: Use[Same], b: Use[Same], c: Use[Same]) "fma" -> Same,
    |On { t, .. }| need(t.elem.is_float(), || undefined(t)),
    |x| x.map3(*a, *b, *c, fma(x.ty().elem, x.values.fused));

    /// A comparison.
    Cmp(op: Cmp, a: Use[Same], b: Use[Same]) "" -> Mask,
    |On { t, .. }| need(op.defined(t), || undefined(t)),
    |x| x.map2(*a, *b, op.on(x.of(*a).elem));

    /// mask ? a : b, lane by lane.
    Select(mask: Use[Mask], a: Use[Same], b: Use[Same]) "select" -> Same,
    |_| Ok(()),
    |x| x.map3(*mask, *a, *b, |m, a, b| if m != 0 { a } else { b });

    /// Change of type.
    Conv(op: Conv, a: Use[Same]) "" -> Lanes,
    |On { t, result }| {
        let regroups = *op == Conv::Bits && t.is_vector() && result.is_vector();
        need(op.defined((t, result)) && (regroups || t.lanes == result.lanes), || format!("does not convert {t} to {result}"))
    },
    |x| match x.of(*a).lanes == x.ty().lanes {
        true => {
            let (from, to) = (x.of(*a).elem, x.ty().elem);
            x.map(*a, |bits| op.convert(from, to, bits))
        }
        false => x.regroup(*a),
    };

    /// A scalar in every lane.
    Splat(a: Use[Scalar]) "splat" -> Same,
    |On { t, .. }| vector(t),
    |x| x.fill(x.scalar(*a));

    /// Lane `1` of a vector.
    Extract(a: Use[Same], lane: Lane) "extract" -> Scalar,
    |On { t, .. }| need(t.is_vector() && *lane < t.lanes, || format!("no such lane of {t}")),
    |x| x.copy(0, *a, *lane as usize, 1);

    /// The vector with lane `2` replaced by scalar `1`.
    Insert(a: Use[Same], value: Use[Scalar], lane: Lane) "insert" -> Same,
    |On { t, .. }| need(t.is_vector() && *lane < t.lanes, || format!("no such lane of {t}")),
    |x| {
        x.copy(0, *a, 0, x.ty().lanes as usize);
        x.copy(*lane as usize, *value, 0, 1)
    };

    /// Lanes of a followed by lanes of b, picked by index; as many as the result has lanes (those of a).
    Shuffle(a: Use[Same], b: Use[Same], pick: Pick) "shuffle" -> Same,
    |On { t, .. }| {
        need(t.is_vector() && pick.len() == t.lanes as usize, || "one index a lane is needed".into())?;
        need(pick.iter().all(|p| *p < 2 * t.lanes), || "an index is too large".into())
    },
    |x| {
        let n = x.ty().lanes as usize;
        for (i, p) in pick.iter().map(|p| *p as usize).enumerate() {
            let (from, lane) = if p < n { (*a, p) } else { (*b, p - n) };
            x.copy(i, from, lane, 1);
        }
    };

    /// Halves: lanes `0..n/2` (false) or `n/2..n` (true) of a vector, as a vector or scalar of half the lanes.
    Half(a: Use[Same], upper: Upper) "half" -> Half,
    |On { t, .. }| vector(t),
    |x| {
        let n = x.ty().lanes as usize;
        x.copy(0, *a, if *upper { n } else { 0 }, n)
    };

    /// Two vectors (or scalars) as one of twice the lanes.
    Join(a: Use[Half], b: Use[Half]) "join" -> Same,
    |On { t, .. }| vector(t),
    |x| {
        let half = x.ty().lanes as usize / 2;
        x.copy(0, *a, 0, half);
        x.copy(half, *b, 0, half)
    };

    /// All lanes combined, pairwise: first lane i of the lower half (first operand) with lane i of the upper half, and so on.
    Reduce(fold: Fold, a: Use[Same]) "" -> Scalar,
    |On { t, .. }| {
        vector(t)?;
        need(fold.defined(t), || undefined(t))
    },
    |x| {
        let elem = x.ty().elem;
        let f = fold.of(elem).on(elem);
        let mut all = x.lanes(*a).to_vec();
        while all.len() > 1 {
            let upper = all.split_off(all.len() / 2);
            all.iter_mut().zip(upper).for_each(|(a, b)| *a = f(*a, b));
        }
        x.set(0, all[0])
    };

    /// Whether any lane of the mask is set.
    Any(a: Use[Same]) "any" -> Is(Ty::scalar(Elem::M8)),
    |On { t, .. }| need(t.elem.is_mask(), || undefined(t)),
    |x| {
        let any = x.lanes(*a).iter().any(|lane| *lane != 0);
        x.set(0, if any { 0xff } else { 0 })
    };

    /// Pairs of i16 multiplied and added into i32, wrapping: lane i of the result = `acc + a[2i]·b[2i] + a[2i+1]·b[2i+1]`.
    /// Operands: acc `<n x i32>`, a and b `<2n x i16>`.
    Dot2(acc: Use[Same], a: Use[Group(Elem::I16, 2)], b: Use[Group(Elem::I16, 2)]) "dot2" -> Same,
    |On { t, .. }| need(t.elem == Elem::I32, || undefined(t)),
    |x| x.dot::<2>(*acc, *a, *b, |a| i32::from(a as i16), |b| i32::from(b as i16));

    /// Quads of i8 multiplied and added into i32, wrapping, never saturating: acc `<n x i32>`, a and b `<4n x i8>`, both signed.
    Dot4(acc: Use[Same], a: Use[Group(Elem::I8, 4)], b: Use[Group(Elem::I8, 4)]) "dot4" -> Same,
    |On { t, .. }| need(t.elem == Elem::I32, || undefined(t)),
    |x| x.dot::<4>(*acc, *a, *b, |a| i32::from(a as i8), |b| i32::from(b as i8));

    /// As `Dot4`, the bytes of a unsigned and those of b signed.
    Dot4u(acc: Use[Same], a: Use[Group(Elem::I8, 4)], b: Use[Group(Elem::I8, 4)]) "dot4u" -> Same,
    |On { t, .. }| need(t.elem == Elem::I32, || undefined(t)),
    |x| x.dot::<4>(*acc, *a, *b, |a| i32::from(a as u8), |b| i32::from(b as i8));

    /// Address plus bytes (I64).
    Offset(ptr: Use[Same], bytes: Use[Is(Ty::I64)]) "offset" -> Same,
    |On { t, .. }| need(t == Ty::PTR, || undefined(t)),
    |x| x.fill(x.scalar(*ptr).wrapping_add(x.scalar(*bytes)));

    /// Read from an address + displacement in bytes; so many elements (lanes of the type for all), the other lanes 0.
    Load(ptr: Ptr[Is(Ty::PTR)], disp: Disp, count: Count) "load" -> Same,
    |On { t, .. }| in_memory(t, *count),
    |x| x.load(*ptr, *disp, *count as usize)?;

    /// Read one element from an address + displacement into every lane.
    LoadSplat(ptr: Ptr[Is(Ty::PTR)], disp: Disp) "load_splat" -> Same,
    |On { t, .. }| in_memory(t, 1),
    |x| {
        x.load(*ptr, *disp, 1)?;
        let first = x.scalar(x.result);
        x.fill(first)
    };
}

impl Op {
    /// Visits every value that is read.
    pub fn operands(&self, mut visit: impl FnMut(Val)) {
        // Fields are few and small, but for the indices of a shuffle.
        match self {
            Op::Shuffle(a, b, _) => [*a, *b].into_iter().for_each(visit),
            _ => self.clone().operands_mut(&mut |v| visit(*v)),
        }
    }

    /// Checks the types of operands, which `of` knows, and of the result.
    pub fn check(&self, result: Ty, of: impl Fn(Val) -> Result<Ty, String>) -> Result<(), String> {
        let mut operands = vec![];
        self.operands(|v| operands.push(v));
        let (shapes, shape) = self.shapes();
        // T is the type of the result, or of the first operand that has it.
        let t = match shapes.iter().position(|s| *s == Same).filter(|_| shape != Same) {
            Some(i) => of(operands[i])?,
            None => result,
        };
        for (v, shape) in operands.iter().zip(shapes) {
            let (has, wanted) = (of(*v)?, shape.of(t));
            match wanted {
                Some(ty) => need(has == ty, || format!("{v} is {has}, not {ty}"))?,
                None => return Err(undefined(t)),
            }
        }
        match shape {
            Lanes => {
                need(result.lanes == t.lanes || result.bytes() == t.bytes(), || format!("{result} has not as many lanes or bytes as {t}"))?
            }
            shape => need(shape.of(t) == Some(result), || format!("the result on {t} is not {result}"))?,
        }
        self.rule(On { t, result })
    }
}
