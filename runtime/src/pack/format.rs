//! The file: a page of header, code, constants, contents.
//!
//! ```text
//! 0           magic, version, where the parts lie, checksums of contents and header; zeros up to PAGE
//! PAGE        machine code, which refers to itself and to the constants by distance
//! data_at     constants, each model's on pages of its own, in the order in which its run uses them
//! contents_at JSON: the models, and a checksum of each group of pages from PAGE to here
//! ```
//! Every byte belongs to exactly one checksum (XXH64), so that no byte can change without being noticed.

use serde::{Deserialize, Serialize};
use std::hash::Hasher;

/// Bytes of a page of the file. On machines with larger pages of memory only the sharing of pages gets coarser.
pub const PAGE: usize = 4096;
/// Bytes that a checksum stands for: 64 pages, the least that is worth a read of its own.
pub const GROUP: usize = 256 << 10;
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"DNNCPACK";
/// Bytes of the header before its checksum.
const FIELDS: usize = 72;

/// An input or a result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Name of its element type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes of its elements.
    pub bytes: usize,
}

/// What a catalogue says of a variant.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rating {
    /// Measured accuracy, 0 to 1.
    pub accuracy: f64,
    /// Milliseconds of a run.
    pub ms: f64,
    /// Joules of a run; 0: not measured.
    #[serde(default)]
    pub joules: f64,
}

/// A model of a pack.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The name that all variants of a model share.
    pub model: String,
    /// Offset in the file of `run(inputs, outputs, arena)`.
    pub run: usize,
    /// Offset in the file of `run_parallel`.
    pub parallel: usize,
    /// Bytes of the arena.
    pub arena: usize,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Results.
    pub outputs: Vec<Port>,
    /// Ranges of the file that hold its constants, rising, without overlap.
    pub constants: Vec<(usize, usize)>,
    /// Predicted nanoseconds on one thread.
    pub ns: f64,
    /// What the catalogue says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
}

impl Entry {
    /// Bytes of its constants, those that are shared included.
    pub fn bytes(&self) -> usize {
        self.constants.iter().map(|r| r.1 - r.0).sum()
    }
}

/// What a pack holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// Triple of the machine.
    pub target: String,
    /// Features that it must have.
    pub features: Vec<String>,
    /// Bytes of memory that the constants in use may take, as `--ram` said; 0: no limit.
    pub ram: u64,
    /// The models.
    pub models: Vec<Entry>,
    /// Checksums of the groups from [`PAGE`] to the contents.
    pub groups: Vec<u64>,
}

/// Where the parts of a file lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// End of the code, which begins at [`PAGE`].
    pub text_end: usize,
    /// Begin of the constants.
    pub data_at: usize,
    /// Begin of the contents, where constants end.
    pub contents_at: usize,
    /// End of the contents and of the file.
    pub end: usize,
}

/// XXH64 of bytes, the same everywhere.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = twox_hash::XxHash64::with_seed(0);
    hasher.write(bytes);
    hasher.finish()
}

/// The bytes of a pack; `text` was linked to lie at [`PAGE`] and `data` at the page behind it.
pub fn write(mut contents: Contents, text: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0u8; PAGE];
    file.extend(text);
    file.resize(file.len().next_multiple_of(PAGE), 0);
    let data_at = file.len();
    file.extend(data);
    file.resize(file.len().next_multiple_of(PAGE), 0);
    let contents_at = file.len();
    contents.groups = file[PAGE..].chunks(GROUP).map(checksum).collect();
    let json = serde_json::to_vec(&contents).expect("contents have a JSON form");
    file.extend(&json);
    let fields = [PAGE + text.len(), data_at, contents_at, file.len(), PAGE, GROUP].map(|n| n as u64);
    let mut header = MAGIC.to_vec();
    header.extend(u64::from(VERSION).to_le_bytes());
    header.extend(fields.iter().flat_map(|n| n.to_le_bytes()));
    header.extend(checksum(&json).to_le_bytes());
    debug_assert_eq!(header.len(), FIELDS);
    file[..FIELDS].copy_from_slice(&header);
    let sum = checksum(&file[..PAGE - 8]);
    file[PAGE - 8..PAGE].copy_from_slice(&sum.to_le_bytes());
    file
}

/// Whether bytes begin as a pack does.
pub fn is_pack(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Reads header and contents of a file, and checks all but the groups: a sentence says what is wrong.
pub fn read(file: &[u8]) -> Result<(Layout, Contents), String> {
    if !is_pack(file) {
        return Err("not a pack".into());
    }
    let damaged = |what: &str| format!("the pack is damaged or cut short: {what}");
    if file.len() < PAGE {
        return Err(damaged("it ends within its header"));
    }
    let field = |i: usize| u64::from_le_bytes(file[8 + 8 * i..16 + 8 * i].try_into().expect("8 bytes"));
    if field(0) != u64::from(VERSION) {
        return Err(format!("a pack of version {}; this program reads version {VERSION}: make it again with `dnnc pack`", field(0)));
    }
    let stored = u64::from_le_bytes(file[PAGE - 8..PAGE].try_into().expect("8 bytes"));
    if stored != checksum(&file[..PAGE - 8]) {
        return Err(damaged("checksum of the header"));
    }
    let at = |i: usize| usize::try_from(field(i)).map_err(|_| damaged("a size in the header"));
    let layout = Layout { text_end: at(1)?, data_at: at(2)?, contents_at: at(3)?, end: at(4)? };
    if layout.end != file.len() {
        return Err(damaged(&format!("it has {} bytes and should have {}", file.len(), layout.end)));
    }
    let rising = [PAGE, layout.text_end, layout.data_at, layout.contents_at, layout.end];
    let aligned = layout.data_at.is_multiple_of(PAGE) && layout.contents_at.is_multiple_of(PAGE);
    if !rising.is_sorted() || !aligned || field(5) != PAGE as u64 || field(6) != GROUP as u64 {
        return Err(damaged("sizes in the header"));
    }
    let json = &file[layout.contents_at..];
    if field(7) != checksum(json) {
        return Err(damaged("checksum of the contents"));
    }
    let contents: Contents = serde_json::from_slice(json).map_err(|e| damaged(&e.to_string()))?;
    let inside = |m: &Entry| {
        let code = |at: usize| (PAGE..layout.text_end).contains(&at);
        let ranges = m.constants.iter().all(|r| layout.data_at <= r.0 && r.0 <= r.1 && r.1 <= layout.contents_at);
        code(m.run) && code(m.parallel) && ranges
    };
    if contents.groups.len() != (layout.contents_at - PAGE).div_ceil(GROUP) || !contents.models.iter().all(inside) {
        return Err(damaged("the contents do not fit the file"));
    }
    Ok((layout, contents))
}
