//! Running networks on samples.

use dnnc_ir::{Tensor, TensorType};

/// Runs networks on samples; the program does it with compiled code.
pub trait Runner {
    /// Runs a model (the bytes of an ONNX file) on all samples and gives `each` the outputs of a batch, samples in front, in order. Errors are sentences.
    fn run(&mut self, model: &[u8], each: &mut dyn FnMut(&[Tensor]) -> Result<(), String>) -> Result<(), String>;
    /// Is told what is being done.
    fn progress(&mut self, what: &str);
}

/// The outputs of a model on all samples, joined along the first dimension. An error is a sentence.
pub fn collect(runner: &mut dyn Runner, model: &[u8]) -> Result<Vec<Tensor>, String> {
    let mut joined: Vec<(TensorType, Vec<u8>)> = vec![];
    runner.run(model, &mut |outputs| {
        if joined.is_empty() {
            joined = outputs.iter().map(|t| (t.ty().clone(), t.bytes().to_vec())).collect();
            return Ok(());
        }
        for ((ty, bytes), t) in joined.iter_mut().zip(outputs) {
            if ty.shape[1..] != t.shape()[1..] {
                return Err("results of samples differ in shape".into());
            }
            ty.shape[0] += t.shape()[0];
            bytes.extend_from_slice(t.bytes());
        }
        Ok(())
    })?;
    joined.into_iter().map(|(ty, b)| Tensor::from_bytes(ty, &b).ok_or_else(|| "a result is cut".into())).collect()
}
