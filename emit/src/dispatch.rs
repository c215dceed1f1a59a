//! The functions of an object that holds several specialisations: they pick by the sizes they are given, and refuse all others.

use crate::entry::written;
use crate::variants::OpenDim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{AbiParam, BlockArg, InstBuilder, MemFlagsData, Signature, Type, Value};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, Switch};
use cranelift_module::{DataId, FuncId, Linkage, Module};
use dnnc_kir::program::Program;
use dnnc_runtime::abi;

/// The entries of one specialisation, which only the functions here call.
pub(crate) struct Variant {
    pub run: FuncId,
    pub parallel: FuncId,
}

/// Defines `<name>_run` and its companions, which take a pointer to the sizes first.
pub(crate) fn define<M: Module>(
    module: &mut M,
    name: &str,
    dims: &[OpenDim],
    programs: &[&Program],
    variants: &[Variant],
) -> Result<(), String> {
    let mut maker = Maker { module, name, dims };
    let select = maker.select()?;
    maker.function("variant", Linkage::Export, 1, I32, |maker, b, args| {
        let variant = maker.call(b, select, args);
        b.ins().return_(&[variant]);
        Ok(())
    })?;
    let runs: Vec<FuncId> = variants.iter().map(|v| v.run).collect();
    let parallel: Vec<FuncId> = variants.iter().map(|v| v.parallel).collect();
    maker.dispatch("run", 4, select, &runs)?;
    maker.dispatch("run_parallel", 6, select, &parallel)?;
    // A row a variant: bytes of the arena, of the inputs, of the results.
    let (inputs, outputs) = (programs[0].inputs.len(), programs[0].outputs.len());
    let row = |p: &&Program| -> Vec<usize> {
        let ports = p.inputs.iter().chain(&p.outputs).map(|(_, ty)| ty.bytes());
        std::iter::once(p.arena_bytes.max(1)).chain(ports).collect()
    };
    // Bytes as the target has them; all known ones are little-endian.
    let words: Vec<u8> = programs.iter().flat_map(row).flat_map(|n| (n as u64).to_le_bytes()).collect();
    let table = crate::entry::define_data(maker.module, &format!("{name}_sizes"), words)?;
    let table = Table { data: table, row: 1 + inputs + outputs };
    maker.bytes("arena_bytes", select, &table, 0, None)?;
    maker.bytes("input_bytes", select, &table, 1, Some(inputs))?;
    maker.bytes("output_bytes", select, &table, 1 + inputs, Some(outputs))
}

struct Table {
    data: DataId,
    /// Words a variant.
    row: usize,
}

struct Maker<'a, M: Module> {
    module: &'a mut M,
    name: &'a str,
    dims: &'a [OpenDim],
}

impl<M: Module> Maker<'_, M> {
    fn function(
        &mut self,
        suffix: &str,
        linkage: Linkage,
        params: usize,
        result: Type,
        body: impl FnOnce(&mut Self, &mut FunctionBuilder, &[Value]) -> Result<(), String>,
    ) -> Result<FuncId, String> {
        let mut signature = Signature::new(CallConv::triple_default(self.module.isa().triple()));
        signature.params = vec![AbiParam::new(I64); params];
        signature.returns = vec![AbiParam::new(result)];
        let name = format!("{}_{suffix}", self.name);
        let id = self.module.declare_function(&name, linkage, &signature).map_err(|e| e.to_string())?;
        let config = self.module.isa().frontend_config();
        let mut context = written(config, id, signature, |b, args| body(self, b, args))?;
        self.module.define_function(id, &mut context).map_err(|e| format!("{e:?}"))?;
        Ok(id)
    }

    fn call(&mut self, b: &mut FunctionBuilder, function: FuncId, args: &[Value]) -> Value {
        let function = self.module.declare_func_in_func(function, b.func);
        let call = b.ins().call(function, args);
        b.inst_results(call)[0]
    }

    /// `(dims)`: the number of the variant, −1 when there is none. A local function: calls of it need no table of a shared library.
    fn select(&mut self) -> Result<FuncId, String> {
        self.function("select", Linkage::Local, 1, I32, |maker, b, args| {
            let none = b.create_block();
            let mut variant = b.ins().iconst(I32, 0);
            for (i, dim) in maker.dims.iter().enumerate() {
                let size = b.ins().load(I64, MemFlagsData::trusted(), args[0], 8 * i as i32);
                let (hit, mut cases) = (b.create_block(), Switch::new());
                let place = b.append_block_param(hit, I32);
                let blocks: Vec<_> = dim.sizes.iter().map(|_| b.create_block()).collect();
                for (&size, &block) in dim.sizes.iter().zip(&blocks) {
                    cases.set_entry(size as u128, block);
                }
                cases.emit(b, size, none);
                for (place, block) in blocks.into_iter().enumerate() {
                    b.switch_to_block(block);
                    let place = b.ins().iconst(I32, place as i64);
                    b.ins().jump(hit, &[BlockArg::from(place)]);
                }
                b.switch_to_block(hit);
                let scaled = b.ins().imul_imm_s(variant, dim.sizes.len() as i64);
                variant = b.ins().iadd(scaled, place);
            }
            b.ins().return_(&[variant]);
            b.switch_to_block(none);
            let minus = b.ins().iconst(I32, -1);
            b.ins().return_(&[minus]);
            Ok(())
        })
    }

    /// `(dims, …)`: what the variant's own function says of the other arguments.
    fn dispatch(&mut self, suffix: &str, params: usize, select: FuncId, targets: &[FuncId]) -> Result<FuncId, String> {
        self.function(suffix, Linkage::Export, params, I32, |maker, b, args| {
            let variant = maker.call(b, select, &args[..1]);
            let (none, mut cases) = (b.create_block(), Switch::new());
            let blocks: Vec<_> = targets.iter().map(|_| b.create_block()).collect();
            for (i, &block) in blocks.iter().enumerate() {
                cases.set_entry(i as u128, block);
            }
            cases.emit(b, variant, none);
            for (&target, block) in targets.iter().zip(blocks) {
                b.switch_to_block(block);
                let status = maker.call(b, target, &args[1..]);
                b.ins().return_(&[status]);
            }
            b.switch_to_block(none);
            let refused = b.ins().iconst(I32, i64::from(abi::DIMS));
            b.ins().return_(&[refused]);
            Ok(())
        })
    }

    /// `(dims)` or `(dims, index)` with an index below `count`: a word of the variant's row from column `first`; 0 when there is none.
    fn bytes(&mut self, suffix: &str, select: FuncId, table: &Table, first: usize, count: Option<usize>) -> Result<(), String> {
        let params = 1 + usize::from(count.is_some());
        self.function(suffix, Linkage::Export, params, I64, |maker, b, args| {
            let (none, there, found) = (b.create_block(), b.create_block(), b.create_block());
            let variant = maker.call(b, select, &args[..1]);
            let outside = b.ins().icmp_imm_s(IntCC::SignedLessThan, variant, 0);
            b.ins().brif(outside, none, &[], there, &[]);
            b.switch_to_block(there);
            let variant = b.ins().uextend(I64, variant);
            let row = b.ins().imul_imm_s(variant, table.row as i64);
            let mut column = b.ins().iadd_imm_s(row, first as i64);
            if let Some(count) = count {
                column = b.ins().iadd(column, args[1]);
                let count = b.ins().iconst(I64, count as i64);
                let inside = b.ins().icmp(IntCC::UnsignedLessThan, args[1], count);
                b.ins().brif(inside, found, &[], none, &[]);
            } else {
                b.ins().jump(found, &[]);
            }
            b.switch_to_block(found);
            let data = maker.module.declare_data_in_func(table.data, b.func);
            let start = b.ins().symbol_value(I64, data);
            let offset = b.ins().imul_imm_s(column, 8);
            let at = b.ins().iadd(start, offset);
            let bytes = b.ins().load(I64, MemFlagsData::trusted(), at, 0);
            b.ins().return_(&[bytes]);
            b.switch_to_block(none);
            let zero = b.ins().iconst(I64, 0);
            b.ins().return_(&[zero]);
            Ok(())
        })?;
        Ok(())
    }
}
