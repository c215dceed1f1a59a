//! Tensor files: `.npy` and `.npz` of NumPy, and `.pb` of ONNX.

use crate::Error;
use dnnc_frontend::{Limits, Port, read_tensor};
use dnnc_ir::{Tensor, TensorType, Type};
use npyz::{DType, TypeChar, WriterBuilder};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Reads the input files that a user names: `file` in the order of the model's inputs, `name=file` for one input, an `.npz` for several by name.
pub fn read_inputs(ports: &[Port], given: &[String], limits: &Limits) -> Result<Vec<Tensor>, Error> {
    let mut tensors: Vec<Option<Tensor>> = vec![None; ports.len()];
    let known = || ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    let by_name = |name: &str| {
        ports
            .iter()
            .position(|p| p.name == name)
            .ok_or_else(|| Error::Usage(format!("the model has no input `{name}`; it has {}", known())))
    };
    for text in given {
        let (slot, path) = match text.split_once('=') {
            Some((name, path)) if !Path::new(text).exists() => (Some(by_name(name)?), PathBuf::from(path)),
            _ => (None, PathBuf::from(text)),
        };
        if slot.is_none() && path.extension().is_some_and(|e| e == "npz") {
            for (name, tensor) in read_npz(&path, limits)? {
                tensors[by_name(&name)?] = Some(tensor);
            }
            continue;
        }
        let tensor = read(&path, limits)?;
        let slot = match slot {
            Some(slot) => slot,
            None => tensors
                .iter()
                .position(Option::is_none)
                .ok_or_else(|| Error::Usage(format!("{}: the model has {} inputs, all given", path.display(), ports.len())))?,
        };
        tensors[slot] = Some(tensor);
    }
    let missing: Vec<String> =
        ports.iter().zip(&tensors).filter(|(_, t)| t.is_none()).map(|(p, _)| format!("`{}` ({})", p.name, crate::describe(p))).collect();
    if !missing.is_empty() {
        return Err(Error::Usage(format!("no file is given for input {}", missing.join(", "))));
    }
    Ok(tensors.into_iter().flatten().collect())
}

/// Reads one tensor by the extension of its file.
pub fn read(path: &Path, limits: &Limits) -> Result<Tensor, Error> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => {
            let file = open(path)?;
            read_npy(BufReader::new(file), limits).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))
        }
        Some("pb") => read_tensor(path, limits).map(|(_, t)| t).map_err(|e| Error::Usage(format!("{}: {e}", path.display()))),
        _ => Err(Error::Usage(format!("{}: a tensor is read from .npy, .npz or .pb", path.display()))),
    }
}

/// Opens a regular file; others may be endless.
fn open(path: &Path) -> Result<std::fs::File, Error> {
    match path.metadata().map_err(|e| Error::file(path, e))?.is_file() {
        true => std::fs::File::open(path).map_err(|e| Error::file(path, e)),
        false => Err(Error::Usage(format!("{}: not a regular file", path.display()))),
    }
}

fn read_npz(path: &Path, limits: &Limits) -> Result<Vec<(String, Tensor)>, Error> {
    let bad = |e: String| Error::Usage(format!("{}: {e}", path.display()));
    let mut archive = zip::ZipArchive::new(BufReader::new(open(path)?)).map_err(|e| bad(e.to_string()))?;
    let mut out = vec![];
    for i in 0..archive.len() {
        let file = archive.by_index(i).map_err(|e| bad(e.to_string()))?;
        let name = file.name().map_err(|e| bad(e.to_string()))?.into_owned();
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        let tensor = read_npy(file, limits).map_err(|e| bad(format!("array `{name}`: {e}")))?;
        out.push((name, tensor));
    }
    Ok(out)
}

/// Most bytes of the header of an array, and the deepest nesting of its brackets.
const HEADER: (usize, usize) = (64 << 10, 8);

/// The bytes of an array up to its data. The parser is recursive, so the depth of the nesting is checked here first.
fn header(reader: &mut impl Read) -> Result<Vec<u8>, String> {
    let cut = |_| "not a NumPy array: the header is cut short".to_string();
    let mut bytes = vec![0; 10];
    reader.read_exact(&mut bytes).map_err(cut)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("not a NumPy array".into());
    }
    let mut len = u64::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if bytes[6] > 1 {
        let mut high = [0; 2];
        reader.read_exact(&mut high).map_err(cut)?;
        bytes.extend(high);
        len |= u64::from(u16::from_le_bytes(high)) << 16;
    }
    if len > HEADER.0 as u64 {
        return Err(format!("not a NumPy array: a header of {len} bytes"));
    }
    let start = bytes.len();
    bytes.resize(start + len as usize, 0);
    reader.read_exact(&mut bytes[start..]).map_err(cut)?;
    let mut depth = 0usize;
    for byte in &bytes[start..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > HEADER.1 {
            return Err("not a NumPy array: brackets in the header are too deep".into());
        }
    }
    let text = String::from_utf8_lossy(&bytes[start..]);
    // The parser multiplies the dimensions without a check for overflow.
    let shape = text.split_once("shape").and_then(|(_, rest)| rest.split_once('(')?.1.split_once(')')).map_or("", |(sizes, _)| sizes);
    let numbers = shape.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    let product = numbers.map(|n| n.parse::<u64>().ok()).try_fold(1u64, |product, n| product.checked_mul(n?.max(1)));
    if product.is_none() {
        return Err(format!("shape ({shape}) is too large"));
    }
    Ok(bytes)
}

fn read_npy(mut reader: impl Read, limits: &Limits) -> Result<Tensor, String> {
    let header = header(&mut reader)?;
    let file = npyz::NpyFile::new(std::io::Cursor::new(header).chain(reader)).map_err(|e| e.to_string())?;
    let width = file.dtype().num_bytes().unwrap_or(1).max(1);
    let bytes = file.shape().iter().try_fold(width as u64, |n, &d| n.checked_mul(d.max(1)));
    if bytes.is_none_or(|n| n > limits.tensor_bytes as u64) {
        let (shape, most) = (file.shape(), limits.tensor_bytes);
        return Err(format!("shape {shape:?} is too large: the limit is {most} bytes (--max-tensor)"));
    }
    from_npy(file)
}

fn from_npy<R: Read>(file: npyz::NpyFile<R>) -> Result<Tensor, String> {
    let shape: Vec<usize> = file.shape().iter().map(|&d| d as usize).collect();
    if file.order() == npyz::Order::Fortran && shape.len() > 1 {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let dtype = file.dtype();
    let DType::Plain(plain) = &dtype else { return Err("records cannot be a tensor".into()) };
    macro_rules! take {
        ($rust:ty) => {{
            let values: Vec<$rust> = file.into_vec().map_err(|e| e.to_string())?;
            Tensor::new(shape, &values)
        }};
    }
    Ok(match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 4) => take!(f32),
        (TypeChar::Float, 8) => take!(f64),
        (TypeChar::Int, 1) => take!(i8),
        (TypeChar::Int, 2) => take!(i16),
        (TypeChar::Int, 4) => take!(i32),
        (TypeChar::Int, 8) => take!(i64),
        (TypeChar::Uint, 1) => take!(u8),
        (TypeChar::Uint, 2) => take!(u16),
        (TypeChar::Uint, 4) => take!(u32),
        (TypeChar::Uint, 8) => take!(u64),
        (TypeChar::Bool, 1) => {
            let values: Vec<bool> = file.into_vec().map_err(|e| e.to_string())?;
            let bytes: Vec<u8> = values.into_iter().map(u8::from).collect();
            Tensor::with_type(TensorType::new(Type::Bool, shape), &bytes)
        }
        _ => return Err(format!("arrays of {} are not read", dtype.descr())),
    })
}

/// Writes a tensor as `.npy` (element types that NumPy has) or `.pb`, by the extension.
pub fn write(path: &Path, name: &str, tensor: &Tensor) -> Result<(), Error> {
    if path.extension().is_some_and(|e| e == "pb") {
        return crate::files::write(path, &dnnc_frontend::encode_tensor(name, tensor));
    }
    let shape: Vec<u64> = tensor.shape().iter().map(|&d| d as u64).collect();
    let mut bytes = vec![];
    macro_rules! put {
        ($rust:ty) => {{
            let mut w =
                npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().map_err(|e| Error::file(path, e))?;
            w.extend(tensor.values::<$rust>().iter().copied()).map_err(|e| Error::file(path, e))?;
            w.finish().map_err(|e| Error::file(path, e))?;
        }};
    }
    match tensor.ty().ty {
        Type::F32 => put!(f32),
        Type::F64 => put!(f64),
        Type::I8 => put!(i8),
        Type::I16 => put!(i16),
        Type::I32 => put!(i32),
        Type::I64 => put!(i64),
        Type::U8 => put!(u8),
        Type::U16 => put!(u16),
        Type::U32 => put!(u32),
        Type::U64 => put!(u64),
        Type::Bool => {
            let mut w =
                npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd().map_err(|e| Error::file(path, e))?;
            w.extend(tensor.values::<u8>().iter().map(|&v| v != 0)).map_err(|e| Error::file(path, e))?;
            w.finish().map_err(|e| Error::file(path, e))?;
        }
        other => return Err(Error::Usage(format!("{}: NumPy has no type {other}; write .pb", path.display()))),
    }
    crate::files::write(path, &bytes)
}
