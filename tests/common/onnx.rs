//! Small models as bytes of ONNX's file format, written from text.

use dnnc::Type;

/// A model of opset 21. `inputs` and `outputs` are ports like `x:f32[2,n]`; a line of `nodes` is `Op(name=1, names=[1,2], word=text) a b -> c d`, where
/// `_` is an input that is left out, or a constant `i64 k[3] = 1 2 3` or `f32 k[] = 0.5`.
pub fn model(inputs: &str, nodes: &str, outputs: &str) -> Vec<u8> {
    let (mut list, mut constants) = (vec![], vec![]);
    for line in nodes.lines().map(str::trim).filter(|l| !l.is_empty()) {
        match line.split_once(" = ") {
            Some((left, values)) => constants.push(part(5, &constant(left, values))),
            None => list.push(part(1, &node(line, list.len()))),
        }
    }
    let ports = |number, text: &str| text.split_whitespace().map(|p| part(number, &port(p))).collect::<Vec<_>>().concat();
    let graph = [list.concat(), part(2, b"g"), constants.concat(), ports(11, inputs), ports(12, outputs)].concat();
    [number(1, 10), part(7, &graph), part(8, &number(2, 21))].concat()
}

fn constant(left: &str, values: &str) -> Vec<u8> {
    let (ty, rest) = left.split_once(' ').expect("a type and a name");
    let (name, dims) = rest.trim_end_matches(']').split_once('[').expect("a shape");
    let dims = dims.split(',').filter(|d| !d.is_empty()).map(|d| number(1, d.parse().expect("a size"))).collect::<Vec<_>>().concat();
    let raw: Vec<u8> = match ty {
        "i64" => values.split_whitespace().flat_map(|v| v.parse::<i64>().expect("a number").to_le_bytes()).collect(),
        "f32" => values.split_whitespace().flat_map(|v| v.parse::<f32>().expect("a number").to_le_bytes()).collect(),
        other => panic!("constants of {other} are not written"),
    };
    [dims, number(2, code(ty)), part(8, name.as_bytes()), part(9, &raw)].concat()
}

fn node(line: &str, place: usize) -> Vec<u8> {
    let (left, outputs) = line.split_once(" -> ").expect("an arrow");
    let (op, rest) = left.split_once(['(', ' ']).unwrap_or((left, ""));
    let (attributes, inputs) = if left.contains('(') { rest.split_once(')').expect("a closing bracket") } else { ("", rest) };
    let names =
        |field, text: &str| text.split_whitespace().map(|n| part(field, n.trim_matches('_').as_bytes())).collect::<Vec<_>>().concat();
    let attributes = attributes.split(", ").filter(|a| !a.is_empty()).map(|a| part(5, &attribute(a))).collect::<Vec<_>>().concat();
    [names(1, inputs), names(2, outputs), part(3, format!("n{place}").as_bytes()), part(4, op.as_bytes()), attributes].concat()
}

fn attribute(text: &str) -> Vec<u8> {
    const INT: u64 = 2;
    const STRING: u64 = 3;
    const INTS: u64 = 7;
    let (name, value) = text.split_once('=').expect("a value");
    let int = |field, v: &str| number(field, v.parse::<i64>().expect("a number") as u64);
    let (value, kind) = match value.strip_prefix('[') {
        Some(list) => {
            (list.trim_end_matches(']').split(',').filter(|v| !v.is_empty()).map(|v| int(8, v)).collect::<Vec<_>>().concat(), INTS)
        }
        None if value.parse::<i64>().is_ok() => (int(3, value), INT),
        None => (part(4, value.as_bytes()), STRING),
    };
    [part(1, name.as_bytes()), value, number(20, kind)].concat()
}

fn port(text: &str) -> Vec<u8> {
    let (name, ty) = text.split_once(':').expect("a type");
    let (elem, dims) = ty.trim_end_matches(']').split_once('[').expect("a shape");
    let dim = |d: &str| part(1, &d.parse().map_or_else(|_| part(2, d.as_bytes()), |n| number(1, n)));
    let dims = dims.split(',').filter(|d| !d.is_empty()).map(dim).collect::<Vec<_>>().concat();
    let tensor = [number(1, code(elem)), part(2, &dims)].concat();
    [part(1, name.as_bytes()), part(2, &part(1, &tensor))].concat()
}

/// ONNX's number of an element type.
fn code(ty: &str) -> u64 {
    match Type::parse(ty).expect("a type") {
        Type::F32 => 1,
        Type::U8 => 2,
        Type::I32 => 6,
        Type::I64 => 7,
        Type::Bool => 9,
        other => panic!("no number is known for {other}"),
    }
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = vec![];
    while n >= 128 {
        out.push(n as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A field that is a number.
fn number(field: u64, n: u64) -> Vec<u8> {
    [varint(field << 3), varint(n)].concat()
}

/// A field that is bytes, text or a message.
fn part(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}
