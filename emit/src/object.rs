//! Objects to be linked: ELF, Mach-O or COFF, as the target's triple says.

use crate::dispatch::{self, Variant};
use crate::emitter;
use crate::entry::{self, Constants, Wanted};
use crate::variants::OpenDim;
use cranelift_module::Linkage;
use cranelift_object::object::write::StandardSection;
use cranelift_object::{ObjectBuilder, ObjectModule};
use dnnc_kir::program::{ALIGN, Loc, Program, calls};
use dnnc_runtime::constants::ContentIndex;
use dnnc_targets::Target;
use indexmap::IndexSet;

/// An object file.
pub struct ObjectFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Bytes of machine code in it, entries included.
    pub code_bytes: usize,
    /// Bytes of constants in it.
    pub weight_bytes: usize,
}

/// Compiles a program to an object file.
pub fn emit(program: &Program, target: &Target) -> Result<ObjectFile, String> {
    let mut pack = Pack::new(target);
    pack.add(program)?;
    pack.finish(&program.name, &[], &[program])
}

/// Several programs as one object, each with entries of its own name.
pub struct Linkable {
    /// The object file.
    pub object: Vec<u8>,
    /// The names of the programs, which their symbols begin with.
    pub names: Vec<String>,
    /// For each program where each of its constants lies in the data, and its length.
    pub constants: Vec<Vec<(usize, usize)>>,
    /// Bytes of machine code in it, entries included.
    pub code_bytes: usize,
    /// Bytes of constants in it.
    pub weight_bytes: usize,
}

/// What the programs of one object have in common: equal kernels and equal constants are in it once.
pub struct Pack<'a> {
    target: &'a Target,
    /// Number of pointers and machine code of each kernel.
    kernels: IndexSet<(usize, Vec<u8>)>,
    /// The constants, each at a multiple of [`ALIGN`].
    block: Vec<u8>,
    /// Offset and length in the block of each constant.
    stored: Vec<(usize, usize)>,
    /// By content: positions in `stored`.
    index: ContentIndex,
    weight_bytes: usize,
    /// For each program, which kernels are its, and where its constants lie.
    programs: Vec<(Vec<usize>, Vec<usize>)>,
}

impl<'a> Pack<'a> {
    /// A pack of nothing yet.
    pub fn new(target: &'a Target) -> Pack<'a> {
        Pack {
            target,
            kernels: IndexSet::new(),
            block: vec![],
            stored: vec![],
            index: ContentIndex::default(),
            weight_bytes: 0,
            programs: vec![],
        }
    }

    /// Takes up the kernels and constants of a program, which needs neither after this.
    pub fn add(&mut self, program: &Program) -> Result<(), String> {
        let code = emitter::emit_all(&program.kernels, self.target)?;
        let kernels =
            program.kernels.iter().zip(code).map(|(kernel, bytes)| self.kernels.insert_full((kernel.pointers, bytes)).0).collect();
        let constants = program.constants.iter().map(|data| self.place(data)).collect();
        self.programs.push((kernels, constants));
        Ok(())
    }

    /// As [`Pack::add`]; the constants that are new begin at a multiple of `page` and lie in the order in which the steps use them.
    pub fn add_model(&mut self, program: &Program, page: usize) -> Result<(), String> {
        let code = emitter::emit_all(&program.kernels, self.target)?;
        let kernels =
            program.kernels.iter().zip(code).map(|(kernel, bytes)| self.kernels.insert_full((kernel.pointers, bytes)).0).collect();
        self.block.resize(self.block.len().next_multiple_of(page), 0);
        let mut order: IndexSet<usize> = IndexSet::new();
        for call in calls(&program.steps) {
            order.extend(call.args.iter().filter_map(|a| if let Loc::Const(c, _) = a { Some(*c) } else { None }));
        }
        order.extend(0..program.constants.len());
        let mut constants = vec![0; program.constants.len()];
        for c in order {
            constants[c] = self.place(&program.constants[c]);
        }
        self.programs.push((kernels, constants));
        Ok(())
    }

    /// Stores these bytes in the block, once: their offset.
    fn place(&mut self, data: &[u8]) -> usize {
        let stored = |i: usize| &self.block[self.stored[i].0..][..self.stored[i].1];
        if let Some(i) = self.index.find(data, stored) {
            return self.stored[i].0;
        }
        let at = self.block.len().next_multiple_of(ALIGN);
        self.block.resize(at, 0);
        self.block.extend(data);
        self.weight_bytes += data.len();
        self.index.insert(data, self.stored.len());
        self.stored.push((at, data.len()));
        at
    }

    /// The object of the programs that were added, in their order, each under its name; their kernels and constants are not looked at.
    pub fn finish_models(self, names: &[String], programs: &[&Program]) -> Result<Linkable, String> {
        let isa = emitter::isa(self.target, dnnc_kir::Tuning::AsWritten, true)?;
        let builder = ObjectBuilder::new(isa, "pack", cranelift_module::default_libcall_names()).map_err(|e| e.to_string())?;
        let mut module = ObjectModule::new(builder);
        let code = self.kernels.iter().map(|(pointers, code)| (*pointers, code.as_slice()));
        let kernels = entry::define_kernels(&mut module, "dnnc_pack", code)?;
        let mut block = self.block;
        block.resize(block.len().next_multiple_of(ALIGN).max(1), 0);
        let data = entry::define_data(&mut module, "dnnc_pack_weights", block)?;
        let mut constants = vec![];
        for ((name, program), (own, offsets)) in names.iter().zip(programs).zip(self.programs) {
            let length = |at: &usize| self.stored.iter().rfind(|s| s.0 == *at).map_or(0, |s| s.1);
            constants.push(offsets.iter().map(|at| (*at, length(at))).collect());
            let own = own.into_iter().map(|k| kernels[k]).collect();
            let wanted = Wanted { linkage: Linkage::Export, parallel: true, profiled: false };
            entry::define(&mut module, program, name, own, Constants::Data(data, offsets), wanted)?;
        }
        let mut object = module.finish().object;
        let text = object.section_id(StandardSection::Text);
        let code_bytes = object.section(text).data().len();
        let object = object.write().map_err(|e| e.to_string())?;
        Ok(Linkable { object, names: names.to_vec(), constants, code_bytes, weight_bytes: self.weight_bytes })
    }

    /// The object of the programs that were added, in their order. With open dimensions there is a program for each combination of their sizes
    /// ([`crate::variants::sizes`]), and the entries pick one.
    pub fn finish(self, name: &str, dims: &[OpenDim], programs: &[&Program]) -> Result<ObjectFile, String> {
        let isa = emitter::isa(self.target, dnnc_kir::Tuning::AsWritten, true)?;
        let builder = ObjectBuilder::new(isa, name, cranelift_module::default_libcall_names()).map_err(|e| e.to_string())?;
        let mut module = ObjectModule::new(builder);
        let kernels = entry::define_kernels(&mut module, name, self.kernels.iter().map(|(pointers, code)| (*pointers, code.as_slice())))?;
        let mut block = self.block;
        block.resize(block.len().next_multiple_of(ALIGN).max(1), 0);
        let data = entry::define_data(&mut module, &format!("{name}_weights"), block)?;
        let mut variants = vec![];
        for (i, (program, (own, offsets))) in programs.iter().zip(self.programs).enumerate() {
            let own = own.into_iter().map(|k| kernels[k]).collect();
            let (prefix, linkage) =
                if dims.is_empty() { (name.to_string(), Linkage::Export) } else { (format!("{name}_variant_{i}"), Linkage::Local) };
            let wanted = Wanted { linkage, parallel: true, profiled: false };
            let made = entry::define(&mut module, program, &prefix, own, Constants::Data(data, offsets), wanted)?;
            variants.push(Variant { run: made.run, parallel: made.parallel.expect("it was asked for") });
        }
        if !dims.is_empty() {
            dispatch::define(&mut module, name, dims, programs, &variants)?;
        }
        let mut object = module.finish().object;
        let text = object.section_id(StandardSection::Text);
        let code_bytes = object.section(text).data().len();
        let bytes = object.write().map_err(|e| e.to_string())?;
        Ok(ObjectFile { bytes, code_bytes, weight_bytes: self.weight_bytes })
    }
}

#[cfg(test)]
pub(crate) mod tests;
