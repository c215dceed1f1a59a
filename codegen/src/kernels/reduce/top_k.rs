//! The k best elements along an axis, in order.

use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::rows::{Rows, Stream};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};

/// The results hold a heap whose root is the worst of the k best so far; at the end it is taken apart from the root, which goes last.
pub(super) fn lower(unit: &Unit) -> LoweredCall {
    let (op, x) = (unit.op, &unit.inputs[0].ty);
    let (axis, k) = (op.attrs.size("axis"), op.attrs.size("k"));
    let size = x.shape[axis];
    let mut outer = x.shape.clone();
    outer[axis] = 1;
    let from = View { offset: 0, strides: View::dense(&x.shape).strides };
    let to = View { offset: 0, strides: View::dense(&unit.results[0].shape).strides };
    let strides = (from.strides[axis] as i64, to.strides[axis] as i64);
    let streams = [Stream { ty: x.ty, view: from }, Stream { ty: x.ty, view: to.clone() }, Stream { ty: Type::I64, view: to }];
    let rows = Rows::new(&outer, &vec![false; outer.len()], &streams, 1, 16 * size, unit.options.threads, 0);
    let mut b = Builder::new(op.kind().name(), 3);
    rows.each(&mut b, &mut |b, row| {
        let heap =
            Heap { ty: x.ty, largest: op.attrs.flag("largest"), values: row.pointers[1], indices: row.pointers[2], stride: strides.1, k };
        heap.select(b, row.pointers[0], strides.0, size);
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0), Arg::Output(1)], tasks: rows.tasks() }
}

struct Heap {
    ty: Type,
    largest: bool,
    values: Val,
    indices: Val,
    /// Elements from one to the next.
    stride: i64,
    k: usize,
}

impl Heap {
    fn select(&self, b: &mut Builder, x: Val, stride: i64, size: usize) {
        let width = self.ty.bytes();
        let read = |b: &mut Builder, i: Val| {
            let ptr = b.element(x, i, stride as usize * width);
            load_element(b, self.ty, ptr, 0, 1, 1)
        };
        b.for_count(self.k, &[], |b, i, _| {
            let v = read(b, i);
            self.put(b, i, v, i);
            vec![]
        });
        let (zero, k) = (b.index(0), b.index(self.k));
        b.for_count(self.k / 2, &[], |b, i, _| {
            let last = b.index((self.k / 2).saturating_sub(1));
            let at = b.sub(last, i);
            let (v, index) = self.get(b, at);
            self.sift(b, at, k, v, index);
            vec![]
        });
        let end = b.index(size);
        b.for_range(k, end, 1, &[], |b, i, _| {
            let v = read(b, i);
            let (root, at) = self.get(b, zero);
            let better = self.before(b, (v, i), (root, at));
            b.when(better, |b| self.sift(b, zero, k, v, i));
            vec![]
        });
        b.for_count(self.k.saturating_sub(1), &[], |b, i, _| {
            let last = b.index(self.k.saturating_sub(1));
            let at = b.sub(last, i);
            let (root, root_index) = self.get(b, zero);
            let (v, index) = self.get(b, at);
            self.put(b, at, root, root_index);
            self.sift(b, zero, at, v, index);
            vec![]
        });
    }

    fn places(&self, b: &mut Builder, i: Val) -> (Val, Val) {
        let width = self.ty.bytes();
        (b.element(self.values, i, self.stride as usize * width), b.element(self.indices, i, self.stride as usize * 8))
    }

    fn get(&self, b: &mut Builder, i: Val) -> (Val, Val) {
        let (value, index) = self.places(b, i);
        (load_element(b, self.ty, value, 0, 1, 1), b.load(Ty::I64, index, 0))
    }

    fn put(&self, b: &mut Builder, i: Val, v: Val, at: Val) {
        let (value, index) = self.places(b, i);
        store_element(b, self.ty, v, value, 0, 1);
        b.store(at, index, 0);
    }

    /// Puts an element at `hole` or, as long as a child is worse, that child, and the element further down; the heap has `size` elements.
    fn sift(&self, b: &mut Builder, hole: Val, size: Val, v: Val, index: Val) {
        let (one, two) = (b.index(1), b.index(2));
        let zero = b.index(0);
        let end = b.while_loop(
            &[hole, one],
            |b, c| {
                let left = b.mul(c[0], two);
                let left = b.add(left, one);
                let has = b.cmp(Cmp::Lt, left, size);
                let go = b.cmp(Cmp::Ne, c[1], zero);
                b.bin(Bin::And, has, go)
            },
            |b, c| {
                let left = b.mul(c[0], two);
                let left = b.add(left, one);
                let right = b.add(left, one);
                let has_right = b.cmp(Cmp::Lt, right, size);
                let a = self.get(b, left);
                let worse = b.branch(
                    has_right,
                    |b| {
                        let c = self.get(b, right);
                        let first = self.before(b, a, c);
                        b.branch(first, |_| vec![right, c.0, c.1], |_| vec![left, a.0, a.1])
                    },
                    |_| vec![left, a.0, a.1],
                );
                let (child, cv, ci) = (worse[0], worse[1], worse[2]);
                let down = self.before(b, (v, index), (cv, ci));
                b.branch(
                    down,
                    |b| {
                        self.put(b, c[0], cv, ci);
                        vec![child, one]
                    },
                    |_| vec![c[0], zero],
                )
            },
        );
        self.put(b, end[0], v, index);
    }

    /// Whether an element stands before another in the result: it is better, or as good with a lower index.
    fn before(&self, b: &mut Builder, x: (Val, Val), y: (Val, Val)) -> Val {
        let (kx, ky) = (order_key(b, x.0, self.ty, self.largest), order_key(b, y.0, self.ty, self.largest));
        let unsigned = matches!(self.ty, Type::U32 | Type::U64);
        let op = match (self.largest, unsigned) {
            (true, false) => Cmp::Gt,
            (false, false) => Cmp::Lt,
            (true, true) => Cmp::GtU,
            (false, true) => Cmp::LtU,
        };
        let (better, same) = (b.cmp(op, kx, ky), b.cmp(Cmp::Eq, kx, ky));
        // The masks are of different widths: as numbers they combine.
        let [one, zero] = [1, 0].map(|n| b.int(Ty::I64, n));
        let lower = b.cmp(Cmp::Lt, x.1, y.1);
        let lower = b.select(lower, one, zero);
        let tie = b.branch(same, |_| vec![lower], |_| vec![zero])[0];
        let first = b.branch(better, |_| vec![one], |_| vec![tie])[0];
        b.cmp(Cmp::Ne, first, zero)
    }
}

/// An integer that is ordered as the elements are, both zeros one; NaN is above all or below.
pub(crate) fn order_key(b: &mut Builder, v: Val, element: Type, nan_above: bool) -> Val {
    if !element.is_float() {
        return v;
    }
    let elem = register(element).int();
    let ty = Ty::scalar(elem);
    let bits = 8 * elem.bytes() as i64;
    let zero = crate::math::number(b, v, 0.0);
    let nan = b.cmp(Cmp::Ne, v, v);
    let v = b.add(v, zero);
    let i = b.conv(Conv::Bits, v, elem);
    let (down, low) = (b.int(ty, bits - 1), b.int(ty, if elem == Elem::I64 { i64::MAX } else { i64::from(i32::MAX) }));
    let sign = b.bin(Bin::ShrS, i, down);
    let flip = b.bin(Bin::And, sign, low);
    let key = b.bin(Bin::Xor, i, flip);
    let limit = if nan_above { low } else { b.un(dnnc_kir::Un::Not, low) };
    b.select(nan, limit, key)
}
