//! How fast the kernels of the dense families are: layers of known networks, one thread, in this process.
//!
//! `cargo bench -p dnnc-codegen --bench kernels -- [--asm | --kir] [WORD…]` runs the cases whose names contain a word; `--asm` prints the
//! machine code of their kernels instead, `--kir` their text. `M,K,N` is a matrix product of these sizes. Best of many runs, so that other
//! work on the machine disturbs little. Cases with zeros show how many times faster they are than with dense kernels, and what was predicted.

mod common;

use common::{random, time};
use dnnc_codegen::choice::alone;
use dnnc_codegen::expr::{Epilogue, Expr, ExprNode, What};
use dnnc_codegen::kernels;
use dnnc_codegen::unit::{Operand, Options, Unit};
use dnnc_emit::emitter;
use dnnc_ir::{Attr, Kind, Op, Tensor, TensorType, Type};
use dnnc_kir::program::{Choice, Program};

/// A use of an operator.
struct Case {
    name: String,
    op: Op,
    /// Type of each operand and whether it is constant.
    operands: Vec<(TensorType, bool)>,
    relu: bool,
    /// Columns of blocks of zeros, and the share of blocks that are not 0: the case is timed with and without them.
    zeros: Option<(usize, f64)>,
    /// Share of inputs that are not 0.
    inputs: f64,
}

/// The same case, with zeros in its weights in blocks of `block` outputs.
fn thin(mut case: Case, block: usize, density: f64, inputs: f64) -> Case {
    case.name = format!("{} {block}x1 {:.0}%{}", case.name, density * 100.0, if inputs < 1.0 { " of x 35%" } else { "" });
    Case { zeros: Some((block, density)), inputs, ..case }
}

fn f32s(shape: &[usize]) -> TensorType {
    TensorType::new(Type::F32, shape)
}

/// Channels in a block.
fn block() -> usize {
    dnnc_targets::native().vector.bits / 32
}

fn conv(channels: usize, outputs: usize, size: usize, kernel: usize, stride: usize, groups: usize) -> Case {
    let b = block();
    let pad = kernel / 2;
    let what = if groups > 1 { "depthwise" } else { "conv" };
    let name = format!("{what} {kernel}x{kernel}/{stride} {channels}->{outputs} @{size}");
    let ints = |v: &[usize]| Attr::from(v);
    let attrs = [
        ("strides", ints(&[stride; 2])),
        ("pads", ints(&[pad; 4])),
        ("dilations", ints(&[1; 2])),
        ("groups", Attr::Int(groups as i64)),
        ("block", Attr::Int(b as i64)),
    ];
    let operands = vec![
        (f32s(&[1, channels.div_ceil(b), size, size, b]), false),
        (f32s(&[outputs, channels / groups, kernel, kernel]), true),
        (f32s(&[outputs]), true),
    ];
    Case { name, op: Op::new(Kind::Conv, attrs).expect("conv"), operands, relu: true, zeros: None, inputs: 1.0 }
}

fn pool(kind: Kind, channels: usize, size: usize, kernel: usize, stride: usize, pad: usize) -> Case {
    let ints = |v: &[usize]| Attr::from(v);
    let mut attrs = vec![("kernel", ints(&[kernel; 2])), ("strides", ints(&[stride; 2])), ("pads", ints(&[pad; 4]))];
    attrs.extend([("dilations", ints(&[1; 2])), ("block", Attr::Int(block() as i64))]);
    if kind == Kind::AvgPool {
        attrs.push(("extra", ints(&[0; 2])));
    }
    let operands = vec![(f32s(&[1, channels / block(), size, size, block()]), false)];
    let name = format!("{} {kernel}x{kernel}/{stride} {channels} @{size}", kind.name());
    Case { name, op: Op::new(kind, attrs).expect("pool"), operands, relu: false, zeros: None, inputs: 1.0 }
}

fn conv_transpose(channels: usize, outputs: usize, size: usize, kernel: usize, stride: usize, pad: usize) -> Case {
    let ints = |v: &[usize]| Attr::from(v);
    let attrs = [
        ("strides", ints(&[stride; 2])),
        ("pads", ints(&[pad; 4])),
        ("dilations", ints(&[1; 2])),
        ("output_padding", ints(&[0; 2])),
        ("groups", Attr::Int(1)),
    ];
    let operands =
        vec![(f32s(&[1, channels, size, size]), false), (f32s(&[channels, outputs, kernel, kernel]), true), (f32s(&[outputs]), true)];
    let name = format!("conv_transpose {kernel}x{kernel}/{stride} {channels}->{outputs} @{size}");
    Case { name, op: Op::new(Kind::ConvTranspose, attrs).expect("conv_transpose"), operands, relu: false, zeros: None, inputs: 1.0 }
}

fn matmul(batch: usize, [m, k, n]: [usize; 3], trans_b: bool, known: bool) -> Case {
    let of = if known { "weights" } else { "values" };
    let lead = if batch > 1 { vec![batch] } else { vec![] };
    let shape = |a, b| f32s(&[lead.clone(), vec![a, b]].concat());
    let right = if trans_b { shape(n, k) } else { shape(k, n) };
    let name = format!("matmul {batch}x[{m},{k}]x[{k},{n}]{} {of}", if trans_b { "T" } else { "" });
    let op = Op::new(Kind::MatMul, [("trans_b", Attr::from(trans_b))]).expect("matmul");
    Case { name, op, operands: vec![(shape(m, k), false), (right, known)], relu: false, zeros: None, inputs: 1.0 }
}

fn cases() -> Vec<Case> {
    let mut all = vec![conv(3, 64, 224, 7, 2, 1)];
    for (c, o, size) in [(64, 64, 56), (64, 256, 56), (256, 64, 56), (256, 128, 56), (128, 512, 28), (512, 128, 28), (1024, 256, 14)] {
        all.push(conv(c, o, size, 1, 1, 1));
    }
    for (c, o, size) in [(256, 1024, 14), (2048, 512, 7), (512, 2048, 7)] {
        all.push(conv(c, o, size, 1, 1, 1));
    }
    all.extend([conv(256, 512, 56, 1, 2, 1), conv(1024, 2048, 14, 1, 2, 1)]);
    for (c, size) in [(64, 56), (128, 28), (256, 14), (512, 7)] {
        all.push(conv(c, c, size, 3, 1, 1));
    }
    all.extend([conv(128, 128, 56, 3, 2, 1), conv(512, 512, 14, 3, 2, 1)]);
    all.extend([conv(3, 32, 224, 3, 2, 1), conv(32, 16, 112, 1, 1, 1), conv(16, 96, 112, 1, 1, 1), conv(96, 24, 56, 1, 1, 1)]);
    all.extend([conv(24, 144, 56, 1, 1, 1), conv(192, 32, 28, 1, 1, 1), conv(384, 64, 14, 1, 1, 1), conv(64, 384, 14, 1, 1, 1)]);
    all.extend([conv(576, 96, 14, 1, 1, 1), conv(960, 160, 7, 1, 1, 1), conv(320, 1280, 7, 1, 1, 1)]);
    for (c, size, kernel, stride) in [(32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (192, 28, 3, 1), (384, 14, 3, 1), (960, 7, 3, 1)] {
        all.push(conv(c, c, size, kernel, stride, c));
    }
    all.extend([conv(240, 240, 28, 5, 1, 240), conv(672, 672, 14, 5, 2, 672)]);
    all.extend([pool(Kind::MaxPool, 64, 112, 3, 2, 1), pool(Kind::AvgPool, 256, 56, 2, 2, 0), pool(Kind::MaxPool, 512, 14, 5, 1, 2)]);
    all.extend([conv_transpose(256, 128, 28, 2, 2, 0), conv_transpose(256, 128, 16, 4, 2, 1), conv_transpose(64, 64, 56, 3, 1, 1)]);
    for shape in [[128, 768, 768], [128, 768, 3072], [384, 3072, 768], [512, 512, 512], [49, 2048, 512], [197, 192, 576], [16, 768, 768]] {
        all.push(matmul(1, shape, false, true));
    }
    all.extend([matmul(1, [1, 2048, 1000], false, true), matmul(1, [1, 4096, 4096], false, true), matmul(1, [128, 512, 2], false, true)]);
    all.extend([
        matmul(12, [384, 64, 384], true, false),
        matmul(12, [384, 384, 64], false, false),
        matmul(1, [512, 512, 512], false, false),
    ]);
    all.extend(sparse_cases());
    all.extend([matmul(12, [1, 64, 384], true, false), matmul(12, [1, 384, 64], false, false), matmul(1, [512, 512, 1], false, false)]);
    all
}

/// Layers whose weights have zeros.
fn sparse_cases() -> Vec<Case> {
    let mut all = vec![];
    for (block, densities) in [(1, [0.3, 0.2, 0.1, 0.05]), (4, [0.5, 0.2, 0.1, 0.05]), (8, [0.5, 0.2, 0.1, 0.05])] {
        for density in densities {
            all.extend([14, 28].map(|size| thin(conv(256, 256, size, 1, 1, 1), block, density, 1.0)));
        }
        all.push(thin(conv(512, 512, 7, 1, 1, 1), block, 0.1, 1.0));
        all.push(thin(conv(64, 64, 56, 1, 1, 1), block, 0.1, 1.0));
        all.push(thin(conv(128, 128, 28, 3, 1, 1), block, 0.1, 1.0));
        all.extend([1.0, 0.35].map(|inputs| thin(matmul(1, [1, 9216, 4096], false, true), block, 0.09, inputs)));
        all.extend([4, 16, 128].map(|rows| thin(matmul(1, [rows, 768, 3072], false, true), block, 0.1, 1.0)));
        all.push(thin(matmul(1, [1, 784, 304], false, true), block, 0.08, 1.0));
    }
    all
}

/// The program of a case, its multiply-adds, its traffic, and what was chosen.
fn program(case: &Case, sparse: bool) -> Result<(Program, u64, u64, String), String> {
    let types: Vec<TensorType> = case.operands.iter().map(|o| o.0.clone()).collect();
    let results = (case.op.def.infer)(&case.op.attrs, &types)?;
    let noise = |i: usize| ((i * 2654435761) % 1000) as f32 / 1000.0 - 0.5001;
    let constant = |(ty, known): &(TensorType, bool)| {
        // Outputs are the first axis of convolutions, the last of products.
        let (conv, outer) = (case.op.kind() == Kind::Conv, ty.shape.last().copied().unwrap_or(1));
        let steps = ty.len() / if conv { ty.shape[0] } else { outer };
        let kept = |i: usize| match case.zeros {
            Some((block, density)) if ty.rank() > 1 => {
                let (output, step) = if conv { (i / steps, i % steps) } else { (i % outer, i / outer) };
                random(output / block * steps + step) < density
            }
            _ => true,
        };
        let values: Vec<f32> = (0..ty.len()).map(|i| if kept(i) { noise(i) } else { 0.0 }).collect();
        known.then(|| Tensor::new(ty.shape.clone(), &values))
    };
    let constants: Vec<Option<Tensor>> = case.operands.iter().map(constant).collect();
    let inputs = types.iter().zip(&constants).map(|(ty, c)| Operand { ty: ty.clone(), constant: c.as_ref() }).collect();
    let relu = Epilogue {
        expr: Expr {
            nodes: vec![
                ExprNode { what: What::Operand(0), ty: Type::F32 },
                ExprNode { what: What::Apply(Op::new(Kind::Relu, [])?, vec![0]), ty: Type::F32 },
            ],
        },
        operands: vec![],
    };
    let (target, options) = (dnnc_targets::native(), Options { sparse, ..Options::default() });
    let epilogue = case.relu.then_some(&relu);
    let unit = Unit { op: &case.op, inputs, results: results.clone(), epilogue, stored: results[0].clone(), target, options: &options };
    let lowered = (kernels::family(case.op.kind()).ok_or("no family")?.lower)(&unit)?;
    let work = (case.op.def.work)(&case.op.attrs, &types, &results);
    let traffic = (types.iter().chain(&results).map(|t| t.bytes()).sum::<usize>()) as u64;
    let describe = |c: &Choice| {
        let all: Vec<String> = c.considered.iter().map(|(name, ns)| format!("{name} {:.1}", ns / 1e3)).collect();
        format!("{}: {}", c.name, all.join(", "))
    };
    let choice = lowered.choice.as_ref().map_or(String::new(), describe);
    let program = alone(&unit, lowered);
    Ok((program, work, traffic, choice))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (flags, words): (Vec<String>, Vec<String>) = words.into_iter().partition(|w| w.starts_with("--"));
    let target = dnnc_targets::native();
    let peak = target.peak_macs() * 2.0 / 1e9;
    println!("{}: {peak:.1} GFLOP/s a core\n{:44} {:>9} {:>8} {:>6} {:>7}", target.name, "", "µs", "GFLOP/s", "peak", "GB/s");
    let sizes = |w: &String| w.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>()?.try_into().ok();
    let (products, words): (Vec<String>, Vec<String>) = words.into_iter().partition(|w| sizes(w).is_some());
    let mut wanted: Vec<Case> = products.iter().filter_map(sizes).map(|s: [usize; 3]| matmul(1, s, false, true)).collect();
    if products.is_empty() || !words.is_empty() {
        wanted.extend(cases().into_iter().filter(|c| words.is_empty() || words.iter().any(|w| c.name.contains(w.as_str()))));
    }
    for case in &wanted {
        let (made, work, traffic, choice) = program(case, true).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        if flags.iter().any(|f| f == "--asm" || f == "--kir") {
            for func in &made.kernels {
                let text = if flags[0] == "--asm" { emitter::assembly(func, target).expect("machine code") } else { func.to_string() };
                println!("; {}: {}\n{text}", case.name, func.name);
            }
            continue;
        }
        let measure = |program| time(program, case.inputs).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let seconds = measure(made);
        let dense = case.zeros.map(|_| measure(program(case, false).expect("made above").0));
        let ratio = dense.map_or(String::new(), |dense| format!("  {:.2}x of {:.1}; {choice}", dense / seconds, dense * 1e6));
        let gflops = 2.0 * work as f64 / seconds / 1e9;
        let share = 100.0 * gflops / peak;
        println!("{:44} {:9.1} {gflops:8.1} {share:5.0}% {:7.1}{ratio}", case.name, seconds * 1e6, traffic as f64 / seconds / 1e9);
    }
}
