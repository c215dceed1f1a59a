//! Machine code in this process: the door through which it is called.

use crate::emitter;
use crate::entry::{self, Constants, Wanted};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::Linkage;
use dnnc_kir::program::{ALIGN, Program};
use dnnc_runtime::constants::{Block, ConstantPool};
use dnnc_runtime::memory::Aligned;
use dnnc_runtime::pool::{Body, Pool};
use dnnc_targets::Target;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Why a network stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(pub i32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the network stopped: {}", dnnc_runtime::abi::describe(self.0))
    }
}

/// A network as machine code.
pub struct Jit {
    program: Program,
    /// Freed when the value is dropped; `None` only then.
    module: Option<JITModule>,
    run: Serial,
    parallel: Option<(Parallel, Pool)>,
    profiled: Profiled,
    code_bytes: usize,
    /// The constants: the code holds their addresses.
    _constants: Vec<Arc<Block>>,
}

type Serial = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8) -> i32;
type ParallelFor = unsafe extern "C" fn(*const Pool, usize, Body, *mut c_void);
type Parallel = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8, *const Pool, ParallelFor) -> i32;
type Tick = unsafe extern "C" fn(*mut Vec<Instant>);
type Profiled = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8, *const Pool, ParallelFor, Tick, *mut Vec<Instant>) -> i32;

/// The memory that runs of a network work in; one at a time.
pub struct Arena(Aligned);

impl Arena {
    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        self.0.taken()
    }
}

impl Jit {
    /// Compiles a program for this machine, to run on so many threads.
    pub fn new(program: Program, target: &Target, threads: usize) -> Result<Jit, String> {
        Jit::with_constants(program, target, threads, &ConstantPool::default())
    }

    /// Compiles a program whose constants are stored in `pool`, where equal ones may be already.
    pub fn with_constants(mut program: Program, target: &Target, threads: usize, pool: &ConstantPool) -> Result<Jit, String> {
        let native = dnnc_targets::native();
        if !native.runs(target) {
            return Err(format!("code for {} does not run on this machine, which is {}", target.name, native.name));
        }
        let code = emitter::emit_all(&program.kernels, target)?;
        let pointers: Vec<usize> = std::mem::take(&mut program.kernels).iter().map(|k| k.pointers).collect();
        let (addresses, constants) = pool.place(std::mem::take(&mut program.constants));
        let isa = emitter::isa(target, dnnc_kir::Tuning::AsWritten, false)?;
        let mut builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        // Calls reach ±128 MiB on AArch64: all functions come from one reservation, of address space only.
        let reserve = 2 * code.iter().map(|c| c.len().next_multiple_of(ALIGN)).sum::<usize>() + (32 << 20);
        let memory = ArenaMemoryProvider::new_with_size(reserve).map_err(|e| format!("memory for machine code: {e}"))?;
        builder.memory_provider(Box::new(memory));
        let mut module = JITModule::new(builder);
        let kernels = entry::define_kernels(&mut module, &program.name, pointers.into_iter().zip(code.iter().map(Vec::as_slice)))?;
        let wanted = Wanted { linkage: Linkage::Export, parallel: threads > 1, profiled: true };
        let entries = entry::define(&mut module, &program, &program.name, kernels, Constants::Addresses(addresses), wanted)?;
        module.finalize_definitions().map_err(|e| e.to_string())?;
        let function = |id| module.get_finalized_function(id);
        // Each address is that of a function that `entry::define` made with exactly this signature, in a module that lives as long as the pointer.
        #[allow(unsafe_code)]
        let (run, parallel, profiled) = unsafe {
            (
                std::mem::transmute::<*const u8, Serial>(function(entries.run)),
                entries.parallel.map(|id| std::mem::transmute::<*const u8, Parallel>(function(id))),
                std::mem::transmute::<*const u8, Profiled>(function(entries.profiled.expect("it was asked for"))),
            )
        };
        let parallel = parallel.map(|f| (f, Pool::new(threads)));
        let code_bytes = code.iter().map(|c| c.len().next_multiple_of(ALIGN)).sum::<usize>() + entries.code_bytes;
        Ok(Jit { program, module: Some(module), run, parallel, profiled, code_bytes, _constants: constants })
    }

    /// What was compiled (without its kernels and the data of its constants).
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Bytes of machine code.
    pub fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// Memory for runs.
    pub fn arena(&self) -> Arena {
        Arena(Aligned::new(self.program.arena_bytes))
    }

    /// One inference: `inputs` and `outputs` hold the elements of each input and result; panics when their number or lengths are not the program's.
    pub fn run(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], arena: &mut Arena) -> Result<(), Status> {
        let (inputs, outputs) = self.pointers(inputs, outputs, arena);
        let arena = arena.0.bytes_mut().as_mut_ptr();
        // `pointers` has checked that every buffer is as long as the program says.
        #[allow(unsafe_code)]
        let status = unsafe {
            match &self.parallel {
                Some((f, pool)) => f(inputs.as_ptr(), outputs.as_ptr(), arena, pool, parallel_for),
                None => (self.run)(inputs.as_ptr(), outputs.as_ptr(), arena),
            }
        };
        if status == 0 { Ok(()) } else { Err(Status(status)) }
    }

    /// One inference, with the seconds that each outer step took.
    pub fn run_profiled(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], arena: &mut Arena) -> Result<Vec<f64>, Status> {
        let (inputs, outputs) = self.pointers(inputs, outputs, arena);
        let arena = arena.0.bytes_mut().as_mut_ptr();
        let alone;
        let pool = match &self.parallel {
            Some((_, pool)) => pool,
            None => {
                alone = Pool::new(1);
                &alone
            }
        };
        let mut ticks = Vec::with_capacity(self.program.steps.len() + 1);
        ticks.push(Instant::now());
        // As in `run`; `ticks` outlives the call.
        #[allow(unsafe_code)]
        let status = unsafe { (self.profiled)(inputs.as_ptr(), outputs.as_ptr(), arena, pool, parallel_for, tick, &mut ticks) };
        if status != 0 {
            return Err(Status(status));
        }
        Ok(ticks.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect())
    }

    fn pointers(&self, inputs: &[&[u8]], outputs: &mut [&mut [u8]], arena: &Arena) -> (Vec<*const u8>, Vec<*mut u8>) {
        let lengths = |ports: &[(String, dnnc_ir::TensorType)]| ports.iter().map(|(_, t)| t.bytes()).collect::<Vec<_>>();
        assert_eq!(inputs.iter().map(|b| b.len()).collect::<Vec<_>>(), lengths(&self.program.inputs), "bytes of the inputs");
        assert_eq!(outputs.iter().map(|b| b.len()).collect::<Vec<_>>(), lengths(&self.program.outputs), "bytes of the results");
        assert!(arena.0.bytes().len() >= self.program.arena_bytes, "the arena belongs to another network");
        (inputs.iter().map(|b| b.as_ptr()).collect(), outputs.iter_mut().map(|b| b.as_mut_ptr()).collect())
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        self.parallel = None;
        if let Some(module) = self.module.take() {
            // No function of the module runs now: `run` borrows the value.
            #[allow(unsafe_code)]
            unsafe {
                module.free_memory();
            }
        }
    }
}

// The code and its constants are only read; runs work in memory that their caller lends exclusively, and the pool is used by the holder of `&Jit` whose
// run has the arena. Two runs at once on one `Jit` with threads are kept apart by the pool, whose jobs take turns.
#[allow(unsafe_code)]
unsafe impl Send for Jit {}
#[allow(unsafe_code)]
unsafe impl Sync for Jit {}

#[allow(unsafe_code)]
unsafe extern "C" fn parallel_for(pool: *const Pool, count: usize, body: Body, ctx: *mut c_void) {
    // The entry passes on the pointer that `run` gave it, which is valid until `run` returns.
    unsafe { (*pool).run(count, body, ctx) };
}

#[allow(unsafe_code)]
unsafe extern "C" fn tick(ticks: *mut Vec<Instant>) {
    // `run_profiled` passes its own vector.
    unsafe { &mut *ticks }.push(Instant::now());
}
