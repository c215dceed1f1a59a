//! A model that runs: specialisations made on first use of a shape, and kept.

use crate::cache::{Cache, Found, Held};
use crate::pipeline::Options;
use crate::via::{Executor, Jitted, Via, executor_on};
use crate::{Error, tensors};
use dnnc_emit::jit::Arena;
use dnnc_frontend::{Cut, Dim, Port, Stage};
use dnnc_ir::{Tensor, Type};
use dnnc_runtime::constants::ConstantPool;
use std::path::Path;
use std::time::{Duration, Instant};

/// Reads a model and prepares to run it on this machine. Code is made on first use of a shape, or by [`Model::prepare`].
pub fn compile(path: impl AsRef<Path>, options: &Options) -> Result<Model, Error> {
    Model::load(path.as_ref(), options)
}

/// Bytes of a specialisation beside its code, constants and arena: its steps, its entry in the cache, pages that are not full. Resident memory of
/// 20 to 40 specialisations of five networks of the repository grew by 11 to 39 kB more than these three; it is counted as more so that a gibibyte
/// of tiny ones stays below the 65,530 mappings that Linux gives a process (each takes three).
const OVERHEAD: usize = 64 << 10;

/// A model and the code made of it so far. It can be shared between threads; runs of one specialisation take turns.
pub struct Model {
    source: dnnc_frontend::Model,
    options: Options,
    via: Via,
    /// Specialisations by the shapes of the inputs, and stages by the values that they wait for.
    cache: Cache<Prepared>,
    /// The constants of all specialisations.
    pool: ConstantPool,
}

/// The code of one stage.
struct Prepared {
    executor: Box<dyn Executor>,
    cut: Option<Cut>,
    /// Which results of the model the first outputs of the stage are.
    finished: Vec<usize>,
}

impl Model {
    /// Reads a model from a file.
    pub fn load(path: &Path, options: &Options) -> Result<Model, Error> {
        Ok(Model::new(dnnc_frontend::Model::load(path, &options.limits)?, options))
    }

    /// Reads a model from bytes; it can have no data in other files.
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Model, Error> {
        Ok(Model::new(dnnc_frontend::Model::from_bytes(bytes, None, &options.limits)?, options))
    }

    fn new(source: dnnc_frontend::Model, options: &Options) -> Model {
        let cache = Cache::new(options.cache_bytes);
        Model { source, options: options.clone(), via: Via::Jit, cache, pool: ConstantPool::default() }
    }

    /// The same model, run another way. Machine code in this process needs the target to be this machine.
    pub fn via(mut self, via: Via) -> Result<Model, Error> {
        self.via = via;
        self.cache = Cache::new(self.options.cache_bytes);
        Ok(self)
    }

    /// Names, types and sizes of the inputs.
    pub fn inputs(&self) -> &[Port] {
        self.source.inputs()
    }

    /// Names, types and sizes of the results.
    pub fn outputs(&self) -> &[Port] {
        self.source.outputs()
    }

    /// Makes the code for these shapes of the inputs (as far as sizes do not depend on data).
    pub fn prepare(&self, shapes: &[Vec<usize>]) -> Result<(), Error> {
        self.specialised(shapes).map(|_| ())
    }

    /// How many specialisations are kept at present, and their bytes: code, constants (equal ones once), arenas.
    pub fn held(&self) -> Held {
        let Held { count, bytes } = self.cache.held();
        Held { count, bytes: bytes + self.pool.bytes() }
    }

    /// Runs on tensors that fit the inputs, and gives the results.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.check(inputs)?;
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let mut stage = self.specialised(&shapes)?;
        let mut results: Vec<Option<Tensor>> = vec![None; self.outputs().len()];
        let mut fed: Vec<Tensor> = inputs.to_vec();
        loop {
            let made = stage.value.executor.run(&fed)?;
            for (&result, tensor) in stage.value.finished.iter().zip(&made) {
                results[result] = Some(tensor.clone());
            }
            let Some(cut) = &stage.value.cut else { break };
            let values: Vec<Tensor> = made[cut.needed()].to_vec();
            fed = made[cut.live()].to_vec();
            let key = values.iter().flat_map(key_of_value).collect();
            stage = self.cache.get(Some(&stage), key, || self.pool.bytes(), || self.prepare_stage(cut.resume(&values)?))?;
        }
        results.into_iter().map(|r| r.ok_or_else(|| Error::Internal("a result was never made".into()))).collect()
    }

    /// Code, memory and buffers for repeated runs on inputs of the shapes of `inputs`, which are the first values. The model as it was read
    /// is let go of where the code does not need it.
    pub fn into_session(self, inputs: &[Tensor]) -> Result<Session, Error> {
        self.check(inputs)?;
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let stage = self.source.specialise(&shapes)?;
        let inputs = inputs.to_vec();
        if stage.cut.is_some() || self.via != Via::Jit {
            self.prepare(&shapes)?;
            return Ok(Session { inputs, runs: Runs::Staged(self) });
        }
        let options = self.options;
        drop(self.source);
        let code = Jitted::new(stage.graph, &options, &ConstantPool::default())?;
        let results = code.jit.program().outputs.iter().map(|(_, t)| vec![0; t.bytes()]).collect();
        let arena = code.jit.arena();
        Ok(Session { inputs, runs: Runs::Fixed(Fixed { code, arena, results }) })
    }

    fn specialised(&self, shapes: &[Vec<usize>]) -> Result<Found<Prepared>, Error> {
        let key = shapes.iter().flat_map(|s| key_of_shape(s)).collect();
        self.cache.get(None, key, || self.pool.bytes(), || self.prepare_stage(self.source.specialise(shapes)?))
    }

    fn prepare_stage(&self, stage: Stage) -> Result<(Prepared, usize), Error> {
        let executor = executor_on(&self.pool, stage.graph, self.via, &self.options)?;
        let bytes = OVERHEAD + executor.bytes() + stage.cut.as_ref().map_or(0, Cut::bytes);
        Ok((Prepared { executor, finished: stage.finished, cut: stage.cut }, bytes))
    }

    /// Whether tensors fit the inputs.
    fn check(&self, inputs: &[Tensor]) -> Result<(), Error> {
        let ports = self.inputs();
        if inputs.len() != ports.len() {
            return Err(Error::Usage(format!("the model has {} inputs, {} are given", ports.len(), inputs.len())));
        }
        for (port, tensor) in ports.iter().zip(inputs) {
            let ty = tensor.ty();
            let fits = |(n, d): (&usize, &Dim)| !matches!(d, Dim::Known(k) if k != n);
            let shape_fits = port.dims.as_ref().is_none_or(|d| d.len() == ty.rank() && ty.shape.iter().zip(d).all(fits));
            if port.ty.is_some_and(|t| t != ty.ty) || !shape_fits {
                return Err(Error::Usage(format!("input `{}` is {ty}, the model takes {}", port.name, describe(port))));
            }
        }
        Ok(())
    }
}

/// A shape as bytes that differ for different shapes.
fn key_of_shape(shape: &[usize]) -> Vec<u8> {
    std::iter::once(shape.len()).chain(shape.iter().copied()).flat_map(usize::to_le_bytes).collect()
}

/// A tensor of known type as bytes that differ for different values.
fn key_of_value(tensor: &Tensor) -> Vec<u8> {
    [&key_of_shape(tensor.shape()), tensor.bytes()].concat()
}

/// Type and sizes of an input or result: `f32[batch,3,224,224]`.
pub fn describe(port: &Port) -> String {
    let ty = port.ty.map_or("?", |t| t.name());
    match &port.dims {
        None => format!("{ty}[…]"),
        Some(dims) => format!("{ty}[{}]", dims.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(",")),
    }
}

/// Repeated runs with the caller's buffers: nothing is allocated while running.
pub struct Session {
    inputs: Vec<Tensor>,
    runs: Runs,
}

enum Runs {
    /// A size depends on data, or the code is not in this process: every run goes through [`Model::run`].
    Staged(Model),
    Fixed(Fixed),
}

struct Fixed {
    code: Jitted,
    arena: Arena,
    results: Vec<Vec<u8>>,
}

/// The time of one step.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Operators it computes.
    pub label: String,
    /// Name of the node in the model.
    pub node: String,
    /// Median milliseconds.
    pub ms: f64,
    /// Multiply-accumulates, or scalar operations where there are none.
    pub work: u64,
    /// Bytes read and written at least once.
    pub traffic: u64,
    /// Tasks it is cut into.
    pub tasks: usize,
}

impl Session {
    /// One inference.
    pub fn run(&mut self) -> Result<(), Error> {
        let fixed = match &mut self.runs {
            Runs::Staged(model) => return model.run(&self.inputs).map(|_| ()),
            Runs::Fixed(fixed) => fixed,
        };
        // A few pointers are gathered here; the run itself allocates nothing.
        let inputs: Vec<&[u8]> = self.inputs.iter().map(|t| t.bytes()).collect();
        let mut results: Vec<&mut [u8]> = fixed.results.iter_mut().map(|r| r.as_mut_slice()).collect();
        fixed.code.jit.run(&inputs, &mut results, &mut fixed.arena).map_err(|s| Error::Run(s.to_string()))
    }

    /// The results of the last run.
    pub fn results(&self) -> Result<Vec<Tensor>, Error> {
        match &self.runs {
            Runs::Staged(model) => model.run(&self.inputs),
            Runs::Fixed(f) => Ok(f
                .code
                .jit
                .program()
                .outputs
                .iter()
                .zip(&f.results)
                .map(|((_, ty), bytes)| Tensor::from_bytes(ty.clone(), bytes).expect("results were allocated by their types"))
                .collect()),
        }
    }

    /// Bytes of the arena (0 when sizes depend on data).
    pub fn arena_bytes(&self) -> usize {
        match &self.runs {
            Runs::Staged(_) => 0,
            Runs::Fixed(f) => f.code.jit.program().arena_bytes,
        }
    }

    /// Medians of the time of each step over runs of `budget` in all.
    pub fn profile(&mut self, budget: Duration) -> Result<Vec<Layer>, Error> {
        let Runs::Fixed(fixed) = &mut self.runs else {
            return Err(Error::Usage("a size depends on data: there is no fixed list of steps to measure".into()));
        };
        let inputs: Vec<&[u8]> = self.inputs.iter().map(|t| t.bytes()).collect();
        let mut samples: Vec<Vec<f64>> = vec![];
        let begin = Instant::now();
        while samples.len() < 3 || begin.elapsed() < budget {
            let mut results: Vec<&mut [u8]> = fixed.results.iter_mut().map(|r| r.as_mut_slice()).collect();
            let times = fixed.code.jit.run_profiled(&inputs, &mut results, &mut fixed.arena).map_err(|s| Error::Run(s.to_string()))?;
            samples.push(times);
        }
        let steps = dnnc_kir::program::top_calls(&fixed.code.jit.program().steps);
        Ok(steps
            .into_iter()
            .enumerate()
            .map(|(i, (label, node, work, traffic, tasks))| {
                let mut column: Vec<f64> = samples.iter().map(|s| s[i]).collect();
                column.sort_by(f64::total_cmp);
                Layer { label, node, ms: column[column.len() / 2] * 1e3, work, traffic, tasks }
            })
            .collect())
    }
}

/// Made-up inputs of a model for these shapes: the same every time.
pub fn sample_inputs(ports: &[Port], shapes: &[Vec<usize>]) -> Vec<Tensor> {
    let ty = |p: &Port, s: &Vec<usize>| dnnc_ir::TensorType::new(p.ty.unwrap_or(Type::F32), s.clone());
    ports.iter().zip(shapes).enumerate().map(|(i, (p, s))| tensors::sample(&ty(p, s), i as u64 + 1)).collect()
}
