//! A graph of the IR as an ONNX model, as far as ONNX has its operators: what tests of the reader are made of.
//!
//! Every operator stands in one line of a table; what ONNX says by inputs (axes, shapes, bounds) becomes constants.

use crate::build::type_code;
use crate::edit::{constant, info};
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, attribute_kind};
use dnnc_ir::{Attr, Graph, Kind, Node, Tensor, Type, Value};
use prost::Message;
use prost::bytes::Bytes;

/// The opset version that is written.
const OPSET: i64 = 26;

/// The bytes of a model that says what `graph` says. An error is the index of a node that ONNX has no operator for.
///
/// Nodes bear the name `n` with their index, values `v` with the index of their node (`v7_1` for a second result). Where `negative`, axes count from
/// the end.
pub fn write(graph: &Graph, negative: bool) -> Result<Vec<u8>, usize> {
    let mut writer = Writer { graph, negative, nodes: vec![], constants: vec![] };
    for n in 0..graph.nodes().len() {
        writer.node(n).ok_or(n)?;
    }
    let port = |name: String, v: Value| info(&name, graph.ty(v));
    let input = graph.inputs().iter().map(|v| port(name_of(*v), *v)).collect();
    // A result may be an input, or be returned twice: each has a name of its own.
    let mut output: Vec<ValueInfoProto> = vec![];
    for (i, (_, v)) in graph.outputs().iter().enumerate() {
        let name = format!("y{i}");
        writer.nodes.push(NodeProto {
            op_type: "Identity".into(),
            input: vec![name_of(*v)],
            output: vec![name.clone()],
            ..Default::default()
        });
        output.push(port(name, *v));
    }
    let graph = GraphProto { name: "g".into(), node: writer.nodes, initializer: writer.constants, input, output, ..Default::default() };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET }];
    Ok(ModelProto { ir_version: Some(13), graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec())
}

struct Writer<'a> {
    graph: &'a Graph,
    negative: bool,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

fn name_of(v: Value) -> String {
    if v.index == 0 { format!("v{}", v.node) } else { format!("v{}_{}", v.node, v.index) }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INT, i: Some(i), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::INTS, ints: ints.to_vec(), ..Default::default() }
}

fn word(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), kind: attribute_kind::STRING, s: Some(Bytes::copy_from_slice(s.as_bytes())), ..Default::default() }
}

impl Writer<'_> {
    /// A constant, by the name it gets.
    fn constant(&mut self, tensor: &Tensor) -> String {
        let name = format!("c{}", self.constants.len());
        self.constants.push(constant(&name, tensor));
        name
    }

    fn list(&mut self, values: &[i64]) -> String {
        self.constant(&Tensor::new([values.len()], values))
    }

    /// A node that makes one value for another, by the name of its result.
    fn helper(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let name = format!("h{}", self.nodes.len());
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

    /// Writes a node; `None` when ONNX has nothing like it.
    fn node(&mut self, n: usize) -> Option<()> {
        let node = &self.graph.nodes()[n];
        match node.op.kind() {
            Kind::Input => return Some(()),
            Kind::Const => {
                let tensor = node.op.attrs.tensor("value");
                self.constants.push(constant(&format!("v{n}"), tensor));
                return Some(());
            }
            _ => {}
        }
        let mut input: Vec<String> = node.inputs.iter().map(|v| name_of(*v)).collect();
        let mut attribute = vec![];
        let op = self.operator(node, &mut input, &mut attribute)?;
        let output = (0..node.types.len() as u32).map(|index| name_of(Value { node: n as u32, index })).collect();
        self.nodes.push(NodeProto { op_type: op.into(), name: format!("n{n}"), input, output, attribute, ..Default::default() });
        Some(())
    }

    /// The operator of a node; its inputs and attributes are changed to ONNX's.
    fn operator(&mut self, node: &Node, input: &mut Vec<String>, attribute: &mut Vec<AttributeProto>) -> Option<&'static str> {
        use Kind::*;
        let (kind, attrs) = (node.op.kind(), &node.op.attrs);
        let ty = node.inputs.first().map(|v| self.graph.ty(*v).clone())?;
        let (rank, elem) = (ty.rank(), ty.ty);
        let bitwise = elem != Type::Bool;
        // What has a counterpart with the same operands and attributes, or attributes of another name.
        for (name, attr) in node.op.attrs.iter() {
            let new = match (kind, name, attr) {
                (CumSum | CumProd | TopK, "axis", _) => continue,
                (_, "axis", Attr::Int(v)) => int("axis", self.axis(*v, rank)),
                (ArgMax | ArgMin, "last", Attr::Int(v)) => int("select_last_index", *v),
                (Mod, "trunc", Attr::Int(v)) => int("fmod", *v),
                (IsInf, "positive", Attr::Int(v)) => int("detect_positive", *v),
                (IsInf, "negative", Attr::Int(v)) => int("detect_negative", *v),
                (AvgPool, "include_pad", Attr::Int(v)) => int("count_include_pad", *v),
                (ArgMaxPool, "column_major", _) => return None,
                (Conv | ConvTranspose, "groups", Attr::Int(v)) => int("group", *v),
                (_, "kernel", Attr::Ints(v)) => ints("kernel_shape", v),
                (GridSample, "padding", Attr::Word(w)) => word("padding_mode", w),
                (_, "keepdims" | "exclusive" | "reverse" | "largest" | "align_corners" | "batch_dims", Attr::Int(v)) => int(name, *v),
                (_, "strides" | "dilations" | "output_padding" | "perm", Attr::Ints(v)) => ints(name, v),
                (Conv | ConvTranspose | MaxPool | AvgPool, "pads", Attr::Ints(v)) => ints(name, v),
                (_, "mode" | "reduction", Attr::Word(w)) => word(name, w),
                _ => continue,
            };
            attribute.push(new);
        }
        let scalar = |v: i64| Tensor::scalar(v);
        Some(match kind {
            Neg => "Neg",
            Abs => "Abs",
            Sign => "Sign",
            Floor => "Floor",
            Ceil => "Ceil",
            Round => "Round",
            Sqrt => "Sqrt",
            Recip => "Reciprocal",
            Exp => "Exp",
            Log => "Log",
            Sin => "Sin",
            Cos => "Cos",
            Tan => "Tan",
            Asin => "Asin",
            Acos => "Acos",
            Atan => "Atan",
            Sinh => "Sinh",
            Cosh => "Cosh",
            Asinh => "Asinh",
            Acosh => "Acosh",
            Atanh => "Atanh",
            Tanh => "Tanh",
            Erf => "Erf",
            Sigmoid => "Sigmoid",
            Softplus => "Softplus",
            Relu => "Relu",
            HardSwish => "HardSwish",
            Gelu => "Gelu",
            GeluTanh => {
                attribute.push(word("approximate", "tanh"));
                "Gelu"
            }
            Not => "Not",
            BitNot => "BitwiseNot",
            IsNan => "IsNaN",
            IsInf => "IsInf",
            Add => "Add",
            Sub => "Sub",
            Mul => "Mul",
            Div => "Div",
            Mod if elem.is_float() && !attrs.flag("trunc") => return None,
            Mod => "Mod",
            Pow => "Pow",
            Min => "Min",
            Max => "Max",
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
            CumSum => {
                let axis = scalar(self.axis(attrs.int("axis"), rank));
                input.push(self.constant(&axis));
                "CumSum"
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
            _ => return None,
        })
    }
}
