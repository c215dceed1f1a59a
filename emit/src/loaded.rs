//! The JIT's door: machine code made here, run here.

use crate::code::Code;
use cranelift_jit::{ArenaMemoryProvider, BranchProtection, JITMemoryKind, JITMemoryProvider};

/// Executable memory, freed when dropped.
struct Pages {
    memory: ArenaMemoryProvider,
    base: *mut u8,
}

// The pages are only read once they are made.
#[allow(unsafe_code)]
unsafe impl Send for Pages {}
// As above.
#[allow(unsafe_code)]
unsafe impl Sync for Pages {}

impl Pages {
    fn new(code: &[u8]) -> Result<Pages, String> {
        let mut memory = ArenaMemoryProvider::new_with_size(code.len().max(1)).map_err(|e| format!("memory for machine code: {e}"))?;
        let base =
            memory.allocate(code.len().max(1), 64, JITMemoryKind::Executable).map_err(|e| format!("memory for machine code: {e}"))?;
        // SAFETY: the provider has just given `code.len()` writable bytes at `base` to us alone.
        #[allow(unsafe_code)]
        unsafe {
            base.copy_from_nonoverlapping(code.as_ptr(), code.len());
        }
        memory.finalize(BranchProtection::None).map_err(|e| format!("memory for machine code: {e}"))?;
        Ok(Pages { memory, base })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: whoever can call into the pages borrows or owns this value, so nobody does any more.
        #[allow(unsafe_code)]
        unsafe {
            self.memory.free_memory();
        }
    }
}

/// One kernel loaded alone, for tests and measurements.
pub struct Kernel {
    pages: Pages,
    pointers: usize,
}

impl Kernel {
    /// Loads the code of a kernel with so many pointers (at most 8).
    pub fn new(code: &Code, pointers: usize) -> Result<Kernel, String> {
        if pointers > 8 {
            return Err("a kernel run alone has at most 8 pointers".into());
        }
        Ok(Kernel { pages: Pages::new(&code.bytes)?, pointers })
    }

    /// Runs tasks `0..tasks`, pointer `i` being `buffers[i]`, until one has a status other than 0.
    ///
    /// # Safety
    /// The code must be that of a kernel which stays inside buffers of these sizes: the interpreter says whether it does.
    #[allow(unsafe_code)]
    pub unsafe fn run(&self, buffers: &mut [Vec<u8>], tasks: usize) -> i32 {
        assert!(buffers.len() >= self.pointers, "a buffer for each pointer");
        let p: Vec<*mut u8> = buffers.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let f = self.pages.base;
        macro_rules! call {
            ($task:expr; $($n:literal)*) => {{
                // SAFETY: the code begins at the first byte and has this signature; what it touches is the caller's promise.
                let f: extern "C" fn($(call!(@ty $n),)* i64) -> i32 = unsafe { std::mem::transmute(f) };
                f($(p[$n],)* $task)
            }};
            (@ty $n:literal) => { *mut u8 };
        }
        for task in 0..tasks as i64 {
            let status = match self.pointers {
                0 => call!(task;),
                1 => call!(task; 0),
                2 => call!(task; 0 1),
                3 => call!(task; 0 1 2),
                4 => call!(task; 0 1 2 3),
                5 => call!(task; 0 1 2 3 4),
                6 => call!(task; 0 1 2 3 4 5),
                7 => call!(task; 0 1 2 3 4 5 6),
                _ => call!(task; 0 1 2 3 4 5 6 7),
            };
            if status != 0 {
                return status;
            }
        }
        0
    }
}
