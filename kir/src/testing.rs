//! Kernels that try an emitter against the interpreter: one for every operation and type, and random ones.

use super::{Bin, Builder, Cmp, Conv, Elem, Fold, Func, Op, Tuning, Ty, Un, Val, interp, text, verify};

/// A kernel, the memory it runs on, and what it leaves there.
pub struct Case {
    /// The kernel.
    pub func: Func,
    /// Contents of the buffers that the pointers point to.
    pub buffers: Vec<Vec<u8>>,
    /// Number of tasks.
    pub tasks: usize,
    /// Where floats lie in buffer 1 (byte offset, type): any NaN equals any other there.
    pub floats: Vec<(usize, Elem)>,
}

impl Case {
    /// Runs the interpreter; `fused` says whether the machine has fused multiply-add.
    pub fn expected(&self, fused: bool) -> (i32, Vec<Vec<u8>>) {
        let mut buffers = self.buffers.clone();
        let places: Vec<interp::Place> = (0..self.func.pointers).map(|buffer| interp::Place { buffer, offset: 0 }).collect();
        for task in 0..self.tasks {
            let status =
                interp::run_with(&self.func, &mut buffers, &places, task as i64, fused).unwrap_or_else(|e| panic!("{e}\n{}", self.func));
            if status != 0 {
                return (status, buffers);
            }
        }
        (0, buffers)
    }

    /// Says where what a machine did differs from what the interpreter does.
    pub fn differs(&self, fused: bool, status: i32, mut buffers: Vec<Vec<u8>>) -> Option<String> {
        let (want_status, mut want) = self.expected(fused);
        for &(at, elem) in &self.floats {
            for memory in [&mut buffers[1], &mut want[1]] {
                let bytes = &mut memory[at..at + elem.bytes()];
                let nan = match elem {
                    Elem::F32 => f32::from_le_bytes(bytes.try_into().expect("4 bytes")).is_nan(),
                    _ => f64::from_le_bytes(bytes.try_into().expect("8 bytes")).is_nan(),
                };
                if nan {
                    bytes.fill(0xff);
                }
            }
        }
        if status != want_status {
            return Some(format!("status {status}, not {want_status}\n{}", self.func));
        }
        let (n, at) = (0..want.len()).find_map(|n| Some((n, (0..want[n].len()).find(|i| want[n][*i] != buffers[n][*i])?)))?;
        let from = at / 16 * 16;
        let row = |m: &[u8]| m[from..(from + 32).min(m.len())].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        Some(format!("byte {at} of buffer {n}; from {from}\nwant {}\nhave {}\n{}", row(&want[n]), row(&buffers[n]), self.func))
    }
}

/// Random numbers, the same everywhere.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

const TASKS: usize = 24;

/// Elements that memory can hold.
const STORED: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

/// Bits of an element: often one where something changes.
fn element(r: &mut Random, elem: Elem) -> u64 {
    let special32: [f32; 24] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.49999997,
        8388607.5,
        -8388609.0,
        2147483648.0,
        -2147483648.0,
        4294967296.0,
        65519.0,
        65520.0,
        6.1e-5,
        5.96e-8,
        1e-40,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    match (elem, r.below(4)) {
        (Elem::F32, 0) => u64::from(r.pick(&special32).to_bits()),
        (Elem::F32, 1 | 2) => u64::from((r.below(2_000_001) as f32 / 1000.0 - 1000.0).to_bits()),
        (Elem::F64, 0) => f64::from(r.pick(&special32)).to_bits(),
        (Elem::F64, 1) => {
            r.pick(&[4503599627370495.5f64, 9223372036854775808.0, -9223372036854775808.0, 1e300, 1e-310, 16777217.0]).to_bits()
        }
        (Elem::F64, 2) => (r.below(2_000_001) as f64 / 1000.0 - 1000.0).to_bits(),
        (elem, 0) if !elem.is_float() => {
            let all = interp::mask(elem);
            r.pick(&[0, 1, 2, 7, 8, all, all - 1, all >> 1, (all >> 1) + 1])
        }
        (elem, 1) if !elem.is_float() => r.below(64) as u64,
        (elem, _) => r.bits() & interp::mask(elem),
    }
}

fn fill(r: &mut Random, ty: Ty, into: &mut Vec<u8>) {
    for _ in 0..ty.lanes {
        into.extend_from_slice(&element(r, ty.elem).to_le_bytes()[..ty.elem.bytes()]);
    }
}

/// Loads an operand for the task; a mask is made of a comparison.
fn operand(b: &mut Builder, ty: Ty, layout: &mut Vec<Ty>, at: &mut usize, from: Val) -> Val {
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

/// A kernel that computes one operation on loaded operands, or nothing where it is not kir.
fn op_case(name: String, operands: &[Ty], result: Ty, op: impl Fn(&mut Builder, &[Val]) -> Op) -> Option<Case> {
    let mut b = Builder::new(name, 2);
    let (mut layout, mut at) = (vec![], 0);
    let size: usize = operands.iter().map(|t| t.bytes()).sum();
    let from = b.element(b.param(0), b.task(), size.max(1));
    let values: Vec<Val> = operands.iter().map(|t| operand(&mut b, *t, &mut layout, &mut at, from)).collect();
    let op = op(&mut b, &values);
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

/// Every operation on every type it is defined on, of at most so many bytes (16, 32 or 64) a vector.
pub fn every_op(max_bytes: usize) -> Vec<Case> {
    let elems = STORED.into_iter().chain([Elem::M8, Elem::M16, Elem::M32, Elem::M64]);
    let types: Vec<Ty> =
        elems.flat_map(|elem| (0..7).map(move |n| Ty { elem, lanes: 1 << n })).filter(|t| t.lanes == 1 || t.bytes() <= max_bytes).collect();
    let mut out: Vec<Option<Case>> = vec![];
    for &ty in &types {
        let half = Ty { lanes: ty.lanes / 2, ..ty };
        let double = Ty { lanes: ty.lanes * 2, ..ty };
        let (scalar, n) = (Ty::scalar(ty.elem), ty.lanes);
        let last = n - 1;
        for (op, word) in text::UNS {
            out.push(op_case(format!("{word} {ty}"), &[ty], ty, |_, v| Op::Un(*op, v[0])));
        }
        for (op, word) in text::BINS {
            out.push(op_case(format!("{word} {ty}"), &[ty, ty], ty, |_, v| Op::Bin(*op, v[0], v[1])));
            if matches!(op, Bin::Shl | Bin::ShrS | Bin::ShrU) && ty.is_vector() {
                out.push(op_case(format!("{word} {ty} by a constant"), &[ty], ty, |b, v| Op::Bin(*op, v[0], b.int(ty, 5))));
                out.push(op_case(format!("{word} {ty} by a scalar"), &[ty, scalar], ty, |b, v| Op::Bin(*op, v[0], b.splat(v[1], n))));
            }
        }
        out.push(op_case(format!("fma {ty}"), &[ty, ty, ty], ty, |_, v| Op::Fma(v[0], v[1], v[2])));
        for (op, word) in text::CMPS {
            out.push(op_case(format!("{word} {ty}"), &[ty, ty], ty.of(ty.elem.mask()), |_, v| Op::Cmp(*op, v[0], v[1])));
        }
        let mask = ty.of(ty.elem.mask());
        out.push(op_case(format!("select {ty}"), &[mask, ty, ty], ty, |_, v| Op::Select(v[0], v[1], v[2])));
        for (op, word) in text::CONVS {
            for to in STORED {
                if max_bytes >= 64 || ty.of(to).bytes() <= max_bytes || !ty.is_vector() {
                    out.push(op_case(format!("{word} {ty} to {to}"), &[ty], ty.of(to), |_, v| Op::Conv(*op, v[0])));
                }
            }
        }
        out.push(op_case(format!("splat {ty}"), &[scalar], ty, |_, v| Op::Splat(v[0])));
        for lane in [0, n / 2, last] {
            out.push(op_case(format!("extract {lane} of {ty}"), &[ty], scalar, |_, v| Op::Extract(v[0], lane)));
            out.push(op_case(format!("insert {lane} of {ty}"), &[ty, scalar], ty, |_, v| Op::Insert(v[0], v[1], lane)));
            out.push(op_case(format!("splat lane {lane} of {ty}"), &[ty], ty, |b, v| Op::Splat(b.extract(v[0], lane))));
        }
        for (kind, pick) in shuffles(n) {
            out.push(op_case(format!("shuffle {kind} {ty}"), &[ty, ty], ty, |_, v| Op::Shuffle(v[0], v[1], pick.clone().into())));
            out.push(op_case(format!("shuffle self {kind} {ty}"), &[ty], ty, |_, v| Op::Shuffle(v[0], v[0], pick.clone().into())));
        }
        for upper in [false, true] {
            if n > 1 {
                out.push(op_case(format!("half {upper} {ty}"), &[ty], half, |_, v| Op::Half(v[0], upper)));
            }
        }
        if double.bytes() <= max_bytes {
            out.push(op_case(format!("join {ty}"), &[ty, ty], double, |_, v| Op::Join(v[0], v[1])));
        }
        for (fold, word) in text::FOLDS {
            out.push(op_case(format!("{word} {ty}"), &[ty], scalar, |_, v| Op::Reduce(*fold, v[0])));
        }
        out.push(op_case(format!("any {ty}"), &[ty], Ty::scalar(Elem::M8), |_, v| Op::Any(v[0])));
        if ty.elem == Elem::I32 {
            let (pairs, quads) = (Ty { elem: Elem::I16, lanes: 2 * n }, Ty { elem: Elem::I8, lanes: 4 * n });
            out.push(op_case(format!("dot2 {ty}"), &[ty, pairs, pairs], ty, |_, v| Op::Dot2(v[0], v[1], v[2])));
            out.push(op_case(format!("dot4 {ty}"), &[ty, quads, quads], ty, |_, v| Op::Dot4(v[0], v[1], v[2])));
        }
        if !ty.elem.is_mask() {
            for bits in [0, 1, interp::mask(ty.elem) >> 1] {
                out.push(op_case(format!("const {bits} {ty}"), &[], ty, |_, _| Op::Const(bits)));
            }
            out.push(op_case(format!("load_splat {ty}"), &[scalar], ty, |b, _| {
                let ptr = b.element(b.param(0), b.task(), scalar.bytes());
                Op::LoadSplat { ptr, disp: 0 }
            }));
            for count in 1..=n {
                out.push(Some(parts_case(ty, count)));
            }
        }
    }
    out.into_iter().flatten().collect()
}

fn shuffles(n: u8) -> Vec<(&'static str, Vec<u8>)> {
    let mut r = Random::new(u64::from(n));
    let mut out = vec![
        ("reverse", (0..n).rev().collect()),
        ("zip low", (0..n).map(|i| i / 2 + if i % 2 == 0 { 0 } else { n }).collect()),
        ("zip high", (0..n).map(|i| i / 2 + n / 2 + if i % 2 == 0 { 0 } else { n }).collect()),
        ("even", (0..n).map(|i| 2 * i).collect()),
        ("odd", (0..n).map(|i| 2 * i + 1).collect()),
        ("rotate", (0..n).map(|i| (i + 1) % n).collect()),
        ("across", (0..n).map(|i| i + n / 2).collect()),
        ("swap halves", (0..n).map(|i| i ^ (n / 2)).collect()),
        ("swap pairs", (0..n).map(|i| i ^ 1).collect()),
        ("one lane", vec![n / 2; n as usize]),
        ("blend", (0..n).map(|i| if i % 2 == 0 { i } else { i + n }).collect()),
    ];
    for name in ["random a", "random b", "random c"] {
        out.push((name, (0..n).map(|_| r.below(2 * n as usize) as u8).collect()));
    }
    out
}

/// Loads the first elements, stores all, then stores the first elements elsewhere, at an odd address; nothing lies beyond the last element.
fn parts_case(ty: Ty, count: u8) -> Case {
    let mut b = Builder::new(format!("first {count} of {ty}"), 2);
    let x = b.load_part(ty, b.param(0), 1, count as usize);
    b.store(x, b.param(1), 0);
    b.store_part(x, b.param(1), ty.bytes() as i32 + 1, count as usize);
    let mut input = vec![0x55];
    fill(&mut Random::new(u64::from(count)), Ty { lanes: count, ..ty }, &mut input);
    let output = vec![0xaa; ty.bytes() + 1 + count as usize * ty.elem.bytes()];
    Case { func: b.finish(), buffers: vec![input, output], tasks: 1, floats: vec![] }
}

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

    fn compute(&mut self) {
        let v = self.any();
        let ty = self.b.ty(v);
        let float = ty.elem.is_float();
        let y = if ty.elem.is_mask() {
            match self.r.below(5) {
                0 => self.b.un(Un::Not, v),
                1 => self.b.push(Ty::scalar(Elem::M8), Op::Any(v)),
                2 => self.b.conv(Conv::MaskToInt, v, ty.elem.int()),
                3 => {
                    let w = self.val(ty);
                    let op = self.r.pick(&[Bin::And, Bin::Or, Bin::Xor]);
                    self.b.bin(op, v, w)
                }
                _ => {
                    let of = ty.of(if ty.elem == Elem::M32 { Elem::F32 } else { ty.elem.int() });
                    let (a, c) = (self.val(of), self.val(of));
                    self.b.select(v, a, c)
                }
            }
        } else {
            match self.r.below(12) {
                0 => {
                    let floats = [Un::Neg, Un::Abs, Un::Sqrt, Un::Floor, Un::Ceil, Un::Trunc, Un::Nearest];
                    let op = if float { self.r.pick(&floats) } else { self.r.pick(&[Un::Neg, Un::Abs, Un::Not]) };
                    self.b.un(op, v)
                }
                1..=4 => {
                    let w = self.val(ty);
                    let floats = [Bin::Add, Bin::Sub, Bin::Mul, Bin::Div, Bin::Min, Bin::Max];
                    let ints = [
                        Bin::Add,
                        Bin::Sub,
                        Bin::Mul,
                        Bin::MinS,
                        Bin::MaxS,
                        Bin::MinU,
                        Bin::MaxU,
                        Bin::And,
                        Bin::Or,
                        Bin::Xor,
                        Bin::Shl,
                        Bin::ShrS,
                        Bin::ShrU,
                        Bin::DivS,
                        Bin::DivU,
                        Bin::RemS,
                        Bin::RemU,
                    ];
                    let op = match (float, ty.is_vector()) {
                        (true, _) => self.r.pick(&floats),
                        (false, true) => self.r.pick(&ints[..13]),
                        (false, false) => self.r.pick(&ints),
                    };
                    self.b.bin(op, v, w)
                }
                5 | 6 if float => {
                    let (x, y) = (self.val(ty), self.val(ty));
                    self.b.fma(v, x, y)
                }
                7 => {
                    let w = self.val(ty);
                    let op = self.r.pick(&[Cmp::Lt, Cmp::Le, Cmp::Eq, Cmp::Ne, Cmp::Gt, Cmp::Ge]);
                    self.b.cmp(op, v, w)
                }
                8 => self.convert(v),
                _ => self.rearrange(v),
            }
        };
        self.scope.push(y);
    }

    fn convert(&mut self, v: Val) -> Val {
        let ty = self.b.ty(v);
        let mut out = vec![];
        for (op, _) in text::CONVS {
            for to in STORED {
                let fits = !ty.is_vector() || ty.of(to).bytes() <= self.max_bytes;
                if fits && verify::converts(*op, ty, ty.of(to)) {
                    out.push((*op, to));
                }
            }
        }
        let (op, to) = self.r.pick(&out);
        let v = if op == Conv::Bits && ty.elem.is_float() { self.tame(v) } else { v };
        let v = if op == Conv::FloatToHalf { self.tame(v) } else { v };
        self.b.conv(op, v, to)
    }

    fn rearrange(&mut self, v: Val) -> Val {
        let ty = self.b.ty(v);
        let n = ty.lanes;
        if !ty.is_vector() {
            let lanes = self.max_bytes / ty.elem.bytes();
            return self.b.splat(v, lanes as u8);
        }
        match self.r.below(8) {
            0 => {
                let lane = self.r.below(n as usize) as u8;
                self.b.extract(v, lane)
            }
            1 => {
                let lane = self.r.below(n as usize) as u8;
                let x = self.val(Ty::scalar(ty.elem));
                self.b.insert(v, x, lane)
            }
            2 | 3 => {
                let w = self.val(ty);
                let pick = if self.r.chance(50) {
                    (0..n).map(|_| self.r.below(2 * n as usize) as u8).collect()
                } else {
                    let all = shuffles(n);
                    let at = self.r.below(all.len());
                    all[at].1.clone()
                };
                self.b.shuffle(v, w, &pick)
            }
            4 => {
                let upper = self.r.chance(50);
                self.b.push(Ty { lanes: n / 2, ..ty }, Op::Half(v, upper))
            }
            5 if 2 * ty.bytes() <= self.max_bytes => {
                let w = self.val(ty);
                self.b.push(Ty { lanes: 2 * n, ..ty }, Op::Join(v, w))
            }
            6 if ty.elem == Elem::I32 => {
                let (pairs, group) = if self.r.chance(50) { (Elem::I16, 2) } else { (Elem::I8, 4) };
                let of = Ty { elem: pairs, lanes: group * n };
                let (a, c) = (self.val(of), self.val(of));
                self.b.push(ty, if group == 2 { Op::Dot2(v, a, c) } else { Op::Dot4(v, a, c) })
            }
            _ => {
                let fold = self.r.pick(&[Fold::Add, Fold::Min, Fold::Max]);
                self.b.reduce(fold, v)
            }
        }
    }
}

#[test]
fn random_kernels_are_kernels_and_read_back() {
    for seed in 0..200 {
        let case = random(seed, [16, 32, 64][seed as usize % 3]);
        verify(&case.func).unwrap_or_else(|e| panic!("{e}\n{}", case.func));
        let text = case.func.to_string();
        assert_eq!(text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), case.func);
        case.expected(true);
    }
}

#[test]
fn every_operation_is_tried() {
    let cases = every_op(16);
    assert!(cases.len() > 1000, "{} cases", cases.len());
    let tried = |word: &str| cases.iter().any(|c| c.func.to_string().contains(&format!("= {word} ")));
    let words = text::UNS.iter().map(|x| x.1).chain(text::BINS.iter().map(|x| x.1)).chain(text::CMPS.iter().map(|x| x.1));
    let words = words.chain(text::CONVS.iter().map(|x| x.1)).chain(text::FOLDS.iter().map(|x| x.1));
    let rest = ["fma", "select", "splat", "extract", "insert", "shuffle", "upper", "lower", "join", "any", "dot2", "dot4", "load_splat"];
    let missing: Vec<&str> = words.chain(rest).filter(|w| !tried(w)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    use crate::Stmt;
    let has_store = |s: &Stmt| matches!(s, Stmt::Store { .. });
    assert!(cases.iter().all(|c| c.func.body.iter().any(has_store)));
}
