//! A model that runs: a specialisation is compiled on the first use of a shape, and cached.

use crate::cache::{Cache, CacheHandle, CacheStats};
use crate::executor::{Executor, Jitted, Prepare};
use crate::pipeline::Options;
use crate::shapes::describe;
use crate::{Error, samples};
use dnnc_emit::jit::Arena;
use dnnc_frontend::{Cut, Dim, Port, Stage};
use dnnc_ir::{Tensor, Type};
use dnnc_kir::program::Step;
use dnnc_runtime::constants::ConstantPool;
use std::path::Path;
use std::time::{Duration, Instant};

/// Reads a model to run it on this machine. Code is compiled on the first use of a shape, or by [`Model::prepare`].
pub fn compile(path: impl AsRef<Path>, options: &Options) -> Result<Model, Error> {
    Model::load(path.as_ref(), options)
}

/// Bytes counted for a specialisation beside its code, constants and arena: its steps, its entry in the cache, pages that are partly used. Resident
/// memory of 20 to 40 specialisations of five networks of the repository grew by 11 to 39 kB more than these three; it is counted as more so that a
/// gibibyte of tiny ones stays below the 65,530 mappings that Linux gives a process (each takes three).
const ENTRY_OVERHEAD: usize = 64 << 10;

/// A model and the code compiled so far. It can be shared between threads; runs of one specialisation take turns.
pub struct Model {
    source: dnnc_frontend::Model,
    options: Options,
    /// Another backend than machine code in this process.
    backend: Option<Box<Prepare>>,
    /// Specialisations by the shapes of the inputs, and later stages by the values that they depend on.
    cache: Cache<Prepared>,
    /// The constants of all specialisations.
    pool: ConstantPool,
}

/// The code of one stage.
struct Prepared {
    executor: Box<dyn Executor>,
    cut: Option<Cut>,
    /// The results of the model that are the first outputs of the stage.
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
        Model { source, options: options.clone(), backend: None, cache, pool: ConstantPool::default() }
    }

    /// The same model on another backend.
    #[cfg(feature = "dev")]
    pub(crate) fn on(mut self, backend: Option<Box<Prepare>>) -> Model {
        self.backend = backend;
        self.cache = Cache::new(self.options.cache_bytes);
        self
    }

    /// Names, types and dimensions of the inputs.
    pub fn inputs(&self) -> &[Port] {
        self.source.inputs()
    }

    /// Names, types and dimensions of the results.
    pub fn outputs(&self) -> &[Port] {
        self.source.outputs()
    }

    /// Compiles for these shapes of the inputs, up to the first shape that depends on data.
    pub fn prepare(&self, shapes: &[Vec<usize>]) -> Result<(), Error> {
        self.specialised(shapes).map(|_| ())
    }

    /// Number of the specialisations in the cache, and their bytes: code, constants (equal ones once), arenas.
    pub fn cache_stats(&self) -> CacheStats {
        let CacheStats { count, bytes } = self.cache.stats();
        CacheStats { count, bytes: bytes + self.pool.bytes() }
    }

    /// Runs on tensors of the inputs' types, and gives the results.
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
    /// is dropped where the code does not need it.
    pub fn into_session(self, inputs: &[Tensor]) -> Result<Session, Error> {
        self.check(inputs)?;
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let stage = self.source.specialise(&shapes)?;
        let inputs = inputs.to_vec();
        if stage.cut.is_some() || self.backend.is_some() {
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

    fn specialised(&self, shapes: &[Vec<usize>]) -> Result<CacheHandle<Prepared>, Error> {
        let key = shapes.iter().flat_map(|s| key_of_shape(s)).collect();
        self.cache.get(None, key, || self.pool.bytes(), || self.prepare_stage(self.source.specialise(shapes)?))
    }

    fn prepare_stage(&self, stage: Stage) -> Result<(Prepared, usize), Error> {
        let executor: Box<dyn Executor> = match &self.backend {
            Some(prepare) => prepare(&self.pool, stage.graph, &self.options)?,
            None => Box::new(Jitted::new(stage.graph, &self.options, &self.pool)?),
        };
        let bytes = ENTRY_OVERHEAD + executor.bytes() + stage.cut.as_ref().map_or(0, Cut::bytes);
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

/// Repeated runs with the caller's buffers: nothing is allocated while running.
pub struct Session {
    inputs: Vec<Tensor>,
    runs: Runs,
}

#[allow(clippy::large_enum_variant)] // one a session
enum Runs {
    /// A shape depends on data, or the backend is another: every run goes through [`Model::run`].
    Staged(Model),
    Fixed(Fixed),
}

struct Fixed {
    code: Jitted,
    arena: Arena,
    results: Vec<Vec<u8>>,
}

/// The measured time of one step of a program.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// Operators that it computes.
    pub label: String,
    /// Name of the node in the model.
    pub node: String,
    /// The algorithm, where there were several.
    pub algorithm: Option<String>,
    /// Median milliseconds.
    pub ms: f64,
    /// Milliseconds on one thread as the compiler predicted them.
    pub predicted_ms: f64,
    /// Multiply-accumulates, or scalar operations where there are none.
    pub work: u64,
    /// Bytes read and written at least once.
    pub traffic: u64,
    /// Tasks it is partitioned into.
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
    pub fn profile(&mut self, budget: Duration) -> Result<Vec<StepTime>, Error> {
        let Runs::Fixed(fixed) = &mut self.runs else {
            return Err(Error::Usage("a shape depends on data: there is no fixed list of steps to measure".into()));
        };
        let inputs: Vec<&[u8]> = self.inputs.iter().map(|t| t.bytes()).collect();
        let mut samples: Vec<Vec<f64>> = vec![];
        let begin = Instant::now();
        while samples.len() < 3 || begin.elapsed() < budget {
            let mut results: Vec<&mut [u8]> = fixed.results.iter_mut().map(|r| r.as_mut_slice()).collect();
            let times = fixed.code.jit.run_profiled(&inputs, &mut results, &mut fixed.arena).map_err(|s| Error::Run(s.to_string()))?;
            samples.push(times);
        }
        let steps = &fixed.code.jit.program().steps;
        let time = |(i, (label, node, work, traffic, tasks))| {
            let mut column: Vec<f64> = samples.iter().map(|s| s[i]).collect();
            column.sort_by(f64::total_cmp);
            let algorithm = if let Step::Call(call) = &steps[i] { call.choice.as_ref().map(|c| c.name.clone()) } else { None };
            let (ms, predicted_ms) = (column[column.len() / 2] * 1e3, predicted_ns(&steps[i]) / 1e6);
            StepTime { label, node, algorithm, ms, predicted_ms, work, traffic, tasks }
        };
        Ok(dnnc_kir::program::top_calls(steps).into_iter().enumerate().map(time).collect())
    }
}

/// The predicted nanoseconds of a step on one thread: of the longer branch of an `If`, of all iterations of a `Loop`.
fn predicted_ns(step: &Step) -> f64 {
    let sum = |steps: &[Step]| steps.iter().map(predicted_ns).sum::<f64>();
    match step {
        Step::Call(call) => call.ns,
        Step::If { then, otherwise, .. } => sum(then).max(sum(otherwise)),
        Step::Loop { max_trip, body, .. } => sum(body) * *max_trip as f64,
    }
}

/// Made-up inputs of a model for these shapes: the same every time.
pub fn sample_inputs(ports: &[Port], shapes: &[Vec<usize>]) -> Vec<Tensor> {
    let ty = |p: &Port, s: &Vec<usize>| dnnc_ir::TensorType::new(p.ty.unwrap_or(Type::F32), s.clone());
    ports.iter().zip(shapes).enumerate().map(|(i, (p, s))| samples::sample(&ty(p, s), i as u64 + 1)).collect()
}
