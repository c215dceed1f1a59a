//! The meaning of a program: its steps in order, its kernels through the interpreter of the kernel IR.

use crate::interp::{self, Pointer};
use crate::program::{Loc, Program, Step};

/// Runs a program on the bytes of its inputs and gives the bytes of its results. An error names the kernel that failed.
pub fn run(program: &Program, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    let mut memory: Vec<Vec<u8>> = inputs.iter().map(|b| b.to_vec()).collect();
    let outputs = memory.len();
    memory.extend(program.outputs.iter().map(|(_, t)| vec![0; t.bytes()]));
    let arena = memory.len();
    memory.push(vec![0xee; program.arena_bytes]); // not zero: nothing may rely on a cleared arena
    let constants = memory.len();
    memory.extend(program.constants.iter().cloned());
    let machine = Machine { program, outputs, arena, constants };
    machine.steps(&program.steps, &mut memory)?;
    Ok(memory.drain(outputs..arena).collect())
}

struct Machine<'a> {
    program: &'a Program,
    outputs: usize,
    arena: usize,
    constants: usize,
}

impl Machine<'_> {
    fn pointer(&self, loc: Loc) -> Pointer {
        let (buffer, offset) = match loc {
            Loc::Input(i, offset) => (i, offset),
            Loc::Output(i, offset) => (self.outputs + i, offset),
            Loc::Arena(offset) => (self.arena, offset),
            Loc::Const(i, offset) => (self.constants + i, offset),
        };
        Pointer { buffer, offset }
    }

    fn steps(&self, steps: &[Step], memory: &mut [Vec<u8>]) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Call(call) => {
                    let kernel = &self.program.kernels[call.kernel];
                    let args: Vec<Pointer> = call.args.iter().map(|l| self.pointer(*l)).collect();
                    let status = interp::run_at(kernel, memory, &args, call.tasks)?;
                    if status != 0 {
                        return Err(format!("the network stopped: {}", dnnc_runtime::abi::describe(status)));
                    }
                }
                Step::If { cond, then, otherwise } => {
                    let taken = if self.read(*cond, memory, 1) != 0 { then } else { otherwise };
                    self.steps(taken, memory)?;
                }
                Step::Loop { trip, cond, iter, max_trip, body } => {
                    let wanted = self.read(*trip, memory, 8);
                    let bound = wanted.min(*max_trip as i64);
                    let mut i = 0;
                    while i < bound && self.read(*cond, memory, 1) != 0 {
                        let at = self.pointer(*iter);
                        memory[at.buffer][at.offset..at.offset + 8].copy_from_slice(&i.to_le_bytes());
                        self.steps(body, memory)?;
                        i += 1;
                    }
                    if wanted > bound && self.read(*cond, memory, 1) != 0 {
                        return Err(format!("the network stopped: {}", dnnc_runtime::abi::describe(dnnc_runtime::abi::ENDLESS)));
                    }
                }
            }
        }
        Ok(())
    }

    /// An integer of so many bytes.
    fn read(&self, loc: Loc, memory: &[Vec<u8>], bytes: usize) -> i64 {
        let at = self.pointer(loc);
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&memory[at.buffer][at.offset..at.offset + bytes]);
        i64::from_le_bytes(word)
    }
}
