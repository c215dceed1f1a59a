//! The meaning of kir: a slow, obvious interpreter that checks every address.
//!
//! Memory is a list of byte buffers. A pointer is a number as on a machine, but buffers lie so far apart that no offset leads from one
//! into another: an access that is not wholly inside one buffer is an error which names the kernel and the statement.

use super::{Bin, Carried, Cmp, Conv, Elem, Fold, Func, Op, Stmt, Un, Val, text};

/// Where a pointer of a kernel points: a buffer and bytes into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Index of the buffer.
    pub buffer: usize,
    /// Bytes from its start.
    pub offset: usize,
}

/// Runs one task; `args` are the pointers. The result is the kernel's status. Fails on an access outside a buffer.
pub fn run(func: &Func, buffers: &mut [Vec<u8>], args: &[Place], task: i64) -> Result<i32, String> {
    run_with(func, buffers, args, task, true)
}

/// As [`run`], but with `fused` false `Fma` rounds twice, as on machines without fused multiply-add.
pub fn run_with(func: &Func, buffers: &mut [Vec<u8>], args: &[Place], task: i64, fused: bool) -> Result<i32, String> {
    if args.len() != func.pointers {
        return Err(format!("kernel {} takes {} pointers, not {}", func.name, func.pointers, args.len()));
    }
    let mut machine = Machine::new(func, fused);
    machine.run(buffers, args, task)
}

/// Runs tasks `0..tasks` in order on buffers that the kernel's pointers point to the starts of, until one has a status other than 0.
pub fn run_tasks(func: &Func, buffers: &mut [Vec<u8>], tasks: usize) -> Result<i32, String> {
    let args: Vec<Place> = (0..func.pointers).map(|buffer| Place { buffer, offset: 0 }).collect();
    run_places(func, buffers, &args, tasks)
}

/// Runs tasks `0..tasks` in order, until one has a status other than 0.
pub fn run_places(func: &Func, buffers: &mut [Vec<u8>], args: &[Place], tasks: usize) -> Result<i32, String> {
    if args.len() != func.pointers {
        return Err(format!("kernel {} takes {} pointers, not {}", func.name, func.pointers, args.len()));
    }
    let mut machine = Machine::new(func, true);
    for task in 0..tasks {
        let status = machine.run(buffers, args, task as i64)?;
        if status != 0 {
            return Ok(status);
        }
    }
    Ok(0)
}

/// Bits of an address that are the offset.
const SPAN: u32 = 40;

/// Why a body was left.
enum Stop {
    Status(i32),
    Error(String),
}

struct Machine<'a> {
    func: &'a Func,
    /// Where the lanes of each value lie in `lanes`.
    at: Vec<usize>,
    /// Bits of each lane, zero above its width.
    lanes: Vec<u64>,
    /// Values on their way from one iteration to the next.
    moving: Vec<u64>,
    fused: bool,
}

impl<'a> Machine<'a> {
    fn new(func: &'a Func, fused: bool) -> Machine<'a> {
        let mut at = Vec::with_capacity(func.types.len());
        let mut total = 0;
        for ty in &func.types {
            at.push(total);
            total += ty.lanes as usize;
        }
        Machine { func, at, lanes: vec![0; total], moving: vec![], fused }
    }

    fn run(&mut self, buffers: &mut [Vec<u8>], args: &[Place], task: i64) -> Result<i32, String> {
        for (i, place) in args.iter().enumerate() {
            self.lanes[self.at[i]] = ((place.buffer as u64 + 1) << SPAN) + place.offset as u64;
        }
        self.lanes[self.at[self.func.pointers]] = task as u64;
        let func = self.func;
        match self.body(&func.body, buffers) {
            Ok(()) => Ok(0),
            Err(Stop::Status(status)) => Ok(status),
            Err(Stop::Error(why)) => Err(why),
        }
    }

    fn body(&mut self, body: &[Stmt], buffers: &mut [Vec<u8>]) -> Result<(), Stop> {
        body.iter().try_for_each(|stmt| self.stmt(stmt, buffers))
    }

    fn stmt(&mut self, stmt: &Stmt, buffers: &mut [Vec<u8>]) -> Result<(), Stop> {
        match stmt {
            Stmt::Let(v, op) => self.compute(*v, op, stmt, buffers),
            Stmt::Store { ptr, disp, val, count } => {
                let (size, from) = (self.func.ty(*val).elem.bytes(), self.index(*val));
                let memory = self.memory(*ptr, *disp, *count as usize * size, stmt, buffers)?;
                for (i, bytes) in memory.chunks_exact_mut(size).enumerate() {
                    bytes.copy_from_slice(&self.lanes[from + i].to_le_bytes()[..size]);
                }
                Ok(())
            }
            Stmt::Prefetch { .. } => Ok(()),
            Stmt::For { iv, start, end, step, carried, body } => {
                let (mut i, end) = (self.scalar(*start) as i64, self.scalar(*end) as i64);
                self.carry(carried, |c| (c.init, c.param));
                while i < end {
                    let at = self.index(*iv);
                    self.lanes[at] = i as u64;
                    self.body(body, buffers)?;
                    self.carry(carried, |c| (c.next, c.param));
                    i = i.checked_add(*step).ok_or_else(|| self.error("the counter overflows", stmt))?;
                }
                self.carry(carried, |c| (c.param, c.result));
                Ok(())
            }
            Stmt::While { carried, head, cond, body } => {
                self.carry(carried, |c| (c.init, c.param));
                loop {
                    self.body(head, buffers)?;
                    if self.scalar(*cond) == 0 {
                        break;
                    }
                    self.body(body, buffers)?;
                    self.carry(carried, |c| (c.next, c.param));
                }
                self.carry(carried, |c| (c.param, c.result));
                Ok(())
            }
            Stmt::If { cond, then, otherwise, results } => {
                let taken = self.scalar(*cond) != 0;
                self.body(if taken { then } else { otherwise }, buffers)?;
                for &(result, a, b) in results {
                    let (to, from, n) = (self.index(result), self.index(if taken { a } else { b }), self.count(result));
                    self.lanes.copy_within(from..from + n, to);
                }
                Ok(())
            }
            Stmt::Fail(status) => Err(Stop::Status(*status)),
        }
    }

    /// Moves values at once, so that a swap is a swap.
    fn carry(&mut self, carried: &[Carried], pick: impl Fn(&Carried) -> (Val, Val)) {
        let mut moving = std::mem::take(&mut self.moving);
        for c in carried {
            let from = self.index(pick(c).0);
            moving.extend_from_slice(&self.lanes[from..from + self.count(c.param)]);
        }
        let mut done = 0;
        for c in carried {
            let (to, n) = (self.index(pick(c).1), self.count(c.param));
            self.lanes[to..to + n].copy_from_slice(&moving[done..done + n]);
            done += n;
        }
        moving.clear();
        self.moving = moving;
    }

    fn compute(&mut self, v: Val, op: &Op, stmt: &Stmt, buffers: &mut [Vec<u8>]) -> Result<(), Stop> {
        let ty = self.func.ty(v);
        let (to, n) = (self.index(v), ty.lanes as usize);
        match op {
            Op::Const(bits) => self.lanes[to..to + n].fill(*bits),
            Op::Un(op, a) => self.map1(v, *a, un(*op, ty.elem)),
            Op::Bin(op, a, b) => self.map2(v, *a, *b, bin(*op, ty.elem)),
            Op::Fma(a, b, c) => {
                let (a, b, c) = (self.index(*a), self.index(*b), self.index(*c));
                let f = fma(ty.elem, self.fused);
                for i in 0..n {
                    self.lanes[to + i] = f(self.lanes[a + i], self.lanes[b + i], self.lanes[c + i]);
                }
            }
            Op::Cmp(op, a, b) => self.map2(v, *a, *b, cmp(*op, self.func.ty(*a).elem)),
            Op::Select(m, a, b) => {
                let (m, a, b) = (self.index(*m), self.index(*a), self.index(*b));
                for i in 0..n {
                    self.lanes[to + i] = if self.lanes[m + i] != 0 { self.lanes[a + i] } else { self.lanes[b + i] };
                }
            }
            Op::Conv(op, a) => {
                let (from, elem) = (self.index(*a), self.func.ty(*a).elem);
                for i in 0..n {
                    self.lanes[to + i] = conv(*op, elem, ty.elem, self.lanes[from + i]);
                }
            }
            Op::Splat(a) => {
                let x = self.scalar(*a);
                self.lanes[to..to + n].fill(x);
            }
            Op::Extract(a, lane) => self.lanes[to] = self.lanes[self.index(*a) + *lane as usize],
            Op::Insert(a, x, lane) => {
                let (from, x) = (self.index(*a), self.scalar(*x));
                self.lanes.copy_within(from..from + n, to);
                self.lanes[to + *lane as usize] = x;
            }
            Op::Shuffle(a, b, pick) => {
                let (a, b) = (self.index(*a), self.index(*b));
                for (i, &p) in pick.iter().enumerate() {
                    let p = p as usize;
                    self.lanes[to + i] = if p < n { self.lanes[a + p] } else { self.lanes[b + p - n] };
                }
            }
            Op::Half(a, upper) => {
                let from = self.index(*a) + if *upper { n } else { 0 };
                self.lanes.copy_within(from..from + n, to);
            }
            Op::Join(a, b) => {
                let (a, b) = (self.index(*a), self.index(*b));
                self.lanes.copy_within(a..a + n / 2, to);
                self.lanes.copy_within(b..b + n / 2, to + n / 2);
            }
            Op::Reduce(fold, a) => {
                let f = bin(fold.of(ty.elem), ty.elem);
                let (from, mut half) = (self.index(*a), self.count(*a));
                let mut x = self.lanes[from..from + half].to_vec();
                while half > 1 {
                    half /= 2;
                    for i in 0..half {
                        x[i] = f(x[i], x[i + half]);
                    }
                }
                self.lanes[to] = x[0];
            }
            Op::Any(a) => {
                let (from, n) = (self.index(*a), self.count(*a));
                self.lanes[to] = if self.lanes[from..from + n].iter().any(|x| *x != 0) { 0xff } else { 0 };
            }
            Op::Dot2(acc, a, b) => self.dot::<2>(v, *acc, *a, *b, |x| i32::from(x as i16)),
            Op::Dot4(acc, a, b) => self.dot::<4>(v, *acc, *a, *b, |x| i32::from(x as i8)),
            Op::Offset(p, bytes) => self.lanes[to] = self.scalar(*p).wrapping_add(self.scalar(*bytes)),
            Op::Load { ptr, disp, count } => {
                let size = ty.elem.bytes();
                let memory = self.memory(*ptr, *disp, *count as usize * size, stmt, buffers)?;
                self.lanes[to..to + n].fill(0);
                for (i, bytes) in memory.chunks_exact(size).enumerate() {
                    self.lanes[to + i] = read(bytes);
                }
            }
            Op::LoadSplat { ptr, disp } => {
                let x = read(self.memory(*ptr, *disp, ty.elem.bytes(), stmt, buffers)?);
                self.lanes[to..to + n].fill(x);
            }
        }
        Ok(())
    }

    fn map1(&mut self, v: Val, a: Val, f: fn(u64) -> u64) {
        let (to, a) = (self.index(v), self.index(a));
        for i in 0..self.count(v) {
            self.lanes[to + i] = f(self.lanes[a + i]);
        }
    }

    fn map2(&mut self, v: Val, a: Val, b: Val, f: fn(u64, u64) -> u64) {
        let (to, a, b) = (self.index(v), self.index(a), self.index(b));
        for i in 0..self.count(v) {
            self.lanes[to + i] = f(self.lanes[a + i], self.lanes[b + i]);
        }
    }

    fn dot<const N: usize>(&mut self, v: Val, acc: Val, a: Val, b: Val, wide: fn(u64) -> i32) {
        let (to, acc, a, b) = (self.index(v), self.index(acc), self.index(a), self.index(b));
        for i in 0..self.count(v) {
            let mut sum = self.lanes[acc + i] as i32;
            for k in N * i..N * (i + 1) {
                sum = sum.wrapping_add(wide(self.lanes[a + k]).wrapping_mul(wide(self.lanes[b + k])));
            }
            self.lanes[to + i] = u64::from(sum as u32);
        }
    }

    /// The bytes an access touches, or an error that says what is wrong with it.
    fn memory<'m>(&self, ptr: Val, disp: i32, bytes: usize, stmt: &Stmt, buffers: &'m mut [Vec<u8>]) -> Result<&'m mut [u8], Stop> {
        let address = self.scalar(ptr).wrapping_add(disp as i64 as u64);
        let (buffer, offset) = ((address >> SPAN).wrapping_sub(1) as usize, (address & ((1 << SPAN) - 1)) as usize);
        let size = buffers.get(buffer).map(Vec::len);
        match size {
            Some(size) if offset + bytes <= size => Ok(&mut buffers[buffer][offset..offset + bytes]),
            Some(size) => Err(self.error(&format!("{bytes} bytes at {offset} of buffer {buffer}, which has {size} bytes"), stmt)),
            None => Err(self.error(&format!("{bytes} bytes at {address:#x}, which is before or after every buffer"), stmt)),
        }
    }

    fn error(&self, what: &str, stmt: &Stmt) -> Stop {
        let task = self.scalar(self.func.task());
        Stop::Error(format!("kernel {}, task {task}: {what}, in: {}", self.func.name, text::line(self.func, stmt)))
    }

    fn index(&self, v: Val) -> usize {
        self.at[v.0 as usize]
    }

    fn count(&self, v: Val) -> usize {
        self.func.ty(v).lanes as usize
    }

    fn scalar(&self, v: Val) -> u64 {
        self.lanes[self.index(v)]
    }
}

impl Fold {
    /// The operation of two operands that it repeats.
    pub fn of(self, elem: Elem) -> Bin {
        match self {
            Fold::Add => Bin::Add,
            Fold::Min if elem.is_float() => Bin::Min,
            Fold::Max if elem.is_float() => Bin::Max,
            Fold::Min => Bin::MinS,
            Fold::Max => Bin::MaxS,
        }
    }
}

fn read(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |x, b| x << 8 | u64::from(*b))
}

fn f32(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn f64(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn b32(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// A function on bits that works on integers of the width of an element type, as signed `S` and unsigned `U`.
macro_rules! int {
    ($elem:expr, |$a:ident| $e:expr) => {
        int!(@ $elem, fn(u64) -> u64, |$a: u64| -> u64 { let $a = $a as S; ($e) as U as u64 })
    };
    ($elem:expr, |$a:ident, $b:ident| $e:expr) => {
        int!(@ $elem, fn(u64, u64) -> u64, |$a: u64, $b: u64| -> u64 { let ($a, $b) = ($a as S, $b as S); ($e) as U as u64 })
    };
    (@ $elem:expr, $ty:ty, $f:expr) => {{
        #[allow(clippy::unnecessary_cast)]
        let f: $ty = match $elem.bytes() {
            1 => { type S = i8; type U = u8; $f }
            2 => { type S = i16; type U = u16; $f }
            4 => { type S = i32; type U = u32; $f }
            _ => { type S = i64; type U = u64; $f }
        };
        f
    }};
}

/// A function on bits that works on floats of an element type.
macro_rules! float {
    ($elem:expr, |$a:ident| $e:expr) => {
        match $elem {
            Elem::F64 => |$a: u64| -> u64 {
                let $a = f64($a);
                ($e).to_bits()
            },
            _ => |$a: u64| -> u64 {
                let $a = f32($a);
                b32($e)
            },
        }
    };
    ($elem:expr, |$a:ident, $b:ident| $e:expr) => {
        match $elem {
            Elem::F64 => |$a: u64, $b: u64| -> u64 {
                let ($a, $b) = (f64($a), f64($b));
                ($e).to_bits()
            },
            _ => |$a: u64, $b: u64| -> u64 {
                let ($a, $b) = (f32($a), f32($b));
                b32($e)
            },
        }
    };
}

/// Computes the operation on an element, given and returned as bits.
pub fn un(op: Un, elem: Elem) -> fn(u64) -> u64 {
    match op {
        Un::Neg if elem.is_float() => float!(elem, |a| -a),
        Un::Neg => int!(elem, |a| a.wrapping_neg()),
        Un::Abs if elem.is_float() => float!(elem, |a| a.abs()),
        Un::Abs => int!(elem, |a| a.wrapping_abs()),
        Un::Sqrt => float!(elem, |a| a.sqrt()),
        Un::Floor => float!(elem, |a| a.floor()),
        Un::Ceil => float!(elem, |a| a.ceil()),
        Un::Trunc => float!(elem, |a| a.trunc()),
        Un::Nearest => float!(elem, |a| a.round_ties_even()),
        Un::Not => int!(elem, |a| !a),
    }
}

/// Computes the operation on elements, given and returned as bits.
pub fn bin(op: Bin, elem: Elem) -> fn(u64, u64) -> u64 {
    match op {
        Bin::Add if elem.is_float() => float!(elem, |a, b| a + b),
        Bin::Sub if elem.is_float() => float!(elem, |a, b| a - b),
        Bin::Mul if elem.is_float() => float!(elem, |a, b| a * b),
        Bin::Div => float!(elem, |a, b| a / b),
        Bin::Min => float!(elem, |a, b| if a < b { a } else { b }),
        Bin::Max => float!(elem, |a, b| if a > b { a } else { b }),
        Bin::Add => int!(elem, |a, b| a.wrapping_add(b)),
        Bin::Sub => int!(elem, |a, b| a.wrapping_sub(b)),
        Bin::Mul => int!(elem, |a, b| a.wrapping_mul(b)),
        Bin::DivS => int!(elem, |a, b| a.checked_div(b).unwrap_or(0)),
        Bin::RemS => int!(elem, |a, b| a.checked_rem(b).unwrap_or(0)),
        Bin::DivU => int!(elem, |a, b| (a as U).checked_div(b as U).unwrap_or(0)),
        Bin::RemU => int!(elem, |a, b| (a as U).checked_rem(b as U).unwrap_or(0)),
        Bin::MinS => int!(elem, |a, b| a.min(b)),
        Bin::MaxS => int!(elem, |a, b| a.max(b)),
        Bin::MinU => int!(elem, |a, b| (a as U).min(b as U)),
        Bin::MaxU => int!(elem, |a, b| (a as U).max(b as U)),
        Bin::And => |a, b| a & b,
        Bin::Or => |a, b| a | b,
        Bin::Xor => |a, b| a ^ b,
        Bin::Shl => int!(elem, |a, b| a.wrapping_shl(b as u32)),
        Bin::ShrS => int!(elem, |a, b| a.wrapping_shr(b as u32)),
        Bin::ShrU => int!(elem, |a, b| (a as U).wrapping_shr(b as u32)),
    }
}

fn fma(elem: Elem, fused: bool) -> fn(u64, u64, u64) -> u64 {
    match (elem, fused) {
        (Elem::F64, true) => |a, b, c| f64(a).mul_add(f64(b), f64(c)).to_bits(),
        (Elem::F64, false) => |a, b, c| (f64(a) * f64(b) + f64(c)).to_bits(),
        (_, true) => |a, b, c| b32(f32(a).mul_add(f32(b), f32(c))),
        (_, false) => |a, b, c| b32(f32(a) * f32(b) + f32(c)),
    }
}

/// A comparison; true is all bits of the width of what was compared.
pub fn cmp(op: Cmp, elem: Elem) -> fn(u64, u64) -> u64 {
    macro_rules! compare {
        (|$a:ident, $b:ident| $e:expr) => {
            match elem {
                Elem::F64 => |$a, $b| {
                    let ($a, $b) = (f64($a), f64($b));
                    if $e { u64::MAX } else { 0 }
                },
                Elem::F32 => |$a, $b| {
                    let ($a, $b) = (f32($a), f32($b));
                    if $e { u64::from(u32::MAX) } else { 0 }
                },
                elem => int!(elem, |$a, $b| if $e { -1 } else { 0 }),
            }
        };
    }
    match op {
        Cmp::Eq => compare!(|a, b| a == b),
        Cmp::Ne => compare!(|a, b| a != b),
        Cmp::Lt => compare!(|a, b| a < b),
        Cmp::Le => compare!(|a, b| a <= b),
        Cmp::Gt => compare!(|a, b| a > b),
        Cmp::Ge => compare!(|a, b| a >= b),
        Cmp::LtU => int!(elem, |a, b| if (a as U) < (b as U) { -1 } else { 0 }),
        Cmp::LeU => int!(elem, |a, b| if (a as U) <= (b as U) { -1 } else { 0 }),
        Cmp::GtU => int!(elem, |a, b| if (a as U) > (b as U) { -1 } else { 0 }),
        Cmp::GeU => int!(elem, |a, b| if (a as U) >= (b as U) { -1 } else { 0 }),
    }
}

/// Converts an element, given and returned as bits.
pub fn conv(op: Conv, from: Elem, to: Elem, a: u64) -> u64 {
    let signed = sext(a, from);
    match (op, from, to) {
        (Conv::Sext, ..) => signed as u64 & mask(to),
        (Conv::Zext | Conv::Bits | Conv::MaskToInt, ..) => a,
        (Conv::Wrap, ..) => a & mask(to),
        (Conv::IntToFloat, _, Elem::F64) => (signed as f64).to_bits(),
        (Conv::IntToFloat, ..) => b32(signed as f32),
        (Conv::UintToFloat, _, Elem::F64) => (a as f64).to_bits(),
        (Conv::UintToFloat, ..) => b32(a as f32),
        (Conv::FloatToInt, Elem::F64, Elem::I64) => f64(a) as i64 as u64,
        (Conv::FloatToInt, Elem::F64, _) => u64::from(f64(a) as i32 as u32),
        (Conv::FloatToInt, _, Elem::I64) => f32(a) as i64 as u64,
        (Conv::FloatToInt, ..) => u64::from(f32(a) as i32 as u32),
        (Conv::FloatToUint, Elem::F64, Elem::I64) => f64(a) as u64,
        (Conv::FloatToUint, Elem::F64, _) => u64::from(f64(a) as u32),
        (Conv::FloatToUint, _, Elem::I64) => f32(a) as u64,
        (Conv::FloatToUint, ..) => u64::from(f32(a) as u32),
        (Conv::FloatToFloat, Elem::F32, Elem::F64) => f64::from(f32(a)).to_bits(),
        (Conv::FloatToFloat, Elem::F64, Elem::F32) => b32(f64(a) as f32),
        (Conv::FloatToFloat, ..) => a,
        (Conv::HalfToFloat, ..) => b32(half_to_float(a as u16)),
        (Conv::FloatToHalf, ..) => u64::from(float_to_half(f32(a))),
    }
}

/// All bits of an element type.
pub fn mask(elem: Elem) -> u64 {
    u64::MAX >> (64 - 8 * elem.bytes())
}

fn sext(a: u64, elem: Elem) -> i64 {
    let shift = 64 - 8 * elem.bytes();
    ((a << shift) as i64) >> shift
}

fn half_to_float(h: u16) -> f32 {
    let (exponent, fraction) = (i32::from(h >> 10 & 31), f32::from(h & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::from_bits(0x7fc0_0000 | u32::from(h & 1023) << 13),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    f32::from_bits(magnitude.to_bits() | u32::from(h >> 15) << 31)
}

/// A NaN keeps its sign and the high bits of its payload and becomes quiet, as the instructions of x86 and Arm have it.
fn float_to_half(x: f32) -> u16 {
    let (sign, a) = ((x.to_bits() >> 16) as u16 & 0x8000, f64::from(x.abs()));
    let magnitude = if x.is_nan() {
        0x7e00 | (x.to_bits() >> 13) as u16 & 0x3ff
    } else if a < 2f64.powi(-14) {
        (a * 2f64.powi(24)).round_ties_even() as u16
    } else if a >= 65520.0 {
        0x7c00
    } else {
        // One unit in the last place is 2^(exponent − 10); a carry out of the fraction raises the exponent by itself.
        let exponent = (a.to_bits() >> 52) as i32 - 1023;
        let units = (a * 2f64.powi(10 - exponent)).round_ties_even() as i64;
        (units - 1024 + i64::from(exponent + 15) * 1024) as u16
    };
    sign | magnitude
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Ty};
    use super::*;

    #[test]
    fn an_access_outside_a_buffer_names_kernel_and_statement() {
        let mut b = Builder::new("late", 1);
        let x = b.load(Ty::vector(Elem::F32, 4), b.param(0), 8);
        b.store(x, b.param(0), 0);
        let func = b.finish();
        let why = run_tasks(&func, &mut [vec![0; 20]], 1).unwrap_err();
        assert_eq!(why, "kernel late, task 0: 16 bytes at 8 of buffer 0, which has 20 bytes, in: v2:f32x4 = load [v0+8]");
        assert_eq!(run_tasks(&func, &mut [vec![0; 24]], 1), Ok(0));
    }

    #[test]
    fn loops_carry_and_swap() {
        let mut b = Builder::new("fibonacci", 1);
        let (zero, one) = (b.index(0), b.index(1));
        let out = b.for_count(10, &[zero, one], |b, _, v| vec![v[1], b.add(v[0], v[1])]);
        b.store(out[0], b.param(0), 0);
        let mut memory = [vec![0; 8]];
        assert_eq!(run_tasks(&b.finish(), &mut memory, 1), Ok(0));
        assert_eq!(memory[0], 55u64.to_le_bytes());
    }

    #[test]
    fn halves_round_trip_and_round_to_even() {
        for h in 0..=u16::MAX {
            let x = half_to_float(h);
            let back = float_to_half(x);
            assert_eq!(back, if x.is_nan() { h | 0x200 } else { h }, "{h:#x} = {x}");
        }
        let cases = [(65519.0, 0x7bff), (65520.0, 0x7c00), (2049.0, 0x6800), (2051.0, 0x6802), (1e-8, 0), (2f32.powi(-25) * 1.01, 1)];
        for (x, h) in cases {
            assert_eq!(float_to_half(x), h, "{x}");
        }
    }

    #[test]
    fn division_by_zero_gives_zero() {
        for op in [Bin::DivS, Bin::RemS, Bin::DivU, Bin::RemU] {
            assert_eq!(bin(op, Elem::I32)(7, 0), 0);
        }
        assert_eq!(bin(Bin::DivS, Elem::I8)(0x80, 0xff), 0);
        assert_eq!(bin(Bin::RemS, Elem::I8)(0xf9, 2), 0xff);
    }
}
