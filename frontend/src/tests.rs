//! Small models, written in code: what is checked, how control flow and sizes that depend on data are imported.

mod operators;

use crate::proto::*;
use crate::{Dim, Limits, Model, RefusalKind, Refusals, run_with};
use dnnc_ir::random::Rng;
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

/// `y = c ? then(x) : other(x)`
fn choice(then: Vec<NodeProto>, other: Vec<NodeProto>) -> ModelProto {
    let bodies = [body("then_branch", graph("", then, "t")), body("else_branch", graph("", other, "t"))];
    let node = bodies.into_iter().fold(node("If", "c", "y"), with);
    model(graph("x:f32[n] c:bool[]", vec![node], "y"))
}

#[test]
fn branches_of_one_type_are_an_if() {
    let m = choice(vec![node("Neg", "x", "t")], vec![node("Exp", "x", "t")]);
    for (c, want) in [(true, -0.0f32), (false, 1.0)] {
        let (results, stages) = run(&m, &[vector(&[0.0]), flag(c)]);
        assert_eq!((results[0].values::<f32>(), &stages[..]), (&[want][..], &[vec![Kind::Input, Kind::Input, Kind::If]][..]));
    }
}

#[test]
fn branches_of_different_shapes_are_stages() {
    let m = choice(vec![node("Neg", "x", "t")], vec![with(node("Concat", "x x", "t"), int("axis", 0))]);
    for (c, want) in [(true, &[-2.0f32][..]), (false, &[2.0, 2.0])] {
        let (results, stages) = run(&m, &[vector(&[2.0]), flag(c)]);
        assert_eq!((results[0].values::<f32>(), stages.len()), (want, 1), "the stage before the condition computes nothing");
    }
}

#[test]
fn a_branch_that_is_wrong_may_stay_untaken() {
    let nodes = vec![constant("s", i64s("", &[1], &[7])), node("Reshape", "x s", "t")];
    let m = choice(vec![node("Neg", "x", "t")], nodes);
    assert_eq!(run(&m, &[vector(&[2.0]), flag(true)]).0[0].values::<f32>(), [-2.0]);
}

#[test]
fn a_condition_that_is_known_is_no_branch() {
    let mut m = choice(vec![node("Neg", "x", "t")], vec![node("Exp", "x", "t")]);
    let g = m.graph.as_mut().unwrap();
    g.input.pop();
    g.initializer = vec![truth("c")];
    assert_eq!(run(&m, &[vector(&[2.0])]).1, [[Kind::Input, Kind::Neg]]);
}

#[test]
fn sizes_that_depend_on_data_cut_the_graph() {
    // Twice: the number of elements that are not 0, and again of what is left of another vector.
    let nodes = vec![
        node("NonZero", "x", "i"),
        node("Transpose", "i", "it"),
        node("GatherND", "w it", "a"),
        node("Exp", "w", "e"),
        node("NonZero", "a", "j"),
        node("Transpose", "j", "jt"),
        node("GatherND", "a jt", "b"),
    ];
    let m = model(graph("x:f32[n] w:f32[n]", nodes, "b e i"));
    let inputs = [vector(&[1.0, 0.0, 2.0, 3.0]), vector(&[5.0, 0.0, 0.0, 7.0])];
    let (results, stages) = run(&m, &inputs);
    assert_eq!((results[0].values::<f32>(), results[2].values::<i64>(), stages.len()), (&[5.0f32, 7.0][..], &[0i64, 2, 3][..], 3));
    assert!(stages[0].contains(&Kind::Exp) && !stages[1].contains(&Kind::Exp), "what does not wait is in the first stage: {stages:?}");
}

#[test]
fn a_shape_that_is_an_input_cuts_the_graph() {
    let m = model(graph("x:f32[6] s:i64[2]", vec![node("Exp", "x", "e"), node("Reshape", "e s", "y")], "y:f32[a,b]"));
    let (results, stages) = run(&m, &[vector(&[0.0; 6]), Tensor::new([2], &[3i64, -1])]);
    assert_eq!((results[0].shape(), stages.len()), (&[3, 2][..], 2));
    let direct = model(graph("x:f32[6] s:i64[2]", vec![node("Reshape", "x s", "y")], "y:f32[a,b]"));
    assert_eq!(run(&direct, &[vector(&[0.0; 6]), Tensor::new([2], &[3i64, -1])]).1.len(), 1, "a stage that computes nothing is not run");
    let loaded = load(&m).unwrap();
    let cut = loaded.specialise(&[vec![6], vec![2]]).unwrap().cut.unwrap();
    let resume = |s: [i64; 2]| cut.resume(&[Tensor::new([2], &s)]).map(|stage| stage.graph);
    assert_eq!(resume([2, 3]).unwrap(), resume([2, 3]).unwrap(), "equal values give equal stages");
    assert_ne!(resume([2, 3]).unwrap(), resume([3, 2]).unwrap());
    assert!(resume([4, 4]).unwrap_err().to_string().contains("Reshape (opset 17)  node \"n_y\""));
    assert!(cut.resume(&[]).is_err() && cut.resume(&[flag(true)]).is_err());
}

#[test]
fn scales_that_are_computed_count_fractions_of_an_element() {
    // The standard's test suite, whose scales are inputs, counts 4 · 0.6 = 2.4 elements; PyTorch, which writes constants, counts 2.
    let word = |name: &str, s: &str| AttributeProto {
        name: name.into(),
        kind: attribute_kind::STRING,
        s: Some(s.as_bytes().to_vec().into()),
        ..Default::default()
    };
    let resize = with(node("Resize", "x  s", "y"), word("coordinate_transformation_mode", "align_corners"));
    let resize = with(NodeProto { input: vec!["x".into(), String::new(), "s".into()], ..resize }, word("mode", "linear"));
    let (x, s) = (vector(&[1.0, 2.0, 3.0, 4.0]), vector(&[0.6]));
    let computed = run(&model(graph("x:f32[4] s:f32[1]", vec![resize.clone()], "y:f32[n]")), &[x.clone(), s]).0;
    assert_eq!(computed[0].values::<f32>(), &[1.0, 1.0 + (3.0 / 1.4) as f32]);
    let given = run(&model(graph("x:f32[4]", vec![constant("s", f32s("", &[1], &[0.6])), resize], "y:f32[n]")), &[x]).0;
    assert_eq!(given[0].values::<f32>(), &[1.0, 4.0]);
}

/// A loop that carries `a` and gives `s` an iteration.
fn repeat(trip: &str, cond: &str, nodes: Vec<NodeProto>) -> ModelProto {
    let body = body("body", graph("i:i64[] go:bool[] a", nodes, "going next s"));
    let mut g = graph("x:f32[n] m:i64[] c:bool[]", vec![with(node("Loop", &format!("{trip} {cond} x"), "y all"), body)], "y all");
    g.initializer = vec![i64s("three", &[], &[3]), i64s("none", &[], &[0]), truth("yes")];
    model(g)
}

fn doubling() -> Vec<NodeProto> {
    vec![node("Identity", "go", "going"), node("Add", "a a", "next"), node("Neg", "a", "s")]
}

/// As `doubling`, until an element is 8 or more.
fn doubling_up_to_8() -> Vec<NodeProto> {
    let mut nodes = doubling();
    nodes[0] = constant("eight", f32s("", &[], &[8.0]));
    nodes.extend([node("ReduceMax", "next", "top"), node("Squeeze", "top", "peak"), node("Less", "peak eight", "going")]);
    nodes
}

#[test]
fn counted_loops_are_loops() {
    for trip in ["three", "m"] {
        let (results, stages) = run(&repeat(trip, "_", doubling()), &[vector(&[1.0, 2.0]), Tensor::scalar(3i64), flag(true)]);
        assert_eq!(results[0].values::<f32>(), [8.0, 16.0]);
        assert_eq!((results[1].shape(), results[1].values::<f32>()), (&[3, 2][..], &[-1.0f32, -2.0, -2.0, -4.0, -4.0, -8.0][..]));
        assert!(stages.last().unwrap().contains(&Kind::Loop));
        assert_eq!(stages.len(), 1);
    }
}

#[test]
fn loops_that_do_not_run_give_empty_scans() {
    for (trip, cond, c) in [("none", "_", true), ("three", "c", false), ("m", "yes", true)] {
        let (results, _) = run(&repeat(trip, cond, doubling()), &[vector(&[1.0, 2.0]), Tensor::scalar(0i64), flag(c)]);
        assert_eq!((results[0].values::<f32>(), results[1].shape()), (&[1.0f32, 2.0][..], &[0, 2][..]), "{trip} {cond}");
    }
}

#[test]
fn loops_that_end_by_their_condition() {
    for (trip, cond) in [("_", "_"), ("_", "c"), ("m", "_"), ("m", "c")] {
        let (results, stages) = run(&repeat(trip, cond, doubling_up_to_8()), &[vector(&[1.0]), Tensor::scalar(9i64), flag(true)]);
        assert_eq!(
            (results[0].values::<f32>(), results[1].values::<f32>()),
            (&[8.0f32][..], &[-1.0f32, -2.0, -4.0][..]),
            "{trip} {cond}: {stages:?}"
        );
    }
}

#[test]
fn loops_without_scans_are_one_stage_whatever_ends_them() {
    let mut m = repeat("m", "c", doubling_up_to_8());
    let g = m.graph.as_mut().unwrap();
    (g.node[0].output, g.output) = (vec!["y".into()], vec![port("y")]);
    let (results, stages) = run(&m, &[vector(&[1.0]), Tensor::scalar(2i64), flag(true)]);
    assert_eq!((results[0].values::<f32>(), stages.len()), (&[4.0f32][..], 1));
}

#[test]
fn loops_that_change_shapes_are_unrolled() {
    let mut nodes = doubling();
    nodes[1] = with(node("Concat", "a a", "next"), int("axis", 0));
    nodes[2] = node("ReduceMax", "next", "s");
    for trip in ["three", "m"] {
        let got = run(&repeat(trip, "yes", nodes.clone()), &[vector(&[1.0]), Tensor::scalar(3i64), flag(true)]);
        assert_eq!((got.0[0].shape(), got.0[1].shape(), got.1.len()), (&[8][..], &[3, 1][..], 1));
    }
    let message = load(&repeat("m", "_", nodes)).unwrap().specialise(&[vec![1], vec![], vec![]]).unwrap().cut.unwrap();
    let e = message.resume(&[Tensor::scalar(1i64 << 40)]).err().unwrap().to_string();
    assert!(e.contains("Loop (opset 17)") && e.contains("too large"), "{e}");
}

#[test]
fn loops_that_grow_until_a_condition_are_stages() {
    let nodes = vec![
        with(node("Concat", "a a", "next"), int("axis", 0)),
        constant("six", f32s("", &[], &[6.0])),
        with(node("ReduceSum", "next", "sum"), int("keepdims", 0)),
        node("Less", "sum six", "going"),
        node("Neg", "sum", "s"),
    ];
    let (results, stages) = run(&repeat("_", "_", nodes), &[vector(&[1.0]), Tensor::scalar(0i64), flag(true)]);
    assert_eq!((results[0].shape(), results[1].values::<f32>(), stages.len()), (&[8][..], &[-2.0f32, -4.0, -8.0][..], 4));
}

#[test]
fn a_loop_without_an_end_is_refused() {
    let m = load(&repeat("_", "_", doubling())).unwrap();
    assert!(m.specialise(&[vec![1], vec![], vec![]]).err().unwrap().to_string().contains("never ends"));
}

fn scan(len: usize, attributes: Vec<AttributeProto>) -> (ModelProto, Vec<Tensor>) {
    let nodes = vec![node("Add", "a v", "sum"), node("Identity", "sum", "s")];
    let head = with(node("Scan", "x z", "y all"), body("body", graph("a v", nodes, "sum s")));
    let node = attributes.into_iter().fold(with(head, int("num_scan_inputs", 1)), with);
    let values: Vec<f32> = (0..2 * len).map(|i| i as f32).collect();
    (model(graph("x:f32[2] z:f32[t,2]", vec![node], "y all")), vec![vector(&[0.0, 0.0]), Tensor::new([len, 2], &values)])
}

#[test]
fn scans_are_loops() {
    let (m, inputs) = scan(3, vec![]);
    let (results, stages) = run(&m, &inputs);
    assert_eq!((results[0].values::<f32>(), results[1].values::<f32>()), (&[6.0f32, 9.0][..], &[0.0f32, 1.0, 2.0, 4.0, 6.0, 9.0][..]));
    assert!(stages.len() == 1 && stages[0].contains(&Kind::Loop));
}

#[test]
fn scans_of_every_length_agree_on_axes_and_directions() {
    let back = || vec![ints("scan_input_directions", &[1]), ints("scan_output_directions", &[1]), ints("scan_output_axes", &[1])];
    let (m, inputs) = scan(3, back());
    let results = run(&m, &inputs).0;
    assert_eq!((results[1].shape(), results[1].values::<f32>()), (&[2, 3][..], &[6.0f32, 6.0, 4.0, 9.0, 8.0, 5.0][..]));
    for (len, want) in [(1, &[0.0f32, 1.0][..]), (0, &[])] {
        let (m, inputs) = scan(len, back());
        let results = run(&m, &inputs).0;
        assert_eq!((results[1].shape(), results[1].values::<f32>()), (&[2, len][..], want));
    }
}

#[test]
fn scans_of_opset_8_have_a_batch_axis() {
    let (mut m, _) = scan(3, vec![]);
    m.opset_import[0].version = 8;
    let g = m.graph.as_mut().unwrap();
    g.input = vec![port("x:f32[2,1]"), port("z:f32[2,3,1]")];
    g.node[0].input.insert(0, String::new());
    let results = run(&m, &[Tensor::new([2, 1], &[0f32, 10.0]), Tensor::new([2, 3, 1], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])]).0;
    assert_eq!((results[0].shape(), results[0].values::<f32>()), (&[2, 1][..], &[6.0f32, 25.0][..]));
    assert_eq!((results[1].shape(), results[1].values::<f32>()), (&[2, 3, 1][..], &[1.0f32, 3.0, 6.0, 14.0, 19.0, 25.0][..]));
}

#[test]
fn declared_types_must_be_those_made() {
    let mut m = model(graph("x:f32[1]", vec![node("Relu", "x", "a"), node("Neg", "a", "y")], "y"));
    m.graph.as_mut().unwrap().value_info = vec![port("a:i64[1]")];
    let e = load(&m).unwrap().specialise(&[vec![1]]).err().unwrap().to_string();
    assert!(e.contains("output 0 has element type f32; the file declares i64"), "{e}");
}

#[test]
fn bodies_inside_bodies_see_the_names_around_them() {
    let inner = [
        body("then_branch", graph("", vec![node("Add", "a x", "t")], "t")),
        body("else_branch", graph("", vec![node("Mul", "a x", "t")], "t")),
    ];
    let nodes = vec![node("Identity", "go", "going"), inner.into_iter().fold(node("If", "c", "next"), with), node("Neg", "x", "s")];
    let (results, _) = run(&repeat("three", "_", nodes), &[vector(&[2.0]), Tensor::scalar(0i64), flag(false)]);
    assert_eq!((results[0].values::<f32>(), results[1].values::<f32>()), (&[16.0f32][..], &[-2.0f32; 3][..]));
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
fn broken_bytes_never_panic() {
    let seeds = [relu(), choice(doubling(), vec![node("Exp", "x", "t")]), repeat("three", "_", doubling_up_to_8()), scan(3, vec![]).0];
    let mut rng = Rng::new(1);
    let limits = Limits { tensor_bytes: 1 << 20, nodes: 1000, ..Limits::default() };
    let mut accepted = 0;
    for seed in seeds {
        let valid = seed.encode_to_vec();
        for _ in 0..3000 {
            let mut bytes = valid.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes[at] = rng.below(256) as u8,
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, rng.below(256) as u8),
                }
            }
            let Ok(model) = Model::from_bytes(&bytes, None, &limits) else { continue };
            let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 2 };
            let shapes: Vec<Vec<usize>> = model.inputs().iter().map(|p| p.dims.iter().flatten().map(size).collect()).collect();
            accepted += usize::from(model.specialise(&shapes).is_ok());
        }
    }
    assert!(accepted > 100, "{accepted} mutants were accepted: the rest of the way is not tested");
}

/// Wrong numbers, for every field of a file that holds one.
const ODD: [i64; 14] = [0, 1, -1, 2, 3, -2, 7, 64, -64, 1 << 20, 1 << 31, -(1 << 31), i64::MAX, i64::MIN];

/// Changes one thing of a model that is well-formed before and after.
fn mutate(model: &mut ModelProto, rng: &mut Rng) {
    let Some(graph) = &mut model.graph else { return };
    let odd = ODD[rng.below(ODD.len())];
    let names: Vec<String> = graph.node.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    let ops: Vec<String> = graph.node.iter().map(|n| n.op_type.clone()).collect();
    let pick = rng.below(graph.node.len().max(1));
    match (rng.below(9), graph.node.get_mut(pick)) {
        (0, _) => {
            let dims = graph.input.iter_mut().filter_map(|i| i.r#type.as_mut()?.tensor.as_mut()?.shape.as_mut());
            let mut dims: Vec<&mut DimensionProto> = dims.flat_map(|s| &mut s.dim).collect();
            let at = rng.below(dims.len().max(1));
            if let Some(dim) = dims.get_mut(at) {
                dim.dim_value = Some([0, 1, 2, 3, 5, 9][rng.below(6)]);
            }
        }
        (1, _) => {
            let at = rng.below(graph.input.len().max(1));
            if let Some(tensor) = graph.input.get_mut(at).and_then(|i| i.r#type.as_mut()?.tensor.as_mut()) {
                match rng.below(2) {
                    0 => tensor.elem_type = rng.below(27) as i32,
                    _ => drop(tensor.shape.as_mut().map(|s| s.dim.pop())),
                }
            }
        }
        (2, _) => {
            let at = rng.below(graph.initializer.len().max(1));
            if let Some(t) = graph.initializer.get_mut(at) {
                let n = t.int64_data.len();
                match &mut t.raw_data {
                    Some(raw) if t.data_type == 7 && raw.len() >= 8 => {
                        let (mut bytes, at) = (raw.to_vec(), rng.below(raw.len() / 8) * 8);
                        bytes[at..at + 8].copy_from_slice(&odd.to_le_bytes());
                        *raw = bytes.into();
                    }
                    _ if n > 0 => t.int64_data[rng.below(n)] = odd,
                    _ => t.dims = vec![t.dims.iter().product()],
                }
            }
        }
        (3 | 4, Some(node)) if !node.attribute.is_empty() => {
            let at = rng.below(node.attribute.len());
            let a = &mut node.attribute[at];
            let n = a.ints.len();
            match rng.below(4) {
                0 if n > 0 => a.ints.truncate(n - 1),
                1 if n > 0 => a.ints.push(odd),
                _ if n > 0 => a.ints[rng.below(n)] = odd,
                0 if a.f.is_some() => a.f = Some([f32::NAN, f32::INFINITY, -1.0, 0.0, 1e30][rng.below(5)]),
                1 => drop(node.attribute.remove(at)),
                _ if a.i.is_some() => a.i = Some(odd),
                _ => a.s = Some(vec![0xff; rng.below(3)].into()),
            }
        }
        (5, Some(node)) if !node.input.is_empty() => {
            let at = rng.below(node.input.len());
            match rng.below(4) {
                0 => node.input[at].clear(),
                1 => node.input.truncate(at),
                2 => node.input.push(String::new()),
                _ => node.input[at] = names[rng.below(names.len())].clone(),
            }
        }
        (6, Some(node)) => node.op_type = ops[rng.below(ops.len())].clone(),
        (7, Some(node)) => drop(node.output.pop()),
        _ => model.opset_import.iter_mut().for_each(|o| o.version = 1 + rng.below(28) as i64),
    }
}

/// Mutants of real files, which reach every importer. `DNNC_MUTANTS` names a folder whose folders hold each a `model.onnx`; without it
/// nothing runs, which is said. `DNNC_MUTANTS_SEED` gives other mutants.
#[test]
fn mutants_of_models_never_panic() {
    let Some(root) = std::env::var_os("DNNC_MUTANTS") else {
        eprintln!("DNNC_MUTANTS names no folder of models: nothing was tested");
        return;
    };
    let seed: u64 = std::env::var("DNNC_MUTANTS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let limits = Limits { tensor_bytes: 1 << 24, nodes: 2000, ..Limits::default() };
    let mut files: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path().join("model.onnx")).filter(|p| p.exists()).collect();
    files.sort();
    std::panic::set_hook(Box::new(|_| {}));
    let (mut panics, mut counts) = (vec![], [0; 3]);
    for (k, file) in files.iter().enumerate() {
        let Ok(valid) = ModelProto::decode(&std::fs::read(file).unwrap()[..]) else { continue };
        let mut rng = Rng::new(seed ^ (k as u64 + 1) << 32);
        for turn in 0..30 {
            let mut mutant = valid.clone();
            (0..1 + rng.below(2)).for_each(|_| mutate(&mut mutant, &mut rng));
            let bytes = mutant.encode_to_vec();
            let start = std::time::Instant::now();
            let outcome = std::panic::catch_unwind(|| {
                let Ok(model) = Model::from_bytes(&bytes, file.parent(), &limits) else { return 0 };
                let size = |d: &Dim| if let Dim::Known(n) = d { *n } else { 2 };
                let inputs: Option<Vec<Tensor>> =
                    model.inputs().iter().map(|p| some_input(p.ty?, p.dims.iter().flatten().map(size).collect())).collect();
                let Some(inputs) = inputs else { return 0 };
                let run = run_with(&model, &inputs, |graph, inputs| {
                    let bytes: usize = graph.nodes().iter().flat_map(|n| &n.types).map(TensorType::bytes).sum();
                    if bytes > 1 << 24 {
                        return Err("too large to be run here".into());
                    }
                    eval::eval(graph, inputs).map_err(|e| e.to_string())
                });
                1 + usize::from(run.is_ok())
            });
            let name = || format!("{} turn {turn}", file.parent().unwrap().file_name().unwrap().to_string_lossy());
            match outcome {
                Ok(kind) => counts[kind] += 1,
                Err(e) => {
                    let text = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| s.to_string()));
                    panics.push(format!("{}: {}", name(), text.unwrap_or_default()));
                }
            }
            if start.elapsed().as_secs() >= 5 {
                panics.push(format!("{}: takes {:.0} s", name(), start.elapsed().as_secs_f64()));
            }
        }
    }
    let _ = std::panic::take_hook();
    eprintln!("{} were refused when read, {} later, {} ran", counts[0], counts[1], counts[2]);
    assert!(panics.is_empty(), "{} mutants:\n{}", panics.len(), panics.join("\n"));
}

/// Numbers from −2 to 4 in every type.
fn some_input(ty: Type, shape: Vec<usize>) -> Option<Tensor> {
    let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    if len > 1 << 20 {
        return None;
    }
    let ty = TensorType::new(ty, shape);
    let value = |i: usize| Tensor::scalar((i * 5 % 13) as f64 / 2.0 - 2.0);
    let op = dnnc_ir::Op::new(Kind::Cast, [("to", ty.ty.into())]).ok()?;
    let bytes: Vec<u8> = (0..ty.len()).flat_map(|i| eval::eval_op(&op, &[value(i)]).unwrap()[0].bytes().to_vec()).collect();
    Tensor::from_bytes(ty, &bytes)
}

#[test]
fn the_places_of_a_scalar_have_no_axes() {
    let m = model(graph("x:f32[]", vec![node("NonZero", "x", "i")], "i"));
    for (x, found) in [(0.0, 0), (3.0, 1)] {
        assert_eq!(run(&m, &[Tensor::scalar(x as f32)]).0[0].shape(), [0, found]);
    }
}
