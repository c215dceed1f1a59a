//! A graph to a [`Program`]: groups become kernel calls, values get places in memory, control flow becomes steps around steps.

use crate::chains;
use crate::copies;
use crate::draft::{Base, Draft, Place};
use crate::forecast;
use crate::fuse::{self, Group};
use crate::kernels::{self, attention, map, movement, strip};
use crate::memory::{self, Buffer};
use crate::threads;
use crate::unit::{Arg, Lowered, Operand, Options, Unit};
use crate::views::{memory_of, slice_is_view, through_views, view_offset};
use dnnc_ir::{Class, Graph, Kind, TensorType, Value};
use dnnc_kir::program::{ALIGN, Call, Program};
use dnnc_kir::{Func, Stmt, Ty};
use dnnc_runtime::constants::ContentIndex;
use dnnc_targets::Target;
use std::collections::HashMap;

/// A graph that cannot be lowered: which node, and why.
#[derive(Debug, thiserror::Error)]
#[error("node {node:?} ({op}): {reason}")]
pub struct LowerError {
    /// Name of the node, as the model gives it.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// A sentence.
    pub reason: String,
}

/// What lowering has to say beside the program.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The most bytes of the arena alive at once: no plan could be smaller.
    pub arena_bound: usize,
    /// Bytes of the arena were every value kept: what planning saves.
    pub arena_naive: usize,
    /// Concatenation operands that are written where the result lies, and those that are copied.
    pub concat: (usize, usize),
    /// What threads gain, where several were asked for.
    pub threads: Option<threads::Plan>,
}

/// Lowers a graph to a program called `name`, cut for the threads asked for, or for one where more predictably gain nothing. Constants are
/// let go of one by one, so that those of the graph and those of the program are never in memory together (unless the caller keeps a
/// clone of the graph).
pub fn lower(graph: Graph, name: &str, target: &Target, options: &Options) -> Result<(Program, Notes), LowerError> {
    /// Bytes of constants beyond which a network always gains by threads: it is not kept for a second time.
    const SMALL: usize = 64 << 20;
    let weights = graph.nodes().iter().filter(|n| n.op.kind() == Kind::Const).flat_map(|n| &n.types).map(TensorType::bytes).sum::<usize>();
    let options = &Options { weights, ..options.clone() };
    let again = (options.threads > 1 && weights < SMALL).then(|| graph.clone());
    let (mut program, mut notes) = lower_for(graph, name, target, options)?;
    if options.threads > 1 {
        let plan = threads::plan_parallelism(&mut program.steps, options.threads, &target.overheads);
        if let (1, Some(graph)) = (plan.threads, again) {
            (program, notes) = lower_for(graph, name, target, &Options { threads: 1, ..options.clone() })?;
        }
        notes.threads = Some(plan);
    }
    Ok((program, notes))
}

/// Lowers a graph as cut for the threads of `options`.
fn lower_for(mut graph: Graph, name: &str, target: &Target, options: &Options) -> Result<(Program, Notes), LowerError> {
    let mut low = Lowering {
        target,
        options,
        kernels: vec![],
        kernel_index: HashMap::new(),
        constants: vec![],
        constant_index: ContentIndex::default(),
        buffers: vec![],
        clock: 0,
        notes: Notes::default(),
    };
    let inputs: Vec<Place> = (0..graph.inputs().len()).map(|i| Place { base: Base::Input(i), offset: 0 }).collect();
    let outputs: Vec<Place> = (0..graph.outputs().len()).map(|i| Place { base: Base::Output(i), offset: 0 }).collect();
    let mut steps = vec![];
    low.graph(&mut graph, &inputs, &outputs, &mut steps)?;
    for b in low.buffers.iter_mut().filter(|b| b.first > b.last) {
        *b = Buffer { bytes: 0, first: 0, last: 0 }; // nothing uses it
    }
    let plan = memory::plan(&low.buffers, ALIGN);
    low.notes.arena_bound = plan.bound;
    low.notes.arena_naive = low.buffers.iter().map(|b| b.bytes.next_multiple_of(ALIGN)).sum();
    let program = Program {
        name: name.to_string(),
        kernels: low.kernels,
        constants: low.constants,
        steps: steps.into_iter().map(|s| s.placed(&plan.offsets)).collect(),
        inputs: graph.input_names().iter().zip(graph.inputs()).map(|(n, v)| (n.clone(), graph.ty(*v).clone())).collect(),
        outputs: graph.outputs().iter().map(|(n, v)| (n.clone(), graph.ty(*v).clone())).collect(),
        arena_bytes: plan.bytes,
    };
    Ok((program, low.notes))
}

struct Lowering<'a> {
    target: &'a Target,
    options: &'a Options,
    kernels: Vec<Func>,
    kernel_index: HashMap<(usize, Vec<Ty>, Vec<Stmt>), usize>,
    constants: Vec<Vec<u8>>,
    constant_index: ContentIndex,
    buffers: Vec<Buffer>,
    /// Number of the step being lowered, nested ones counted: lifetimes are ranges of it.
    clock: usize,
    notes: Notes,
}

impl Lowering<'_> {
    /// Lowers a graph whose inputs lie at `inputs` and whose results must be left at `outputs`.
    fn graph(&mut self, graph: &mut Graph, inputs: &[Place], outputs: &[Place], steps: &mut Vec<Draft>) -> Result<(), LowerError> {
        let groups = chains::group(graph, fuse::groups(graph), self.target, self.options);
        let mut places = Places::new(graph, inputs);
        let copies = self.place_outputs(graph, outputs, &mut places);
        self.place_concats(graph, &groups, &mut places);
        let last_use = last_uses(graph, &groups);
        let mut ending: HashMap<usize, Vec<Value>> = HashMap::new();
        for (&value, &g) in last_use.iter().filter(|(v, _)| graph.const_of(**v).is_some()) {
            ending.entry(g).or_default().push(value);
        }
        for (g, group) in groups.iter().enumerate() {
            self.group(graph, g, group, &last_use, &mut places, steps)?;
            for value in ending.remove(&g).unwrap_or_default() {
                graph.forget(value);
            }
        }
        for (value, to) in copies {
            let ty = graph.ty(value).clone();
            let from = self.read(graph, value, &mut places);
            self.copy(from, to, ty.bytes(), steps);
        }
        Ok(())
    }

    /// Lets the kernels that make results write them in place; the rest is copied at the end.
    fn place_outputs(&mut self, graph: &Graph, outputs: &[Place], places: &mut Places) -> Vec<(Value, Place)> {
        let mut copies = vec![];
        for ((_, value), &to) in graph.outputs().iter().zip(outputs) {
            let source = through_views(graph, *value);
            let made_here = graph.node(source).op.def.class != Class::Source;
            if made_here && graph.ty(source).bytes() == graph.ty(*value).bytes() && !places.at.contains_key(&source) {
                places.at.insert(source, to);
            } else {
                copies.push((*value, to));
            }
        }
        copies
    }

    /// Lets operands of concatenations along the outermost axis (of more than one element) be made where the result lies.
    fn place_concats(&mut self, graph: &Graph, groups: &[Group], places: &mut Places) {
        for group in groups.iter().rev() {
            let Group::Node { node, epilogue: None, result } = group else { continue };
            let node = &graph.nodes()[*node];
            if node.op.kind() != Kind::Concat {
                continue;
            }
            if !movement::concat_is_outermost(&node.op, &node.types[0]) {
                self.notes.concat.1 += node.inputs.len();
                continue;
            }
            let to = self.place_of(*result, &node.types[0], places);
            places.shared.push(*result);
            let mut offset = 0;
            for v in &node.inputs {
                let source = through_views(graph, *v);
                let free = graph.node(source).op.def.class != Class::Source && !places.at.contains_key(&source);
                if free && !slice_is_view(graph, source) {
                    places.at.insert(source, to.at(offset));
                    places.shared.push(source);
                    self.notes.concat.0 += 1;
                } else {
                    self.notes.concat.1 += 1;
                }
                offset += graph.ty(*v).bytes();
            }
        }
    }

    /// Where a value that a kernel makes will lie: where it was put, or a new buffer.
    fn place_of(&mut self, value: Value, ty: &TensorType, places: &mut Places) -> Place {
        if let Some(&p) = places.at.get(&value) {
            return p;
        }
        let p = self.buffer(ty.bytes());
        places.at.insert(value, p);
        p
    }

    /// Where to read a value: follows views, materialises constants.
    fn read(&mut self, graph: &Graph, value: Value, places: &mut Places) -> Place {
        if let Some(&p) = places.at.get(&value) {
            return p;
        }
        let node = graph.node(value);
        let place = match node.op.kind() {
            Kind::Const => self.constant(node.op.attrs.tensor("value").bytes().to_vec()),
            Kind::Slice => {
                let start = view_offset(graph, value).expect("a slice without a place is a view");
                self.read(graph, node.inputs[0], places).at(start)
            }
            _ => {
                assert_eq!(node.op.def.class, Class::View, "`{}` is read before it is made", node.op.kind().name());
                self.read(graph, node.inputs[0], places)
            }
        };
        places.at.insert(value, place);
        place
    }

    fn group(
        &mut self,
        graph: &Graph,
        index: usize,
        group: &Group,
        last_use: &HashMap<Value, usize>,
        places: &mut Places,
        steps: &mut Vec<Draft>,
    ) -> Result<(), LowerError> {
        match group {
            Group::Map { expr, operands, result } => {
                let ty = graph.ty(*result).clone();
                if ty.is_empty() {
                    self.place_of(*result, &ty, places);
                    return Ok(());
                }
                let inputs: Vec<Operand> = operands.iter().map(|v| Operand::of(graph, *v)).collect();
                let lowered = map::lower(expr, &inputs, &ty, self.target, self.options).map_err(|e| error(graph, *result, e))?;
                // An operand that ends here and has the result's layout lends it its memory.
                let reuse = operands.iter().copied().find(|v| {
                    let source = memory_of(graph, *v);
                    !places.at.contains_key(result)
                        && graph.ty(*v).shape == ty.shape
                        && graph.ty(*v).ty.bytes() == ty.ty.bytes()
                        && graph.ty(source).bytes() == ty.bytes()
                        && last_use.get(&source) == Some(&index)
                        && matches!(places.at.get(&source), Some(Place { base: Base::Buffer(_), .. }))
                        && graph.node(source).op.def.class != Class::Source
                        && !places.shared.contains(&source)
                        // No other operand reads elements of it once they are written over.
                        && operands.iter().all(|o| memory_of(graph, *o) != source || graph.ty(*o).shape == ty.shape)
                });
                if let Some(v) = reuse {
                    let p = self.read(graph, v, places);
                    places.at.insert(*result, p);
                }
                let args: Vec<Place> = operands.iter().map(|v| self.read(graph, *v, places)).collect();
                let out = self.place_of(*result, &ty, places);
                let ns = forecast::expression_ns(expr, &inputs, &ty, self.target);
                self.calls(graph, group, *result, lowered, ns, &args, &[], &[out], steps);
            }
            Group::Attention { node: n, operands, views, result } => {
                let node = &graph.nodes()[*n];
                let value = Value { node: *n as u32, index: 0 };
                let unit = Unit {
                    op: &node.op,
                    inputs: node.inputs.iter().map(|v| Operand::of(graph, *v)).collect(),
                    results: node.types.clone(),
                    epilogue: None,
                    stored: node.types[0].clone(),
                    target: self.target,
                    options: self.options,
                };
                let lowered = attention::lower_views(&unit, views).map_err(|e| error(graph, value, e))?;
                let ns = (attention::FAMILY.forecast)(&unit).ns;
                let args: Vec<Place> = operands.iter().map(|v| self.read(graph, *v, places)).collect();
                let out = self.place_of(*result, graph.ty(*result), places);
                self.calls(graph, group, value, lowered, ns, &args, &[], &[out], steps);
            }
            Group::Chain { links, input, result } => {
                let units = chains::units(graph, links, *input, self.target, self.options);
                let members: Option<Vec<strip::Link>> = units.iter().map(strip::Link::new).collect();
                let members = members.expect("only what has strips is grouped");
                let members: Vec<&strip::Link> = members.iter().collect();
                let plan = strip::Plan::new(&members).expect("only chains with a plan are grouped");
                let ns = self.target.overheads.call + plan.cycles / self.target.ghz();
                let lowered = strip::lower(&members, plan).map_err(|e| error(graph, *result, e))?;
                let x = self.read(graph, *input, places);
                let extras: Vec<Place> =
                    links.iter().flat_map(|l| &l.epilogue).flat_map(|(_, vs)| vs).map(|v| self.read(graph, *v, places)).collect();
                let out = self.place_of(*result, graph.ty(*result), places);
                let last = links.last().expect("a chain has members").node;
                self.calls(graph, group, Value { node: last as u32, index: 0 }, lowered, ns, &[x], &extras, &[out], steps);
            }
            Group::Node { node: n, epilogue, result } => {
                let node = &graph.nodes()[*n];
                let value = Value { node: *n as u32, index: 0 };
                match node.op.kind() {
                    Kind::If => return self.branch(graph, *n, places, steps),
                    Kind::Loop => return self.repeat(graph, *n, places, steps),
                    Kind::Concat => return self.concat(graph, *n, places, steps),
                    _ => {}
                }
                let is_view = (node.op.def.class == Class::View || slice_is_view(graph, value)) && epilogue.is_none();
                if is_view {
                    // A view costs nothing unless its bytes were promised to another place.
                    if let Some(&to) = places.at.get(&value) {
                        let bytes = node.types[0].bytes();
                        let from = self.read(graph, node.inputs[0], places).at(view_offset(graph, value).unwrap_or(0));
                        if from != to {
                            self.copy(from, to, bytes, steps);
                        }
                    }
                    return Ok(());
                }
                let stored = graph.ty(*result).clone();
                let mut outs = vec![self.place_of(*result, &stored, places)];
                for (i, ty) in node.types.iter().enumerate().skip(1) {
                    outs.push(self.place_of(value.result(i as u32), ty, places));
                }
                if node.types.iter().all(|t| t.is_empty()) {
                    return Ok(());
                }
                let family = kernels::family(node.op.kind())
                    .ok_or_else(|| error(graph, value, format!("code generation has no kernel for `{}`", node.op.kind().name())))?;
                let unit = Unit {
                    op: &node.op,
                    inputs: node.inputs.iter().map(|v| Operand::of(graph, *v)).collect(),
                    results: node.types.clone(),
                    epilogue: epilogue.as_ref().map(|(e, _)| e),
                    stored,
                    target: self.target,
                    options: self.options,
                };
                let lowered = (family.lower)(&unit).map_err(|e| error(graph, value, e))?;
                let ns = forecast::lowered_ns(family, &unit, &lowered);
                let used = |i: usize| lowered.calls.iter().any(|c| c.args.contains(&Arg::Input(i)));
                let args: Vec<Place> =
                    node.inputs.iter().enumerate().map(|(i, v)| if used(i) { self.read(graph, *v, places) } else { outs[0] }).collect();
                let extras: Vec<Place> = epilogue.iter().flat_map(|(_, vs)| vs).map(|v| self.read(graph, *v, places)).collect();
                self.calls(graph, group, value, lowered, ns, &args, &extras, &outs, steps);
            }
        }
        Ok(())
    }

    /// Appends the kernel calls of a unit.
    fn calls(
        &mut self,
        graph: &Graph,
        group: &Group,
        value: Value,
        lowered: Lowered,
        ns: f64,
        inputs: &[Place],
        extras: &[Place],
        outputs: &[Place],
        steps: &mut Vec<Draft>,
    ) {
        let constants: Vec<Place> = lowered.constants.into_iter().map(|c| self.constant(c)).collect();
        let scratch: Vec<Place> = lowered.scratch.iter().map(|&bytes| self.buffer(bytes)).collect();
        let label = fuse::label(graph, group);
        let count = lowered.calls.len().max(1) as u64;
        let work = fuse::group_work(graph, group);
        let traffic = fuse::group_traffic(graph, group);
        let last = lowered.calls.len().saturating_sub(1);
        // How much of it each call does is not known.
        let ns = ns / count as f64;
        for (i, call) in lowered.calls.into_iter().enumerate() {
            let args: Vec<Place> = call
                .args
                .iter()
                .map(|a| match *a {
                    Arg::Input(i) => inputs[i],
                    Arg::Extra(i) => extras[i],
                    Arg::Output(i) => outputs[i],
                    Arg::Const(i) => constants[i],
                    Arg::Scratch(i) => scratch[i],
                })
                .collect();
            let traffic = if i == last { traffic } else { 0 };
            let part = if count > 1 { format!("{label} [{}/{count}]", i + 1) } else { label.clone() };
            // The work is that of the last call: what comes before it prepares (packs, transforms, clears).
            let work = if i == last { work } else { 0 };
            let kernel = self.kernel(call.func);
            let (node, choice) = (graph.node(value).name.clone(), lowered.choice.clone());
            let call = Call { kernel, tasks: call.tasks, label: part, node, work, traffic, ns, choice, ..Call::default() };
            self.push(call, args, steps);
        }
    }

    fn branch(&mut self, graph: &Graph, n: usize, places: &mut Places, steps: &mut Vec<Draft>) -> Result<(), LowerError> {
        let node = &graph.nodes()[n];
        let cond = self.read(graph, node.inputs[0], places);
        let captures: Vec<Place> = node.inputs[1..].iter().map(|v| self.read(graph, *v, places)).collect();
        let outs = self.results(n, node, places);
        self.touch(&[cond]);
        self.clock += 1;
        let start = self.clock;
        let mut bodies = vec![];
        for name in ["then", "else"] {
            let mut body = vec![];
            self.graph(&mut Graph::clone(node.op.attrs.graph(name)), &captures, &outs, &mut body)?;
            bodies.push(body);
        }
        self.clock += 1;
        self.alive(start - 1, self.clock, captures.iter().chain(&outs));
        let otherwise = bodies.pop().expect("two bodies");
        let then = bodies.pop().expect("two bodies");
        steps.push(Draft::If { cond, then, otherwise });
        Ok(())
    }

    fn repeat(&mut self, graph: &Graph, n: usize, places: &mut Places, steps: &mut Vec<Draft>) -> Result<(), LowerError> {
        let node = &graph.nodes()[n];
        let mut body = Graph::clone(node.op.attrs.graph("body"));
        let carried = node.op.attrs.size("carried");
        let max_trip = node.op.attrs.size("max_trip");
        let given: Vec<Place> = node.inputs.iter().map(|v| self.read(graph, *v, places)).collect();
        let outs = self.results(n, node, places);
        let (trip, iter, cond) = (given[0], self.buffer(8), self.buffer(1));
        let start = self.clock;
        self.copy(given[1], cond, 1, steps);
        for (i, &out) in outs[..carried].iter().enumerate() {
            self.copy(given[2 + i], out, graph.ty(node.inputs[2 + i]).bytes(), steps);
        }
        self.clock += 1;
        let mut inputs = vec![iter, cond];
        inputs.extend(&outs[..carried]);
        inputs.extend(&given[2 + carried..]);
        // What the body makes is copied only when it has read all of the old values.
        let types: Vec<TensorType> = body.outputs().iter().map(|(_, v)| body.ty(*v).clone()).collect();
        let made: Vec<Place> = types.iter().map(|t| self.buffer(t.bytes())).collect();
        let mut inner = vec![];
        self.graph(&mut body, &inputs, &made, &mut inner)?;
        self.copy(made[0], cond, 1, &mut inner);
        for i in 0..carried {
            self.copy(made[1 + i], outs[i], types[1 + i].bytes(), &mut inner);
        }
        for (i, &out) in outs[carried..].iter().enumerate() {
            let bytes = types[1 + carried + i].bytes();
            if bytes > 0 {
                let kernel = self.kernel(copies::append(bytes));
                let (label, node, traffic) = ("scan".into(), node.name.clone(), 2 * bytes as u64);
                let call = Call { kernel, tasks: 1, label, node, traffic, ..Call::default() };
                self.push(call, vec![made[1 + carried + i], out, iter], &mut inner);
            }
        }
        self.clock += 1;
        let held: Vec<Place> = given.iter().chain(&outs).chain(&made).chain(&[iter, cond]).copied().collect();
        self.alive(start, self.clock, held.iter());
        steps.push(Draft::Loop { trip, cond, iter, max_trip, body: inner });
        Ok(())
    }

    /// Copies the operands of a concatenation that were not made in place.
    fn concat(&mut self, graph: &Graph, n: usize, places: &mut Places, steps: &mut Vec<Draft>) -> Result<(), LowerError> {
        let node = &graph.nodes()[n];
        let value = Value { node: n as u32, index: 0 };
        let ty = &node.types[0];
        let to = self.place_of(value, ty, places);
        if ty.is_empty() {
            return Ok(());
        }
        if movement::concat_is_outermost(&node.op, ty) {
            let mut offset = 0;
            for v in &node.inputs {
                let bytes = graph.ty(*v).bytes();
                let from = self.read(graph, *v, places);
                if from != to.at(offset) {
                    self.copy(from, to.at(offset), bytes, steps);
                }
                self.touch(&[from, to]);
                offset += bytes;
            }
            return Ok(());
        }
        let family =
            kernels::family(Kind::Concat).ok_or_else(|| error(graph, value, "code generation has no kernel for `concat`".into()))?;
        let unit = Unit {
            op: &node.op,
            inputs: node.inputs.iter().map(|v| Operand::of(graph, *v)).collect(),
            results: node.types.clone(),
            epilogue: None,
            stored: ty.clone(),
            target: self.target,
            options: self.options,
        };
        let lowered = (family.lower)(&unit).map_err(|e| error(graph, value, e))?;
        let args: Vec<Place> = node.inputs.iter().map(|v| self.read(graph, *v, places)).collect();
        let group = Group::Node { node: n, epilogue: None, result: value };
        let ns = forecast::lowered_ns(family, &unit, &lowered);
        self.calls(graph, &group, value, lowered, ns, &args, &[], &[to], steps);
        Ok(())
    }

    /// Places of all results of a node.
    fn results(&mut self, n: usize, node: &dnnc_ir::Node, places: &mut Places) -> Vec<Place> {
        node.types.iter().enumerate().map(|(i, ty)| self.place_of(Value { node: n as u32, index: i as u32 }, ty, places)).collect()
    }

    /// Copies bytes.
    fn copy(&mut self, from: Place, to: Place, bytes: usize, steps: &mut Vec<Draft>) {
        if bytes == 0 || from == to {
            return;
        }
        let kernel = self.kernel(copies::copy(bytes, self.target));
        let call = Call { kernel, tasks: 1, label: "copy".into(), traffic: 2 * bytes as u64, ..Call::default() };
        self.push(call, vec![from, to], steps);
    }

    fn push(&mut self, call: Call, args: Vec<Place>, steps: &mut Vec<Draft>) {
        self.touch(&args);
        self.clock += 1;
        steps.push(Draft::Call(call, args));
    }

    /// Says that these places are used by the step being lowered.
    fn touch(&mut self, places: &[Place]) {
        let now = self.clock;
        self.alive(now, now, places.iter());
    }

    fn alive<'p>(&mut self, first: usize, last: usize, places: impl Iterator<Item = &'p Place>) {
        for p in places {
            if let Base::Buffer(b) = p.base {
                let b = &mut self.buffers[b];
                b.first = b.first.min(first);
                b.last = b.last.max(last);
            }
        }
    }

    fn buffer(&mut self, bytes: usize) -> Place {
        self.buffers.push(Buffer { bytes, first: usize::MAX, last: 0 });
        Place { base: Base::Buffer(self.buffers.len() - 1), offset: 0 }
    }

    fn constant(&mut self, data: Vec<u8>) -> Place {
        // Constants are most of the memory that a compilation needs: equal ones are not kept twice.
        let index = self.constant_index.find(&data, |i| &self.constants[i]).unwrap_or_else(|| {
            self.constant_index.insert(&data, self.constants.len());
            self.constants.push(data);
            self.constants.len() - 1
        });
        Place { base: Base::Const(index), offset: 0 }
    }

    fn kernel(&mut self, func: Func) -> usize {
        let key = (func.pointers, func.types.clone(), func.body.clone());
        if let Some(&i) = self.kernel_index.get(&key) {
            return i;
        }
        self.kernels.push(func);
        self.kernel_index.insert(key, self.kernels.len() - 1);
        self.kernels.len() - 1
    }
}

/// Places of a graph's values.
struct Places {
    at: HashMap<Value, Place>,
    /// Results of concatenations: their operands lie in them and may be read later, so their memory is not lent.
    shared: Vec<Value>,
}

impl Places {
    fn new(graph: &Graph, inputs: &[Place]) -> Places {
        Places { at: graph.inputs().iter().copied().zip(inputs.iter().copied()).collect(), shared: vec![] }
    }
}

/// The last group that reads each stored value (views looked through); values that results show are read after all groups.
fn last_uses(graph: &Graph, groups: &[Group]) -> HashMap<Value, usize> {
    let mut last = HashMap::new();
    let mut read = |v: Value, at: usize| {
        last.insert(memory_of(graph, v), at);
    };
    for (g, group) in groups.iter().enumerate() {
        group.reads(graph).into_iter().for_each(|v| read(v, g));
    }
    for (_, v) in graph.outputs() {
        read(*v, usize::MAX);
    }
    last
}

fn error(graph: &Graph, value: Value, reason: String) -> LowerError {
    let node = graph.node(value);
    LowerError { node: node.name.clone(), op: node.op.kind().name().to_string(), reason }
}
