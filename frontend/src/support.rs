//! Supported operators, derived from the tables of importers and schemas.

use crate::{ops, schema};
use dnnc_ir::Type;
use std::collections::BTreeMap;

/// An operator that can be compiled.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Domain; empty is ONNX's own.
    pub domain: &'static str,
    /// Operator type.
    pub name: &'static str,
    /// What of it is not supported, or where it comes from; empty: nothing to say.
    pub note: String,
    /// Versions of the operator, oldest first.
    pub versions: Vec<Version>,
}

/// A version of an operator.
#[derive(Clone, Debug)]
pub struct Version {
    /// Opset version that brought it.
    pub since: i64,
    /// Element types by type variable of the standard, which has none of domains other than its own.
    pub types: Vec<(&'static str, Vec<Type>)>,
}

/// The operators that can be compiled, by domain and name.
pub fn operators() -> Vec<Operator> {
    let mut notes: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let rows = ops::TABLE.iter().copied().flatten().map(|row| (row.domain, row.name, row.note));
    for (domain, name, note) in rows.chain(ops::WITHOUT_ROW.iter().map(|&(name, note)| ("", name, note))) {
        let all = notes.entry((domain, name)).or_default();
        if !note.is_empty() && !all.contains(&note) {
            all.push(note);
        }
    }
    let special = |name: &str| ops::WITHOUT_ROW.iter().any(|row| row.0 == name);
    notes
        .into_iter()
        .map(|((domain, name), notes)| {
            let known = |since: i64| domain.is_empty() && special(name) || ops::find(domain, name, since).is_some();
            let mut versions: Vec<Version> =
                schema::versions(domain, name).filter(|v| known(v.since)).map(|v| Version { since: v.since, types: v.types() }).collect();
            if versions.is_empty() {
                versions.push(Version { since: 1, types: vec![] });
            }
            Operator { domain, name, note: notes.join("; "), versions }
        })
        .collect()
}

/// Element types in few words: `floats`, `ints`, … where all of a family are there.
pub fn in_words(types: &[Type]) -> String {
    use Type::*;
    const FAMILIES: [(&str, &[Type]); 5] = [
        ("floats", &[F16, BF16, F32, F64]),
        ("ints", &[I8, I16, I32, I64]),
        ("uints", &[U8, U16, U32, U64]),
        ("f8", &[F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ]),
        ("i4 u4", &[I4, U4]),
    ];
    let mut left = types.to_vec();
    let mut words = vec![];
    for (word, family) in FAMILIES {
        if family.iter().all(|t| left.contains(t)) {
            left.retain(|t| !family.contains(t));
            words.push(word);
        }
    }
    words.extend(Type::ALL.iter().filter(|t| left.contains(t)).map(|t| t.name()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_types_are_those_of_the_standard() {
        let all = operators();
        let find = |name: &str| all.iter().find(|o| o.domain.is_empty() && o.name == name).expect("a row");
        let since = |name: &str| find(name).versions.iter().map(|v| v.since).collect::<Vec<_>>();
        assert_eq!(since("Add"), [1, 6, 7, 13, 14]);
        assert_eq!(since("HardSwish"), [14, 22]);
        let newest = |name: &str| {
            let types = &find(name).versions.last().expect("a version").types;
            types.iter().map(|(v, t)| format!("{v}: {}", in_words(t))).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(newest("Add"), "T: floats ints uints");
        assert_eq!(newest("MatMulInteger"), "T1: i8 u8; T2: i8 u8; T3: i32");
        assert_eq!(newest("Loop"), "V: floats ints uints f8 i4 u4 bool i2 u2 f8e8m0 f4e2m1; I: i64; B: bool");
    }

    #[test]
    fn every_row_is_an_operator_of_its_domain() {
        for row in ops::TABLE.iter().copied().flatten().filter(|row| row.domain.is_empty() && !row.note.contains("ONNX Runtime")) {
            assert!(schema::versions("", row.name).next().is_some(), "{} is not in ONNX", row.name);
        }
    }
}
