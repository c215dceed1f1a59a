//! Every operator, with everything about it that can be wrong, one thing at a time.

use crate::attempt::{Outcome, attempt};
use crate::hostile::proto::*;
use crate::text;
use dnnc::{Tensor, TensorType, Type};

/// One valid use of every operator a line; the node is called `bad`.
const USES: &str = include_str!("operators.txt");
/// The attributes of every operator; see the frontend.
const SCHEMAS: &str = include_str!("../../frontend/src/schemas.txt");
const NUMBERS: [i64; 11] = [0, 1, -1, 2, 3, 7, 65_537, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// A model with the values of its inputs; `None`: some that fit.
pub struct Variant {
    pub label: String,
    pub model: ModelProto,
    pub fill: Fill,
}

/// What inputs are filled with.
#[derive(Clone, Copy)]
pub enum Fill {
    Ones,
    Ints(i64),
    Floats(f64),
}

/// The uses, each with its line.
pub fn uses() -> Vec<(&'static str, ModelProto)> {
    USES.lines().map(|line| (line, text::model(line))).collect()
}

fn bad(model: &mut ModelProto) -> &mut NodeProto {
    let nodes = model.graph.as_mut().map(|g| &mut g.node);
    nodes.and_then(|n| n.iter_mut().find(|n| n.name == "bad")).expect("a node called `bad`")
}

/// The names and kinds of the attributes of an operator in the version that a model uses.
fn attributes(model: &ModelProto) -> Vec<(&'static str, &'static str)> {
    let node = &model.graph.as_ref().expect("a graph").node[0];
    let opset = model.opset_import.iter().find(|o| o.domain.is_empty()).map_or(0, |o| o.version);
    let head = format!("ai.onnx {} ", node.op_type);
    let mut versions = SCHEMAS.lines().filter_map(|l| {
        let (since, rest) = l.strip_prefix(&head)?.split_once(';')?;
        (since.parse::<i64>().ok()? <= opset).then_some(rest)
    });
    let text = versions.next_back().and_then(|rest| rest.split(';').nth(2)).unwrap_or("");
    text.split(' ').filter_map(|a| a.trim_end_matches('!').split_once(':')).collect()
}

/// Everything that can be wrong with one use.
pub fn variants(line: &str, base: &ModelProto) -> Vec<Variant> {
    let mut all = vec![];
    let mut add = |label: String, fill: Fill, change: &dyn Fn(&mut ModelProto)| {
        let mut model = base.clone();
        change(&mut model);
        all.push(Variant { label: format!("{line}  [{label}]"), model, fill });
    };
    add("as it is".into(), Fill::Ones, &|_| {});
    for n in NUMBERS {
        add(format!("integers are {n}"), Fill::Ints(n), &|_| {});
        add(format!("constant integers are {n}"), Fill::Ints(n), &|m| constant_inputs(m, n));
    }
    for v in [f64::NAN, f64::INFINITY, -f64::INFINITY, 3.4e38, -1.0, 0.0] {
        add(format!("numbers are {v}"), Fill::Floats(v), &|_| {});
    }
    let given = base.graph.as_ref().expect("a graph").node[0].attribute.clone();
    let mut names: Vec<(String, String)> = attributes(base).into_iter().map(|(n, k)| (n.into(), k.into())).collect();
    names.extend(given.iter().filter(|a| !names.iter().any(|n| n.0 == a.name)).map(|a| (a.name.clone(), "?".into())).collect::<Vec<_>>());
    for (name, kind) in names {
        let mut set = |label: String, value: &str| {
            let a = text::attribute(&format!("{name}={value}"));
            add(label, Fill::Ones, &|m| {
                let node = bad(m);
                node.attribute.retain(|old| old.name != name);
                node.attribute.push(a.clone());
            });
        };
        for value in ["1", "1.5", "\"x\"", "[]", "[1]", "[1.5]", "[\"x\"]", "f32[1] = 1", "(-> y; Constant{value=f32[]} -> y)"] {
            set(format!("{name} is {value}"), value);
        }
        let old = given.iter().find(|a| a.name == name);
        let len = old.map_or(2, |a| a.ints.len());
        for n in NUMBERS {
            match kind.as_str() {
                "I" => set(format!("{name} are {n}"), &format!("{:?}", vec![n; len])),
                _ => set(format!("{name} is {n}"), &n.to_string()),
            }
        }
        if kind == "I" {
            for len in [0, 1, 2, 3, 4, 5, 9] {
                set(format!("{name} of length {len}"), &format!("{:?}", vec![1; len]));
            }
            for at in 0..len {
                for n in [0, -1, 9, 1 << 62, i64::MIN] {
                    let mut list = old.map_or(vec![1; len], |a| a.ints.clone());
                    list[at] = n;
                    set(format!("{name}[{at}] is {n}"), &format!("{list:?}"));
                }
            }
        }
        if kind == "f" {
            for value in ["NaN", "inf", "-inf", "0.0", "-1.0", "3e38"] {
                set(format!("{name} is {value}"), value);
            }
        }
        if kind == "s" {
            for value in ["", "constant", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "linear", "i", "->", "...,...->...", "ij->ii"] {
                set(format!("{name} is {value:?}"), &format!("\"{value}\""));
            }
        }
        add(format!("without {name}"), Fill::Ones, &|m| bad(m).attribute.retain(|a| a.name != name));
    }
    let graph = base.graph.as_ref().expect("a graph");
    for (i, port) in graph.input.iter().enumerate() {
        let name = &port.name;
        add(format!("{name} left out"), Fill::Ones, &|m| bad(m).input.iter_mut().filter(|n| *n == name).for_each(|n| n.clear()));
        add(format!("nothing from {name} on"), Fill::Ones, &|m| {
            let at = bad(m).input.iter().position(|n| n == name).unwrap_or(0);
            bad(m).input.truncate(at);
        });
        for code in 1..=26 {
            add(format!("{name} of type {code}"), Fill::Ones, &|m| tensor_of(m, i).elem_type = code);
        }
        let dims = port.r#type.as_ref().and_then(|t| t.tensor.as_ref()).and_then(|t| t.shape.as_ref()).map_or(vec![], |s| s.dim.clone());
        let mut shape = |label: String, dims: Vec<i64>| {
            let dim: Vec<DimensionProto> = dims.iter().map(|&d| DimensionProto { dim_value: Some(d), dim_param: None }).collect();
            add(format!("{name} of {label}"), Fill::Ones, &|m| tensor_of(m, i).shape = Some(TensorShapeProto { dim: dim.clone() }));
        };
        let sizes: Vec<i64> = dims.iter().map(|d| d.dim_value.unwrap_or(1)).collect();
        for rank in 0..=6 {
            shape(format!("rank {rank}"), vec![2; rank]);
            shape(format!("rank {rank} of ones"), vec![1; rank]);
        }
        shape("one more axis".into(), [&[1], &sizes[..]].concat());
        for a in 0..sizes.len() {
            for d in [0, 1, sizes[a] + 1, 1 << 20, 1 << 31, 1 << 62] {
                let mut changed = sizes.clone();
                changed[a] = d;
                shape(format!("sizes {changed:?}"), changed);
            }
        }
        shape("no element".into(), vec![0; sizes.len()]);
    }
    add("nothing has an element".into(), Fill::Ones, &|m| {
        for i in 0..graph.input.len() {
            tensor_of(m, i).shape.iter_mut().flat_map(|s| &mut s.dim).for_each(|d| d.dim_value = Some(0));
        }
    });
    add("one more input".into(), Fill::Ones, &|m| {
        let first = bad(m).input.first().cloned();
        bad(m).input.extend(first);
    });
    add("no input".into(), Fill::Ones, &|m| bad(m).input.clear());
    add("one more output".into(), Fill::Ones, &|m| bad(m).output.push("more".into()));
    add("its second output only".into(), Fill::Ones, &|m| bad(m).output[0] = String::new());
    for version in [1, 6, 7, 9, 11, 13, 18, 28] {
        add(format!("opset {version}"), Fill::Ones, &|m| {
            m.opset_import.iter_mut().filter(|o| o.domain.is_empty()).for_each(|o| o.version = version)
        });
    }
    all
}

fn tensor_of(model: &mut ModelProto, input: usize) -> &mut TensorTypeProto {
    let port = model.graph.as_mut().map(|g| &mut g.input[input]).expect("a graph");
    port.r#type.as_mut().and_then(|t| t.tensor.as_mut()).expect("the type of a tensor")
}

/// Turns inputs of i64 into constants.
fn constant_inputs(model: &mut ModelProto, n: i64) {
    let graph = model.graph.as_mut().expect("a graph");
    let is_index = |p: &&ValueInfoProto| p.r#type.as_ref().and_then(|t| t.tensor.as_ref()).is_some_and(|t| t.elem_type == 7);
    for port in graph.input.clone().iter().filter(is_index) {
        let shape = port.r#type.as_ref().and_then(|t| t.tensor.as_ref()).and_then(|t| t.shape.clone()).unwrap_or_default();
        let dims: Vec<i64> = shape.dim.iter().map(|d| d.dim_value.unwrap_or(1)).collect();
        let len = dims.iter().product::<i64>() as usize;
        graph.initializer.push(TensorProto { name: port.name.clone(), data_type: 7, dims, int64_data: vec![n; len], ..Default::default() });
        graph.input.retain(|p| p.name != port.name);
    }
}

/// A tensor of a type, filled.
pub fn filled(ty: &TensorType, fill: Fill) -> Tensor {
    let value = match fill {
        Fill::Ones => 1.0,
        Fill::Ints(n) if ty.ty == Type::I64 => return Tensor::with_type(ty.clone(), &vec![n; ty.len()]),
        Fill::Ints(n) if !ty.ty.is_float() => n as f64,
        Fill::Ints(_) => 1.0,
        Fill::Floats(v) if ty.ty.is_float() => v,
        Fill::Floats(_) => 1.0,
    };
    let cast = dnnc::ir::Op::new(dnnc::ir::Kind::Cast, [("to", ty.ty.into())]).expect("the row of `cast`");
    let numbers = Tensor::new(ty.shape.clone(), &vec![value; ty.len()]);
    dnnc::ir::eval::eval_op(&cast, &[numbers]).expect("numbers have a cast").swap_remove(0)
}

/// Every use as it is must be accepted and run.
#[test]
fn every_operator_has_a_valid_use() {
    let mut wrong = vec![];
    for (line, model) in uses() {
        match attempt(&model, Fill::Ones) {
            Outcome::Ran => {}
            // Random and data-dependent sizes of 1 may be refused while running.
            other => wrong.push(format!("{line}\n    {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} uses:\n{}", wrong.len(), wrong.join("\n"));
}

/// Nothing that is wrong with one thing of an operator may do harm, and what is refused is said with the name of the node, or of the input.
/// Takes every so many variants; all with `DNNC_EXHAUSTIVE=1`.
#[test]
fn whatever_is_wrong_with_an_operator_is_said() {
    let stride = std::env::var("DNNC_EXHAUSTIVE").ok().and_then(|s| s.parse().ok()).unwrap_or(61);
    let (mut wrong, mut counts, mut k) = (vec![], [0usize; 3], 0usize);
    for (line, base) in uses() {
        let op = base.graph.as_ref().expect("a graph").node[0].op_type.clone();
        for v in variants(line, &base) {
            k += 1;
            if !k.is_multiple_of(stride) {
                continue;
            }
            match attempt(&v.model, v.fill) {
                Outcome::Ran => counts[0] += 1,
                Outcome::Stopped(_) => counts[1] += 1,
                Outcome::Refused(message) => {
                    counts[2] += 1;
                    let named = ["node \"", "input \"", "output \"", op.as_str()].iter().any(|what| message.contains(what));
                    if !named {
                        wrong.push(format!("{}\n    names nothing: {message}", v.label));
                    }
                }
                other => wrong.push(format!("{}\n    {other:?}", v.label)),
            }
        }
    }
    eprintln!("{} ran, {} stopped while running, {} were refused", counts[0], counts[1], counts[2]);
    assert!(wrong.is_empty(), "{} variants:\n{}", wrong.len(), wrong.join("\n"));
}
