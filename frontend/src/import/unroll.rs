//! Loops and scans unrolled, one iteration after the other where each decides on the next.

use super::control::truth;
use super::state::{Item, LoopRun, Source, State, Stop};
use crate::build::{self, Fail};
use dnnc_ir::{Tensor, TensorType, Type, Value};

impl State {
    /// One step of unrolling.
    pub(super) fn iterate(&mut self, run: &LoopRun) -> Result<(), Stop> {
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
                let (at, holds) = (self.build.i64(run.at), self.build.constant(truth()));
                sources.extend([Source::Value(at), Source::Value(holds)]);
                sources.extend(carried);
            }
            Some(axes) => {
                sources.extend(carried);
                for &(slot, axis, reverse) in &axes.inputs {
                    let x = self.value(slot)?;
                    let last = run.trip.unwrap_or(1) - 1;
                    let index = if reverse { last - run.at } else { run.at };
                    let slice = self.build.slice_axis(x, axis, index as usize, 1)?;
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
    pub(super) fn finish_loop(&mut self, run: &LoopRun) -> Result<(), Stop> {
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
                    let value = self.build.constant(Tensor::zeros(TensorType::new(ty.ty, shape)));
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
        let graph = &node.bodies[0];
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
        self.enter_body(&mut sub, graph, base, &captures, &inputs);
        let values = sub.complete(&graph.outputs[head + n..]);
        self.spent = sub.spent;
        let unknown = || Fail::Unsupported("it never runs, and the shape of its scan outputs cannot be told".into());
        Ok(values.ok_or_else(unknown)?.iter().map(|&v| sub.build.ty(v)).collect())
    }

    /// The values one after the other along a new axis.
    pub(super) fn stack(&mut self, parts: &[Value], axis: i64, reverse: bool) -> Result<Value, Fail> {
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
