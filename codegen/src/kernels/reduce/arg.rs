//! Where the largest or smallest element along an axis is.

use crate::expr::{load_element, register, store_element};
use crate::kernels::lib::nest::{Axis, Index, walk};
use crate::kernels::lib::rows::{Rows, Stream};
use crate::kernels::lib::view::View;
use crate::unit::{Arg, LoweredCall, Unit};
use dnnc_ir::{Kind, Type};
use dnnc_kir::{Bin, Builder, Cmp, Conv, Elem, Ty, Val};

/// The best element so far and its index, in each of the columns that a vector holds; along the last axis in scalars.
pub(super) fn lower(unit: &Unit) -> LoweredCall {
    let (op, x) = (unit.op, &unit.inputs[0].ty);
    let axis = op.attrs.size("axis");
    let size = x.shape[axis];
    let order = Order { ty: x.ty, max: op.kind() == Kind::ArgMax, last: op.attrs.flag("last") };
    let mut outer = x.shape.clone();
    outer[axis] = 1;
    let view = View { offset: 0, strides: View::dense(&x.shape).strides };
    let result = View { offset: 0, strides: View::dense(&outer).strides };
    let bytes = view.strides[axis] as i64 * x.ty.bytes() as i64;
    let streams = [Stream { ty: x.ty, view }, Stream { ty: Type::I64, view: result }];
    let elem = register(x.ty);
    let inner: usize = x.shape[axis + 1..].iter().product();
    let bits = unit.target.vector.bits;
    let lanes = (bits / (8 * elem.bytes())) as u8;
    let by_columns = inner >= lanes as usize && elem.bytes() == 4;
    let along = inner == 1 && elem.bytes() == 4 && size >= 4 * lanes as usize;
    let rows = Rows::new(&outer, &vec![false; outer.len()], &streams, if by_columns { lanes } else { 1 }, size, unit.options.threads, 0);
    let mut b = Builder::new(op.kind().name(), 2);
    rows.each(&mut b, &mut |b, row| {
        let columns = if by_columns { lanes } else { 1 };
        let mut found = vec![];
        for slot in 0..row.width() {
            let disp = (slot * columns as usize * x.ty.bytes()) as i64;
            let ptr = b.offset_int(row.pointers[0], disp);
            found.push(match along {
                true => order.along(b, ptr, size, lanes),
                false => order.down(b, ptr, size, bytes, columns, row.used()),
            });
        }
        for (slot, index) in found.into_iter().enumerate() {
            for lane in 0..row.used() {
                let one = b.extract(index, lane as u8);
                let one = if b.ty(one).elem == Elem::I64 { one } else { b.conv(Conv::Sext, one, Elem::I64) };
                store_element(b, Type::I64, one, row.pointers[1], (8 * (slot * columns as usize + lane)) as i32, 1);
            }
        }
    });
    LoweredCall { func: b.finish(), args: vec![Arg::Input(0), Arg::Output(0)], tasks: rows.tasks() }
}

/// Which of two elements is the better one.
pub(crate) struct Order {
    /// Type of the elements.
    pub ty: Type,
    /// The larger one; else the smaller.
    pub max: bool,
    /// Of equals the last.
    pub last: bool,
}

impl Order {
    /// Whether `x` takes the place of `best`, which comes before it; a NaN beats every number.
    pub fn beats(&self, b: &mut Builder, x: Val, best: Val) -> Val {
        let unsigned = matches!(self.ty, Type::U32 | Type::U64);
        let op = match (self.max, self.last, unsigned) {
            (true, false, false) => Cmp::Gt,
            (true, true, false) => Cmp::Ge,
            (false, false, false) => Cmp::Lt,
            (false, true, false) => Cmp::Le,
            (true, false, true) => Cmp::GtU,
            (true, true, true) => Cmp::GeU,
            (false, false, true) => Cmp::LtU,
            (false, true, true) => Cmp::LeU,
        };
        let better = b.cmp(op, x, best);
        if !self.ty.is_float() {
            return better;
        }
        let nan = b.cmp(Cmp::Ne, x, x);
        let better = b.bin(Bin::Or, better, nan);
        if self.last {
            return better;
        }
        let ordered = b.cmp(Cmp::Eq, best, best);
        b.bin(Bin::And, better, ordered)
    }

    /// One index after the other, in columns side by side; the index has the width of the element.
    fn down(&self, b: &mut Builder, ptr: Val, size: usize, stride: i64, lanes: u8, used: usize) -> Val {
        let first = load_element(b, self.ty, ptr, 0, lanes, used);
        let count = Ty { elem: b.ty(first).elem.int(), lanes };
        let (zero, one) = (b.int(count, 0), b.int(count, 1));
        let axis = Axis { size, strides: vec![stride] };
        let start = [first, zero, one];
        let end = walk(b, &axis, (Index::Known(1), Index::Known(size)), 1, &[ptr], &start, &mut |b, p, c| {
            // The counter of the loop starts at the second element: so does the pointer.
            let x = load_element(b, self.ty, p[0], 0, lanes, used);
            let better = self.beats(b, x, c[0]);
            vec![b.select(better, x, c[0]), b.select(better, c[2], c[1]), b.add(c[2], one)]
        });
        end[1]
    }

    /// Along contiguous elements: each lane its own best, then the best of the lanes, of equals that of the right index.
    fn along(&self, b: &mut Builder, ptr: Val, size: usize, lanes: u8) -> Val {
        let width = self.ty.bytes();
        let n = lanes as usize;
        let best = load_element(b, self.ty, ptr, 0, lanes, n);
        let count = Ty { elem: Elem::I32, lanes };
        let zero = b.int(count, 0);
        let mut own = zero;
        for lane in 1..lanes {
            let number = b.int(Ty::I32, i64::from(lane));
            own = b.insert(own, number, lane);
        }
        let step = b.int(count, n as i64);
        let next = b.add(own, step);
        let axis = Axis { size, strides: vec![width as i64] };
        let whole = size / n * n;
        let c = walk(b, &axis, (Index::Known(n), Index::Known(whole)), n, &[ptr], &[best, own, next], &mut |b, p, c| {
            let x = load_element(b, self.ty, p[0], 0, lanes, n);
            let better = self.beats(b, x, c[0]);
            vec![b.select(better, x, c[0]), b.select(better, c[2], c[1]), b.add(c[2], step)]
        });
        let mut found: Vec<(Val, Val)> = (0..lanes).map(|l| (b.extract(c[0], l), b.extract(c[1], l))).collect();
        for i in whole..size {
            let v = load_element(b, self.ty, ptr, (i * width) as i32, 1, 1);
            found.push((v, b.int(Ty::I32, i as i64)));
        }
        let (_, index) = found.into_iter().reduce(|x, y| self.better_of(b, x, y)).expect("a lane");
        index
    }

    /// The better of two elements with their indices, in no order.
    fn better_of(&self, b: &mut Builder, x: (Val, Val), y: (Val, Val)) -> (Val, Val) {
        let strict = Order { last: false, ..*self };
        let (y_wins, x_wins) = (strict.beats(b, y.0, x.0), strict.beats(b, x.0, y.0));
        let later = b.cmp(if self.last { Cmp::Gt } else { Cmp::Lt }, y.1, x.1);
        let not = b.un(dnnc_kir::Un::Not, x_wins);
        let tie = b.bin(Bin::And, later, not);
        let y_wins = b.bin(Bin::Or, y_wins, tie);
        (b.select(y_wins, y.0, x.0), b.select(y_wins, y.1, x.1))
    }
}
