//! Machine instructions over virtual registers: lowering writes them, the register allocator reads them.

use super::forms::{Form, form};
use super::isa::IsaFeatures;
use super::view::View;
use iced_x86::{Code, OpKind};
use ra::{Operand, OperandConstraint, OperandKind, OperandPos, PReg, RegClass};
use regalloc2 as ra;
use std::collections::HashMap;

/// A virtual register: of class `Int` a general register, of class `Float` a vector register, of class `Vector` a mask register.
pub type V = ra::VReg;

/// What an address starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    Reg(V),
    /// An entry of the constant pool.
    Pool(u32),
    /// Nothing: index and displacement only.
    None,
}

/// A memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mem {
    pub base: Base,
    /// A register and its scale (1, 2, 4, 8).
    pub index: Option<(V, u8)>,
    pub disp: i32,
}

/// An operand of an instruction.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// Written.
    Def(V, View),
    /// Read.
    Use(V, View),
    /// Read and overwritten: the second register is the first one after it.
    Mod(V, V, View),
    /// The register of the first operand once more, not read: `vxorps d, d, d`.
    Again(View),
    Mem(Mem),
    /// One element in memory for every lane.
    Broadcast(Mem),
    /// The mask register of the instruction, and whether lanes whose bit is 0 become 0.
    Mask(V, bool),
    Imm(OpKind, i64),
    /// Read in, written to this hardware register.
    FixedUse(V, u8),
    FixedDef(V, u8),
    /// Read, and not shared with anything written.
    LateUse(V, View),
}

/// A vector register as an operand of 16 bytes (or the part of them that the instruction reads).
pub fn x(v: V) -> Arg {
    Arg::Use(v, View::X)
}

/// An immediate of an 8-bit operand field.
pub fn imm8(n: u8) -> Arg {
    Arg::Imm(OpKind::Immediate8, i64::from(n))
}

/// Condition codes by their encoding; `cc ^ 1` is the opposite.
pub mod cc {
    pub const B: u8 = 2;
    pub const AE: u8 = 3;
    pub const E: u8 = 4;
    pub const NE: u8 = 5;
    pub const BE: u8 = 6;
    pub const A: u8 = 7;
    pub const L: u8 = 12;
    pub const GE: u8 = 13;
    pub const LE: u8 = 14;
    pub const G: u8 = 15;
}

/// Hardware numbers of general registers.
pub mod gpr {
    pub const RAX: u8 = 0;
    pub const RDX: u8 = 2;
    /// Where System V passes integers.
    pub const PARAMS: [u8; 6] = [7, 6, 2, 1, 8, 9];
    pub const CALLER_SAVED: [u8; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];
    pub const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];
}

/// What an instruction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One of the machine's.
    Op(Code),
    /// Definitions of the parameters in registers.
    Entry,
    /// A parameter on the stack, by its number among those.
    StackParam(u32),
    /// `idiv` or `div` of rax (sign- or zero-extended into rdx) by the last operand.
    Divide { signed: bool, wide: bool },
    /// To a block, whose parameters get the operands.
    Jump(u32),
    /// To the first block if the condition holds, else to the second; neither has parameters.
    Branch(u8, u32, u32),
    /// Out of the function with a status.
    Ret(i32),
}

/// An instruction: a kind, its operands in encoding order, and a comparison that is emitted right before it.
#[derive(Clone, Copy, Debug)]
pub struct Inst {
    pub kind: Kind,
    /// Sets the flags for this instruction; takes the first `before_args` operands.
    pub before: Option<Code>,
    before_args: u16,
    first: u32,
    count: u16,
    pure: bool,
}

/// A block: instructions, ended by `Jump`, `Branch` or `Ret`.
#[derive(Default, Debug)]
pub struct Block {
    insts: (u32, u32),
    params: Vec<V>,
    succs: Vec<ra::Block>,
    preds: Vec<ra::Block>,
    /// The head of an innermost loop.
    pub align: bool,
}

/// A function under construction.
#[derive(Default)]
pub struct Mach {
    insts: Vec<Inst>,
    args: Vec<Arg>,
    blocks: Vec<Block>,
    /// Blocks in the order of their code.
    layout: Vec<u32>,
    registers: usize,
    pool: Vec<Vec<u8>>,
    pooled: HashMap<Vec<u8>, u32>,
}

impl Mach {
    /// A new register.
    pub fn fresh(&mut self, class: RegClass) -> V {
        self.registers += 1;
        V::new(self.registers - 1, class)
    }

    /// Adds an instruction to the open block.
    pub fn push(&mut self, kind: Kind, args: &[Arg]) {
        self.push_after(None, &[], kind, args);
    }

    /// Adds an instruction that reads the flags set by another.
    pub fn push_after(&mut self, before: Option<Code>, before_args: &[Arg], kind: Kind, args: &[Arg]) {
        let first = self.args.len() as u32;
        self.args.extend_from_slice(before_args);
        self.args.extend_from_slice(args);
        let writes = args.iter().any(|a| matches!(a, Arg::Def(..) | Arg::Mod(..) | Arg::FixedDef(..)));
        let pure = writes && matches!(kind, Kind::Op(_) | Kind::Divide { .. } | Kind::StackParam(_));
        let count = u16::try_from(before_args.len() + args.len()).expect("fewer than 65,536 operands");
        self.insts.push(Inst { kind, before, before_args: before_args.len() as u16, first, count, pure });
        if matches!(kind, Kind::Jump(_) | Kind::Branch(..) | Kind::Ret(_)) {
            let open = *self.layout.last().expect("a block is open") as usize;
            self.blocks[open].insts.1 = self.insts.len() as u32;
        }
    }

    /// A block to be filled later.
    pub fn block(&mut self, params: Vec<V>) -> u32 {
        self.blocks.push(Block { params, ..Block::default() });
        self.blocks.len() as u32 - 1
    }

    /// Opens a block; the one before must have ended.
    pub fn begin(&mut self, block: u32) {
        let at = self.insts.len() as u32;
        self.blocks[block as usize].insts = (at, at);
        self.layout.push(block);
    }

    /// Wants the block at the start of a fetch line.
    pub fn align(&mut self, block: u32) {
        self.blocks[block as usize].align = true;
    }

    /// The constant pool's entry with these bytes.
    pub fn pool(&mut self, bytes: Vec<u8>) -> Mem {
        let entry = match self.pooled.get(&bytes) {
            Some(&entry) => entry,
            None => {
                let entry = self.pool.len() as u32;
                self.pool.push(bytes.clone());
                self.pooled.insert(bytes, entry);
                entry
            }
        };
        Mem { base: Base::Pool(entry), index: None, disp: 0 }
    }

    /// Drops what is never used, numbers blocks in code order and lists operands for the allocator.
    pub fn finish(self, isa: IsaFeatures) -> Flow {
        let mut number = vec![u32::MAX; self.blocks.len()];
        for (i, &b) in self.layout.iter().enumerate() {
            number[b as usize] = i as u32;
        }
        let keep = self.live();
        let mut flow = Flow {
            isa,
            insts: vec![],
            args: self.args,
            blocks: vec![],
            operands: vec![],
            starts: vec![],
            passed: vec![],
            passed_starts: vec![],
            registers: self.registers,
            pool: self.pool,
        };
        let mut blocks: Vec<Block> = self.blocks;
        for &b in &self.layout {
            let mut block = std::mem::take(&mut blocks[b as usize]);
            let start = flow.insts.len() as u32;
            for i in block.insts.0..block.insts.1 {
                if !keep[i as usize] {
                    continue;
                }
                let mut inst = self.insts[i as usize];
                match &mut inst.kind {
                    Kind::Jump(to) => {
                        *to = number[*to as usize];
                        block.succs = vec![ra::Block::new(*to as usize)];
                    }
                    Kind::Branch(_, yes, no) => {
                        (*yes, *no) = (number[*yes as usize], number[*no as usize]);
                        block.succs = vec![ra::Block::new(*yes as usize), ra::Block::new(*no as usize)];
                    }
                    _ => {}
                }
                flow.operands_of(&inst);
                flow.insts.push(inst);
            }
            block.insts = (start, flow.insts.len() as u32);
            flow.blocks.push(block);
        }
        for b in 0..flow.blocks.len() {
            for s in flow.blocks[b].succs.clone() {
                flow.blocks[s.index()].preds.push(ra::Block::new(b));
            }
        }
        flow
    }

    /// Which instructions have an effect or a result that is used.
    fn live(&self) -> Vec<bool> {
        let mut used = vec![false; self.registers];
        let mut keep = vec![false; self.insts.len()];
        for &b in self.layout.iter().rev() {
            let (start, end) = self.blocks[b as usize].insts;
            for i in (start..end).rev() {
                let inst = &self.insts[i as usize];
                let args = &self.args[inst.first as usize..][..inst.count as usize];
                let needed = !inst.pure
                    || args.iter().any(|a| match a {
                        Arg::Def(d, _) | Arg::Mod(_, d, _) | Arg::FixedDef(d, _) => used[d.vreg()],
                        _ => false,
                    });
                if needed {
                    keep[i as usize] = true;
                    args.iter().for_each(|a| a.reads(|v| used[v.vreg()] = true));
                }
            }
        }
        keep
    }
}

impl Arg {
    /// Registers that are read.
    fn reads(&self, mut f: impl FnMut(V)) {
        match *self {
            Arg::Use(v, _) | Arg::Mod(v, ..) | Arg::FixedUse(v, _) | Arg::LateUse(v, _) | Arg::Mask(v, _) => f(v),
            Arg::Mem(mem) | Arg::Broadcast(mem) => {
                if let Base::Reg(v) = mem.base {
                    f(v);
                }
                if let Some((v, _)) = mem.index {
                    f(v);
                }
            }
            Arg::Def(..) | Arg::Again(_) | Arg::Imm(..) | Arg::FixedDef(..) => {}
        }
    }
}

/// A finished function over virtual registers.
pub struct Flow {
    pub isa: IsaFeatures,
    pub insts: Vec<Inst>,
    args: Vec<Arg>,
    pub blocks: Vec<Block>,
    /// Operands of all instructions, and where those of each start.
    operands: Vec<Operand>,
    starts: Vec<u32>,
    /// Arguments of jumps, and where those of each instruction start.
    passed: Vec<V>,
    passed_starts: Vec<u32>,
    registers: usize,
    pub pool: Vec<Vec<u8>>,
}

impl Flow {
    /// Operands of the instruction and of the comparison before it.
    pub fn args(&self, inst: &Inst) -> (&[Arg], &[Arg]) {
        self.args[inst.first as usize..][..inst.count as usize].split_at(inst.before_args as usize)
    }

    /// Instructions of a block.
    pub fn range(&self, block: usize) -> std::ops::Range<usize> {
        let (start, end) = self.blocks[block].insts;
        start as usize..end as usize
    }

    fn operands_of(&mut self, inst: &Inst) {
        self.starts.push(self.operands.len() as u32);
        self.passed_starts.push(self.passed.len() as u32);
        let args = &self.args[inst.first as usize..][..inst.count as usize];
        if matches!(inst.kind, Kind::Jump(_)) {
            args.iter().for_each(|a| a.reads(|v| self.passed.push(v)));
            return;
        }
        let start = self.operands.len();
        let int = |enc: u8| PReg::new(enc as usize, RegClass::Int);
        // An instruction without an EVEX form reaches the first sixteen registers only.
        let low = self.isa.registers > 16 && matches!(inst.kind, Kind::Op(code) if form(code).is_some_and(Form::is_vex_only));
        let any = |v: V| if low && v.class() == RegClass::Float { OperandConstraint::Limit(16) } else { OperandConstraint::Reg };
        let used = |v: V| Operand::new(v, any(v), OperandKind::Use, OperandPos::Early);
        for arg in args {
            match *arg {
                Arg::Def(v, _) => self.operands.push(Operand::new(v, any(v), OperandKind::Def, OperandPos::Late)),
                Arg::Mod(from, to, _) => {
                    let at = self.operands.len() - start;
                    self.operands.push(used(from));
                    self.operands.push(Operand::reg_reuse_def(to, at));
                }
                Arg::FixedUse(v, enc) => self.operands.push(Operand::reg_fixed_use(v, int(enc))),
                Arg::FixedDef(v, enc) => self.operands.push(Operand::reg_fixed_def(v, int(enc))),
                Arg::LateUse(v, _) => self.operands.push(Operand::reg_use_at_end(v)),
                Arg::Use(..) | Arg::Mem(_) | Arg::Broadcast(_) | Arg::Mask(..) => arg.reads(|v| self.operands.push(used(v))),
                Arg::Again(_) | Arg::Imm(..) => {}
            }
        }
    }

    fn slice<'a, T>(all: &'a [T], starts: &[u32], i: usize) -> &'a [T] {
        let end = starts.get(i + 1).map_or(all.len(), |&e| e as usize);
        &all[starts[i] as usize..end]
    }
}

impl ra::Function for Flow {
    fn num_insts(&self) -> usize {
        self.insts.len()
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn entry_block(&self) -> ra::Block {
        ra::Block::new(0)
    }

    fn block_insns(&self, block: ra::Block) -> ra::InstRange {
        let range = self.range(block.index());
        ra::InstRange::new(ra::Inst::new(range.start), ra::Inst::new(range.end))
    }

    fn block_succs(&self, block: ra::Block) -> &[ra::Block] {
        &self.blocks[block.index()].succs
    }

    fn block_preds(&self, block: ra::Block) -> &[ra::Block] {
        &self.blocks[block.index()].preds
    }

    fn block_params(&self, block: ra::Block) -> &[V] {
        &self.blocks[block.index()].params
    }

    fn is_ret(&self, inst: ra::Inst) -> bool {
        matches!(self.insts[inst.index()].kind, Kind::Ret(_))
    }

    fn is_branch(&self, inst: ra::Inst) -> bool {
        matches!(self.insts[inst.index()].kind, Kind::Jump(_) | Kind::Branch(..))
    }

    fn branch_blockparams(&self, _: ra::Block, inst: ra::Inst, _: usize) -> &[V] {
        Flow::slice(&self.passed, &self.passed_starts, inst.index())
    }

    fn inst_operands(&self, inst: ra::Inst) -> &[Operand] {
        Flow::slice(&self.operands, &self.starts, inst.index())
    }

    fn inst_clobbers(&self, _: ra::Inst) -> ra::PRegSet {
        ra::PRegSet::empty()
    }

    fn num_vregs(&self) -> usize {
        self.registers
    }

    fn spillslot_size(&self, class: RegClass) -> usize {
        match class {
            RegClass::Int | RegClass::Vector => 1,
            RegClass::Float => self.isa.bytes / 8,
        }
    }
}
