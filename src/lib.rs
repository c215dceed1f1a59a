//! Compiles trained neural networks (ONNX) to specialised native code.
