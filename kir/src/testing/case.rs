//! A kernel with its memory, and what the interpreter makes of it.

use crate::{Elem, Func, interp};

/// A kernel, the memory it runs on, and what it leaves there.
pub struct Case {
    /// The kernel.
    pub func: Func,
    /// Contents of the buffers that the pointers point to.
    pub buffers: Vec<Vec<u8>>,
    /// Number of tasks.
    pub tasks: usize,
    /// Where floats lie in buffer 1 (byte offset, type): any NaN equals any other there.
    pub floats: Vec<(usize, Elem)>,
}

impl Case {
    /// Runs the interpreter; `fused` says whether the machine has fused multiply-add.
    pub fn expected(&self, fused: bool) -> (i32, Vec<Vec<u8>>) {
        let mut buffers = self.buffers.clone();
        let pointers: Vec<interp::Pointer> = (0..self.func.pointers).map(|buffer| interp::Pointer { buffer, offset: 0 }).collect();
        for task in 0..self.tasks {
            let status =
                interp::run_with(&self.func, &mut buffers, &pointers, task as i64, fused).unwrap_or_else(|e| panic!("{e}\n{}", self.func));
            if status != 0 {
                return (status, buffers);
            }
        }
        (0, buffers)
    }

    /// Says where what a machine did differs from what the interpreter does.
    pub fn differs(&self, fused: bool, status: i32, mut buffers: Vec<Vec<u8>>) -> Option<String> {
        let (want_status, mut want) = self.expected(fused);
        for &(at, elem) in &self.floats {
            for memory in [&mut buffers[1], &mut want[1]] {
                let bytes = &mut memory[at..at + elem.bytes()];
                let nan = match elem {
                    Elem::F32 => f32::from_le_bytes(bytes.try_into().expect("4 bytes")).is_nan(),
                    _ => f64::from_le_bytes(bytes.try_into().expect("8 bytes")).is_nan(),
                };
                if nan {
                    bytes.fill(0xff);
                }
            }
        }
        if status != want_status {
            return Some(format!("status {status}, not {want_status}\n{}", self.func));
        }
        let (n, at) = (0..want.len()).find_map(|n| Some((n, (0..want[n].len()).find(|i| want[n][*i] != buffers[n][*i])?)))?;
        let from = at / 16 * 16;
        let row = |m: &[u8]| m[from..(from + 32).min(m.len())].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
        Some(format!("byte {at} of buffer {n}; from {from}\nwant {}\nhave {}\n{}", row(&want[n]), row(&buffers[n]), self.func))
    }
}
