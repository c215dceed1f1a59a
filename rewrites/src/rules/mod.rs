//! The rules: tables of rewrites, one file per topic.
//!
//! A line is `"name" : (left side) => (right side) if condition(x, y), …`. Conditions are named facts ([`Check`]), helpers on a right
//! side compute what algebra cannot say ([`Make`]); both answer "no" with the reason, which `explain` shows.

mod algebra;
mod conditions;
mod decompose;
mod fold;
pub mod horizontal_fusion;
mod idioms;
mod integer;
mod layout;
mod movement;
mod quantise;
mod shuffle;
mod table;

use crate::fact::Classes;
use crate::mismatch::{Mismatch, near_miss};
use crate::pattern::{Match, Names, Pattern, Reader};
use std::sync::OnceLock;
use table::{Check, Line, Make};

/// A rule that is ready to run.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What is looked for.
    pub left: Pattern,
    /// What it is equal to.
    pub right: Pattern,
    /// Conditions: name, function, arguments.
    pub conditions: Vec<(&'static str, Check, Vec<Pattern>)>,
    /// Names of the variables.
    pub names: Names,
}

/// Which rules run together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Algebra, idioms, constant folding into weights, data movement, decompositions.
    Simplify,
    /// Operators that share an input become one.
    HorizontalFusion,
    /// NCHWc layouts.
    Layout,
}

/// The phases in order.
pub const PHASES: &[Phase] = &[Phase::Simplify, Phase::HorizontalFusion, Phase::Layout];

/// The tables of a phase.
fn tables(phase: Phase) -> Vec<&'static [Line]> {
    match phase {
        Phase::Simplify => {
            vec![
                algebra::ALGEBRA,
                idioms::IDIOMS,
                fold::FOLD,
                shuffle::SHUFFLE,
                movement::MOVEMENT,
                quantise::QUANTISE,
                integer::INTEGER,
                layout::LINES,
                decompose::DECOMPOSE,
            ]
        }
        Phase::HorizontalFusion => vec![],
        Phase::Layout => vec![layout::LAYOUT],
    }
}

/// The rules of a phase, in the order of the tables.
pub fn of(phase: Phase) -> &'static [Rule] {
    static RULES: OnceLock<Vec<(Phase, Vec<Rule>)>> = OnceLock::new();
    let all = RULES.get_or_init(|| PHASES.iter().map(|&p| (p, tables(p).into_iter().flatten().map(Rule::read).collect())).collect());
    &all.iter().find(|(p, _)| *p == phase).expect("every phase is in PHASES").1
}

/// Every rule.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    PHASES.iter().flat_map(|&p| of(p))
}

/// The helper of a name.
pub fn helper(name: &str) -> Make {
    let tables = [fold::MAKE, shuffle::MAKE, movement::MAKE, integer::MAKE, layout::MAKE, idioms::MAKE, algebra::MAKE, decompose::MAKE];
    let found = tables.iter().flat_map(|t| t.iter()).find(|(n, _)| *n == name);
    found.unwrap_or_else(|| panic!("no operator and no helper is called `{name}`")).1
}

fn check(name: &str) -> Check {
    let tables = [
        conditions::CHECK,
        algebra::CHECK,
        fold::CHECK,
        shuffle::CHECK,
        movement::CHECK,
        quantise::CHECK,
        integer::CHECK,
        layout::CHECK,
        idioms::CHECK,
        decompose::CHECK,
    ];
    let found = tables.iter().flat_map(|t| t.iter()).find(|(n, _)| *n == name);
    found.unwrap_or_else(|| panic!("no condition is called `{name}`")).1
}

impl Rule {
    fn read(line: &Line) -> Rule {
        let mut names = Names::default();
        let left = Reader::new(line.left, &mut names, helper).pattern();
        let bound = names.0.len();
        let right = Reader::new(line.right, &mut names, helper).pattern();
        let conditions: Vec<_> =
            line.conditions.iter().map(|(name, args)| (*name, check(name), Reader::new(args, &mut names, helper).arguments())).collect();
        assert_eq!(names.0.len(), bound, "rule \"{}\" uses a variable that its left side does not bind: {:?}", line.name, names.0);
        Rule { name: line.name, left, right, conditions, names }
    }

    /// All matches of the left side.
    pub fn search(&self, classes: &Classes) -> Vec<Match> {
        self.left.search(classes, self.names.0.len())
    }

    /// Applies the rule to one match; answers whether the e-graph changed, or why the rule does not hold.
    pub fn apply(&'static self, classes: &mut Classes, place: &Match) -> Result<bool, Mismatch> {
        for (_, check, args) in &self.conditions {
            check(classes, &crate::pattern::arguments(args, &place.bound))?;
        }
        let ty = classes[place.root].data.types.first().ok_or(near_miss("the operator has no result"))?.clone();
        let names = place.trail.iter().filter_map(|(kind, class)| {
            let fact = &classes[*class].data;
            fact.names.iter().find(|(k, _)| k == kind).cloned()
        });
        let origin: Vec<_> = names.collect();
        classes.analysis.origin = origin;
        classes.analysis.rule = self.name;
        let made = self.right.build(classes, &place.bound, ty.ty);
        classes.analysis.origin.clear();
        let made = made?.id();
        if classes[made].data.types != [ty] {
            return Err(near_miss("the shape would change"));
        }
        Ok(classes.union(place.root, made))
    }
}
