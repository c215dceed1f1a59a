//! Depthwise convolution of packed images: one kernel a channel, the channels of a block in the lanes of a vector.

use super::conv::Shape;
use super::store::Output;
use super::window::{self, Window, Work};
use super::{Arg, Lowered, LoweredCall, Unit};
use crate::kir::{Builder, Elem, Ty, Val};
use crate::schedule;
use dnnc_ir::Type;

/// Taps that a window may have here: its code is written out.
const MOST_TAPS: usize = 49;

/// Whether this convolution is done here. The shape has two spatial axes.
pub fn fits(unit: &Unit, s: &Shape) -> bool {
    s.block > 0
        && s.block == schedule::lanes(&unit.target.vector, 4)
        && s.groups == s.channels
        && s.groups == s.outputs
        && unit.inputs.iter().all(|x| x.ty.ty == Type::F32)
        && unit.inputs[1..].iter().all(|x| x.constant.is_some())
        && (1..=MOST_TAPS).contains(&s.kernel.iter().product())
}

/// Lowers a convolution that fits.
pub fn lower(unit: &Unit, s: &Shape) -> Result<Lowered, String> {
    let lanes = s.block;
    let ty = Ty::vector(Elem::F32, lanes as u8);
    let pair = |v: &[usize]| [v[0], v[1]];
    let w = Window {
        input: pair(&s.input),
        output: pair(&s.output),
        kernel: pair(&s.kernel),
        strides: pair(&s.strides),
        dilations: pair(&s.dilations),
        before: pair(&s.before),
        ty,
    };
    let blocks = s.channels.div_ceil(lanes);
    let taps = s.kernel[0] * s.kernel[1];
    let images = s.batch * blocks;
    let (pixels, input_pixels) = (s.pixels(), s.input[0] * s.input[1]);
    let tasks = schedule::tasks(unit.options, (images * lanes * pixels * taps) as u64, images);
    let tile = schedule::window_tile(&unit.target.vector, taps);

    // Weights [block][tap][lane], then one vector of biases a block.
    let channels = s.channels;
    let by_block = |i: usize, taps: usize, values: &[f32]| {
        let at = |tap: usize, lane: usize| values.get((i * lanes + lane) * taps + tap).copied().unwrap_or(0.0);
        (0..taps).flat_map(|tap| (0..lanes).map(move |lane| (tap, lane))).flat_map(|(t, l)| at(t, l).to_le_bytes()).collect::<Vec<u8>>()
    };
    let known = |i: usize| unit.inputs[i].constant.expect("fits() asked for it").values::<f32>();
    debug_assert_eq!(known(1).len(), channels * taps);
    let mut lowered = Lowered::default();
    let mut args = vec![Arg::Input(0), Arg::Const(0)];
    lowered.constants.push((0..blocks).flat_map(|i| by_block(i, taps, known(1))).collect());
    let mut constant = |data: Vec<u8>, args: &mut Vec<Arg>| {
        args.push(Arg::Const(lowered.constants.len()));
        lowered.constants.push(data);
        args.len() - 1
    };
    let bias = unit.inputs.get(2).map(|_| constant((0..blocks).flat_map(|i| by_block(i, 1, known(2))).collect(), &mut args));
    let outside = w.leaves_rows().then(|| constant(vec![0; w.input[1] * ty.bytes()], &mut args));
    let out_at = args.len();
    args.extend(Output::args(unit));

    let mut builder = Builder::new("depthwise", args.len());
    let b = &mut builder;
    window::for_images(b, tasks, images, |b, image| {
        let (_, block) = super::product::divmod(b, image, blocks);
        let mut out = Output::new(b, unit, out_at, lanes, lanes);
        out.base = b.mul_int(image, (pixels * lanes) as i64);
        out.channel.1 = b.mul_int(block, lanes as i64);
        let [x, weights] = [0, 1].map(|i| b.param(i));
        let x = b.element(x, image, input_pixels * ty.bytes());
        let weights = b.element(weights, block, taps * ty.bytes());
        let bias = bias.map(|param| {
            let bias = b.param(param);
            b.element(bias, block, ty.bytes())
        });
        let held = tile.held.then(|| (0..taps).map(|t| b.load(ty, weights, (t * ty.bytes()) as i32)).collect());
        let outside = outside.map(|param| b.param(param));
        let work = Multiply { ty, width: s.kernel[1], weights, held, bias };
        w.emit(b, tile.tile, x, outside, &work, &out);
    });
    lowered.calls.push(LoweredCall { func: builder.finish(), args, tasks });
    Ok(lowered)
}

struct Multiply {
    ty: Ty,
    /// Columns of the kernel.
    width: usize,
    weights: Val,
    /// The weights in registers, when they fit.
    held: Option<Vec<Val>>,
    bias: Option<Val>,
}

impl Work for Multiply {
    fn init(&self, b: &mut Builder) -> Val {
        match self.bias {
            Some(bias) => b.load(self.ty, bias, 0),
            None => b.int(self.ty, 0),
        }
    }

    fn tap(&self, b: &mut Builder, acc: Val, x: Val, ky: usize, kx: usize) -> Val {
        let tap = ky * self.width + kx;
        let weight = match &self.held {
            Some(held) => held[tap],
            None => b.load(self.ty, self.weights, (tap * self.ty.bytes()) as i32),
        };
        b.fma(x, weight, acc)
    }
}
