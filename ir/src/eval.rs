//! The reference evaluator: the meaning of a graph, slow and obvious. Every test of a rule, a kernel or a program compares with it.

use crate::graph::Op;
use crate::graph::{Graph, Value};
use crate::kind::Kind;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Results of more bytes than this are not computed: a hostile shape must give a sentence, not a failed allocation.
const LARGEST_RESULT: usize = 1 << 34;
/// Operators that need more operations than this, days of them, are not run.
const MOST_WORK: u64 = 1 << 46;

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
    // A value is dropped after its last reader; values without readers are not computed.
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
    if (op.def.work)(&op.attrs, &types, &expected) > MOST_WORK {
        return Err("this needs too many operations to be computed".into());
    }
    let results = (op.def.eval)(&op.attrs, inputs)?;
    debug_assert!(results.iter().map(Tensor::ty).eq(&expected), "`{}` gives {results:?}, not {expected:?}", op.kind().name());
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    fn graph() -> Graph {
        let text = "graph(x: f32[2], i: i64[]) {
            %square = mul(%x, %x)
            %dead = gather(%x, %i)
            %more = neg(%square)
            return y = %square }";
        parse(text).expect("a graph")
    }

    #[test]
    fn only_what_is_needed_runs() {
        let mut ran = vec![];
        // The index is out of range, but that element is not needed.
        let inputs = [Tensor::new([2], &[3f32, 4.0]), Tensor::scalar(9i64)];
        let y = eval_with(&graph(), &inputs, |n, results| ran.push((n, results.len()))).expect("an answer");
        assert_eq!(y, [Tensor::new([2], &[9f32, 16.0])]);
        assert_eq!(ran, [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn values_are_read_often_and_returned_twice() {
        let text = "graph(x: f32[]) { %a = add(%x, %x) %b = mul(%a, %a) %c = sub(%b, %a) return a = %a, x = %x, a = %a, c = %c }";
        let y = eval(&parse(text).expect("a graph"), &[Tensor::scalar(3f32)]).expect("an answer");
        assert_eq!(y, [6f32, 3.0, 6.0, 30.0].map(Tensor::scalar));
    }

    #[test]
    fn errors_name_the_node() {
        let graph = parse("graph(x: f32[2], i: i64[]) {\n %y = gather(%x, %i) ; lookup\n return y = %y }").expect("a graph");
        let error = eval(&graph, &[Tensor::new([2], &[3f32, 4.0]), Tensor::scalar(2i64)]).unwrap_err();
        assert_eq!(error.to_string(), "node 2 (`gather` lookup): index 2 is out of range for 2 elements");
        let error = eval(&graph, &[Tensor::scalar(2i64)]).unwrap_err();
        assert_eq!(error.to_string(), "the graph takes f32[2], i64[], but is given i64[]");
    }

    #[test]
    fn results_beyond_memory_are_refused() {
        let expand = Op::new(Kind::Expand, [("shape", vec![1 << 40].into())]).expect("attributes");
        let error = eval_op(&expand, &[Tensor::scalar(1f32)]).unwrap_err();
        assert_eq!(error, "a result f32[1099511627776] is too large to be computed");
    }
}
