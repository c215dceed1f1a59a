//! One test for all rules: random graphs of the form of a left side; both sides are run by the reference evaluator.

mod attributes;
mod instance;
mod operands;

use crate::fact::{self, Classes, Facts, Integers};
use crate::language::import;
use crate::options::Options;
use crate::pattern::{Pattern, Reader, What};
use crate::rules::{self, Rule};
use crate::term::{Head, Term};
use dnnc_ir::eval::{eval_op, eval_with};
use dnnc_ir::random::Rng;
use dnnc_ir::{Attr, Graph, Kind, Op, Tensor, Type, Value};
use egg::Id;
use instance::{BLOCK, Instance, values};
use std::collections::HashMap;

/// Bytes, less zero points or not.
const INTEGER_MATMULS: &[&str] = &[
    "(matmul[p] (sub (cast[c] a) 3) (cast[d] b))",
    "(matmul[p] (cast[c] a) (sub (cast[d] b) 7))",
    "(matmul[p] (sub (cast[c] a) 130) (sub (cast[d] b) z))",
    "(matmul[p] a (cast[d] b))",
];

/// The same for images.
const INTEGER_CONVOLUTIONS: &[&str] = &[
    "(conv[p] (sub (cast[c] a) 3) (cast[d] b) ..z)",
    "(conv[p] (cast[c] a) (sub (cast[d] b) 128))",
    "(conv[p] (sub (cast[c] a) 130) (cast[d] b))",
    "(conv[p] a (cast[d] b))",
];

/// Left sides with lists of operands: what is in the list.
const INSTANCES: &[(&str, &[&str])] = &[
    ("concat of transposes", &["(concat[c] (transpose[p] x) (transpose[p] y))"]),
    ("element-wise of concat", &["(elementwise[f] (concat[c] x y))"]),
    ("concat of adjacent slices", &["(concat[p] (slice[a] x) (slice[b] x))", "(concat[p] x)"]),
    ("nested concat", &["(concat[p] (concat[p] x y) z)"]),
    ("quantize of dequantize", &["(round (div (mul (cast[c] a) s) s))", "(round (div (mul (sub (cast[c] a) 3) s) s))"]),
    ("round of integers", &["(round (cast[c] a))", "(round (add (cast[c] a) 2))"]),
    ("channel shuffle as gather", &["(reshape[a] (transpose[p] (reshape[b] x)))"]),
    ("slice of concat", &["(slice[p] (concat[q] x y))", "(slice[p] (concat[q] x y z))"]),
    (
        "element-wise in NCHWc",
        &[
            "(elementwise[f] (unpack[u] x))",
            "(elementwise[f] (unpack[u] x) y)",
            "(elementwise[f] y (unpack[u] x))",
            "(select (unpack[u] x) y z)",
        ],
    ),
    ("integer matmul", INTEGER_MATMULS),
    ("integer convolution", INTEGER_CONVOLUTIONS),
    ("depthwise integers in floats", INTEGER_CONVOLUTIONS),
    (
        "matmul of dequantised",
        &["(matmul[p] (mul (cast[c] a) 2) (mul (cast[d] b) t))", "(matmul[p] (mul (cast[c] a) 3) (mul (cast[d] b) 0.5))"],
    ),
    (
        "convolution of dequantised",
        &["(conv[p] (mul (cast[c] a) 2) (mul (cast[d] b) t))", "(conv[p] (mul (cast[c] a) 3) (mul (cast[d] b) 0.5) ..z)"],
    ),
    ("concat in NCHWc", &["(concat[c] (unpack[u] x) (unpack[u] y))", "(concat[c] (unpack[u] x) y)"]),
];

/// The values of classes: those of the graph as it came in are known, others are computed by a shortest term.
struct Values<'a> {
    classes: &'a Classes,
    known: HashMap<Id, Tensor>,
    terms: HashMap<Id, &'a Term>,
}

impl Values<'_> {
    fn of(&mut self, id: Id) -> Option<Tensor> {
        let id = self.classes.find(id);
        if let Some(v) = self.known.get(&id) {
            return Some(v.clone());
        }
        let term = self.terms.get(&id).copied()?;
        let v = self.run(term)?;
        self.known.insert(id, v.clone());
        Some(v)
    }

    fn run(&mut self, term: &Term) -> Option<Tensor> {
        let Head::Op(op) = &term.head else { return None };
        let inputs: Option<Vec<Tensor>> = term.children.iter().map(|&c| self.of(c)).collect();
        eval_op(op, &inputs?).ok()?.into_iter().next()
    }
}

/// Applies the rule to one instance; answers whether it fired, or how the sides differ.
fn check(rule: &'static Rule, random: &mut Rng) -> Result<bool, String> {
    let mut names = rule.names.clone();
    let instances = INSTANCES.iter().find(|(name, _)| *name == rule.name);
    let pattern = match instances {
        Some((_, texts)) => {
            let text = random.pick(texts);
            Reader::new(text, &mut names, rules::helper).pattern()
        }
        None => rule.left.clone(),
    };
    let real = rule.conditions.iter().any(|(n, ..)| *n == "real" || *n == "f32");
    let elem = if real || random.chance(80) { Type::F32 } else { random.pick(&[Type::I32, Type::F64, Type::Bool, Type::I8]) };
    let rank = if random.chance(40) { 4 } else { random.below(5) };
    let base: Vec<usize> =
        (0..rank).map(|i| if i == 1 && random.chance(50) { random.pick(&[4, 8, 6]) } else { 1 + random.below(4) }).collect();
    let mut instance = Instance { rule, names: &names, random, graph: Graph::new(), bound: HashMap::new(), elem, base };
    let root = match instance.make(&pattern, None) {
        Ok(root) => root,
        Err(_) => return Ok(false),
    };
    let mut graph = std::mem::take(&mut instance.graph);
    graph.output("y", root);

    let relaxed = rule.conditions.iter().any(|(n, ..)| *n == "finite_math");
    let options = Options {
        relaxed: relaxed || rule.conditions.iter().any(|(n, ..)| *n == "exact_reciprocal") && random.chance(50),
        ..Options::default()
    };
    let exact = !options.relaxed && !rule.conditions.iter().any(|(n, ..)| *n == "reassociation");
    let integers = random.pick(&[Integers::Words, Integers::Bytes(Type::I8), Integers::Bytes(Type::U8)]);
    let imported = import(&graph, Facts { options, block: BLOCK, integers, ..Facts::default() });
    let (mut classes, target) = (imported.classes, imported.roots[0]);
    let places: Vec<_> = rule.search(&classes).into_iter().filter(|p| classes.find(p.root) == classes.find(target)).collect();
    let original: Vec<Term> = classes[target].nodes.clone();
    let mut fired = false;
    for place in places {
        fired |= rule.apply(&mut classes, &place).unwrap_or(false);
    }
    if !fired {
        return Ok(false);
    }
    classes.rebuild();

    let inputs: Vec<Tensor> = graph.inputs().iter().map(|&v| values(random, graph.ty(v), false)).collect();
    let mut known = HashMap::new();
    let mut results: Vec<Option<Tensor>> = vec![None; graph.nodes().len()];
    if eval_with(&graph, &inputs, |n, r| results[n] = r.first().cloned()).is_err() {
        return Ok(false);
    }
    for ((id, _), value) in imported.written.iter().zip(results) {
        known.extend(value.map(|v| (classes.find(*id), v)));
    }
    let expected = known[&classes.find(target)].clone();
    let mut terms: HashMap<Id, &Term> = HashMap::new();
    loop {
        let found: Vec<(Id, &Term)> = classes
            .classes()
            .filter(|c| !terms.contains_key(&c.id))
            .filter_map(|c| {
                let ready =
                    |t: &&Term| t.children.iter().all(|x| known.contains_key(&classes.find(*x)) || terms.contains_key(&classes.find(*x)));
                c.nodes.iter().filter(|t| t.kind() != Some(Kind::Input)).find(ready).map(|t| (c.id, t))
            })
            .collect();
        if found.is_empty() {
            break;
        }
        terms.extend(found);
    }
    let mut all = Values { classes: &classes, known, terms };
    let mut compared = false;
    for term in &classes[target].nodes {
        let canonical = |t: &Term| Term { head: t.head.clone(), children: t.children.iter().map(|&c| classes.find(c)).collect() };
        if original.iter().any(|t| canonical(t) == *term) {
            continue;
        }
        let found = match term.kind() {
            // The root became equal to an input: its value is that of the input.
            Some(Kind::Input) => inputs[term.op().expect("an input").attrs.size("index")].clone(),
            _ => all.run(term).ok_or_else(|| format!("cannot evaluate {term:?}"))?,
        };
        compared = true;
        // Padding lanes of packed values may differ.
        let live = |t: &Tensor| match (&rule.left, place_pack(&graph, root)) {
            (Pattern::Op(What::Kind(Kind::Pack), ..), Some(unpack)) => {
                eval_op(&unpack, std::slice::from_ref(t)).expect("unpacked").remove(0)
            }
            _ => t.clone(),
        };
        compare(&live(&expected), &live(&found), exact, relaxed).map_err(|e| format!("{e}\nas {term:?}\nof {graph:?}"))?;
    }
    Ok(compared)
}

/// How to unpack what a packing packs.
fn place_pack(graph: &Graph, root: Value) -> Option<Op> {
    let size = graph.ty(*graph.node(root).inputs.first()?).shape.get(1).copied()?;
    let attrs = [("axis", Attr::Int(1)), ("block", Attr::Int(BLOCK as i64)), ("size", Attr::Int(size as i64))];
    Op::new(Kind::Unpack, attrs).ok()
}

fn compare(a: &Tensor, b: &Tensor, exact: bool, finite: bool) -> Result<(), String> {
    if a.ty() != b.ty() {
        return Err(format!("{} is not {}", a.ty(), b.ty()));
    }
    let (Some(x), Some(y)) = (fact::exact_f64s(a), fact::exact_f64s(b)) else { return Err(format!("cannot compare {}", a.ty())) };
    let relative = match a.ty().ty {
        Type::F16 => 2e-3,
        Type::F32 if exact => 1e-6,
        Type::F32 => 2e-4,
        Type::F64 => 1e-9,
        _ => 0.0,
    };
    for (x, y) in x.into_iter().zip(y) {
        let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= relative * (1.0 + x.abs());
        if !same && (!finite || x.is_finite()) {
            return Err(format!("{x} is not {y}"));
        }
    }
    Ok(())
}

#[test]
fn every_rule_keeps_its_meaning() {
    let mut silent = Vec::new();
    let mut wrong = Vec::new();
    for (number, rule) in rules::all().enumerate() {
        let mut random = Rng::new(number as u64);
        let mut fired = 0;
        for _ in 0..6000 {
            match check(rule, &mut random) {
                Ok(yes) => fired += usize::from(yes),
                Err(e) => {
                    wrong.push(format!("\"{}\": {e}", rule.name));
                    break;
                }
            }
            if fired == 64 {
                break;
            }
        }
        if fired < 3 {
            silent.push(rule.name);
        }
    }
    assert!(wrong.is_empty() && silent.is_empty(), "never seen to fire: {silent:#?}\nwrong:\n{}", wrong.join("\n"));
}
