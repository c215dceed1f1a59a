//! The graph under construction, with the operations that importers use.

use crate::limits::Limits;
use dnnc_ir::eval::eval_op;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, TensorType, Type, Value};
use std::collections::{HashMap, HashSet};

pub(crate) use crate::fail::{Fail, Result, invalid, unsupported};
pub(crate) use crate::node::{Attribute, Node};

/// Results up to so many bytes are folded whatever the size of the inputs.
const FOLD_BYTES: usize = 4 << 10;
/// Operations spent at most on one result that is folded at once: the reference evaluator is slow.
const FOLD_WORK: u64 = 1 << 24;
/// Operations spent at most on one result that an importer asks for.
const DEMAND_WORK: u64 = 1 << 28;
/// Bytes of all results folded, per graph: what comes after stays a node.
const FOLDED_BYTES: usize = 256 << 20;
/// Axes a tensor may have.
const MAX_RANK: usize = 64;

/// An [`ir::Graph`](Graph) under construction.
///
/// Constants fold as they appear, equal nodes are made once, and every result is checked against the largest size allowed.
pub(crate) struct Build {
    graph: Graph,
    /// Node of an operator on inputs.
    made: HashMap<(Op, Vec<Value>), Value>,
    /// Values of constants that are not `const` nodes: folded on demand, or computed by an earlier stage.
    values: HashMap<Value, Tensor>,
    /// For each node, whether it depends on constants only.
    constant: Vec<bool>,
    /// Constants of this stage that an earlier stage computes when the model runs.
    runtime_constants: HashSet<Value>,
    /// Name given to new nodes.
    name: String,
    limits: Limits,
    /// Bytes of results folded so far.
    folded: usize,
}

impl Build {
    /// An empty graph within limits.
    pub fn new(limits: Limits) -> Build {
        let (graph, made, values) = (Graph::new(), HashMap::new(), HashMap::new());
        Build { graph, made, values, constant: vec![], runtime_constants: HashSet::new(), name: String::new(), limits, folded: 0 }
    }

    /// About how much memory it holds beside the constants of the model: nodes, and what was folded.
    pub fn bytes(&self) -> usize {
        const NODE: usize = 512;
        self.folded + NODE * self.constant.len()
    }

    /// An empty graph under the same limits: the body of a loop.
    pub fn body(&self) -> Build {
        Build::new(self.limits)
    }

    /// Applies an operator.
    ///
    /// With constant inputs the result is computed at once, unless it would be much bigger than they are (it stays a node then, which
    /// [`known`](Build::known) still computes) or would widen a matrix of 8 bits or less: the rewriter wants to see quantised weights.
    pub fn op(&mut self, kind: Kind, attrs: impl IntoIterator<Item = (&'static str, Attr)>, inputs: &[Value]) -> Result<Value> {
        self.apply(Op::new(kind, attrs).map_err(Fail::Invalid)?, inputs)
    }

    /// As [`op`](Build::op), for an operator with its attributes.
    pub fn apply(&mut self, op: Op, inputs: &[Value]) -> Result<Value> {
        let inputs: Vec<Value> = inputs.iter().map(|&v| self.values.get(&v).cloned().map_or(v, |t| self.small_constant(v, t))).collect();
        let key = (op, inputs);
        if let Some(&v) = self.made.get(&key) {
            return Ok(v);
        }
        let (op, inputs) = &key;
        if !op.def.inputs.admits(inputs.len()) {
            return invalid!("`{}` cannot take {} inputs", op.kind().name(), inputs.len());
        }
        let types: Vec<TensorType> = inputs.iter().map(|&v| self.ty(v)).collect();
        let results = (op.def.infer)(&op.attrs, &types).map_err(Fail::Invalid)?;
        for ty in &results {
            self.check_size(ty)?;
        }
        let constant = !matches!(op.kind(), Kind::Input) && inputs.iter().all(|v| self.constant[v.node as usize]);
        if constant && results.len() == 1 && self.worth_folding(op, &types, &results[0]) {
            let tensors: Option<Vec<Tensor>> = inputs.iter().map(|&v| self.graph.const_of(v).cloned()).collect();
            if let Some(tensors) = tensors {
                let folded = eval_op(op, &tensors).map_err(Fail::Invalid)?;
                if let Some(tensor) = folded.into_iter().next() {
                    self.folded += tensor.ty().bytes();
                    let value = self.constant(tensor);
                    self.made.insert(key, value);
                    return Ok(value);
                }
            }
        }
        if self.graph.nodes().len() >= self.limits.nodes {
            return unsupported!("too large: the model becomes more than the limit of {} operators (--max-nodes)", self.limits.nodes);
        }
        let value = self.graph.add(op.clone(), inputs.clone(), &self.name).map_err(Fail::Invalid)?;
        self.constant.push(constant);
        self.made.insert(key, value);
        Ok(value)
    }

    /// A small constant in place of `v`; a large one stays where it is computed.
    fn small_constant(&mut self, v: Value, tensor: Tensor) -> Value {
        if tensor.ty().bytes() <= FOLD_BYTES { self.constant(tensor) } else { v }
    }

    fn worth_folding(&self, op: &Op, inputs: &[TensorType], result: &TensorType) -> bool {
        let widens = op.kind() == Kind::Cast && result.rank() >= 2 && inputs.iter().any(|t| t.ty.bytes() == 1) && result.ty.bytes() > 1;
        let given: usize = inputs.iter().map(TensorType::bytes).sum();
        let small = result.bytes() <= FOLD_BYTES || (result.bytes() <= given && self.folded + result.bytes() <= FOLDED_BYTES);
        !widens && small && (op.def.work)(&op.attrs, inputs, std::slice::from_ref(result)) <= FOLD_WORK
    }

    /// Checks that a tensor of this type is within bounds.
    pub fn check_size(&self, ty: &TensorType) -> Result<()> {
        let fits = ty.shape.iter().try_fold(ty.ty.bytes(), |n, &d| n.checked_mul(d.max(1)));
        match fits {
            _ if ty.rank() > MAX_RANK => invalid!("a tensor of {} axes; the limit is {MAX_RANK}", ty.rank()),
            Some(bytes) if bytes <= self.limits.tensor_bytes => Ok(()),
            _ => invalid!(
                "a tensor of type {ty} is too large: more memory than the limit of {} bytes (--max-tensor)",
                self.limits.tensor_bytes
            ),
        }
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let op = Op::new(Kind::Const, [("value", Attr::Tensor(tensor.clone()))]).expect("the row of `const`");
        let key = (op, vec![]);
        if let Some(&v) = self.made.get(&key) {
            return v;
        }
        let value = self.graph.constant(tensor);
        self.constant.push(true);
        self.made.insert(key, value);
        value
    }

    /// A constant that an earlier stage has computed.
    pub fn runtime_constant(&mut self, tensor: Tensor) -> Value {
        let value = self.constant(tensor);
        self.runtime_constants.insert(value);
        value
    }

    /// Whether a value is a constant of the model, not one that an earlier stage has computed.
    pub fn is_given(&self, v: Value) -> bool {
        self.is_constant(v) && !self.runtime_constants.contains(&v)
    }

    /// A constant with its name in the model.
    pub fn named_constant(&mut self, name: &str, tensor: Tensor) -> Value {
        let value = self.constant(tensor);
        if self.graph.node(value).name.is_empty() {
            self.graph.set_name(value, name);
        }
        value
    }

    /// A constant of rank 0: `value` as element type `ty` (rounded; saturating for integers).
    pub fn scalar(&mut self, ty: Type, value: f64) -> Value {
        let tensor = scalar(ty, value);
        self.constant(tensor)
    }

    /// A constant vector of i64.
    pub fn i64s(&mut self, values: &[i64]) -> Value {
        self.constant(Tensor::new([values.len()], values))
    }

    /// A constant i64 of rank 0.
    pub fn i64(&mut self, value: i64) -> Value {
        self.constant(Tensor::scalar(value))
    }

    /// A new input of the graph.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Value {
        self.constant.push(false);
        self.graph.input(name, ty)
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> TensorType {
        self.graph.ty(v).clone()
    }

    /// Sizes of a value.
    pub fn shape(&self, v: Value) -> Vec<usize> {
        self.graph.ty(v).shape.clone()
    }

    /// Element type of a value.
    pub fn elem(&self, v: Value) -> Type {
        self.graph.ty(v).ty
    }

    /// Number of axes of a value.
    pub fn rank(&self, v: Value) -> usize {
        self.graph.ty(v).rank()
    }

    /// How many results the node of `v` has.
    pub fn results(&self, v: Value) -> u32 {
        self.graph.node(v).types.len() as u32
    }

    /// The tensor of a value that is known at compile time; computed on demand if it was left a node, unless that takes too much work.
    pub fn known(&mut self, v: Value) -> Option<Tensor> {
        if let Some(t) = self.graph.const_of(v).or_else(|| self.values.get(&v)) {
            return Some(t.clone());
        }
        if !self.constant[v.node as usize] {
            return None;
        }
        // Post-order over the nodes it depends on, without recursion: chains may be long.
        let mut stack = vec![v];
        while let Some(&top) = stack.last() {
            let node = self.graph.node(top).clone();
            let missing = node.inputs.iter().find(|i| self.graph.const_of(**i).is_none() && !self.values.contains_key(i));
            if let Some(&input) = missing {
                stack.push(input);
                continue;
            }
            stack.pop();
            let types: Vec<TensorType> = node.inputs.iter().map(|&i| self.ty(i)).collect();
            let bytes: usize = node.types.iter().map(TensorType::bytes).sum();
            let large = bytes > FOLD_BYTES && self.folded + bytes > FOLDED_BYTES;
            if large || (node.op.def.work)(&node.op.attrs, &types, &node.types) > DEMAND_WORK {
                return None;
            }
            self.folded += bytes;
            let inputs: Vec<Tensor> =
                node.inputs.iter().filter_map(|i| self.graph.const_of(*i).or_else(|| self.values.get(i)).cloned()).collect();
            let results = eval_op(&node.op, &inputs).ok()?;
            for (i, t) in results.into_iter().enumerate() {
                self.values.insert(Value { node: top.node, index: i as u32 }, t);
            }
        }
        self.values.get(&v).cloned()
    }

    /// The tensor of a value; if it depends on an input of the model, import of the node waits for it.
    pub fn need(&mut self, v: Value) -> Result<Tensor> {
        self.known(v).ok_or(Fail::NeedsValue(v))
    }

    /// As [`need`](Build::need), for a tensor of integers of any width, flattened.
    pub fn need_i64s(&mut self, v: Value) -> Result<Vec<i64>> {
        let t = self.need(v)?;
        integers(&t).ok_or_else(|| Fail::Invalid(format!("a tensor of integers is needed here, not {}", t.ty())))
    }

    /// As [`need_i64s`](Build::need_i64s), for a tensor of one axis.
    pub fn need_list(&mut self, v: Value) -> Result<Vec<i64>> {
        match self.rank(v) {
            1 => self.need_i64s(v),
            _ => invalid!("a list of sizes is needed here, not {}", self.ty(v)),
        }
    }

    /// As [`need`](Build::need), for one integer (any rank with one element).
    pub fn need_i64(&mut self, v: Value) -> Result<i64> {
        match self.need_i64s(v)?[..] {
            [n] => Ok(n),
            ref many => invalid!("one integer is needed here, not {}", many.len()),
        }
    }

    /// As [`need`](Build::need), for numbers of any type, flattened.
    pub fn need_f64s(&mut self, v: Value) -> Result<Vec<f64>> {
        Ok(self.need(v)?.to_f64s())
    }

    /// Applies an operator of one input without attributes.
    pub fn unary(&mut self, kind: Kind, x: Value) -> Result<Value> {
        self.op(kind, [], &[x])
    }

    /// Applies an operator of two inputs without attributes.
    pub fn binary(&mut self, kind: Kind, a: Value, b: Value) -> Result<Value> {
        self.op(kind, [], &[a, b])
    }

    /// `x op value`, the number taken as the element type of `x`.
    pub fn with_scalar(&mut self, kind: Kind, x: Value, value: f64) -> Result<Value> {
        let s = self.scalar(self.elem(x), value);
        self.binary(kind, x, s)
    }

    /// `c ? a : b`.
    pub fn select(&mut self, c: Value, a: Value, b: Value) -> Result<Value> {
        self.op(Kind::Select, [], &[c, a, b])
    }

    /// `x` with another element type.
    pub fn cast(&mut self, x: Value, to: Type) -> Result<Value> {
        if self.elem(x) == to { Ok(x) } else { self.op(Kind::Cast, [("to", to.into())], &[x]) }
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Result<Value> {
        if self.graph.ty(x).shape == shape { Ok(x) } else { self.op(Kind::Reshape, [("shape", shape.into())], &[x]) }
    }

    /// `x` with an axis of size 1 put in before each of `axes` (positions in the result, ascending).
    pub fn unsqueeze(&mut self, x: Value, axes: &[usize]) -> Result<Value> {
        let mut shape = self.shape(x);
        for &axis in axes {
            if axis > shape.len() {
                return invalid!("axis {axis} is outside a result of rank {}", self.rank(x) + axes.len());
            }
            shape.insert(axis, 1);
        }
        self.reshape(x, &shape)
    }

    /// `x` without `axes`, which must have size 1.
    pub fn squeeze(&mut self, x: Value, axes: &[usize]) -> Result<Value> {
        let shape = self.shape(x);
        if let Some(axis) = axes.iter().find(|&&a| shape.get(a) != Some(&1)) {
            return invalid!("axis {axis} of {} cannot be squeezed", self.ty(x));
        }
        let kept: Vec<usize> = shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect();
        self.reshape(x, &kept)
    }

    /// `x` with its axes in the order `perm`.
    pub fn transpose(&mut self, x: Value, perm: &[usize]) -> Result<Value> {
        let same = perm.len() == self.rank(x) && perm.iter().enumerate().all(|(i, &p)| i == p);
        if same { Ok(x) } else { self.op(Kind::Transpose, [("perm", perm.into())], &[x]) }
    }

    /// Element `i` of the result is `x[starts + i · steps]`; one number per axis.
    pub fn slice(&mut self, x: Value, starts: &[i64], sizes: &[usize], steps: &[i64]) -> Result<Value> {
        let all = starts.iter().all(|&s| s == 0) && steps.iter().all(|&s| s == 1) && self.graph.ty(x).shape == sizes;
        if all && steps.len() == sizes.len() {
            return Ok(x);
        }
        // The start of no elements and the step of one say nothing, and may be any numbers in a model.
        let known = |values: &[i64], least: usize, other: i64| -> Vec<i64> {
            values.iter().zip(sizes).map(|(&v, &size)| if size < least { other } else { v }).collect()
        };
        let (starts, steps) = (known(starts, 1, 0), known(steps, 2, 1));
        self.op(Kind::Slice, [("starts", starts.into()), ("sizes", sizes.into()), ("steps", steps.into())], &[x])
    }

    /// `size` elements of one axis from `start` on.
    pub fn slice_axis(&mut self, x: Value, axis: usize, start: usize, size: usize) -> Result<Value> {
        let mut sizes = self.shape(x);
        let mut starts = vec![0; sizes.len()];
        if axis >= sizes.len() {
            return invalid!("axis {axis} is outside {}", self.ty(x));
        }
        (starts[axis], sizes[axis]) = (start as i64, size);
        let steps = vec![1; sizes.len()];
        self.slice(x, &starts, &sizes, &steps)
    }

    /// The values one after the other along `axis`.
    pub fn concat(&mut self, xs: &[Value], axis: usize) -> Result<Value> {
        if let [x] = xs { Ok(*x) } else { self.op(Kind::Concat, [("axis", Attr::Int(axis as i64))], xs) }
    }

    /// `x` broadcast to exactly `shape`.
    pub fn expand(&mut self, x: Value, shape: &[usize]) -> Result<Value> {
        if self.graph.ty(x).shape == shape { Ok(x) } else { self.op(Kind::Expand, [("shape", shape.into())], &[x]) }
    }

    /// A tensor with the same number everywhere.
    pub fn full(&mut self, shape: &[usize], ty: Type, value: f64) -> Result<Value> {
        let s = self.scalar(ty, value);
        self.expand(s, shape)
    }

    /// A reduction over `axes` (sorted, each less than the rank).
    pub fn reduce(&mut self, kind: Kind, x: Value, axes: &[usize], keepdims: bool) -> Result<Value> {
        self.op(kind, [("axes", axes.into()), ("keepdims", keepdims.into())], &[x])
    }

    /// NumPy's matmul for ranks of 2 and more.
    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.binary(Kind::MatMul, a, b)
    }

    /// `x[idx]` along `axis`.
    pub fn gather(&mut self, x: Value, idx: Value, axis: usize) -> Result<Value> {
        self.op(Kind::Gather, [("axis", Attr::Int(axis as i64))], &[x, idx])
    }

    /// Whether a value depends on constants only.
    pub fn is_constant(&self, v: Value) -> bool {
        self.constant[v.node as usize]
    }

    /// Whether a value is an input or a constant node.
    pub fn is_source(&self, v: Value) -> bool {
        matches!(self.graph.node(v).op.kind(), Kind::Input | Kind::Const)
    }

    /// The inputs of the graph that the computation of `values` reads, other than through `stops`.
    pub fn leaves(&self, values: &[Value], stops: &[Value]) -> Vec<Value> {
        let asked: HashSet<Value> = values.iter().copied().collect();
        let (mut seen, mut leaves): (HashSet<Value>, Vec<Value>) = (stops.iter().copied().collect(), vec![]);
        let mut stack: Vec<Value> = values.iter().rev().copied().collect();
        while let Some(v) = stack.pop() {
            if seen.insert(v) {
                // A value that is asked for and an input at the same time will be a constant.
                if self.graph.node(v).op.kind() == Kind::Input && !asked.contains(&v) {
                    leaves.push(v);
                }
                stack.extend(self.graph.node(v).inputs.iter().rev());
            }
        }
        leaves
    }

    /// Makes `v` again in another graph, where `map` says what inputs and values made before have become.
    pub fn replay(&self, v: Value, to: &mut Build, map: &mut HashMap<Value, Value>) -> Value {
        let mut stack = vec![v];
        while let Some(&top) = stack.last() {
            if map.contains_key(&top) {
                stack.pop();
                continue;
            }
            let node = self.graph.node(top);
            if let Some(tensor) = self.graph.const_of(top) {
                let again = to.named_constant(&node.name, tensor.clone());
                map.insert(top, again);
                continue;
            }
            if let Some(&input) = node.inputs.iter().find(|i| !map.contains_key(i)) {
                stack.push(input);
                continue;
            }
            let inputs: Vec<Value> = node.inputs.iter().map(|i| map[i]).collect();
            to.set_name(&node.name);
            // What could be built once can be built again: only what is known of its inputs has grown.
            let first = match to.apply(node.op.clone(), &inputs) {
                Ok(first) => first,
                Err(_) => to.keep(node.op.clone(), inputs),
            };
            for index in 0..node.types.len() as u32 {
                map.insert(Value { node: top.node, index }, first.result(index));
            }
        }
        map[&v]
    }

    /// Applies an operator without folding: its error, if any, comes when it runs.
    fn keep(&mut self, op: Op, inputs: Vec<Value>) -> Value {
        let constant = inputs.iter().all(|v| self.constant[v.node as usize]);
        self.constant.push(constant);
        self.graph.add(op, inputs, &self.name).expect("the same operator on the same types")
    }

    /// The graph with these outputs, without what they do not need; all inputs stay.
    pub fn finish(&self, outputs: &[(String, Value)]) -> Graph {
        let nodes = self.graph.nodes();
        let mut used = vec![false; nodes.len()];
        outputs.iter().for_each(|(_, v)| used[v.node as usize] = true);
        for (i, node) in nodes.iter().enumerate().rev().filter(|(_, n)| !n.inputs.is_empty()) {
            if used[i] {
                node.inputs.iter().for_each(|v| used[v.node as usize] = true);
            }
        }
        let mut graph = Graph::new();
        let mut moved: Vec<u32> = vec![0; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            moved[i] = match node.op.kind() {
                Kind::Input => graph.input(&node.name, node.types[0].clone()).node,
                _ if !used[i] => continue,
                Kind::Const => {
                    let value = graph.constant(node.op.attrs.tensor("value").clone());
                    graph.set_name(value, &node.name);
                    value.node
                }
                _ => {
                    let inputs = node.inputs.iter().map(|v| Value { node: moved[v.node as usize], index: v.index }).collect();
                    graph.add(node.op.clone(), inputs, &node.name).expect("it was added before").node
                }
            };
        }
        for (name, v) in outputs {
            graph.output(name, Value { node: moved[v.node as usize], index: v.index });
        }
        graph
    }

    /// The name of the node of a value.
    pub fn name(&self, v: Value) -> &str {
        &self.graph.node(v).name
    }

    /// The name that new nodes get.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.to_string();
    }

    /// Binds `v` to a value that an earlier stage has computed.
    pub fn bind_value(&mut self, v: Value, tensor: Tensor) {
        self.values.insert(v, tensor);
    }
}

/// A tensor of rank 0: `value` as element type `ty` (rounded; saturating for integers).
pub(crate) fn scalar(ty: Type, value: f64) -> Tensor {
    rounded(Tensor::scalar(value), ty).expect("every number has a cast")
}

/// Numbers of f64 as element type `ty`; none where they have no cast to it.
pub(crate) fn rounded(wide: Tensor, ty: Type) -> Option<Tensor> {
    if ty == Type::F64 {
        return Some(wide);
    }
    let op = Op::new(Kind::Cast, [("to", ty.into())]).expect("the row of `cast`");
    eval_op(&op, &[wide]).ok()?.into_iter().next()
}

/// The elements of a tensor of integers or booleans (u64 wraps).
pub(crate) fn integers(t: &Tensor) -> Option<Vec<i64>> {
    use Type::*;
    Some(match t.ty().ty {
        I64 | U64 => t.values::<i64>().to_vec(),
        I32 => t.values::<i32>().iter().map(|&v| v.into()).collect(),
        U32 => t.values::<u32>().iter().map(|&v| v.into()).collect(),
        I16 => t.values::<i16>().iter().map(|&v| v.into()).collect(),
        U16 => t.values::<u16>().iter().map(|&v| v.into()).collect(),
        I8 | I4 | I2 => t.values::<i8>().iter().map(|&v| v.into()).collect(),
        Bool | U8 | U4 | U2 => t.values::<u8>().iter().map(|&v| v.into()).collect(),
        _ => return None,
    })
}

/// An axis that may count from the end, as an index less than `rank`.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let n = rank as i64;
    if (-n..n).contains(&axis) { Ok(axis.rem_euclid(n) as usize) } else { invalid!("axis {axis} is outside a tensor of rank {rank}") }
}

/// Axes that may count from the end, as sorted indices less than `rank`; one that comes twice is an error.
pub(crate) fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut all = given.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>>>()?;
    all.sort_unstable();
    if all.windows(2).any(|w| w[0] == w[1]) { invalid!("axes {given:?} name an axis twice") } else { Ok(all) }
}
