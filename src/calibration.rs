//! Calibration: samples of the inputs of a model, and networks that run on them with compiled code.

use crate::{Dim, Error, Model, Options, Port, Tensor, TensorType, Type, describe};
use dnnc_compress::runner::{Runner, collect};
use dnnc_frontend::Draft;
use dnnc_ir::eval::eval_op;
use dnnc_ir::{Kind, Op};

/// Samples that run at once where the model leaves their number open; activations of so many are in memory.
const BATCH: usize = 16;

/// Samples of the inputs of a model, along the first dimension of each.
#[derive(Clone, Debug)]
pub struct Samples {
    inputs: Vec<(String, Tensor)>,
    count: usize,
    batch: Option<usize>,
}

impl Samples {
    /// Samples for inputs: a tensor each of samples × the shape of the input. Floats are divided by `scale`; values become the type of the input.
    ///
    /// # Errors
    ///
    /// A tensor does not fit its input, tensors have different numbers of samples, or a value is not finite.
    pub fn new(ports: &[Port], tensors: &[Tensor], scale: f32) -> Result<Samples, Error> {
        if ports.is_empty() || ports.len() != tensors.len() {
            return Err(Error::Usage(format!("the model has {} inputs; there are samples for {}", ports.len(), tensors.len())));
        }
        let mut samples = Samples { inputs: vec![], count: tensors[0].shape().first().copied().unwrap_or(0), batch: None };
        for (port, tensor) in ports.iter().zip(tensors) {
            let bad = |what: String| Error::Usage(format!("samples of input `{}`: {what}", port.name));
            match tensor.shape().first() {
                Some(&n) if n == samples.count && n > 0 => {}
                Some(&n) if n > 0 => return Err(bad(format!("there are {n}, and {} of input `{}`", samples.count, ports[0].name))),
                _ => return Err(bad("there are none".into())),
            }
            if let Some(n) = fixed_batch(port) {
                if samples.batch.is_some_and(|b| b != n) {
                    return Err(bad("inputs of the model disagree on the number of samples in a batch".into()));
                }
                samples.batch = Some(n);
            }
            samples.inputs.push((port.name.clone(), fitted(port, tensor, scale).map_err(bad)?));
        }
        Ok(samples)
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// The number of samples that an input fixes.
fn fixed_batch(port: &Port) -> Option<usize> {
    match port.dims.as_ref()?.first()? {
        Dim::Known(n) if *n > 0 => Some(*n),
        _ => None,
    }
}

/// Samples in the shape and type of an input.
fn fitted(port: &Port, tensor: &Tensor, scale: f32) -> Result<Tensor, String> {
    let (count, per) = (tensor.shape()[0], tensor.len() / tensor.shape()[0]);
    let dims = port.dims.as_ref().and_then(|d| d.get(1..)).unwrap_or(&[]);
    let fixed: Option<Vec<usize>> = dims.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None }).collect();
    let shape = match fixed {
        Some(shape) if shape.iter().product::<usize>() == per => shape,
        None if tensor.shape().len() == dims.len() + 1 => tensor.shape()[1..].to_vec(),
        _ => {
            let given = &tensor.shape()[1..];
            return Err(format!("a sample has the shape {given:?}; the input is {}", describe(port)));
        }
    };
    let shape: Vec<usize> = std::iter::once(count).chain(shape).collect();
    let ty = port.ty.unwrap_or(Type::F32);
    let tensor = if ty.is_float() {
        let values: Vec<f32> = tensor.to_f64s().into_iter().map(|v| v as f32 / scale).collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err("there are values that are not finite (the scale must not be 0)".into());
        }
        Tensor::new(shape, &values)
    } else {
        tensor.reshaped(shape)
    };
    if tensor.ty().ty == ty {
        return Ok(tensor);
    }
    let cast = Op::new(Kind::Cast, [("to", ty.into())]).expect("the row of `cast`");
    let cast = eval_op(&cast, &[tensor]).map_err(|e| e.to_string())?;
    cast.into_iter().next().ok_or_else(|| "a cast has no result".into())
}

/// Runs networks with the inputs of a model on samples.
pub struct SampleRunner<'a> {
    /// The samples.
    pub samples: Samples,
    /// How networks are compiled.
    pub options: Options,
    /// Is told what is being done.
    pub progress: Box<dyn FnMut(&str) + 'a>,
}

impl Runner for SampleRunner<'_> {
    fn run(&mut self, model: &[u8], each: &mut dyn FnMut(&[Tensor]) -> Result<(), String>) -> Result<(), String> {
        let model = Model::from_bytes(model, &self.options).map_err(|e| e.to_string())?;
        let Samples { inputs, count, batch } = &self.samples;
        let mut read = vec![];
        for port in model.inputs() {
            let found = inputs.iter().find(|(name, _)| *name == port.name);
            read.push(&found.ok_or_else(|| format!("there are no samples of input `{}`", port.name))?.1);
        }
        let at_once = batch.unwrap_or(BATCH.min(*count));
        for begin in (0..*count).step_by(at_once) {
            let wanted = at_once.min(count - begin);
            // The last batch may be short: a fixed batch is filled with the first samples, whose results are dropped.
            let given = batch.unwrap_or(wanted);
            let part: Vec<Tensor> = read.iter().map(|t| filled(t, begin, wanted, given)).collect();
            let results = model.run(&part).map_err(|e| e.to_string())?;
            let mut kept = vec![];
            for t in results {
                match t.shape().first() {
                    Some(n) if n % given == 0 => kept.push(rows(&t, 0, n / given * wanted)),
                    _ => return Err("a result has no dimension of samples in front".into()),
                }
            }
            each(&kept)?;
        }
        Ok(())
    }

    fn progress(&mut self, what: &str) {
        (self.progress)(what);
    }
}

/// Some of the elements along the first dimension.
fn rows(tensor: &Tensor, begin: usize, count: usize) -> Tensor {
    let shape = tensor.shape();
    let bytes = tensor.bytes().len() / shape[0].max(1);
    let ty = TensorType::new(tensor.ty().ty, std::iter::once(count).chain(shape[1..].iter().copied()).collect::<Vec<_>>());
    Tensor::from_bytes(ty, &tensor.bytes()[begin * bytes..(begin + count) * bytes]).expect("as many bytes as rows")
}

/// `wanted` rows from `begin` on, and the first row again until there are `given`.
fn filled(tensor: &Tensor, begin: usize, wanted: usize, given: usize) -> Tensor {
    let part = rows(tensor, begin, wanted);
    let mut bytes = part.bytes().to_vec();
    let first = rows(tensor, 0, 1);
    (wanted..given).for_each(|_| bytes.extend_from_slice(first.bytes()));
    let ty = TensorType::new(part.ty().ty, std::iter::once(given).chain(part.shape()[1..].iter().copied()).collect::<Vec<_>>());
    Tensor::from_bytes(ty, &bytes).expect("as many bytes as rows")
}

/// Samples and their classes.
pub struct Evaluation<'a> {
    /// The class of each sample.
    pub labels: Vec<f64>,
    /// Runs networks on the samples.
    pub runner: SampleRunner<'a>,
}

impl Evaluation<'_> {
    /// The fraction of samples whose largest value of the first output is that of their label; of equal values the first counts.
    ///
    /// # Errors
    ///
    /// The network cannot run, or its first output has not a row for each label.
    pub fn accuracy(&mut self, draft: &Draft) -> Result<f64, Error> {
        let results = collect(&mut self.runner, &draft.bytes()).map_err(Error::Usage)?;
        let labels = &self.labels;
        let result = results.first().filter(|t| t.shape().first() == Some(&labels.len()) && !labels.is_empty());
        let Some(result) = result else { return Err(Error::Usage(format!("there are {} labels, not one for each sample", labels.len()))) };
        let values = result.to_f64s();
        let largest = |row: &[f64]| (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]));
        let rows = values.chunks((values.len() / labels.len()).max(1));
        let right = rows.zip(labels).filter(|(row, label)| largest(row) == Some(**label as usize)).count();
        Ok(right as f64 / labels.len() as f64)
    }
}
