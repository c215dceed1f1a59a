//! Objects to be linked: ELF, Mach-O or COFF, as the target's triple says.

use crate::emit;
use crate::entry::{self, Constants, Wanted};
use crate::program::Program;
use cranelift_object::object::write::StandardSection;
use cranelift_object::{ObjectBuilder, ObjectModule};
use dnnc_targets::Target;

/// An object file.
pub struct ObjectFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Bytes of machine code in it, entries included.
    pub code_bytes: usize,
}

/// Compiles a program to an object file.
pub fn emit(program: &Program, target: &Target) -> Result<ObjectFile, String> {
    let code = emit::emit_all(&program.kernels, target)?;
    let isa = emit::isa(target, crate::kir::Tuning::AsWritten, true)?;
    let builder = ObjectBuilder::new(isa, program.name.as_str(), cranelift_module::default_libcall_names()).map_err(|e| e.to_string())?;
    let mut module = ObjectModule::new(builder);
    entry::define(&mut module, program, &code, Constants::Data, Wanted { parallel: true, profiled: false })?;
    let mut object = module.finish().object;
    let text = object.section_id(StandardSection::Text);
    let code_bytes = object.section(text).data().len();
    let bytes = object.write().map_err(|e| e.to_string())?;
    Ok(ObjectFile { bytes, code_bytes })
}

#[cfg(test)]
pub(crate) mod tests;
