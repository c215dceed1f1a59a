use crate::kernels::testing::{Random, check};
use dnnc_ir::{Kind, Type};

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
