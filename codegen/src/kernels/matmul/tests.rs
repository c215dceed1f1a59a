use crate::kernels::lib::gemm::types::VARIANTS;
use crate::kernels::testing::{Random, check};
use dnnc_ir::{Attr, Kind, Type};

fn product(types: [Type; 2], a: &[usize], b: &[usize], trans: [bool; 2], known: bool) {
    let mut r = Random::new((a.iter().chain(b).sum::<usize>() + usize::from(known)) as u64);
    let flip = |s: &[usize], t: bool| {
        let mut s = s.to_vec();
        if t {
            let n = s.len();
            s.swap(n - 1, n - 2);
        }
        s
    };
    let inputs = [(r.tensor(types[0], flip(a, trans[0])), false), (r.tensor(types[1], flip(b, trans[1])), known)];
    check(Kind::MatMul, &[("trans_a", Attr::from(trans[0])), ("trans_b", Attr::from(trans[1]))], &inputs);
}

#[test]
fn any_size_any_side() {
    let mut r = Random::new(1);
    for _ in 0..60 {
        let (m, k, n) = (r.size(1, 40), r.size(1, 40), r.size(1, 70));
        let trans = [r.size(0, 1) == 1, r.size(0, 1) == 1];
        product([Type::F32; 2], &[m, k], &[k, n], trans, r.size(0, 1) == 1);
    }
}

/// Every variant that takes several elements a step, with parts of a step, few rows, and panels made at compile time and at run time.
#[test]
fn product_types_of_several_elements() {
    let mut r = Random::new(5);
    for variant in VARIANTS.iter().filter(|v| v.k_step > 1) {
        for (&lhs, &rhs) in variant.lhs.iter().flat_map(|lhs| variant.rhs.iter().map(move |rhs| (lhs, rhs))) {
            for depth in 1..2 * variant.k_step + 2 {
                let (m, n) = (r.size(1, 20), r.size(1, 40));
                product([lhs, rhs], &[m, depth], &[depth, n], [false, depth % 2 == 0], depth % 3 > 0);
            }
            for _ in 0..8 {
                let (m, k, n) = (r.size(1, 40), r.size(1, 90), r.size(1, 70));
                let known = r.size(0, 1) == 1;
                product([lhs, rhs], &[m, k], &[k, n], [false, r.size(0, 1) == 1], known);
                product([lhs, rhs], &[2, 3, m], &[2, m, n], [false, r.size(0, 1) == 1], known);
            }
            product([lhs, rhs], &[1, 64], &[64, 33], [false, false], true);
            product([lhs, rhs], &[20, 30], &[30, 33], [true, false], true);
        }
    }
}

#[test]
fn sums_of_nothing_are_zero() {
    for types in [[Type::F32; 2], [Type::I8, Type::U8], [Type::F16; 2], [Type::I64; 2]] {
        for (m, n) in [(1, 1), (2, 7), (40, 33)] {
            for trans_b in [false, true] {
                product(types, &[m, 0], &[0, n], [false, trans_b], false);
                product(types, &[3, m, 0], &[0, n], [true, trans_b], true);
            }
        }
    }
}

#[test]
fn single_rows_and_columns() {
    for known in [false, true] {
        for trans_b in [false, true] {
            product([Type::F32; 2], &[1, 70], &[70, 130], [false, trans_b], known);
            product([Type::F32; 2], &[30, 70], &[70, 1], [false, trans_b], known);
            product([Type::F32; 2], &[3, 33], &[33, 3], [false, trans_b], known);
            product([Type::F32; 2], &[1, 1], &[1, 1], [false, trans_b], known);
        }
    }
}

#[test]
fn few_rows_or_columns_with_contiguous_reductions() {
    for (m, n) in [(1, 19), (2, 21), (1, 8), (1, 3), (2, 2), (70, 1), (33, 2), (16, 3), (29, 4), (9, 1)] {
        for (depth, known) in [(64, false), (37, false), (37, true), (128, true)] {
            product([Type::F32; 2], &[m, depth], &[depth, n], [false, true], known);
            product([Type::F32; 2], &[m, depth], &[depth, n], [false, false], known);
        }
    }
    product([Type::F32; 2], &[3, 2, 40], &[3, 40, 11], [false, true], false);
    product([Type::F32; 2], &[3, 20, 40], &[3, 40, 2], [false, false], true);
    for types in [[Type::F64; 2], [Type::F16; 2], [Type::U8, Type::I8], [Type::I32; 2]] {
        product(types, &[1, 70], &[70, 13], [false, true], false);
        product(types, &[20, 70], &[70, 3], [false, false], true);
    }
}

#[test]
fn long_reductions_are_done_in_parts() {
    product([Type::F32; 2], &[50, 1703], &[1703, 24], [false, false], true);
    product([Type::F32; 2], &[50, 1703], &[1703, 9], [true, true], false);
}

#[test]
fn batches_broadcast() {
    for known in [false, true] {
        product([Type::F32; 2], &[3, 5, 7], &[3, 7, 9], [false, false], known);
        product([Type::F32; 2], &[3, 5, 7], &[7, 9], [false, true], known);
        product([Type::F32; 2], &[3, 5, 7], &[7, 9], [true, false], known);
        product([Type::F32; 2], &[2, 1, 5, 7], &[3, 7, 17], [false, false], known);
        product([Type::F32; 2], &[5, 7], &[2, 3, 7, 2], [false, false], known);
        product([Type::F32; 2], &[2, 1, 3, 5, 4], &[1, 2, 1, 4, 6], [false, false], known);
    }
}

#[test]
fn every_type() {
    use Type::*;
    for types in [[F64, F64], [F16, F16], [BF16, BF16], [I8, I8], [U8, I8], [I8, U8], [I32, I32], [U8, I32], [I64, I64], [U32, U32]] {
        for (known, trans_b) in [(false, false), (true, false), (false, true)] {
            product(types, &[2, 7, 19], &[2, 19, 21], [false, trans_b], known);
            product(types, &[1, 19], &[19, 21], [false, trans_b], known);
        }
    }
}

#[test]
fn nothing_to_add_and_nothing_to_do() {
    product([Type::F32; 2], &[3, 0], &[0, 5], [false, false], false);
    product([Type::F32; 2], &[3, 0], &[0, 5], [false, false], true);
    product([Type::F32; 2], &[3, 0], &[0, 5], [false, true], false);
    product([Type::I8; 2], &[3, 0], &[0, 5], [false, false], false);
    product([Type::F32; 2], &[0, 4], &[4, 5], [false, false], true);
    product([Type::F32; 2], &[2, 3, 4], &[2, 4, 0], [false, false], false);
}
