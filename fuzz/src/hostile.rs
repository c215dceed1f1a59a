//! Mutation of models: the messages of the file are changed, not its bytes, so that most mutants get past the decoder.
//!
//! Also used by `tests/hostile/`, which makes a fixed number of mutants at every run of the tests.

#[path = "../../frontend/src/proto.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
pub(crate) mod proto;

use prost::Message;
use proto::*;

/// Every operator of ONNX with its attributes; see the frontend.
const SCHEMAS: &str = include_str!("../../frontend/src/schemas.txt");

/// Numbers that break things.
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    -2,
    4,
    5,
    7,
    8,
    16,
    31,
    63,
    64,
    127,
    128,
    255,
    256,
    -128,
    1000,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 31,
    1 << 32,
    1 << 33,
    1 << 40,
    1 << 61,
    1 << 62,
    i64::MAX,
    i64::MAX - 1,
    i64::MIN,
    i64::MIN + 1,
];

/// Random choices, of values that may be hostile.
pub struct Rng(dnnc_ir::random::Rng);

impl Rng {
    /// The generator that starts from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(dnnc_ir::random::Rng::new(seed))
    }

    /// A number less than `n`; 0 when that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n.max(1))
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }

    fn take<T>(&mut self, mut from: Vec<T>) -> Option<T> {
        if from.is_empty() { None } else { Some(from.swap_remove(self.below(from.len()))) }
    }

    fn number(&mut self) -> i64 {
        NUMBERS[self.below(NUMBERS.len())]
    }

    /// A small number most of the time.
    fn size(&mut self) -> i64 {
        if self.one_in(3) { self.number() } else { self.below(6) as i64 }
    }

    fn float(&mut self) -> f32 {
        let all = [0.0, -0.0, 1.0, -1.0, 0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40, 3e9, -3e9, 1e19];
        all[self.below(all.len())]
    }
}

/// Changes a model in a few places; `None` when the bytes are no model.
pub fn mutate(bytes: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut model = ModelProto::decode(bytes).ok()?;
    for _ in 0..1 + rng.below(3) {
        change(&mut model, rng);
    }
    Some(model.encode_to_vec())
}

/// A model made of parts of two; `None` when one is none.
pub fn cross(a: &[u8], b: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let (mut model, other) = (ModelProto::decode(a).ok()?, ModelProto::decode(b).ok()?);
    let (graph, donor) = (model.graph.as_mut()?, other.graph?);
    let names = names(graph);
    let start = rng.below(donor.node.len());
    let len = 1 + rng.below(3);
    for mut node in donor.node.into_iter().skip(start).take(len) {
        for input in &mut node.input {
            if rng.one_in(2)
                && let Some(name) = rng.pick(&names)
            {
                input.clone_from(name);
            }
        }
        let at = rng.below(graph.node.len() + 1);
        graph.node.insert(at, node);
    }
    graph.initializer.extend(donor.initializer);
    if rng.one_in(2) {
        graph.input.extend(donor.input);
    }
    if rng.one_in(2) {
        graph.output.extend(donor.output);
    }
    model.functions.extend(other.functions);
    model.opset_import.extend(other.opset_import);
    model.opset_import.dedup_by(|a, b| a.domain == b.domain);
    Some(model.encode_to_vec())
}

fn change(model: &mut ModelProto, rng: &mut Rng) {
    match rng.below(26) {
        0..=3 => {
            // Any number anywhere.
            let mut all = vec![];
            numbers(model, &mut all);
            if let Some(n) = rng.take(all) {
                *n = match rng.below(4) {
                    0 => n.wrapping_add(1),
                    1 => n.wrapping_sub(1),
                    _ => rng.number(),
                };
            }
        }
        4 => {
            if let Some(import) = rng.take(model.opset_import.iter_mut().collect()) {
                import.version = match rng.below(6) {
                    0 => rng.number(),
                    _ => 1 + rng.below(28) as i64,
                };
            }
        }
        5 => functions(model, rng),
        6 => model.ir_version = Some(rng.size()),
        7..=9 => {
            let mut all = vec![];
            tensors_of_model(model, &mut all);
            if let Some(t) = rng.take(all) {
                tensor(t, rng);
            }
        }
        10 | 11 => {
            if let Some(graph) = a_graph(model, rng) {
                let mut ports: Vec<&mut ValueInfoProto> = graph.input.iter_mut().chain(&mut graph.output).collect();
                ports.extend(&mut graph.value_info);
                if let Some(port) = rng.take(ports) {
                    info(port, rng);
                }
            }
        }
        12 => {
            if let Some(graph) = a_graph(model, rng) {
                lists(graph, rng);
            }
        }
        13 => {
            // A constant of hostile numbers in the place of an input.
            if let Some(graph) = a_graph(model, rng) {
                let name = format!("c{}", rng.below(1000));
                let n = rng.below(5);
                let values: Vec<i64> = (0..n).map(|_| rng.size()).collect();
                let t = TensorProto { name: name.clone(), data_type: 7, dims: vec![n as i64], int64_data: values, ..Default::default() };
                graph.initializer.push(t);
                if let Some(node) = rng.take(graph.node.iter_mut().collect()) {
                    let at = rng.below(node.input.len() + 1);
                    match node.input.get_mut(at) {
                        Some(input) => *input = name,
                        None => node.input.push(name),
                    }
                }
            }
        }
        14 => {
            // A new node at the end, whose result is asked for.
            let Some(graph) = a_graph(model, rng) else { return };
            let names = names(graph);
            let (op, attributes) = operator(rng);
            let input = (0..rng.below(4)).filter_map(|_| rng.pick(&names).cloned()).collect();
            let output = format!("v{}", rng.below(1000));
            let attribute = some_attributes(&attributes, rng);
            graph.node.push(NodeProto { op_type: op.into(), input, output: vec![output.clone()], attribute, ..Default::default() });
            graph.output.push(ValueInfoProto { name: output, r#type: None });
        }
        _ => {
            let Some(graph) = a_graph(model, rng) else { return };
            let names = names(graph);
            if let Some(n) = rng.take(graph.node.iter_mut().collect()) {
                node(n, &names, rng);
            }
        }
    }
}

/// A graph of the model: mostly the outer one, or a body.
fn a_graph<'m>(model: &'m mut ModelProto, rng: &mut Rng) -> Option<&'m mut GraphProto> {
    let mut graph = model.graph.as_mut()?;
    while rng.one_in(2) && graph.node.iter().flat_map(|n| &n.attribute).any(|a| a.g.is_some()) {
        let bodies = graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.g.as_deref_mut()).collect();
        graph = rng.take(bodies)?;
    }
    Some(graph)
}

fn names(graph: &GraphProto) -> Vec<String> {
    let mut all: Vec<String> = graph.input.iter().map(|i| i.name.clone()).collect();
    all.extend(graph.initializer.iter().map(|t| t.name.clone()));
    all.extend(graph.node.iter().flat_map(|n| n.output.iter().cloned()));
    all.push(String::new());
    all
}

fn node(node: &mut NodeProto, names: &[String], rng: &mut Rng) {
    match rng.below(12) {
        0 | 1 => {
            // Another edge.
            if let (Some(input), Some(name)) = (rng.take(node.input.iter_mut().collect()), rng.pick(names)) {
                input.clone_from(name);
            }
        }
        2 => node.input.extend(rng.pick(names).cloned()),
        3 => drop(node.input.pop()),
        4 => {
            if let (Some(output), Some(name)) = (rng.take(node.output.iter_mut().collect()), rng.pick(names)) {
                output.clone_from(name);
            }
        }
        5 => node.output.push(format!("o{}", rng.below(1000))),
        6 => {
            // Another operator, with attributes of its own.
            let (op, attributes) = operator(rng);
            node.op_type = op.into();
            if rng.one_in(2) {
                node.attribute = some_attributes(&attributes, rng);
            }
        }
        7 => {
            let known: Vec<&str> = SCHEMAS.lines().filter(|l| l.split(' ').nth(1) == Some(&node.op_type)).collect();
            let all: Vec<&str> = rng.pick(&known).map(|l| attributes_of(l)).unwrap_or_default();
            if let Some(a) = rng.pick(&all) {
                let new = attribute_of(a, rng);
                node.attribute.retain(|old| old.name != new.name);
                node.attribute.push(new);
            }
        }
        8 => drop(rng.take(std::mem::take(&mut node.attribute)).map(|gone| node.attribute.push(gone))),
        9 | 10 => {
            if let Some(a) = rng.take(node.attribute.iter_mut().collect()) {
                attribute(a, rng);
            }
        }
        _ => match rng.below(4) {
            0 => node.name.clear(),
            1 => node.domain = ["", "ai.onnx", "com.microsoft", "ai.onnx.ml", "f"][rng.below(5)].into(),
            2 => node.output.iter_mut().take(1).for_each(String::clear),
            _ => node.name = "same".into(),
        },
    }
}

fn attribute(a: &mut AttributeProto, rng: &mut Rng) {
    match rng.below(8) {
        0 => a.kind = rng.below(16) as i32,
        1 => a.i = Some(rng.number()),
        2 => a.f = Some(rng.float()),
        3 => drop(a.ints.pop()),
        4 => a.ints.push(rng.size()),
        5 => {
            let text: &[u8] =
                [&b"constant"[..], b"reflect", b"\xff\xfe", b"", b"SAME_UPPER", b"VALID", b"ij,jk->ik", b"...", b"linear"][rng.below(9)];
            a.s = Some(text.to_vec().into());
        }
        6 => a.floats.push(rng.float()),
        _ => a.ref_attr_name = if rng.one_in(2) { "alpha".into() } else { String::new() },
    }
}

fn operator(rng: &mut Rng) -> (&'static str, Vec<&'static str>) {
    let lines: Vec<&str> = SCHEMAS.lines().collect();
    let line = lines[rng.below(lines.len())];
    (line.split(' ').nth(1).unwrap_or("Relu"), attributes_of(line))
}

/// `name:kind` of the attributes of a line of the schema table.
fn attributes_of(line: &'static str) -> Vec<&'static str> {
    line.split(';').nth(3).unwrap_or("").split(' ').filter(|a| !a.is_empty()).collect()
}

/// About half of the attributes, each given as `name:kind`.
fn some_attributes(attributes: &[&str], rng: &mut Rng) -> Vec<AttributeProto> {
    let mut some = vec![];
    for attribute in attributes {
        if rng.one_in(2) {
            some.push(attribute_of(attribute, rng));
        }
    }
    some
}

/// An attribute for `name:kind`, of mostly that kind.
fn attribute_of(text: &str, rng: &mut Rng) -> AttributeProto {
    use attribute_kind::*;
    let (name, kind) = text.split_once(':').unwrap_or((text, "i"));
    let mut a = AttributeProto { name: name.into(), ..Default::default() };
    let kind = if rng.one_in(20) { "x" } else { kind };
    match kind.trim_end_matches('!') {
        "i" => (a.kind, a.i) = (INT, Some(rng.size())),
        "f" => (a.kind, a.f) = (FLOAT, Some(rng.float())),
        "s" => (a.kind, a.s) = (STRING, Some(b"linear".to_vec().into())),
        "I" => (a.kind, a.ints) = (INTS, (0..rng.below(5)).map(|_| rng.size()).collect()),
        "F" => (a.kind, a.floats) = (FLOATS, (0..rng.below(4)).map(|_| rng.float()).collect()),
        _ => a.kind = rng.below(15) as i32,
    }
    a
}

fn tensor(t: &mut TensorProto, rng: &mut Rng) {
    match rng.below(10) {
        0 => t.dims.push(rng.size()),
        1 => drop(t.dims.pop()),
        2 => {
            if let Some(d) = rng.take(t.dims.iter_mut().collect()) {
                *d = rng.size();
            }
        }
        3 => t.data_type = rng.below(28) as i32,
        4 => t.raw_data = t.raw_data.take().map(|raw| raw.slice(..raw.len() - raw.len().min(1 + rng.below(8)))),
        5 => {
            // Some elements of the data, as 8-byte words.
            if let Some(raw) = &t.raw_data {
                let mut raw = raw.to_vec();
                for word in raw.chunks_exact_mut(8) {
                    if rng.one_in(2) {
                        word.copy_from_slice(&rng.size().to_le_bytes());
                    }
                }
                t.raw_data = Some(raw.into());
            }
        }
        6 => {
            if let Some(v) = rng.take(t.int64_data.iter_mut().collect()) {
                *v = rng.size();
            }
        }
        7 => t.data_location = rng.below(3) as i32,
        8 => {
            let key = ["location", "offset", "length"][rng.below(3)].to_string();
            let value = ["w.bin", "../w.bin", "/etc/passwd", "-1", "8", "18446744073709551615", ""][rng.below(7)].to_string();
            t.external_data.push(StringStringEntryProto { key, value });
        }
        _ => t.float_data.push(rng.float()),
    }
}

fn info(port: &mut ValueInfoProto, rng: &mut Rng) {
    let ty = port.r#type.get_or_insert_default().tensor.get_or_insert_default();
    match rng.below(8) {
        0 | 1 => ty.elem_type = rng.below(28) as i32,
        2 => ty.shape = None,
        3 => drop(ty.shape.as_mut().and_then(|s| s.dim.pop())),
        4 => {
            let dim = match rng.below(3) {
                0 => DimensionProto { dim_value: Some(rng.size()), dim_param: None },
                1 => DimensionProto { dim_value: None, dim_param: Some("n".into()) },
                _ => DimensionProto::default(),
            };
            ty.shape.get_or_insert_default().dim.push(dim);
        }
        5 | 6 => {
            if let Some(dim) = rng.take(ty.shape.get_or_insert_default().dim.iter_mut().collect()) {
                dim.dim_value = Some(rng.size());
            }
        }
        _ => port.r#type = None,
    }
}

/// Removes, doubles and moves parts of a graph.
fn lists(graph: &mut GraphProto, rng: &mut Rng) {
    fn shake<T: Clone>(all: &mut Vec<T>, rng: &mut Rng) {
        if all.is_empty() {
            return;
        }
        let (a, b) = (rng.below(all.len()), rng.below(all.len()));
        match rng.below(3) {
            0 => drop(all.remove(a)),
            1 => all.push(all[a].clone()),
            _ => all.swap(a, b),
        }
    }
    match rng.below(6) {
        0 | 1 => shake(&mut graph.node, rng),
        2 => shake(&mut graph.input, rng),
        3 => shake(&mut graph.output, rng),
        4 => shake(&mut graph.initializer, rng),
        _ => {
            // A constant becomes sparse.
            if let Some(values) = graph.initializer.pop() {
                let dims = values.dims.clone();
                let n = dims.iter().fold(1i64, |a, b| a.wrapping_mul(*b));
                let places: Vec<i64> = (0..n.clamp(0, 64)).map(|i| if rng.one_in(9) { rng.number() } else { i }).collect();
                let indices = TensorProto { data_type: 7, dims: vec![places.len() as i64], int64_data: places, ..Default::default() };
                let values = TensorProto { dims: vec![n], ..values };
                graph.sparse_initializer.push(SparseTensorProto { values: Some(values), indices: Some(indices), dims });
            }
        }
    }
}

/// Makes a node a function, or lets functions call one another.
fn functions(model: &mut ModelProto, rng: &mut Rng) {
    let Some(graph) = &mut model.graph else { return };
    if model.functions.is_empty() || rng.one_in(2) {
        let Some(node) = rng.take(graph.node.iter_mut().collect()) else { return };
        let inner = node.clone();
        let name = format!("F{}", rng.below(5));
        (node.op_type, node.domain, node.attribute) = (name.clone(), "f".into(), vec![]);
        let (input, output) = (node.input.clone(), node.output.clone());
        let opset_import = model.opset_import.clone();
        model.functions.push(FunctionProto {
            name,
            domain: "f".into(),
            input,
            output,
            node: vec![inner],
            opset_import,
            ..Default::default()
        });
        model.opset_import.push(OperatorSetIdProto { domain: "f".into(), version: 1 });
        model.opset_import.dedup_by(|a, b| a.domain == b.domain);
        return;
    }
    let callee = rng.below(model.functions.len());
    let (name, domain) = (model.functions[callee].name.clone(), model.functions[callee].domain.clone());
    let caller = rng.below(model.functions.len());
    let caller = &mut model.functions[caller];
    match rng.below(4) {
        0 => caller.node.extend(caller.node.first().cloned()),
        1 => drop(caller.output.pop()),
        2 => caller.input.push("extra".into()),
        _ => {
            let (input, output) = (caller.input.clone(), caller.output.clone());
            caller.node.push(NodeProto { op_type: name, domain, input, output, ..Default::default() });
        }
    }
}

/// Every integer of a model that is no index of a type.
fn numbers<'m>(model: &'m mut ModelProto, all: &mut Vec<&'m mut i64>) {
    if let Some(graph) = &mut model.graph {
        numbers_of_graph(graph, all);
    }
    for f in &mut model.functions {
        numbers_of_nodes(&mut f.node, all);
    }
}

fn numbers_of_graph<'m>(graph: &'m mut GraphProto, all: &mut Vec<&'m mut i64>) {
    for t in &mut graph.initializer {
        all.extend(&mut t.dims);
        all.extend(t.int64_data.iter_mut().take(64));
    }
    for port in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        let shape = port.r#type.as_mut().and_then(|t| t.tensor.as_mut()).and_then(|t| t.shape.as_mut());
        all.extend(shape.into_iter().flat_map(|s| &mut s.dim).filter_map(|d| d.dim_value.as_mut()));
    }
    numbers_of_nodes(&mut graph.node, all);
}

fn numbers_of_nodes<'m>(nodes: &'m mut [NodeProto], all: &mut Vec<&'m mut i64>) {
    for a in nodes.iter_mut().flat_map(|n| &mut n.attribute) {
        all.extend(a.i.as_mut());
        all.extend(a.ints.iter_mut().take(64));
        if let Some(t) = &mut a.t {
            all.extend(&mut t.dims);
            all.extend(t.int64_data.iter_mut().take(64));
        }
        if let Some(g) = &mut a.g {
            numbers_of_graph(g, all);
        }
    }
}

fn tensors_of_model<'m>(model: &'m mut ModelProto, all: &mut Vec<&'m mut TensorProto>) {
    if let Some(graph) = &mut model.graph {
        tensors_of_graph(graph, all);
    }
}

fn tensors_of_graph<'m>(graph: &'m mut GraphProto, all: &mut Vec<&'m mut TensorProto>) {
    all.extend(&mut graph.initializer);
    for sparse in &mut graph.sparse_initializer {
        all.extend(&mut sparse.values);
        all.extend(&mut sparse.indices);
    }
    for a in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
        all.extend(a.t.as_deref_mut());
        if let Some(g) = &mut a.g {
            tensors_of_graph(g, all);
        }
    }
}
