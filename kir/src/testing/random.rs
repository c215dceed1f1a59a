//! Random kernels with loops and branches.

use super::case::Case;
use super::numbers::{Random, STORED, element, fill};
use crate::{Bin, Builder, Cmp, Conv, Elem, On, Op, Shape, Tuning, Ty, Val};

/// A random kernel with loops and branches, of vectors of at most so many bytes.
pub fn random(seed: u64, max_bytes: usize) -> Case {
    let mut g =
        Generator { r: Random::new(seed), b: Builder::new(format!("random {seed}"), 2), scope: vec![], max_bytes, stored: vec![], at: 0 };
    if g.r.chance(50) {
        g.b.tune(Tuning::Optimise);
    }
    let task = g.b.task();
    g.scope.push(task);
    for _ in 0..4 {
        g.load();
    }
    let steps = 8 + g.r.below(40);
    g.steps(steps, 2);
    // What is live at the end is the result.
    let mut last: Vec<Val> = g.scope.iter().rev().take(12).copied().collect();
    last.dedup();
    for v in last {
        g.store(v);
    }
    let floats = g.stored.clone();
    let (mut r, at) = (Random::new(seed ^ 0xabcdef), g.at);
    let mut input = vec![];
    while input.len() < INPUT {
        fill(&mut r, Ty::scalar([Elem::F32, Elem::F32, Elem::F64, Elem::I32][input.len() / 8 % 4]), &mut input);
    }
    input.truncate(INPUT);
    Case { func: g.b.finish(), buffers: vec![input, vec![0; at]], tasks: 2, floats }
}

/// Bytes that a random kernel reads from.
const INPUT: usize = 512;

struct Generator {
    r: Random,
    b: Builder,
    /// Values that can be used.
    scope: Vec<Val>,
    max_bytes: usize,
    stored: Vec<(usize, Elem)>,
    at: usize,
}

impl Generator {
    fn ty(&mut self) -> Ty {
        let elem = self.r.pick(&[Elem::F32, Elem::F32, Elem::F32, Elem::I32, Elem::I32, Elem::F64, Elem::I64, Elem::I16, Elem::I8]);
        let most = self.max_bytes / elem.bytes();
        let lanes = match self.r.below(4) {
            0 => 1,
            1 => 1 << self.r.below(most.ilog2() as usize + 1),
            _ => most,
        };
        Ty { elem, lanes: lanes as u8 }
    }

    /// A value in scope of the type, or one made for the occasion.
    fn val(&mut self, ty: Ty) -> Val {
        let known: Vec<Val> = self.scope.iter().copied().filter(|v| self.b.ty(*v) == ty).collect();
        if !known.is_empty() && self.r.chance(85) {
            // Recent ones more often.
            let from = if self.r.chance(70) { known.len().saturating_sub(4) } else { 0 };
            let at = from + self.r.below(known.len() - from);
            return known[at];
        }
        if ty.elem.is_mask() {
            let of = ty.of(if ty.elem == Elem::M32 && self.r.chance(60) { Elem::F32 } else { ty.elem.int() });
            let (a, c) = (self.val(of), self.val(of));
            let op = self.r.pick(&[Cmp::Lt, Cmp::Le, Cmp::Eq, Cmp::Ne, Cmp::Gt, Cmp::Ge]);
            return self.b.cmp(op, a, c);
        }
        if self.r.chance(30) {
            let bits = element(&mut self.r, ty.elem);
            return self.b.bits(ty, bits);
        }
        self.load_of(ty)
    }

    fn any(&mut self) -> Val {
        let at = self.r.below(self.scope.len());
        self.scope[at]
    }

    fn load(&mut self) {
        let ty = self.ty();
        let v = self.load_of(ty);
        self.scope.push(v);
    }

    fn load_of(&mut self, ty: Ty) -> Val {
        let disp = self.r.below(INPUT - ty.bytes() + 1) as i32;
        let p = self.b.param(0);
        match self.r.below(6) {
            0 => self.b.load_splat(ty, p, disp),
            1 => {
                let count = 1 + self.r.below(ty.lanes as usize);
                self.b.load_part(ty, p, disp, count)
            }
            _ => self.b.load(ty, p, disp),
        }
    }

    /// Bits of a float must not tell one NaN from another.
    fn tame(&mut self, v: Val) -> Val {
        let ty = self.b.ty(v);
        let ordered = self.b.cmp(Cmp::Eq, v, v);
        let zero = self.b.number(ty, 0.0);
        self.b.select(ordered, v, zero)
    }

    fn store(&mut self, v: Val) {
        let ty = self.b.ty(v);
        let v = if ty.elem.is_mask() { self.b.conv(Conv::MaskToInt, v, ty.elem.int()) } else { v };
        let count = if self.r.chance(30) { 1 + self.r.below(ty.lanes as usize) } else { ty.lanes as usize };
        let p = self.b.param(1);
        self.b.store_part(v, p, self.at as i32, count);
        if ty.elem.is_float() {
            self.stored.extend((0..count).map(|i| (self.at + i * ty.elem.bytes(), ty.elem)));
        }
        self.at += count * ty.elem.bytes();
    }

    fn steps(&mut self, count: usize, depth: usize) {
        for _ in 0..count {
            match self.r.below(20) {
                0..=2 => self.load(),
                3 => {
                    let v = self.any();
                    self.store(v);
                }
                4 | 5 if depth > 0 => self.nest(depth - 1),
                _ => self.compute(),
            }
        }
    }

    fn nest(&mut self, depth: usize) {
        let count = 1 + self.r.below(3);
        let inits: Vec<Val> = (0..count).map(|_| self.any()).collect();
        let kind = self.r.below(4);
        let inner = 2 + self.r.below(8);
        // A store in a loop goes to the same place each time, so that the last one counts.
        let mut b = std::mem::replace(&mut self.b, Builder::new("", 0));
        let outer = self.scope.clone();
        let results = match kind {
            0 | 1 => {
                let start = b.index(self.r.below(3));
                let end = if kind == 0 {
                    b.index(self.r.below(6))
                } else {
                    let three = b.int(Ty::I64, 3);
                    let n = b.bin(Bin::And, b.task(), three);
                    b.add_int(n, 1)
                };
                let step = 1 + self.r.below(3) as i64;
                b.for_range(start, end, step, &inits, |b, i, v| {
                    self.scope.push(i);
                    self.scope.extend(v);
                    self.inside(b, |g| {
                        g.steps(inner, depth);
                        inits.iter().map(|x| g.val(g.b.ty(*x))).collect()
                    })
                })
            }
            2 => {
                let zero = b.index(0);
                let with: Vec<Val> = std::iter::once(zero).chain(inits.iter().copied()).collect();
                let limit = 1 + self.r.below(4);
                let mut out = b.while_loop(
                    &with,
                    |b, v| {
                        let limit = b.index(limit);
                        b.cmp(Cmp::Lt, v[0], limit)
                    },
                    |b, v| {
                        self.scope.extend(&v[1..]);
                        let next = b.add_int(v[0], 1);
                        let rest: Vec<Val> = self.inside(b, |g| {
                            g.steps(inner, depth);
                            inits.iter().map(|x| g.val(g.b.ty(*x))).collect()
                        });
                        std::iter::once(next).chain(rest).collect()
                    },
                );
                out.remove(0);
                out
            }
            _ => {
                let ty = self.r.pick(&[Elem::M32, Elem::M8, Elem::M64]);
                let cond = self.inside(&mut b, |g| g.val(Ty::scalar(ty)));
                let failing = self.r.chance(5);
                let this = std::cell::RefCell::new(&mut *self);
                let arm = |b: &mut Builder, fails: bool| {
                    let mut g = this.borrow_mut();
                    g.scope.clone_from(&outer);
                    let out = g.inside(b, |g| {
                        g.steps(inner, depth);
                        inits.iter().map(|x| g.val(g.b.ty(*x))).collect()
                    });
                    if fails {
                        b.fail(7);
                    }
                    out
                };
                b.branch(cond, |b| arm(b, failing), |b| arm(b, false))
            }
        };
        self.b = b;
        self.scope = outer;
        self.scope.extend(results);
    }

    /// Lends the builder of a body to the generator.
    fn inside<T>(&mut self, b: &mut Builder, f: impl FnOnce(&mut Self) -> T) -> T {
        std::mem::swap(&mut self.b, b);
        let out = f(self);
        std::mem::swap(&mut self.b, b);
        out
    }

    /// A value of a row of the table, on a type that is there or close to one that is.
    fn compute(&mut self) {
        let v = self.any();
        let have = self.b.ty(v);
        let t = match self.r.below(5) {
            0 if 2 * have.bytes() <= self.max_bytes => Ty { lanes: 2 * have.lanes, ..have },
            1 if !have.is_vector() => Ty { lanes: (self.max_bytes / have.elem.bytes()) as u8, ..have },
            _ => have,
        };
        let Some((op, result)) = self.draw(t) else { return };
        let y = match op {
            Op::Load(..) | Op::LoadSplat(..) => self.load_of(t),
            mut op => {
                let shapes = op.shapes().0;
                let unlike = matches!(op, Op::Conv(Conv::Bits | Conv::FloatToHalf, _)) && t.elem.is_float();
                let mut rest = Some(v);
                let mut values = vec![];
                for shape in shapes {
                    let ty = shape.of(t).expect("drawn to have it");
                    let value = match rest.filter(|_| ty == have) {
                        Some(v) => {
                            rest = None;
                            v
                        }
                        None => self.val(ty),
                    };
                    values.push(if unlike { self.tame(value) } else { value });
                }
                let mut values = values.into_iter();
                op.operands_mut(&mut |o| *o = values.next().expect("one for each operand"));
                self.b.push(result, op)
            }
        };
        self.scope.push(y);
    }

    /// A random operation on a type, and the type of its result: first a row, then one of its samples.
    fn draw(&mut self, t: Ty) -> Option<(Op, Ty)> {
        let fits = |ty: &Ty| !ty.is_vector() || ty.bytes() <= self.max_bytes;
        let mut rows: Vec<Vec<(Op, Ty)>> = vec![];
        for op in Op::samples(t) {
            let (operands, shape) = op.shapes();
            if !operands.iter().all(|s| s.of(t).is_some_and(|ty| fits(&ty))) {
                continue;
            }
            let results = match shape {
                Shape::Lanes => STORED.into_iter().map(|to| t.of(to)).collect(),
                shape => Vec::from_iter(shape.of(t)),
            };
            for result in results.into_iter().filter(fits).filter(|result| op.rule(On { t, result: *result }).is_ok()) {
                match rows.last_mut() {
                    Some(row) if std::mem::discriminant(&row[0].0) == std::mem::discriminant(&op) => row.push((op.clone(), result)),
                    _ => rows.push(vec![(op.clone(), result)]),
                }
            }
        }
        // Arithmetic of two operands is most of what kernels do.
        let two = rows.iter().position(|row| matches!(row[0].0, Op::Bin(..)));
        let at = match two {
            Some(two) if self.r.chance(30) => two,
            _ if rows.is_empty() => return None,
            _ => self.r.below(rows.len()),
        };
        let row = &rows[at];
        let (op, result) = row[self.r.below(row.len())].clone();
        match op {
            Op::Shuffle(a, b, _) if self.r.chance(50) => {
                let pick = (0..t.lanes).map(|_| self.r.below(2 * t.lanes as usize) as u8).collect();
                Some((Op::Shuffle(a, b, pick), result))
            }
            op => Some((op, result)),
        }
    }
}

#[test]
fn random_kernels_are_kernels_and_read_back() {
    for seed in 0..200 {
        let case = random(seed, [16, 32, 64][seed as usize % 3]);
        crate::verify(&case.func).unwrap_or_else(|e| panic!("{e}\n{}", case.func));
        let text = case.func.to_string();
        assert_eq!(crate::text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), case.func);
        case.expected(true);
    }
}
