use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Tensor, Type};

/// Steps, batch and hidden units: less and more than a block, odd, one.
const SIZES: [(usize, usize, usize); 7] = [(3, 1, 5), (2, 2, 16), (4, 3, 37), (1, 1, 1), (0, 2, 8), (2, 7, 12), (3, 5, 24)];

fn case(kind: Kind, ty: Type, seed: u64, (steps, batch, hidden): (usize, usize, usize), more: &[(&'static str, Attr)], known: bool) {
    let r = &mut Random::new(seed);
    let gates = match kind {
        Kind::Lstm => 4,
        Kind::Gru => 3,
        _ => 1,
    };
    let on = |name: &str| more.iter().any(|(n, v)| *n == name && *v == Attr::Int(1));
    let mut inputs = vec![
        (r.tensor(ty, [steps, batch, gates * hidden]), false),
        (r.tensor(ty, [gates * hidden, hidden]), known),
        (r.tensor(ty, [batch, hidden]), false),
    ];
    if kind == Kind::Lstm {
        inputs.push((r.tensor(ty, [batch, hidden]), false));
    }
    if on("has_bias") {
        inputs.push((r.tensor(ty, [3 * hidden]), true));
    }
    if on("has_lens") {
        let lens: Vec<i64> = (0..batch).map(|_| r.size(0, steps) as i64).collect();
        inputs.push((Tensor::new([batch], &lens), false));
    }
    if on("has_peepholes") {
        inputs.push((r.tensor(ty, [3 * hidden]), true));
    }
    let mut attrs = vec![("hidden", Attr::Int(hidden as i64))];
    attrs.extend(more.iter().cloned());
    check(kind, &attrs, &inputs);
}

#[test]
fn layers_give_the_reference() {
    for (i, &size) in SIZES.iter().enumerate() {
        for kind in [Kind::Lstm, Kind::Gru, Kind::Rnn] {
            case(kind, Type::F32, i as u64, size, &[], true);
            case(kind, Type::F32, i as u64, size, &[("reverse", 1.into()), ("has_lens", 1.into()), ("clip", 0.5.into())], false);
        }
        case(Kind::Lstm, Type::F32, 7, size, &[("has_peepholes", 1.into()), ("input_forget", 1.into())], true);
        case(Kind::Gru, Type::F32, 8, size, &[("has_bias", 1.into()), ("linear_before_reset", 1.into())], true);
        case(Kind::Gru, Type::F32, 9, size, &[("has_bias", 1.into()), ("has_lens", 1.into())], true);
    }
}

#[test]
fn other_types_and_activations_give_the_reference() {
    for ty in [Type::F16, Type::F64] {
        case(Kind::Lstm, ty, 1, (2, 2, 9), &[], true);
        case(Kind::Gru, ty, 2, (2, 1, 9), &[], false);
    }
    let words =
        ["relu", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu", "softsign", "softplus", "sigmoid"];
    for (i, word) in words.into_iter().enumerate() {
        case(Kind::Rnn, Type::F32, i as u64, (3, 1, 9), &[("act", word.into()), ("alpha", 0.3.into()), ("beta", 0.4.into())], true);
    }
}
