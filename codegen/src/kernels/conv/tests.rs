use super::shape::Shape;
use super::{FAMILY, winograd};
use crate::kernels::lib::gemm::types::VARIANTS;
use crate::kernels::testing::{Random, check_by};
use crate::schedule;
use crate::unit::{Lowered, Unit};
use dnnc_ir::{Attr, Kind, Type};

/// A convolution with random sizes for everything that is not given.
struct Case {
    ty: [Type; 2],
    batch: usize,
    groups: usize,
    /// Channels of input and result in a group.
    channels: [usize; 2],
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    block: usize,
    /// Whether the weights are constant, and whether there is a bias.
    known: bool,
    bias: bool,
}

impl Case {
    fn new(block: usize, channels: [usize; 2], input: &[usize], kernel: &[usize]) -> Case {
        let n = input.len();
        Case {
            ty: [Type::F32; 2],
            batch: 1,
            groups: 1,
            channels,
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            strides: vec![1; n],
            dilations: vec![1; n],
            pads: vec![0; 2 * n],
            block,
            known: true,
            bias: true,
        }
    }

    fn check(&self) {
        self.check_by(&FAMILY.lower, 1.0);
    }

    fn check_by(&self, lower: &dyn Fn(&Unit) -> Result<Lowered, String>, tolerance: f64) {
        let r = &mut Random::new(self.channels.iter().chain(&self.input).chain(&self.kernel).sum::<usize>() as u64);
        let (c, o) = (self.channels[0] * self.groups, self.channels[1] * self.groups);
        let (lead, tail) = if self.block > 0 { (c.div_ceil(self.block), vec![self.block]) } else { (c, vec![]) };
        let x = r.tensor(self.ty[0], [vec![self.batch, lead], self.input.clone(), tail].concat());
        let w = r.tensor(self.ty[1], [vec![o, self.channels[0]], self.kernel.clone()].concat());
        let sums = if self.ty[1].is_float() { self.ty[1] } else { Type::I32 };
        let mut inputs = vec![(x, false), (w, self.known)];
        if self.bias {
            inputs.push((r.tensor(sums, [o]), self.known));
        }
        let attrs = [
            ("strides", Attr::from(&self.strides[..])),
            ("pads", Attr::from(&self.pads[..])),
            ("dilations", Attr::from(&self.dilations[..])),
            ("groups", Attr::from(self.groups as i64)),
            ("block", Attr::from(self.block as i64)),
        ];
        check_by(lower, tolerance, Kind::Conv, &attrs, &inputs);
    }
}

#[test]
fn random_packed() {
    let r = &mut Random::new(3);
    for _ in 0..40 {
        let block = [4, 8][r.size(0, 1)];
        let kernel = [r.size(1, 4), r.size(1, 4)];
        let dilations = [r.size(1, 2), r.size(1, 2)];
        let input = [0, 1].map(|i| r.size((kernel[i] - 1) * dilations[i] + 1, 12));
        let mut case = Case::new(block, [r.size(1, 20), r.size(1, 30)], &input, &kernel);
        case.batch = [1, 1, 3][r.size(0, 2)];
        case.strides = vec![r.size(1, 3), r.size(1, 3)];
        case.dilations = dilations.to_vec();
        case.pads = (0..4).map(|_| r.size(0, 2)).collect();
        case.bias = r.size(0, 1) == 1;
        case.check();
    }
}

/// Every variant that takes several elements a step, over packed images.
#[test]
fn packed_integers() {
    let r = &mut Random::new(6);
    for variant in VARIANTS.iter().filter(|v| v.k_step > 1) {
        for (&lhs, &rhs) in variant.lhs.iter().flat_map(|lhs| variant.rhs.iter().map(move |rhs| (lhs, rhs))) {
            for i in 0..12 {
                let block = [4, 8][i % 2];
                let kernel = [r.size(1, 3), r.size(1, 4)];
                let dilations = [r.size(1, 2), r.size(1, 2)];
                let input = [0, 1].map(|i| r.size((kernel[i] - 1) * dilations[i] + 1, 9));
                let mut case = Case::new(block, [r.size(1, 20), r.size(1, 30)], &input, &kernel);
                case.ty = [lhs, rhs];
                case.batch = [1, 1, 3][r.size(0, 2)];
                case.strides = vec![r.size(1, 3), r.size(1, 3)];
                case.dilations = dilations.to_vec();
                case.pads = (0..4).map(|_| r.size(0, 2)).collect();
                case.bias = r.size(0, 1) == 1;
                case.check();
            }
            for groups in [2, 3] {
                let mut case = Case::new(4, [8, 12], &[6, 7], &[3, 3]);
                (case.ty, case.groups, case.pads) = ([lhs, rhs], groups, vec![1; 4]);
                case.check();
            }
        }
    }
}

#[test]
fn random_plain() {
    let r = &mut Random::new(4);
    for _ in 0..40 {
        let rank = r.size(1, 3);
        let kernel: Vec<usize> = (0..rank).map(|_| r.size(1, 3)).collect();
        let dilations: Vec<usize> = (0..rank).map(|_| r.size(1, 2)).collect();
        let input: Vec<usize> = (0..rank).map(|i| r.size((kernel[i] - 1) * dilations[i] + 1, if rank == 3 { 7 } else { 14 })).collect();
        let mut case = Case::new(0, [r.size(1, 5), r.size(1, 12)], &input, &kernel);
        case.batch = r.size(1, 2);
        case.groups = [1, 1, 3][r.size(0, 2)];
        case.strides = (0..rank).map(|_| r.size(1, 2)).collect();
        case.dilations = dilations;
        case.pads = (0..2 * rank).map(|_| r.size(0, 2)).collect();
        (case.bias, case.known) = (r.size(0, 1) == 1, r.size(0, 1) == 1);
        case.check();
    }
}

#[test]
fn shapes_of_networks() {
    for block in [4, 8] {
        // A first layer, a wide 1×1, one with stride, one pixel, one column.
        for (channels, input, kernel, stride, pad) in [
            ([3, 16], [20, 20], [7, 7], 2, 3),
            ([40, 72], [7, 7], [1, 1], 1, 0),
            ([16, 24], [9, 9], [1, 1], 2, 0),
            ([24, 8], [1, 1], [1, 1], 1, 0),
            ([8, 8], [30, 1], [3, 1], 1, 0),
            ([8, 17], [1, 1], [3, 3], 1, 1),
            ([130, 16], [14, 14], [3, 3], 1, 1),
        ] {
            let mut case = Case::new(block, channels, &input, &kernel);
            case.strides = vec![stride; 2];
            case.pads = vec![pad, pad, pad, pad];
            case.check();
        }
    }
}

#[test]
fn groups() {
    for block in [0, 4, 8] {
        for (groups, channels) in [(2, [8, 16]), (3, [8, 8]), (2, [3, 5]), (6, [1, 1]), (6, [1, 2]), (16, [1, 1])] {
            let mut case = Case::new(block, channels, &[6, 7], &[3, 3]);
            case.groups = groups;
            case.batch = 2;
            case.pads = vec![1; 4];
            case.check();
        }
    }
}

#[test]
fn signals_and_volumes_in_blocks() {
    for (input, kernel) in [(vec![19], vec![3]), (vec![5, 6, 7], vec![2, 3, 1])] {
        let mut case = Case::new(8, [11, 9], &input, &kernel);
        case.pads = vec![1; 2 * input.len()];
        case.check();
    }
}

#[test]
fn every_type() {
    use Type::*;
    for ty in [[F64, F64], [F16, F16], [BF16, BF16], [U8, I8], [I8, I8]] {
        for block in [0, 8] {
            let mut case = Case::new(block, [5, 7], &[6, 9], &[3, 2]);
            case.ty = ty;
            case.pads = vec![1, 0, 1, 1];
            case.check();
        }
    }
}

#[test]
fn weights_may_be_computed() {
    for block in [0, 8] {
        let mut case = Case::new(block, [9, 7], &[6, 9], &[3, 2]);
        case.known = false;
        case.check();
    }
}

#[test]
fn empty_results() {
    for block in [0, 8] {
        let mut case = Case::new(block, [3, 4], &[5, 5], &[3, 3]);
        case.batch = 0;
        case.check();
    }
}

#[test]
fn one_kernel_a_channel() {
    let r = &mut Random::new(5);
    for _ in 0..40 {
        let kernel = [r.size(1, 5), r.size(1, 5)];
        let dilations = [r.size(1, 2), r.size(1, 2)];
        let input = [0, 1].map(|i| r.size((kernel[i] - 1) * dilations[i] + 1, 12));
        let mut case = Case::new([4, 8][r.size(0, 1)], [1, 1], &input, &kernel);
        case.groups = r.size(2, 20);
        case.batch = r.size(1, 2);
        case.strides = vec![r.size(1, 3), r.size(1, 3)];
        case.dilations = dilations.to_vec();
        case.pads = (0..4).map(|_| r.size(0, 3)).collect();
        case.bias = r.size(0, 1) == 1;
        case.check();
    }
}

/// Lowers by a form of Winograd's algorithm where the target's vectors are the image's blocks, cut into so many blocks (0: apart) and columns.
fn by_form(form: &'static winograd::Form, blocks: usize, vectors: usize) -> impl Fn(&Unit) -> Result<Lowered, String> {
    move |unit| {
        let s = Shape::new(unit);
        if s.block != unit.target.vector.bits / 32 || !winograd::fits(unit, &s, form) {
            return (FAMILY.lower)(unit);
        }
        let tiles = s.batch * form.tiles(&s.output).iter().product::<usize>();
        let plan = winograd::plan(unit, &s, form);
        let tiles = tiles.div_ceil(blocks.max(1));
        winograd::lower(unit, &s, form, &schedule::Winograd { tiles, columns: s.block * vectors, apart: blocks == 0, ..plan })
    }
}

#[test]
fn by_winograd() {
    let r = &mut Random::new(6);
    for number in 0..2 * winograd::FORMS.len() {
        let form = &winograd::FORMS[number % winograd::FORMS.len()];
        let kernel = form.axes.map(|a| a.kernel);
        let input = [r.size(1, 14), r.size(1, 14)];
        let mut case = Case::new([4, 8][r.size(0, 1)], [r.size(1, 20), r.size(1, 30)], &input, &kernel);
        case.strides = form.axes.map(|a| a.stride).to_vec();
        case.pads = (0..4).map(|_| r.size(0, 2)).collect();
        for axis in 0..2 {
            // A window fits.
            case.pads[axis] += kernel[axis].saturating_sub(input[axis] + case.pads[axis] + case.pads[axis + 2]);
        }
        case.batch = r.size(1, 2);
        case.bias = r.size(0, 1) == 1;
        case.check_by(&by_form(form, number / 3 % 4, 1 + number % 3), 2.0);
    }
}

/// Errors of 64 channels stay below these parts of the largest result; those of the direct sum are about 3e-7.
#[test]
fn winograd_rounds_little() {
    let lines = [1e-6, 3e-6, 1e-5, 3e-6, 1e-5, 1e-5];
    let bounds = [[1e-6, 3e-6, 1.5e-5, 3e-6, 1.5e-5, 1.5e-5].as_slice(), &[1e-6, 1e-6, 3e-6], &lines, &lines].concat();
    for (form, bound) in winograd::FORMS.iter().zip(bounds) {
        let kernel = form.axes.map(|a| a.kernel);
        let mut case = Case::new(8, [64, 8], &[14, 14], &kernel);
        case.strides = form.axes.map(|a| a.stride).to_vec();
        case.pads = [kernel.map(|k| k / 2), kernel.map(|k| k / 2)].concat();
        case.check_by(&by_form(form, 1, 1), bound / 2e-5);
    }
}

/// A group of panels with fewer tiles than parts that the rows are split into, between zeros.
#[test]
fn a_part_without_tiles() {
    let mut case = Case::new(4, [3, 25], &[3, 4], &[1, 2]);
    case.ty = [Type::I16, Type::I8];
    case.batch = 3;
    case.strides = vec![2, 1];
    case.dilations = vec![2, 1];
    case.pads = vec![0, 2, 0, 0];
    case.check();
}
