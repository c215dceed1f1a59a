//! The reference evaluator: the meaning of a graph, slow and obvious. Every test of a rule, a kernel or a program compares with it.

use crate::graph::{Graph, Value};
use crate::op::{Kind, Op};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Results of more bytes than this are not computed: a hostile shape must give a sentence, not a failed allocation.
const LARGEST_RESULT: usize = 1 << 34;

/// Why a graph has no value for these inputs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvalError {
    /// The inputs are not those of the graph.
    #[error("the graph takes {wanted}, but is given {given}")]
    Inputs {
        /// Types of the inputs of the graph.
        wanted: String,
        /// Types of the tensors given.
        given: String,
    },
    /// A node has no value for its operands.
    #[error("node {node} (`{kind}`{}{name}): {reason}", if .name.is_empty() { "" } else { " " })]
    Node {
        /// Index of the node.
        node: usize,
        /// Name of its operator.
        kind: &'static str,
        /// Name of the node; may be empty.
        name: String,
        /// A sentence.
        reason: String,
    },
}

/// The results of `graph` for `inputs`, in order.
pub fn eval(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    eval_with(graph, inputs, |_, _| {})
}

/// As [`eval`]; `seen` is called with the index and the results of each node that is run, in order.
pub fn eval_with(graph: &Graph, inputs: &[Tensor], mut seen: impl FnMut(usize, &[Tensor])) -> Result<Vec<Tensor>, EvalError> {
    let wanted = || graph.inputs().iter().map(|v| graph.ty(*v));
    if !wanted().eq(inputs.iter().map(Tensor::ty)) {
        let list = |types: Vec<&TensorType>| types.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
        return Err(EvalError::Inputs { wanted: list(wanted().collect()), given: list(inputs.iter().map(Tensor::ty).collect()) });
    }
    // After its last reader a value is dropped; values nobody reads are not computed.
    let mut readers = graph.uses();
    let mut values: Vec<Vec<Option<Tensor>>> = graph.nodes().iter().map(|node| vec![None; node.types.len()]).collect();
    let needed = graph.live();
    for (n, node) in graph.nodes().iter().enumerate() {
        let results = match node.op.kind() {
            Kind::Input => vec![inputs[node.op.attrs.size("index")].clone()],
            _ if !needed[n] => continue,
            _ => {
                let operand = |v: &Value| values[v.node as usize][v.index as usize].clone().expect("operands are computed before");
                let operands: Vec<Tensor> = node.inputs.iter().map(operand).collect();
                for v in &node.inputs {
                    let left = &mut readers[v.node as usize][v.index as usize];
                    *left -= 1;
                    if *left == 0 {
                        values[v.node as usize][v.index as usize] = None;
                    }
                }
                eval_op(&node.op, &operands).map_err(|reason| EvalError::Node {
                    node: n,
                    kind: node.op.kind().name(),
                    name: node.name.clone(),
                    reason,
                })?
            }
        };
        seen(n, &results);
        for (i, result) in results.into_iter().enumerate() {
            values[n][i] = (readers[n][i] > 0).then_some(result);
        }
    }
    Ok(graph.outputs().iter().map(|(_, v)| values[v.node as usize][v.index as usize].clone().expect("results are kept")).collect())
}

/// The results of one operator; a sentence says what is wrong with the operands or their data.
pub fn eval_op(op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    if !op.def.inputs.admits(inputs.len()) {
        return Err(format!("cannot take {} inputs", inputs.len()));
    }
    let types: Vec<TensorType> = inputs.iter().map(|x| x.ty().clone()).collect();
    let expected = (op.def.infer)(&op.attrs, &types)?;
    if let Some(large) = expected.iter().find(|t| t.bytes() > LARGEST_RESULT) {
        return Err(format!("a result {large} is too large to be computed"));
    }
    let results = (op.def.eval)(&op.attrs, inputs)?;
    debug_assert!(results.iter().map(Tensor::ty).eq(&expected), "`{}` gives {results:?}, not {expected:?}", op.kind().name());
    Ok(results)
}
