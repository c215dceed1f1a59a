//! Patterns: parsing them, matching them in the e-graph, building them there.
//!
//! `(conv[p] x w ..b)` is operator `conv`, its attributes bound to `p`, operands `x` and `w`, all further ones bound to the list `b`.
//! A number stands for a constant that is this number everywhere, of any shape. `elementwise` is any element-wise operator.
//! On a left side operands of `add`, `mul`, `min`, `max`, `and`, `or`, `xor` and `eq` match in either order, `(mul x 2)` finds `x / 0.5`
//! and `(add x 2)` finds `x − (−2)`: so no rule has to be written twice.
//! On a right side a name that is no operator is a [`Make`] helper, also inside brackets, where it makes attributes.

use crate::fact::Classes;
use crate::language::Build;
use crate::mismatch::Mismatch;
use crate::term::{Head, OpRef};
use dnnc_ir::{Class, Kind};
use egg::Id;

/// What a variable of a rule is bound to.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    /// A class.
    Value(Id),
    /// Several classes.
    Values(Vec<Id>),
    /// An operator with its attributes.
    Op(OpRef),
    /// A literal of the rule.
    Number(f64),
}

impl Arg {
    /// The class; panics when the rule is wrongly written (the test of all rules would not pass).
    pub fn id(&self) -> Id {
        match self {
            Arg::Value(id) => *id,
            other => panic!("a rule uses {other:?} as a value"),
        }
    }

    /// The classes of a list.
    pub fn ids(&self) -> &[Id] {
        match self {
            Arg::Values(ids) => ids,
            Arg::Value(id) => std::slice::from_ref(id),
            other => panic!("a rule uses {other:?} as a list of values"),
        }
    }

    /// The operator.
    pub fn op(&self) -> &OpRef {
        match self {
            Arg::Op(op) => op,
            other => panic!("a rule uses {other:?} as attributes"),
        }
    }

    /// The number.
    pub fn number(&self) -> f64 {
        match self {
            Arg::Number(v) => *v,
            other => panic!("a rule uses {other:?} as a number"),
        }
    }
}

/// A helper of right sides: makes values, lists of values or operators.
pub type Make = fn(&mut Classes, &[Arg]) -> Result<Arg, Mismatch>;

/// One side of a rule.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// A variable, by its slot.
    Var(usize),
    /// All further operands, by slot (last in a list of operands).
    Rest(usize),
    /// A constant.
    Number(f64),
    /// An operator on operands.
    Op(What, Option<Bracket>, Vec<Pattern>),
    /// A helper that makes a value or a list.
    Call(Make, Vec<Pattern>),
}

/// Which operators a pattern means.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum What {
    /// This one.
    Kind(Kind),
    /// Any element-wise operator.
    Elementwise,
}

/// What stands in brackets behind an operator.
#[derive(Clone, Debug)]
pub enum Bracket {
    /// A bound operator, by slot.
    Var(usize),
    /// A helper that makes the operator's attributes.
    Call(Make, Vec<Pattern>),
}

/// Names of the variables of a rule; the index of a name is its slot.
#[derive(Clone, Default, Debug)]
pub struct Names(pub Vec<String>);

impl Names {
    fn slot(&mut self, name: &str) -> usize {
        self.0.iter().position(|n| n == name).unwrap_or_else(|| {
            self.0.push(name.to_string());
            self.0.len() - 1
        })
    }
}

/// A reader of patterns.
pub struct Reader<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    names: &'a mut Names,
    /// The helper of a name.
    helper: fn(&str) -> Make,
}

impl<'a> Reader<'a> {
    /// A reader of `text`; variables get their slots from `names`, helpers come from the tables of rules.
    pub fn new(text: &'a str, names: &'a mut Names, helper: fn(&str) -> Make) -> Reader<'a> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            let len = if rest.starts_with("..") {
                2
            } else if word(first) {
                // `1e-6` is one token.
                let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
                let exponent = first.is_ascii_digit() && rest[..end].ends_with('e') && rest[end..].starts_with('-');
                if exponent { end + 1 + rest[end + 1..].find(|c| !word(c)).unwrap_or(rest.len() - end - 1) } else { end }
            } else {
                first.len_utf8()
            };
            tokens.push(&rest[..len]);
            rest = rest[len..].trim_start();
        }
        Reader { tokens, at: 0, names, helper }
    }

    /// Reads one pattern; panics with the text on what is none: rules are written by us and all are read by a test.
    pub fn pattern(&mut self) -> Pattern {
        let token = self.next();
        match token {
            "(" => {
                let name = self.next().to_string();
                let bracket = (self.peek() == Some("[")).then(|| self.bracket());
                let operands = self.until(")");
                match what(&name) {
                    Some(what) => Pattern::Op(what, bracket, operands),
                    None => Pattern::Call((self.helper)(&name), operands),
                }
            }
            ".." => match self.pattern() {
                Pattern::Var(slot) => Pattern::Rest(slot),
                // A helper that makes a list.
                other => other,
            },
            "-" => Pattern::Number(-self.next().parse::<f64>().expect("a number after `-`")),
            "inf" => Pattern::Number(f64::INFINITY),
            _ => match token.parse::<f64>() {
                Ok(number) => Pattern::Number(number),
                Err(_) => Pattern::Var(self.names.slot(token)),
            },
        }
    }

    /// Reads `name(a, b)` calls: the arguments of a condition.
    pub fn arguments(&mut self) -> Vec<Pattern> {
        assert_eq!(self.next(), "(", "in {:?}", self.tokens);
        self.until(")")
    }

    fn bracket(&mut self) -> Bracket {
        self.next();
        let name = self.next().to_string();
        let bracket = if self.peek() == Some("(") {
            self.next();
            Bracket::Call((self.helper)(&name), self.until(")"))
        } else {
            Bracket::Var(self.names.slot(&name))
        };
        assert_eq!(self.next(), "]", "in {:?}", self.tokens);
        bracket
    }

    fn until(&mut self, close: &str) -> Vec<Pattern> {
        let mut list = Vec::new();
        while self.peek() != Some(close) {
            if self.peek() == Some(",") {
                self.next();
            } else {
                list.push(self.pattern());
            }
        }
        self.next();
        list
    }

    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> &'a str {
        self.at += 1;
        self.tokens.get(self.at - 1).copied().unwrap_or_else(|| panic!("a rule ends early: {:?}", self.tokens))
    }
}

fn what(name: &str) -> Option<What> {
    if name == "elementwise" {
        return Some(What::Elementwise);
    }
    Kind::ALL.iter().find(|k| k.name() == name).map(|k| What::Kind(*k))
}

/// A match of a left side.
#[derive(Clone, PartialEq, Debug)]
pub struct Match {
    /// Class of the root of the pattern.
    pub root: Id,
    /// Bindings by slot.
    pub bound: Vec<Option<Arg>>,
    /// The terms that were matched, the root first: operator and class.
    pub trail: Vec<(Kind, Id)>,
}

impl Match {
    /// Identifies the match among those of one rule.
    pub fn key(&self) -> Vec<u64> {
        let id = |id: &Id| usize::from(*id) as u64;
        let mut key = vec![id(&self.root)];
        for bound in self.bound.iter().flatten() {
            match bound {
                Arg::Value(v) => key.push(id(v)),
                Arg::Values(v) => key.extend([v.len() as u64].into_iter().chain(v.iter().map(id))),
                Arg::Op(op) => key.push(op.hash()),
                Arg::Number(v) => key.push(v.to_bits()),
            }
        }
        key
    }
}

/// No class may hold more matches of one rule: a class of that many forms says nothing new.
const MATCHES_A_CLASS: usize = 64;

impl Pattern {
    /// All matches of the pattern, in the order of classes.
    pub fn search(&self, classes: &Classes, slots: usize) -> Vec<Match> {
        let Pattern::Op(what, ..) = self else { panic!("a left side is an operator") };
        let kinds = match what {
            What::Kind(Kind::Mul) => vec![Kind::Mul, Kind::Div],
            What::Kind(Kind::Add) => vec![Kind::Add, Kind::Sub],
            What::Kind(kind) => vec![*kind],
            What::Elementwise => Kind::ALL.iter().copied().filter(|k| dnnc_ir::ops::def(*k).class == Class::Elementwise).collect(),
        };
        let mut roots: Vec<Id> = kinds.iter().filter_map(|k| classes.classes_for_op(&Some(*k))).flatten().collect();
        roots.sort_unstable();
        roots.dedup();
        let mut found = Vec::new();
        for root in roots {
            let start = Match { root, bound: vec![None; slots], trail: vec![] };
            let mut here = Vec::new();
            solve(classes, vec![(self, root)], start, &mut here);
            found.append(&mut here);
        }
        found
    }

    /// Builds the pattern under the bindings of a match; a number takes element type `elem`.
    pub fn build(&self, classes: &mut Classes, bound: &[Option<Arg>], elem: dnnc_ir::Type) -> Result<Arg, Mismatch> {
        Ok(match self {
            Pattern::Var(slot) | Pattern::Rest(slot) => bound[*slot].clone().expect("a right side uses what the left side binds"),
            Pattern::Number(value) => Arg::Value(classes.number(elem, *value)?),
            Pattern::Op(what, bracket, operands) => {
                let mut inputs = Vec::new();
                for operand in operands {
                    inputs.extend_from_slice(operand.build(classes, bound, elem)?.ids());
                }
                let bracket = match bracket {
                    Some(Bracket::Var(slot)) => bound[*slot].clone(),
                    Some(Bracket::Call(make, args)) => Some(call(*make, args, classes, bound)?),
                    None => None,
                };
                Arg::Value(match (bracket, what) {
                    (Some(op), _) => classes.apply(op.op(), &inputs)?,
                    (None, What::Kind(kind)) => classes.op(*kind, [], &inputs)?,
                    (None, What::Elementwise) => panic!("`elementwise` on a right side needs its operator in brackets"),
                })
            }
            Pattern::Call(make, args) => {
                let args: Result<Vec<Arg>, Mismatch> = args
                    .iter()
                    .map(|a| if let Pattern::Number(v) = a { Ok(Arg::Number(*v)) } else { a.build(classes, bound, elem) })
                    .collect();
                make(classes, &args?)?
            }
        })
    }
}

fn call(make: Make, args: &[Pattern], classes: &mut Classes, bound: &[Option<Arg>]) -> Result<Arg, Mismatch> {
    let args: Vec<Arg> = arguments(args, bound);
    make(classes, &args)
}

/// Variables and numbers as arguments of a condition or of a helper in brackets.
pub fn arguments(args: &[Pattern], bound: &[Option<Arg>]) -> Vec<Arg> {
    args.iter()
        .map(|a| match a {
            Pattern::Number(v) => Arg::Number(*v),
            Pattern::Var(slot) | Pattern::Rest(slot) => bound[*slot].clone().expect("a rule uses what its left side binds"),
            other => panic!("{other:?} cannot be an argument here"),
        })
        .collect()
}

/// Whether constant `value` is the literal of a rule, up to rounding of its type.
fn is_literal(classes: &Classes, id: Id, literal: f64) -> bool {
    let fact = &classes[id].data;
    let Some(value) = fact.splat else { return false };
    let relative = match fact.ty().ty {
        dnnc_ir::Type::F16 => 1e-3,
        dnnc_ir::Type::BF16 => 1e-2,
        ty if ty.is_float() => 1e-6,
        _ => 0.0,
    };
    value == literal || (value - literal).abs() <= relative * literal.abs()
}

/// Division undoes multiplication for floats only.
fn op_is_real(classes: &Classes, class: Id) -> bool {
    classes[class].data.ty().ty.is_real()
}

fn commutes(kind: Kind) -> bool {
    use Kind::*;
    matches!(kind, Add | Mul | Min | Max | And | Or | Xor | Eq)
}

/// Depth-first: `goals` are patterns still to be found in their classes.
fn solve(classes: &Classes, mut goals: Vec<(&Pattern, Id)>, mut m: Match, found: &mut Vec<Match>) {
    loop {
        if found.len() >= MATCHES_A_CLASS {
            return;
        }
        let Some((pattern, class)) = goals.pop() else {
            if !found.iter().any(|other| other.bound == m.bound) {
                found.push(m);
            }
            return;
        };
        match pattern {
            Pattern::Var(slot) => match &m.bound[*slot] {
                Some(Arg::Value(id)) if classes.find(*id) == classes.find(class) => {}
                Some(_) => return,
                None => m.bound[*slot] = Some(Arg::Value(class)),
            },
            Pattern::Number(literal) => {
                if !is_literal(classes, class, *literal) {
                    return;
                }
            }
            Pattern::Op(what, bracket, operands) => {
                for term in &classes[class].nodes {
                    let Head::Op(op) = &term.head else { continue };
                    let kind = op.kind();
                    let (as_is, literal) = match what {
                        What::Elementwise => (op.def.class == Class::Elementwise, None),
                        What::Kind(k) => (*k == kind, inverse_literal(*k, kind, operands)),
                    };
                    if !as_is && literal.is_none() {
                        continue;
                    }
                    let mut next = m.clone();
                    next.trail.push((kind, class));
                    if let Some((x, value)) = literal {
                        if op_is_real(classes, class) && is_literal(classes, term.children[1], value) {
                            let mut goals = goals.clone();
                            goals.push((x, term.children[0]));
                            solve(classes, goals, next, found);
                        }
                        continue;
                    }
                    match bracket {
                        Some(Bracket::Var(slot)) => match &next.bound[*slot] {
                            Some(Arg::Op(bound)) if bound == op => {}
                            Some(_) => continue,
                            None => next.bound[*slot] = Some(Arg::Op(op.clone())),
                        },
                        Some(Bracket::Call(..)) => panic!("a left side binds attributes, it does not make them"),
                        None => {}
                    }
                    let rest = matches!(operands.last(), Some(Pattern::Rest(_)));
                    let fixed = operands.len() - usize::from(rest);
                    if term.children.len() < fixed || !rest && term.children.len() != fixed {
                        continue;
                    }
                    if let (true, Some(Pattern::Rest(slot))) = (rest, operands.last()) {
                        let further = Arg::Values(term.children[fixed..].to_vec());
                        match &next.bound[*slot] {
                            Some(bound) if *bound == further => {}
                            Some(_) => continue,
                            None => next.bound[*slot] = Some(further),
                        }
                    }
                    // Literals are pushed last, so that they are checked first.
                    let push = |order: &[usize], next: Match, found: &mut Vec<Match>| {
                        let mut goals = goals.clone();
                        let pairs = || operands[..fixed].iter().zip(order.iter().map(|&i| term.children[i]));
                        goals.extend(pairs().filter(|(p, _)| !matches!(p, Pattern::Number(_))).rev());
                        goals.extend(pairs().filter(|(p, _)| matches!(p, Pattern::Number(_))));
                        solve(classes, goals, next, found);
                    };
                    let straight: Vec<usize> = (0..fixed).collect();
                    if as_is && *what != What::Elementwise && commutes(kind) && fixed == 2 && term.children[0] != term.children[1] {
                        push(&[1, 0], next.clone(), found);
                    }
                    push(&straight, next, found);
                }
                return;
            }
            Pattern::Rest(_) | Pattern::Call(..) => panic!("{pattern:?} cannot stand here on a left side"),
        }
    }
}

/// `(mul x c)` found as `x / (1/c)`, `(add x c)` as `x − (−c)`: the operand and the number to look for instead.
fn inverse_literal(wanted: Kind, found: Kind, operands: &[Pattern]) -> Option<(&Pattern, f64)> {
    let (x, literal) = match operands {
        [Pattern::Number(v), x] | [x, Pattern::Number(v)] => (x, *v),
        _ => return None,
    };
    match (wanted, found) {
        (Kind::Mul, Kind::Div) if literal != 0.0 => Some((x, 1.0 / literal)),
        (Kind::Add, Kind::Sub) if literal != 0.0 => Some((x, -literal)),
        _ => None,
    }
}
