//! Graphs that were prepared to be run: what a [`Model`](crate::Model) asks of a backend, and the backend that it uses by default, machine code in
//! this process.

use crate::pipeline::{Options, program};
use crate::{Error, Tensor};
use dnnc_emit::jit::{Arena, Jit};
use dnnc_ir::Graph;
use dnnc_kir::program::Program;
use dnnc_runtime::constants::ConstantPool;
use std::sync::Mutex;

/// A graph that can be run.
pub trait Executor: Send + Sync {
    /// Runs on inputs of the graph's types.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error>;

    /// Bytes of memory that it holds, shared constants not counted.
    fn bytes(&self) -> usize;
}

/// Prepares a graph to be run; constants may be interned in the pool.
pub(crate) type Prepare = dyn Fn(&ConstantPool, Graph, &Options) -> Result<Box<dyn Executor>, Error> + Send + Sync;

/// Machine code in this process, with the memory of one run at a time.
pub(crate) struct Jitted {
    pub(crate) jit: Jit,
    arena: Mutex<Arena>,
}

impl Jitted {
    pub(crate) fn new(graph: Graph, options: &Options, pool: &ConstantPool) -> Result<Jitted, Error> {
        let jit = Jit::with_constants(program(graph, options)?, options.target, options.threads, pool).map_err(Error::Internal)?;
        let arena = Mutex::new(jit.arena());
        Ok(Jitted { jit, arena })
    }
}

impl Executor for Jitted {
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
        let mut results: Vec<Vec<u8>> = self.jit.program().outputs.iter().map(|(_, t)| vec![0; t.bytes()]).collect();
        let mut slices: Vec<&mut [u8]> = results.iter_mut().map(|r| r.as_mut_slice()).collect();
        let mut arena = self.arena.lock().unwrap_or_else(|e| e.into_inner());
        self.jit.run(&bytes, &mut slices, &mut arena).map_err(|s| Error::Run(s.to_string()))?;
        to_tensors(self.jit.program(), results)
    }

    fn bytes(&self) -> usize {
        self.jit.code_bytes() + self.arena.lock().unwrap_or_else(|e| e.into_inner()).bytes()
    }
}

/// The results of a program, from their bytes.
pub(crate) fn to_tensors(program: &Program, results: Vec<Vec<u8>>) -> Result<Vec<Tensor>, Error> {
    let tensor = |((name, ty), bytes): (&(String, dnnc_ir::TensorType), Vec<u8>)| {
        Tensor::from_bytes(ty.clone(), &bytes).ok_or_else(|| Error::Internal(format!("result `{name}` has {} bytes for {ty}", bytes.len())))
    };
    program.outputs.iter().zip(results).map(tensor).collect()
}
