//! Control flow: `If`, `Loop` and `Scan`.
//!
//! A branch that is decided at compile time is inlined. What is left becomes an `if` or `loop` of the IR when its bodies can be graphs with
//! fixed types; else the condition's value is asked for, or the iterations are unrolled, one by one where each decides on the next.

use crate::build::{self, Build, Fail, Node};
use crate::import::{Item, Source, State, Stop};
use crate::net::{Net, NetNode, Slot};
use crate::ops::OpImport;
use dnnc_ir::{Attr, Graph, Kind, Tensor, TensorType, Type, Value};
use indexmap::IndexSet;
use std::collections::HashMap;
use std::sync::Arc;

/// Operators whose import is not a function of their own, and what of them is not supported.
pub(crate) const SPECIAL: &[(&str, &str)] = &[
    ("Constant", "not: strings"),
    ("If", "tensors only"),
    ("Loop", "tensors only"),
    ("Scan", "tensors only; opset 8: sequences of one length"),
];

/// Operators that do nothing.
pub(crate) const ROWS: &[OpImport] =
    &[OpImport { domain: "", name: "Identity", since: 1, until: None, import: identity, note: "tensors only" }];

fn identity(_: &mut Build, node: &Node) -> build::Result<Vec<Value>> {
    Ok(vec![node.input(0)?])
}

/// Iterations of a loop that is being unrolled.
#[derive(Clone)]
pub(crate) struct LoopRun {
    pub node: Arc<NetNode>,
    pub base: Slot,
    /// Number of iterations, if it is known.
    trip: Option<i64>,
    /// Iterations unrolled.
    at: i64,
    /// Whether there is another iteration; `None`: there is.
    pub cond: Option<Slot>,
    pub carried: Vec<Slot>,
    /// For each scan output, the values so far.
    pub scans: Vec<Vec<Slot>>,
    /// Set for `Scan`.
    scan: Option<Arc<ScanAxes>>,
    /// Where the final values go, then the scan outputs.
    pub outputs: Vec<Option<Slot>>,
}

impl LoopRun {
    /// Every slot that it reads and that is not an input of its node.
    pub fn slots(&self) -> Vec<Slot> {
        let walked = self.scan.iter().flat_map(|s| s.inputs.iter().map(|i| i.0));
        self.cond.iter().chain(&self.carried).chain(self.scans.iter().flatten()).copied().chain(walked).collect()
    }
}

/// What `Scan` goes along.
struct ScanAxes {
    /// Slot, axis and whether it is walked backwards.
    inputs: Vec<(Slot, usize, bool)>,
    /// Axis and whether it is written backwards.
    outputs: Vec<(i64, bool)>,
}

/// A body as a graph of its own.
struct Body {
    graph: Graph,
    /// Values outside that it reads, its last inputs.
    captures: Vec<Value>,
    /// Types of the outputs without those that are not wanted.
    types: Vec<TensorType>,
    /// Whether the condition that it gives is constantly true.
    endless: bool,
}

/// What a loop body is imported for.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// The values carried and every scan output that is wanted.
    All,
    /// As `All`, with the number of iterations as one more value carried.
    AllAndCount,
    /// The values carried and the number of iterations.
    Count,
}

impl State {
    fn node_values(&self, node: &NetNode, base: Slot) -> Result<Vec<Option<Value>>, Stop> {
        node.inputs.iter().map(|slot| slot.map(|s| self.value(base + s)).transpose()).collect()
    }

    /// A value of one element as rank 0.
    fn one_element(&mut self, v: Value, ty: Type, what: &str) -> Result<Value, Fail> {
        let got = self.build.ty(v);
        if got.ty != ty || got.len() != 1 {
            return build::invalid!("{what} must be one element of type {ty}, not {got}");
        }
        self.build.reshape(v, &[])
    }

    /// The values of captures that depend on inputs of the model, each once.
    fn captured(&self, nets: &[Arc<Net>], base: Slot) -> Result<Vec<Value>, Stop> {
        let mut values = IndexSet::new();
        for (outer, _) in nets.iter().flat_map(|n| &n.captures) {
            let v = self.value(base + outer)?;
            if !self.build.is_constant(v) {
                values.insert(v);
            }
        }
        Ok(values.into_iter().collect())
    }

    /// An import of `net` as a graph of its own whose captures are the next inputs; `inputs` are in that import's graph.
    fn enter_body(&self, sub: &mut State, net: &Net, base: Slot, captures: &[Value], inputs: &[Value]) -> HashMap<Value, Value> {
        let mut map = HashMap::new();
        for &v in captures {
            map.insert(v, sub.build.input(self.build.name(v), self.build.ty(v)));
        }
        sub.enter(net, inputs);
        for (outer, inner) in &net.captures {
            if let Ok(v) = self.value(base + outer) {
                let v = self.build.replay(v, &mut sub.build, &mut map);
                sub.bound.insert(*inner, Some(v));
            }
        }
        map
    }

    pub fn import_if(&mut self, node: &Arc<NetNode>, base: Slot) -> Result<(), Stop> {
        let inputs = self.node_values(node, base)?;
        let [Some(cond)] = inputs[..] else {
            return Err(Fail::Invalid(format!("{} inputs; it needs one, the condition", inputs.len())).into());
        };
        let [then, other] = &node.bodies[..] else {
            return Err(Fail::Invalid("a branch is missing".into()).into());
        };
        for body in [then, other] {
            if !body.inputs.is_empty() || body.outputs.len() < node.outputs.len() {
                let (i, o) = (body.inputs.len(), body.outputs.len());
                return Err(
                    Fail::Invalid(format!("a branch has {i} inputs and {o} outputs; the node has 0 and {}", node.outputs.len())).into()
                );
            }
        }
        let cond = self.one_element(cond, Type::Bool, "the condition")?;
        if let Some(known) = self.build.known(cond) {
            let body = if known.values::<u8>() == [0] { other } else { then };
            let mut items = vec![];
            let inner = self.instantiate(body, base, &[], &mut items)?;
            for (from, to) in body.outputs.iter().zip(&node.outputs) {
                to.iter().for_each(|to| self.link(inner + from, base + to, &mut items));
            }
            self.next_up(items);
            return Ok(());
        }
        let captures = self.captured(&node.bodies, base)?;
        let wanted: Vec<usize> = (0..node.outputs.len()).filter(|&i| node.outputs[i].is_some()).collect();
        let mut graphs = vec![];
        for body in [then, other] {
            let mut sub = State::empty(self.model.clone(), self.spent);
            self.enter_body(&mut sub, body, base, &captures, &[]);
            let outputs: Vec<Slot> = wanted.iter().map(|&i| body.outputs[i]).collect();
            let values = sub.complete(&outputs);
            self.spent = sub.spent;
            // A branch that cannot be a graph of its own may be fine once it is the one taken, or never be taken.
            let values = values.ok_or(Fail::NeedsValue(cond))?;
            let types: Vec<TensorType> = values.iter().map(|&v| sub.build.ty(v)).collect();
            let named: Vec<(String, Value)> = values.into_iter().enumerate().map(|(i, v)| (format!("out_{i}"), v)).collect();
            graphs.push((sub.build.finish(&named), types));
        }
        let [(then, types), (other, types_of_other)] = <[_; 2]>::try_from(graphs).expect("two branches");
        if types.iter().zip(&types_of_other).any(|(a, b)| a.ty != b.ty) {
            return Err(Fail::Invalid("its branches give different element types".into()).into());
        }
        if types != types_of_other {
            return Err(Fail::NeedsValue(cond).into());
        }
        let mut inputs = vec![cond];
        inputs.extend(captures);
        let result = self.build.op(Kind::If, [("then", then.into()), ("else", other.into())], &inputs)?;
        for (k, &i) in wanted.iter().enumerate() {
            node.outputs[i].iter().for_each(|slot| self.set(base + slot, Some(result.result(k as u32))));
        }
        Ok(())
    }

    pub fn import_loop(&mut self, node: &Arc<NetNode>, base: Slot) -> Result<(), Stop> {
        let inputs = self.node_values(node, base)?;
        let trip = inputs.first().copied().flatten();
        let cond = inputs.get(1).copied().flatten();
        let carried: Option<Vec<Value>> = inputs.get(2..).unwrap_or(&[]).iter().copied().collect();
        let carried = carried.ok_or_else(|| Fail::Invalid("a carried value is missing".into()))?;
        let body = node.bodies.first().ok_or_else(|| Fail::Invalid("the body is missing".into()))?.clone();
        let (n, outs) = (carried.len(), node.outputs.len());
        if body.inputs.len() != n + 2 || body.outputs.len() < (n + 1).max(outs + 1) {
            let (i, o) = (body.inputs.len(), body.outputs.len());
            return Err(Fail::Invalid(format!(
                "its body has {i} inputs and {o} outputs, which does not fit {n} carried values and {outs} outputs"
            ))
            .into());
        }
        let trip = trip.map(|v| self.one_element(v, Type::I64, "the trip count")).transpose()?;
        let cond = cond.map(|v| self.one_element(v, Type::Bool, "the condition")).transpose()?;
        let count = match trip {
            Some(v) => self.build.known(v).map(|t| t.values::<i64>()[0].max(0)),
            None => None,
        };
        let going = match cond {
            Some(v) => self.build.known(v).map(|t| t.values::<u8>()[0] != 0),
            None => Some(true),
        };
        let run = LoopRun {
            node: node.clone(),
            base,
            trip: count,
            at: 0,
            cond: node.inputs.get(1).copied().flatten().map(|s| base + s),
            carried: node.inputs.iter().skip(2).flatten().map(|s| base + s).collect(),
            scans: vec![vec![]; body.outputs.len() - 1 - n],
            scan: None,
            outputs: node.outputs.iter().map(|o| o.map(|s| base + s)).collect(),
        };
        if count == Some(0) || going == Some(false) {
            return self.finish_loop(&LoopRun { trip: Some(0), ..run });
        }
        let captures = self.captured(&node.bodies, base)?;
        let plan = if count == Some(1) { None } else { self.loop_body(node, base, &carried, &captures, Purpose::All) };
        let Some(plan) = plan else {
            // Not a graph with fixed types: unrolled.
            if let (Some(v), None) = (trip, count) {
                return Err(Fail::NeedsValue(v).into());
            }
            self.queue.push_front(Item::Loop(Box::new(run)));
            return Ok(());
        };
        let counted = plan.endless && going == Some(true);
        let scans: usize = node.outputs.iter().skip(n).flatten().count();
        let most = self.model.limits.iterations;
        if let Some(count) = count.filter(|c| counted && *c > most) {
            return Err(Fail::Invalid(format!("a trip count of {count} is too large; the limit is {most} (--max-iterations)")).into());
        }
        let go = cond.unwrap_or_else(|| self.build.konst(truth()));
        let ceiling = trip.unwrap_or_else(|| self.build.i64(i64::MAX));
        if trip.is_none() && counted {
            return Err(Fail::Invalid("the loop never ends: it has neither a trip count nor a condition".into()).into());
        }
        if scans == 0 || (counted && count.is_some()) {
            let values = self.run_body(plan, count.map_or(most, |c| c.min(most)), ceiling, go, &carried)?;
            return self.bind_loop(node, base, n, &values);
        }
        // The size of the scan outputs is the number of iterations.
        if let (Some(v), None) = (trip, count) {
            return Err(Fail::NeedsValue(v).into());
        }
        let room = |count: i64| {
            let grown = plan.types.iter().skip(n + 1).map(|t| TensorType::new(t.ty, [&[count as usize], &t.shape[..]].concat()));
            grown.map(|t| self.build.check_size(&t)).all(|r| r.is_ok())
        };
        let count_with_room = count.filter(|c| room(*c));
        let zero = self.build.i64(0);
        let with_count: Vec<Value> = carried.iter().copied().chain([zero]).collect();
        match count_with_room {
            Some(count) => {
                let plan = self.loop_body(node, base, &carried, &captures, Purpose::AllAndCount).ok_or_else(again)?;
                let mut values = self.run_body(plan, count, ceiling, go, &with_count)?;
                let ran = values.remove(n);
                let ran = self.hidden(ran);
                let mut items = vec![];
                self.bind_carried(node, base, &values[..n]);
                for (&slot, &full) in node.outputs[n..].iter().flatten().zip(&values[n..]) {
                    let from = self.hidden(full);
                    items.push(Item::Trim { node: node.clone(), from, count: ran, to: base + slot });
                }
                self.next_up(items);
                Ok(())
            }
            None => {
                // Once to count, and when that is known, once more for the outputs.
                let counter = self.loop_body(node, base, &carried, &captures, Purpose::Count).ok_or_else(again)?;
                let values = self.run_body(counter, count.map_or(most, |c| c.min(most)), ceiling, go, &with_count)?;
                let ran = self.build.need_i64(values[n])?;
                if ran == 0 {
                    return self.finish_loop(&LoopRun { trip: Some(0), ..run });
                }
                let trip = self.build.i64(ran);
                let values = self.run_body(plan, ran, trip, go, &carried)?;
                self.bind_loop(node, base, n, &values)
            }
        }
    }

    fn bind_carried(&mut self, node: &NetNode, base: Slot, values: &[Value]) {
        for (slot, &v) in node.outputs.iter().zip(values) {
            slot.iter().for_each(|slot| self.set(base + slot, Some(v)));
        }
    }

    /// Binds carried values and the scan outputs that are wanted.
    fn bind_loop(&mut self, node: &NetNode, base: Slot, n: usize, values: &[Value]) -> Result<(), Stop> {
        self.bind_carried(node, base, &values[..n.min(values.len())]);
        for (slot, &v) in node.outputs.iter().skip(n).flatten().zip(&values[n..]) {
            self.set(base + slot, Some(v));
        }
        Ok(())
    }

    /// Applies `loop`; its results.
    fn run_body(&mut self, body: Body, max_trip: i64, trip: Value, cond: Value, carried: &[Value]) -> Result<Vec<Value>, Fail> {
        let mut inputs = vec![trip, cond];
        inputs.extend(carried);
        inputs.extend(&body.captures);
        let attrs = [("body", body.graph.into()), ("carried", Attr::Int(carried.len() as i64)), ("max_trip", Attr::Int(max_trip))];
        let first = self.build.op(Kind::Loop, attrs, &inputs)?;
        Ok((0..self.build.results(first)).map(|i| first.result(i)).collect())
    }

    /// The body of a `Loop` as a graph, if it can be one and carries values of the same types on.
    fn loop_body(&mut self, node: &NetNode, base: Slot, carried: &[Value], captures: &[Value], purpose: Purpose) -> Option<Body> {
        let net = &node.bodies[0];
        let n = carried.len();
        let mut sub = State::empty(self.model.clone(), self.spent);
        let iteration = sub.build.input("iteration", TensorType::new(Type::I64, []));
        sub.build.input("cond", TensorType::new(Type::Bool, []));
        // Where the body runs, the condition holds.
        let holds = sub.build.konst(truth());
        let mut inputs = vec![iteration, holds];
        inputs.extend(carried.iter().enumerate().map(|(i, &v)| sub.build.input(&format!("carried_{i}"), self.build.ty(v))));
        let counter = (purpose != Purpose::All).then(|| sub.build.input("count", TensorType::new(Type::I64, [])));
        self.enter_body(&mut sub, net, base, captures, &inputs);
        let scans = node.outputs.iter().enumerate().skip(n).filter(|(_, o)| o.is_some() && purpose != Purpose::Count);
        let wanted: Vec<Slot> = net.outputs[..=n].iter().copied().chain(scans.map(|(i, _)| net.outputs[i + 1])).collect();
        let values = sub.complete(&wanted);
        self.spent = sub.spent;
        let mut values = values?;
        values[0] = sub.one_element(values[0], Type::Bool, "the condition").ok()?;
        if let Some(counter) = counter {
            values.insert(n + 1, sub.build.with_scalar(Kind::Add, counter, 1.0).ok()?);
        }
        let same = carried.iter().zip(&values[1..]).all(|(&before, &after)| self.build.ty(before) == sub.build.ty(after));
        let endless = sub.build.known(values[0]).is_some_and(|t| t.values::<u8>()[0] != 0);
        same.then(|| Body::new(&sub, values, captures, endless))
    }

    pub fn import_scan(&mut self, node: &Arc<NetNode>, base: Slot) -> Result<(), Stop> {
        let mut inputs = self.node_values(node, base)?;
        let attribute = |name: &str| node.attributes.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone());
        let ints = |name: &str, len: usize| match attribute(name) {
            None => Ok(vec![0; len]),
            Some(build::Attribute::Ints(v)) if v.len() == len => Ok(v),
            Some(_) => build::invalid!("attribute `{name}` must be {len} integers"),
        };
        let first = usize::from(node.opset < 9);
        if inputs.len() <= first {
            return Err(Fail::Invalid("it has no scan input".into()).into());
        }
        let m = match attribute("num_scan_inputs") {
            Some(build::Attribute::Int(m)) => usize::try_from(m).ok().filter(|m| (1..=inputs.len() - first).contains(m)),
            _ => None,
        };
        let Some(m) = m else { return Err(Fail::Invalid("attribute `num_scan_inputs` does not fit the inputs".into()).into()) };
        let body = node.bodies.first().ok_or_else(|| Fail::Invalid("the body is missing".into()))?.clone();
        let lens = if node.opset < 9 { inputs.remove(0) } else { None };
        let n = inputs.len().saturating_sub(m);
        let all: Option<Vec<Value>> = inputs.into_iter().collect();
        let all = all.ok_or_else(|| Fail::Invalid("an input is missing".into()))?;
        if body.inputs.len() != n + m || body.outputs.len() < n.max(node.outputs.len()) {
            let (i, o) = (body.inputs.len(), body.outputs.len());
            return Err(Fail::Invalid(format!(
                "its body has {i} inputs and {o} outputs, which does not fit {n} states and {m} scan inputs"
            ))
            .into());
        }
        let k = body.outputs.len() - n;
        if node.opset < 9 {
            return self.import_batch_scan(node, base, &all, lens, (n, k), &ints("directions", m)?);
        }
        let (axes, directions) = (ints("scan_input_axes", m)?, ints("scan_input_directions", m)?);
        let (out_axes, out_directions) = (ints("scan_output_axes", k)?, ints("scan_output_directions", k)?);
        if let Some(odd) = directions.iter().chain(&out_directions).find(|d| !matches!(d, 0 | 1)) {
            return Err(Fail::Invalid(format!("{odd} is no scan direction")).into());
        }
        let (mut walked, mut trip) = (vec![], None);
        for (i, &x) in all[n..].iter().enumerate() {
            let axis = build::axis(axes[i], self.build.rank(x))?;
            let size = self.build.shape(x)[axis];
            if *trip.get_or_insert(size) != size {
                return Err(Fail::Invalid(format!("scan inputs of lengths {size} and {}", trip.unwrap_or(0))).into());
            }
            walked.push((base + node.inputs[n + i].unwrap_or(0), axis, directions[i] != 0));
        }
        let axes = ScanAxes { inputs: walked, outputs: out_axes.into_iter().zip(out_directions.into_iter().map(|d| d != 0)).collect() };
        let trip = trip.unwrap_or(0) as i64;
        let run = LoopRun {
            node: node.clone(),
            base,
            trip: Some(trip),
            at: 0,
            cond: None,
            carried: node.inputs[..n].iter().flatten().map(|s| base + s).collect(),
            scans: vec![vec![]; k],
            scan: Some(Arc::new(axes)),
            outputs: node.outputs.iter().map(|o| o.map(|s| base + s)).collect(),
        };
        if trip == 0 {
            return self.finish_loop(&run);
        }
        self.captured(&node.bodies, base)?;
        let plan = if trip == 1 { None } else { self.scan_body(&run, &all)? };
        let Some(plan) = plan else {
            self.queue.push_front(Item::Loop(Box::new(run)));
            return Ok(());
        };
        let (count, go) = (self.build.i64(trip), self.build.konst(truth()));
        let values = self.run_body(plan, trip, count, go, &all[..n])?;
        self.bind_carried(node, base, &values[..n]);
        let wanted = node.outputs.iter().enumerate().skip(n).filter_map(|(i, o)| Some((i - n, (*o)?)));
        for ((i, slot), &v) in wanted.zip(&values[n..]) {
            let (axis, reverse) = run.scan.as_ref().map_or((0, false), |s| s.outputs[i]);
            let rank = self.build.rank(v);
            let axis = build::axis(axis, rank)?;
            let mut perm: Vec<usize> = (1..rank).collect();
            perm.insert(axis, 0);
            let v = if reverse { self.reversed(v, 0)? } else { v };
            let v = self.build.transpose(v, &perm)?;
            self.set(base + slot, Some(v));
        }
        Ok(())
    }

    /// `Scan` of opset 8: every input has a batch axis in front. The batches are unrolled.
    fn import_batch_scan(
        &mut self,
        node: &Arc<NetNode>,
        base: Slot,
        all: &[Value],
        lens: Option<Value>,
        (n, k): (usize, usize),
        directions: &[i64],
    ) -> Result<(), Stop> {
        let shapes: Vec<Vec<usize>> = all.iter().map(|&v| self.build.shape(v)).collect();
        let batch = shapes.first().and_then(|s| s.first()).copied().unwrap_or(0);
        let trip = shapes.get(n).and_then(|s| s.get(1)).copied().unwrap_or(0);
        let fits = |(i, s): (usize, &Vec<usize>)| s.first() == Some(&batch) && (i < n || s.get(1) == Some(&trip));
        if batch == 0 || !shapes.iter().enumerate().all(fits) {
            return Err(Fail::Invalid(format!("inputs of shapes {shapes:?} do not have one batch size, not 0, and one length")).into());
        }
        if let Some(lens) = lens {
            let lens = self.build.need_i64s(lens)?;
            if lens.iter().any(|&l| l != trip as i64) {
                return Err(Fail::Unsupported(format!("sequences of different lengths {lens:?}")).into());
            }
        }
        let mut items = vec![];
        let mut parts: Vec<Vec<Slot>> = vec![vec![]; node.outputs.len()];
        for b in 0..batch {
            let mut rows = vec![];
            for &v in all {
                let row = self.build.slice_axis(v, 0, b, 1)?;
                let row = self.build.squeeze(row, &[0])?;
                rows.push(self.hidden(row));
            }
            let mut outputs = vec![];
            for (i, output) in node.outputs.iter().enumerate() {
                outputs.push(output.map(|_| self.next));
                self.next += 1;
                outputs[i].iter().for_each(|&s| parts[i].push(s));
            }
            let walked = rows[n..].iter().zip(directions).map(|(&s, &d)| (s, 0, d != 0)).collect();
            items.push(Item::Loop(Box::new(LoopRun {
                node: node.clone(),
                base,
                trip: Some(trip as i64),
                at: 0,
                cond: None,
                carried: rows[..n].to_vec(),
                scans: vec![vec![]; k],
                scan: Some(Arc::new(ScanAxes { inputs: walked, outputs: vec![(0, false); k] })),
                outputs,
            })));
        }
        for (parts, to) in parts.into_iter().zip(&node.outputs) {
            if let Some(to) = to {
                items.push(Item::Stack { node: node.clone(), parts, to: base + to, axis: 0, reverse: false });
            }
        }
        self.next_up(items);
        Ok(())
    }

    fn reversed(&mut self, v: Value, axis: usize) -> Result<Value, Fail> {
        let sizes = self.build.shape(v);
        let (mut starts, mut steps) = (vec![0; sizes.len()], vec![1; sizes.len()]);
        if sizes[axis] == 0 {
            return Ok(v);
        }
        (starts[axis], steps[axis]) = (sizes[axis] as i64 - 1, -1);
        self.build.slice(v, &starts, &sizes, &steps)
    }

    /// The body of a `Scan` as that of a `loop` which picks its slices itself; `None` if it cannot be one.
    fn scan_body(&mut self, run: &LoopRun, all: &[Value]) -> Result<Option<Body>, Stop> {
        let (node, base) = (&run.node, run.base);
        let axes = run.scan.clone().ok_or(Stop::Wait)?;
        let (net, n) = (&node.bodies[0], all.len() - axes.inputs.len());
        let mut captures = self.captured(&node.bodies, base)?;
        for &x in &all[n..] {
            if !self.build.is_constant(x) && !captures.contains(&x) {
                captures.push(x);
            }
        }
        let mut sub = State::empty(self.model.clone(), self.spent);
        let iteration = sub.build.input("iteration", TensorType::new(Type::I64, []));
        sub.build.input("cond", TensorType::new(Type::Bool, []));
        let mut inputs: Vec<Value> = vec![];
        inputs.extend(all[..n].iter().enumerate().map(|(i, &v)| sub.build.input(&format!("carried_{i}"), self.build.ty(v))));
        let mut map = self.enter_body(&mut sub, net, base, &captures, &inputs);
        for (i, (&x, &(_, axis, reverse))) in all[n..].iter().zip(&axes.inputs).enumerate() {
            let x = self.build.replay(x, &mut sub.build, &mut map);
            let last = sub.build.i64(run.trip.unwrap_or(1) - 1);
            let index = if reverse { sub.build.binary(Kind::Sub, last, iteration)? } else { iteration };
            let slice = sub.build.gather(x, index, axis)?;
            sub.bound.insert(net.inputs[n + i], Some(slice));
        }
        let scans = node.outputs.iter().enumerate().skip(n).filter(|(_, o)| o.is_some());
        let wanted: Vec<Slot> = net.outputs[..n].iter().copied().chain(scans.map(|(i, _)| net.outputs[i])).collect();
        let values = sub.complete(&wanted);
        self.spent = sub.spent;
        let Some(mut values) = values else { return Ok(None) };
        let same = all[..n].iter().zip(&values).all(|(&before, &after)| self.build.ty(before) == sub.build.ty(after));
        let holds = sub.build.konst(truth());
        values.insert(0, holds);
        Ok(same.then(|| Body::new(&sub, values, &captures, true)))
    }

    /// One step of unrolling.
    pub fn iterate(&mut self, run: &LoopRun) -> Result<(), Stop> {
        if run.trip.is_some_and(|trip| run.at >= trip) {
            return self.finish_loop(run);
        }
        if let Some(cond) = run.cond {
            let cond = self.value(cond)?;
            let cond = self.one_element(cond, Type::Bool, "the condition")?;
            if self.build.need(cond)?.values::<u8>()[0] == 0 {
                return self.finish_loop(run);
            }
        }
        let body = run.node.bodies[0].clone();
        let carried = run.carried.iter().map(|&s| Source::Slot(s));
        let mut sources: Vec<Source> = vec![];
        match &run.scan {
            None => {
                let (at, holds) = (self.build.i64(run.at), self.build.konst(truth()));
                sources.extend([Source::Value(at), Source::Value(holds)]);
                sources.extend(carried);
            }
            Some(axes) => {
                sources.extend(carried);
                for &(slot, axis, reverse) in &axes.inputs {
                    let x = self.value(slot)?;
                    let last = run.trip.unwrap_or(1) - 1;
                    let place = if reverse { last - run.at } else { run.at };
                    let slice = self.build.slice_axis(x, axis, place as usize, 1)?;
                    sources.push(Source::Value(self.build.squeeze(slice, &[axis])?));
                }
            }
        }
        self.check_carried(run)?;
        let mut items = vec![];
        let inner = self.instantiate(&body, run.base, &sources, &mut items)?;
        let mut outputs = body.outputs.iter().map(|s| inner + s);
        let mut next = run.clone();
        next.at += 1;
        if run.scan.is_none() {
            next.cond = outputs.next();
        }
        next.carried = outputs.by_ref().take(run.carried.len()).collect();
        next.scans.iter_mut().zip(outputs).for_each(|(all, slot)| all.push(slot));
        items.push(Item::Loop(Box::new(next)));
        self.next_up(items);
        Ok(())
    }

    /// Refuses a body that changes the element type of what it carries on. (Sizes may change.)
    fn check_carried(&self, run: &LoopRun) -> Result<(), Fail> {
        let first = if run.scan.is_none() { 2 } else { 0 };
        if run.at == 0 || (run.scan.is_some() && run.node.opset < 9) {
            return Ok(());
        }
        for (i, (given, now)) in run.node.inputs.iter().skip(first).flatten().zip(&run.carried).enumerate() {
            if let (Some(Some(given)), Some(Some(now))) = (self.bound.get(&(run.base + given)), self.bound.get(now)) {
                let (given, now) = (self.build.elem(*given), self.build.elem(*now));
                if given != now {
                    return build::invalid!("its body was given {given} and carries {now} on, as value {i}");
                }
            }
        }
        Ok(())
    }

    /// Binds the outputs of a loop whose iterations are all unrolled.
    fn finish_loop(&mut self, run: &LoopRun) -> Result<(), Stop> {
        let (node, n) = (&run.node, run.carried.len());
        let empty = match run.outputs.iter().skip(n).any(Option::is_some) && run.at == 0 {
            true => Some(self.empty_scans(run)?),
            false => None,
        };
        let mut items = vec![];
        for (&from, to) in run.carried.iter().zip(&run.outputs) {
            to.iter().for_each(|&to| self.link(from, to, &mut items));
        }
        for (i, to) in run.outputs.iter().enumerate().skip(n).filter_map(|(i, o)| Some((i - n, (*o)?))) {
            let (axis, reverse) = run.scan.as_ref().map_or((0, false), |s| s.outputs[i]);
            match &empty {
                Some(types) => {
                    let ty = &types[i];
                    let axis = build::axis(axis, ty.rank() + 1)?;
                    let mut shape = ty.shape.clone();
                    shape.insert(axis, 0);
                    let value = self.build.konst(Tensor::zeros(TensorType::new(ty.ty, shape)));
                    self.set(to, Some(value));
                }
                None => items.push(Item::Stack { node: node.clone(), parts: run.scans[i].clone(), to, axis, reverse }),
            }
        }
        self.next_up(items);
        Ok(())
    }

    /// The types of the scan outputs of one iteration, found without running any.
    fn empty_scans(&mut self, run: &LoopRun) -> Result<Vec<TensorType>, Stop> {
        let (node, base, n) = (&run.node, run.base, run.carried.len());
        self.captured(&node.bodies, base)?;
        let net = &node.bodies[0];
        let carried = run.carried.iter().map(|&s| self.value(s)).collect::<Result<Vec<Value>, Stop>>()?;
        let captures = self.captured(&node.bodies, base)?;
        let mut sub = State::empty(self.model.clone(), self.spent);
        let mut inputs: Vec<Value> = vec![];
        let head = match &run.scan {
            None => {
                inputs.push(sub.build.input("iteration", TensorType::new(Type::I64, [])));
                inputs.push(sub.build.input("cond", TensorType::new(Type::Bool, [])));
                1
            }
            Some(_) => 0,
        };
        inputs.extend(carried.iter().enumerate().map(|(i, &v)| sub.build.input(&format!("carried_{i}"), self.build.ty(v))));
        for &(slot, axis, _) in run.scan.iter().flat_map(|s| &s.inputs) {
            let mut ty = self.build.ty(self.value(slot)?);
            ty.shape.remove(axis);
            inputs.push(sub.build.input("slice", ty));
        }
        self.enter_body(&mut sub, net, base, &captures, &inputs);
        let values = sub.complete(&net.outputs[head + n..]);
        self.spent = sub.spent;
        let unknown = || Fail::Unsupported("it never runs, and the shape of its scan outputs cannot be told".into());
        Ok(values.ok_or_else(unknown)?.iter().map(|&v| sub.build.ty(v)).collect())
    }

    /// The values one after the other along a new axis.
    pub fn stack(&mut self, parts: &[Value], axis: i64, reverse: bool) -> Result<Value, Fail> {
        let mut rows = vec![];
        for &part in parts {
            let axis = build::axis(axis, self.build.rank(part) + 1)?;
            rows.push((self.build.unsqueeze(part, &[axis])?, axis));
        }
        if reverse {
            rows.reverse();
        }
        let axis = rows.first().map_or(0, |r| r.1);
        let rows: Vec<Value> = rows.into_iter().map(|r| r.0).collect();
        self.build.concat(&rows, axis)
    }
}

impl Body {
    fn new(sub: &State, values: Vec<Value>, captures: &[Value], endless: bool) -> Body {
        let types = values.iter().map(|&v| sub.build.ty(v)).collect();
        let named: Vec<(String, Value)> = values.into_iter().enumerate().map(|(i, v)| (format!("out_{i}"), v)).collect();
        Body { graph: sub.build.finish(&named), captures: captures.to_vec(), types, endless }
    }
}

fn truth() -> Tensor {
    Tensor::with_type(TensorType::new(Type::Bool, []), &[1u8])
}

fn again() -> Fail {
    Fail::Unsupported("its body cannot be imported twice".into())
}
