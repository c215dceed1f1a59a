//! Several specialisations of one network in one object: which sizes are open, and how C names them.

use std::collections::HashSet;

/// A dimension of which an object holds several sizes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenDim {
    /// Its name in the model.
    pub name: String,
    /// Its name as a field of the C structure.
    pub field: String,
    /// The sizes, each once, the smallest first.
    pub sizes: Vec<usize>,
}

/// Words that C or C++ keeps for itself, as far as a dimension may be called so.
const RESERVED: &[&str] = &[
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "not",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
];

/// Dimensions with the fields that stand for them: characters that C lacks become `_`, and no two are the same.
pub fn open_dims(dims: impl IntoIterator<Item = (String, Vec<usize>)>) -> Vec<OpenDim> {
    let mut taken = HashSet::new();
    let mut open = |(name, mut sizes): (String, Vec<usize>)| {
        sizes.sort_unstable();
        sizes.dedup();
        let mut field: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if field.starts_with(|c: char| c.is_ascii_digit()) || field.trim_matches('_').is_empty() {
            field.insert_str(0, "dim_");
        }
        if RESERVED.contains(&field.as_str()) {
            field.push('_');
        }
        let plain = field.clone();
        for n in 2.. {
            if taken.insert(field.clone()) {
                break;
            }
            field = format!("{plain}_{n}");
        }
        OpenDim { name, field, sizes }
    };
    dims.into_iter().map(&mut open).collect()
}

/// Number of combinations of sizes; `None` when it has no name in 64 bits.
pub fn count(dims: &[OpenDim]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.sizes.len()))
}

/// The sizes of variant `index`, one each dimension: the last dimension changes fastest.
pub fn sizes(dims: &[OpenDim], mut index: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = dims
        .iter()
        .rev()
        .map(|d| {
            let size = d.sizes[index % d.sizes.len()];
            index /= d.sizes.len();
            size
        })
        .collect();
    sizes.reverse();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_a_variant() {
        let dims = open_dims([("batch".to_string(), vec![4, 1, 4]), ("seq".to_string(), vec![16, 32, 64])]);
        let all: Vec<_> = (0..count(&dims).expect("few")).map(|i| sizes(&dims, i)).collect();
        assert_eq!(all, [[1, 16], [1, 32], [1, 64], [4, 16], [4, 32], [4, 64]]);
    }

    #[test]
    fn fields_are_identifiers_of_their_own() {
        let names = ["a.b", "a:b", "long", "3d", "a_b_2", "…", "seq"];
        let dims = open_dims(names.map(|n| (n.to_string(), vec![1, 2])));
        let fields: Vec<&str> = dims.iter().map(|d| d.field.as_str()).collect();
        assert_eq!(fields, ["a_b", "a_b_2", "long_", "dim_3d", "a_b_2_2", "dim__", "seq"]);
    }
}
