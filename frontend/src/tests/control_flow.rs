//! Branches, loops, scans, and sizes that depend on data.

use super::*;

/// `y = c ? then(x) : other(x)`
pub(super) fn choice(then: Vec<NodeProto>, other: Vec<NodeProto>) -> ModelProto {
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

/// A loop that carries `a` and gives one `s` per iteration.
pub(super) fn repeat(trip: &str, cond: &str, nodes: Vec<NodeProto>) -> ModelProto {
    let body = body("body", graph("i:i64[] go:bool[] a", nodes, "going next s"));
    let mut g = graph("x:f32[n] m:i64[] c:bool[]", vec![with(node("Loop", &format!("{trip} {cond} x"), "y all"), body)], "y all");
    g.initializer = vec![i64s("three", &[], &[3]), i64s("none", &[], &[0]), truth("yes")];
    model(g)
}

pub(super) fn doubling() -> Vec<NodeProto> {
    vec![node("Identity", "go", "going"), node("Add", "a a", "next"), node("Neg", "a", "s")]
}

/// As `doubling`, until an element is 8 or more.
pub(super) fn doubling_up_to_8() -> Vec<NodeProto> {
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

pub(super) fn scan(len: usize, attributes: Vec<AttributeProto>) -> (ModelProto, Vec<Tensor>) {
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
