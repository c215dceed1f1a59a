//! The contract between lowering and the kernel families: a [`Unit`] of work goes in, kernels come out as [`Lowered`].

use crate::expr::Epilogue;
use crate::tuner::Tuner;
use dnnc_ir::{Graph, Kind, Op, Tensor, TensorType, Value};
use dnnc_kir::Func;
use dnnc_kir::program::{Choice, Density};
use dnnc_targets::Target;
use std::sync::Arc;

/// An operator to be lowered, with everything known of it.
pub struct Unit<'a> {
    /// Operator and attributes.
    pub op: &'a Op,
    /// Its operands.
    pub inputs: Vec<Operand<'a>>,
    /// Types of its results, before the epilogue.
    pub results: Vec<TensorType>,
    /// An expression to compute on result 0 before it is stored (only when [`Family::epilogue`] said yes).
    pub epilogue: Option<&'a Epilogue>,
    /// Type of result 0 in memory: that of the epilogue where there is one.
    pub stored: TensorType,
    /// The machine.
    pub target: &'a Target,
    /// What the user asked for.
    pub options: &'a Options,
}

/// An operand of a unit.
#[derive(Clone)]
pub struct Operand<'a> {
    /// Type and shape.
    pub ty: TensorType,
    /// Its data when it is constant: a family may pack it and then need not read the operand itself.
    pub constant: Option<&'a Tensor>,
}

impl Operand<'_> {
    /// A value of a graph.
    pub fn of(graph: &Graph, value: Value) -> Operand<'_> {
        Operand { ty: graph.ty(value).clone(), constant: graph.const_of(value) }
    }
}

/// Options that change what kernels compute or how.
#[derive(Clone, Debug)]
pub struct Options {
    /// No algorithm that rounds differently from the obvious one by more than reassociation (no Winograd).
    pub precise: bool,
    /// Threads that steps will be spread over: how finely they are cut into tasks.
    pub threads: usize,
    /// Measures the algorithms of a unit where there are several; without it the prediction decides.
    pub tuner: Option<Arc<dyn Tuner>>,
    /// Whether zeros of constants may be left out: then 0·∞ is 0 there. [`Options::precise`] keeps them.
    pub sparse: bool,
    /// Bytes of all constants of the network, where known: few stay in a cache from one run to the next.
    pub weights: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { precise: false, threads: 1, tuner: None, sparse: true, weights: 0 }
    }
}

/// What a family makes of a unit.
#[derive(Default)]
pub struct Lowered {
    /// Kernel calls in order.
    pub calls: Vec<LoweredCall>,
    /// Data packed at compile time, referred to by [`Arg::Const`].
    pub constants: Vec<Vec<u8>>,
    /// Bytes of temporary buffers, referred to by [`Arg::Scratch`]; alive during this unit only.
    pub scratch: Vec<usize>,
    /// Which algorithm was taken, where there were several.
    pub choice: Option<Choice>,
}

impl Lowered {
    /// Notes in the choice that the zeros of a constant were considered.
    pub fn with_density(mut self, density: Option<Density>) -> Lowered {
        if let Some(choice) = &mut self.choice {
            choice.density = density.or(choice.density);
        }
        self
    }

    /// Appends the parts of another unit that reads these operands and leaves its result there; it has no epilogue operands.
    pub fn append(&mut self, part: Lowered, inputs: &[Arg], output: Arg) {
        let (constants, scratch) = (self.constants.len(), self.scratch.len());
        self.choice = self.choice.take().or(part.choice);
        self.constants.extend(part.constants);
        self.scratch.extend(part.scratch);
        for mut call in part.calls {
            for arg in &mut call.args {
                *arg = match *arg {
                    Arg::Input(i) => inputs[i],
                    Arg::Output(_) => output,
                    Arg::Const(i) => Arg::Const(constants + i),
                    Arg::Scratch(i) => Arg::Scratch(scratch + i),
                    Arg::Extra(_) => unreachable!("an appended part has no epilogue operands"),
                };
            }
            self.calls.push(call);
        }
    }
}

/// A kernel call of a unit.
pub struct LoweredCall {
    /// The kernel.
    pub func: Func,
    /// Its pointers.
    pub args: Vec<Arg>,
    /// Number of tasks.
    pub tasks: usize,
}

/// Where a pointer of a kernel of a unit points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arg {
    /// Operand of the operator.
    Input(usize),
    /// Operand of the epilogue (index into [`Epilogue::operands`]).
    Extra(usize),
    /// Result.
    Output(usize),
    /// Packed constant.
    Const(usize),
    /// Temporary buffer.
    Scratch(usize),
}

/// What the kernels of a unit are predicted to take on its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Nanoseconds of one thread; 0 where nothing is done at run time.
    pub ns: f64,
    /// Whether element-wise operators on result 0 can be computed before it is stored.
    pub epilogue: bool,
    /// Whether the result is where its operand is stored, or operands can be made where the result is: then no kernel runs.
    pub in_place: bool,
}

impl Forecast {
    /// Nothing is done at run time.
    pub const NOTHING: Forecast = Forecast { ns: 0.0, epilogue: false, in_place: true };

    /// A kernel that takes so many nanoseconds beside its call and takes no epilogue.
    pub fn kernel(target: &Target, ns: f64) -> Forecast {
        Forecast { ns: target.overheads.call + ns, epilogue: false, in_place: false }
    }

    /// The same for kernels that compute an epilogue on registers.
    pub fn with_epilogue(self) -> Forecast {
        Forecast { epilogue: true, ..self }
    }
}

impl Unit<'_> {
    /// Bytes of all operands and results.
    pub fn traffic(&self) -> usize {
        let inputs: usize = self.inputs.iter().map(|x| x.ty.bytes()).sum();
        inputs + self.results.iter().map(TensorType::bytes).sum::<usize>()
    }

    /// Multiply-adds, or scalar operations where there are none.
    pub fn work(&self) -> f64 {
        let inputs: Vec<TensorType> = self.inputs.iter().map(|x| x.ty.clone()).collect();
        (self.op.def.work)(&self.op.attrs, &inputs, &self.results) as f64
    }
}

/// A kernel family.
pub struct Family {
    /// Name, as in reports.
    pub name: &'static str,
    /// Operators it serves.
    pub kinds: &'static [Kind],
    /// Makes the kernels, or says in a sentence what it cannot do.
    pub lower: fn(&Unit) -> Result<Lowered, String>,
    /// Predicts what its kernels take, by sizes alone: a constant whose value is not known yet stands as an empty tensor.
    pub forecast: fn(&Unit) -> Forecast,
    /// Axes of result 0 over which the channels of an epilogue's operands are spread ([`crate::expr::Access::Channel`]), given operator and
    /// result types; none where it takes no epilogue.
    pub epilogue: fn(&Op, &[TensorType]) -> Option<Vec<usize>>,
}

/// [`Family::epilogue`] of matrices and rows.
pub fn last_axis(results: &[TensorType]) -> Option<Vec<usize>> {
    Some(results[0].rank().checked_sub(1).into_iter().collect())
}

/// [`Family::epilogue`] of images, which may be packed in blocks of channels.
pub fn channel_axes(op: &Op, results: &[TensorType]) -> Option<Vec<usize>> {
    let packed = op.def.attrs.iter().any(|a| a.0 == "block") && op.attrs.int("block") > 0;
    Some(if packed { vec![1, results[0].rank() - 1] } else { vec![1] })
}
