//! Recurrent layers: LSTM, GRU and the plain cell, one direction, over inputs whose product with their weights is taken.
//!
//! One kernel runs a whole sequence. For each step the state is multiplied with the recurrent weights a block of hidden units at a time,
//! all gates of the block together: the weights lie in the order in which they are read, and the gates of a block are in registers when
//! the activations need them. A task is one sequence of the batch.

#[cfg(test)]
mod tests;

use super::{Arg, Family, Lowered, LoweredCall, Unit};
use crate::expr::{load_element, register, store_element};
use crate::kir::{Builder, Cmp, Elem, Ty, Val};
use crate::math;
use dnnc_ir::{Attrs, Kind, Tensor, Type};
use dnnc_runtime::abi;

/// The family.
pub const FAMILY: Family = Family { name: "recurrent", kinds: &[Kind::Lstm, Kind::Gru, Kind::Rnn], lower, epilogue: |_, _| None };

/// Sizes and places of a layer.
struct Layer<'a> {
    kind: Kind,
    attrs: &'a Attrs,
    /// Element type in memory, and in registers and scratch.
    ty: Type,
    reg: Elem,
    lanes: u8,
    steps: usize,
    batch: usize,
    hidden: usize,
    gates: usize,
    /// Vectors of hidden units in a block.
    width: usize,
}

/// Pointers of the kernel, by what they point at.
#[derive(Default)]
struct Pointers {
    args: Vec<Arg>,
    xw: usize,
    r: usize,
    h0: usize,
    c0: usize,
    lens: Option<usize>,
    peepholes: Option<usize>,
    bias: Option<usize>,
    y: usize,
    h: usize,
    c: usize,
    scratch: usize,
}

fn lower(unit: &Unit) -> Result<Lowered, String> {
    let kind = unit.op.kind();
    let xw = &unit.inputs[0].ty;
    let (ty, gates) = (
        xw.ty,
        match kind {
            Kind::Lstm => 4,
            Kind::Gru => 3,
            _ => 1,
        },
    );
    let reg = register(ty);
    let lanes = (unit.target.vector.bits / (8 * reg.bytes())) as u8;
    // Accumulators for all gates of a block, and registers left for the state's element and the activations.
    let width = ((unit.target.vector.registers - 4) / (2 * gates)).clamp(1, 4);
    let layer = Layer {
        kind,
        attrs: &unit.op.attrs,
        ty,
        reg,
        lanes,
        steps: xw.shape[0],
        batch: xw.shape[1],
        hidden: unit.op.attrs.size("hidden"),
        gates,
        width,
    };
    if layer.batch == 0 {
        return Ok(Lowered::default());
    }
    let mut lowered = Lowered::default();
    // Two states, and what a GRU keeps between its passes: the gate z and r∘h.
    let columns = layer.blocks() * layer.units();
    lowered.scratch.push(layer.batch * 4 * columns * reg.bytes());
    let packed = match unit.inputs[1].constant {
        Some(r) => {
            lowered.constants.push(layer.packed(r));
            Arg::Const(0)
        }
        None => {
            lowered.scratch.push(columns * gates * layer.hidden * reg.bytes());
            lowered.calls.push(layer.pack());
            Arg::Scratch(1)
        }
    };
    lowered.calls.push(layer.kernel(unit, packed));
    Ok(lowered)
}

impl Layer<'_> {
    /// Hidden units in a block.
    fn units(&self) -> usize {
        self.width * self.lanes as usize
    }

    fn blocks(&self) -> usize {
        self.hidden.div_ceil(self.units())
    }

    /// Recurrent weights in the order in which they are read: block, element of the state, gate, unit of the block.
    fn packed(&self, r: &Tensor) -> Vec<u8> {
        let cast = |to: Type| {
            let op = dnnc_ir::Op::new(Kind::Cast, [("to", to.into())]).expect("the row of `cast`");
            dnnc_ir::eval_op(&op, std::slice::from_ref(r)).expect("a cast of weights").remove(0)
        };
        let wide = if self.reg == Elem::F64 { cast(Type::F64) } else { cast(Type::F32) };
        let (size, units) = (self.reg.bytes(), self.units());
        let mut out = vec![0; self.blocks() * self.hidden * self.gates * units * size];
        for (place, to) in out.chunks_exact_mut(size).enumerate() {
            let (unit, rest) = (place % units, place / units);
            let (gate, rest) = (rest % self.gates, rest / self.gates);
            let (k, block) = (rest % self.hidden, rest / self.hidden);
            let j = block * units + unit;
            if j < self.hidden {
                let from = ((gate * self.hidden + j) * self.hidden + k) * size;
                to.copy_from_slice(&wide.bytes()[from..from + size]);
            }
        }
        out
    }

    /// The same order, made at run time.
    fn pack(&self) -> LoweredCall {
        let mut b = Builder::new("pack_recurrent", 2);
        let (from, to) = (b.param(0), b.param(1));
        let (size, units, hidden, gates) = (self.reg.bytes(), self.units(), self.hidden, self.gates);
        let scalar = Ty::scalar(self.reg);
        b.each(self.blocks(), |b, block| {
            b.each(hidden, |b, k| {
                b.each(gates, |b, gate| {
                    b.each(units, |b, unit| {
                        let j = b.mul_int(block, units as i64);
                        let j = b.add(j, unit);
                        let (end, zero) = (b.index(hidden), b.number(scalar, 0.0));
                        let inside = b.cmp(Cmp::Lt, j, end);
                        let v = b.branch(
                            inside,
                            |b| {
                                let row = b.mul_int(gate, hidden as i64);
                                let row = b.add(row, j);
                                let at = b.mul_int(row, hidden as i64);
                                let at = b.add(at, k);
                                let at = b.element(from, at, self.ty.bytes());
                                vec![load_element(b, self.ty, at, 0, 1, 1)]
                            },
                            |_| vec![zero],
                        )[0];
                        let at = b.mul_int(block, hidden as i64);
                        let at = b.add(at, k);
                        let at = b.mul_int(at, gates as i64);
                        let at = b.add(at, gate);
                        let at = b.mul_int(at, units as i64);
                        let at = b.add(at, unit);
                        let at = b.element(to, at, size);
                        b.store(v, at, 0);
                    });
                });
            });
        });
        LoweredCall { func: b.finish(), args: vec![Arg::Input(1), Arg::Scratch(1)], tasks: 1 }
    }

    fn pointers(&self, unit: &Unit, packed: Arg) -> Pointers {
        let mut p = Pointers::default();
        let args = &mut p.args;
        let mut push = |arg| {
            args.push(arg);
            args.len() - 1
        };
        p.xw = push(Arg::Input(0));
        p.r = push(packed);
        p.h0 = push(Arg::Input(2));
        let mut next = 3;
        if self.kind == Kind::Lstm {
            p.c0 = push(Arg::Input(3));
            next = 4;
        }
        let mut optional = |present: bool| {
            present.then(|| {
                next += 1;
                push(Arg::Input(next - 1))
            })
        };
        if self.kind == Kind::Gru {
            p.bias = optional(self.attrs.flag("has_bias"));
        }
        p.lens = optional(self.attrs.flag("has_lens"));
        if self.kind == Kind::Lstm {
            p.peepholes = optional(self.attrs.flag("has_peepholes"));
        }
        p.y = push(Arg::Output(0));
        p.h = push(Arg::Output(1));
        if self.kind == Kind::Lstm {
            p.c = push(Arg::Output(2));
        }
        p.scratch = push(Arg::Scratch(0));
        debug_assert_eq!(unit.inputs.len(), next);
        p
    }

    /// The kernel of one sequence.
    fn kernel(&self, unit: &Unit, packed: Arg) -> LoweredCall {
        let p = self.pointers(unit, packed);
        let mut builder = Builder::new(unit.op.kind().name(), p.args.len());
        let b = &mut builder;
        let (size, bytes) = (self.reg.bytes(), self.ty.bytes());
        let columns = self.blocks() * self.units();
        let task = b.task();
        let row = |b: &mut Builder, i: usize| {
            let base = b.param(i);
            b.element(base, task, self.hidden * bytes)
        };
        let (h0, h_out) = (row(b, p.h0), row(b, p.h));
        let scratch = b.param(p.scratch);
        let first = b.element(scratch, task, 4 * columns * size);
        let second = b.offset_int(first, (columns * size) as i64);
        // The states have zeros where a block is longer than the hidden units.
        let zero = b.number(Ty::scalar(self.reg), 0.0);
        b.each(4 * columns, |b, i| {
            let at = b.element(first, i, size);
            b.store(zero, at, 0);
        });
        self.move_units(b, h0, self.ty, first, None);
        let kept = b.offset_int(first, (2 * columns * size) as i64);
        if self.kind == Kind::Lstm {
            let c0 = row(b, p.c0);
            self.move_units(b, c0, self.ty, kept, None);
        }
        let len = match p.lens {
            None => b.index(self.steps),
            Some(lens) => {
                let at = b.param(lens);
                let at = b.element(at, task, 8);
                let len = b.load(Ty::I64, at, 0);
                let (none, all) = (b.index(0), b.index(self.steps));
                let low = b.cmp(Cmp::Lt, len, none);
                let high = b.cmp(Cmp::Gt, len, all);
                let bad = b.bin(crate::kir::Bin::Or, low, high);
                b.when(bad, |b| b.fail(abi::INDEX));
                len
            }
        };
        let zero_index = b.index(0);
        let states = b.for_range(zero_index, len, 1, &[first, second], |b, step, states| {
            let (before, after) = (states[0], states[1]);
            let at = if self.attrs.flag("reverse") {
                let last = b.add_int(len, -1);
                b.sub(last, step)
            } else {
                step
            };
            let at = b.mul_int(at, self.batch as i64);
            let at = b.add(at, task);
            let (xw, y) = (b.param(p.xw), b.param(p.y));
            let xw = b.element(xw, at, self.gates * self.hidden * bytes);
            let y = b.element(y, at, self.hidden * bytes);
            let now = Step { p: &p, xw, y, before, after, kept };
            self.step(b, &now);
            vec![after, before]
        });
        self.move_units(b, states[0], memory_of(self.reg), h_out, Some(self.ty));
        if self.kind == Kind::Lstm {
            let c = row(b, p.c);
            self.move_units(b, kept, memory_of(self.reg), c, Some(self.ty));
        }
        if p.lens.is_some() {
            let steps = b.index(self.steps);
            b.for_range(len, steps, 1, &[], |b, t, _| {
                let at = b.mul_int(t, self.batch as i64);
                let at = b.add(at, task);
                let y = b.param(p.y);
                let y = b.element(y, at, self.hidden * bytes);
                b.each(self.hidden, |b, j| {
                    let at = b.element(y, j, bytes);
                    store_element(b, self.ty, zero, at, 0, 1);
                });
                vec![]
            });
        }
        LoweredCall { func: builder.finish(), args: p.args, tasks: self.batch }
    }

    /// Copies the hidden units of a state, in register form where no type is given.
    fn move_units(&self, b: &mut Builder, from: Val, from_ty: Type, to: Val, to_ty: Option<Type>) {
        let to_bytes = to_ty.map_or(self.reg.bytes(), |t| t.bytes());
        b.each(self.hidden, |b, j| {
            let (s, d) = (b.element(from, j, from_ty.bytes()), b.element(to, j, to_bytes));
            let v = load_element(b, from_ty, s, 0, 1, 1);
            match to_ty {
                Some(ty) => store_element(b, ty, v, d, 0, 1),
                None => b.store(v, d, 0),
            }
        });
    }

    fn step(&self, b: &mut Builder, now: &Step) {
        match self.kind {
            Kind::Lstm => self.each_block(b, |l, b, at| l.lstm(b, now, at)),
            Kind::Rnn => self.each_block(b, |l, b, at| l.rnn(b, now, at)),
            _ if self.attrs.flag("linear_before_reset") => self.each_block(b, |l, b, at| l.gru(b, now, at)),
            _ => {
                // The new state needs r∘h of all units: first the gates, then the product with it.
                self.each_block(b, |l, b, at| l.gru_gates(b, now, at));
                self.each_block(b, |l, b, at| l.gru_new(b, now, at));
            }
        }
    }

    /// Blocks of hidden units: a loop over the full ones, and the last with as many as are left.
    fn each_block(&self, b: &mut Builder, body: impl Fn(&Self, &mut Builder, &Block)) {
        let (full, left) = (self.hidden / self.units(), self.hidden % self.units());
        if full > 0 {
            b.each(full, |b, i| body(self, b, &Block { number: i, units: self.units() }));
        }
        if left > 0 {
            let i = b.index(full);
            body(self, b, &Block { number: i, units: left });
        }
    }

    /// Sums of h·Rᵀ of these gates for a block: a vector for each gate and part of the block.
    fn product(&self, b: &mut Builder, now: &Step, at: &Block, state: Val, gates: &[usize]) -> Vec<Vec<Val>> {
        let ty = Ty::vector(self.reg, self.lanes);
        let (size, parts) = (self.reg.bytes(), at.parts(self.lanes));
        let zero = b.number(ty, 0.0);
        let row = self.gates * self.units() * size;
        let weights = b.param(now.p.r);
        let weights = b.element(weights, at.number, self.hidden * row);
        let mut init = vec![state, weights];
        init.resize(2 + gates.len() * parts, zero);
        let unroll = [4, 2, 1].into_iter().find(|u| self.hidden.is_multiple_of(*u)).expect("1 divides all");
        let sums = b.for_count(self.hidden / unroll, &init, |b, _, values| {
            let (h, w) = (values[0], values[1]);
            let mut sums = values[2..].to_vec();
            for u in 0..unroll {
                let x = b.load_splat(ty, h, (u * size) as i32);
                for (g, &gate) in gates.iter().enumerate() {
                    for part in 0..parts {
                        let disp = u * row + (gate * self.units() + part * self.lanes as usize) * size;
                        let r = b.load(ty, w, disp as i32);
                        sums[g * parts + part] = b.fma(x, r, sums[g * parts + part]);
                    }
                }
            }
            let mut next = vec![b.offset_int(h, (unroll * size) as i64), b.offset_int(w, (unroll * row) as i64)];
            next.extend(sums);
            next
        });
        sums[2..].chunks(parts).map(|c| c.to_vec()).collect()
    }

    /// Reads the units of a part of a block from a vector of hidden units (of gate `gate`) in memory.
    fn read(&self, b: &mut Builder, ty: Type, base: Val, gate: usize, at: &Block, part: usize) -> Val {
        let base = b.element(base, at.number, self.units() * ty.bytes());
        let disp = (gate * self.hidden + part * self.lanes as usize) * ty.bytes();
        load_element(b, ty, base, disp as i32, self.lanes, at.count(self.lanes, part))
    }

    fn write(&self, b: &mut Builder, ty: Type, v: Val, base: Val, at: &Block, part: usize) {
        let base = b.element(base, at.number, self.units() * ty.bytes());
        store_element(b, ty, v, base, (part * self.lanes as usize * ty.bytes()) as i32, at.count(self.lanes, part));
    }

    /// Leaves the new state of a part of a block for the next step and in the result.
    fn leave(&self, b: &mut Builder, now: &Step, at: &Block, part: usize, h: Val) {
        self.write(b, memory_of(self.reg), h, now.after, at, part);
        self.write(b, self.ty, h, now.y, at, part);
    }

    fn lstm(&self, b: &mut Builder, now: &Step, at: &Block) {
        let sums = self.product(b, now, at, now.before, &[0, 1, 2, 3]);
        for part in 0..at.parts(self.lanes) {
            let entering: Vec<Val> = (0..4)
                .map(|gate| {
                    let x = self.read(b, self.ty, now.xw, gate, at, part);
                    b.add(x, sums[gate][part])
                })
                .collect();
            let peek = |l: &Self, b: &mut Builder, gate: usize, which: usize, cell: Val| match now.p.peepholes {
                None => entering[gate],
                Some(p) => {
                    let base = b.param(p);
                    let p = l.read(b, l.ty, base, which, at, part);
                    b.fma(p, cell, entering[gate])
                }
            };
            let old = self.read(b, memory_of(self.reg), now.kept, 0, at, part);
            let i = peek(self, b, 0, 0, old);
            let i = self.gate(b, "f", i);
            let f = if self.attrs.flag("input_forget") {
                let one = math::number(b, i, 1.0);
                b.sub(one, i)
            } else {
                let f = peek(self, b, 2, 2, old);
                self.gate(b, "f", f)
            };
            let g = self.gate(b, "g", entering[3]);
            let new = b.mul(i, g);
            let cell = b.fma(f, old, new);
            self.write(b, memory_of(self.reg), cell, now.kept, at, part);
            let o = peek(self, b, 1, 1, cell);
            let o = self.gate(b, "f", o);
            let shown = self.activate(b, "act_h", ["alpha_h", "beta_h"], cell);
            let h = b.mul(o, shown);
            self.leave(b, now, at, part, h);
        }
    }

    fn rnn(&self, b: &mut Builder, now: &Step, at: &Block) {
        let sums = self.product(b, now, at, now.before, &[0]);
        for part in 0..at.parts(self.lanes) {
            let x = self.read(b, self.ty, now.xw, 0, at, part);
            let v = b.add(x, sums[0][part]);
            let v = self.clip(b, v);
            let h = self.activate(b, "act", ["alpha", "beta"], v);
            self.leave(b, now, at, part, h);
        }
    }

    /// h·Rᵀ of a gate and the bias added to it.
    fn biased(&self, b: &mut Builder, now: &Step, at: &Block, gate: usize, part: usize, sum: Val) -> Val {
        match now.p.bias {
            None => sum,
            Some(bias) => {
                let base = b.param(bias);
                let bias = self.read(b, self.ty, base, gate, at, part);
                b.add(sum, bias)
            }
        }
    }

    /// A gate z or r.
    fn gru_gate(&self, b: &mut Builder, now: &Step, at: &Block, gate: usize, part: usize, sum: Val) -> Val {
        let x = self.read(b, self.ty, now.xw, gate, at, part);
        let sum = self.biased(b, now, at, gate, part, sum);
        let v = b.add(x, sum);
        self.gate(b, "f", v)
    }

    /// The new state from z, what enters the third gate, and the old state: (1 − z)·n + z·h.
    fn gru_mix(&self, b: &mut Builder, now: &Step, at: &Block, part: usize, z: Val, from_state: Val) {
        let x = self.read(b, self.ty, now.xw, 2, at, part);
        let v = b.add(x, from_state);
        let n = self.gate(b, "g", v);
        let h = self.read(b, memory_of(self.reg), now.before, 0, at, part);
        let change = b.sub(h, n);
        let h = b.fma(z, change, n);
        self.leave(b, now, at, part, h);
    }

    fn gru(&self, b: &mut Builder, now: &Step, at: &Block) {
        let sums = self.product(b, now, at, now.before, &[0, 1, 2]);
        for part in 0..at.parts(self.lanes) {
            let z = self.gru_gate(b, now, at, 0, part, sums[0][part]);
            let r = self.gru_gate(b, now, at, 1, part, sums[1][part]);
            let sum = self.biased(b, now, at, 2, part, sums[2][part]);
            let from_state = b.mul(r, sum);
            self.gru_mix(b, now, at, part, z, from_state);
        }
    }

    fn gru_gates(&self, b: &mut Builder, now: &Step, at: &Block) {
        let sums = self.product(b, now, at, now.before, &[0, 1]);
        let columns = self.blocks() * self.units();
        let scaled = b.offset_int(now.kept, (columns * self.reg.bytes()) as i64);
        for part in 0..at.parts(self.lanes) {
            let z = self.gru_gate(b, now, at, 0, part, sums[0][part]);
            let r = self.gru_gate(b, now, at, 1, part, sums[1][part]);
            let h = self.read(b, memory_of(self.reg), now.before, 0, at, part);
            let rh = b.mul(r, h);
            self.write(b, memory_of(self.reg), z, now.kept, at, part);
            self.write(b, memory_of(self.reg), rh, scaled, at, part);
        }
    }

    fn gru_new(&self, b: &mut Builder, now: &Step, at: &Block) {
        let columns = self.blocks() * self.units();
        let scaled = b.offset_int(now.kept, (columns * self.reg.bytes()) as i64);
        let sums = self.product(b, now, at, scaled, &[2]);
        for part in 0..at.parts(self.lanes) {
            let z = self.read(b, memory_of(self.reg), now.kept, 0, at, part);
            let from_state = self.biased(b, now, at, 2, part, sums[0][part]);
            self.gru_mix(b, now, at, part, z, from_state);
        }
    }

    /// A gate: what enters it clipped, and the function `act_<name>`.
    fn gate(&self, b: &mut Builder, name: &str, v: Val) -> Val {
        let v = self.clip(b, v);
        match name {
            "f" => self.activate(b, "act_f", ["alpha_f", "beta_f"], v),
            _ => self.activate(b, "act_g", ["alpha_g", "beta_g"], v),
        }
    }

    fn clip(&self, b: &mut Builder, v: Val) -> Val {
        let bound = self.attrs.float("clip");
        if bound > 0.0 { math::clamp(b, v, -bound, bound) } else { v }
    }

    /// An activation with its parameters, as ONNX defines them.
    fn activate(&self, b: &mut Builder, name: &str, [alpha, beta]: [&str; 2], v: Val) -> Val {
        let (alpha, beta) = (self.attrs.float(alpha), self.attrs.float(beta));
        let constant = |b: &mut Builder, c: f64| math::number(b, v, c);
        match self.attrs.word(name) {
            "sigmoid" => math::sigmoid(b, v),
            "tanh" => math::tanh(b, v),
            "relu" => math::relu(b, v),
            "affine" => {
                let (alpha, beta) = (constant(b, alpha), constant(b, beta));
                b.fma(alpha, v, beta)
            }
            "leaky_relu" => {
                let (zero, alpha) = (constant(b, 0.0), constant(b, alpha));
                let (scaled, below) = (b.mul(alpha, v), b.cmp(Cmp::Lt, v, zero));
                b.select(below, scaled, v)
            }
            "thresholded_relu" => {
                let (zero, alpha) = (constant(b, 0.0), constant(b, alpha));
                let below = b.cmp(Cmp::Lt, v, alpha);
                b.select(below, zero, v)
            }
            "scaled_tanh" => {
                let (alpha, beta) = (constant(b, alpha), constant(b, beta));
                let v = b.mul(beta, v);
                let v = math::tanh(b, v);
                b.mul(alpha, v)
            }
            "hard_sigmoid" => {
                let (alpha, beta) = (constant(b, alpha), constant(b, beta));
                let v = b.fma(alpha, v, beta);
                math::clamp(b, v, 0.0, 1.0)
            }
            "elu" => {
                let (zero, alpha) = (constant(b, 0.0), constant(b, alpha));
                let grown = math::expm1(b, v);
                let (scaled, below) = (b.mul(alpha, grown), b.cmp(Cmp::Lt, v, zero));
                b.select(below, scaled, v)
            }
            "softsign" => {
                let one = constant(b, 1.0);
                let size = b.un(crate::kir::Un::Abs, v);
                let size = b.add(one, size);
                b.div(v, size)
            }
            _ => math::softplus(b, v),
        }
    }
}

/// What one step of a sequence reads and writes.
struct Step<'a> {
    p: &'a Pointers,
    /// Row of the inputs' product.
    xw: Val,
    /// Row of the result.
    y: Val,
    /// State before, and after.
    before: Val,
    after: Val,
    /// The cells of an LSTM; the gate z, then r∘h, between the passes of a GRU.
    kept: Val,
}

/// A block of hidden units: its number and how many of its units there are.
struct Block {
    number: Val,
    units: usize,
}

impl Block {
    fn parts(&self, lanes: u8) -> usize {
        self.units.div_ceil(lanes as usize)
    }

    /// Units in a part.
    fn count(&self, lanes: u8, part: usize) -> usize {
        (self.units - part * lanes as usize).min(lanes as usize)
    }
}

/// The element type whose memory form is the register form.
fn memory_of(reg: Elem) -> Type {
    if reg == Elem::F64 { Type::F64 } else { Type::F32 }
}
