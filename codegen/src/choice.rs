//! Several ways to compute one unit, and which of them is taken: that of least predicted time, or what a tuner has measured.

use crate::tuner::Trial;
use crate::unit::{Arg, Lowered, Unit};
use dnnc_ir::TensorType;
use dnnc_kir::program::{ALIGN, Call, Choice, Loc, Program, Step};
use std::hash::Hasher;
use twox_hash::XxHash64;

/// A way to compute a unit.
pub struct Algorithm<'a> {
    /// Its standard name, as in reports: `direct`, `winograd F(4,3)`, `sparse 8x1`.
    pub name: String,
    /// Predicted time on the unit's target with one thread, in nanoseconds.
    pub ns: f64,
    /// How many times its predicted time counts: what memory and error are worth, and how sure the prediction is.
    handicap: f64,
    /// Makes its kernels.
    pub lower: Box<dyn Fn() -> Result<Lowered, String> + 'a>,
}

impl<'a> Algorithm<'a> {
    /// An algorithm of that name and predicted time.
    pub fn new(name: impl Into<String>, ns: f64, lower: impl Fn() -> Result<Lowered, String> + 'a) -> Algorithm<'a> {
        Algorithm { name: name.into(), ns, handicap: 1.0, lower: Box::new(lower) }
    }

    /// The same, of which the predicted time counts so many times.
    pub fn handicapped(self, handicap: f64) -> Algorithm<'a> {
        Algorithm { handicap, ..self }
    }

    fn weighed(&self) -> f64 {
        self.ns * self.handicap
    }
}

/// Times below this many times the least prediction are worth measuring.
const WORTH_TRYING: f64 = 3.0;

/// The predicted time of the algorithm that is chosen where none is measured.
pub fn predicted_ns(algorithms: &[Algorithm]) -> f64 {
    algorithms.iter().min_by(|a, b| a.weighed().total_cmp(&b.weighed())).map_or(f64::INFINITY, |a| a.ns)
}

/// Takes one of several algorithms; of equals, the first.
pub fn choose(unit: &Unit, mut algorithms: Vec<Algorithm>) -> Result<Lowered, String> {
    let least = |times: &[f64]| (0..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]));
    let mut times: Vec<f64> = algorithms.iter().map(Algorithm::weighed).collect();
    let mut measured = false;
    if let (Some(tuner), 2..) = (&unit.options.tuner, algorithms.len()) {
        let bound = WORTH_TRYING * times.iter().copied().fold(f64::INFINITY, f64::min);
        algorithms.retain(|a| a.weighed() <= bound);
        let names: Vec<&str> = algorithms.iter().map(|a| a.name.as_str()).collect();
        let mut program = |i: usize| Ok(alone(unit, (algorithms[i].lower)()?));
        let (key, target, threads) = (key(unit), unit.target, unit.options.threads);
        times = tuner.times(&mut Trial { key: &key, names: &names, program: &mut program, target, threads })?;
        measured = true;
    }
    let best = least(&times).ok_or("there is no way to compute this")?;
    let mut lowered = (algorithms[best].lower)()?;
    let considered = algorithms.iter().zip(&times).map(|(a, &ns)| (a.name.clone(), if measured { ns } else { a.ns })).collect();
    lowered.choice = Some(Choice { name: algorithms[best].name.clone(), considered, measured, density: None });
    Ok(lowered)
}

/// What a unit's time depends on: operator, sizes, epilogue, machine, threads, and where its constants are zero.
fn key(unit: &Unit) -> String {
    // The key is kept in a file: its hash must be the same for every version of Rust, which that of the standard library is not.
    let mut zeros = XxHash64::with_seed(0);
    for constant in unit.inputs.iter().filter_map(|x| x.constant) {
        let width = constant.ty().ty.bytes().max(1);
        constant.bytes().chunks(width).for_each(|element| zeros.write_u8(u8::from(element.iter().all(|&b| b == 0))));
    }
    let types: Vec<String> = unit.inputs.iter().map(|x| format!("{}{}", x.ty, if x.constant.is_some() { "=" } else { "" })).collect();
    let epilogue = unit.epilogue.map_or(String::new(), |e| format!(" then {:?}", e.expr));
    let (target, options) = (unit.target, unit.options);
    format!(
        "{} {:?} {} -> {}{epilogue}; zeros {:016x}; {} {}:{}:{} {} threads",
        env!("CARGO_PKG_VERSION"),
        unit.op,
        types.join(" "),
        unit.stored,
        zeros.finish(),
        target.name,
        target.l1d,
        target.l2,
        target.mhz,
        options.threads
    )
}

/// A unit as a program of its own: its operands that are not packed are inputs, then come those of its epilogue.
pub fn alone(unit: &Unit, lowered: Lowered) -> Program {
    let mut arena = 0;
    let scratch: Vec<usize> = lowered
        .scratch
        .iter()
        .map(|bytes| {
            arena += bytes.next_multiple_of(ALIGN);
            arena - bytes.next_multiple_of(ALIGN)
        })
        .collect();
    let extras = unit.epilogue.map_or(&[][..], |e| &e.operands);
    let place = |arg: &Arg| match *arg {
        Arg::Input(i) => Loc::Input(i, 0),
        Arg::Extra(i) => Loc::Input(unit.inputs.len() + i, 0),
        Arg::Output(i) => Loc::Output(i, 0),
        Arg::Const(i) => Loc::Const(i, 0),
        Arg::Scratch(i) => Loc::Arena(scratch[i]),
    };
    let (mut kernels, mut steps) = (vec![], vec![]);
    for call in lowered.calls {
        let args = call.args.iter().map(place).collect();
        let kernel = kernels.len();
        kernels.push(call.func);
        steps.push(Step::Call(Call { kernel, args, tasks: call.tasks, ..Call::default() }));
    }
    let mut outputs = unit.results.clone();
    if let Some(first) = outputs.first_mut() {
        *first = unit.stored.clone();
    }
    let unnamed = |ty| (String::new(), ty);
    Program {
        name: "unit".into(),
        kernels,
        constants: lowered.constants,
        steps,
        // An operand of an epilogue has at most as many elements as the result.
        inputs: unit
            .inputs
            .iter()
            .map(|x| x.ty.clone())
            .chain(extras.iter().map(|x| TensorType::new(x.ty, [unit.stored.len()])))
            .map(unnamed)
            .collect(),
        outputs: outputs.into_iter().map(unnamed).collect(),
        arena_bytes: arena,
    }
}
