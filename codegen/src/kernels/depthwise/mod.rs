//! Depthwise convolution of packed images: one kernel a channel, the channels of a block in the lanes of a vector.

use super::conv::shape::Shape;
use crate::kernels::lib::image::{Frame, Layout, Lines};
use crate::kernels::lib::store::Output;
use crate::kernels::lib::window::{self, Window, Work};
use crate::schedule::{self, WindowTile};
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::Type;
use dnnc_kir::{Builder, Ty, Val};

/// Taps that a window may have here: its code is written out.
const MOST_TAPS: usize = 121;

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

/// Predicted nanoseconds of a convolution that fits.
pub fn predicted_ns(unit: &Unit, s: &Shape) -> f64 {
    s.window(s.block).images_ns(unit.target, s.batch * s.channels.div_ceil(s.block), 1.0)
}

/// Lowers a convolution that fits.
pub fn lower(unit: &Unit, s: &Shape) -> Result<Lowered, String> {
    let mut frame = Frame::default();
    frame.arg(Arg::Input(0));
    let strip = Strip::new(&mut frame, unit, s);
    let out_at = frame.output(unit);
    let (blocks, lanes) = (strip.blocks, s.block);
    let images = s.batch * blocks;
    let tasks = schedule::tasks(unit.options, (images * lanes * s.pixels() * strip.taps) as u64, images);
    let layout = Layout::whole(strip.window.input, lanes);

    let mut builder = Builder::new("depthwise", frame.args.len());
    let b = &mut builder;
    window::for_images(b, tasks, images, |b, image| {
        let (_, block) = crate::kernels::lib::loops::divmod(b, image, blocks);
        let mut out = Output::new(b, unit, out_at, lanes, lanes);
        out.base = b.mul_int(image, (s.pixels() * lanes) as i64);
        out.channel.1 = b.mul_int(block, lanes as i64);
        let x = b.param(0);
        let x = Lines { layout, at: b.element(x, image, layout.block) };
        let first = b.index(0);
        strip.emit(b, x, block, (first, s.output[0]), &out);
    });
    frame.lowered.calls.push(LoweredCall { func: builder.finish(), args: frame.args, tasks });
    Ok(frame.lowered)
}

/// A depthwise convolution whose rows can be made in any portions.
pub struct Strip {
    /// The way of its windows.
    pub window: Window,
    /// Blocks of channels.
    pub blocks: usize,
    taps: usize,
    tile: WindowTile,
    /// Pointers to the weights, the biases and a row of padding.
    weights: usize,
    bias: Option<usize>,
    outside: Option<usize>,
}

impl Strip {
    /// Packs the constants of a convolution that fits.
    pub fn new(frame: &mut Frame, unit: &Unit, s: &Shape) -> Strip {
        let lanes = s.block;
        let window = s.window(lanes);
        let blocks = s.channels.div_ceil(lanes);
        let taps = s.kernel[0] * s.kernel[1];
        // Weights [block][tap][lane], then one vector of biases a block.
        let by_block = |values: &[f32], taps: usize| -> Vec<f32> {
            let at = |i: usize, tap: usize, lane: usize| values.get((i * lanes + lane) * taps + tap).copied().unwrap_or(0.0);
            let slots = (0..blocks).flat_map(|i| (0..taps).flat_map(move |tap| (0..lanes).map(move |lane| (i, tap, lane))));
            slots.map(|(i, tap, lane)| at(i, tap, lane)).collect()
        };
        let known = |i: usize| unit.inputs[i].constant.expect("fits() asked for it").values::<f32>();
        debug_assert_eq!(known(1).len(), s.channels * taps);
        let weights = frame.floats(by_block(known(1), taps));
        let bias = unit.inputs.get(2).map(|_| frame.floats(by_block(known(2), 1)));
        let outside = window.leaves_rows().then(|| frame.floats(vec![0.0; window.input[1] * lanes]));
        let tile = schedule::window_tile(&unit.target.vector, taps);
        Strip { window, blocks, taps, tile, weights, bias, outside }
    }

    /// Emits `rows` (the first and their number) of block `block` of channels, whose input is at `x`.
    pub fn emit(&self, b: &mut Builder, x: Lines, block: Val, rows: (Val, usize), out: &Output) {
        let ty = self.window.ty;
        let mut of_block = |param: usize, vectors: usize| {
            let p = b.param(param);
            b.element(p, block, vectors * ty.bytes())
        };
        let weights = of_block(self.weights, self.taps);
        let bias = self.bias.map(|param| of_block(param, 1));
        let held = self.tile.held.then(|| (0..self.taps).map(|t| b.load(ty, weights, (t * ty.bytes()) as i32)).collect());
        let outside = self.outside.map(|param| b.param(param));
        let work = Multiply { ty, width: self.window.kernel[1], weights, held, bias };
        self.window.emit(b, self.tile.tile, x, rows, outside, &work, out);
    }
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
