//! Operators of ONNX Runtime (domain `com.microsoft`), which its optimiser and its quantiser write into models.

pub(super) mod attention;
pub(super) mod experts;
pub(super) mod fused;
pub(super) mod plain;
pub(super) mod quantised;
