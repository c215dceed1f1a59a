//! The innermost loops of kernels that networks spend their time in, as kir and as machine code: worse code shows as a difference.
//!
//! Values are numbered by their first appearance, and registers are as allocated. `INSTA_UPDATE=always` accepts new code.

use dnnc_codegen::lower::lower;
use dnnc_codegen::unit::Options;
use dnnc_emit::emitter;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, TensorType, Type};
use dnnc_kir::{Builder, Elem, Func, Op as Operation, Stmt, Ty, Val, text};
use dnnc_targets::Target;
use std::collections::HashMap;
use std::fmt::Write;

/// Operations that a loop is there for.
fn weight(stmt: &Stmt) -> usize {
    usize::from(matches!(stmt, Stmt::Let(_, Operation::Fma(..) | Operation::Dot2(..) | Operation::Dot4(..) | Operation::Dot4u(..))))
}

/// Bodies of loops without loops in them.
fn innermost<'a>(body: &'a [Stmt], found: &mut Vec<&'a [Stmt]>) -> bool {
    let mut any = false;
    for stmt in body {
        let inner: &[&[Stmt]] = match stmt {
            Stmt::For { body, .. } => {
                if !innermost(body, found) {
                    found.push(body);
                }
                any = true;
                &[]
            }
            Stmt::While { head, body, .. } => &[head, body],
            Stmt::If { then, otherwise, .. } => &[then, otherwise],
            _ => &[],
        };
        for body in inner {
            any |= innermost(body, found);
        }
    }
    any
}

/// Replaces each word of this form by one that counts first appearances.
fn renumbered(text: &str, is: impl Fn(&str) -> bool, prefix: &str) -> String {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        if is(&word) {
            let next = format!("{prefix}{}", names.len());
            out.push_str(names.entry(std::mem::take(&mut word)).or_insert(next));
        }
        out.push_str(&word);
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

fn is_value(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The innermost loop with most of what it is there for.
fn hot_kir(func: &Func) -> Option<(usize, String)> {
    let mut found = vec![];
    innermost(&func.body, &mut found);
    let best = found.into_iter().max_by_key(|body| body.iter().map(weight).sum::<usize>())?;
    let lines: Vec<String> = best.iter().map(|stmt| text::line(func, stmt)).collect();
    Some((best.iter().map(weight).sum(), renumbered(&lines.join("\n"), is_value, "v")))
}

/// The lines between a jump back and where it leads to, of the loop with most multiply-adds and no loop in it. `jump` says where a line jumps
/// to, `label` what a line is the target of.
fn hot_loop(
    text: &str,
    label: impl Fn(&str) -> Option<String>,
    jump: impl Fn(&str) -> Vec<String>,
    body: impl Fn(&str) -> Option<&str>,
) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut starts: HashMap<String, usize> = HashMap::new();
    let mut loops: Vec<(usize, usize)> = vec![];
    for (i, line) in lines.iter().enumerate() {
        if let Some(name) = label(line) {
            starts.insert(name, i);
        }
        loops.extend(jump(line).iter().filter_map(|to| starts.get(to)).map(|&start| (start, i)));
    }
    let inner = |l: &&(usize, usize)| !loops.iter().any(|o| o != *l && o.0 >= l.0 && o.1 <= l.1);
    let count = |l: &(usize, usize)| {
        lines[l.0..=l.1]
            .iter()
            .filter(|l| l.contains("fma") || l.contains("fmla") || l.contains("dot") || l.contains("vpdp") || l.contains("vpmaddwd"))
            .count()
    };
    let Some(best) = loops.iter().filter(inner).max_by_key(|l| count(l)) else { return String::from("no loop") };
    let mut out = String::new();
    for line in lines[best.0..=best.1].iter().filter_map(|l| body(l)) {
        let _ = writeln!(out, "{}", line.trim());
    }
    out
}

/// The line, with a constant's distance from the start of the kernel left out: it depends on the code around the loop.
fn without_address(line: &str) -> String {
    match line.split_once("[0") {
        Some((before, after)) if after.contains("h]") => format!("{before}[constant{}\n", &after[after.find(']').expect("found")..]),
        _ => format!("{line}\n"),
    }
}

fn hot_code(func: &Func, target: &Target) -> String {
    let text = emitter::assembly(func, target).expect("machine code");
    if target.triple.starts_with("x86_64") && target.vector.bits > 128 {
        let address = |hex: &str| u64::from_str_radix(hex, 16).ok().map(|n| n.to_string());
        return hot_loop(
            &text,
            |line| line.split_whitespace().next().and_then(address),
            |line| {
                let mut words = line.split_whitespace().skip(1);
                match words.next() {
                    Some(jump) if jump.starts_with('j') => words.filter_map(|w| address(w.trim_end_matches('h'))).collect(),
                    _ => vec![],
                }
            },
            |line| line.trim().split_once("  ").map(|l| l.1).filter(|l| !l.starts_with('j')),
        )
        .lines()
        .map(without_address)
        .collect();
    }
    // Block 3 is called `block3` where it starts and `label3` where it is jumped to.
    let is_jump =
        |line: &str| line.trim_start().starts_with("b ") || line.trim_start().starts_with("b.") || line.trim_start().starts_with("cb");
    let targets =
        |line: &str| line.split(|c: char| !c.is_alphanumeric()).filter_map(|w| w.strip_prefix("label")).map(String::from).collect();
    hot_loop(
        &text,
        |line| line.strip_prefix("block")?.strip_suffix(':').map(String::from),
        |line| if is_jump(line) { targets(line) } else { vec![] },
        |line| Some(line).filter(|l| !is_jump(l) && !l.starts_with("block")),
    )
}

/// A graph of one operator whose other operands are constants without zeros.
fn one(kind: Kind, attrs: &[(&'static str, Attr)], input: TensorType, constants: &[TensorType]) -> Graph {
    let mut graph = Graph::new();
    let x = graph.input("x", input);
    let mut inputs = vec![x];
    for ty in constants {
        let bytes: Vec<u8> = match ty.ty {
            Type::F32 => (0..ty.len()).flat_map(|i| ((i % 13) as f32 - 6.5).to_le_bytes()).collect(),
            _ => (0..ty.len()).map(|i| (i % 7 + 1) as u8).collect(),
        };
        inputs.push(graph.constant(Tensor::from_bytes(ty.clone(), &bytes).expect("bytes of the type")));
    }
    let y = graph.add(Op::new(kind, attrs.iter().cloned()).expect("attributes"), inputs, "y").expect("operands that fit");
    graph.output("y", y);
    graph
}

/// The hot loops of a graph on a target.
fn hot(graph: Graph, target: &str) -> String {
    let target = dnnc_targets::find(target).expect("a target of the table");
    let (program, _) = lower(graph, "net", target, &Options::default()).expect("kernels");
    let (_, kir, func) =
        program.kernels.iter().filter_map(|f| hot_kir(f).map(|(n, text)| (n, text, f))).max_by_key(|(n, ..)| *n).expect("a loop");
    format!("{kir}\n\n; {}\n{}", target.name, hot_code(func, target))
}

fn f32s(shape: &[usize]) -> TensorType {
    TensorType::new(Type::F32, shape)
}

fn matmul(m: usize, k: usize, n: usize) -> Graph {
    one(Kind::MatMul, &[], f32s(&[m, k]), &[f32s(&[k, n])])
}

fn depthwise(block: usize) -> Graph {
    let ints = |v: &[usize]| Attr::from(v);
    let attrs = [
        ("strides", ints(&[1; 2])),
        ("pads", ints(&[1; 4])),
        ("dilations", ints(&[1; 2])),
        ("groups", Attr::Int(64)),
        ("block", Attr::Int(block as i64)),
    ];
    one(Kind::Conv, &attrs, f32s(&[1, 64 / block, 28, 28, block]), &[f32s(&[64, 1, 3, 3])])
}

/// Sums of dot products of quads of bytes: a quad of each of `rows` rows with a vector of columns.
fn dots(lanes: u8, rows: usize, op: fn(Val, Val, Val) -> Operation) -> Func {
    let (ty, bytes) = (Ty::vector(Elem::I32, lanes), Ty::vector(Elem::I8, 4 * lanes));
    let mut b = Builder::new("dots", 3);
    let zero = b.int(ty, 0);
    let init: Vec<Val> = [b.param(0), b.param(1)].into_iter().chain(vec![zero; rows]).collect();
    let out = b.for_count(64, &init, |b, _, carried| {
        let w = b.load(bytes, carried[1], 0);
        let mut next = vec![b.offset_int(carried[0], 4), b.offset_int(carried[1], bytes.bytes() as i64)];
        for (i, acc) in carried[2..].iter().enumerate() {
            let a = b.load_splat(ty, carried[0], (i * 256) as i32);
            let a = b.regroup(a, bytes);
            next.push(b.push(ty, op(*acc, a, w)));
        }
        next
    });
    for (i, sum) in out[2..].iter().enumerate() {
        b.store(*sum, b.param(2), (i * ty.bytes()) as i32);
    }
    b.finish()
}

fn hot_dots(lanes: u8, rows: usize, op: fn(Val, Val, Val) -> Operation, target: &str) -> String {
    let target = dnnc_targets::find(target).expect("a target of the table");
    hot_code(&dots(lanes, rows, op), target)
}

#[test]
fn dot_products_of_signed_bytes_with_256_bits() {
    insta::assert_snapshot!(hot_dots(8, 3, Operation::Dot4, "x86-64-v3"));
}

#[test]
fn dot_products_of_unsigned_bytes_with_256_bits() {
    insta::assert_snapshot!(hot_dots(8, 3, Operation::Dot4u, "x86-64-v3"));
}

#[test]
fn dot_products_of_signed_bytes_in_one_instruction() {
    insta::assert_snapshot!(hot_dots(4, 4, Operation::Dot4, "neoverse-n1"));
}

#[test]
fn tile_of_a_matmul_with_256_bits() {
    insta::assert_snapshot!(hot(matmul(48, 256, 64), "x86-64-v3"));
}

#[test]
fn tile_of_a_matmul_on_aarch64() {
    insta::assert_snapshot!(hot(matmul(48, 256, 64), "cortex-a72"));
}

#[test]
fn depthwise_3x3_with_256_bits() {
    insta::assert_snapshot!(hot(depthwise(8), "x86-64-v3"));
}

#[test]
fn depthwise_3x3_on_aarch64() {
    insta::assert_snapshot!(hot(depthwise(4), "cortex-a72"));
}
