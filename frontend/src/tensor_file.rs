//! Tensors as ONNX stores them (`TensorProto`), in model files and in `.pb` files of their own.

use crate::element::{element_type, type_code};
use crate::limits::Limits;
use crate::proto::{SparseTensorProto, TensorProto};
use dnnc_ir::{Tensor, TensorType, Type};
use prost::Message;
use prost::bytes::Bytes;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

/// Reads a tensor file: the tensor's name and the tensor. An error is a sentence that names the file.
pub fn read_tensor(path: &Path, limits: &Limits) -> Result<(String, Tensor), String> {
    let bytes = read_file(path, limits)?;
    let folder = path.parent();
    parse_tensor(bytes, folder, limits).map_err(|e| format!("{}: {e}", path.display()))
}

/// Decodes the bytes of a tensor file. An error is a sentence.
pub fn decode_tensor(bytes: &[u8], limits: &Limits) -> Result<(String, Tensor), String> {
    parse_tensor(Bytes::copy_from_slice(bytes), None, limits)
}

fn parse_tensor(bytes: Bytes, folder: Option<&Path>, limits: &Limits) -> Result<(String, Tensor), String> {
    let proto = TensorProto::decode(bytes).map_err(|e| format!("no tensor file: {e}"))?;
    let tensor = dense(&proto, folder, limits)?;
    Ok((proto.name, tensor))
}

/// Writes a tensor file under a name.
pub fn write_tensor(path: &Path, name: &str, tensor: &Tensor) -> Result<(), String> {
    std::fs::write(path, encode_tensor(name, tensor)).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// The bytes of a tensor file.
pub fn encode_tensor(name: &str, tensor: &Tensor) -> Vec<u8> {
    let ty = tensor.ty();
    let raw = match packed_bits(ty.ty) {
        8 => tensor.bytes().to_vec(),
        bits => {
            let (per_byte, mask) = (8 / bits, (1u8 << bits) - 1);
            let pack = |group: &[u8]| group.iter().enumerate().fold(0, |byte, (i, v)| byte | (v & mask) << (i * bits));
            tensor.bytes().chunks(per_byte).map(pack).collect()
        }
    };
    let dims = ty.shape.iter().map(|&d| d as i64).collect();
    TensorProto { dims, data_type: type_code(ty.ty), name: name.to_string(), raw_data: Some(raw.into()), ..Default::default() }
        .encode_to_vec()
}

/// Bits of an element narrower than a byte in its packed form; 8 for all others.
fn packed_bits(ty: Type) -> usize {
    match ty {
        Type::I4 | Type::U4 | Type::F4E2M1 => 4,
        Type::I2 | Type::U2 => 2,
        _ => 8,
    }
}

/// A file's bytes, if it is a regular file within the limit.
pub(crate) fn read_file(path: &Path, limits: &Limits) -> Result<Bytes, String> {
    let fail = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let meta = path.metadata().map_err(fail)?;
    // Opening a pipe would wait for who writes to it.
    if !meta.is_file() {
        return Err(format!("cannot read {}: not a file", path.display()));
    }
    let file = File::open(path).map_err(fail)?;
    if meta.len() > limits.file_bytes {
        return Err(format!("{} is too large: {} bytes, the limit is {} (--max-file)", path.display(), meta.len(), limits.file_bytes));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(limits.file_bytes).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes.into())
}

/// A tensor type of sizes from a file, within the limit.
pub(crate) fn tensor_type(code: i32, dims: &[i64], limits: &Limits) -> Result<TensorType, String> {
    let ty = element_type(code.into())?;
    let mut shape = Vec::with_capacity(dims.len());
    let mut bytes = ty.bytes();
    for &d in dims {
        let size = usize::try_from(d).map_err(|_| format!("negative dimension {d}"))?;
        bytes = bytes.checked_mul(size.max(1)).ok_or_else(|| format!("the product of the dimensions {dims:?} overflows"))?;
        shape.push(size);
    }
    if bytes > limits.constant_bytes {
        return Err(format!(
            "dimensions {dims:?} make it too large: {bytes} bytes, the limit is {} (--max-constant)",
            limits.constant_bytes
        ));
    }
    Ok(TensorType::new(ty, shape))
}

/// The dense tensor of a message. An error is a sentence that does not name the tensor.
///
/// `folder` is the folder of the model: external data is read from inside it only.
pub(crate) fn dense(proto: &TensorProto, folder: Option<&Path>, limits: &Limits) -> Result<Tensor, String> {
    let ty = tensor_type(proto.data_type, &proto.dims, limits)?;
    if proto.segment.is_some() {
        return Err("tensors in segments are not supported".into());
    }
    let fields = [
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("string_data", proto.string_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
    ];
    let filled: Vec<&str> = fields.iter().filter(|f| f.1 > 0).map(|f| f.0).collect();
    match proto.data_location {
        0 => {}
        1 if filled.is_empty() && proto.raw_data.as_ref().is_none_or(Bytes::is_empty) => {
            return from_raw(ty.clone(), &external(proto, &ty, folder)?);
        }
        1 => return Err("has data both in the file and in an external file".into()),
        other => return Err(format!("{other} is no data location")),
    }
    match (&proto.raw_data, &filled[..]) {
        (Some(raw), []) => from_raw(ty, raw),
        (Some(raw), [field]) if raw.is_empty() => from_field(ty, proto, field),
        (Some(_), [field, ..]) => Err(format!("has data both in raw_data and in {field}")),
        (None, [field]) => from_field(ty, proto, field),
        (None, []) if ty.is_empty() => Ok(Tensor::zeros(ty)),
        (None, []) => Err(format!("has no data; its size {:?} needs {} elements", ty.shape, ty.len())),
        (None, [a, b, ..]) => Err(format!("has data both in {a} and in {b}")),
    }
}

/// Bytes that the elements take in packed form.
fn raw_len(ty: &TensorType) -> usize {
    match packed_bits(ty.ty) {
        8 => ty.bytes(),
        bits => ty.len().div_ceil(8 / bits),
    }
}

fn from_raw(ty: TensorType, raw: &[u8]) -> Result<Tensor, String> {
    let want = raw_len(&ty);
    if raw.len() != want {
        return Err(format!("raw data has a length of {} bytes; type {ty} needs {want}", raw.len()));
    }
    let tensor = match packed_bits(ty.ty) {
        8 if ty.ty == Type::Bool => Tensor::from_bytes(ty, &raw.iter().map(|b| (*b != 0).into()).collect::<Vec<u8>>()),
        8 => Tensor::from_bytes(ty, raw),
        _ => {
            let elements = unpack(ty.ty, ty.len(), raw);
            Tensor::from_bytes(ty, &elements)
        }
    };
    tensor.ok_or_else(|| "raw data does not fit its type".into())
}

/// Elements of less than a byte, one per byte; signed ones are sign-extended.
fn unpack(ty: Type, len: usize, packed: &[u8]) -> Vec<u8> {
    let bits = packed_bits(ty);
    let per_byte = 8 / bits;
    let element = |i: usize| {
        let v = packed.get(i / per_byte).map_or(0, |b| b >> (i % per_byte * bits)) << (8 - bits);
        if ty.is_signed() { (v as i8 >> (8 - bits)) as u8 } else { v >> (8 - bits) }
    };
    (0..len).map(element).collect()
}

fn from_field(ty: TensorType, proto: &TensorProto, field: &str) -> Result<Tensor, String> {
    let (want, elements) = match ty.ty {
        Type::F32 => ("float_data", proto.float_data.len()),
        Type::F64 => ("double_data", proto.double_data.len()),
        Type::I64 => ("int64_data", proto.int64_data.len()),
        Type::U32 | Type::U64 => ("uint64_data", proto.uint64_data.len()),
        _ => ("int32_data", proto.int32_data.len()),
    };
    if field != want {
        return Err(format!("elements of type {} belong into {want}, not {field}", ty.ty));
    }
    let needed = if packed_bits(ty.ty) == 8 { ty.len() } else { raw_len(&ty) };
    if elements != needed {
        return Err(format!("{field} has a length of {elements}; size {:?} needs {needed}", ty.shape));
    }
    let narrow = |bits: u32| -> Result<Vec<i32>, String> {
        let (lo, hi) = (-(1i64 << (bits - 1)), (1i64 << bits) - 1);
        match proto.int32_data.iter().find(|v| !(lo..=hi).contains(&i64::from(**v))) {
            Some(v) => Err(format!("value {v} does not fit its type {}", ty.ty)),
            None => Ok(proto.int32_data.clone()),
        }
    };
    Ok(match ty.ty {
        Type::F32 => Tensor::with_type(ty, &proto.float_data),
        Type::F64 => Tensor::with_type(ty, &proto.double_data),
        Type::I64 => Tensor::with_type(ty, &proto.int64_data),
        Type::U64 => Tensor::with_type(ty, &proto.uint64_data),
        Type::U32 => {
            let values: Result<Vec<u32>, _> = proto.uint64_data.iter().map(|v| u32::try_from(*v)).collect();
            Tensor::with_type(ty, &values.map_err(|_| "a value does not fit its type u32")?)
        }
        Type::I32 => Tensor::with_type(ty, &proto.int32_data),
        Type::Bool => Tensor::with_type(ty, &proto.int32_data.iter().map(|v| u8::from(*v != 0)).collect::<Vec<_>>()),
        _ if ty.ty.bytes() == 2 => Tensor::with_type(ty.clone(), &narrow(16)?.iter().map(|v| *v as u16).collect::<Vec<_>>()),
        _ => {
            let bytes: Vec<u8> = narrow(8)?.iter().map(|v| *v as u8).collect();
            if packed_bits(ty.ty) == 8 {
                Tensor::with_type(ty, &bytes)
            } else {
                let elements = unpack(ty.ty, ty.len(), &bytes);
                Tensor::with_type(ty, &elements)
            }
        }
    })
}

/// The bytes of a tensor kept outside the model file.
fn external(proto: &TensorProto, ty: &TensorType, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let entry = |key: &str| proto.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| -> Result<Option<u64>, String> {
        entry(key).map(|v| v.trim().parse().map_err(|_| format!("external {key} {v:?} is no size"))).transpose()
    };
    let location = entry("location").filter(|l| !l.is_empty()).ok_or("external data without a location")?;
    let (offset, want) = (number("offset")?.unwrap_or(0), raw_len(ty) as u64);
    let length = number("length")?.unwrap_or(want);
    if length != want {
        return Err(format!("external data has a length of {length} bytes; type {ty} needs {want}"));
    }
    let folder = folder.ok_or("external data needs the folder of the model, and the model was not read from a file")?;
    let relative = Path::new(location);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain || location.contains('\\') || location.contains('\0') {
        return Err(format!("external data location {location:?} is not a path inside the folder of the model"));
    }
    let fail = |e: std::io::Error| format!("external data location {location:?}: {e}");
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let root = folder.canonicalize().map_err(fail)?;
    let path = root.join(relative).canonicalize().map_err(fail)?;
    if !path.starts_with(&root) {
        return Err(format!("external data location {location:?} leads outside the folder of the model"));
    }
    let meta = path.metadata().map_err(fail)?;
    if !meta.is_file() {
        return Err(format!("external data location {location:?} is not a file"));
    }
    let mut file = File::open(&path).map_err(fail)?;
    if offset.checked_add(length).is_none_or(|end| end > meta.len()) {
        return Err(format!("external data at offset {offset} with length {length} ends beyond its file of {} bytes", meta.len()));
    }
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// A sparse constant, written out.
pub(crate) fn sparse(proto: &SparseTensorProto, folder: Option<&Path>, limits: &Limits) -> Result<Tensor, String> {
    let values = proto.values.as_ref().ok_or("a sparse tensor without values")?;
    // Written out it takes more than the file does.
    let limits = &Limits { constant_bytes: limits.tensor_bytes, ..*limits };
    let ty = tensor_type(values.data_type, &proto.dims, limits)?;
    let values = dense(values, folder, limits)?;
    let n = values.len();
    if values.ty().rank() != 1 {
        return Err(format!("the values of a sparse tensor have rank {}, not 1", values.ty().rank()));
    }
    let indices = match &proto.indices {
        Some(indices) => dense(indices, folder, limits)?,
        None if n == 0 => Tensor::new::<i64>([0], &[]),
        None => return Err("a sparse tensor without indices".into()),
    };
    let per_value = match indices.shape() {
        [m] if *m == n => 1,
        [m, rank] if *m == n && *rank == ty.rank() => *rank,
        other => return Err(format!("indices of shape {other:?} do not fit {n} values of a sparse tensor of rank {}", ty.rank())),
    };
    if indices.ty().ty != Type::I64 {
        return Err("the indices of a sparse tensor are not int64".into());
    }
    let (width, strides) = (ty.ty.bytes(), ty.strides());
    let mut bytes = vec![0u8; ty.bytes()];
    for (i, value) in values.bytes().chunks_exact(width).enumerate() {
        let index = &indices.values::<i64>()[i * per_value..(i + 1) * per_value];
        let offset = if let ([flat], true) = (index, indices.shape().len() == 1) {
            usize::try_from(*flat).ok().filter(|p| *p < ty.len())
        } else {
            index
                .iter()
                .zip(&ty.shape)
                .zip(&strides)
                .try_fold(0, |sum, ((&k, &size), &stride)| usize::try_from(k).ok().filter(|k| *k < size).map(|k| sum + k * stride))
        };
        let offset = offset.ok_or_else(|| format!("index {index:?} is outside a sparse tensor of size {:?}", ty.shape))?;
        bytes[offset * width..(offset + 1) * width].copy_from_slice(value);
    }
    Tensor::from_bytes(ty, &bytes).ok_or_else(|| "sparse data does not fit its type".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_survives_a_round_trip() {
        for &ty in Type::ALL {
            let shape = TensorType::new(ty, [5]);
            let bits = packed_bits(ty);
            let bytes: Vec<u8> = match (bits, ty) {
                (8, Type::Bool) => vec![1, 0, 1, 1, 0],
                (8, _) => (0..shape.bytes()).map(|i| (i * 37 + 200) as u8).collect(),
                _ => unpack(ty, 5, &[0x9c, 0x21, 0x0f]),
            };
            let tensor = Tensor::from_bytes(shape, &bytes).unwrap();
            let (name, back) = decode_tensor(&encode_tensor("t", &tensor), &Limits::default()).unwrap();
            assert_eq!((name.as_str(), back), ("t", tensor), "{ty}");
        }
    }

    #[test]
    fn narrow_types_are_unpacked_low_bits_first() {
        assert_eq!(unpack(Type::I4, 3, &[0xf8, 0x07]), [0xf8, 0xff, 7]);
        assert_eq!(unpack(Type::U4, 3, &[0xf8, 0x07]), [8, 15, 7]);
        assert_eq!(unpack(Type::I2, 4, &[0b11_10_01_00]), [0, 1, 0xfe, 0xff]);
    }

    #[test]
    fn sizes_and_data_must_agree() {
        let limits = Limits::default();
        let read = |p: TensorProto| dense(&p, None, &limits).unwrap_err();
        let base = TensorProto { dims: vec![2], data_type: 1, ..Default::default() };
        assert!(read(base.clone()).contains("no data"));
        assert!(read(TensorProto { raw_data: Some(vec![0; 7].into()), ..base.clone() }).contains("length of 7"));
        assert!(read(TensorProto { float_data: vec![0.0; 3], ..base.clone() }).contains("length of 3"));
        assert!(read(TensorProto { int32_data: vec![0; 2], ..base.clone() }).contains("float_data"));
        assert!(read(TensorProto { dims: vec![-1], ..base.clone() }).contains("negative dimension"));
        assert!(read(TensorProto { dims: vec![1 << 40, 1 << 40], ..base.clone() }).contains("overflow"));
        assert!(read(TensorProto { dims: vec![1 << 40, 0], ..base.clone() }).contains("too large"));
        assert!(read(TensorProto { data_type: 123, ..base }).contains("no element type"));
    }
}
