//! Seeded random numbers, shapes and tensors: what tests, fuzzers and sample inputs are made of.
//!
//! The same seed gives the same numbers on every host. They never reach a compiled object.

use crate::float8;
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Elements of a random tensor at most: one of more elements is all zero.
pub const MOST_ELEMENTS: usize = 1 << 16;

/// A seeded generator of numbers, shapes and tensors.
#[derive(Clone, Debug)]
pub struct Rng {
    source: fastrand::Rng,
    /// Whether shapes are those of [`Rng::odd`].
    odd: bool,
    /// Bytes that decide before the generator does, the next one last.
    decisions: Vec<u8>,
}

/// Sizes of odd shapes: nothing, one, and primes, which are no multiple of any vector or tile.
const ODD: [usize; 10] = [0, 1, 1, 2, 3, 5, 7, 11, 13, 17];
/// Elements that an odd shape has at most.
const ODD_ELEMENTS: usize = 2500;

impl Rng {
    /// A generator; every seed is good.
    pub fn new(seed: u64) -> Rng {
        Rng { source: fastrand::Rng::with_seed(seed), odd: false, decisions: vec![] }
    }

    /// A generator whose shapes have 0 to 8 axes, of sizes that are 0, 1 or primes.
    pub fn odd(seed: u64) -> Rng {
        Rng { odd: true, ..Rng::new(seed) }
    }

    /// A generator whose first choices are made by `bytes`, one each: a fuzzer that changes a byte changes a choice. What comes
    /// after them is chance, and so are the numbers of tensors.
    pub fn of_bytes(bytes: &[u8]) -> Rng {
        Rng { decisions: bytes.iter().rev().copied().collect(), ..Rng::new(bytes.len() as u64) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.source.u64(..)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        match self.decisions.pop() {
            Some(byte) => byte as usize % n,
            None => ((self.bits() >> 32) as usize) % n,
        }
    }

    /// A number from `low` to `high`.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// One of the items.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Heads or tails.
    pub fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    /// A number from −1 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// True in so many of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number of axes.
    pub fn rank(&mut self) -> usize {
        let most = if self.odd { 8 } else { 4 };
        self.below(most + 1)
    }

    /// A size from 1 to `most`, or an odd one.
    pub fn size(&mut self, most: usize) -> usize {
        match (self.odd, self.below(20)) {
            (false, _) => 1 + self.below(most),
            (true, 0) => 0,
            (true, _) => self.pick(&ODD[1..8]),
        }
    }

    /// Leading axes of a product: up to two of `shape`, or more of few elements.
    pub fn lead(&mut self, shape: &[usize]) -> Vec<usize> {
        if self.odd { self.odd_shape(shape.len().min(6), 30) } else { shape[..shape.len().min(2)].to_vec() }
    }

    fn odd_shape(&mut self, rank: usize, mut elements: usize) -> Vec<usize> {
        let empty = self.below(12) == 0;
        let mut shape = vec![1; rank];
        // The first size may be the largest: that is any axis.
        let start = self.below(rank.max(1));
        for i in 0..rank {
            let fits: Vec<usize> = ODD.into_iter().filter(|&size| size <= elements && (size > 0 || empty)).collect();
            let size = self.pick(&fits);
            elements /= size.max(1);
            shape[(start + i) % rank] = size;
        }
        shape
    }

    /// A small shape of so many axes; seldom one is empty.
    pub fn shape(&mut self, rank: usize) -> Vec<usize> {
        if self.odd {
            return self.odd_shape(rank, ODD_ELEMENTS);
        }
        (0..rank).map(|_| if self.below(40) == 0 { 0 } else { 1 + self.below(5) }).collect()
    }

    /// A tensor of moderate numbers: floats within ±4, integers within ±9 or 0 to 15, as the type allows. One of more than [`MOST_ELEMENTS`]
    /// is all 0.
    pub fn tensor(&mut self, ty: &TensorType) -> Tensor {
        let decisions = std::mem::take(&mut self.decisions);
        let tensor = self.numbers(ty);
        self.decisions = decisions;
        tensor
    }

    fn numbers(&mut self, ty: &TensorType) -> Tensor {
        if ty.len() >= MOST_ELEMENTS {
            return Tensor::zeros(ty.clone());
        }
        let float = |rng: &mut Rng| rng.unit() * 4.0;
        let bits = |rng: &mut Rng| -> u64 {
            match (ty.ty, ty.ty.range()) {
                (_, Some([least, most])) => (rng.within(least.max(-9) as i64, most.min(15) as i64)) as u64,
                (Type::F32, _) => (float(rng) as f32).to_bits().into(),
                (Type::F64, _) => float(rng).to_bits(),
                (Type::F8E8M0, _) => rng.within(120, 134) as u64,
                (small, _) => float8::encode(small, float(rng), true).into(),
            }
        };
        let bytes: Vec<u8> = (0..ty.len()).flat_map(|_| bits(self).to_le_bytes().into_iter().take(ty.ty.bytes())).collect();
        Tensor::from_bytes(ty.clone(), &bytes).expect("as many bytes as the type has")
    }

    /// Indices into an axis of `size` elements; negative ones count from the end.
    pub fn indices(&mut self, shape: &[usize], size: usize) -> Tensor {
        let count = shape.iter().product();
        let size = size as i64;
        Tensor::new(shape, &(0..count).map(|_| self.within(-size, size - 1)).collect::<Vec<i64>>())
    }
}
