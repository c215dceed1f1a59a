//! `Scan`: a `loop` whose body picks its slices itself, or unrolled.

use super::control::{Body, truth};
use super::state::{Item, LoopRun, ScanAxes, State, Stop};
use crate::build::{self, Fail};
use crate::resolved::{ResolvedNode, Slot};
use dnnc_ir::{Kind, TensorType, Type, Value};
use std::sync::Arc;

impl State {
    pub(super) fn import_scan(&mut self, node: &Arc<ResolvedNode>, base: Slot) -> Result<(), Stop> {
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
        let (count, go) = (self.build.i64(trip), self.build.constant(truth()));
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
        node: &Arc<ResolvedNode>,
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
        let (graph, n) = (&node.bodies[0], all.len() - axes.inputs.len());
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
        let mut map = self.enter_body(&mut sub, graph, base, &captures, &inputs);
        for (i, (&x, &(_, axis, reverse))) in all[n..].iter().zip(&axes.inputs).enumerate() {
            let x = self.build.replay(x, &mut sub.build, &mut map);
            let last = sub.build.i64(run.trip.unwrap_or(1) - 1);
            let index = if reverse { sub.build.binary(Kind::Sub, last, iteration)? } else { iteration };
            let slice = sub.build.gather(x, index, axis)?;
            sub.bound.insert(graph.inputs[n + i], Some(slice));
        }
        let scans = node.outputs.iter().enumerate().skip(n).filter(|(_, o)| o.is_some());
        let wanted: Vec<Slot> = graph.outputs[..n].iter().copied().chain(scans.map(|(i, _)| graph.outputs[i])).collect();
        let values = sub.complete(&wanted);
        self.spent = sub.spent;
        let Some(mut values) = values else { return Ok(None) };
        let same = all[..n].iter().zip(&values).all(|(&before, &after)| self.build.ty(before) == sub.build.ty(after));
        let holds = sub.build.constant(truth());
        values.insert(0, holds);
        Ok(same.then(|| Body::new(&sub, values, &captures, true)))
    }
}
