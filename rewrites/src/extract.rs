//! Extraction: the cheapest program of an e-graph, shared values counted once.
//!
//! First every class takes the term whose *set* of needed classes is cheapest (so shared values count once already), until nothing changes;
//! then single choices are changed wherever that makes the program cheaper. The program as written is a candidate, too: the result
//! never costs more.

use crate::cost::Model;
use crate::fact::Classes;
use crate::language::Imported;
use crate::term::{Head, Term};
use dnnc_ir::eval::eval_op;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, Value};
use egg::{Id, Language};
use indexmap::IndexMap;
use std::collections::HashMap;

/// Depth in terms to which an improvement is searched.
const DEPTH: usize = 3;

/// Passes over all classes at most.
const SWEEPS: usize = 64;

/// Classes beyond which single choices are not changed any more: each change is checked on the complete program, so time grows with the square.
const IMPROVABLE: usize = 6_000;

/// Classes beyond which the program stays as it is written: sets of classes take memory that grows with the square.
const SEARCHABLE: usize = 40_000;

/// A term that a class may take.
struct Candidate {
    term: Term,
    cost: f64,
    /// Classes (by index) that it needs at run time.
    needs: Vec<usize>,
}

/// The classes that are not constant, with their candidates.
struct Choices {
    ids: Vec<Id>,
    index: HashMap<Id, usize>,
    candidates: Vec<Vec<Candidate>>,
}

impl Choices {
    fn new(classes: &Classes, model: &Model) -> Choices {
        let ids: Vec<Id> = classes.classes().filter(|c| !c.data.constant).map(|c| c.id).collect();
        let index: HashMap<Id, usize> = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let candidate = |id: Id, term: &Term| {
            let mut needs: Vec<usize> = term.children.iter().filter_map(|&c| index.get(&classes.find(c)).copied()).collect();
            needs.sort_unstable();
            needs.dedup();
            Candidate { term: term.clone(), cost: model.term(classes, id, term), needs }
        };
        let candidates = ids.iter().map(|&id| classes[id].nodes.iter().map(|t| candidate(id, t)).collect()).collect();
        Choices { ids, index, candidates }
    }

    /// Which term each needed class takes.
    fn term(&self, class: usize, choice: &[usize]) -> &Candidate {
        &self.candidates[class][choice[class]]
    }

    /// Cost of the program, or `None` when the choices have a cycle.
    fn total(&self, roots: &[usize], choice: &[usize]) -> Option<f64> {
        let order = self.order(roots, choice)?;
        Some(order.iter().map(|&c| self.term(c, choice).cost).sum())
    }

    /// The needed classes, operands first, or `None` when the choices have a cycle.
    fn order(&self, roots: &[usize], choice: &[usize]) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Not,
            Open,
            Done,
        }
        let mut seen = vec![Seen::Not; self.ids.len()];
        let mut order = Vec::new();
        for &root in roots {
            let mut stack = vec![(root, 0)];
            while let Some((class, next)) = stack.pop() {
                if next == 0 {
                    if seen[class] != Seen::Not {
                        continue;
                    }
                    if choice[class] == usize::MAX {
                        return None;
                    }
                    seen[class] = Seen::Open;
                }
                let needs = &self.term(class, choice).needs;
                match needs.get(next) {
                    Some(&child) => {
                        stack.push((class, next + 1));
                        match seen[child] {
                            Seen::Open => return None,
                            Seen::Not => stack.push((child, 0)),
                            Seen::Done => {}
                        }
                    }
                    None => {
                        seen[class] = Seen::Done;
                        order.push(class);
                    }
                }
            }
        }
        Some(order)
    }

    /// Each class takes the term whose set of needed classes is cheapest, until nothing changes.
    fn greedy(&self) -> Vec<usize> {
        let n = self.ids.len();
        let words = n.div_ceil(64);
        let mut sets: Vec<Vec<u64>> = vec![Vec::new(); n];
        let mut costs = vec![f64::INFINITY; n];
        let mut choice = vec![usize::MAX; n];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (class, candidates) in self.candidates.iter().enumerate() {
            for need in candidates.iter().flat_map(|c| &c.needs) {
                if users[*need].last() != Some(&class) {
                    users[*need].push(class);
                }
            }
        }
        let own = |class: usize, choice: &[usize]| self.candidates[class][choice[class]].cost;
        let mut dirty: Vec<bool> = vec![true; n];
        // In the order in which classes can be made at all, most changes are to what comes later.
        let order = self.reachable(&users);
        for _ in 0..SWEEPS {
            let mut changed = false;
            for &class in &order {
                if !std::mem::take(&mut dirty[class]) {
                    continue;
                }
                let mut best: Option<(f64, usize, Vec<u64>)> = None;
                'candidates: for (i, candidate) in self.candidates[class].iter().enumerate() {
                    let mut cost = candidate.cost;
                    let mut set = vec![0u64; words];
                    for &need in &candidate.needs {
                        if choice[need] == usize::MAX || need == class || sets[need][class / 64] >> (class % 64) & 1 == 1 {
                            continue 'candidates;
                        }
                        for (word, (have, more)) in set.iter_mut().zip(&sets[need]).enumerate() {
                            let mut new = more & !*have;
                            *have |= more;
                            while new != 0 {
                                cost += own(word * 64 + new.trailing_zeros() as usize, &choice);
                                new &= new - 1;
                            }
                        }
                    }
                    if best.as_ref().is_none_or(|(b, ..)| cost < *b) {
                        set[class / 64] |= 1 << (class % 64);
                        best = Some((cost, i, set));
                    }
                }
                if let Some((cost, i, set)) = best
                    && (i != choice[class] || cost != costs[class] || set != sets[class])
                {
                    // Costs of sets may also rise, when what they share has changed: only better choices may change the choice.
                    (costs[class], choice[class], sets[class]) = (cost, i, set);
                    changed = true;
                    users[class].iter().for_each(|&u| dirty[u] = true);
                }
            }
            if !changed {
                break;
            }
        }
        choice
    }

    /// The classes in an order in which they can be made: each has a term whose operands come before it.
    fn reachable(&self, users: &[Vec<usize>]) -> Vec<usize> {
        let mut done = vec![false; self.ids.len()];
        let ready = |class: usize, done: &[bool]| self.candidates[class].iter().any(|c| c.needs.iter().all(|&n| done[n]));
        let mut order: Vec<usize> = Vec::with_capacity(self.ids.len());
        for (class, _) in self.candidates.iter().enumerate().filter(|(_, c)| c.iter().any(|c| c.needs.is_empty())) {
            done[class] = true;
            order.push(class);
        }
        let mut at = 0;
        while at < order.len() {
            for &user in &users[order[at]] {
                if !done[user] && ready(user, &done) {
                    done[user] = true;
                    order.push(user);
                }
            }
            at += 1;
        }
        order
    }

    /// Changes single choices wherever that makes the program cheaper; what is no longer needed is no longer counted.
    fn improve(&self, roots: &[usize], choice: &mut [usize]) {
        for _ in 0..4 {
            let Some(order) = self.order(roots, choice) else { return };
            let mut uses = vec![0usize; self.ids.len()];
            roots.iter().for_each(|&r| uses[r] += 1);
            order.iter().flat_map(|&c| &self.term(c, choice).needs).for_each(|&need| uses[need] += 1);
            let mut changed = false;
            for &class in order.iter().rev() {
                if uses[class] == 0 {
                    continue;
                }
                let current = choice[class];
                let saved = self.release(class, choice, &mut uses);
                let mut best = (saved, current);
                let mut rest = Vec::new();
                for other in (0..self.candidates[class].len()).filter(|&o| o != current) {
                    choice[class] = other;
                    // What the program does not compute yet is computed in the way that shares most with what it does.
                    let mut changed = Vec::new();
                    for &need in &self.candidates[class][other].needs {
                        self.cheapest(need, DEPTH, choice, &uses, &mut changed);
                    }
                    if let Some(cost) = self.acquire(class, choice, &mut uses, best.0 - 1e-6) {
                        self.release(class, choice, &mut uses);
                        best = (cost, other);
                        rest = changed.iter().map(|&(c, _)| (c, choice[c])).collect();
                    }
                    changed.into_iter().rev().for_each(|(c, before)| choice[c] = before);
                }
                choice[class] = best.1;
                rest.into_iter().for_each(|(c, now)| choice[c] = now);
                changed |= best.1 != current;
                let back = self.acquire(class, choice, &mut uses, f64::INFINITY);
                debug_assert!(back.is_some(), "the best choice can be taken");
            }
            if !changed {
                return;
            }
        }
    }

    /// What a class costs that the program does not have yet, with terms chosen for what it has; `changed` notes former choices.
    fn cheapest(&self, class: usize, depth: usize, choice: &mut [usize], uses: &[usize], changed: &mut Vec<(usize, usize)>) -> f64 {
        if uses[class] > 0 {
            return 0.0;
        }
        if depth == 0 || choice[class] == usize::MAX {
            // Deeper down only the first classes count: a lower bound, which `acquire` corrects.
            return if choice[class] == usize::MAX { f64::INFINITY } else { self.term(class, choice).cost };
        }
        let (mut best, mut at) = (f64::INFINITY, choice[class]);
        for (i, candidate) in self.candidates[class].iter().enumerate() {
            let mut cost = candidate.cost;
            for &need in &candidate.needs {
                if cost < best {
                    cost += if need == class { f64::INFINITY } else { self.cheapest(need, depth - 1, choice, uses, changed) };
                }
            }
            if cost < best {
                (best, at) = (cost, i);
            }
        }
        if at != choice[class] {
            changed.push((class, choice[class]));
            choice[class] = at;
        }
        best
    }

    /// Stops using the operands of a class's term; answers what that and the term itself save.
    fn release(&self, class: usize, choice: &[usize], uses: &mut [usize]) -> f64 {
        let mut saved = 0.0;
        let mut stack = vec![class];
        while let Some(class) = stack.pop() {
            let term = self.term(class, choice);
            saved += term.cost;
            for &need in &term.needs {
                uses[need] -= 1;
                if uses[need] == 0 {
                    stack.push(need);
                }
            }
        }
        saved
    }

    /// Uses the operands of a class's term; answers what that and the term itself cost, or `None`, with nothing changed, when it would
    /// cost `limit` or more or have a cycle.
    fn acquire(&self, class: usize, choice: &[usize], uses: &mut [usize], limit: f64) -> Option<f64> {
        let mut cost = 0.0;
        let mut taken: Vec<usize> = Vec::new();
        let mut stack = vec![class];
        let mut fits = true;
        while let Some(at) = stack.pop() {
            if choice[at] == usize::MAX {
                fits = false;
                break;
            }
            let term = self.term(at, choice);
            cost += term.cost;
            for &need in &term.needs {
                uses[need] += 1;
                taken.push(need);
                if uses[need] == 1 {
                    stack.push(need);
                }
            }
            if cost >= limit {
                fits = false;
                break;
            }
        }
        if fits && self.order(&[class], choice).is_some() {
            return Some(cost);
        }
        taken.iter().for_each(|&t| uses[t] -= 1);
        None
    }
}

/// What extraction found.
pub struct Extracted {
    /// The program.
    pub graph: Graph,
    /// Its cost, nanoseconds.
    pub cost: f64,
}

/// The cheapest program for the results of a graph. Each of `joint` is a set of choices that pay only together.
pub fn extract(source: &Graph, imported: &Imported, model: &Model, joint: &[Vec<(Id, Term)>]) -> Result<Extracted, String> {
    let Imported { classes, roots, written } = imported;
    let choices = Choices::new(classes, model);
    let index = |id: Id| choices.index.get(&classes.find(id)).copied();
    let needed: Vec<usize> = roots.iter().filter_map(|&r| index(r)).collect();

    let place = |(id, term): &(Id, Term)| {
        let class = index(*id)?;
        let term = term.clone().map_children(|c| classes.find(c));
        Some((class, choices.candidates[class].iter().position(|c| c.term == term)?))
    };
    let mut as_written = vec![usize::MAX; choices.ids.len()];
    for (class, i) in written.iter().filter_map(place) {
        if as_written[class] == usize::MAX {
            as_written[class] = i;
        }
    }
    let size = choices.ids.len();
    let mut found = if size <= SEARCHABLE { choices.greedy() } else { as_written.clone() };
    if size <= IMPROVABLE {
        choices.improve(&needed, &mut found);
    }
    for set in joint.iter().filter(|_| size <= IMPROVABLE) {
        let mut together = found.clone();
        set.iter().filter_map(place).for_each(|(class, i)| together[class] = i);
        let cost = |choice| choices.total(&needed, choice).unwrap_or(f64::INFINITY);
        if cost(&together) < cost(&found) {
            found = together;
        }
    }
    // As written: classes that became equal may have made a cycle of it; then only the result of the search is left.
    let written_cost = choices.total(&needed, &as_written);
    let found_cost = choices.total(&needed, &found);
    let (choice, cost) = match (written_cost, found_cost) {
        (Some(w), Some(f)) if f < w => (&found, f),
        (Some(w), _) => (&as_written, w),
        (None, Some(f)) => (&found, f),
        (None, None) => return Err("no program was found in the e-graph".into()),
    };
    let graph = rebuild(source, classes, &choices, choice, &needed, roots)?;
    Ok(Extracted { graph, cost })
}

/// Builds the graph of the chosen terms.
fn rebuild(
    source: &Graph,
    classes: &Classes,
    choices: &Choices,
    choice: &[usize],
    needed: &[usize],
    roots: &[Id],
) -> Result<Graph, String> {
    let mut builder =
        Builder { classes, known: Constants::new(classes), graph: Graph::new(), values: HashMap::new(), constants: IndexMap::new() };
    for (name, &value) in source.input_names().iter().zip(source.inputs()) {
        builder.graph.input(name, source.ty(value).clone());
    }
    let order = choices.order(needed, choice).ok_or("the chosen program has a cycle")?;
    for class in order {
        builder.add(choices.ids[class], &choices.term(class, choice).term)?;
    }
    for ((name, _), &root) in source.outputs().iter().zip(roots) {
        let value = builder.value(root)?;
        builder.graph.output(name, value);
    }
    Ok(builder.graph)
}

struct Builder<'a> {
    classes: &'a Classes,
    known: Constants<'a>,
    graph: Graph,
    values: HashMap<Id, Value>,
    constants: IndexMap<Tensor, Value>,
}

impl Builder<'_> {
    fn add(&mut self, id: Id, term: &Term) -> Result<(), String> {
        let value = match &term.head {
            Head::Result(index) => self.value(term.children[0])?.result(*index),
            Head::Op(op) if op.kind() == Kind::Input => self.graph.inputs()[op.attrs.size("index")],
            Head::Op(op) => {
                let inputs = term.children.iter().map(|&c| self.value(c)).collect::<Result<Vec<_>, _>>()?;
                let name = self.classes[id].data.name(Some(op.kind())).to_string();
                self.graph.add(Op::clone(op), inputs, &name)?
            }
        };
        self.values.insert(id, value);
        Ok(())
    }

    /// The value of a class: made already, or constant and then computed now, once.
    fn value(&mut self, id: Id) -> Result<Value, String> {
        let id = self.classes.find(id);
        if let Some(&value) = self.values.get(&id) {
            return Ok(value);
        }
        if !self.classes[id].data.constant {
            return Err("a value is used before it is made".into());
        }
        let value = match self.known.value(id) {
            Some(tensor) => match self.constants.get(&tensor) {
                Some(&value) => value,
                None => {
                    let value = self.graph.constant(tensor.clone());
                    self.constants.insert(tensor, value);
                    value
                }
            },
            // The evaluator cannot: an error of the data, which then is one of the run.
            None => {
                let term = self.classes[id].nodes.first().ok_or("a class has no term")?.clone();
                self.add(id, &term)?;
                return Ok(self.values[&id]);
            }
        };
        self.values.insert(id, value);
        Ok(value)
    }
}

/// The values of constant classes, each computed once.
pub struct Constants<'a> {
    classes: &'a Classes,
    /// The term to compute each class by: that of the shortest chain of terms.
    terms: HashMap<Id, &'a Term>,
    done: HashMap<Id, Option<Tensor>>,
}

impl<'a> Constants<'a> {
    /// Finds a way to compute every constant class.
    pub fn new(classes: &'a Classes) -> Constants<'a> {
        let mut terms = HashMap::new();
        let mut left: Vec<_> = classes.classes().filter(|c| c.data.constant).collect();
        loop {
            let ready = |t: &&Term| t.children.iter().all(|c| terms.contains_key(&classes.find(*c)));
            let found: Vec<(Id, &Term)> = left.iter().filter_map(|c| c.nodes.iter().find(ready).map(|t| (c.id, t))).collect();
            if found.is_empty() {
                return Constants { classes, terms, done: HashMap::new() };
            }
            terms.extend(found);
            left.retain(|c| !terms.contains_key(&c.id));
        }
    }

    /// The value of a constant class; none where the evaluator fails.
    pub fn value(&mut self, id: Id) -> Option<Tensor> {
        let id = self.classes.find(id);
        if let Some(value) = &self.classes[id].data.value {
            return Some(value.clone());
        }
        if let Some(value) = self.done.get(&id) {
            return value.clone();
        }
        let value = self.compute(id);
        self.done.insert(id, value.clone());
        value
    }

    fn compute(&mut self, id: Id) -> Option<Tensor> {
        let (term, index) = match self.terms.get(&id)? {
            Term { head: Head::Result(index), children } => (*self.terms.get(&self.classes.find(children[0]))?, *index as usize),
            term => (*term, 0),
        };
        let inputs = term.children.iter().map(|&c| self.value(c)).collect::<Option<Vec<_>>>()?;
        let op = term.op()?;
        eval_op(op, &inputs).ok()?.into_iter().nth(index)
    }
}

/// A graph with every body of control flow replaced by what `f` makes of it.
pub fn map_bodies(graph: &Graph, f: &mut dyn FnMut(&Graph) -> Result<Graph, String>) -> Result<Graph, String> {
    let mut result = Graph::new();
    let mut values: Vec<Value> = Vec::with_capacity(graph.nodes().len());
    for (i, node) in graph.nodes().iter().enumerate() {
        let value = match node.op.kind() {
            Kind::Input => {
                let at = graph.inputs().iter().position(|v| v.node as usize == i).ok_or("an input is not listed")?;
                result.input(&graph.input_names()[at], node.types[0].clone())
            }
            _ => {
                let mut op = node.op.clone();
                for (name, attr) in node.op.attrs.iter() {
                    if let Attr::Graph(body) = attr {
                        op = op.with(name, f(body)?);
                    }
                }
                let inputs = node.inputs.iter().map(|v| values[v.node as usize].result(v.index)).collect();
                result.add(op, inputs, &node.name)?
            }
        };
        values.push(value);
    }
    for (name, v) in graph.outputs() {
        result.output(name, values[v.node as usize].result(v.index));
    }
    Ok(result)
}
