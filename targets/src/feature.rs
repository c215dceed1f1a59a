//! Instruction-set features: one row each, with the name that LLVM and `-mcpu` use, Cranelift's setting, and how a machine says that it has it.

use Arch::{Aarch64, X86_64};
use Register::{Eax, Ebx, Ecx, Edx};

/// An instruction-set architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// A register of the CPUID instruction's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A bit of the CPUID instruction's answer: leaf, sub-leaf, register and number of the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuidBit(pub u32, pub u32, pub Register, pub u32);

/// A row of the table of features.
pub(crate) struct Row {
    pub feature: Feature,
    pub arch: Arch,
    /// LLVM's name.
    pub name: &'static str,
    /// Cranelift's setting; none where Cranelift has no instruction for it.
    pub cranelift: Option<&'static str>,
    /// Features without which this one is not there.
    pub needs: &'static [Feature],
    /// On x86: the bit of CPUID.
    pub cpuid: Option<CpuidBit>,
    /// On AArch64: the word of `/proc/cpuinfo`, and the name that macOS has under `hw.optional`.
    pub system: &'static [&'static str],
}

macro_rules! features {
    ($($arch:ident $feature:ident $name:literal, $cranelift:expr, [$($needs:ident)*], $cpuid:expr, [$($system:literal)*];)*) => {
        /// An instruction-set feature beyond the base of its architecture.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)] // each is named as LLVM names it
        pub enum Feature { $($feature,)* }

        pub(crate) const ROWS: &[Row] = &[$(Row {
            feature: Feature::$feature, arch: $arch, name: $name, cranelift: $cranelift,
            needs: &[$(Feature::$needs,)*], cpuid: $cpuid, system: &[$($system,)*],
        },)*];
    };
}

/// A bit of leaf 1, of leaf 7, of its sub-leaf 1, and of leaf 0x8000_0001.
const fn basic(register: Register, bit: u32) -> Option<CpuidBit> {
    Some(CpuidBit(1, 0, register, bit))
}

const fn seven(register: Register, bit: u32) -> Option<CpuidBit> {
    Some(CpuidBit(7, 0, register, bit))
}

const fn seven_one(register: Register, bit: u32) -> Option<CpuidBit> {
    Some(CpuidBit(7, 1, register, bit))
}

const fn extended(register: Register, bit: u32) -> Option<CpuidBit> {
    Some(CpuidBit(0x8000_0001, 0, register, bit))
}

features! {
    // arch feature  LLVM, Cranelift, what it needs, CPUID, Linux and macOS
    X86_64 Sse3 "sse3", Some("has_sse3"), [], basic(Ecx, 0), [];
    X86_64 Ssse3 "ssse3", Some("has_ssse3"), [Sse3], basic(Ecx, 9), [];
    X86_64 Sse41 "sse4.1", Some("has_sse41"), [Ssse3], basic(Ecx, 19), [];
    X86_64 Sse42 "sse4.2", Some("has_sse42"), [Sse41], basic(Ecx, 20), [];
    X86_64 Popcnt "popcnt", Some("has_popcnt"), [], basic(Ecx, 23), [];
    X86_64 Avx "avx", Some("has_avx"), [Sse42], basic(Ecx, 28), [];
    X86_64 Avx2 "avx2", Some("has_avx2"), [Avx], seven(Ebx, 5), [];
    X86_64 Fma "fma", Some("has_fma"), [Avx], basic(Ecx, 12), [];
    X86_64 Bmi "bmi", Some("has_bmi1"), [], seven(Ebx, 3), [];
    X86_64 Bmi2 "bmi2", Some("has_bmi2"), [], seven(Ebx, 8), [];
    X86_64 Lzcnt "lzcnt", Some("has_lzcnt"), [], extended(Ecx, 5), [];
    X86_64 F16c "f16c", None, [Avx], basic(Ecx, 29), [];
    X86_64 AvxVnni "avxvnni", Some("has_avx_vnni"), [Avx2], seven_one(Eax, 4), [];
    X86_64 AvxVnniInt8 "avxvnniint8", None, [Avx2], seven_one(Edx, 4), [];
    X86_64 Avx512f "avx512f", Some("has_avx512f"), [Avx2 Fma F16c], seven(Ebx, 16), [];
    X86_64 Avx512cd "avx512cd", None, [Avx512f], seven(Ebx, 28), [];
    X86_64 Avx512bw "avx512bw", None, [Avx512f], seven(Ebx, 30), [];
    X86_64 Avx512dq "avx512dq", Some("has_avx512dq"), [Avx512f], seven(Ebx, 17), [];
    X86_64 Avx512vl "avx512vl", Some("has_avx512vl"), [Avx512f], seven(Ebx, 31), [];
    X86_64 Avx512vbmi "avx512vbmi", Some("has_avx512vbmi"), [Avx512bw], seven(Ecx, 1), [];
    X86_64 Avx512bitalg "avx512bitalg", Some("has_avx512bitalg"), [Avx512bw], seven(Ecx, 12), [];
    X86_64 Avx512vnni "avx512vnni", Some("has_avx512vnni"), [Avx512f], seven(Ecx, 11), [];
    X86_64 Avx512bf16 "avx512bf16", None, [Avx512bw], seven_one(Eax, 5), [];
    X86_64 Avx512fp16 "avx512fp16", None, [Avx512bw Avx512dq Avx512vl], seven(Edx, 23), [];
    X86_64 AmxTile "amx-tile", None, [], seven(Edx, 24), [];
    X86_64 AmxInt8 "amx-int8", None, [AmxTile], seven(Edx, 25), [];
    X86_64 AmxBf16 "amx-bf16", None, [AmxTile], seven(Edx, 22), [];
    X86_64 AmxFp16 "amx-fp16", None, [AmxTile], seven_one(Eax, 21), [];
    Aarch64 Lse "lse", Some("has_lse"), [], None, ["atomics" "arm.FEAT_LSE"];
    Aarch64 FullFp16 "fullfp16", Some("has_fp16"), [], None, ["asimdhp" "arm.FEAT_FP16"];
    Aarch64 Dotprod "dotprod", Some("has_dotprod"), [], None, ["asimddp" "arm.FEAT_DotProd"];
    Aarch64 I8mm "i8mm", Some("has_i8mm"), [Dotprod], None, ["i8mm" "arm.FEAT_I8MM"];
    Aarch64 Bf16 "bf16", None, [], None, ["bf16" "arm.FEAT_BF16"];
    Aarch64 Sve "sve", None, [FullFp16], None, ["sve"];
    Aarch64 Sve2 "sve2", None, [Sve], None, ["sve2"];
}

/// Words of `--features` that stand for several features, or for one by another name.
const GROUPS: &[(&str, Arch, &[Feature])] = &[
    ("amx", X86_64, &[Feature::AmxTile, Feature::AmxInt8, Feature::AmxBf16]),
    ("avx512", X86_64, &[Feature::Avx512f, Feature::Avx512cd, Feature::Avx512bw, Feature::Avx512dq, Feature::Avx512vl]),
    ("fp16", Aarch64, &[Feature::FullFp16]),
];

impl Feature {
    pub(crate) const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The name that LLVM and compilers' `-march` use.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Cranelift's setting, where Cranelift has instructions of this feature.
    pub const fn cranelift(self) -> Option<&'static str> {
        self.row().cranelift
    }

    /// The architecture that has it.
    pub const fn arch(self) -> Arch {
        self.row().arch
    }
}

/// A set of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Features(u64);

impl Features {
    /// No feature beyond the base of the architecture.
    pub const NONE: Features = Features(0);

    /// These features and all that they need.
    pub const fn of(features: &[Feature]) -> Features {
        Features::NONE.and(features)
    }

    /// These features, too, and all that they need.
    pub const fn and(self, features: &[Feature]) -> Features {
        let mut set = self;
        let mut i = 0;
        while i < features.len() {
            set.0 |= 1 << features[i] as u64;
            set = set.and(features[i].row().needs);
            i += 1;
        }
        set
    }

    /// Whether a feature is there.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & 1 << feature as u64 != 0
    }

    /// Whether all of these are there.
    pub const fn has_all(self, features: &[Feature]) -> bool {
        Features::raw(features).is_subset(self)
    }

    /// Whether all features of this set are in the other.
    pub const fn is_subset(self, of: Features) -> bool {
        self.0 & !of.0 == 0
    }

    /// The features, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        ROWS.iter().map(|row| row.feature).filter(move |f| self.has(*f))
    }

    const fn raw(features: &[Feature]) -> Features {
        let mut set = 0;
        let mut i = 0;
        while i < features.len() {
            set |= 1 << features[i] as u64;
            i += 1;
        }
        Features(set)
    }

    /// Without a feature and all that need it.
    pub(crate) fn without(self, feature: Feature) -> Features {
        let mut set = Features(self.0 & !(1 << feature as u64));
        for row in ROWS.iter().filter(|row| row.needs.contains(&feature)) {
            if set.has(row.feature) {
                set = set.without(row.feature);
            }
        }
        set
    }

    /// The features with what a list such as `+avx512vnni,-amx` says: what a feature needs is added with it, what needs it goes with it.
    /// An error names the features that there are.
    pub fn changed(self, arch: Arch, list: &str) -> Result<Features, String> {
        let mut set = self;
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(format!("`{word}` neither adds nor removes a feature: write +{word} or -{word}")),
            };
            let single = ROWS.iter().find(|row| row.arch == arch && row.name == name).map(|row| vec![row.feature]);
            let group = || GROUPS.iter().find(|g| g.0 == name && g.1 == arch).map(|g| g.2.to_vec());
            let features = single.or_else(group).ok_or_else(|| {
                let known = ROWS.iter().filter(|row| row.arch == arch).map(|row| row.name);
                let groups = GROUPS.iter().filter(|g| g.1 == arch).map(|g| g.0);
                format!("no feature `{name}`; there are {}", known.chain(groups).collect::<Vec<_>>().join(", "))
            })?;
            set = if on { set.and(&features) } else { features.into_iter().fold(set, Features::without) };
        }
        Ok(set)
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.iter().map(Feature::name).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_the_type_and_need_earlier_ones() {
        for (i, row) in ROWS.iter().enumerate() {
            assert_eq!(row.feature as usize, i);
            assert!(row.needs.iter().all(|n| n.row().arch == row.arch), "{}", row.name);
            assert_eq!(row.arch == Arch::X86_64, row.cpuid.is_some(), "{}", row.name);
            assert_eq!(row.arch == Arch::Aarch64, !row.system.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn lists_add_what_is_needed_and_remove_what_needs_it() {
        let base = Features::of(&[Feature::Avx2, Feature::Fma]);
        let wide = base.changed(Arch::X86_64, "+avx512vnni,+avx512bw").expect("known names");
        assert!(wide.has_all(&[Feature::Avx512vnni, Feature::Avx512bw, Feature::Avx512f, Feature::F16c]));
        assert!(!wide.has(Feature::Avx512dq));
        assert_eq!(wide.changed(Arch::X86_64, "-avx512f,-f16c").expect("known names"), base);
        let amx = base.changed(Arch::X86_64, "+amx").expect("a group");
        assert!(amx.has_all(&[Feature::AmxTile, Feature::AmxInt8, Feature::AmxBf16]));
        assert_eq!(amx.changed(Arch::X86_64, "-amx").expect("a group"), base);
        assert_eq!(amx.changed(Arch::X86_64, "-amx-tile").expect("a feature"), base);
        let error = base.changed(Arch::Aarch64, "+avx2").expect_err("not of this architecture");
        assert_eq!(error, "no feature `avx2`; there are lse, fullfp16, dotprod, i8mm, bf16, sve, sve2, fp16");
        assert!(base.changed(Arch::X86_64, "avx2").expect_err("no sign").contains("write +avx2 or -avx2"));
    }
}
