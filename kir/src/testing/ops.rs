//! A kernel for every operation and type, from the table of operations.

use super::case::Case;
use super::numbers::{Random, STORED, fill};
use crate::{Bin, Builder, Cmp, Conv, Elem, Op, Shape, Ty, Val, verify};

const TASKS: usize = 24;

/// An operand for the task: loaded, made of a comparison where it is a mask, or the address of a value of type `t`.
fn operand(b: &mut Builder, ty: Ty, t: Ty, layout: &mut Vec<Ty>, at: &mut usize, from: Val) -> Val {
    if ty == Ty::PTR {
        let ptr = b.offset_int(from, *at as i64);
        layout.push(t);
        *at += t.bytes();
        return ptr;
    }
    let memory = if ty.elem.is_mask() { ty.of(ty.elem.int()) } else { ty };
    let x = b.load(memory, from, *at as i32);
    layout.push(memory);
    *at += memory.bytes();
    if !ty.elem.is_mask() {
        return x;
    }
    let zero = b.int(memory, 0);
    b.cmp(Cmp::Lt, x, zero)
}

/// A kernel that computes one operation on loaded operands, or nothing where it is not kir. `wrap` makes the operation of the operands.
fn case(name: String, operands: &[Ty], t: Ty, result: Ty, wrap: impl FnOnce(&mut Builder, &[Val]) -> Op) -> Option<Case> {
    let mut b = Builder::new(name, 2);
    let (mut layout, mut at) = (vec![], 0);
    let size: usize = operands.iter().map(|o| if *o == Ty::PTR { t.bytes() } else { o.bytes() }).sum();
    let from = b.element(b.param(0), b.task(), size.max(1));
    let values: Vec<Val> = operands.iter().map(|o| operand(&mut b, *o, t, &mut layout, &mut at, from)).collect();
    let op = wrap(&mut b, &values);
    let y = b.push(result, op);
    let memory = if result.elem.is_mask() { result.of(result.elem.int()) } else { result };
    let y = if result.elem.is_mask() { b.conv(Conv::MaskToInt, y, memory.elem) } else { y };
    let to = b.element(b.param(1), b.task(), memory.bytes());
    b.store(y, to, 0);
    let func = b.finish();
    verify(&func).ok()?;
    let mut r = Random::new(func.name.bytes().fold(7, |h, c| h * 31 % 1_000_003 + u64::from(c)));
    let mut input = vec![];
    for _ in 0..TASKS {
        layout.iter().for_each(|t| fill(&mut r, *t, &mut input));
    }
    let floats = if result.elem.is_float() {
        (0..TASKS * result.lanes as usize).map(|i| (i * result.elem.bytes(), result.elem)).collect()
    } else {
        vec![]
    };
    Some(Case { func, buffers: vec![input, vec![0; TASKS * memory.bytes()]], tasks: TASKS, floats })
}

/// An operation of the table that works on `t`.
fn row(t: Ty, result: Ty, op: &Op) -> Option<Case> {
    let mut text = String::new();
    op.print(result, &mut text);
    let operands = op.shapes().0.iter().map(|s| s.of(t)).collect::<Option<Vec<Ty>>>()?;
    case(format!("{text} on {t} gives {result}"), &operands, t, result, |_, values| {
        let (mut op, mut values) = (op.clone(), values.iter());
        op.operands_mut(&mut |v| *v = *values.next().expect("a value for each operand"));
        op
    })
}

/// Every operation on every type it is defined on, of at most so many bytes (16, 32 or 64) a vector.
pub fn every_op(max_bytes: usize) -> Vec<Case> {
    let elems = Elem::ALL.iter().filter(|e| **e != Elem::Ptr);
    let types = elems.flat_map(|elem| (0..7).map(move |n| Ty { elem: *elem, lanes: 1 << n }));
    let fits = |t: &Ty| t.lanes == 1 || t.bytes() <= max_bytes;
    let mut out: Vec<Option<Case>> = vec![];
    for t in types.filter(fits) {
        for op in Op::samples(t) {
            match op.shapes().1 {
                Shape::Lanes => {
                    let lanes = STORED.into_iter().map(|to| t.of(to));
                    let bytes = STORED.into_iter().map(|to| Ty { elem: to, lanes: (t.bytes() / to.bytes()) as u8 });
                    let regrouped = bytes.filter(|to| to.lanes != t.lanes && to.bytes() == t.bytes());
                    out.extend(lanes.chain(regrouped).filter(fits).map(|to| row(t, to, &op)))
                }
                shape => out.extend(shape.of(t).map(|result| row(t, result, &op))),
            }
        }
        if !t.elem.is_mask() {
            out.extend((1..=t.lanes).map(|count| Some(parts(t, count))));
        }
        if t.is_vector() {
            combined(t, &mut out);
        }
    }
    out.into_iter().flatten().collect()
}

/// Pairs of operations that emitters know as one.
fn combined(t: Ty, out: &mut Vec<Option<Case>>) {
    let (scalar, n) = (Ty::scalar(t.elem), t.lanes);
    for op in [Bin::Shl, Bin::ShrS, Bin::ShrU] {
        out.push(case(format!("{op} {t} by a constant"), &[t], t, t, |b, v| Op::Bin(op, v[0], b.int(t, 5))));
        out.push(case(format!("{op} {t} by a scalar"), &[t, scalar], t, t, |b, v| Op::Bin(op, v[0], b.splat(v[1], n))));
    }
    for lane in [0, n / 2, n - 1] {
        out.push(case(format!("splat lane {lane} of {t}"), &[t], t, t, |b, v| Op::Splat(b.extract(v[0], lane))));
    }
    for (i, op) in Op::samples(t).into_iter().filter(|op| matches!(op, Op::Shuffle(..))).enumerate() {
        let Op::Shuffle(_, _, pick) = op else { continue };
        out.push(case(format!("shuffle {i} of one {t}"), &[t], t, t, |_, v| Op::Shuffle(v[0], v[0], pick)));
    }
}

/// Loads the first elements, stores all, then stores the first elements elsewhere, at an odd address; nothing lies beyond the last element.
fn parts(ty: Ty, count: u8) -> Case {
    let mut b = Builder::new(format!("first {count} of {ty}"), 2);
    let x = b.load_part(ty, b.param(0), 1, count as usize);
    b.store(x, b.param(1), 0);
    b.store_part(x, b.param(1), ty.bytes() as i32 + 1, count as usize);
    let mut input = vec![0x55];
    fill(&mut Random::new(u64::from(count)), Ty { lanes: count, ..ty }, &mut input);
    let output = vec![0xaa; ty.bytes() + 1 + count as usize * ty.elem.bytes()];
    Case { func: b.finish(), buffers: vec![input, output], tasks: 1, floats: vec![] }
}

#[test]
fn every_operation_is_tried() {
    let cases = every_op(16);
    assert!(cases.len() > 1000, "{} cases", cases.len());
    let texts: Vec<String> = cases.iter().map(|c| c.func.to_string()).collect();
    let tried = |word: &str| texts.iter().any(|t| t.contains(&format!("= {word} ")));
    let missing: Vec<&str> = Op::words().into_iter().filter(|w| !tried(w)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    use crate::Stmt;
    let has_store = |s: &Stmt| matches!(s, Stmt::Store { .. });
    assert!(cases.iter().all(|c| c.func.body.iter().any(has_store)));
}
