//! Operators where an element type, an attribute or a size was once wrong. `tools/operator-tests` finds such cases.

use super::*;

/// An operator with its domain's opset version: `Add 13`, `com.microsoft.Inverse 1`.
fn results(op: &str, attributes: Vec<AttributeProto>, inputs: &[Tensor], outputs: &str) -> Vec<Tensor> {
    let (name, version) = op.split_once(' ').expect("a version");
    let (domain, name) = name.rsplit_once('.').unwrap_or(("", name));
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let port = |(name, t): (&String, &Tensor)| format!("{name}:{}", t.ty());
    let ports: Vec<String> = names.iter().zip(inputs).map(port).collect();
    let mut n = node(name, &names.join(" "), outputs);
    (n.domain, n.attribute) = (domain.into(), attributes);
    let mut m = model(graph(&ports.join(" "), vec![n], outputs));
    let version = version.parse().expect("a number");
    m.opset_import = if domain.is_empty() { vec![] } else { vec![OperatorSetIdProto { domain: String::new(), version: 21 }] };
    m.opset_import.push(OperatorSetIdProto { domain: domain.into(), version });
    run(&m, inputs).0
}

fn result(op: &str, attributes: Vec<AttributeProto>, inputs: &[Tensor]) -> Tensor {
    results(op, attributes, inputs, "y").remove(0)
}

fn bytes(ty: Type, shape: &[usize], bytes: &[u8]) -> Tensor {
    Tensor::with_type(TensorType::new(ty, shape), bytes)
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::STRING, s: Some(s.as_bytes().to_vec().into()), ..Default::default() }
}

fn close(got: &Tensor, want: &[f32]) {
    let got = got.values::<f32>();
    assert!(got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?}, want {want:?}");
}

#[test]
fn a_scalar_has_no_axes_to_be_non_zero_on() {
    assert_eq!(*result("NonZero 13", vec![], &[Tensor::scalar(3.0f32)]).ty(), TensorType::new(Type::I64, [0, 1]));
    assert_eq!(*result("NonZero 13", vec![], &[Tensor::scalar(0.0f32)]).ty(), TensorType::new(Type::I64, [0, 0]));
}

#[test]
fn floats_of_8_bits_have_infinities_and_nan() {
    let flags = |op, ty, values: &[u8]| result(op, vec![], &[bytes(ty, &[values.len()], values)]).bytes().to_vec();
    assert_eq!(flags("IsNaN 20", Type::F8E4M3FN, &[0x7f, 0x38, 0xff]), [1, 0, 1]);
    assert_eq!(flags("IsNaN 20", Type::F8E4M3FNUZ, &[0x80, 0x38]), [1, 0]);
    assert_eq!(flags("IsInf 20", Type::F8E5M2, &[0x7c, 0xfc, 0x3c, 0x7f]), [1, 1, 0, 0]);
    assert_eq!(flags("IsInf 20", Type::F8E4M3FN, &[0x7e, 0x7f]), [0, 0]);
}

#[test]
fn bits_of_numbers_narrower_than_a_byte_are_kept() {
    let cast = |from, to, values: &[u8]| {
        let y = result("BitCast 26", vec![int("to", crate::element::type_code(to).into())], &[bytes(from, &[values.len()], values)]);
        assert_eq!(y.ty().ty, to);
        y.bytes().to_vec()
    };
    assert_eq!(cast(Type::I4, Type::U4, &[0xff, 7, 0xf8]), [15, 7, 8]);
    assert_eq!(cast(Type::U4, Type::I4, &[15, 7, 8]), [0xff, 7, 0xf8]);
    assert_eq!(cast(Type::F4E2M1, Type::I4, &[9, 7]), [0xf9, 7]);
    assert_eq!(cast(Type::I4, Type::F4E2M1, &[0xf9, 7]), [9, 7]);
    assert_eq!(cast(Type::U2, Type::I2, &[3, 1]), [0xff, 1]);
}

#[test]
fn operators_on_floats_take_the_integers_that_the_standard_allows() {
    let y = result("Erf 9", vec![], &[Tensor::new([3], &[0i32, 30, -30])]);
    assert_eq!(y.values::<i32>(), [0, 1, -1]);
    let (x, scale) = (Tensor::new([2], &[5i32, -6]), Tensor::scalar(2i32));
    let y = result("QuantizeLinear 19", vec![], &[x, scale, bytes(Type::U8, &[], &[3])]);
    assert_eq!(y.bytes(), [5, 0]); // 2.5 rounds to the even 2
    let equation = vec![text("equation", "ij,jk->ik")];
    let y = result("Einsum 12", equation, &[Tensor::new([1, 2], &[3i8, 4]), Tensor::new([2, 1], &[5i8, -60])]);
    assert_eq!((y.ty().ty, y.values::<i8>()[0]), (Type::I8, (15 - 240i32) as i8));
    let columns = Tensor::new([1, 2, 3], &[1i64, 2, 3, 10, 20, 30]);
    let y = result("Col2Im 18", vec![], &[columns, Tensor::new([1], &[4i64]), Tensor::new([1], &[2i64])]);
    assert_eq!(y.values::<i64>(), [1, 12, 23, 30]);
}

#[test]
fn scales_may_be_powers_of_two_in_8_bits() {
    let (x, scale) = (bytes(Type::U8, &[2], &[3, 8]), bytes(Type::F8E8M0, &[], &[128]));
    let y = result("DequantizeLinear 24", vec![int("output_dtype", 1)], &[x, scale]);
    assert_eq!(y.values::<f32>(), [6.0, 16.0]);
}

#[test]
fn quotients_are_rounded_to_the_precision_asked_for() {
    // 3.4999 is 3.5 in f16, which rounds to 4.
    let (x, scale) = (vector(&[3.4999]), Tensor::scalar(1.0f32));
    let quantised = |attributes| result("QuantizeLinear 23", attributes, &[x.clone(), scale.clone(), bytes(Type::U8, &[], &[0])]);
    assert_eq!(quantised(vec![]).bytes(), [3]);
    assert_eq!(quantised(vec![int("precision", 10)]).bytes(), [4]);
}

#[test]
fn values_of_attention_may_have_a_type_of_their_own() {
    let (q, k) = (Tensor::new([1, 1, 1, 1], &[1.0f32]), Tensor::new([1, 1, 2, 1], &[1.0f32, 1.0]));
    let y = result("Attention 23", vec![], &[q, k, Tensor::new([1, 1, 2, 1], &[2.0f64, 4.0])]);
    assert_eq!(y.values::<f32>(), [3.0]);
}

#[test]
fn nearest_elements_of_opset_10_are_rounded_up_where_an_axis_shrinks() {
    let x = Tensor::new([1, 1, 2, 4], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let y = result("Resize 10", vec![], &[x, vector(&[1.0, 1.0, 0.6, 0.6])]);
    assert_eq!((y.ty().shape.as_slice(), y.values::<f32>()), (&[1, 1, 1, 2][..], &[1.0, 3.0][..]));
}

#[test]
fn the_middle_of_a_window_is_one() {
    let y = result("BlackmanWindow 17", vec![int("output_datatype", 6)], &[Tensor::scalar(10i64)]);
    assert_eq!(y.values::<i32>(), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_cubic_outside_the_image_is_the_border() {
    let places = [1.0f32, 0.0, 1.25, 0.0, 7.0, 0.0];
    let (x, grid) = (Tensor::new([1, 1, 1, 4], &[1.0f32, 1.0, 1.0, 4.0]), Tensor::new([1, 1, 3, 2], &places));
    let y = result("GridSample 20", vec![text("mode", "cubic"), text("padding_mode", "border")], &[x, grid]);
    close(&y, &[4.28125, 4.0, 4.0]);
}

#[test]
fn inverses_choose_their_pivots() {
    let y = result("com.microsoft.Inverse 1", vec![], &[Tensor::new([2, 2, 2], &[4.0f32, 7.0, 2.0, 6.0, 0.0, 2.0, 4.0, 8.0])]);
    close(&y, &[0.6, -0.7, -0.2, 0.4, -1.0, 0.25, 0.5, 0.0]);
}

#[test]
fn repeated_tokens_are_blocked() {
    let (ids, scores) = (Tensor::new([1, 4], &[1i64, 2, 0, 1]), Tensor::new([1, 3], &[0.5f32, 0.25, 0.125]));
    let y = result("com.microsoft.NGramRepeatBlock 1", vec![int("ngram_size", 2)], &[ids, scores]);
    assert_eq!(y.values::<f32>(), [0.5, 0.25, f32::NEG_INFINITY]);
}

#[test]
fn causal_queries_start_behind_the_past() {
    let (q, k) = (Tensor::new([1, 1, 1], &[1.0f32]), Tensor::new([1, 2, 1], &[1.0f32, 1.0]));
    let attributes = vec![int("num_heads", 1), int("unidirectional", 1)];
    let y = result("com.microsoft.MultiHeadAttention 1", attributes, &[q, k, Tensor::new([1, 2, 1], &[5.0f32, 7.0])]);
    assert_eq!(y.values::<f32>(), [5.0]);
}

#[test]
fn sequences_of_one_batch_may_hold_different_numbers_of_keys() {
    let one = |values: [f32; 2]| Tensor::new([2, 1, 1], &values);
    let past = |values: [f32; 4]| Tensor::new([2, 1, 2, 1], &values);
    let (ends, total) = (Tensor::new([2], &[2i32, 1]), Tensor::scalar(3i32));
    let inputs = [one([1.0, 1.0]), one([0.0, 0.0]), one([9.0, 8.0]), past([0.0; 4]), past([3.0, 6.0, 4.0, 100.0]), ends, total];
    let attributes = vec![int("num_heads", 1), int("kv_num_heads", 1)];
    let got = results("com.microsoft.GroupQueryAttention 1", attributes, &inputs, "y k v");
    // The second sequence has one past key: its new one comes behind that.
    close(&got[0], &[6.0, 6.0]);
    close(&got[2], &[3.0, 6.0, 9.0, 4.0, 8.0, 0.0]);
}

#[test]
fn a_convolution_of_no_channels_is_its_bias() {
    let zeros = |shape: &[usize]| Tensor::zeros(TensorType::new(Type::F32, shape));
    let operands = [zeros(&[1, 0, 4]), zeros(&[2, 0, 3]), Tensor::new([2], &[1.5f32, -2.0])];
    assert_eq!(result("Conv 11", vec![], &operands), Tensor::new([1, 2, 2], &[1.5f32, 1.5, -2.0, -2.0]));
    let groups = vec![int("group", 2)];
    assert_eq!(result("Conv 11", groups, &[zeros(&[1, 0, 4, 1]), zeros(&[2, 0, 3, 1])]), zeros(&[1, 2, 2, 1]));
}

#[test]
fn tokens_get_what_their_experts_say() {
    let three = 3f32.ln();
    let (tokens, scores) = (Tensor::new([2, 1], &[2.0f32, 1.0]), Tensor::new([2, 2], &[three, 0.0, 0.0, three]));
    let layer = |values: [f32; 2]| Tensor::new([2, 1, 1], &values);
    let bias = Tensor::new([2, 1], &[0.0f32, 1.0]);
    // relu(2·3)·2 of the first and relu(1·5 + 1)·5 of the second.
    let inputs = [tokens, scores, layer([3.0, 5.0]), bias, layer([2.0, 5.0])];
    let of_all = result("com.microsoft.MoE 1", vec![int("k", 1)], &inputs);
    close(&of_all, &[0.75 * 12.0, 0.75 * 30.0]);
    close(&result("com.microsoft.MoE 1", vec![int("normalize_routing_weights", 1)], &inputs), &[12.0, 30.0]);
}

#[test]
fn experts_of_a_few_bits() {
    let (tokens, scores) = (Tensor::new([1, 2], &[1.0f32, 2.0]), Tensor::new([1, 2], &[1.0f32, 0.0]));
    let layer = |rows: [u8; 4]| bytes(Type::U8, &[2, 2, 1], &rows);
    let (unit, half) = (Tensor::new([2, 2], &[1.0f32; 4]), Tensor::new([2, 2], &[0.5f32; 4]));
    let bias = Tensor::new([2, 2], &[0.0f32, 0.0, 9.0, 9.0]);
    // [[2, 1], [0, -1]], then half of the unit matrix.
    let inputs = [tokens, scores, layer([0x9a, 0x78, 0xff, 0xff]), unit, bias.clone(), layer([0x89, 0x98, 0xff, 0xff]), half, bias];
    close(&result("com.microsoft.QMoE 1", vec![], &inputs), &[2.0, 0.0]);
}
