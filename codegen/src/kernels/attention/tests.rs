use crate::kernels::testing::{self, Random, check};
use crate::unit::Options;
use dnnc_ir::{Graph, Kind, Tensor, Type, Value};

#[test]
fn attention_gives_the_reference() {
    let r = &mut Random::new(5);
    for (batch, queries, keys, width, value) in
        [(vec![2, 3], 5, 5, 8, 8), (vec![1], 1, 7, 3, 5), (vec![], 17, 9, 16, 33), (vec![2], 4, 4, 1, 1)]
    {
        for (causal, masked) in [(0, false), (1, false), (0, true), (1, true)] {
            let of = |rows: usize, columns: usize| [batch.clone(), vec![rows, columns]].concat();
            let mut inputs = vec![
                (r.tensor(Type::F32, of(queries, width)), false),
                (r.tensor(Type::F32, of(keys, width)), false),
                (r.tensor(Type::F32, of(keys, value)), false),
            ];
            if masked {
                inputs.push((r.tensor(Type::F32, [queries, keys]), false));
            }
            check(Kind::Attention, &[("scale", 0.37.into()), ("causal", causal.into())], &inputs);
        }
    }
}

#[test]
fn masks_of_every_kind_are_added() {
    let r = &mut Random::new(6);
    for mask in [vec![1, 1], vec![13, 1], vec![1, 11], vec![11], vec![2, 3, 13, 11], vec![2, 1, 1, 11], vec![]] {
        let inputs = [[2, 3, 13, 5], [2, 1, 11, 5], [1, 3, 11, 9]].map(|shape| (r.tensor(Type::F32, shape), false));
        let inputs = [&inputs[..], &[(r.tensor(Type::F32, mask), false)]].concat();
        for causal in [0, 1] {
            check(Kind::Attention, &[("scale", (-0.7).into()), ("causal", causal.into())], &inputs);
        }
    }
}

#[test]
fn other_types_give_the_reference() {
    let r = &mut Random::new(7);
    for ty in [Type::F64, Type::F16, Type::BF16] {
        let inputs = [[2, 5, 8], [2, 9, 8], [2, 9, 3]].map(|shape| (r.tensor(ty, shape), false));
        check(Kind::Attention, &[("scale", 0.5.into())], &inputs);
    }
}

#[test]
fn many_queries_are_done_in_blocks() {
    let r = &mut Random::new(8);
    for (queries, keys) in [(70, 19), (23, 300), (1, 130), (150, 131), (40, 96)] {
        let inputs = [[2, queries, 6], [2, keys, 6], [2, keys, 10]].map(|shape| (r.tensor(Type::F32, shape), false));
        let mask = (r.tensor(Type::F32, [queries, keys]), false);
        check(Kind::Attention, &[("scale", 0.5.into()), ("causal", 1.into())], &inputs);
        check(Kind::Attention, &[("scale", 5.0.into())], &[&inputs[..], &[mask]].concat());
    }
}

fn labels(program: &dnnc_kir::program::Program) -> Vec<&str> {
    dnnc_kir::program::calls(&program.steps).iter().map(|c| c.label.as_str()).collect()
}

/// A network of heads: what its kernels give, how many there are, and what they should give.
fn heads(network: impl Fn(&mut Graph, &[Value]) -> Value, shapes: &[Vec<usize>], kernels: usize) {
    let (mut g, r) = (Graph::new(), &mut Random::new(9));
    let inputs: Vec<_> = shapes.iter().map(|s| r.tensor(Type::F32, s.clone())).collect();
    let values: Vec<Value> = inputs.iter().enumerate().map(|(i, t)| g.input(&format!("x{i}"), t.ty().clone())).collect();
    let y = network(&mut g, &values);
    g.output("y", y);
    let want = dnnc_ir::eval::eval(&g, &inputs).expect("a network").remove(0);
    for target in testing::targets() {
        for threads in [1, 3] {
            let options = Options { threads, ..Options::default() };
            let (program, _) = crate::lower::lower(g.clone(), "heads", &target, &options).expect("kernels for all");
            assert_eq!(program.steps.len(), kernels, "{:?}", labels(&program));
            let bytes: Vec<&[u8]> = inputs.iter().map(|t| t.bytes()).collect();
            let got = dnnc_kir::interpret::run(&program, &bytes).expect("it runs").remove(0);
            testing::close(&Tensor::from_bytes(want.ty().clone(), &got).expect("a result"), &want).expect("the reference");
        }
    }
}

fn turn(g: &mut Graph, x: Value, perm: [usize; 4]) -> Value {
    g.apply(Kind::Transpose, [("perm", perm[..].into())], &[x]).expect("a transpose")
}

fn reshape(g: &mut Graph, x: Value, shape: &[usize]) -> Value {
    g.apply(Kind::Reshape, [("shape", shape.into())], &[x]).expect("a reshape")
}

fn slice(g: &mut Graph, x: Value, starts: &[usize], sizes: &[usize]) -> Value {
    let attrs = [("starts", starts.into()), ("sizes", sizes.into()), ("steps", [1; 3][..].into())];
    g.apply(Kind::Slice, attrs, &[x]).expect("a slice")
}

#[test]
fn heads_are_read_and_left_where_they_lie() {
    let separate = |g: &mut Graph, x: &[Value]| {
        let [q, k, v] = [0, 1, 2].map(|i| {
            let split = reshape(g, x[i], &[2, 13, 3, 9]);
            turn(g, split, [0, 2, 1, 3])
        });
        let y = g.apply(Kind::Attention, [("scale", 0.4.into())], &[q, k, v]).expect("attention");
        let y = turn(g, y, [0, 2, 1, 3]);
        reshape(g, y, &[2, 13, 27])
    };
    heads(separate, &vec![vec![2, 13, 27]; 3], 1);
    // All three in one value, heads outermost, and a user beside the attention.
    let together = |g: &mut Graph, x: &[Value]| {
        let [q, k, v] = [0, 1, 2].map(|i| {
            let part = slice(g, x[0], &[0, 0, i * 24], &[1, 13, 24]);
            let split = reshape(g, part, &[1, 13, 3, 8]);
            let turned = turn(g, split, [0, 2, 1, 3]);
            reshape(g, turned, &[3, 13, 8])
        });
        let y = g.apply(Kind::Attention, [], &[q, k, v]).expect("attention");
        let y = g.apply(Kind::Add, [], &[y, k]).expect("a sum");
        let y = reshape(g, y, &[1, 3, 13, 8]);
        turn(g, y, [0, 2, 1, 3])
    };
    heads(together, &[vec![1, 13, 72]], 5);
    // Values whose columns lie apart, and heads that serve several.
    let grouped = |g: &mut Graph, x: &[Value]| {
        let v = turn(g, x[2], [0, 1, 3, 2]);
        let k = reshape(g, x[1], &[1, 2, 1, 11, 5]);
        let k = g.apply(Kind::Expand, [("shape", [1usize, 2, 3, 11, 5][..].into())], &[k]).expect("expanded");
        let k = reshape(g, k, &[1, 6, 11, 5]);
        g.apply(Kind::Attention, [], &[x[0], k, v]).expect("attention")
    };
    heads(grouped, &[vec![1, 6, 7, 5], vec![1, 2, 11, 5], vec![1, 6, 4, 11]], 2);
}
