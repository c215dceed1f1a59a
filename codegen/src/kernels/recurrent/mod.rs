//! Recurrent layers: LSTM, GRU and the plain cell, one direction, over inputs whose product with their weights is taken.
//!
//! One kernel runs a whole sequence. For each step the state is multiplied with the recurrent weights a block of hidden units at a time,
//! all gates of the block together: the weights lie in the order in which they are read, and the gates of a block are in registers when
//! the activations need them. A few sequences of the batch are done at once, as many as there are registers for sums: they share each weight that
//! is read. A task is such a group.

#[cfg(test)]
mod tests;

use crate::expr::{load_element, register, store_element};
use crate::math;
use crate::unit::{Arg, Family, Forecast, Lowered, LoweredCall, Unit};
use dnnc_ir::{Attrs, Kind, Tensor, Type};
use dnnc_kir::{Builder, Cmp, Elem, Ty, Val};
use dnnc_runtime::abi;

/// The family.
pub const FAMILY: Family = Family { name: "recurrent", kinds: &[Kind::Lstm, Kind::Gru, Kind::Rnn], lower, forecast, epilogue: |_, _| None };

/// Multiply-adds that a core has under way at once: four cycles of two.
const IN_FLIGHT: usize = 8;

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
    /// Sequences done at once, but for the last ones of a batch.
    together: usize,
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

/// Each step waits for the one before: a share of the peak that grows with the lanes and sequences that a state fills.
fn forecast(unit: &Unit) -> Forecast {
    /// Measured on layers of 128.
    const EFFICIENCY: f64 = 0.45;
    let ns = unit.work() / (unit.target.peak_macs() / 1e9 * EFFICIENCY);
    Forecast::kernel(unit.target, ns.max(crate::schedule::stream_ns(unit.target, unit.traffic())))
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
    let sums = unit.target.vector.registers - 4;
    let width = (sums / (2 * gates)).clamp(1, 4);
    let batch = xw.shape[1];
    // Sequences of several lengths do not end together.
    let most = if unit.op.attrs.flag("has_lens") { 1 } else { batch.div_ceil(unit.options.threads.max(1)) };
    let together = (sums / (gates * width)).clamp(1, most.max(1));
    let layer = Layer {
        kind,
        attrs: &unit.op.attrs,
        ty,
        reg,
        lanes,
        steps: xw.shape[0],
        batch,
        hidden: unit.op.attrs.size("hidden"),
        gates,
        width,
        together,
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

    /// The kernel of a group of sequences.
    fn kernel(&self, unit: &Unit, packed: Arg) -> LoweredCall {
        let p = self.pointers(unit, packed);
        let mut builder = Builder::new(unit.op.kind().name(), p.args.len());
        let b = &mut builder;
        let task = b.task();
        let (full, rest) = (self.batch / self.together, self.batch % self.together);
        let first = b.mul_int(task, self.together as i64);
        if rest == 0 {
            self.sequences(b, &p, first, self.together);
        } else {
            let end = b.index(full);
            let whole = b.cmp(Cmp::Lt, task, end);
            let some = |b: &mut Builder, count: usize| {
                self.sequences(b, &p, first, count);
                vec![]
            };
            b.branch(whole, |b| some(b, self.together), |b| some(b, rest));
        }
        LoweredCall { func: builder.finish(), args: p.args, tasks: full + usize::from(rest > 0) }
    }

    /// Bytes of the memory of a sequence.
    fn scratch_bytes(&self) -> usize {
        4 * self.blocks() * self.units() * self.reg.bytes()
    }

    /// `count` sequences of the batch from number `sequence`.
    fn sequences(&self, b: &mut Builder, p: &Pointers, sequence: Val, count: usize) {
        let (size, bytes) = (self.reg.bytes(), self.ty.bytes());
        let columns = self.blocks() * self.units();
        let scratch = b.param(p.scratch);
        let first = b.element(scratch, sequence, self.scratch_bytes());
        let second = b.offset_int(first, (columns * size) as i64);
        let kept = b.offset_int(first, (2 * columns * size) as i64);
        // The states have zeros where a block is longer than the hidden units.
        let zero = b.number(Ty::scalar(self.reg), 0.0);
        b.each(4 * columns * count, |b, i| {
            let at = b.element(first, i, size);
            b.store(zero, at, 0);
        });
        // Of a sequence of this group, its units in memory and in an operand.
        let each = |b: &mut Builder, param: usize, state: Val, body: &dyn Fn(&mut Builder, Val, Val)| {
            for i in 0..count {
                let base = b.param(param);
                let number = b.add_int(sequence, i as i64);
                let operand = b.element(base, number, self.hidden * bytes);
                let state = b.offset_int(state, (i * self.scratch_bytes()) as i64);
                body(b, operand, state);
            }
        };
        let begin = |b: &mut Builder, from: Val, to: Val| self.move_units(b, from, self.ty, to, None);
        let end = |b: &mut Builder, to: Val, from: Val| self.move_units(b, from, memory_of(self.reg), to, Some(self.ty));
        each(b, p.h0, first, &begin);
        if self.kind == Kind::Lstm {
            each(b, p.c0, kept, &begin);
        }
        let len = match p.lens {
            None => b.index(self.steps),
            Some(lens) => {
                let at = b.param(lens);
                let at = b.element(at, sequence, 8);
                let len = b.load(Ty::I64, at, 0);
                let (none, all) = (b.index(0), b.index(self.steps));
                let low = b.cmp(Cmp::Lt, len, none);
                let high = b.cmp(Cmp::Gt, len, all);
                let bad = b.bin(dnnc_kir::Bin::Or, low, high);
                b.when(bad, |b| b.fail(abi::INDEX));
                len
            }
        };
        let row = |b: &mut Builder, step: Val, param: usize, units: usize| {
            let at = b.mul_int(step, self.batch as i64);
            let at = b.add(at, sequence);
            let base = b.param(param);
            b.element(base, at, units * bytes)
        };
        let zero_index = b.index(0);
        let states = b.for_range(zero_index, len, 1, &[first, second], |b, step, states| {
            let at = if self.attrs.flag("reverse") {
                let last = b.add_int(len, -1);
                b.sub(last, step)
            } else {
                step
            };
            let xw = row(b, at, p.xw, self.gates * self.hidden);
            let y = row(b, at, p.y, self.hidden);
            let all: Vec<Step> = (0..count)
                .map(|i| {
                    let [xw, y] = [(xw, self.gates), (y, 1)].map(|(at, n)| b.offset_int(at, (i * n * self.hidden * bytes) as i64));
                    let [before, after, kept] = [states[0], states[1], kept].map(|at| b.offset_int(at, (i * self.scratch_bytes()) as i64));
                    Step { p, xw, y, before, after, kept }
                })
                .collect();
            self.step(b, &all);
            vec![states[1], states[0]]
        });
        each(b, p.h, states[0], &end);
        if self.kind == Kind::Lstm {
            each(b, p.c, kept, &end);
        }
        if p.lens.is_some() {
            let steps = b.index(self.steps);
            b.for_range(len, steps, 1, &[], |b, t, _| {
                let y = row(b, t, p.y, self.hidden);
                b.each(self.hidden, |b, j| {
                    let at = b.element(y, j, bytes);
                    store_element(b, self.ty, zero, at, 0, 1);
                });
                vec![]
            });
        }
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

    fn step(&self, b: &mut Builder, all: &[Step]) {
        let state = all[0].before;
        match self.kind {
            Kind::Lstm => self.cells(b, all, state, &[0, 1, 2, 3], Self::lstm),
            Kind::Rnn => self.cells(b, all, state, &[0], Self::rnn),
            _ if self.attrs.flag("linear_before_reset") => self.cells(b, all, state, &[0, 1, 2], Self::gru),
            _ => {
                // The new state needs r∘h of all units: first the gates, then the product with it.
                self.cells(b, all, state, &[0, 1], Self::gru_gates);
                let scaled = self.scaled(b, &all[0]);
                self.cells(b, all, scaled, &[2], Self::gru_new);
            }
        }
    }

    /// Computes, block by block, the products of these gates and with them the cells of all sequences.
    fn cells(
        &self,
        b: &mut Builder,
        all: &[Step],
        state: Val,
        gates: &[usize],
        cell: impl Fn(&Self, &mut Builder, &Step, &Block, &[Vec<Val>]),
    ) {
        self.each_block(b, |l, b, at| {
            let sums = l.product(b, all[0].p, at, state, all.len(), gates);
            all.iter().zip(&sums).for_each(|(now, sums)| cell(l, b, now, at, sums));
        });
    }

    /// Where r∘h of a sequence is kept.
    fn scaled(&self, b: &mut Builder, now: &Step) -> Val {
        b.offset_int(now.kept, (self.blocks() * self.units() * self.reg.bytes()) as i64)
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

    /// Sums of h·Rᵀ of these gates for a block, of `count` sequences whose states lie behind `state`: for each a vector for each gate and part of
    /// the block.
    fn product(&self, b: &mut Builder, p: &Pointers, at: &Block, state: Val, count: usize, gates: &[usize]) -> Vec<Vec<Vec<Val>>> {
        let ty = Ty::vector(self.reg, self.lanes);
        let (size, parts) = (self.reg.bytes(), at.parts(self.lanes));
        let zero = b.number(ty, 0.0);
        let row = self.gates * self.units() * size;
        let weights = b.param(p.r);
        let weights = b.element(weights, at.number, self.hidden * row);
        let unroll = [4, 2, 1].into_iter().find(|u| self.hidden.is_multiple_of(*u)).expect("1 divides all");
        // Few sums would wait for themselves: then those of odd elements are others.
        let each = gates.len() * parts;
        let chains = if unroll > 1 && 2 * count * each <= IN_FLIGHT { 2 } else { 1 };
        let mut init = vec![state, weights];
        init.resize(2 + chains * count * each, zero);
        let sums = b.for_count(self.hidden / unroll, &init, |b, _, values| {
            let (h, w) = (values[0], values[1]);
            let mut sums = values[2..].to_vec();
            for u in 0..unroll {
                let x: Vec<Val> = (0..count).map(|i| b.load_splat(ty, h, (i * self.scratch_bytes() + u * size) as i32)).collect();
                for (g, &gate) in gates.iter().enumerate() {
                    for part in 0..parts {
                        let disp = u * row + (gate * self.units() + part * self.lanes as usize) * size;
                        let r = b.load(ty, w, disp as i32);
                        for (i, &x) in x.iter().enumerate() {
                            let sum = &mut sums[(u % chains * count + i) * each + g * parts + part];
                            *sum = b.fma(x, r, *sum);
                        }
                    }
                }
            }
            let mut next = vec![b.offset_int(h, (unroll * size) as i64), b.offset_int(w, (unroll * row) as i64)];
            next.extend(sums);
            next
        });
        let (mut sums, others) = (sums[2..2 + count * each].to_vec(), &sums[2 + count * each..]);
        sums.iter_mut().zip(others).for_each(|(sum, &other)| *sum = b.add(*sum, other));
        sums.chunks(each).map(|of| of.chunks(parts).map(<[Val]>::to_vec).collect()).collect()
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

    fn lstm(&self, b: &mut Builder, now: &Step, at: &Block, sums: &[Vec<Val>]) {
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

    fn rnn(&self, b: &mut Builder, now: &Step, at: &Block, sums: &[Vec<Val>]) {
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

    fn gru(&self, b: &mut Builder, now: &Step, at: &Block, sums: &[Vec<Val>]) {
        for part in 0..at.parts(self.lanes) {
            let z = self.gru_gate(b, now, at, 0, part, sums[0][part]);
            let r = self.gru_gate(b, now, at, 1, part, sums[1][part]);
            let sum = self.biased(b, now, at, 2, part, sums[2][part]);
            let from_state = b.mul(r, sum);
            self.gru_mix(b, now, at, part, z, from_state);
        }
    }

    fn gru_gates(&self, b: &mut Builder, now: &Step, at: &Block, sums: &[Vec<Val>]) {
        let scaled = self.scaled(b, now);
        for part in 0..at.parts(self.lanes) {
            let z = self.gru_gate(b, now, at, 0, part, sums[0][part]);
            let r = self.gru_gate(b, now, at, 1, part, sums[1][part]);
            let h = self.read(b, memory_of(self.reg), now.before, 0, at, part);
            let rh = b.mul(r, h);
            self.write(b, memory_of(self.reg), z, now.kept, at, part);
            self.write(b, memory_of(self.reg), rh, scaled, at, part);
        }
    }

    fn gru_new(&self, b: &mut Builder, now: &Step, at: &Block, sums: &[Vec<Val>]) {
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
                let size = b.un(dnnc_kir::Un::Abs, v);
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
