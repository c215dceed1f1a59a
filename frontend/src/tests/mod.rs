//! Small models written in code: checks of the reader, import of graphs.

mod control_flow;
mod mutation;
mod operators;

use crate::proto::*;
use crate::{Dim, Limits, Model, RefusalKind, Refusals, run_with};
use dnnc_ir::{Kind, Tensor, TensorType, Type, eval};
use prost::Message;

fn node(op: &str, inputs: &str, outputs: &str) -> NodeProto {
    let names = |text: &str| text.split(' ').map(|n| n.trim_matches('_').to_string()).collect();
    let name = format!("n_{outputs}");
    NodeProto { op_type: op.into(), name, input: names(inputs), output: names(outputs), ..Default::default() }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INT, i: Some(i), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INTS, ints: ints.to_vec(), ..Default::default() }
}

fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::GRAPH, g: Some(Box::new(graph)), ..Default::default() }
}

fn constant(output: &str, t: TensorProto) -> NodeProto {
    let value = AttributeProto { name: "value".into(), kind: attribute_kind::TENSOR, t: Some(Box::new(t)), ..Default::default() };
    NodeProto { op_type: "Constant".into(), output: vec![output.into()], attribute: vec![value], ..Default::default() }
}

fn i64s(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto { name: name.into(), data_type: 7, dims: dims.to_vec(), int64_data: values.to_vec(), ..Default::default() }
}

fn f32s(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto { name: name.into(), data_type: 1, dims: dims.to_vec(), float_data: values.to_vec(), ..Default::default() }
}

fn truth(name: &str) -> TensorProto {
    TensorProto { name: name.into(), data_type: 9, int32_data: vec![1], ..Default::default() }
}

/// `x:f32[2,n]`
fn port(text: &str) -> ValueInfoProto {
    let (name, ty) = text.split_once(':').unwrap_or((text, ""));
    if ty.is_empty() {
        return ValueInfoProto { name: name.into(), r#type: None };
    }
    let (elem, dims) = ty.trim_end_matches(']').split_once('[').expect("a shape");
    let dim = |d: &str| match d.parse() {
        Ok(n) => DimensionProto { dim_value: Some(n), dim_param: None },
        Err(_) => DimensionProto { dim_value: None, dim_param: Some(d.into()) },
    };
    let dim = dims.split(',').filter(|d| !d.is_empty()).map(dim).collect();
    let elem_type = crate::element::type_code(Type::parse(elem).expect("a type"));
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor: Some(tensor), ..Default::default() }) }
}

fn graph(inputs: &str, nodes: Vec<NodeProto>, outputs: &str) -> GraphProto {
    let ports = |text: &str| text.split_whitespace().map(port).collect();
    GraphProto { name: "g".into(), node: nodes, input: ports(inputs), output: ports(outputs), ..Default::default() }
}

fn model(graph: GraphProto) -> ModelProto {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }
}

fn load(model: &ModelProto) -> Result<Model, Refusals> {
    Model::from_bytes(&model.encode_to_vec(), None, &Limits::default())
}

fn refused(model: &ModelProto) -> String {
    load(model).expect_err("the model is wrong").to_string()
}

/// Runs a model with the reference evaluator; the results and the operators of each stage that computes something.
fn run(model: &ModelProto, inputs: &[Tensor]) -> (Vec<Tensor>, Vec<Vec<Kind>>) {
    let model = load(model).unwrap_or_else(|e| panic!("{e}"));
    let mut stages = vec![];
    let results = run_with(&model, inputs, |graph, inputs| {
        stages.push(graph.nodes().iter().map(|n| n.op.kind()).collect());
        eval::eval(graph, inputs).map_err(|e| e.to_string())
    });
    (results.unwrap_or_else(|e| panic!("{e}")), stages)
}

fn vector(values: &[f32]) -> Tensor {
    Tensor::new([values.len()], values)
}

fn flag(value: bool) -> Tensor {
    Tensor::with_type(TensorType::new(Type::Bool, []), &[u8::from(value)])
}

fn relu() -> ModelProto {
    model(graph("x:f32[n]", vec![node("Relu", "x", "y")], "y:f32[n]"))
}

#[test]
fn ports_keep_their_symbols() {
    let m = load(&model(graph("x:f32[2,n] k:i64[]", vec![node("Relu", "x", "y")], "y"))).unwrap();
    assert_eq!(m.inputs()[0].dims, Some(vec![Dim::Known(2), Dim::Symbol("n".into())]));
    assert_eq!((m.inputs()[1].ty, m.outputs()[0].ty, m.symbols()), (Some(Type::I64), None, vec!["n"]));
}

#[test]
fn a_question_mark_is_no_symbol() {
    let m = load(&model(graph("x:f32[?,?]", vec![node("Relu", "x", "y")], "y"))).unwrap();
    assert_eq!(m.inputs()[0].dims, Some(vec![Dim::Unknown, Dim::Unknown]));
    assert!(m.specialise(&[vec![2, 3]]).is_ok());
}

#[test]
fn hardmax_of_nothing_is_nothing() {
    let m = load(&model(graph("x:f32[n,m]", vec![node("Hardmax", "x", "y")], "y"))).unwrap();
    for (shape, values) in [([3, 0], vec![]), ([0, 2], vec![]), ([1, 2], vec![1.0f32, 5.0])] {
        let x = Tensor::new(shape, &values);
        let want: Vec<f32> = if values.is_empty() { vec![] } else { vec![0.0, 1.0] };
        let graph = m.specialise(&[shape.to_vec()]).unwrap().graph;
        assert_eq!(eval::eval(&graph, &[x]).unwrap(), [Tensor::new(shape, &want)]);
    }
}

#[test]
fn shapes_must_fit_the_ports() {
    let m = load(&model(graph("x:f32[2,n] y:f32[n]", vec![node("Add", "x y", "z")], "z"))).unwrap();
    let refuse = |shapes: &[&[usize]]| m.specialise(&shapes.iter().map(|s| s.to_vec()).collect::<Vec<_>>()).err().map(|e| e.to_string());
    assert_eq!(refuse(&[&[2, 5], &[5]]), None);
    assert!(refuse(&[&[3, 5], &[5]]).unwrap().contains("input \"x\"  shape [3, 5] is given; the model wants [2,n]"));
    assert!(refuse(&[&[2, 5], &[1]]).unwrap().contains("input \"y\"  shape [1] is given, but dimension n is 5 elsewhere"));
    assert!(refuse(&[&[2, 5]]).unwrap().contains("1 input shapes are given; the model has 2 inputs"));
    assert!(refuse(&[&[2, 1 << 40], &[1 << 40]]).unwrap().contains("too large"));
}

#[test]
fn all_refusals_come_at_once() {
    let nodes = vec![node("Mystery", "x", "a"), node("Add", "x", "b"), node("Relu", "phantom", "c"), node("Relu", "x", "c")];
    let message = refused(&model(graph("x:f32[2]", nodes, "a b c d")));
    for part in
        ["for 6 reasons", "no such operator", "1 input; it takes 2", "\"phantom\" is not defined", "\"c\" is made twice", "output \"d\""]
    {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn unsupported_operators_are_a_table() {
    let mut m = relu();
    m.graph.as_mut().unwrap().node = vec![node("StringNormalizer", "x", "a"), node("Mystery", "a", "y")];
    assert_eq!(
        refused(&m),
        "2 operators of the model cannot be compiled\n  \
         ├─ StringNormalizer (opset 17)  node \"n_a\"  not implemented\n  \
         └─ Mystery (opset 17)  node \"n_y\"           there is no such operator in ONNX\n\
         help: `dnnc ops` lists the operators that can be compiled"
    );
}

#[test]
fn nodes_out_of_order_are_sorted_and_cycles_named() {
    let nodes = vec![node("Neg", "a", "y"), node("Exp", "x", "a")];
    let (results, _) = run(&model(graph("x:f32[1]", nodes, "y")), &[vector(&[0.0])]);
    assert_eq!(results[0].values::<f32>(), [-1.0]);
    let nodes = vec![node("Add", "x c", "a"), node("Neg", "a", "b"), node("Neg", "b", "c")];
    assert!(refused(&model(graph("x:f32[1]", nodes, "c"))).contains("a cycle of nodes: \"n_a\" → \"n_b\" → \"n_c\" → \"n_a\""));
}

#[test]
fn broken_heads_are_refused() {
    let edit = |f: fn(&mut ModelProto)| {
        let mut m = relu();
        f(&mut m);
        refused(&m)
    };
    assert!(edit(|m| m.graph = None).contains("no graph"));
    assert!(edit(|m| m.ir_version = None).contains("ir_version"));
    assert!(edit(|m| m.ir_version = Some(99)).contains("newest known is 14"));
    assert!(edit(|m| m.opset_import.clear()).contains("opset_import is missing"));
    assert!(edit(|m| m.opset_import[0].version = 77).contains("newest known is 28"));
    assert!(edit(|m| m.graph.as_mut().unwrap().node[0].domain = "my.own".into()).contains("no opset version is given for its domain"));
    assert!(edit(|m| m.graph.as_mut().unwrap().node[0].op_type.clear()).contains("without an operator type"));
    assert!(edit(|m| m.graph.as_mut().unwrap().output.clear()).contains("no output"));
    assert!(edit(|m| m.graph.as_mut().unwrap().input[0].r#type = None).contains("input \"x\"  its type is missing"));
    assert!(edit(|m| m.graph.as_mut().unwrap().input.push(port("x:f32[n]"))).contains("duplicate name: two inputs"));
    assert!(edit(|m| m.graph.as_mut().unwrap().initializer = vec![f32s("w", &[1], &[0.0]); 2]).contains("duplicate name: two values"));
    assert!(edit(|m| m.graph.as_mut().unwrap().node[0].attribute = vec![int("a", 1); 2]).contains("duplicate attribute `a`"));
}

#[test]
fn element_types_of_outputs_are_those_declared() {
    let m = load(&model(graph("x:f32[1]", vec![node("Relu", "x", "y")], "y:i64[1]"))).unwrap();
    let e = m.specialise(&[vec![1]]).err().unwrap();
    assert_eq!((e.list[0].kind, e.list[0].what), (RefusalKind::Invalid, "output"));
}

#[test]
fn inputs_with_a_default_are_constants() {
    let mut g = graph("x:f32[2] w:f32[2]", vec![node("Add", "x w", "y")], "y");
    g.initializer = vec![f32s("w", &[2], &[1.0, 2.0])];
    let m = model(g);
    assert_eq!(load(&m).unwrap().inputs().len(), 1);
    assert_eq!(run(&m, &[vector(&[1.0, 1.0])]).0[0].values::<f32>(), [2.0, 3.0]);
}

#[test]
fn shape_arithmetic_is_folded() {
    let nodes = vec![
        node("Shape", "x", "s"),
        constant("zero", i64s("", &[1], &[0])),
        node("Gather", "s zero", "n"),
        constant("minus", i64s("", &[1], &[-1])),
        with(node("Concat", "n minus", "t"), int("axis", 0)),
        node("Reshape", "x t", "y"),
    ];
    let (results, stages) = run(&model(graph("x:f32[a,b,c]", nodes, "y")), &[Tensor::new([2, 3, 4], &[0f32; 24])]);
    assert_eq!((results[0].shape(), &stages[..]), (&[2, 12][..], &[vec![Kind::Input, Kind::Reshape]][..]));
}

#[test]
fn functions_are_inlined() {
    let mut m = relu();
    m.opset_import.push(OperatorSetIdProto { domain: "my".into(), version: 1 });
    let axis = AttributeProto { name: "axis".into(), kind: attribute_kind::INT, ref_attr_name: "where".into(), ..Default::default() };
    m.functions = vec![FunctionProto {
        name: "Twice".into(),
        domain: "my".into(),
        input: vec!["a".into(), "unused".into()],
        output: vec!["c".into()],
        attribute: vec!["where".into()],
        node: vec![node("Add", "a a", "x"), with(node("Concat", "x a", "c"), axis)],
        opset_import: m.opset_import.clone(),
        ..Default::default()
    }];
    let call = NodeProto { domain: "my".into(), ..with(node("Twice", "x", "y"), int("where", 0)) };
    m.graph.as_mut().unwrap().node = vec![call];
    assert_eq!(run(&m, &[vector(&[1.0, 2.0])]).0[0].values::<f32>(), [2.0, 4.0, 1.0, 2.0]);
    m.functions[0].node[0] = NodeProto { domain: "my".into(), ..node("Twice", "a", "x") };
    assert!(refused(&m).contains("a function that calls itself"));
}

#[test]
fn what_no_output_needs_may_be_unsupported() {
    let mut g = graph("x:f32[1]", vec![node("StringNormalizer", "s", "t"), node("StringNormalizer", "t", "u"), node("Neg", "x", "y")], "y");
    g.initializer =
        vec![TensorProto { name: "s".into(), data_type: 8, dims: vec![1], string_data: vec!["a".into()], ..Default::default() }];
    let mut m = model(g);
    assert_eq!(run(&m, &[vector(&[1.0])]).0[0].values::<f32>(), [-1.0]);
    m.graph.as_mut().unwrap().output.push(port("u"));
    let message = refused(&m);
    for part in ["tensor \"s\"", "node \"n_t\"", "node \"n_u\""] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn defaults_must_fit_their_inputs() {
    for (declared, what) in [("w:i64[2]", "element type"), ("w:f32[3]", "shape"), ("w:f32[2,1]", "shape")] {
        let mut g = graph(&format!("x:f32[2] {declared}"), vec![node("Add", "x w", "y")], "y");
        g.initializer = vec![f32s("w", &[2], &[1.0, 2.0])];
        assert!(refused(&model(g)).contains(what));
    }
}

#[test]
fn expansion_bombs_are_refused() {
    let mut m = relu();
    m.opset_import.push(OperatorSetIdProto { domain: "my".into(), version: 1 });
    m.functions = (0..25)
        .map(|i| {
            let call = |from: &str, to: &str| NodeProto { domain: "my".into(), ..node(&format!("F{}", i + 1), from, to) };
            let leaf = vec![node("Neg", "a", "b"), node("Neg", "b", "c")];
            let node = if i == 24 { leaf } else { vec![call("a", "b"), call("b", "c")] };
            let (name, domain, opset_import) = (format!("F{i}"), "my".into(), m.opset_import.clone());
            FunctionProto { name, domain, input: vec!["a".into()], output: vec!["c".into()], node, opset_import, ..Default::default() }
        })
        .collect();
    m.graph.as_mut().unwrap().node = vec![NodeProto { domain: "my".into(), ..node("F0", "x", "y") }];
    assert!(refused(&m).contains("more than 100000 nodes after functions are expanded"));
}

#[test]
fn odd_but_legal_models_are_fine() {
    // An unused node, an input that is an output, an output twice, a constant output, no node at all.
    let mut g = graph("x:f32[2]", vec![node("Neg", "x", "dead")], "x x w");
    g.initializer = vec![f32s("w", &[0, 3], &[])];
    let (results, stages) = run(&model(g), &[vector(&[1.0, 2.0])]);
    assert_eq!((results[1].values::<f32>(), results[2].shape()), (&[1.0f32, 2.0][..], &[0, 3][..]));
    assert!(stages.is_empty(), "there is nothing to run");
}

#[test]
fn the_indices_of_a_scalar_have_no_axes() {
    let m = model(graph("x:f32[]", vec![node("NonZero", "x", "i")], "i"));
    for (x, found) in [(0.0, 0), (3.0, 1)] {
        assert_eq!(run(&m, &[Tensor::scalar(x as f32)]).0[0].shape(), [0, found]);
    }
}
