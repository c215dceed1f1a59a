//! Machine peak measurement: fused multiply-adds on registers alone.

use crate::Error;
use dnnc_emit::jit::Jit;
use dnnc_ir::{TensorType, Type};
use dnnc_kir::program::{Call, Loc, Program, Step};
use dnnc_kir::{Builder, Elem, Ty};
use dnnc_targets::Target;
use std::time::Instant;

/// Multiply-adds of f32 per second that one core of this machine reaches on registers.
pub fn multiply_adds_per_second(target: &Target) -> Result<f64, Error> {
    const ROUNDS: usize = 200_000;
    /// Independent chains: enough to hide the latency of every core dnnc knows, few enough for 16 registers.
    const CHAINS: usize = 12;
    let lanes = target.vector.bits / 32;
    let mut b = Builder::new("peak", 1);
    let ty = Ty::vector(Elem::F32, lanes as u8);
    let out = b.param(0);
    let (x, y) = (b.load(ty, out, 0), b.load(ty, out, 0));
    let init: Vec<_> = (0..CHAINS).map(|i| b.load(ty, out, (i * ty.bytes()) as i32)).collect();
    let sums = b.for_count(ROUNDS, &init, |b, _, sums| sums.iter().map(|&s| b.fma(x, y, s)).collect());
    for (i, s) in sums.into_iter().enumerate() {
        b.store(s, out, (i * ty.bytes()) as i32);
    }
    let work = (ROUNDS * CHAINS * lanes) as f64;
    let call = Call { args: vec![Loc::Output(0, 0)], tasks: 1, label: "peak".into(), ..Call::default() };
    let program = Program {
        name: "peak".into(),
        kernels: vec![b.finish()],
        constants: vec![],
        steps: vec![Step::Call(call)],
        inputs: vec![],
        outputs: vec![("sums".into(), TensorType::new(Type::F32, [CHAINS * lanes]))],
        arena_bytes: 0,
    };
    let jit = Jit::new(program, target, 1).map_err(Error::Internal)?;
    let mut arena = jit.arena();
    let mut sums = vec![0u8; CHAINS * ty.bytes()];
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        jit.run(&[], &mut [&mut sums], &mut arena).map_err(|s| Error::Internal(s.to_string()))?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(work / best)
}
