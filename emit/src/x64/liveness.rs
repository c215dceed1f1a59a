//! Liveness: uses, last uses, loads that may move to their use, register pressure of loops; computed before lowering.

use super::isa::IsaFeatures;
use dnnc_kir::{Func, Op, Stmt, Ty, Val};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a loop.
#[derive(Default)]
pub struct Loop {
    /// Most vector registers in use at once inside, not counting constants.
    pub pressure: usize,
    /// Constants used inside, with a weight that grows with the depth of the use.
    pub constants: BTreeMap<Val, u32>,
    pub innermost: bool,
    /// Numbers of its first and last statement.
    span: (u32, u32),
}

/// What is known of a function. Statements are numbered in the order of the text, loops too; a loop counts once more at its end.
pub struct Liveness {
    pub uses: Vec<u32>,
    pub constants: Vec<Option<u64>>,
    pub loops: Vec<Loop>,
    /// Accesses of the first elements of a type inside loops: the type and how many.
    pub partial: BTreeSet<(Ty, u8)>,
    /// Loop that defines a value and loop of its last use (`u32::MAX`: none), number of the statement of its last use.
    def_loop: Vec<u32>,
    last_loop: Vec<u32>,
    last: Vec<u32>,
    /// Straight stretches without stores in which a value is defined and last used.
    def_stretch: Vec<u32>,
    last_stretch: Vec<u32>,
}

impl Liveness {
    /// Reads a function.
    pub fn of(func: &Func, isa: &IsaFeatures) -> Liveness {
        let n = func.types.len();
        let none = vec![u32::MAX; n];
        let liveness = Liveness {
            uses: vec![0; n],
            constants: vec![None; n],
            loops: vec![],
            partial: BTreeSet::new(),
            def_loop: none.clone(),
            last_loop: none.clone(),
            last: none.clone(),
            def_stretch: none.clone(),
            last_stretch: none.clone(),
        };
        let mut reader = Reader {
            func,
            liveness,
            at: 0,
            stretch: 0,
            stack: vec![],
            def_at: vec![0; n],
            depth: vec![0; n],
            until: none,
            loads: vec![false; n],
        };
        reader.body(&func.body);
        reader.pressures(isa.bytes);
        reader.liveness
    }

    /// Whether the statement of this number is the last to need the value.
    pub fn dies(&self, v: Val, at: u32) -> bool {
        // A value that lowering made for itself has one use.
        let v = v.0 as usize;
        v >= self.last.len() || self.last[v] == at && self.last_loop[v] == self.def_loop[v]
    }

    /// Whether a load may be done where its value is used: once, with nothing written in between.
    pub fn movable(&self, v: Val) -> bool {
        let v = v.0 as usize;
        v < self.last.len() && self.uses[v] == 1 && self.def_stretch[v] == self.last_stretch[v]
    }

    /// The loop whose body defines a value.
    pub fn def_loop(&self, v: Val) -> u32 {
        self.def_loop[v.0 as usize]
    }
}

struct Reader<'a> {
    func: &'a Func,
    liveness: Liveness,
    at: u32,
    stretch: u32,
    stack: Vec<u32>,
    def_at: Vec<u32>,
    /// Loops around the definition.
    depth: Vec<u32>,
    /// Loop to whose end a value from outside is needed.
    until: Vec<u32>,
    /// Whether it is a load.
    loads: Vec<bool>,
}

impl Reader<'_> {
    fn def(&mut self, v: Val) {
        let i = v.0 as usize;
        self.def_at[i] = self.at;
        self.depth[i] = self.stack.len() as u32;
        self.liveness.def_loop[i] = self.stack.last().copied().unwrap_or(u32::MAX);
        self.liveness.def_stretch[i] = self.stretch;
    }

    fn use_(&mut self, v: Val) {
        let i = v.0 as usize;
        self.liveness.uses[i] += 1;
        self.liveness.last[i] = self.at;
        self.liveness.last_loop[i] = self.stack.last().copied().unwrap_or(u32::MAX);
        self.liveness.last_stretch[i] = self.stretch;
        if let Some(&outer) = self.stack.get(self.depth[i] as usize) {
            self.until[i] = outer;
        }
        if self.liveness.constants[i].is_some() {
            for (up, &l) in self.stack.iter().rev().enumerate() {
                *self.liveness.loops[l as usize].constants.entry(v).or_default() += 64 >> (2 * up.min(3));
            }
        }
    }

    fn access(&mut self, v: Val, count: u8) {
        let ty = self.func.ty(v);
        if count < ty.lanes && !self.stack.is_empty() {
            self.liveness.partial.insert((ty, count));
        }
    }

    fn enter(&mut self) {
        if let Some(&outer) = self.stack.last() {
            self.liveness.loops[outer as usize].innermost = false;
        }
        self.stack.push(self.liveness.loops.len() as u32);
        self.liveness.loops.push(Loop { innermost: true, span: (self.at, 0), ..Loop::default() });
        self.stretch += 1;
    }

    fn leave(&mut self) {
        self.at += 1;
        let l = self.stack.pop().expect("entered");
        self.liveness.loops[l as usize].span.1 = self.at;
        self.stretch += 1;
    }

    fn body(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.at += 1;
            match stmt {
                Stmt::Let(v, op) => {
                    op.operands(|o| self.use_(o));
                    self.def(*v);
                    match op {
                        Op::Const(bits) => self.liveness.constants[v.0 as usize] = Some(*bits),
                        Op::Load(_, _, count) => {
                            self.loads[v.0 as usize] = true;
                            self.access(*v, *count);
                        }
                        _ => {}
                    }
                }
                Stmt::Store { ptr, val, count, .. } => {
                    self.access(*val, *count);
                    self.use_(*ptr);
                    self.use_(*val);
                    self.stretch += 1;
                }
                Stmt::Prefetch { ptr, .. } => self.use_(*ptr),
                Stmt::For { iv, start, end, carried, body, .. } => {
                    self.use_(*start);
                    self.use_(*end);
                    carried.iter().for_each(|c| self.use_(c.init));
                    self.enter();
                    self.def(*iv);
                    carried.iter().for_each(|c| self.def(c.param));
                    self.body(body);
                    self.at += 1;
                    carried.iter().for_each(|c| self.use_(c.next));
                    self.leave();
                    carried.iter().for_each(|c| self.def(c.result));
                }
                Stmt::While { carried, head, cond, body } => {
                    carried.iter().for_each(|c| self.use_(c.init));
                    self.enter();
                    carried.iter().for_each(|c| self.def(c.param));
                    self.body(head);
                    self.at += 1;
                    self.use_(*cond);
                    self.stretch += 1;
                    self.body(body);
                    self.at += 1;
                    // Parameters are also the results: they outlive the body's end.
                    carried.iter().for_each(|c| self.use_(c.next));
                    carried.iter().for_each(|c| self.use_(c.param));
                    self.leave();
                    carried.iter().for_each(|c| self.def(c.result));
                }
                Stmt::If { cond, then, otherwise, results } => {
                    self.use_(*cond);
                    self.stretch += 1;
                    self.body(then);
                    self.at += 1;
                    results.iter().for_each(|r| self.use_(r.1));
                    self.stretch += 1;
                    self.body(otherwise);
                    self.at += 1;
                    results.iter().for_each(|r| self.use_(r.2));
                    self.stretch += 1;
                    results.iter().for_each(|r| self.def(r.0));
                }
                Stmt::Fail(_) => {}
            }
        }
    }

    /// Counts the vector registers in use at each statement and takes the maximum a loop.
    fn pressures(&mut self, register: usize) {
        let mut change = vec![0i32; self.at as usize + 2];
        for (i, ty) in self.func.types.iter().enumerate() {
            let vector = ty.is_vector() || ty.elem.is_float();
            let folded = self.loads[i] && ty.bytes() >= 16 && self.liveness.movable(Val(i as u32));
            if !vector || folded || self.liveness.constants[i].is_some() || self.liveness.last[i] == u32::MAX {
                continue;
            }
            let end = match self.until[i] {
                u32::MAX => self.liveness.last[i],
                l => self.liveness.last[i].max(self.liveness.loops[l as usize].span.1),
            };
            let registers = ty.bytes().div_ceil(register) as i32;
            change[self.def_at[i] as usize] += registers;
            change[end.max(self.def_at[i]) as usize] -= registers;
        }
        let mut now = 0;
        let in_use: Vec<i32> = change
            .iter()
            .map(|c| {
                now += c;
                now
            })
            .collect();
        for l in &mut self.liveness.loops {
            l.pressure = in_use[l.span.0 as usize..=l.span.1 as usize].iter().max().map_or(0, |&m| m.max(0) as usize);
        }
    }
}
