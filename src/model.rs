//! A model that runs: specialisations made on first use of a shape, and kept.

use crate::pipeline::Options;
use crate::via::{Executor, Jitted, Via, executor};
use crate::{Error, tensors};
use dnnc_codegen::jit::Arena;
use dnnc_frontend::{Cut, Dim, Port, Stage};
use dnnc_ir::{Tensor, Type};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Reads a model and prepares to run it on this machine. Code is made on first use of a shape, or by [`Model::prepare`].
pub fn compile(path: impl AsRef<Path>, options: &Options) -> Result<Model, Error> {
    Model::load(path.as_ref(), options)
}

/// Specialisations of one model (by shape, or by a size found in data) beyond which the oldest is dropped.
const MAX_CACHED: usize = 32;

/// A model and the code made of it so far. It can be shared between threads; runs of one specialisation take turns.
pub struct Model {
    source: dnnc_frontend::Model,
    options: Options,
    via: Via,
    cache: Cache<Vec<Vec<usize>>>,
}

/// The code of one stage, and of the stages that followed it so far.
struct Prepared {
    executor: Box<dyn Executor>,
    cut: Option<Cut>,
    /// Which results of the model the first outputs of the stage are.
    finished: Vec<usize>,
    next: Cache<Vec<Tensor>>,
}

/// A few specialisations by key, oldest first.
struct Cache<K>(Mutex<Vec<(K, Arc<Prepared>)>>);

impl<K: PartialEq + Clone> Cache<K> {
    fn new() -> Cache<K> {
        Cache(Mutex::new(vec![]))
    }

    fn get(&self, key: &K, make: impl FnOnce() -> Result<Prepared, Error>) -> Result<Arc<Prepared>, Error> {
        let mut entries = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, found)) = entries.iter().find(|(k, _)| k == key) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        if entries.len() >= MAX_CACHED {
            entries.remove(0);
        }
        entries.push((key.clone(), made.clone()));
        Ok(made)
    }
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
        Model { source, options: options.clone(), via: Via::Jit, cache: Cache::new() }
    }

    /// The same model, run another way. Machine code in this process needs the target to be this machine.
    pub fn via(mut self, via: Via) -> Result<Model, Error> {
        self.via = via;
        self.cache = Cache::new();
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

    /// Runs on tensors that fit the inputs, and gives the results.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.check(inputs)?;
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let mut stage = self.specialised(&shapes)?;
        let mut results: Vec<Option<Tensor>> = vec![None; self.outputs().len()];
        let mut fed: Vec<Tensor> = inputs.to_vec();
        loop {
            let made = stage.executor.run(&fed)?;
            for (&result, tensor) in stage.finished.iter().zip(&made) {
                results[result] = Some(tensor.clone());
            }
            let Some(cut) = &stage.cut else { break };
            let values: Vec<Tensor> = made[cut.needed()].to_vec();
            fed = made[cut.live()].to_vec();
            let next = stage.next.get(&values, || self.prepare_stage(cut.resume(&values)?))?;
            stage = next;
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
        let code = Jitted::new(stage.graph, &options)?;
        let results = code.jit.program().outputs.iter().map(|(_, t)| vec![0; t.bytes()]).collect();
        let arena = code.jit.arena();
        Ok(Session { inputs, runs: Runs::Fixed(Fixed { code, arena, results }) })
    }

    fn specialised(&self, shapes: &[Vec<usize>]) -> Result<Arc<Prepared>, Error> {
        self.cache.get(&shapes.to_vec(), || self.prepare_stage(self.source.specialise(shapes)?))
    }

    fn prepare_stage(&self, stage: Stage) -> Result<Prepared, Error> {
        let executor = executor(stage.graph, self.via, &self.options)?;
        Ok(Prepared { executor, finished: stage.finished, cut: stage.cut, next: Cache::new() })
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

/// Sizes for the inputs of a model: those of `dims` by symbol (or `input:axis`), 1 for a leading symbol that is not named (the batch). The names of
/// the symbols that were assumed come along; any other symbol is an error that lists all that are missing.
pub fn bind(ports: &[Port], dims: &BTreeMap<String, usize>) -> Result<(Vec<Vec<usize>>, Vec<String>), Error> {
    let (mut assumed, mut missing, mut used): (Vec<String>, Vec<String>, Vec<&str>) = (vec![], vec![], vec![]);
    let mut shapes = vec![];
    for port in ports {
        let mut shape = vec![];
        let Some(port_dims) = &port.dims else {
            return Err(Error::Usage(format!(
                "the model does not say how many axes input `{}` has; give it a tensor (`dnnc run`)",
                port.name
            )));
        };
        for (axis, dim) in port_dims.iter().enumerate() {
            let place = format!("{}:{axis}", port.name);
            let symbol = match dim {
                Dim::Known(n) => {
                    shape.push(*n);
                    continue;
                }
                Dim::Symbol(s) => s.clone(),
                Dim::Unknown => place.clone(),
            };
            let given = dims.get_key_value(&symbol).or_else(|| dims.get_key_value(&place));
            match given {
                Some((name, &n)) => {
                    used.push(name);
                    shape.push(n);
                }
                None if axis == 0 => {
                    if !assumed.contains(&symbol) {
                        assumed.push(symbol);
                    }
                    shape.push(1);
                }
                None => {
                    if !missing.contains(&symbol) {
                        missing.push(symbol);
                    }
                }
            }
        }
        shapes.push(shape);
    }
    if let Some(name) = dims.keys().find(|n| !used.contains(&n.as_str())) {
        let list: Vec<String> = ports.iter().map(|p| format!("`{}` ({})", p.name, describe(p))).collect();
        return Err(Error::Usage(format!("--dim {name}: no such dimension; the inputs are {}", list.join(", "))));
    }
    if !missing.is_empty() {
        let help: Vec<String> = missing.iter().map(|m| format!("--dim {m}=N")).collect();
        return Err(Error::Usage(format!("the size of {} is not given: say {}", missing.join(", "), help.join(" "))));
    }
    Ok((shapes, assumed))
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
        let steps = dnnc_codegen::program::top_calls(&fixed.code.jit.program().steps);
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
