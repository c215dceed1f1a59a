//! A [`Program`] to functions of a module: the kernels by their bytes, and the entries that call them.
//!
//! The entries are always Cranelift's: they are calls, loops over tasks and branches, a few instructions a step.

use cranelift_codegen::Context;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, FuncRef, Function, InstBuilder, MemFlagsData, SigRef, Signature, StackSlot, StackSlotData, StackSlotKind,
};
use cranelift_codegen::ir::{UserFuncName, Value};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module};
use dnnc_kir::program::{ALIGN, Call, Loc, Program, Step};
use dnnc_runtime::abi;

/// Functions of a program in a module.
pub(crate) struct Entries {
    /// `<name>_run`.
    pub run: FuncId,
    /// `<name>_run_parallel`.
    pub parallel: Option<FuncId>,
    /// `<name>_run_profiled`.
    pub profiled: Option<FuncId>,
    /// Bytes of their code.
    pub code_bytes: usize,
}

/// Where the entries find the constants.
pub(crate) enum Constants {
    /// Each at an offset into read-only data of the module.
    Data(DataId, Vec<usize>),
    /// Each at an address in this process.
    Addresses(Vec<u64>),
}

/// What a module shall hold beside `<name>_run`.
pub(crate) struct Wanted {
    /// Who sees the functions.
    pub linkage: Linkage,
    pub parallel: bool,
    pub profiled: bool,
}

/// Defines kernels by their machine code, each with the number of its pointers.
pub(crate) fn define_kernels<'a, M: Module>(
    module: &mut M,
    name: &str,
    code: impl IntoIterator<Item = (usize, &'a [u8])>,
) -> Result<Vec<FuncId>, String> {
    let text = |e: cranelift_module::ModuleError| e.to_string();
    let define = |(i, (pointers, bytes)): (usize, (usize, &[u8]))| {
        let id = module.declare_function(&format!("{name}_kernel_{i}"), Linkage::Local, &kernel_signature(pointers)).map_err(text)?;
        module.define_function_bytes(id, ALIGN as u64, bytes, &[]).map_err(text)?;
        Ok(id)
    };
    code.into_iter().enumerate().map(define).collect()
}

/// Defines read-only data.
pub(crate) fn define_data<M: Module>(module: &mut M, name: &str, bytes: Vec<u8>) -> Result<DataId, String> {
    let text = |e: cranelift_module::ModuleError| e.to_string();
    let id = module.declare_data(name, Linkage::Local, false, false).map_err(text)?;
    let mut description = DataDescription::new();
    description.set_align(ALIGN as u64);
    description.define(bytes.into_boxed_slice());
    module.define_data(id, &description).map_err(text)?;
    Ok(id)
}

/// Defines the entries of a program, whose names begin with `name`; `kernels` are those of the program, in its order.
pub(crate) fn define<M: Module>(
    module: &mut M,
    program: &Program,
    name: &str,
    kernels: Vec<FuncId>,
    constants: Constants,
    wanted: Wanted,
) -> Result<Entries, String> {
    let mut maker = Maker { module, program, name, kernels, constants, linkage: wanted.linkage, bodies: 0, parts: 0, code_bytes: 0 };
    let run = maker.entry("run", Form::Serial)?;
    let parallel = wanted.parallel.then(|| maker.entry("run_parallel", Form::Parallel)).transpose()?;
    let profiled = wanted.profiled.then(|| maker.entry("run_profiled", Form::Profiled)).transpose()?;
    Ok(Entries { run, parallel, profiled, code_bytes: maker.code_bytes })
}

/// A function made of what `body` writes into it.
pub(crate) fn written(
    config: TargetFrontendConfig,
    id: FuncId,
    signature: Signature,
    body: impl FnOnce(&mut FunctionBuilder, &[Value]) -> Result<(), String>,
) -> Result<Context, String> {
    let mut context = Context::for_function(Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature));
    let mut scratch = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut context.func, &mut scratch);
    let block = b.create_block();
    b.append_block_params_for_function_params(block);
    b.switch_to_block(block);
    let args = b.block_params(block).to_vec();
    body(&mut b, &args)?;
    b.seal_all_blocks();
    b.finalize(config);
    Ok(context)
}

/// `fn(ptr × n, task: i64) -> i32`, as both emitters make kernels.
fn kernel_signature(pointers: usize) -> Signature {
    let mut s = Signature::new(CallConv::SystemV);
    s.params = vec![AbiParam::new(I64); pointers + 1];
    s.returns = vec![AbiParam::new(I32)];
    s
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `(inputs, outputs, arena)`.
    Serial,
    /// `(inputs, outputs, arena, pool, parallel_for)`.
    Parallel,
    /// `(inputs, outputs, arena, pool, parallel_for, tick, clock)`: calls `tick(clock)` after each outer step.
    Profiled,
}

/// Steps of one function: allocation of registers takes time that grows with the square of their number.
const PART: usize = 1000;

/// Steps that stand in the function of a list: a branch or the body of a loop with more than [`PART`] of them has a function of its own.
fn weight(steps: &[Step]) -> usize {
    let inside = |body: &[Step]| Some(weight(body)).filter(|&w| w <= PART).unwrap_or(1);
    let of = |step: &Step| match step {
        Step::Call(_) => 1,
        Step::If { then, otherwise, .. } => 1 + inside(then) + inside(otherwise),
        Step::Loop { body, .. } => 1 + inside(body),
    };
    steps.iter().map(of).sum()
}

struct Maker<'a, M: Module> {
    module: &'a mut M,
    program: &'a Program,
    name: &'a str,
    kernels: Vec<FuncId>,
    constants: Constants,
    linkage: Linkage,
    /// Bodies of parallel loops made so far.
    bodies: usize,
    /// Functions of parts of steps made so far.
    parts: usize,
    /// Bytes of code made so far.
    code_bytes: usize,
}

/// Values that steps of one entry need.
struct Frame {
    inputs: Value,
    outputs: Value,
    arena: Value,
    /// Pool, function `parallel_for` and its signature.
    pool: Option<(Value, Value, SigRef)>,
    /// Clock, function `tick` and its signature.
    clock: Option<(Value, Value, SigRef)>,
    /// What the bodies of parallel loops read: inputs, outputs, arena, status.
    context: Option<StackSlot>,
    /// Takes a status and returns it.
    exit: Block,
}

impl<M: Module> Maker<'_, M> {
    fn convention(&self) -> CallConv {
        CallConv::triple_default(self.module.isa().triple())
    }

    fn signature(&self, form: Form) -> Signature {
        let mut signature = Signature::new(self.convention());
        let params = match form {
            Form::Serial => 3,
            Form::Parallel => 5,
            Form::Profiled => 7,
        };
        signature.params = vec![AbiParam::new(I64); params];
        signature.returns = vec![AbiParam::new(I32)];
        signature
    }

    fn entry(&mut self, suffix: &str, form: Form) -> Result<FuncId, String> {
        let program = self.program;
        self.list(&format!("{}_{suffix}", self.name), self.linkage, form, &program.steps)
    }

    /// A function of steps, which calls functions of parts where there are many.
    fn list(&mut self, name: &str, linkage: Linkage, form: Form, steps: &[Step]) -> Result<FuncId, String> {
        if weight(steps) <= PART {
            return self.steps(name, linkage, form, steps);
        }
        let mut parts = vec![];
        let mut rest = steps;
        while !rest.is_empty() {
            let mut sum = 0;
            let fit = rest.iter().take_while(|step| {
                sum += weight(std::slice::from_ref(step));
                sum <= PART
            });
            // One with two branches of nearly as much may be a little more.
            let (part, others) = rest.split_at(fit.count().max(1));
            let name = self.part_name();
            parts.push(self.steps(&name, Linkage::Local, form, part)?);
            rest = others;
        }
        let signature = self.signature(form);
        let id = self.module.declare_function(name, linkage, &signature).map_err(|e| e.to_string())?;
        self.function(id, signature, |maker, b, args| {
            let exit = b.create_block();
            let status = b.append_block_param(exit, I32);
            for &part in &parts {
                let part = maker.module.declare_func_in_func(part, b.func);
                maker.checked(b, exit, part, args);
            }
            let ok = b.ins().iconst(I32, 0);
            b.ins().jump(exit, &[BlockArg::from(ok)]);
            b.switch_to_block(exit);
            b.ins().return_(&[status]);
            Ok(())
        })?;
        Ok(id)
    }

    fn part_name(&mut self) -> String {
        self.parts += 1;
        format!("{}_part_{}", self.name, self.parts - 1)
    }

    /// A branch or the body of a loop.
    fn nested(&mut self, b: &mut FunctionBuilder, frame: &Frame, steps: &[Step]) -> Result<(), String> {
        if weight(steps) <= PART {
            return steps.iter().try_for_each(|step| self.step(b, frame, step));
        }
        let name = self.part_name();
        // Only outer steps are told to the clock.
        let form = if frame.pool.is_some() { Form::Parallel } else { Form::Serial };
        let part = self.list(&name, Linkage::Local, form, steps)?;
        let part = self.module.declare_func_in_func(part, b.func);
        let mut args = vec![frame.inputs, frame.outputs, frame.arena];
        args.extend(frame.pool.iter().flat_map(|(pool, parallel_for, _)| [*pool, *parallel_for]));
        self.checked(b, frame.exit, part, &args);
        Ok(())
    }

    /// A function of some steps.
    fn steps(&mut self, name: &str, linkage: Linkage, form: Form, steps: &[Step]) -> Result<FuncId, String> {
        let (convention, signature) = (self.convention(), self.signature(form));
        let id = self.module.declare_function(name, linkage, &signature).map_err(|e| e.to_string())?;
        self.function(id, signature, |maker, b, args| {
            let exit = b.create_block();
            b.append_block_param(exit, I32);
            let mut frame = Frame { inputs: args[0], outputs: args[1], arena: args[2], pool: None, clock: None, context: None, exit };
            if form != Form::Serial {
                // void parallel_for(void *pool, size_t n, void (*body)(void *ctx, size_t i), void *ctx)
                let mut s = Signature::new(convention);
                s.params = vec![AbiParam::new(I64); 4];
                frame.pool = Some((args[3], args[4], b.import_signature(s)));
                let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 32, 3));
                for (i, v) in [frame.inputs, frame.outputs, frame.arena].into_iter().enumerate() {
                    b.ins().stack_store(I64, v, slot, 8 * i as i32);
                }
                let zero = b.ins().iconst(I64, 0);
                b.ins().stack_store(I64, zero, slot, 24);
                frame.context = Some(slot);
            }
            if form == Form::Profiled {
                let mut s = Signature::new(convention);
                s.params = vec![AbiParam::new(I64)];
                frame.clock = Some((args[6], args[5], b.import_signature(s)));
            }
            for step in steps {
                maker.step(b, &frame, step)?;
                if let Some((clock, tick, signature)) = frame.clock {
                    b.ins().call_indirect(signature, tick, &[clock]);
                }
            }
            let ok = b.ins().iconst(I32, 0);
            b.ins().jump(exit, &[BlockArg::from(ok)]);
            b.switch_to_block(exit);
            let status = b.block_params(exit)[0];
            b.ins().return_(&[status]);
            Ok(())
        })?;
        Ok(id)
    }

    /// Defines a function from what `body` writes into it.
    fn function(
        &mut self,
        id: FuncId,
        signature: Signature,
        body: impl FnOnce(&mut Self, &mut FunctionBuilder, &[Value]) -> Result<(), String>,
    ) -> Result<(), String> {
        let config = self.module.isa().frontend_config();
        let mut context = written(config, id, signature, |b, args| body(self, b, args))?;
        self.module.define_function(id, &mut context).map_err(|e| format!("{e:?}"))?;
        self.code_bytes += context.compiled_code().map_or(0, |c| c.code_buffer().len());
        Ok(())
    }

    fn step(&mut self, b: &mut FunctionBuilder, frame: &Frame, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(call) if call.tasks > 1 && !call.alone && frame.pool.is_some() => self.parallel(b, frame, call),
            Step::Call(call) => {
                self.serial(b, frame, call);
                Ok(())
            }
            Step::If { cond, then, otherwise } => {
                let cond = self.load(b, frame, *cond, I8);
                let (yes, no, done) = (b.create_block(), b.create_block(), b.create_block());
                b.ins().brif(cond, yes, &[], no, &[]);
                for (block, steps) in [(yes, then), (no, otherwise)] {
                    b.switch_to_block(block);
                    self.nested(b, frame, steps)?;
                    b.ins().jump(done, &[]);
                }
                b.switch_to_block(done);
                Ok(())
            }
            Step::Loop { trip, cond, iter, max_trip, body } => {
                let trip = self.load(b, frame, *trip, I64);
                let most = b.ins().iconst(I64, *max_trip as i64);
                let bound = b.ins().smin(trip, most);
                let [head, test, inside, all, done] = std::array::from_fn(|_| b.create_block());
                let i = b.append_block_param(head, I64);
                let zero = b.ins().iconst(I64, 0);
                b.ins().jump(head, &[BlockArg::from(zero)]);
                b.switch_to_block(head);
                let more = b.ins().icmp(IntCC::SignedLessThan, i, bound);
                b.ins().brif(more, test, &[], all, &[]);
                b.switch_to_block(test);
                let go = self.load(b, frame, *cond, I8);
                b.ins().brif(go, inside, &[], done, &[]);
                // As many as there may be: an error if there should be more.
                b.switch_to_block(all);
                let go = self.load(b, frame, *cond, I8);
                let cut = b.ins().icmp(IntCC::SignedGreaterThan, trip, bound);
                let holds = b.ins().icmp_imm_s(IntCC::NotEqual, go, 0);
                let endless = b.ins().band(cut, holds);
                let status = b.ins().iconst(I32, i64::from(abi::ENDLESS));
                b.ins().brif(endless, frame.exit, &[BlockArg::from(status)], done, &[]);
                b.switch_to_block(inside);
                let at = self.address(b, frame, *iter);
                b.ins().store(MemFlagsData::trusted(), i, at, 0);
                self.nested(b, frame, body)?;
                let next = b.ins().iadd_imm_s(i, 1);
                b.ins().jump(head, &[BlockArg::from(next)]);
                b.switch_to_block(done);
                Ok(())
            }
        }
    }

    /// Calls a kernel for each of its tasks, one after the other.
    fn serial(&mut self, b: &mut FunctionBuilder, frame: &Frame, call: &Call) {
        let kernel = self.module.declare_func_in_func(self.kernels[call.kernel], b.func);
        let mut args: Vec<Value> = call.args.iter().map(|l| self.address(b, frame, *l)).collect();
        if call.tasks == 1 {
            args.push(b.ins().iconst(I64, 0));
            self.checked(b, frame.exit, kernel, &args);
            return;
        }
        let (head, done) = (b.create_block(), b.create_block());
        let task = b.append_block_param(head, I64);
        let zero = b.ins().iconst(I64, 0);
        b.ins().jump(head, &[BlockArg::from(zero)]);
        b.switch_to_block(head);
        args.push(task);
        self.checked(b, frame.exit, kernel, &args);
        let next = b.ins().iadd_imm_s(task, 1);
        let more = b.ins().icmp_imm_s(IntCC::SignedLessThan, next, call.tasks as i64);
        b.ins().brif(more, head, &[BlockArg::from(next)], done, &[]);
        b.switch_to_block(done);
    }

    /// Calls a kernel and leaves by `exit` when its status is not 0.
    fn checked(&mut self, b: &mut FunctionBuilder, exit: Block, kernel: FuncRef, args: &[Value]) {
        let result = b.ins().call(kernel, args);
        let status = b.inst_results(result)[0];
        let on = b.create_block();
        b.ins().brif(status, exit, &[BlockArg::from(status)], on, &[]);
        b.switch_to_block(on);
    }

    /// Hands the tasks of a call to the caller's pool.
    fn parallel(&mut self, b: &mut FunctionBuilder, frame: &Frame, call: &Call) -> Result<(), String> {
        let body = self.body(call)?;
        let (pool, parallel_for, signature) = frame.pool.expect("parallel() is called where there is a pool");
        let slot = frame.context.expect("made together with the pool");
        let body = self.module.declare_func_in_func(body, b.func);
        let body = b.ins().func_addr(I64, body);
        let count = b.ins().iconst(I64, call.tasks as i64);
        let context = b.ins().stack_addr(I64, slot, 0);
        b.ins().call_indirect(signature, parallel_for, &[pool, count, body, context]);
        let status = b.ins().stack_load(I64, I32, slot, 24);
        let on = b.create_block();
        b.ins().brif(status, frame.exit, &[BlockArg::from(status)], on, &[]);
        b.switch_to_block(on);
        Ok(())
    }

    /// `void body(void *ctx, size_t task)`: one task of a call.
    fn body(&mut self, call: &Call) -> Result<FuncId, String> {
        let mut signature = Signature::new(self.convention());
        signature.params = vec![AbiParam::new(I64); 2];
        let name = format!("{}_task_{}", self.name, self.bodies);
        self.bodies += 1;
        let id = self.module.declare_function(&name, Linkage::Local, &signature).map_err(|e| e.to_string())?;
        self.function(id, signature, |maker, b, args| {
            let (context, task) = (args[0], args[1]);
            let word = |b: &mut FunctionBuilder, i: i32| b.ins().load(I64, MemFlagsData::trusted(), context, 8 * i);
            let (inputs, outputs, arena) = (word(b, 0), word(b, 1), word(b, 2));
            let (failed, done) = (b.create_block(), b.create_block());
            let frame = Frame { inputs, outputs, arena, pool: None, clock: None, context: None, exit: failed };
            let status = b.append_block_param(failed, I32);
            let kernel = maker.module.declare_func_in_func(maker.kernels[call.kernel], b.func);
            let mut values: Vec<Value> = call.args.iter().map(|l| maker.address(b, &frame, *l)).collect();
            values.push(task);
            maker.checked(b, failed, kernel, &values);
            b.ins().jump(done, &[]);
            // Any failing task may leave its status: they are all reasons to stop.
            b.switch_to_block(failed);
            b.ins().store(MemFlagsData::trusted(), status, context, 24);
            b.ins().jump(done, &[]);
            b.switch_to_block(done);
            b.ins().return_(&[]);
            Ok(())
        })?;
        Ok(id)
    }

    fn address(&mut self, b: &mut FunctionBuilder, frame: &Frame, loc: Loc) -> Value {
        let (base, offset) = match loc {
            Loc::Input(i, offset) => (b.ins().load(I64, MemFlagsData::trusted(), frame.inputs, 8 * i as i32), offset),
            Loc::Output(i, offset) => (b.ins().load(I64, MemFlagsData::trusted(), frame.outputs, 8 * i as i32), offset),
            Loc::Arena(offset) => (frame.arena, offset),
            Loc::Const(i, offset) => match &self.constants {
                Constants::Addresses(at) => return b.ins().iconst(I64, (at[i] + offset as u64) as i64),
                Constants::Data(id, at) => {
                    let global = self.module.declare_data_in_func(*id, b.func);
                    (b.ins().symbol_value(I64, global), at[i] + offset)
                }
            },
        };
        if offset == 0 { base } else { b.ins().iadd_imm_s(base, offset as i64) }
    }

    fn load(&mut self, b: &mut FunctionBuilder, frame: &Frame, loc: Loc, ty: cranelift_codegen::ir::Type) -> Value {
        let at = self.address(b, frame, loc);
        b.ins().load(ty, MemFlagsData::new(), at, 0)
    }
}
