//! What the measurements share: aligned memory, and the best time of a program.

use dnnc_emit::jit::Jit;
use dnnc_kir::program::{ALIGN, Program};
use std::time::{Duration, Instant};

/// Bytes at a multiple of [`ALIGN`].
struct Aligned(Vec<u8>, usize, usize);

impl Aligned {
    fn new(bytes: usize, mut fill: impl FnMut(usize) -> f32) -> Aligned {
        let mut data = vec![0u8; bytes + ALIGN];
        let start = data.as_ptr().align_offset(ALIGN);
        for (i, chunk) in data[start..start + bytes].chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&fill(i).to_le_bytes());
        }
        Aligned(data, start, bytes)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..self.1 + self.2]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0[self.1..self.1 + self.2]
    }
}

/// A number between 0 and 1 that looks random.
pub fn random(i: usize) -> f64 {
    let mixed = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f64 / (1u64 << 24) as f64
}

/// Best seconds of a run on inputs of which this share is not 0.
pub fn time(program: Program, inputs: f64) -> Result<f64, String> {
    let noise = |i: usize| if random(i) < inputs { ((i * 40503) % 1000) as f32 / 1000.0 - 0.5001 } else { 0.0 };
    let inputs: Vec<Aligned> = program.inputs.iter().map(|(_, ty)| Aligned::new(ty.bytes(), noise)).collect();
    let mut outputs: Vec<Aligned> = program.outputs.iter().map(|(_, ty)| Aligned::new(ty.bytes(), |_| 1.0)).collect();
    let jit = Jit::new(program, dnnc_targets::native(), 1)?;
    let mut arena = jit.arena();
    let inputs: Vec<&[u8]> = inputs.iter().map(|a| a.bytes()).collect();
    let mut best = f64::INFINITY;
    // Runs so long that other threads get the core in between are measured by the time that this one had it.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(600) {
        let (before, mut runs) = (on_core(), 0);
        let batch = Instant::now();
        while batch.elapsed() < Duration::from_millis(60) {
            let mut outputs: Vec<&mut [u8]> = outputs.iter_mut().map(|a| a.bytes_mut()).collect();
            let start = Instant::now();
            jit.run(&inputs, &mut outputs, &mut arena).map_err(|s| s.to_string())?;
            best = best.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        if let (Some(before), Some(after)) = (before, on_core()) {
            best = best.min((after - before) / runs as f64);
        }
    }
    Ok(best)
}

/// Seconds that this thread has had a core, where the system tells.
fn on_core() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
}
