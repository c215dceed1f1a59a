//! Writing a graph of the IR as an ONNX model, as far as ONNX has its operators, for tests of the reader.
//!
//! Every operator has one line of a table, except element-wise ones whose ONNX name follows from theirs; what ONNX expects as inputs (axes,
//! shapes, bounds) becomes constants.

use crate::build::rounded;
use crate::element::type_code;
use crate::model_editing::{constant, info};
use crate::ops::recurrent::{takes_alpha, takes_beta};
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, attribute_kind};
use crate::schema;
use dnnc_ir::ops::def;
use dnnc_ir::{Attr, Class, Graph, Kind, Node, Tensor, TensorType, Type, Value};
use prost::Message;
use prost::bytes::Bytes;

/// The opset version that is written.
const OPSET: i64 = 26;

/// The bytes of a model that computes what `graph` computes. An error is the index of a node that ONNX has no operator for.
///
/// Nodes bear the name `n` with their index (`n4.then.n2` in a branch of node 4), values `v` with the index of their node (`v7_1` for a second
/// result). Where `negative`, axes count from the end.
pub fn write(graph: &Graph, negative: bool) -> Result<Vec<u8>, usize> {
    let mut writer = Writer { graph, negative, body: None, nodes: vec![], constants: vec![] };
    for n in 0..graph.nodes().len() {
        writer.node(n).ok_or(n)?;
    }
    let input = graph.inputs().iter().map(|v| info(&writer.name(*v), graph.ty(*v))).collect();
    let graph = GraphProto { input, ..writer.finish("g") };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET }];
    Ok(ModelProto { ir_version: Some(13), graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec())
}

struct Writer<'a> {
    graph: &'a Graph,
    negative: bool,
    /// For the graph of a branch or a loop.
    body: Option<Body>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

/// What makes the graph of a branch or a loop different.
struct Body {
    /// Begins every name that is made here: that of the node it belongs to, and which graph of it this is.
    prefix: String,
    /// Names of its inputs: some are values of the graphs around it.
    inputs: Vec<String>,
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INT, i: Some(i), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INTS, ints: ints.to_vec(), ..Default::default() }
}

fn float(name: &str, f: f64) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::FLOAT, f: Some(f as f32), ..Default::default() }
}

fn word(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::STRING, s: Some(Bytes::copy_from_slice(s.as_bytes())), ..Default::default() }
}

fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::GRAPH, g: Some(Box::new(graph)), ..Default::default() }
}

/// A bound as a number of a type; `None` where that has no such number.
fn number(ty: Type, value: f64) -> Option<Tensor> {
    let scalar = rounded(Tensor::scalar(value), ty)?;
    (scalar.to_f64s() == [value]).then_some(scalar)
}

/// `leaky_relu` as ONNX calls it: `LeakyRelu`.
fn camel_case(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capital).collect()
}

/// ONNX's name of an element-wise operator that is called and used there as it is here.
fn same_name(kind: Kind) -> Option<&'static str> {
    (def(kind).class == Class::Elementwise).then(|| schema::name_of(&camel_case(kind.name()))).flatten()
}

impl Writer<'_> {
    fn prefix(&self) -> &str {
        self.body.as_ref().map_or("", |body| &body.prefix)
    }

    fn name(&self, v: Value) -> String {
        if let Some(body) = &self.body
            && let Some(i) = self.graph.inputs().iter().position(|input| *input == v)
        {
            return body.inputs[i].clone();
        }
        let prefix = self.prefix();
        if v.index == 0 { format!("{prefix}v{}", v.node) } else { format!("{prefix}v{}_{}", v.node, v.index) }
    }

    /// The graph without inputs. A result may be an input, or be returned twice: each has a name of its own.
    fn finish(mut self, name: &str) -> GraphProto {
        let mut output: Vec<ValueInfoProto> = vec![];
        for (i, (_, v)) in self.graph.outputs().iter().enumerate() {
            let name = format!("{}y{i}", self.prefix());
            self.nodes.push(NodeProto {
                op_type: "Identity".into(),
                input: vec![self.name(*v)],
                output: vec![name.clone()],
                ..Default::default()
            });
            output.push(info(&name, self.graph.ty(*v)));
        }
        GraphProto { name: name.into(), node: self.nodes, initializer: self.constants, output, ..Default::default() }
    }

    /// The graph of a branch or a loop that is the attribute `name` of node `n`; its inputs are these values.
    fn body(&self, n: usize, name: &str, graph: &Graph, inputs: Vec<String>) -> Option<GraphProto> {
        let body = Some(Body { prefix: format!("{}n{n}.{name}.", self.prefix()), inputs });
        let mut writer = Writer { graph, negative: self.negative, body, nodes: vec![], constants: vec![] };
        (0..graph.nodes().len()).try_for_each(|n| writer.node(n))?;
        Some(writer.finish(name))
    }

    /// A constant, by the name it gets.
    fn constant(&mut self, tensor: &Tensor) -> String {
        let name = format!("{}c{}", self.prefix(), self.constants.len());
        self.constants.push(constant(&name, tensor));
        name
    }

    fn list(&mut self, values: &[i64]) -> String {
        self.constant(&Tensor::new([values.len()], values))
    }

    /// A node that makes one value for another, by the name of its result.
    fn helper(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}h{}", self.prefix(), self.nodes.len());
        self.nodes.push(NodeProto {
            op_type: op.into(),
            name: name.clone(),
            input,
            output: vec![name.clone()],
            attribute,
            ..Default::default()
        });
        name
    }

    fn axis(&self, axis: i64, rank: usize) -> i64 {
        if self.negative { axis - rank as i64 } else { axis }
    }

    /// Writes a node; `None` if ONNX has no such operator.
    fn node(&mut self, n: usize) -> Option<()> {
        let node = &self.graph.nodes()[n];
        match node.op.kind() {
            Kind::Input => return Some(()),
            Kind::Const => {
                let tensor = node.op.attrs.tensor("value");
                let name = self.name(Value { node: n as u32, index: 0 });
                self.constants.push(constant(&name, tensor));
                return Some(());
            }
            _ => {}
        }
        let mut input: Vec<String> = node.inputs.iter().map(|v| self.name(*v)).collect();
        let mut attribute = vec![];
        let op = self.operator(n, &mut input, &mut attribute)?;
        let mut output: Vec<String> = (0..node.types.len() as u32).map(|index| self.name(Value { node: n as u32, index })).collect();
        // Results of recurrent layers have an axis for the direction; that of y comes after the steps.
        let unsqueezed = |result: &String| format!("{result}_unsqueezed");
        let squeezed = if matches!(node.op.kind(), Kind::Lstm | Kind::Gru | Kind::Rnn) { output.clone() } else { vec![] };
        if !squeezed.is_empty() {
            output = squeezed.iter().map(unsqueezed).collect();
        }
        if node.op.kind() == Kind::ArgMaxPool {
            output.insert(0, format!("{}_largest", output[0]));
        }
        let name = format!("{}n{n}", self.prefix());
        self.nodes.push(NodeProto { op_type: op.into(), name, input, output, attribute, ..Default::default() });
        for (i, result) in squeezed.into_iter().enumerate() {
            let input = vec![unsqueezed(&result), self.list(&[i64::from(i == 0)])];
            self.nodes.push(NodeProto { op_type: "Squeeze".into(), input, output: vec![result], ..Default::default() });
        }
        Some(())
    }

    /// The operator of a node; its inputs and attributes are changed to ONNX's.
    fn operator(&mut self, n: usize, input: &mut Vec<String>, attribute: &mut Vec<AttributeProto>) -> Option<&'static str> {
        use Kind::*;
        let node = &self.graph.nodes()[n];
        let (kind, attrs) = (node.op.kind(), &node.op.attrs);
        let ty = node.inputs.first().map(|v| self.graph.ty(*v).clone())?;
        let (rank, elem) = (ty.rank(), ty.ty);
        let bitwise = elem != Type::Bool;
        // What has a counterpart with the same operands and attributes, or attributes of another name.
        for (name, attr) in node.op.attrs.iter() {
            let new = match (kind, name, attr) {
                (CumSum | CumProd | TopK, "axis", _) | (Unique, "axis", Attr::Int(-1)) | (Lstm | Gru | Rnn, ..) => continue,
                (_, "axis", Attr::Int(v)) => int("axis", self.axis(*v, rank)),
                (ArgMax | ArgMin, "last", Attr::Int(v)) => int("select_last_index", *v),
                (Mod, "trunc", Attr::Int(v)) => int("fmod", *v),
                (IsInf, "positive", Attr::Int(v)) => int("detect_positive", *v),
                (IsInf, "negative", Attr::Int(v)) => int("detect_negative", *v),
                (AvgPool, "include_pad", Attr::Int(v)) => int("count_include_pad", *v),
                (ArgMaxPool, "column_major", Attr::Int(v)) => int("storage_order", *v),
                (Norm | RmsNorm, "eps", _) => float("epsilon", attrs.float(name)),
                (Attention, "scale", _) => float("scale", attrs.float(name)),
                (Attention, "causal", Attr::Int(v)) => int("is_causal", *v),
                (NonMaxSuppression, "center", Attr::Int(v)) => int("center_point_box", *v),
                (RoiAlign, "out_h", Attr::Int(v)) => int("output_height", *v),
                (RoiAlign, "out_w", Attr::Int(v)) => int("output_width", *v),
                (RoiAlign, "ratio", Attr::Int(v)) => int("sampling_ratio", *v),
                (RoiAlign, "scale", _) => float("spatial_scale", attrs.float(name)),
                (RoiAlign, "half_pixel", Attr::Int(v)) => {
                    word("coordinate_transformation_mode", if *v != 0 { "half_pixel" } else { "output_half_pixel" })
                }
                (Conv | ConvTranspose, "groups", Attr::Int(v)) => int("group", *v),
                (_, "kernel", Attr::Ints(v)) => ints("kernel_shape", v),
                (GridSample, "padding", Attr::Word(w)) => word("padding_mode", w),
                (_, "keepdims" | "sorted" | "exclusive" | "reverse" | "largest" | "align_corners" | "batch_dims", Attr::Int(v)) => {
                    int(name, *v)
                }
                (_, "strides" | "dilations" | "output_padding" | "perm", Attr::Ints(v)) => ints(name, v),
                (Conv | ConvTranspose | MaxPool | ArgMaxPool | AvgPool, "pads", Attr::Ints(v)) => ints(name, v),
                (_, "mode" | "reduction", Attr::Word(w)) => word(name, w),
                _ => continue,
            };
            attribute.push(new);
        }
        let scalar = |v: i64| Tensor::scalar(v);
        Some(match kind {
            Recip => "Reciprocal",
            Silu => "Swish",
            Clamp => {
                for bound in ["lo", "hi"] {
                    let bound = number(elem, attrs.float(bound))?;
                    input.push(self.constant(&bound));
                }
                "Clip"
            }
            GeluTanh => {
                attribute.push(word("approximate", "tanh"));
                "Gelu"
            }
            BitNot => "BitwiseNot",
            IsNan => "IsNaN",
            IsInf => "IsInf",
            Mod if elem.is_float() && !attrs.flag("trunc") => return None,
            And => {
                if bitwise {
                    "BitwiseAnd"
                } else {
                    "And"
                }
            }
            Or => {
                if bitwise {
                    "BitwiseOr"
                } else {
                    "Or"
                }
            }
            Xor => {
                if bitwise {
                    "BitwiseXor"
                } else {
                    "Xor"
                }
            }
            Shl | Shr => {
                attribute.push(word("direction", if kind == Shl { "LEFT" } else { "RIGHT" }));
                "BitShift"
            }
            Eq => "Equal",
            Lt => "Less",
            Le => "LessOrEqual",
            Select => "Where",
            Cast => {
                attribute.push(int("to", type_code(attrs.ty("to")).into()));
                if attrs.ty("to").is_narrow() && attrs.ty("to").is_float() {
                    if attrs.ty("to") == Type::F8E8M0 || attrs.ty("to") == Type::F4E2M1 {
                        return None;
                    }
                    attribute.push(int("saturate", attrs.int("saturate")));
                }
                "Cast"
            }
            Bitcast => {
                attribute.push(int("to", type_code(attrs.ty("to")).into()));
                "BitCast"
            }
            ReduceSum | ReduceProd | ReduceMax | ReduceMin | ReduceMean => {
                let axes: Vec<i64> = attrs.ints("axes").iter().map(|&a| self.axis(a, rank)).collect();
                input.push(self.list(&axes));
                attribute.push(int("noop_with_empty_axes", 1));
                match kind {
                    ReduceSum => "ReduceSum",
                    ReduceProd => "ReduceProd",
                    ReduceMax => "ReduceMax",
                    ReduceMin => "ReduceMin",
                    _ => "ReduceMean",
                }
            }
            ArgMax => "ArgMax",
            ArgMin => "ArgMin",
            CumSum | CumProd => {
                let axis = scalar(self.axis(attrs.int("axis"), rank));
                input.push(self.constant(&axis));
                if kind == CumSum { "CumSum" } else { "CumProd" }
            }
            TopK => {
                input.push(self.list(&[attrs.int("k")]));
                attribute.push(int("axis", self.axis(attrs.int("axis"), rank)));
                "TopK"
            }
            MatMul => {
                for i in (0..2).filter(|&i| attrs.flag(["trans_a", "trans_b"][i])) {
                    let rank = self.graph.ty(node.inputs[i]).rank() as i64;
                    let perm: Vec<i64> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                    input[i] = self.helper("Transpose", vec![input[i].clone()], vec![ints("perm", &perm)]);
                }
                if matches!(elem, Type::I8 | Type::U8) { "MatMulInteger" } else { "MatMul" }
            }
            Conv | MaxPool | AvgPool if attrs.int("block") != 0 => return None,
            AvgPool if attrs.ints("extra").iter().any(|&e| e != 0) => return None,
            Conv if elem.is_float() => "Conv",
            Conv if input.len() == 2 => "ConvInteger",
            ConvTranspose => "ConvTranspose",
            MaxPool => "MaxPool",
            AvgPool => "AveragePool",
            Det => "Det",
            Attention => {
                // Leading axes are a batch and heads, the same of all three.
                let shape = |i: usize| &self.graph.ty(node.inputs[i]).shape;
                if rank != 4 || (1..3).any(|i| shape(i).len() != 4 || shape(i)[..2] != ty.shape[..2]) {
                    return None;
                }
                "Attention"
            }
            Norm | RmsNorm => {
                // Over the last axes, with factors of 1.
                let axes = attrs.sizes("axes");
                let first = rank - axes.len();
                if axes.is_empty() || (first..rank).any(|a| !axes.contains(&a)) {
                    return None;
                }
                let ones = Tensor::new(&ty.shape[first..], &vec![1f64; ty.shape[first..].iter().product()]);
                input.push(self.constant(&rounded(ones, elem)?));
                attribute.push(int("axis", self.axis(first as i64, rank)));
                if kind == Norm { "LayerNormalization" } else { "RMSNormalization" }
            }
            Lstm | Gru | Rnn => {
                self.recurrent(node, input, attribute)?;
                match kind {
                    Lstm => "LSTM",
                    Gru => "GRU",
                    _ => "RNN",
                }
            }
            ArgMaxPool => "MaxPool",
            Softmax => "Softmax",
            LogSoftmax => "LogSoftmax",
            Reshape => {
                input.push(self.list(attrs.ints("shape")));
                attribute.push(int("allowzero", 1));
                "Reshape"
            }
            Transpose => "Transpose",
            Expand => {
                input.push(self.list(attrs.ints("shape")));
                "Expand"
            }
            Slice => {
                let (starts, sizes, steps) = (attrs.ints("starts"), attrs.sizes("sizes"), attrs.ints("steps"));
                if steps.contains(&0) {
                    return None;
                }
                let end = |i: usize| match starts[i].saturating_add((sizes[i] as i64).saturating_mul(steps[i])) {
                    below if below < 0 => -(ty.shape[i] as i64) - 1,
                    end => end,
                };
                let ends: Vec<i64> = (0..rank).map(end).collect();
                let axes: Vec<i64> = (0..rank as i64).map(|a| self.axis(a, rank)).collect();
                input.extend([starts, &ends, &axes, steps].map(|v| self.list(v)));
                "Slice"
            }
            Concat => "Concat",
            Pad => {
                let pads = self.list(attrs.ints("pads"));
                input.insert(1, pads);
                "Pad"
            }
            Gather => "Gather",
            GatherElements => "GatherElements",
            GatherNd => "GatherND",
            ScatterElements => "ScatterElements",
            ScatterNd => "ScatterND",
            GridSample => "GridSample",
            NonZero => "NonZero",
            Compress => "Compress",
            Unique | NonMaxSuppression if attrs.int("count") < 0 => return None,
            Unique => "Unique",
            NonMaxSuppression => "NonMaxSuppression",
            RoiAlign => "RoiAlign",
            If => {
                let captured = input.split_off(1);
                for (name, of_onnx) in [("then", "then_branch"), ("else", "else_branch")] {
                    attribute.push(subgraph(of_onnx, self.body(n, name, attrs.graph(name), captured.clone())?));
                }
                "If"
            }
            Loop => {
                let body = attrs.graph("body");
                let captured = input.split_off(2 + attrs.size("carried"));
                let own: Vec<String> = (0..input.len()).map(|i| format!("{}n{n}.x{i}", self.prefix())).collect();
                let ports = own.iter().zip(body.inputs()).map(|(name, v)| info(name, body.ty(*v))).collect();
                let graph = self.body(n, "body", body, own.into_iter().chain(captured).collect())?;
                attribute.push(subgraph("body", GraphProto { input: ports, ..graph }));
                "Loop"
            }
            _ => return same_name(kind),
        })
    }

    /// Inputs and attributes of a recurrent layer of one direction whose weights are the identity: what they give is given.
    fn recurrent(&mut self, node: &Node, input: &mut Vec<String>, attribute: &mut Vec<AttributeProto>) -> Option<()> {
        let (kind, attrs) = (node.op.kind(), &node.op.attrs);
        let ty = self.graph.ty(node.inputs[0]).clone();
        let (width, states) = (ty.shape[2], if kind == Kind::Lstm { 2 } else { 1 });
        let unit: Vec<f64> = (0..width * width).map(|i| if i / width == i % width { 1.0 } else { 0.0 }).collect();
        let unit = self.constant(&rounded(Tensor::new([1, width, width], &unit), ty.ty)?);
        let mut given = std::mem::take(input).into_iter();
        let [x, r] = [given.next()?, given.next()?];
        let first = self.list(&[0]);
        let direction = |w: &mut Self, value: String| w.helper("Unsqueeze", vec![value, first.clone()], vec![]);
        let r = direction(self, r);
        let states: Vec<String> = given.by_ref().take(states).map(|s| direction(self, s)).collect();
        // A bias of the state stands behind one of the inputs.
        let bias = if kind == Kind::Gru && attrs.flag("has_bias") {
            let of_input = self.constant(&Tensor::zeros(TensorType::new(ty.ty, [width])));
            let both = self.helper("Concat", vec![of_input, given.next()?], vec![int("axis", 0)]);
            direction(self, both)
        } else {
            String::new()
        };
        let lens = match attrs.flag("has_lens") {
            true => self.helper("Cast", vec![given.next()?], vec![int("to", type_code(Type::I32).into())]),
            false => String::new(),
        };
        *input = vec![x, unit, r, bias, lens];
        input.extend(states);
        if kind == Kind::Lstm && attrs.flag("has_peepholes") {
            let peepholes = direction(self, given.next()?);
            input.push(peepholes);
        }
        let gates: &[[&str; 3]] = match kind {
            Kind::Lstm => &[["act_f", "alpha_f", "beta_f"], ["act_g", "alpha_g", "beta_g"], ["act_h", "alpha_h", "beta_h"]],
            Kind::Gru => &[["act_f", "alpha_f", "beta_f"], ["act_g", "alpha_g", "beta_g"]],
            _ => &[["act", "alpha", "beta"]],
        };
        let (mut names, mut alphas, mut betas) = (vec![], vec![], vec![]);
        for [act, alpha, beta] in gates {
            let name = attrs.word(act);
            names.push(Bytes::from(camel_case(name)));
            if takes_alpha(name) {
                alphas.push(attrs.float(alpha) as f32);
            }
            if takes_beta(name) {
                betas.push(attrs.float(beta) as f32);
            }
        }
        let list = |name: &str, floats| AttributeProto { name: name.into(), kind: attribute_kind::FLOATS, floats, ..Default::default() };
        attribute.push(AttributeProto { name: "activations".into(), kind: attribute_kind::STRINGS, strings: names, ..Default::default() });
        attribute.extend([list("activation_alpha", alphas), list("activation_beta", betas)]);
        attribute.push(int("hidden_size", attrs.int("hidden")));
        attribute.push(word("direction", if attrs.flag("reverse") { "reverse" } else { "forward" }));
        if attrs.float("clip") > 0.0 {
            attribute.push(float("clip", attrs.float("clip")));
        }
        for switch in ["input_forget", "linear_before_reset"] {
            if node.op.def.attrs.iter().any(|a| a.0 == switch) {
                attribute.push(int(switch, attrs.int(switch)));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnnc_ir::instance::{Preferences, generate_like};
    use dnnc_ir::random::Rng;

    /// A graph of one node, its operands inputs.
    fn alone(kind: Kind, rng: &mut Rng) -> Option<Graph> {
        let (op, operands) = generate_like(kind, rng, &Preferences { like: None, large: false })?;
        let mut graph = Graph::new();
        let inputs = operands.iter().enumerate().map(|(i, t)| graph.input(&format!("x{i}"), t.ty().clone())).collect();
        let node = graph.add(op, inputs, "").ok()?;
        graph.output("y", node);
        Some(graph)
    }

    #[test]
    fn operators_that_onnx_does_not_have() {
        let mut rng = Rng::new(1);
        let mut is_written = |kind: Kind| (0..300).filter_map(|_| alone(kind, &mut rng)).any(|graph| write(&graph, false).is_ok());
        let missing: Vec<&str> = Kind::ALL.iter().filter(|k| !is_written(**k)).map(|k| k.name()).collect();
        // The last two have results of the largest possible size.
        assert_eq!(missing, ["input", "trunc", "log1p", "expm1", "pack", "unpack", "resample", "unique", "non_max_suppression"]);
    }
}
