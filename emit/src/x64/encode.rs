//! Allocated instructions to bytes: forms of instructions, frame, jumps, alignment, constant pool.

use super::forms::form;
use super::mach::{Arg, Base, Flow, Kind, Mem, gpr};
use super::view::View;
use iced_x86::{Code, Encoder, Instruction, OpKind, Register};
use ra::{Allocation, Edit, InstOrEdit, PReg, PRegSet, RegClass};
use regalloc2 as ra;

/// Gives registers to a function and encodes it.
pub fn encode(flow: &Flow) -> Result<Vec<u8>, String> {
    let allocated = ra::run(flow, &environment(flow.isa.registers), &ra::RegallocOptions::default())
        .map_err(|e| format!("register allocation: {e}"))?;
    let mut out = Encode::new(flow, &allocated);
    out.prologue()?;
    for block in 0..flow.blocks.len() {
        out.block(block)?;
    }
    Ok(out.finish())
}

/// The registers: all but rsp, callee-saved ones last; mask registers but the first, which means no mask.
fn environment(vectors: usize) -> ra::MachineEnv {
    let set = |encs: &[u8]| encs.iter().fold(PRegSet::empty(), |s, &e| s.with(PReg::new(e as usize, RegClass::Int)));
    let vectors = (0..vectors).fold(PRegSet::empty(), |s, e| s.with(PReg::new(e, RegClass::Float)));
    let masks = (1..8).fold(PRegSet::empty(), |s, e| s.with(PReg::new(e, RegClass::Vector)));
    ra::MachineEnv {
        preferred_regs_by_class: [set(&gpr::CALLER_SAVED), vectors, masks],
        non_preferred_regs_by_class: [set(&gpr::CALLEE_SAVED), PRegSet::empty(), PRegSet::empty()],
        scratch_by_class: [None; 3],
        fixed_stack_slots: vec![],
    }
}

struct Encode<'a> {
    flow: &'a Flow,
    allocated: &'a ra::Output,
    code: Vec<u8>,
    encoder: Encoder,
    /// Where blocks start, as far as known, and 32-bit distances to patch: (place, block).
    starts: Vec<Option<usize>>,
    jumps: Vec<(usize, usize)>,
    /// 32-bit distances into the pool: (place, end of instruction, entry).
    pooled: Vec<(usize, usize, usize)>,
    /// Blocks that are a jump and nothing else.
    threaded: Vec<Option<usize>>,
    saved: Vec<u8>,
    /// Bytes below the saved registers.
    frame: usize,
    /// Where the unaligned stack pointer is kept, if the frame is aligned for vectors.
    kept: Option<usize>,
}

impl<'a> Encode<'a> {
    fn new(flow: &'a Flow, allocated: &'a ra::Output) -> Encode<'a> {
        let mut written = PRegSet::empty();
        let mut vectors_spilled = false;
        let mut edited = vec![false; flow.blocks.len()];
        let mut block = 0;
        allocated.allocs.iter().filter_map(|a| a.as_reg()).for_each(|r| written.add(r));
        for (point, Edit::Move { from, to }) in &allocated.edits {
            let (from, to) = (from.as_reg(), to.as_reg());
            vectors_spilled |= [from, to].iter().flatten().any(|r| r.class() == RegClass::Float) && (from.is_none() || to.is_none());
            to.into_iter().for_each(|r| written.add(r));
            while !flow.range(block).contains(&point.inst().index()) {
                block += 1;
            }
            edited[block] = true;
        }
        let saved = gpr::CALLEE_SAVED.into_iter().filter(|&e| written.contains(PReg::new(e as usize, RegClass::Int))).collect();
        let threaded = (0..flow.blocks.len())
            .map(|b| match flow.insts[flow.range(b).start].kind {
                Kind::Jump(to) if !edited[b] && b > 0 => Some(to as usize),
                _ => None,
            })
            .collect();
        let (slots, align) = (allocated.num_spillslots * 8, flow.isa.bytes);
        let (frame, kept) =
            if vectors_spilled { (slots.next_multiple_of(align) + align, Some(slots.next_multiple_of(align))) } else { (slots, None) };
        let encoder = Encoder::new(64);
        let starts = vec![None; flow.blocks.len()];
        Encode { flow, allocated, code: vec![], encoder, starts, jumps: vec![], pooled: vec![], threaded, saved, frame, kept }
    }

    fn prologue(&mut self) -> Result<(), String> {
        for r in self.saved.clone() {
            self.op(Code::Push_r64, &[Place::Reg(register(r, View::Q))])?;
        }
        let rsp = Place::Reg(Register::RSP);
        if let Some(kept) = self.kept {
            self.op(Code::Mov_r64_rm64, &[Place::Reg(Register::RAX), rsp])?;
            self.op(Code::Sub_rm64_imm32, &[rsp, Place::Imm(OpKind::Immediate32to64, self.frame as i64)])?;
            self.op(Code::And_rm64_imm8, &[rsp, Place::Imm(OpKind::Immediate8to64, -(self.flow.isa.bytes as i64))])?;
            self.op(Code::Mov_rm64_r64, &[stack(kept), Place::Reg(Register::RAX)])?;
        } else if self.frame > 0 {
            self.op(Code::Sub_rm64_imm32, &[rsp, Place::Imm(OpKind::Immediate32to64, self.frame as i64)])?;
        }
        Ok(())
    }

    fn epilogue(&mut self, status: i32) -> Result<(), String> {
        if status == 0 {
            self.op(Code::Xor_r32_rm32, &[Place::Reg(Register::EAX); 2])?;
        } else {
            self.op(Code::Mov_r32_imm32, &[Place::Reg(Register::EAX), Place::Imm(OpKind::Immediate32, i64::from(status))])?;
        }
        if let Some(kept) = self.kept {
            self.op(Code::Mov_r64_rm64, &[Place::Reg(Register::RSP), stack(kept)])?;
        } else if self.frame > 0 {
            self.op(Code::Add_rm64_imm32, &[Place::Reg(Register::RSP), Place::Imm(OpKind::Immediate32to64, self.frame as i64)])?;
        }
        for r in self.saved.clone().into_iter().rev() {
            self.op(Code::Pop_r64, &[Place::Reg(register(r, View::Q))])?;
        }
        self.op(Code::VEX_Vzeroupper, &[])?;
        self.op(Code::Retnq, &[])
    }

    fn block(&mut self, block: usize) -> Result<(), String> {
        if self.threaded[block].is_some() {
            return Ok(());
        }
        if self.flow.blocks[block].align {
            self.pad(self.flow.isa.bytes);
        }
        self.starts[block] = Some(self.code.len());
        let allocated = self.allocated;
        for step in allocated.block_insts_and_edits(self.flow, ra::Block::new(block)) {
            match step {
                InstOrEdit::Edit(Edit::Move { from, to }) => self.transfer(*from, *to)?,
                InstOrEdit::Inst(inst) => self.inst(block, inst)?,
            }
        }
        Ok(())
    }

    fn transfer(&mut self, from: Allocation, to: Allocation) -> Result<(), String> {
        let place = |a: Allocation| match (a.as_reg(), a.as_stack()) {
            (Some(r), _) => {
                let view = match r.class() {
                    RegClass::Int => View::Q,
                    RegClass::Float if self.flow.isa.bytes == 64 => View::Z,
                    RegClass::Float => View::Y,
                    RegClass::Vector => View::K,
                };
                Ok(Place::Reg(register(r.hw_enc() as u8, view)))
            }
            (_, Some(slot)) => Ok(stack(slot.index() * 8)),
            _ => Err("a value without a place".to_string()),
        };
        let class = [from, to].iter().find_map(|a| a.as_reg().map(|r| r.class()));
        let code = match (class, to.is_reg()) {
            (Some(RegClass::Float), true) => Code::VEX_Vmovaps_xmm_xmmm128,
            (Some(RegClass::Float), ..) => Code::VEX_Vmovaps_xmmm128_xmm,
            (Some(RegClass::Vector), true) => Code::VEX_Kmovq_kr_km64,
            (Some(RegClass::Vector), ..) => Code::VEX_Kmovq_m64_kr,
            (_, true) => Code::Mov_r64_rm64,
            (..) => Code::Mov_rm64_r64,
        };
        self.op(code, &[place(to)?, place(from)?])
    }

    fn inst(&mut self, block: usize, id: ra::Inst) -> Result<(), String> {
        let flow = self.flow;
        let inst = &flow.insts[id.index()];
        let (before, args) = flow.args(inst);
        let mut allocs = self.allocated.inst_allocs(id).iter().filter_map(|a| a.as_reg()).map(|r| r.hw_enc() as u8);
        let mut places = |args: &[Arg]| -> Vec<Place> {
            let mut first = None;
            args.iter()
                .map(|arg| {
                    let mut next = || allocs.next().expect("every operand was given a register");
                    match *arg {
                        Arg::Def(_, view) | Arg::Use(_, view) | Arg::LateUse(_, view) => {
                            let r = next();
                            first.get_or_insert(r);
                            Place::Reg(register(r, view))
                        }
                        Arg::Mod(_, _, view) => {
                            next();
                            Place::Reg(register(next(), view))
                        }
                        Arg::FixedUse(..) | Arg::FixedDef(..) => Place::Reg(register(next(), View::Q)),
                        Arg::Again(view) => Place::Reg(register(first.expect("an operand before"), view)),
                        Arg::Imm(kind, value) => Place::Imm(kind, value),
                        Arg::Mask(_, zero) => Place::Mask(register(next(), View::K), zero),
                        Arg::Mem(Mem { base, index, disp }) | Arg::Broadcast(Mem { base, index, disp }) => {
                            let (base, entry) = match base {
                                Base::Reg(_) => (register(next(), View::Q), None),
                                Base::Pool(entry) => (Register::RIP, Some(entry as usize)),
                                Base::None => (Register::None, None),
                            };
                            let index = index.map(|(_, scale)| (register(next(), View::Q), scale));
                            Place::Mem { base, index, disp, entry, broadcast: matches!(arg, Arg::Broadcast(_)) }
                        }
                    }
                })
                .collect()
        };
        if let Some(code) = inst.before {
            let before = places(before);
            self.op(code, &before)?;
        }
        match inst.kind {
            Kind::Op(code) => {
                let args = places(args);
                self.op(code, &args)
            }
            Kind::Entry => Ok(()),
            Kind::StackParam(k) => {
                let to = places(args)[0];
                let above = self.saved.len() * 8 + 8 + k as usize * 8;
                let (Some(kept), Place::Reg(r)) = (self.kept, to) else {
                    return self.op(Code::Mov_r64_rm64, &[to, stack(self.frame + above)]);
                };
                self.op(Code::Mov_r64_rm64, &[to, stack(kept)])?;
                self.op(Code::Mov_r64_rm64, &[to, Place::Mem { base: r, index: None, disp: above as i32, entry: None, broadcast: false }])
            }
            Kind::Divide { signed, wide } => {
                let divisor = *places(args).last().expect("a divisor");
                let edx = [Place::Reg(Register::EDX); 2];
                let (extend, divide) = match (signed, wide) {
                    (true, true) => (Code::Cqo, Code::Idiv_rm64),
                    (true, false) => (Code::Cdq, Code::Idiv_rm32),
                    (false, true) => (Code::Xor_r32_rm32, Code::Div_rm64),
                    (false, false) => (Code::Xor_r32_rm32, Code::Div_rm32),
                };
                self.op(extend, if signed { &[] } else { &edx })?;
                self.op(divide, &[divisor])
            }
            Kind::Jump(to) => {
                if self.target(to as usize) != self.next(block) {
                    self.jump(None, to as usize);
                }
                Ok(())
            }
            Kind::Branch(condition, yes, no) => {
                let (yes, no, next) = (yes as usize, no as usize, self.next(block));
                if self.target(yes) == next {
                    self.jump(Some(condition ^ 1), no);
                } else {
                    self.jump(Some(condition), yes);
                    if self.target(no) != next {
                        self.jump(None, no);
                    }
                }
                Ok(())
            }
            Kind::Ret(status) => self.epilogue(status),
        }
    }

    /// Where a jump to a block ends up.
    fn target(&self, mut block: usize) -> usize {
        while let Some(to) = self.threaded[block] {
            block = to;
        }
        block
    }

    /// The block whose code follows.
    fn next(&self, block: usize) -> usize {
        (block + 1..self.flow.blocks.len()).find(|&b| self.threaded[b].is_none()).unwrap_or(usize::MAX)
    }

    /// A jump, short where it is known to reach.
    fn jump(&mut self, condition: Option<u8>, block: usize) {
        let block = self.target(block);
        if let Some(start) = self.starts[block] {
            let distance = start as i64 - (self.code.len() as i64 + 2);
            if distance >= -128 {
                self.code.push(condition.map_or(0xEB, |c| 0x70 + c));
                self.code.push(distance as u8);
                return;
            }
        }
        match condition {
            Some(c) => self.code.extend([0x0F, 0x80 + c]),
            None => self.code.push(0xE9),
        }
        self.jumps.push((self.code.len(), block));
        self.code.extend([0; 4]);
    }

    /// Fills up with instructions that do nothing.
    fn pad(&mut self, align: usize) {
        const NOPS: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0F, 0x1F, 0x00],
            &[0x0F, 0x1F, 0x40, 0x00],
            &[0x0F, 0x1F, 0x44, 0x00, 0x00],
            &[0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00],
            &[0x0F, 0x1F, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x66, 0x0F, 0x1F, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        let mut gap = self.code.len().next_multiple_of(align) - self.code.len();
        while gap > 0 {
            let n = gap.min(NOPS.len());
            self.code.extend(NOPS[n - 1]);
            gap -= n;
        }
    }

    /// Encodes one machine instruction.
    fn op(&mut self, code: Code, args: &[Place]) -> Result<(), String> {
        let mut inst = Instruction::default();
        let code = chosen(code, args)?;
        inst.set_code(code);
        let at = self.code.len();
        let mut pooled = None;
        let mut masked = false;
        for (i, arg) in args.iter().enumerate() {
            let i = i as u32 - u32::from(masked);
            match *arg {
                Place::Mask(k, zero) => {
                    masked = true;
                    inst.set_op_mask(k);
                    inst.set_zeroing_masking(zero);
                }
                Place::Reg(r) => {
                    inst.set_op_kind(i, OpKind::Register);
                    inst.set_op_register(i, r);
                }
                Place::Imm(kind, value) => {
                    inst.set_op_kind(i, kind);
                    inst.set_immediate_i64(i, value);
                }
                Place::Mem { base, index, disp, entry, broadcast } => {
                    inst.set_is_broadcast(broadcast);
                    inst.set_op_kind(i, OpKind::Memory);
                    inst.set_memory_base(base);
                    if let Some((index, scale)) = index {
                        inst.set_memory_index(index);
                        inst.set_memory_index_scale(u32::from(scale));
                    }
                    if base == Register::RIP {
                        pooled = entry;
                        inst.set_memory_displ_size(8);
                        inst.set_memory_displacement64(at as u64);
                    } else {
                        let bare = disp == 0 && base != Register::None;
                        inst.set_memory_displ_size(u32::from(!bare) * if base == Register::None { 8 } else { 1 });
                        inst.set_memory_displacement64(disp as i64 as u64);
                    }
                }
            }
        }
        let length = self.encoder.encode(&inst, at as u64).map_err(|e| format!("{code:?}: {e}"))?;
        let mut bytes = self.encoder.take_buffer();
        self.code.extend_from_slice(&bytes);
        bytes.clear();
        self.encoder.set_buffer(bytes);
        if let Some(entry) = pooled {
            let place = at + self.encoder.get_constant_offsets().displacement_offset();
            self.pooled.push((place, at + length, entry));
        }
        Ok(())
    }

    /// Appends the pool, widest entries first, and fills in distances.
    fn finish(mut self) -> Vec<u8> {
        let pool = &self.flow.pool;
        let mut order: Vec<usize> = (0..pool.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(pool[i].len()), i));
        let mut places = vec![0; pool.len()];
        if let Some(&widest) = order.first() {
            let align = pool[widest].len();
            self.code.resize(self.code.len().next_multiple_of(align), 0xCC);
        }
        let mut used = vec![false; pool.len()];
        self.pooled.iter().for_each(|&(_, _, entry)| used[entry] = true);
        for i in order.into_iter().filter(|&i| used[i]) {
            places[i] = self.code.len();
            self.code.extend_from_slice(&pool[i]);
        }
        for (place, end, entry) in self.pooled {
            self.code[place..place + 4].copy_from_slice(&((places[entry] as i64 - end as i64) as i32).to_le_bytes());
        }
        for (place, block) in self.jumps {
            let start = self.starts[block].expect("every block was emitted");
            self.code[place..place + 4].copy_from_slice(&((start as i64 - (place as i64 + 4)) as i32).to_le_bytes());
        }
        self.code
    }
}

/// An operand with its register.
#[derive(Clone, Copy)]
enum Place {
    Reg(Register),
    Imm(OpKind, i64),
    Mem {
        base: Register,
        index: Option<(Register, u8)>,
        disp: i32,
        entry: Option<usize>,
        broadcast: bool,
    },
    /// The mask of the instruction, and whether the others become 0; no operand.
    Mask(Register, bool),
}

/// The code of an instruction on these operands: that of their width, as VEX where it can be.
fn chosen(code: Code, args: &[Place]) -> Result<Code, String> {
    let Some(form) = form(code) else { return Ok(code) };
    let (mut width, mut evex) = (View::X, false);
    for arg in args {
        match arg {
            Place::Reg(r) if r.is_zmm() => width = View::Z,
            Place::Reg(r) if r.is_ymm() && width == View::X => width = View::Y,
            Place::Mask(..) | Place::Mem { broadcast: true, .. } => evex = true,
            _ => {}
        }
        let beyond = |first: Register, r: Register| r as usize - first as usize > 15;
        evex |= match *arg {
            Place::Reg(r) if r.is_zmm() => beyond(Register::ZMM0, r),
            Place::Reg(r) if r.is_ymm() => beyond(Register::YMM0, r),
            Place::Reg(r) if r.is_xmm() => beyond(Register::XMM0, r),
            _ => false,
        };
    }
    form.code(width, evex).ok_or_else(|| format!("{code:?} has no form for its operands"))
}

fn stack(offset: usize) -> Place {
    Place::Mem { base: Register::RSP, index: None, disp: offset as i32, entry: None, broadcast: false }
}

fn register(enc: u8, view: View) -> Register {
    let first = match view {
        View::B if enc < 4 => Register::AL,
        View::B => return Register::SPL + (u32::from(enc) - 4),
        View::W => Register::AX,
        View::D => Register::EAX,
        View::Q => Register::RAX,
        View::X => Register::XMM0,
        View::Y => Register::YMM0,
        View::Z => Register::ZMM0,
        View::K => Register::K0,
    };
    first + u32::from(enc)
}
