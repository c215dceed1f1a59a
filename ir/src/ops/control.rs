//! Control flow: operators that run other graphs.

use super::check::{self, Types, ensure};
use super::data::{self, Results, bools};
use crate::graph::Graph;
use crate::graph::{Attrs, OpDef};
use crate::kind::{Arity, AttrKind, Class, Kind};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Rows of the family.
pub const ROWS: &[OpDef] = &[
    OpDef {
        kind: Kind::If,
        doc: "The results of `then` if cond (bool scalar) holds, else of `else`; both graphs take the other inputs and give the same types.",
        inputs: Arity::AtLeast(1),
        attrs: &[("then", AttrKind::Graph), ("else", AttrKind::Graph)],
        class: Class::Control,
        infer: branch,
        eval: eval_branch,
        work: |attrs, _, _| graph_work(attrs.graph("then")).max(graph_work(attrs.graph("else"))),
    },
    OpDef {
        kind: Kind::Loop,
        doc: "Runs `body` trip times while cond holds; an error where that is more than max_trip times. Inputs: trip (i64 scalar), cond (bool scalar), `carried` carried values, \
              captures. The body takes iteration (i64 scalar), cond, carried…, captures… and gives cond, carried…, scans…. Results: \
              carried…, then each scan [max_trip, ..], 0 where no iteration ran.",
        inputs: Arity::AtLeast(2),
        attrs: &[("body", AttrKind::Graph), ("carried", AttrKind::Int(0)), ("max_trip", AttrKind::Int(0))],
        class: Class::Control,
        infer: repeat,
        eval: eval_repeat,
        // What an iteration costs beside its body.
        work: |attrs, _, _| graph_work(attrs.graph("body")).saturating_add(64).saturating_mul(attrs.int("max_trip").max(0) as u64),
    },
];

/// Work of all nodes of a graph.
fn graph_work(graph: &Graph) -> u64 {
    let types = |n: &crate::graph::Node| n.inputs.iter().map(|v| graph.ty(*v).clone()).collect::<Vec<_>>();
    graph.nodes().iter().fold(0, |sum, n| sum.saturating_add((n.op.def.work)(&n.op.attrs, &types(n), &n.types)))
}

fn output_types(graph: &Graph) -> impl ExactSizeIterator<Item = &TensorType> {
    graph.outputs().iter().map(|(_, v)| graph.ty(*v))
}

/// `graph` must take inputs of exactly these types.
fn takes<'a>(what: &str, graph: &Graph, inputs: impl Iterator<Item = &'a TensorType> + Clone) -> Result<(), String> {
    let taken = graph.inputs().iter().map(|v| graph.ty(*v));
    ensure(taken.clone().eq(inputs.clone()), || {
        format!("{what} takes {:?}, but is given {:?}", taken.collect::<Vec<_>>(), inputs.collect::<Vec<_>>())
    })
}

fn branch(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::scalar("the condition", &x[0], Type::Bool)?;
    let [then, other] = [attrs.graph("then"), attrs.graph("else")];
    takes("the `then` branch", then, x[1..].iter())?;
    takes("the `else` branch", other, x[1..].iter())?;
    ensure(output_types(then).eq(output_types(other)), || {
        let [a, b] = [then, other].map(|g| output_types(g).collect::<Vec<_>>());
        format!("the branches differ in their results: {a:?} and {b:?}")
    })?;
    Ok(output_types(then).cloned().collect())
}

fn repeat(attrs: &Attrs, x: &[TensorType]) -> Types {
    check::scalar("the number of iterations", &x[0], Type::I64)?;
    check::scalar("the condition", &x[1], Type::Bool)?;
    let body = attrs.graph("body");
    let carried = check::size(attrs, "carried", 0)?;
    let max_trip = check::size(attrs, "max_trip", 0)?;
    let values = x[2..].get(..carried).ok_or_else(|| format!("there are no {carried} carried values among {} inputs", x.len()))?;
    let [iter, cond] = [TensorType::new(Type::I64, []), TensorType::new(Type::Bool, [])];
    takes("the body", body, [&iter, &cond].into_iter().chain(&x[2..]))?;
    let mut results = output_types(body);
    ensure(results.len() > carried, || format!("the body gives {} results, but must give {} or more", results.len(), carried + 1))?;
    check::scalar("the condition that the body gives", results.next().expect("more than none"), Type::Bool)?;
    let mut types = Vec::with_capacity(results.len());
    for value in values {
        let next = results.next().expect("more than `carried`");
        ensure(next == value, || format!("the body carries {next} on, but was given {value}"))?;
        types.push(value.clone());
    }
    for scan in results {
        let mut shape = vec![max_trip];
        shape.extend(&scan.shape);
        types.push(TensorType::checked(scan.ty, shape)?);
    }
    Ok(types)
}

fn holds(cond: &Tensor) -> bool {
    bools(cond).all(|c| c)
}

fn eval_branch(attrs: &Attrs, x: &[Tensor]) -> Results {
    let taken = attrs.graph(if holds(&x[0]) { "then" } else { "else" });
    crate::eval::eval(taken, &x[1..]).map_err(|e| e.to_string())
}

fn eval_repeat(attrs: &Attrs, x: &[Tensor]) -> Results {
    let types: Vec<TensorType> = x.iter().map(|x| x.ty().clone()).collect();
    let types = repeat(attrs, &types)?;
    let carried = attrs.size("carried");
    let (wanted, most) = (data::i64s(&x[0])[0], attrs.int("max_trip"));
    let trips = wanted.min(most);
    let mut cond = x[1].reshaped([]);
    let (mut values, captures) = (x[2..2 + carried].to_vec(), &x[2 + carried..]);
    let mut scans: Vec<Vec<u8>> = vec![vec![]; types.len() - carried];
    for iteration in 0..trips {
        if !holds(&cond) {
            break;
        }
        let inputs = [&[Tensor::scalar(iteration), cond], &values[..], captures].concat();
        let mut results = crate::eval::eval(attrs.graph("body"), &inputs).map_err(|e| format!("iteration {iteration}: {e}"))?.into_iter();
        cond = results.next().expect("the shape rule asks for a condition").reshaped([]);
        values = results.by_ref().take(carried).collect();
        scans.iter_mut().zip(results).for_each(|(scan, part)| scan.extend_from_slice(part.bytes()));
    }
    ensure(wanted <= most || !holds(&cond), || format!("the loop did not end within {most} iterations"))?;
    for (mut scan, ty) in scans.into_iter().zip(&types[carried..]) {
        scan.resize(ty.bytes(), 0);
        values.push(Tensor::from_bytes(ty.clone(), &scan).expect("the size was just set"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attr;
    use crate::graph::Op;

    fn scalar(ty: Type) -> TensorType {
        TensorType::new(ty, [])
    }

    /// A graph of one `kind` on two scalars.
    fn combine(kind: Kind) -> Graph {
        let mut g = Graph::new();
        let (a, b) = (g.input("a", scalar(Type::F32)), g.input("b", scalar(Type::F32)));
        let y = g.apply(kind, [], &[a, b]).expect("types fit");
        g.output("y", y);
        g
    }

    fn truth(holds: bool) -> Tensor {
        Tensor::with_type(scalar(Type::Bool), &[u8::from(holds)])
    }

    #[test]
    fn one_branch_is_taken() {
        let op = Op::new(Kind::If, [("then", combine(Kind::Add).into()), ("else", combine(Kind::Mul).into())]).expect("attributes");
        let run = |holds| crate::eval::eval_op(&op, &[truth(holds), Tensor::scalar(3f32), Tensor::scalar(4f32)]).expect("an answer");
        assert_eq!([run(true), run(false)], [[Tensor::scalar(7f32)], [Tensor::scalar(12f32)]]);
        let other = Op::new(Kind::If, [("then", combine(Kind::Add).into()), ("else", combine(Kind::Lt).into())]).expect("attributes");
        let error = crate::eval::eval_op(&other, &[truth(true), Tensor::scalar(3f32), Tensor::scalar(4f32)]).unwrap_err();
        assert_eq!(error, "the branches differ in their results: [f32[]] and [bool[]]");
    }

    /// Doubles the carried value while it stays below the limit, and lists what it was.
    fn doubling() -> Graph {
        let mut g = Graph::new();
        g.input("iteration", scalar(Type::I64));
        g.input("cond", scalar(Type::Bool));
        let (x, limit) = (g.input("x", scalar(Type::F32)), g.input("limit", scalar(Type::F32)));
        let next = g.apply(Kind::Add, [], &[x, x]).expect("types fit");
        let go = g.apply(Kind::Lt, [], &[next, limit]).expect("types fit");
        for (name, v) in [("go", go), ("next", next), ("was", x)] {
            g.output(name, v);
        }
        g
    }

    #[test]
    fn loops_end_by_number_or_condition() {
        let op =
            Op::new(Kind::Loop, [("body", doubling().into()), ("carried", Attr::Int(1)), ("max_trip", Attr::Int(5))]).expect("attributes");
        let try_run = |trip: i64, go: bool, limit: f32| {
            crate::eval::eval_op(&op, &[Tensor::scalar(trip), truth(go), Tensor::scalar(1f32), Tensor::scalar(limit)])
        };
        let run = |trip: i64, go: bool, limit: f32| {
            let y = try_run(trip, go, limit).expect("an answer");
            (y[0].values::<f32>()[0], y[1].values::<f32>().to_vec())
        };
        assert_eq!(run(5, true, 100.0), (32.0, vec![1.0, 2.0, 4.0, 8.0, 16.0]));
        assert_eq!(run(2, true, 100.0), (4.0, vec![1.0, 2.0, 0.0, 0.0, 0.0]));
        assert_eq!(run(9, true, 5.0), (8.0, vec![1.0, 2.0, 4.0, 0.0, 0.0]));
        assert_eq!(run(9, false, 5.0), (1.0, vec![0.0; 5]));
        assert_eq!(run(-1, true, 5.0), (1.0, vec![0.0; 5]));
        assert_eq!(run(i64::MAX, true, 32.0).0, 32.0, "the condition ends it just in time");
        assert!(try_run(i64::MAX, true, 100.0).is_err_and(|e| e.contains("did not end within 5 iterations")));
    }
}
