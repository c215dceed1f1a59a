//! Dot products of groups of small integers, in the forms that are instructions where the machine has them.

use super::translator::Translator;
use cranelift_codegen::ir::types::I32X4;
use cranelift_codegen::ir::{InstBuilder, Value};
use dnnc_kir::{Ty, Val};

impl Translator<'_> {
    pub fn dot(&mut self, ty: Ty, acc: Val, a: Val, b: Val, f: fn(&mut Self, Value, Value, Value) -> Value) -> Vec<Value> {
        let mut accs = self.get(acc);
        if !ty.is_vector() {
            accs[0] = self.b.ins().scalar_to_vector(I32X4, accs[0]);
        }
        let operands = accs.into_iter().zip(self.get(a)).zip(self.get(b));
        let mut out: Vec<Value> = operands.map(|((acc, a), b)| f(self, acc, a, b)).collect();
        if !ty.is_vector() {
            out[0] = self.b.ins().extractlane(out[0], 0);
        }
        out
    }

    /// Products of lanes of twice the width, from the low and from the high half.
    pub fn widened_products(&mut self, a: Value, b: Value) -> (Value, Value) {
        let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
        let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
        (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh))
    }

    pub fn dot2(&mut self, acc: Value, a: Value, b: Value) -> Value {
        // The form that is `pmaddwd` on x86.
        let (low, high) = self.widened_products(a, b);
        let pairs = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(pairs, acc)
    }

    pub fn dot4(&mut self, acc: Value, a: Value, b: Value) -> Value {
        if self.features.pair_products {
            let (al, bl) = (self.b.ins().swiden_low(a), self.b.ins().swiden_low(b));
            let (ah, bh) = (self.b.ins().swiden_high(a), self.b.ins().swiden_high(b));
            let (low, high) = (self.widened_products(al, bl), self.widened_products(ah, bh));
            let (low, high) = (self.b.ins().iadd_pairwise(low.0, low.1), self.b.ins().iadd_pairwise(high.0, high.1));
            let quads = self.b.ins().iadd_pairwise(low, high);
            return self.b.ins().iadd(quads, acc);
        }
        // The form that is `sdot` on AArch64. A product of bytes fits 16 bits.
        let (low, high) = self.widened_products(a, b);
        let (low, high) = (self.pairs(low), self.pairs(high));
        let quads = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(quads, acc)
    }

    /// As `dot4`, the bytes of `a` unsigned.
    pub fn dot4u(&mut self, acc: Value, a: Value, b: Value) -> Value {
        let (al, bl) = (self.b.ins().uwiden_low(a), self.b.ins().swiden_low(b));
        let (ah, bh) = (self.b.ins().uwiden_high(a), self.b.ins().swiden_high(b));
        // An unsigned byte in 16 bits is a signed number; its product with a signed byte fits 16 bits.
        let (low, high) = match self.features.pair_products {
            true => {
                let (low, high) = (self.widened_products(al, bl), self.widened_products(ah, bh));
                (self.b.ins().iadd_pairwise(low.0, low.1), self.b.ins().iadd_pairwise(high.0, high.1))
            }
            false => {
                let (low, high) = (self.b.ins().imul(al, bl), self.b.ins().imul(ah, bh));
                (self.pairs(low), self.pairs(high))
            }
        };
        let quads = self.b.ins().iadd_pairwise(low, high);
        self.b.ins().iadd(quads, acc)
    }

    /// Sums of neighbouring 16-bit lanes in 32 bits.
    pub fn pairs(&mut self, x: Value) -> Value {
        let (low, high) = (self.b.ins().swiden_low(x), self.b.ins().swiden_high(x));
        self.b.ins().iadd_pairwise(low, high)
    }
}
