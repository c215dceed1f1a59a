//! `If`: a branch that is decided at compile time is inlined; else both become graphs of an `if`.

use super::state::{State, Stop};
use crate::build::Fail;
use crate::resolved::{ResolvedNode, Slot};
use dnnc_ir::{Kind, TensorType, Type, Value};
use std::sync::Arc;

impl State {
    pub(super) fn import_if(&mut self, node: &Arc<ResolvedNode>, base: Slot) -> Result<(), Stop> {
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
}
