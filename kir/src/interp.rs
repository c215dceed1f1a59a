//! The meaning of kir: a slow, obvious interpreter that checks every address.
//!
//! Memory is a list of byte buffers. A pointer is a number as on a machine, but buffers are so far apart that no offset leads from one
//! into another: an access that is not inside one buffer is an error which names the kernel and the statement.

use crate::func::{Carried, Func, Stmt};
use crate::lanes::{Frame, Lanes, SPAN, memory};
use crate::text;
use crate::ty::Val;

/// Where a pointer of a kernel points: a buffer and bytes into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pointer {
    /// Index of the buffer.
    pub buffer: usize,
    /// Bytes from its start.
    pub offset: usize,
}

/// Runs one task; `args` are the pointers. The result is the kernel's status. Fails on an access outside a buffer.
pub fn run(func: &Func, buffers: &mut [Vec<u8>], args: &[Pointer], task: i64) -> Result<i32, String> {
    run_with(func, buffers, args, task, true)
}

/// As [`run`], but with `fused` false `Fma` rounds twice, as on machines without fused multiply-add.
pub fn run_with(func: &Func, buffers: &mut [Vec<u8>], args: &[Pointer], task: i64, fused: bool) -> Result<i32, String> {
    if args.len() != func.pointers {
        return Err(format!("kernel {} takes {} pointers, not {}", func.name, func.pointers, args.len()));
    }
    let mut machine = Machine::new(func, fused);
    machine.run(buffers, args, task)
}

/// Runs tasks `0..tasks` in order on buffers that the kernel's pointers point to the starts of, until one has a status other than 0.
pub fn run_tasks(func: &Func, buffers: &mut [Vec<u8>], tasks: usize) -> Result<i32, String> {
    let args: Vec<Pointer> = (0..func.pointers).map(|buffer| Pointer { buffer, offset: 0 }).collect();
    run_at(func, buffers, &args, tasks)
}

/// Runs tasks `0..tasks` in order, until one has a status other than 0.
pub fn run_at(func: &Func, buffers: &mut [Vec<u8>], args: &[Pointer], tasks: usize) -> Result<i32, String> {
    if args.len() != func.pointers {
        return Err(format!("kernel {} takes {} pointers, not {}", func.name, func.pointers, args.len()));
    }
    let mut machine = Machine::new(func, true);
    for task in 0..tasks {
        let status = machine.run(buffers, args, task as i64)?;
        if status != 0 {
            return Ok(status);
        }
    }
    Ok(0)
}

/// Why a body was left.
enum Stop {
    Status(i32),
    Error(String),
}

struct Machine<'a> {
    func: &'a Func,
    values: Lanes<'a>,
    /// Values on their way from one iteration to the next.
    moving: Vec<u64>,
}

impl<'a> Machine<'a> {
    fn new(func: &'a Func, fused: bool) -> Machine<'a> {
        Machine { func, values: Lanes::new(&func.types, fused), moving: vec![] }
    }

    fn run(&mut self, buffers: &mut [Vec<u8>], args: &[Pointer], task: i64) -> Result<i32, String> {
        for (i, at) in args.iter().enumerate() {
            self.values.of_mut(Val(i as u32))[0] = ((at.buffer as u64 + 1) << SPAN) + at.offset as u64;
        }
        self.values.of_mut(self.func.task())[0] = task as u64;
        let func = self.func;
        match self.body(&func.body, buffers) {
            Ok(()) => Ok(0),
            Err(Stop::Status(status)) => Ok(status),
            Err(Stop::Error(why)) => Err(why),
        }
    }

    fn body(&mut self, body: &[Stmt], buffers: &mut [Vec<u8>]) -> Result<(), Stop> {
        body.iter().try_for_each(|stmt| self.stmt(stmt, buffers))
    }

    fn stmt(&mut self, stmt: &Stmt, buffers: &mut [Vec<u8>]) -> Result<(), Stop> {
        match stmt {
            Stmt::Let(v, op) => {
                let mut frame = Frame { values: &mut self.values, result: *v, buffers };
                op.run(&mut frame).map_err(|why| self.error(&why, stmt))
            }
            Stmt::Store { ptr, disp, val, count } => {
                let size = self.func.ty(*val).elem.bytes();
                let memory = memory(buffers, self.values.scalar(*ptr), *disp, *count as usize * size);
                let memory = memory.map_err(|why| self.error(&why, stmt))?;
                for (bytes, lane) in memory.chunks_exact_mut(size).zip(self.values.of(*val)) {
                    bytes.copy_from_slice(&lane.to_le_bytes()[..size]);
                }
                Ok(())
            }
            Stmt::Prefetch { .. } => Ok(()),
            Stmt::For { iv, start, end, step, carried, body } => {
                let (mut i, end) = (self.values.scalar(*start) as i64, self.values.scalar(*end) as i64);
                self.carry(carried, |c| (c.init, c.param));
                while i < end {
                    self.values.of_mut(*iv)[0] = i as u64;
                    self.body(body, buffers)?;
                    self.carry(carried, |c| (c.next, c.param));
                    i = i.checked_add(*step).ok_or_else(|| self.error("the counter overflows", stmt))?;
                }
                self.carry(carried, |c| (c.param, c.result));
                Ok(())
            }
            Stmt::While { carried, head, cond, body } => {
                self.carry(carried, |c| (c.init, c.param));
                loop {
                    self.body(head, buffers)?;
                    if self.values.scalar(*cond) == 0 {
                        break;
                    }
                    self.body(body, buffers)?;
                    self.carry(carried, |c| (c.next, c.param));
                }
                self.carry(carried, |c| (c.param, c.result));
                Ok(())
            }
            Stmt::If { cond, then, otherwise, results } => {
                let taken = self.values.scalar(*cond) != 0;
                self.body(if taken { then } else { otherwise }, buffers)?;
                for &(result, a, b) in results {
                    let lanes = self.func.ty(result).lanes as usize;
                    self.values.copy(result, 0, if taken { a } else { b }, 0, lanes);
                }
                Ok(())
            }
            Stmt::Fail(status) => Err(Stop::Status(*status)),
        }
    }

    /// Moves values at once, so that a swap is a swap.
    fn carry(&mut self, carried: &[Carried], pick: impl Fn(&Carried) -> (Val, Val)) {
        let mut moving = std::mem::take(&mut self.moving);
        carried.iter().for_each(|c| moving.extend_from_slice(self.values.of(pick(c).0)));
        let mut rest = moving.as_slice();
        for c in carried {
            let to = self.values.of_mut(pick(c).1);
            let (this, others) = rest.split_at(to.len());
            to.copy_from_slice(this);
            rest = others;
        }
        moving.clear();
        self.moving = moving;
    }

    fn error(&self, what: &str, stmt: &Stmt) -> Stop {
        let task = self.values.scalar(self.func.task());
        Stop::Error(format!("kernel {}, task {task}: {what}, in: {}", self.func.name, text::line(self.func, stmt)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Elem, Ty};

    #[test]
    fn an_access_outside_a_buffer_names_kernel_and_statement() {
        let mut b = Builder::new("late", 1);
        let x = b.load(Ty::vector(Elem::F32, 4), b.param(0), 8);
        b.store(x, b.param(0), 0);
        let func = b.finish();
        let why = run_tasks(&func, &mut [vec![0; 20]], 1).unwrap_err();
        assert_eq!(why, "kernel late, task 0: 16 bytes at 8 of buffer 0, which has 20 bytes, in: v2:f32x4 = load [v0+8]");
        assert_eq!(run_tasks(&func, &mut [vec![0; 24]], 1), Ok(0));
    }

    #[test]
    fn loops_carry_and_swap() {
        let mut b = Builder::new("fibonacci", 1);
        let (zero, one) = (b.index(0), b.index(1));
        let out = b.for_count(10, &[zero, one], |b, _, v| vec![v[1], b.add(v[0], v[1])]);
        b.store(out[0], b.param(0), 0);
        let mut memory = [vec![0; 8]];
        assert_eq!(run_tasks(&b.finish(), &mut memory, 1), Ok(0));
        assert_eq!(memory[0], 55u64.to_le_bytes());
    }
}
