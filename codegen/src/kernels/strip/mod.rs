//! Chains of convolutions and poolings over packed images, computed strip by strip.
//!
//! A strip is a few rows of the chain's result. Before a member makes its rows, the one before it makes those that are read and are not there
//! yet: into a ring of rows where windows overlap, into a buffer of as many rows where each row is read once. So no image in between is ever
//! whole: what is made is read again from the cache, and the arena holds some rows instead of images. One kernel does all of it; tasks are
//! ranges of strips, whose first rows are made again.
//!
//! The first convolution of a chain may read a plain image of few channels: blocks of one channel.

use super::{conv, depthwise, pool};
use crate::expr::Access;
use crate::kernels::lib::image::{Frame, Layout, Lines};
use crate::kernels::lib::loops::{self, Memory};
use crate::kernels::lib::store::{self, Output};
use crate::kernels::lib::window::Window;
use crate::schedule;
use crate::unit::{Arg, Lowered, LoweredCall, Unit};
use dnnc_ir::{Kind, Type};
use dnnc_kir::{Bin, Builder, Cmp, Val};
use dnnc_targets::Target;

#[cfg(test)]
mod tests;

/// A member of a chain.
pub struct Link<'a> {
    unit: &'a Unit<'a>,
    window: Window,
    what: What,
    /// Blocks of channels of the result.
    blocks: usize,
}

/// What a member computes.
enum What {
    Conv(conv::shape::Shape),
    Depthwise(conv::shape::Shape),
    Pool,
}

/// How a member makes its rows and where they go.
struct Place {
    /// Rows made at once: a divisor of all where they are kept.
    rows: usize,
    from: Layout,
    to: Layout,
    /// Whether the rows are kept for windows that overlap; else each is read once.
    kept: bool,
    /// Bytes of the result, when it is a buffer of a task.
    bytes: usize,
    cut: Option<conv::Cut>,
}

/// Cycles that it takes to write a tensor and read it again later.
pub fn traffic(bytes: usize, target: &Target) -> f64 {
    /// What memory is worth between programs that are equally fast, in cycles a byte.
    const WORTH: f64 = 1e-3;
    let far = if bytes > target.l2 / 2 { 1.0 / target.bandwidth.round_trip } else { 0.0 };
    bytes as f64 * (far + WORTH)
}

/// How a chain is cut, and what that costs.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rows of the last member made at once, and of those whose rows are kept.
    rows: usize,
    batch: usize,
    /// Cycles of one thread, by estimate.
    pub cycles: f64,
}

impl Plan {
    /// The cheapest cut of a chain, whose members each read the result of the one before; `None` where they cannot.
    pub fn new(links: &[&Link]) -> Option<Plan> {
        const ROWS: [usize; 8] = [1, 2, 3, 4, 6, 7, 8, 14];
        const BATCHES: [usize; 4] = [1, 2, 4, 7];
        let (last, inner) = links.split_last()?;
        let l2 = last.unit.target.l2;
        let inside = |l: &&Link| {
            l.unit.stored.ty == Type::F32 && l.unit.epilogue.is_none_or(|e| e.operands.iter().all(|x| x.access != Access::Full))
        };
        let next_to = |pair: &[&Link]| pair[0].window.output == pair[1].window.input && pair[0].lanes() == pair[1].input_lanes();
        if !inner.iter().all(inside) || !links.windows(2).all(next_to) {
            return None;
        }
        let [height, width] = last.window.output;
        loops::reachable(last.blocks * height * width * last.lanes(), store::widest_element(last.unit)).ok()?;
        let keeps = links[1..].iter().any(|l| !l.is_pointwise());
        let rows = ROWS.into_iter().filter(|&rows| rows <= height);
        let ways = rows.flat_map(|rows| BATCHES.into_iter().filter(move |&n| n == 1 || keeps && n <= 2 * rows).map(move |n| (rows, n)));
        let mut best: Option<Plan> = None;
        for (rows, batch) in ways {
            let sizes = sizes(links, rows, batch);
            let memory: usize = sizes.iter().map(|s| s.bytes).sum();
            if (rows, batch) != (1, 1) && memory > l2 / 2 {
                continue;
            }
            let places = places(links, rows, batch).ok()?;
            // What passes through the cache beside the rings and buffers: rows of the input, panels.
            let (first, x) = (&links[0].window, &links[0].unit.inputs[0].ty);
            let read = x.bytes() / (x.shape[0] * first.input[0]).max(1) * first.rows_read(sizes[0].rows);
            let panels: usize = places.iter().flat_map(|p| &p.cut).map(|cut| cut.panel_bytes()).sum();
            if (rows, batch) != (1, 1) && memory + read + panels > l2 * 3 / 4 {
                continue;
            }
            let cycles = cycles(links, &places, memory);
            if best.as_ref().is_none_or(|b| cycles < b.cycles * 0.99) {
                best = Some(Plan { rows, batch, cycles });
            }
        }
        best
    }
}

impl<'a> Link<'a> {
    /// A unit as a member; `None` for what no chain can have.
    pub fn new(unit: &'a Unit<'a>) -> Option<Link<'a>> {
        let lanes = schedule::lanes(&unit.target.vector, 4);
        let (window, what, outputs) = match unit.op.kind() {
            Kind::Conv => {
                let shape = conv::rows(unit)?;
                let (window, outputs) = (shape.window(lanes), shape.outputs);
                (window, if depthwise::fits(unit, &shape) { What::Depthwise(shape) } else { What::Conv(shape) }, outputs)
            }
            Kind::MaxPool | Kind::AvgPool if !unit.results[0].is_empty() => {
                (pool::window(unit)?, What::Pool, unit.results[0].shape[1] * lanes)
            }
            _ => return None,
        };
        let link = Link { unit, window, what, blocks: outputs.div_ceil(lanes) };
        (matches!(link.what, What::Conv(_)) || link.input_lanes() == lanes).then_some(link)
    }

    /// Cycles that it takes by itself, by estimate.
    pub fn apart(&self) -> f64 {
        let from = Layout::whole(self.window.input, self.input_lanes());
        let height = self.window.output[0];
        // Blocks of rows that half of the second-level cache holds meet all panels.
        let passes = self.unit.inputs[0].ty.bytes().div_ceil(self.unit.target.l2 / 2);
        let cycles = self.cut(height, from).map(|cut| self.cycles(height, cut.as_ref(), passes));
        self.unit.inputs[0].ty.shape[0] as f64 * cycles.unwrap_or(f64::INFINITY)
    }

    fn lanes(&self) -> usize {
        self.window.ty.lanes as usize
    }

    /// Channels of a block of the input.
    fn input_lanes(&self) -> usize {
        let packed = self.unit.inputs[0].ty.rank() == self.unit.results[0].rank();
        if packed { self.lanes() } else { 1 }
    }

    /// Whether each row of the input is read for one row of the result, and as it lies.
    fn is_pointwise(&self) -> bool {
        match &self.what {
            What::Conv(s) => s.kernel == [1, 1] && s.strides == [1, 1] && !s.is_padded(0) && !s.is_padded(1),
            _ => false,
        }
    }

    fn cut(&self, rows: usize, from: Layout) -> Result<Option<conv::Cut>, String> {
        match &self.what {
            What::Conv(shape) => conv::Cut::new(self.unit, shape, rows, from).map(Some),
            _ => Ok(None),
        }
    }

    /// Cycles to make some rows of an image.
    fn cycles(&self, rows: usize, cut: Option<&conv::Cut>, passes: usize) -> f64 {
        if let Some(cut) = cut {
            return cut.cycles(passes);
        }
        let (w, v) = (&self.window, &self.unit.target.vector);
        let together = schedule::window_tile(v, w.kernel[0] * w.kernel[1]).tile.rows;
        self.blocks as f64 * w.cycles(v, rows, together, 1.0)
    }
}

/// What a member makes at once.
struct Size {
    rows: usize,
    to: Layout,
    kept: bool,
    bytes: usize,
}

/// The sizes of all members when `rows` rows of the last are made at once, and of those whose rows are kept about `batch`.
fn sizes(links: &[&Link], rows: usize, batch: usize) -> Vec<Size> {
    let mut sizes: Vec<Size> = vec![];
    for (i, link) in links.iter().enumerate().rev() {
        let [height, width] = link.window.output;
        let whole = Layout::whole([height, width], link.lanes());
        let Some(after) = sizes.last() else {
            sizes.push(Size { rows, to: whole, kept: false, bytes: 0 });
            continue;
        };
        let next = &links[i + 1];
        let kept = !next.is_pointwise();
        // Batches follow each other without a rest, so none is parted by the end of the ring.
        let rows = if kept { (1..=batch).rev().find(|n| height % n == 0).expect("1 divides") } else { after.rows };
        let lines = if kept { (next.window.rows_read(after.rows) + rows - 1).next_multiple_of(rows).min(height) } else { after.rows };
        let ring = (kept && lines < height).then_some(lines);
        let to = Layout { block: lines * whole.row, ring, ..whole };
        sizes.push(Size { rows, to, kept, bytes: link.blocks * to.block });
    }
    sizes.reverse();
    sizes
}

/// The places of all members.
fn places(links: &[&Link], rows: usize, batch: usize) -> Result<Vec<Place>, String> {
    let mut from = Layout::whole(links[0].window.input, links[0].input_lanes());
    let place = |(link, Size { rows, to, kept, bytes }): (&&Link, Size)| {
        let place = Place { rows, from, to, kept, bytes, cut: link.cut(rows, from)? };
        from = to;
        Ok(place)
    };
    links.iter().zip(sizes(links, rows, batch)).map(place).collect()
}

/// Cycles of one thread.
fn cycles(links: &[&Link], places: &[Place], memory: usize) -> f64 {
    let n = links.len();
    // A shorter last strip is made as long as the others.
    let strips = links[n - 1].window.output[0].div_ceil(places[n - 1].rows);
    let mut sum = 0.0;
    let mut times = strips;
    for i in (0..n).rev() {
        if places[i].kept {
            times = links[i].window.output[0] / places[i].rows;
        }
        sum += times as f64 * links[i].cycles(places[i].rows, places[i].cut.as_ref(), 1);
    }
    sum += strips as f64 * traffic(memory, links[0].unit.target);
    links[0].unit.inputs[0].ty.shape[0] as f64 * sum
}

/// A member with its pointers.
struct Member<'a> {
    link: &'a Link<'a>,
    place: &'a Place,
    kernel: Kernel,
    /// Number of the pointer to the result; of the buffer in the memory of the kernel where it is one.
    out: usize,
    buffer: Option<usize>,
    /// Which of the counts of rows made is that of the result.
    ring: Option<usize>,
}

// There are a few of them, for the time of one lowering.
#[allow(clippy::large_enum_variant)]
enum Kernel {
    Conv(conv::Strip),
    Depthwise(depthwise::Strip),
    Pool(pool::Strip),
}

/// Lowers a chain. Operand 0 is that of its first member; the operands of the epilogues follow each other.
pub fn lower(links: &[&Link], plan: Plan) -> Result<Lowered, String> {
    let mut places = places(links, plan.rows, plan.batch)?;
    let last = links.last().expect("a chain has members");
    let (units, rows) = (links.iter().map(|l| l.unit), places.last().expect("as many as members").rows);
    let height = last.window.output[0];
    let batch = last.unit.results[0].shape[0];
    let strips = height.div_ceil(rows);
    let work: u64 = units
        .map(|u| {
            let inputs: Vec<_> = u.inputs.iter().map(|i| i.ty.clone()).collect();
            (u.op.def.work)(&u.op.attrs, &inputs, &u.results)
        })
        .sum();
    let options = last.unit.options;
    let again = places.iter().any(|p| p.kept);
    let tasks = schedule::tasks(options, work, batch * strips).min(if again { options.threads.max(1) } else { usize::MAX });

    let (mut frame, mut memory) = (Frame::default(), Memory::default());
    let x_at = frame.arg(Arg::Input(0));
    let (mut extras, mut rings) = (0, 0);
    let cuts: Vec<Option<conv::Cut>> = places.iter_mut().map(|p| p.cut.take()).collect();
    let mut members = vec![];
    for (i, ((link, place), cut)) in links.iter().zip(&places).zip(cuts).enumerate() {
        let kernel = match (&link.what, cut) {
            (What::Conv(_), Some(cut)) => Kernel::Conv(conv::Strip::new(&mut frame, &mut memory, link.unit, cut, place.from, tasks)),
            (What::Depthwise(shape), _) => Kernel::Depthwise(depthwise::Strip::new(&mut frame, link.unit, shape)),
            _ => Kernel::Pool(pool::Strip::new(&mut frame, link.unit)),
        };
        let out = frame.args.len();
        let buffer = if i + 1 < links.len() {
            Some(memory.add(&mut frame.lowered, &mut frame.args, place.bytes, tasks))
        } else {
            frame.arg(Arg::Output(0));
            None
        };
        for _ in link.unit.epilogue.iter().flat_map(|e| &e.operands) {
            frame.arg(Arg::Extra(extras));
            extras += 1;
        }
        let ring = place.kept.then(|| {
            rings += 1;
            rings - 1
        });
        members.push(Member { link, place, kernel, out, buffer, ring });
    }

    let mut builder = Builder::new(format!("strips_of_{}_by_{}", plan.rows, plan.batch), frame.args.len());
    let b = &mut builder;
    let task = b.task();
    let zero = b.index(0);
    let (from, to) = loops::part_range(b, task, tasks, batch * strips);
    let made = vec![zero; rings];
    b.for_range(from, to, 1, &made, |b, strip, made| {
        let (image, number) = loops::divmod(b, strip, strips);
        // The last strip begins so early that it is as long as the others.
        let y = b.mul_int(number, rows as i64);
        let latest = b.index(height - rows);
        let y = b.bin(Bin::MinS, y, latest);
        let starts = b.cmp(Cmp::Eq, number, zero);
        let made = made.iter().map(|&m| b.select(starts, zero, m)).collect();
        let layout = places[0].from;
        let image_bytes = links[0].unit.inputs[0].ty.shape[1] * layout.block;
        let x = b.param(x_at);
        let x = Lines { layout, at: b.element(x, image, image_bytes) };
        let strip = Strip { members: &members, memory: &memory, task, image, x };
        strip.rows(b, members.len() - 1, y, made)
    });
    frame.lowered.calls.push(LoweredCall { func: builder.finish(), args: frame.args, tasks });
    Ok(frame.lowered)
}

/// What the members of a strip have in common.
struct Strip<'a> {
    members: &'a [Member<'a>],
    memory: &'a Memory,
    task: Val,
    image: Val,
    /// Input of the chain.
    x: Lines,
}

impl Strip<'_> {
    /// Makes the rows of member `i` from row `y`, and those before that it reads. `made` has the end of the rows that each ring has had;
    /// answers what they have then.
    fn rows(&self, b: &mut Builder, i: usize, y: Val, mut made: Vec<Val>) -> Vec<Val> {
        let m = &self.members[i];
        let mut x = self.x;
        if i > 0 {
            let before = &self.members[i - 1];
            let buffer = before.buffer.and_then(|at| self.memory.piece(b, at, self.task)).expect("a member inside has a buffer");
            x = Lines { layout: before.place.to, at: buffer };
            match before.ring {
                None => {
                    made = self.rows(b, i - 1, y, made);
                    // Its first row is row y.
                    let skipped = b.mul_int(y, -(x.layout.row as i64));
                    x.at = b.offset(buffer, skipped);
                }
                Some(ring) => made = self.keep(b, i, y, ring, made),
            }
        }
        self.emit(b, m, x, y);
        made
    }

    /// Makes the rows of the member before `i` that `i` reads for its rows from row `y` and that are not there yet.
    fn keep(&self, b: &mut Builder, i: usize, y: Val, ring: usize, made: Vec<Val>) -> Vec<Val> {
        let (m, zero) = (&self.members[i], b.index(0));
        let w = &m.link.window;
        let top = b.mul_int(y, w.strides[0] as i64);
        let top = b.add_int(top, -(w.before[0] as i64));
        let end = b.add_int(top, w.rows_read(m.place.rows) as i64);
        let height = b.index(w.input[0]);
        let end = b.bin(Bin::MinS, end, height);
        let from = b.bin(Bin::MaxS, top, zero);
        let batch = self.members[i - 1].place.rows;
        let (number, _) = loops::divmod(b, from, batch);
        let from = b.mul_int(number, batch as i64);
        let from = b.bin(Bin::MaxS, from, made[ring]);
        let mut made = b.for_range(from, end, batch as i64, &made, |b, row, made| self.rows(b, i - 1, row, made.to_vec()));
        let past = b.add_int(end, batch as i64 - 1);
        let (number, _) = loops::divmod(b, past, batch);
        made[ring] = b.mul_int(number, batch as i64);
        made
    }

    /// The rows of one member from row `y`.
    fn emit(&self, b: &mut Builder, m: &Member, x: Lines, y: Val) {
        let (lanes, to) = (m.link.lanes(), m.place.to);
        let row = m.link.window.output[1] * lanes;
        let mut out = Output::new(b, m.link.unit, m.out, lanes, lanes);
        (out.column, out.vector) = (to.block / to.pixel(), to.block / 4);
        let place = match (m.buffer, to.ring) {
            (None, _) => y,
            (_, Some(rows)) => loops::divmod(b, y, rows).1,
            (_, None) if m.place.kept => y,
            _ => b.index(0),
        };
        let first = b.mul_int(place, row as i64);
        match m.buffer {
            Some(buffer) => {
                out.out = self.memory.piece(b, buffer, self.task).expect("a member inside has a buffer");
                out.base = first;
            }
            None => {
                let image = b.mul_int(self.image, (m.link.blocks * to.block / 4) as i64);
                out.base = b.add(image, first);
            }
        }
        if let Kernel::Conv(conv) = &m.kernel {
            return conv.emit(b, self.memory, x, y, self.task, &out);
        }
        // Windows count rows from that of the image.
        let skipped = b.mul_int(y, -(row as i64));
        let base = b.add(out.base, skipped);
        b.each(m.link.blocks, |b, block| {
            let mut out = out.clone();
            let channels = b.mul_int(block, (to.block / 4) as i64);
            out.base = b.add(base, channels);
            out.channel.1 = b.mul_int(block, lanes as i64);
            let x = x.block(b, block);
            match &m.kernel {
                Kernel::Depthwise(strip) => strip.emit(b, x, block, (y, m.place.rows), &out),
                Kernel::Pool(strip) => strip.emit(b, x, (y, m.place.rows), &out),
                Kernel::Conv(_) => unreachable!("returned above"),
            }
        });
    }
}
