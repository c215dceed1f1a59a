//! Facts about machines. A target is a record: code generation asks how wide, how many and how fast, never which architecture.

mod aarch64;
mod detect;
mod feature;
mod target;
mod x86_64;

pub use feature::{Arch, Feature, Features};
pub use target::{Bandwidth, Code, Dot, EMITTED_BITS, Overheads, Product, Target, Tiles, Vector};

/// Every machine known by name.
pub fn all() -> Vec<&'static Target> {
    x86_64::ALL.iter().chain(aarch64::ALL).copied().collect()
}

/// One record for each set of instructions and each vector unit that code is made for: what tests of emitters go through.
pub fn instruction_sets() -> Vec<&'static Target> {
    let mut found: Vec<&Target> = vec![];
    for target in all() {
        let same = |t: &&Target| t.triple == target.triple && t.features == target.features && t.vector == target.vector;
        if !found.iter().any(same) {
            found.push(target);
        }
    }
    found
}

/// The target of a name, an alias or a triple; `native` is the machine this runs on.
pub fn find(name: &str) -> Option<&'static Target> {
    if name == "native" {
        return Some(native());
    }
    all().into_iter().find(|t| t.name == name || t.aliases.contains(&name)).or_else(|| all().into_iter().find(|t| t.triple == name))
}

/// The machine this runs on: the nearest record with the features and caches that were found. The same at each call.
pub fn native() -> &'static Target {
    static NATIVE: std::sync::OnceLock<Target> = std::sync::OnceLock::new();
    NATIVE.get_or_init(detect::native)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_of_one_record_each() {
        let mut seen = HashSet::new();
        for t in all() {
            for name in [t.name].iter().chain(t.aliases) {
                assert!(seen.insert(*name), "{name} is two machines");
                assert_eq!(find(name), Some(t));
            }
            assert!(!t.source.is_empty(), "{} cites no source", t.name);
        }
    }

    #[test]
    fn code_is_made_for_the_widest_vectors_that_are_emitted() {
        for t in all() {
            assert_eq!(t.vector.bits, t.widest().bits.min(EMITTED_BITS), "{}", t.name);
            assert_eq!(*t, t.derived(), "{}", t.name);
            assert!(t.features.iter().all(|f| f.arch() == t.arch()), "{}", t.name);
            assert!(t.l1d < t.l2 && (t.l3 == 0 || t.l2 <= t.l3), "{}", t.name);
        }
        let zen4 = find("znver4").expect("a record").widest();
        assert_eq!((zen4.bits, zen4.fma_per_cycle, zen4.registers, zen4.masks), (512, 1, 32, 8));
    }

    #[test]
    fn features_change_single_facts() {
        let v3 = find("x86-64-v3").expect("a record");
        assert_eq!(v3.rate(Product::U8S8), None);
        let vnni = v3.with_features("+avxvnni").expect("a known name");
        assert_eq!(vnni.rate(Product::U8S8), Some(64.0));
        assert!(vnni.runs(v3) && !v3.runs(&vnni));
        let scalar = v3.with_features("-avx2").expect("a known name");
        assert_eq!((scalar.vector.bits, scalar.vector.fma), (128, true));
        let rapids = find("sapphirerapids").expect("a record");
        assert_eq!(rapids.tiles().map(|t| (t.rows, t.bytes, t.int8, t.fp16)), Some((16, 64, true, false)));
        assert_eq!(rapids.with_features("-amx").expect("a group").tiles(), None);
        let arm = find("aarch64").expect("a record").with_features("+dotprod").expect("a known name");
        assert_eq!((arm.rate(Product::S8S8), arm.rate(Product::U8S8)), (Some(16.0), None));
    }
}
