//! The ONNX reader
