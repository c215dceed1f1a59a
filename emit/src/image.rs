//! Several programs as one image of code and constants that runs wherever it is mapped: what a pack file holds.
//!
//! The object of the programs is linked here: its code refers to itself and to the constants by distance only, and both keep their distance in the file
//! and in memory. So nothing is left for the loader but to map the file.

use crate::object::Linkable;
use object::read::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use object::{RelocationEncoding, RelocationKind};

/// Code and constants, and where the programs are in them.
pub struct Image {
    /// Machine code; it begins at the offset that it was linked for.
    pub text: Vec<u8>,
    /// Constants, likewise.
    pub data: Vec<u8>,
    /// In the order in which the programs were added.
    pub entries: Vec<Entry>,
}

/// A program of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Offset of `run` in the code.
    pub run: usize,
    /// Offset of `run_parallel` in the code.
    pub parallel: usize,
    /// Offset in the data and length of each constant.
    pub constants: Vec<(usize, usize)>,
}

/// Links programs of x86-64: `text_at` is where the code will lie; the constants follow at the next multiple of `page`.
pub fn link(programs: &Linkable, text_at: usize, page: usize) -> Result<Image, String> {
    let file = object::File::parse(programs.object.as_slice()).map_err(|e| format!("the object of a pack: {e}"))?;
    let text = file.sections().find(|s| s.kind() == object::SectionKind::Text && s.size() > 0).ok_or("a pack without code")?;
    let mut code = text.data().map_err(|e| e.to_string())?.to_vec();
    let data_at = (text_at + code.len()).next_multiple_of(page);
    let mut data_section = None;
    for (at, relocation) in text.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return Err("a relocation without a symbol".into()) };
        let symbol = file.symbol_by_index(symbol).map_err(|e| e.to_string())?;
        let base = match symbol.section_index() {
            Some(section) if section == text.index() => text_at,
            Some(section) if *data_section.get_or_insert(section) == section => data_at,
            _ => return Err(format!("the code of a pack uses `{}`, which is not in it", symbol.name().unwrap_or("?"))),
        };
        let at = at as usize;
        let field = at..at + 4;
        if at < 2 || field.end > code.len() {
            return Err("a relocation outside the code".into());
        }
        // `mov symbol@GOTPCREL(%rip), %r` loads an address from a table; `lea symbol(%rip), %r` computes it, as linkers write it (x86-64 psABI, B.2).
        let loads = relocation.kind() == RelocationKind::GotRelative && code[at - 2] == 0x8b && code[at - 1] & 0xc7 == 0x05;
        let relative = matches!(relocation.kind(), RelocationKind::Relative | RelocationKind::PltRelative) || loads;
        let plain = matches!(
            relocation.encoding(),
            RelocationEncoding::Generic | RelocationEncoding::X86Branch | RelocationEncoding::X86RipRelative
        );
        if !relative || !plain || relocation.size() != 32 || file.architecture() != object::Architecture::X86_64 {
            return Err("packs of native code are made for x86-64 only; for other machines write an object (-o pack.o)".into());
        }
        let value = (base as i64 + symbol.address() as i64) + relocation.addend() - (text_at as i64 + at as i64);
        let value = i32::try_from(value).map_err(|_| "the constants of a pack are too far from its code: it holds at most 2 GB")?;
        code[field].copy_from_slice(&value.to_le_bytes());
        if loads {
            code[at - 2] = 0x8d;
        }
    }
    let data = match data_section {
        Some(section) => file.section_by_index(section).and_then(|s| s.data()).map_err(|e| e.to_string())?.to_vec(),
        None => vec![],
    };
    let address = |name: &str| {
        let symbol = file.symbols().find(|s| s.name() == Ok(name)).ok_or_else(|| format!("the pack has no function `{name}`"))?;
        Ok::<usize, String>(symbol.address() as usize)
    };
    let entry = |(name, constants): (&String, &Vec<(usize, usize)>)| {
        let (run, parallel) = (address(&format!("{name}_run"))?, address(&format!("{name}_run_parallel"))?);
        Ok(Entry { run, parallel, constants: constants.clone() })
    };
    let entries = programs.names.iter().zip(&programs.constants).map(entry).collect::<Result<_, String>>()?;
    Ok(Image { text: code, data, entries })
}
