//! The text form of a graph: what `Display` prints, [`parse`] reads back exactly.
//!
//! ```text
//! graph(x: f32[1,3,8,8], k: i64[]) {
//!   %2 = const f32[8,3,3,3] splat 0.5
//!   %3: f32[1,8,8,8] = conv(%x, %2) {strides=[1,1], pads=[1,1,1,1], dilations=[1,1]}   ; the name of the node
//!   %4: f32[1,8,8,2], i64[1,8,8,2] = top_k(%3) {axis=3, k=2}
//!   return values = %4, indices = %4.1
//! }
//! ```
//!
//! Attributes that have their default value are left out. Constants are a short list, a `splat` of one value, or their bytes as hex;
//! numbers read back bit by bit. In text written by hand values may have any name and types of results may be left out.

mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::Brief;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Graph, Kind, Op, Tensor, TensorType, Type};
    use print::SHORT;

    /// The text of the graph of a text.
    fn again(text: &str) -> String {
        let graph = parse(text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        graph.validate().expect("a sound graph");
        let printed = graph.to_string();
        assert_eq!(parse(&printed).as_ref(), Ok(&graph), "{printed}");
        printed
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_network_reads_back() {
        let text = "graph(x: f32[1,3,8,8], \"odd: name\": i64[]) {
  %2 = const f32[8,3,3,3] splat 0.5 ; weights
  %3: f32[1,8,8,8] = conv(%x, %2) {strides=[1,1], pads=[1,1,1,1], dilations=[1,1]} ; features/conv 0; first
  %4: f32[1,8,8,2], i64[1,8,8,2] = top_k(%3) {axis=3, k=2}
  %5: i32[1,8,8,2] = cast(%4.1) {to=i32}
  %6: f32[1,8,8,2] = clamp(%4) {hi=6}
  %7: f32[4] = input(late)
  return y = %6, \"\" = %5, k = %1
}";
        assert_eq!(again(text), text);
    }

    #[test]
    fn bodies_are_nested() {
        let text = "graph(c: bool[], x: f32[2]) {
  %2: f32[2] = if(%c, %x) {then=graph(x: f32[2]) {
    return y = %x
  }, else=graph(x: f32[2]) {
    %1: f32[2] = neg(%x)
    return y = %1
  }}
  return y = %2
}";
        assert_eq!(again(text), text);
    }

    #[test]
    fn values_may_have_names_and_no_types() {
        let text = "; a comment
            graph(x: f32[2]) { %two = const f32[] [2]
              %y = mul(%x, %two)   return y = %y }";
        assert_eq!(again(text), "graph(x: f32[2]) {\n  %1 = const f32[] [2]\n  %2: f32[2] = mul(%x, %1)\n  return y = %2\n}");
    }

    #[test]
    fn numbers_keep_their_bits() {
        let constant = |t: Tensor| {
            let mut g = Graph::new();
            let c = g.constant(t);
            g.output("c", c);
            let text = g.to_string();
            assert_eq!(parse(&text).as_ref(), Ok(&g), "{text}");
            text.lines().nth(1).expect("a line").trim().to_string()
        };
        let floats = [0.1f32, -0.0, f32::NAN, f32::from_bits(0xffc0_0001), f32::INFINITY, f32::MIN_POSITIVE / 2.0, 1e30, 16777216.0, -3.0];
        assert_eq!(
            constant(Tensor::new([9], &floats)),
            "%0 = const f32[9] [0.1, -0, NaN, 0xffc00001, inf, 5.877472e-39, 1e30, 16777216.0, -3]"
        );
        assert_eq!(constant(Tensor::scalar(f64::MIN_POSITIVE)), "%0 = const f64[] [2.2250738585072014e-308]");
        assert_eq!(constant(Tensor::new([2], &[i64::MIN, -1])), "%0 = const i64[2] [-9223372036854775808, -1]");
        assert_eq!(constant(Tensor::new([1], &[u64::MAX])), "%0 = const u64[1] [18446744073709551615]");
        assert_eq!(constant(Tensor::new::<f32>([0, 3], &[])), "%0 = const f32[0,3] []");
        let bools = Tensor::with_type(TensorType::new(Type::Bool, [2]), &[1u8, 0]);
        assert_eq!(constant(bools), "%0 = const bool[2] [true, false]");
        // Every code of every small type.
        for ty in Type::ALL.iter().copied().filter(|ty| ty.bytes() == 1) {
            for first in (0..=255u8).step_by(SHORT) {
                let codes: Vec<u8> = (first..=first + (SHORT - 1) as u8).collect();
                constant(Tensor::with_type(TensorType::new(ty, [SHORT]), &codes));
            }
        }
        for ty in [Type::F16, Type::BF16] {
            for first in (0..=u16::MAX).step_by(SHORT) {
                let codes: Vec<u16> = (first..=first + (SHORT - 1) as u16).collect();
                constant(Tensor::with_type(TensorType::new(ty, [SHORT]), &codes));
            }
        }
        let long: Vec<i16> = (0..20).collect();
        assert!(constant(Tensor::new([20], &long)).starts_with("%0 = const i16[20] \"000001000200"));
    }

    #[test]
    fn large_constants_can_be_left_out() {
        let mut g = Graph::new();
        let c = g.constant(Tensor::new([20], &(0..20).collect::<Vec<i32>>()));
        g.output("c", c);
        let brief = g.brief().to_string();
        assert_eq!(
            brief.lines().nth(1),
            Some(format!("  %0 = const i32[20] #{:016x}", g.const_of(c).expect("a constant").digest()).as_str())
        );
        assert_eq!(error(&brief), "line 2, column 22: the contents of this constant were left out");
    }

    #[test]
    fn names_are_any_text() {
        let mut g = Graph::new();
        let x = g.input("a \"b\"\\\n\u{7f}é", TensorType::new(Type::F32, [1]));
        let twin = g.input("twin", TensorType::new(Type::F32, [1]));
        g.input("twin", TensorType::new(Type::F32, [1]));
        let y = g.add(Op::new(Kind::Add, []).expect("no attributes"), vec![x, twin], " \"quoted; and\nbroken").expect("types fit");
        g.output("\t", y);
        let z = g.add(Op::new(Kind::Neg, []).expect("no attributes"), vec![y], "plain; \"text\"").expect("types fit");
        g.output("z", z);
        let late = g.input("late", TensorType::new(Type::F32, [1]));
        g.set_name(late, "another name");
        let text = g.to_string();
        assert_eq!(parse(&text), Ok(g), "{text}");
    }

    #[test]
    fn errors_say_where() {
        let table = [
            ("graph(x: f32[2]) { return y = %z }", "line 1, column 33: there is no value `%z` yet"),
            ("graph(x: f33[2]) { return }", "line 1, column 13: `f33` is no element type"),
            ("graph(x: f32[2]) {\n  %1 = nag(%x)\n return }", "line 2, column 11: there is no operator `nag`"),
            ("graph(x: f32[2]) {\n  %1 = clamp(%x) {low=1}\n return }", "line 2, column 22: `clamp` has no attribute `low`"),
            ("graph(x: f32[2]) {\n  %1 = not(%x)\n return }", "line 2, column 7: `not`: the input is f32[2], but must be bool"),
            ("graph(x: f32[2]) {\n  %1: f32[3] = neg(%x)\n return }", "line 2, column 15: `%1` is [f32[2]], not [f32[3]]"),
            ("graph() { %0 = const i8[1] [128] return }", "line 1, column 32: `128` is no i8"),
            ("graph() { %0 = const i8[2] [1] return }", "line 1, column 31: 1 bytes are not those of a i8[2]"),
            ("graph() { return } x", "line 1, column 20: the text goes on after the graph"),
            ("graph(x: f32[9223372036854775807,9]) { return }", "line 1, column 36: a tensor f32[9223372036854775807,9] is too large"),
        ];
        for (text, expected) in table {
            assert_eq!(error(text), expected, "{text}");
        }
        let deep = "graph(c: bool[]) { %1 = if(%c) {then=".repeat(1000);
        assert!(error(&deep).contains("nested deeper"));
    }
}
