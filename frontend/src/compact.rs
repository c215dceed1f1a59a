//! The compact container `.dnnc`: an ONNX model without its large constants, and these encoded.
//!
//! The skeleton keeps name, type and shape of an encoded constant, and leaves out its data. Whatever reads a model reads a container, too.

use crate::limits::Limits;
use crate::proto::{ModelProto, TensorProto};
use crate::tensor_file::tensor_type;
use dnnc_encodings::{container, decode};
use dnnc_ir::Type;
use prost::Message;
use prost::bytes::Bytes;

/// The bytes of the ONNX model in a container; other bytes are returned as they are. An error is a sentence.
pub(crate) fn expand(bytes: &[u8], limits: &Limits) -> Result<Option<Vec<u8>>, String> {
    if !container::is_container(bytes) {
        return Ok(None);
    }
    let parts = container::read(bytes)?;
    crate::encoded_size::check_parts(parts.skeleton)?;
    let mut model =
        ModelProto::decode(Bytes::copy_from_slice(parts.skeleton)).map_err(|_| "a damaged dnnc container: there is no model in it")?;
    let constants = model.graph.as_mut().map_or(&mut [][..], |g| &mut g.initializer[..]);
    let mut total = 0u64;
    for (place, encoded) in parts.tensors {
        let constant = constants.get_mut(place).ok_or("a damaged dnnc container: it has a constant that the model does not have")?;
        let bad = |reason: String| format!("a damaged dnnc container: tensor \"{}\" {reason}", constant.name);
        let ty = tensor_type(constant.data_type, &constant.dims, limits).map_err(bad)?;
        total = total.saturating_add(ty.bytes() as u64);
        if total > limits.file_bytes {
            return Err(format!("the constants have more than {} bytes (--max-file)", limits.file_bytes));
        }
        if ty.ty != Type::F32 || has_data(constant) {
            return Err(bad("cannot be encoded".into()));
        }
        let values = decode(encoded, ty.len(), rows(&ty.shape)).map_err(bad)?;
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        constant.raw_data = Some(raw.into());
    }
    Ok(Some(model.encode_to_vec()))
}

/// The same for bytes that can be moved.
pub(crate) fn expanded(bytes: Bytes, limits: &Limits) -> Result<Bytes, String> {
    Ok(expand(&bytes, limits)?.map_or(bytes, Bytes::from))
}

fn has_data(t: &TensorProto) -> bool {
    t.data_location != 0 || t.raw_data.is_some() || !t.float_data.is_empty()
}

/// Rows of a constant as a matrix: its first dimension.
fn rows(shape: &[usize]) -> usize {
    shape.first().copied().unwrap_or(1).max(1)
}

/// Constants of fewer values stay in the skeleton.
#[cfg(any(test, feature = "dev"))]
const SMALLEST: usize = 16;

/// How one constant is kept in a container.
#[cfg(any(test, feature = "dev"))]
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its name in the model.
    pub name: String,
    /// The form of its encoding.
    pub form: &'static str,
    /// Bytes of its encoding.
    pub bytes: usize,
    /// Bytes of its values as floats.
    pub dense_bytes: usize,
}

/// The bytes of a container, and how its constants are kept. Constants of other types than f32 stay as they are.
#[cfg(any(test, feature = "dev"))]
pub(crate) fn contain(mut model: ModelProto) -> (Vec<u8>, Vec<Encoded>) {
    use dnnc_encodings::{encode, form};
    let (mut tensors, mut report) = (vec![], vec![]);
    let constants = model.graph.as_mut().map_or(&mut [][..], |g| &mut g.initializer[..]);
    for (place, constant) in constants.iter_mut().enumerate() {
        let Ok(dense) = crate::tensor_file::dense(constant, None, &Limits::default()) else { continue };
        if dense.ty().ty != Type::F32 || dense.len() < SMALLEST {
            continue;
        }
        let bytes = encode(dense.values::<f32>(), rows(dense.shape()));
        let form = form(&bytes).map_or("", |f| f.name());
        report.push(Encoded { name: constant.name.clone(), form, bytes: bytes.len(), dense_bytes: dense.ty().bytes() });
        (constant.raw_data, constant.float_data) = (None, vec![]);
        tensors.push((place, bytes));
    }
    (container::write(&model.encode_to_vec(), &tensors), report)
}
