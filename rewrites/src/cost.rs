//! What a term costs on a machine, in nanoseconds: the roofline of its work and its traffic, and the overhead of a kernel.

use crate::fact::Classes;
use crate::fact::Facts;
use crate::language::import;
use crate::sparsity::SparsityPattern;
use crate::term::{Head, OpRef, Term};
use dnnc_ir::{Class, Graph, Kind, TensorType};
use dnnc_targets::Target;
use egg::Id;

/// A kernel call: the jump, the first cache misses, the cut into tasks.
const KERNEL_NS: f64 = 300.0;
/// What choosing a term costs at least: so that of equal programs the one with fewer terms wins and no cycle of terms is free.
const TERM_NS: f64 = 0.5;

/// A general power takes so many operations: it is a logarithm and an exponential beyond the precision of the type.
const POW: f64 = 40.0;
/// What stands there already.
const LEAF_NS: f64 = 0.1;

/// The model of one machine.
#[derive(Clone, Debug)]
pub struct Model {
    /// Multiply-adds a nanosecond at peak, one core.
    macs: f64,
    /// f32 lanes a register.
    lanes: f64,
    /// Bytes a nanosecond from caches.
    cache: f64,
    /// Bytes a nanosecond from memory.
    memory: f64,
    /// Bytes of the second-level cache.
    l2: f64,
    /// Cycles a nanosecond.
    ghz: f64,
    /// Whether convolutions in plain layout are slow: false while layouts are still to be chosen.
    layouts: bool,
}

impl Model {
    /// The model of `target`; `layouts`: whether the layouts at hand are the final ones.
    pub fn new(target: &Target, layouts: bool) -> Model {
        let ghz = target.mhz as f64 / 1e3;
        let lanes = target.vector.bits as f64 / 32.0;
        Model {
            macs: target.peak_macs() / 1e9,
            lanes,
            // A register a cycle in and out of the second-level cache, which is what fused kernels stream through.
            cache: ghz * lanes * 4.0 / 2.0,
            memory: target.memory_mb_s as f64 / 1e3,
            l2: target.l2 as f64,
            ghz,
            layouts,
        }
    }

    /// Cost of a term whose operands are in memory, in nanoseconds.
    pub fn term(&self, classes: &Classes, id: Id, term: &Term) -> f64 {
        let fact = &classes[id].data;
        let op = match &term.head {
            Head::Op(op) if !fact.constant => op,
            _ => return LEAF_NS,
        };
        let inputs: Vec<&TensorType> = term.children.iter().map(|&c| classes[c].data.ty()).collect();
        let read: usize = inputs.iter().map(|t| t.bytes()).sum();
        let written: usize = fact.types.iter().map(TensorType::bytes).sum();
        let traffic = self.traffic(read + written);
        let owned: Vec<TensorType> = inputs.iter().map(|t| (*t).clone()).collect();
        let work = (op.def.work)(&op.attrs, &owned, &fact.types) as f64;
        // Scalar operations run a lane each, one register a cycle.
        let scalar = work / (self.lanes * self.ghz) * if op.kind() == Kind::Pow { POW } else { 1.0 };
        match op.kind() {
            Kind::Input | Kind::Const => LEAF_NS,
            Kind::Reshape => TERM_NS,
            Kind::If => KERNEL_NS + self.graph(op.attrs.graph("then")).max(self.graph(op.attrs.graph("else"))),
            Kind::Loop => KERNEL_NS + op.attrs.int("max_trip") as f64 * (KERNEL_NS + self.graph(op.attrs.graph("body"))),
            // One run of bytes is read where it lies; parts of a concatenation along the outermost axis are made where they belong.
            Kind::Slice if is_run(op, inputs[0]) => TERM_NS,
            Kind::Concat if fact.types[0].shape[..op.attrs.size("axis")].iter().all(|&n| n == 1) => TERM_NS + 0.1 * traffic,
            Kind::Conv => {
                let dense = self.convolution(op, &inputs, &fact.types[0], work);
                let filled = classes[term.children[1]].data.filled.as_ref().filter(|_| op.attrs.size("groups") == 1);
                KERNEL_NS + traffic.max(dense * filled.map_or(1.0, |f| self.sparse(f.density(), f.rows(self.lanes as usize))))
            }
            Kind::MatMul => {
                let dense = self.product(&fact.types[0], work);
                let blocks = |f: &SparsityPattern| match op.attrs.flag("trans_b") {
                    true => f.rows(self.lanes as usize),
                    false => f.columns(self.lanes as usize),
                };
                let filled = classes[term.children[1]].data.filled.as_ref().filter(|_| inputs[1].rank() == 2);
                KERNEL_NS + traffic.max(dense * filled.map_or(1.0, |f| self.sparse(f.density(), blocks(f))))
            }
            // A product, and what each of its elements adds to the result.
            Kind::ConvTranspose => {
                let channels = (inputs[1].shape[0] / op.attrs.size("groups").max(1)).max(1);
                let added = (work / channels as f64) as usize * 4;
                KERNEL_NS + traffic.max(work / (self.macs * 0.3)) + self.traffic(2 * added)
            }
            Kind::Attention => KERNEL_NS + traffic.max(work / (self.macs * 0.9)),
            Kind::Lstm | Kind::Gru | Kind::Rnn => KERNEL_NS + traffic.max(work / (self.macs * 0.3)),
            // Few channels fill no block: then windows are read one by one.
            Kind::MaxPool | Kind::AvgPool => {
                let images = inputs[0].rank() == 4 && inputs[0].shape[1] as f64 >= self.lanes / 2.0;
                let packed = op.attrs.int("block") > 0 || !self.layouts && images;
                KERNEL_NS + traffic.max(scalar * if packed { 2.0 } else { 40.0 })
            }
            Kind::Norm | Kind::RmsNorm | Kind::Softmax | Kind::LogSoftmax => KERNEL_NS + traffic.max(scalar),
            _ => match op.def.class {
                // An element-wise operator on the registers of the kernel before it adds arithmetic, the operands that do not come from
                // there, and the memory that the longer kernel keeps busy; elsewhere it is a kernel of its own.
                Class::Elementwise => {
                    let whole = |t: &&TensorType| t.len() == fact.types[0].len();
                    let main = inputs.iter().position(whole);
                    let fused = (0..inputs.len()).any(|i| whole(&inputs[i]) && self.is_on_registers(classes, term.children[i]));
                    let others: usize = inputs.iter().enumerate().filter(|(i, _)| Some(*i) != main).map(|(_, t)| t.bytes()).sum();
                    let own = if fused { 0.1 * self.traffic(2 * written) } else { KERNEL_NS + self.traffic(2 * written) };
                    TERM_NS + scalar + self.traffic(others) + own
                }
                Class::View => TERM_NS,
                Class::Move => KERNEL_NS + traffic * self.gather(op.kind()),
                _ => KERNEL_NS + traffic.max(scalar * 2.0),
            },
        }
    }

    /// Whether a value leaves a kernel that computes further on it before it is stored. What is unpacked has been through memory.
    fn is_on_registers(&self, classes: &Classes, id: Id) -> bool {
        use Kind::*;
        let kernel = |t: &Term| {
            t.op().is_some_and(|op| {
                op.def.class == Class::Elementwise
                    || matches!(op.kind(), Conv | MatMul | MaxPool | AvgPool | Norm | RmsNorm | Softmax | LogSoftmax)
            })
        };
        let nodes = &classes[id].nodes;
        nodes.iter().any(kernel) && !nodes.iter().any(|t| t.kind() == Some(Unpack))
    }

    /// Cost of a graph as it stands, in nanoseconds.
    pub fn graph(&self, graph: &Graph) -> f64 {
        let classes = import(graph, Facts::default()).classes;
        classes.classes().flat_map(|c| c.nodes.iter().map(move |t| (c.id, t))).map(|(id, t)| self.term(&classes, id, t)).sum()
    }

    fn traffic(&self, bytes: usize) -> f64 {
        let bytes = bytes as f64;
        bytes / if bytes <= self.l2 { self.cache } else { self.memory }
    }

    /// How much slower than a copy an operator moves its elements.
    fn gather(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Transpose => 3.0,
            Kind::Pack | Kind::Unpack => 1.5,
            _ => 1.0,
        }
    }

    /// Packed kernels have registers full of channels; plain ones a lane or two.
    fn convolution(&self, op: &OpRef, inputs: &[&TensorType], result: &TensorType, work: f64) -> f64 {
        let (packed, groups, w) = (op.attrs.int("block") > 0, op.attrs.size("groups"), inputs[1]);
        let per_group = w.shape[1];
        let depthwise = per_group == 1 && w.shape[0] == groups && groups > 1;
        // Packed blocks of channels lie within a group.
        let block = self.lanes as usize;
        let whole = groups == 1 || depthwise || per_group.is_multiple_of(block) && (w.shape[0] / groups).is_multiple_of(block);
        let images = result.rank() == if packed { 5 } else { 4 };
        let in_blocks = packed || !self.layouts && images && whole;
        let efficiency = match (in_blocks, depthwise) {
            (true, false) => 0.9,
            // Bound by loads: each serves one multiply-add.
            (true, true) => 0.6,
            // Pixels are gathered for the outputs of a group, which are a register full or fewer.
            (false, _) => 0.12 * ((w.shape[0] / groups.max(1)) as f64 / self.lanes).clamp(0.1, 1.0),
        };
        // Lanes of the last block that hold no channel work in vain.
        let wasted = if in_blocks { (w.shape[0] as f64 / self.lanes).ceil() * self.lanes / w.shape[0] as f64 } else { 1.0 };
        let share = if in_blocks && !depthwise { self.winograd(op, w, result) } else { 1.0 };
        work * wasted * share / (self.macs * efficiency)
    }

    /// Share of a convolution's multiply-adds that Winograd's algorithm takes the time of, where it fits.
    fn winograd(&self, op: &OpRef, w: &TensorType, result: &TensorType) -> f64 {
        /// Transforms of a tile, in channels' worth of products: 64→64 at 56×56 takes 0.42 of the direct time, 128→128 at 28×28 0.29.
        const TRANSFORMS: f64 = 4.0;
        let plain = ["strides", "dilations"].iter().all(|name| op.attrs.ints(name) == [1, 1]) && op.attrs.size("groups") == 1;
        let forms = |kernel: usize| match kernel {
            3 => [2, 4, 6].as_slice(),
            5 => &[2, 4],
            7 => &[2],
            _ => &[],
        };
        let (kernel, pixels) = match w.shape[2..] {
            [h, w] if plain && (h == w || h == 1 || w == 1) => ([h, w], [result.shape[2], result.shape[3]]),
            _ => return 1.0,
        };
        let along = |i: usize, out: usize| if kernel[i] == 1 { pixels[i] } else { pixels[i].div_ceil(out) * (out + kernel[i] - 1) };
        let Some(least) = forms(kernel[0].max(kernel[1])).iter().map(|&out| along(0, out) * along(1, out)).min() else { return 1.0 };
        let share = least as f64 / (pixels[0] * pixels[1] * kernel[0] * kernel[1]).max(1) as f64;
        (1.15 * share + TRANSFORMS / w.shape[0] as f64 + TRANSFORMS / w.shape[1] as f64).min(1.0)
    }

    /// Share of a dense kernel's time that one takes which leaves out blocks of zeros, or every zero: so many elements and blocks are left.
    fn sparse(&self, density: f64, blocks: f64) -> f64 {
        (blocks * 1.2).min(0.1 + density * 1.7).min(1.0)
    }

    /// One row uses each weight once and waits for memory; otherwise narrow results leave lanes idle.
    fn product(&self, result: &TensorType, work: f64) -> f64 {
        let columns = result.shape.last().copied().unwrap_or(1) as f64;
        let rows = result.shape.iter().rev().nth(1).copied().unwrap_or(1) as f64;
        let wasted = ((columns / self.lanes).ceil() * self.lanes / columns).min(self.lanes);
        let reuse = if rows < 4.0 { 0.25 } else { 0.9 };
        work * wasted / (self.macs * reuse)
    }
}

/// Whether a slice is one run of its operand's bytes.
fn is_run(op: &OpRef, x: &TensorType) -> bool {
    let (sizes, steps) = (op.attrs.sizes("sizes"), op.attrs.ints("steps"));
    let outer = sizes.iter().take_while(|&&n| n == 1).count();
    let whole = |i: usize| sizes[i] == x.shape[i];
    (outer + 1..sizes.len()).all(whole) && (0..sizes.len()).all(|i| steps[i] == 1 || sizes[i] <= 1)
}
