//! Running the queue: each item is imported, waits for a value, or is refused.

use super::state::{Item, State, Stop};
use crate::build::{Fail, Node};
use crate::refusal::{Refusal, RefusalKind};
use crate::resolved::{Import, Slot, qualified};
use dnnc_ir::{Type, Value};
use std::collections::HashSet;

impl State {
    /// Imports the items of the queue; those that need a value wait.
    pub fn run(&mut self, outputs: &[Slot]) {
        let mut waiting = vec![];
        while let Some(item) = self.queue.pop_front() {
            let upstream_refused = match self.step(&item) {
                Ok(()) => false,
                Err(Stop::Wait) => {
                    waiting.push((item.clone(), None));
                    false
                }
                Err(Stop::UpstreamRefused) => true,
                Err(Stop::Fail(Fail::NeedsValue(v))) => {
                    waiting.push((item.clone(), Some(v)));
                    false
                }
                Err(Stop::Fail(Fail::Unsupported(reason))) => self.refuse(&item, RefusalKind::Unsupported, reason),
                Err(Stop::Fail(Fail::Invalid(reason))) => self.refuse(&item, RefusalKind::Invalid, reason),
            };
            if upstream_refused {
                item.outputs().iter().for_each(|slot| self.set(*slot, None));
            }
        }
        // Only what an output needs is worth waiting for.
        let mut wanted: HashSet<Slot> = outputs.iter().copied().filter(|s| !self.bound.contains_key(s)).collect();
        for (item, need) in waiting.into_iter().rev() {
            if item.outputs().iter().any(|s| wanted.contains(s)) {
                wanted.extend(item.inputs());
                self.waiting.push((item, need));
            }
        }
        self.waiting.reverse();
    }

    fn refuse(&mut self, item: &Item, kind: RefusalKind, reason: String) -> bool {
        let refusal = match item.node() {
            Some(n) => Refusal { op: qualified(&n.domain, &n.op_type), opset: n.opset, ..Refusal::new(kind, "node", &n.name, reason) },
            None => Refusal::new(kind, "node", "", reason),
        };
        // An unrolled body says the same thing again and again.
        if self.refusals.len() < 1000 && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
        true
    }

    fn step(&mut self, item: &Item) -> Result<(), Stop> {
        if let Some(node) = item.node() {
            self.build.set_name(&node.name);
        }
        match item {
            Item::Node { node, base } => match node.import {
                Import::Op(row) => {
                    let input = |slot: &Option<Slot>| slot.map(|s| self.value(base + s)).transpose();
                    let inputs = node.inputs.iter().map(input).collect::<Result<Vec<_>, Stop>>()?;
                    if let Some(schema) = node.schema {
                        let types: Vec<Option<Type>> = inputs.iter().map(|v| v.map(|v| self.build.elem(v))).collect();
                        schema.check_types(&types).map_err(Fail::Invalid)?;
                    }
                    let view = Node {
                        opset: node.opset,
                        attributes: &node.attributes,
                        inputs,
                        outputs: node.outputs.iter().map(Option::is_some).collect(),
                    };
                    let values = (row.import)(&mut self.build, &view)?;
                    self.bind(node, *base, &values)
                }
                Import::If => self.import_if(node, *base),
                Import::Loop => self.import_loop(node, *base),
                Import::Scan => self.import_scan(node, *base),
            },
            Item::Alias { from, to } => {
                let value = self.value(*from)?;
                self.set(*to, Some(value));
                Ok(())
            }
            Item::Loop(run) => self.iterate(run),
            Item::Stack { parts, to, axis, reverse, .. } => {
                let parts = parts.iter().map(|&p| self.value(p)).collect::<Result<Vec<_>, Stop>>()?;
                let value = self.stack(&parts, *axis, *reverse)?;
                self.set(*to, Some(value));
                Ok(())
            }
            Item::Trim { from, count, to, .. } => {
                let (from, count) = (self.value(*from)?, self.value(*count)?);
                let count = self.build.need_i64(count)?.max(0) as usize;
                let value = self.build.slice_axis(from, 0, 0, count)?;
                self.set(*to, Some(value));
                Ok(())
            }
        }
    }

    /// Imports everything and returns the values of `outputs`; `None` when something is refused or needs a value.
    pub fn complete(&mut self, outputs: &[Slot]) -> Option<Vec<Value>> {
        self.run(outputs);
        if !self.waiting.is_empty() || !self.refusals.is_empty() {
            return None;
        }
        outputs.iter().map(|s| self.value(*s).ok()).collect()
    }
}
