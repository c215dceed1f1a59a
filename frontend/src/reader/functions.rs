//! Functions of a model: checked for recursion, inlined where they are called.

use super::loader::{Attr, Bindings, Frame, Loader, domain};
use crate::proto::{FunctionProto, NodeProto};
use crate::refusal::RefusalKind;
use crate::resolved::Slot;
use crate::topological_sort::sort;
use std::collections::{BTreeSet, HashMap, HashSet};

impl<'p> Loader<'p, '_> {
    /// Refuses functions that call one another in a cycle, used or not.
    pub(super) fn check_calls(&mut self, functions: &'p [FunctionProto]) {
        let index: HashMap<_, usize> =
            functions.iter().enumerate().map(|(i, f)| ((domain(&f.domain), f.name.as_str(), f.overload.as_str()), i)).collect();
        let mut callees = vec![];
        for f in functions {
            let mut called = BTreeSet::new();
            let mut nodes: Vec<&NodeProto> = f.node.iter().collect();
            while let Some(n) = nodes.pop() {
                called.extend(index.get(&(domain(&n.domain), n.op_type.as_str(), n.overload.as_str())));
                nodes.extend(n.attribute.iter().filter_map(|a| a.g.as_deref()).flat_map(|g| &g.node));
            }
            callees.push(called.into_iter().collect());
        }
        if let Err(cycle) = sort(&callees) {
            let names: Vec<&str> = cycle.iter().rev().map(|&i| functions[i].name.as_str()).collect();
            self.refuse(RefusalKind::Invalid, "function", names[0], format!("a function that calls itself: {}", names.join(" → ")));
        }
    }

    /// Inlines the body of a function at a call.
    pub(super) fn call(
        &mut self,
        node: &'p NodeProto,
        f: &'p FunctionProto,
        inputs: &[Option<Slot>],
        given: Vec<(String, Attr<'p>)>,
        opset: i64,
    ) {
        let key = (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        if self.calls.iter().any(|(k, _)| *k == key) {
            self.refuse_node(RefusalKind::Invalid, node, opset, "a function that calls itself", "");
            return;
        }
        if self.calls.len() >= self.limits.depth {
            self.refuse_node(
                RefusalKind::TooLarge,
                node,
                opset,
                format!("functions inside one another, deeper than {} (--max-depth)", self.limits.depth),
                "",
            );
            return;
        }
        if inputs.len() > f.input.len() || node.output.len() > f.output.len() {
            let (i, o) = (inputs.len(), node.output.len());
            let reason = format!("{i} inputs and {o} outputs; the function has {} and {}", f.input.len(), f.output.len());
            self.refuse_node(RefusalKind::Invalid, node, opset, reason, "");
            return;
        }
        let mut bindings: Bindings<'p> = given.into_iter().collect();
        for attribute in &f.attribute_proto {
            if !bindings.contains_key(&attribute.name) {
                match self.attribute(attribute) {
                    Ok(a) => drop(bindings.insert(attribute.name.clone(), a)),
                    Err(reason) => {
                        self.refuse(RefusalKind::Invalid, "function", &f.name, format!("attribute `{}`: {reason}", attribute.name))
                    }
                }
            }
        }
        let prefix = self.node_name(node);
        let opsets = self.opsets(&f.opset_import, "function", &f.name);
        let names = f.input.iter().enumerate().map(|(i, name)| (name.clone(), inputs.get(i).copied().flatten())).collect();
        self.frames.push(Frame { names, graph: self.open_graphs.len() - 1, closed: true, nodes: HashSet::new(), declared: HashMap::new() });
        self.calls.push((key, prefix));
        self.nodes(&f.node, &opsets, &bindings);
        let outputs: Vec<Option<Option<Slot>>> = f.output.iter().map(|name| self.lookup(name)).collect();
        self.calls.pop();
        self.frames.pop();
        for (i, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            match outputs.get(i).copied().flatten().flatten() {
                Some(slot) if self.define(name, slot) => {}
                Some(_) => self.refuse_node(RefusalKind::Invalid, node, opset, format!("duplicate name: \"{name}\" is made twice"), ""),
                None => {
                    self.refuse(RefusalKind::Invalid, "function", &f.name, format!("no node makes output \"{}\"", f.output[i]));
                    let slot = self.fresh();
                    self.define(name, slot);
                }
            }
        }
    }
}
