//! Element types by their numbers in ONNX.

use dnnc_ir::Type;

/// The element type of an ONNX data type number, or a sentence.
pub(crate) fn element_type(code: i64) -> Result<Type, String> {
    use Type::*;
    Ok(match code {
        1 => F32,
        2 => U8,
        3 => I8,
        4 => U16,
        5 => I16,
        6 => I32,
        7 => I64,
        8 => return Err("element type string is not supported".into()),
        9 => Bool,
        10 => F16,
        11 => F64,
        12 => U32,
        13 => U64,
        14 => return Err("element type complex64 is not supported".into()),
        15 => return Err("element type complex128 is not supported".into()),
        16 => BF16,
        17 => F8E4M3FN,
        18 => F8E4M3FNUZ,
        19 => F8E5M2,
        20 => F8E5M2FNUZ,
        21 => U4,
        22 => I4,
        23 => F4E2M1,
        24 => F8E8M0,
        25 => U2,
        26 => I2,
        other => return Err(format!("{other} is no element type")),
    })
}

/// The ONNX data type number of an element type.
pub(crate) fn type_code(ty: Type) -> i32 {
    (1..=26).find(|&code| element_type(code) == Ok(ty)).expect("every element type has a number") as i32
}
