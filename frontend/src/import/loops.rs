//! `Loop`: a `loop` of the IR where its body can be a graph with fixed types; else it is unrolled.

use super::control::{Body, truth};
use super::state::{Item, LoopRun, State, Stop};
use crate::build::Fail;
use crate::resolved::{ResolvedNode, Slot};
use dnnc_ir::{Kind, TensorType, Type, Value};
use std::sync::Arc;

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
    pub(super) fn import_loop(&mut self, node: &Arc<ResolvedNode>, base: Slot) -> Result<(), Stop> {
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
        let go = cond.unwrap_or_else(|| self.build.constant(truth()));
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

    /// Binds carried values and the scan outputs that are wanted.
    fn bind_loop(&mut self, node: &ResolvedNode, base: Slot, n: usize, values: &[Value]) -> Result<(), Stop> {
        self.bind_carried(node, base, &values[..n.min(values.len())]);
        for (slot, &v) in node.outputs.iter().skip(n).flatten().zip(&values[n..]) {
            self.set(base + slot, Some(v));
        }
        Ok(())
    }

    /// The body of a `Loop` as a graph, if it can be one and carries values of the same types on.
    fn loop_body(&mut self, node: &ResolvedNode, base: Slot, carried: &[Value], captures: &[Value], purpose: Purpose) -> Option<Body> {
        let graph = &node.bodies[0];
        let n = carried.len();
        let mut sub = State::empty(self.model.clone(), self.spent);
        let iteration = sub.build.input("iteration", TensorType::new(Type::I64, []));
        sub.build.input("cond", TensorType::new(Type::Bool, []));
        // Where the body runs, the condition holds.
        let holds = sub.build.constant(truth());
        let mut inputs = vec![iteration, holds];
        inputs.extend(carried.iter().enumerate().map(|(i, &v)| sub.build.input(&format!("carried_{i}"), self.build.ty(v))));
        let counter = (purpose != Purpose::All).then(|| sub.build.input("count", TensorType::new(Type::I64, [])));
        self.enter_body(&mut sub, graph, base, captures, &inputs);
        let scans = node.outputs.iter().enumerate().skip(n).filter(|(_, o)| o.is_some() && purpose != Purpose::Count);
        let wanted: Vec<Slot> = graph.outputs[..=n].iter().copied().chain(scans.map(|(i, _)| graph.outputs[i + 1])).collect();
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
}

fn again() -> Fail {
    Fail::Unsupported("its body cannot be imported twice".into())
}
