//! What an operation reads and writes when the interpreter runs it: lanes of values, and memory.

use crate::ty::{Ty, Val};

/// Bits of an address that are the offset. Buffers are so far apart that no offset leads from one into another.
pub const SPAN: u32 = 40;

/// The values of a running kernel.
pub struct Lanes<'a> {
    types: &'a [Ty],
    /// Where the lanes of each value start in `lanes`.
    starts: Vec<usize>,
    /// Bits of each lane, zero above its width.
    lanes: Vec<u64>,
    /// Whether `Fma` rounds once.
    pub fused: bool,
}

impl<'a> Lanes<'a> {
    /// Values of these types, all zero.
    pub fn new(types: &'a [Ty], fused: bool) -> Lanes<'a> {
        let mut starts = Vec::with_capacity(types.len());
        let mut total = 0;
        for ty in types {
            starts.push(total);
            total += ty.lanes as usize;
        }
        Lanes { types, starts, lanes: vec![0; total], fused }
    }

    fn start(&self, v: Val) -> usize {
        self.starts[v.0 as usize]
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.types[v.0 as usize]
    }

    fn count(&self, v: Val) -> usize {
        self.ty(v).lanes as usize
    }

    /// All lanes of a value.
    pub fn of(&self, v: Val) -> &[u64] {
        &self.lanes[self.start(v)..][..self.count(v)]
    }

    /// All lanes of a value, to be written.
    pub fn of_mut(&mut self, v: Val) -> &mut [u64] {
        let (start, count) = (self.start(v), self.count(v));
        &mut self.lanes[start..][..count]
    }

    /// The first lane of a value.
    pub fn scalar(&self, v: Val) -> u64 {
        self.lanes[self.start(v)]
    }

    /// Copies `n` lanes of one value to another.
    pub fn copy(&mut self, to: Val, to_lane: usize, from: Val, from_lane: usize, n: usize) {
        let (to, from) = (self.start(to) + to_lane, self.start(from) + from_lane);
        self.lanes.copy_within(from..from + n, to);
    }
}

/// One operation under way.
pub struct Frame<'a, 'f> {
    /// The values.
    pub values: &'a mut Lanes<'f>,
    /// The value that is made.
    pub result: Val,
    /// Memory that pointers point to.
    pub buffers: &'a mut [Vec<u8>],
}

impl Frame<'_, '_> {
    /// Type of the result.
    pub fn ty(&self) -> Ty {
        self.values.ty(self.result)
    }

    /// Type of an operand.
    pub fn of(&self, v: Val) -> Ty {
        self.values.ty(v)
    }

    /// The same in every lane.
    pub fn fill(&mut self, bits: u64) {
        self.values.of_mut(self.result).fill(bits);
    }

    /// The first lane of an operand.
    pub fn scalar(&self, v: Val) -> u64 {
        self.values.scalar(v)
    }

    /// All lanes of an operand.
    pub fn lanes(&self, v: Val) -> &[u64] {
        self.values.of(v)
    }

    /// The bytes of an operand in lanes of another width.
    pub fn regroup(&mut self, v: Val) {
        let (had, has) = (self.of(v).elem.bytes(), self.ty().elem.bytes());
        let bytes: Vec<u8> = self.lanes(v).iter().flat_map(|lane| lane.to_le_bytes().into_iter().take(had)).collect();
        for (lane, bytes) in bytes.chunks(has).enumerate() {
            self.set(lane, bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte)));
        }
    }

    /// A lane of the result.
    pub fn set(&mut self, lane: usize, bits: u64) {
        self.values.of_mut(self.result)[lane] = bits;
    }

    /// `n` lanes of an operand to the result.
    pub fn copy(&mut self, to_lane: usize, from: Val, from_lane: usize, n: usize) {
        self.values.copy(self.result, to_lane, from, from_lane, n);
    }

    /// Each lane from the lane of an operand.
    pub fn map(&mut self, a: Val, f: impl Fn(u64) -> u64) {
        let (to, a) = (self.values.start(self.result), self.values.start(a));
        for i in 0..self.values.count(self.result) {
            self.values.lanes[to + i] = f(self.values.lanes[a + i]);
        }
    }

    /// Each lane from the lanes of two operands.
    pub fn map2(&mut self, a: Val, b: Val, f: impl Fn(u64, u64) -> u64) {
        let (to, a, b) = (self.values.start(self.result), self.values.start(a), self.values.start(b));
        for i in 0..self.values.count(self.result) {
            self.values.lanes[to + i] = f(self.values.lanes[a + i], self.values.lanes[b + i]);
        }
    }

    /// Each lane from the lanes of three operands.
    pub fn map3(&mut self, a: Val, b: Val, c: Val, f: impl Fn(u64, u64, u64) -> u64) {
        let (to, a, b, c) = (self.values.start(self.result), self.values.start(a), self.values.start(b), self.values.start(c));
        for i in 0..self.values.count(self.result) {
            self.values.lanes[to + i] = f(self.values.lanes[a + i], self.values.lanes[b + i], self.values.lanes[c + i]);
        }
    }

    /// acc + Σ a·b over groups of `N` lanes, wrapping at 32 bits; `wide_a` and `wide_b` say what number the bits are.
    pub fn dot<const N: usize>(&mut self, acc: Val, a: Val, b: Val, wide_a: fn(u64) -> i32, wide_b: fn(u64) -> i32) {
        for i in 0..self.values.count(self.result) {
            let (x, y) = (&self.lanes(a)[N * i..N * (i + 1)], &self.lanes(b)[N * i..N * (i + 1)]);
            let products = x.iter().zip(y).map(|(x, y)| wide_a(*x).wrapping_mul(wide_b(*y)));
            let sum = products.fold(self.lanes(acc)[i] as i32, i32::wrapping_add);
            self.set(i, u64::from(sum as u32));
        }
    }

    /// Reads `count` elements into the first lanes; the others become 0.
    pub fn load(&mut self, ptr: Val, disp: i32, count: usize) -> Result<(), String> {
        let size = self.ty().elem.bytes();
        let memory = memory(self.buffers, self.values.scalar(ptr), disp, count * size)?;
        let lanes = self.values.of_mut(self.result);
        lanes.fill(0);
        for (lane, bytes) in lanes.iter_mut().zip(memory.chunks_exact(size)) {
            *lane = bytes.iter().rev().fold(0, |x, b| x << 8 | u64::from(*b));
        }
        Ok(())
    }
}

/// The bytes of an access, or what is wrong with it.
pub fn memory(buffers: &mut [Vec<u8>], ptr: u64, disp: i32, bytes: usize) -> Result<&mut [u8], String> {
    let address = ptr.wrapping_add(disp as i64 as u64);
    let (buffer, offset) = ((address >> SPAN).wrapping_sub(1) as usize, (address & ((1 << SPAN) - 1)) as usize);
    let size = buffers.get(buffer).map(Vec::len);
    match size {
        Some(size) if offset + bytes <= size => Ok(&mut buffers[buffer][offset..offset + bytes]),
        Some(size) => Err(format!("{bytes} bytes at {offset} of buffer {buffer}, which has {size} bytes")),
        None => Err(format!("{bytes} bytes at {address:#x}, which is before or after every buffer")),
    }
}
