//! The machine this runs on: the nearest record, with the features and caches that the machine itself reports.
//!
//! Clock, bandwidths and overheads stay those of the record: they would have to be measured.

use crate::aarch64;
use crate::feature::{self, Features};
use crate::target::Target;
use std::path::Path;

/// What a machine reports.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    nearest: &'static Target,
    features: Features,
    /// Bytes of the data caches of levels 1 to 3; 0 where there is none.
    caches: [usize; 3],
}

impl Found {
    /// The record with the facts that were found, of a machine of so many cores.
    fn target(&self, cores: usize) -> Target {
        let known = |found: usize, record: usize| if found > 0 { found } else { record };
        let nearest = self.nearest;
        let [l1d, l2, l3] = self.caches;
        // A machine that reports a second level reports all that there is.
        let l3 = if l2 > 0 { l3 } else { nearest.l3 };
        let source = format!("features and caches as this machine reports them; clock, bandwidths and costs of code: {}", nearest.name);
        Target {
            name: "native",
            aliases: &[],
            features: self.features,
            l1d: known(l1d, nearest.l1d),
            l2: known(l2, nearest.l2),
            l3,
            cores,
            source: Box::leak(source.into_boxed_str()),
            ..*nearest
        }
        .derived()
    }
}

/// Asks this machine. It is called once.
pub(crate) fn native() -> Target {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    let found = x86::native();
    #[cfg(not(target_arch = "x86_64"))]
    let found = arm_native();
    found.target(cores)
}

#[cfg_attr(target_arch = "x86_64", allow(dead_code))] // its parts are tested everywhere
fn arm_native() -> Found {
    if cfg!(target_os = "macos") {
        let asked = ["machdep.cpu.brand_string", "hw.perflevel0.l1dcachesize", "hw.perflevel0.l2cachesize", "hw.optional"];
        let answer = std::process::Command::new("/usr/sbin/sysctl").args(asked).output();
        return macos(&answer.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default());
    }
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cache");
    let read = |index: usize, file: &str| std::fs::read_to_string(folder.join(format!("index{index}")).join(file)).ok();
    linux(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), read)
}

/// An AArch64 machine by Linux's `/proc/cpuinfo` and the files that describe its caches: `cache(index, file)`.
fn linux(cpuinfo: &str, cache: impl Fn(usize, &str) -> Option<String>) -> Found {
    /// Implementer and part of the main identification register.
    const PARTS: &[(&str, &str, &Target)] = &[
        ("0x41", "0xd03", &aarch64::CORTEX_A53),
        ("0x41", "0xd05", &aarch64::CORTEX_A55),
        ("0x41", "0xd08", &aarch64::CORTEX_A72),
        ("0x41", "0xd0b", &aarch64::CORTEX_A76),
        ("0x41", "0xd41", &aarch64::CORTEX_A78),
        ("0x41", "0xd44", &aarch64::CORTEX_X1),
        ("0x41", "0xd0c", &aarch64::NEOVERSE_N1),
        ("0x41", "0xd40", &aarch64::NEOVERSE_V1),
        ("0x41", "0xd49", &aarch64::NEOVERSE_N2),
        ("0x41", "0xd4f", &aarch64::NEOVERSE_V2),
    ];
    let values = |key: &str| -> Vec<&str> {
        cpuinfo.lines().filter_map(|l| l.split_once(':')).filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim()).collect()
    };
    let parts: Vec<(&str, &str)> = values("CPU implementer").into_iter().zip(values("CPU part")).collect();
    // Of large and small cores, the large: threads of long work are put there.
    let known = PARTS.iter().filter(|p| parts.contains(&(p.0, p.1))).map(|p| p.2);
    let nearest = known.max_by(|a, b| a.peak_macs().total_cmp(&b.peak_macs())).unwrap_or(&aarch64::GENERIC);
    let words: Vec<&str> = values("Features").first().map(|v| v.split_whitespace().collect()).unwrap_or_default();
    let mut caches = [0; 3];
    for index in 0.. {
        let (Some(level), Some(kind), Some(size)) = (cache(index, "level"), cache(index, "type"), cache(index, "size")) else { break };
        let bytes = size.trim().strip_suffix('K').and_then(|n| n.parse::<usize>().ok()).map_or(0, |n| n * 1024);
        match level.trim().parse::<usize>() {
            Ok(level @ 1..=3) if kind.trim() != "Instruction" => caches[level - 1] = bytes,
            _ => {}
        }
    }
    Found { nearest, features: reported(|row| row.system.first().is_some_and(|w| words.contains(w))), caches }
}

/// A Mac with a processor of Apple by the answer of `sysctl`: lines `name: value`.
fn macos(sysctl: &str) -> Found {
    const CHIPS: &[(&str, &Target)] = &[
        ("Apple M1", &aarch64::APPLE_M1),
        ("Apple M2", &aarch64::APPLE_M2),
        ("Apple M3", &aarch64::APPLE_M3),
        ("Apple M4", &aarch64::APPLE_M4),
    ];
    let value = |name: &str| sysctl.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    let chip = value("machdep.cpu.brand_string").unwrap_or_default();
    let nearest = CHIPS.iter().find(|c| chip.starts_with(c.0)).map_or(&aarch64::APPLE_M1, |c| c.1);
    let size = |name: &str| value(name).and_then(|v| v.parse().ok()).unwrap_or(0);
    let caches = [size("hw.perflevel0.l1dcachesize"), size("hw.perflevel0.l2cachesize"), 0];
    Found { nearest, features: reported(|row| row.system.get(1).is_some_and(|w| value(&format!("hw.optional.{w}")) == Some("1"))), caches }
}

/// The features that a machine reports, without those that lack what they need.
fn reported(is_there: impl Fn(&feature::Row) -> bool) -> Features {
    let mut found = Features::NONE;
    for row in feature::ROWS {
        // What a feature needs stands above it.
        if is_there(row) && found.has_all(row.needs) {
            found = found.and(&[row.feature]);
        }
    }
    found
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::detect::{Found, reported};
    use crate::feature::{CpuidBit, Feature, Register};
    use crate::target::Target;
    use crate::x86_64 as records;
    use raw_cpuid::{CacheType, CpuId, CpuIdReader, CpuIdReaderNative};

    pub fn native() -> Found {
        let mut found = detect(CpuIdReaderNative);
        // The standard library has asked the system, too, whether it keeps these registers.
        let kept = [
            (Feature::Avx, std::arch::is_x86_feature_detected!("avx")),
            (Feature::Avx512f, std::arch::is_x86_feature_detected!("avx512f")),
        ];
        for (feature, _) in kept.into_iter().filter(|(_, kept)| !kept) {
            found.features = found.features.without(feature);
        }
        found
    }

    /// A machine by what the CPUID instruction answers.
    pub fn detect<R: CpuIdReader>(reader: R) -> Found {
        let cpuid = CpuId::with_cpuid_reader(reader.clone());
        let last = |leaf: u32| reader.cpuid2(leaf & 0x8000_0000, 0).eax;
        let bit = |CpuidBit(leaf, subleaf, register, bit): CpuidBit| {
            let deepest = if leaf == 7 { reader.cpuid2(7, 0).eax } else { u32::MAX };
            let answer = reader.cpuid2(leaf, subleaf);
            let word = match register {
                Register::Eax => answer.eax,
                Register::Ebx => answer.ebx,
                Register::Ecx => answer.ecx,
                Register::Edx => answer.edx,
            };
            last(leaf) >= leaf && deepest >= subleaf && word & 1 << bit != 0
        };
        // Whether the system saves a part of the state: EBX of leaf 13 is the size of all parts that are switched on in XCR0.
        let switched_on = bit(CpuidBit(1, 0, Register::Ecx, 27)) && last(0) >= 13;
        let saved = |part: u32| {
            let (all, one) = (reader.cpuid2(13, 0), reader.cpuid2(13, part));
            switched_on && one.eax > 0 && all.eax & 1 << part != 0 && all.ebx >= one.ebx + one.eax
        };
        let state = |feature: Feature| match feature.name() {
            name if name.starts_with("amx") => [17, 18].into_iter().all(saved),
            name if name.starts_with("avx512") => [5, 6, 7].into_iter().all(saved),
            "avx" => saved(2),
            _ => true,
        };
        let features = reported(|row| row.cpuid.is_some_and(bit) && state(row.feature));
        let mut caches = [0; 3];
        for c in cpuid.get_cache_parameters().into_iter().flatten() {
            if let (level @ 1..=3, CacheType::Data | CacheType::Unified) = (c.level() as usize, c.cache_type()) {
                caches[level - 1] = c.sets() * c.associativity() * c.physical_line_partitions() * c.coherency_line_size();
            }
        }
        let by_name = cpuid.get_feature_info().and_then(|info| {
            let vendor = cpuid.get_vendor_info().map(|v| v.as_str().to_string()).unwrap_or_default();
            record(&vendor, info.family_id(), info.model_id(), features.has(Feature::Avx512vnni))
        });
        let levels = [&records::X86_64_V4, &records::X86_64_V3, &records::X86_64_V2];
        let by_features = || levels.into_iter().find(|t| t.features.is_subset(features)).unwrap_or(&records::X86_64);
        Found { nearest: by_name.unwrap_or_else(by_features), features, caches }
    }

    /// The record of a core by its family and model.
    fn record(vendor: &str, family: u8, model: u8, vnni: bool) -> Option<&'static Target> {
        let found = match (vendor, family, model) {
            ("GenuineIntel", 6, 0x55) if vnni => &records::CASCADELAKE,
            ("GenuineIntel", 6, 0x55) => &records::SKYLAKE_AVX512,
            ("GenuineIntel", 6, 0x6a | 0x6c) => &records::ICELAKE_SERVER,
            ("GenuineIntel", 6, 0x8f | 0xcf) => &records::SAPPHIRE_RAPIDS,
            ("GenuineIntel", 6, 0xad | 0xae) => &records::GRANITE_RAPIDS,
            ("GenuineIntel", 6, 0x97 | 0x9a | 0xb7 | 0xba | 0xbf | 0xaa | 0xac | 0xc5 | 0xc6) => &records::ALDERLAKE,
            ("AuthenticAMD", 0x17, 0x00..=0x2f) => &records::ZNVER1,
            ("AuthenticAMD", 0x17, _) => &records::ZNVER2,
            ("AuthenticAMD", 0x19, 0x10..=0x1f | 0x60..=0xaf) => &records::ZNVER4,
            ("AuthenticAMD", 0x19, _) => &records::ZNVER3,
            ("AuthenticAMD", 0x1a, _) => &records::ZNVER5,
            _ => return None,
        };
        Some(found)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::{Product, find};
        use raw_cpuid::CpuIdResult;
        use std::collections::HashMap;

        /// Answers of CPUID as lines `leaf subleaf: eax ebx ecx edx`, in hexadecimal.
        fn dump(text: &str) -> impl Fn(u32, u32) -> CpuIdResult + Clone {
            let line = |line: &str| {
                let words: Vec<u32> =
                    line.split([' ', ':']).filter(|w| !w.is_empty()).map(|w| u32::from_str_radix(w, 16).expect("hexadecimal")).collect();
                let [leaf, subleaf, eax, ebx, ecx, edx] = words[..] else { panic!("six numbers: {line}") };
                ((leaf, subleaf), CpuIdResult { eax, ebx, ecx, edx })
            };
            let answers: HashMap<(u32, u32), CpuIdResult> = text.lines().map(line).collect();
            move |leaf, subleaf| answers.get(&(leaf, subleaf)).copied().unwrap_or(CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 })
        }

        const ZEN3: &str = include_str!("detect/zen3-ryzen-5900x.txt");
        const HASWELL: &str = include_str!("detect/haswell-i7-4770.txt");
        const EMERALD: &str = include_str!("detect/emerald-rapids-virtual.txt");

        #[test]
        fn zen_3_is_found() {
            let found = detect(dump(ZEN3));
            assert_eq!((found.nearest.name, found.caches), ("znver3", [32 << 10, 512 << 10, 32 << 20]));
            assert_eq!(found.features, find("znver3").expect("a record").features);
            let target = found.target(24);
            assert_eq!((target.name, target.vector.bits, target.cores), ("native", 256, 24));
        }

        #[test]
        fn haswell_has_the_instructions_of_v3_and_caches_of_its_own() {
            let found = detect(dump(HASWELL));
            assert_eq!((found.nearest.name, found.caches), ("x86-64-v3", [32 << 10, 256 << 10, 8 << 20]));
            assert_eq!(found.features, find("x86-64-v3").expect("a record").features);
        }

        #[test]
        fn a_virtual_machine_has_what_it_is_given() {
            let found = detect(dump(EMERALD));
            assert_eq!((found.nearest.name, found.caches), ("sapphirerapids", [48 << 10, 2 << 20, 260 << 20]));
            // This one is given no matrix registers.
            let all = find("sapphirerapids").expect("a record").with_features("-amx").expect("known names");
            assert_eq!(found.features, all.features);
            let target = found.target(2);
            assert_eq!((target.widest().bits, target.rate(Product::U8S8), target.tiles()), (512, Some(128.0), None));
            assert!(target.fp16());
        }

        #[test]
        fn features_whose_registers_the_system_does_not_save_are_not_there() {
            let with = |leaf: u32, subleaf: u32, change: fn(&mut CpuIdResult)| {
                let inner = dump(EMERALD);
                detect(move |l: u32, s: u32| {
                    let mut answer = inner(l, s);
                    if (l, s) == (leaf, subleaf) {
                        change(&mut answer);
                    }
                    answer
                })
                .features
            };
            // XCR0 without the upper halves, with AVX; without extended states at all.
            let narrow = with(13, 0, |a| a.ebx = 0x340);
            assert!(narrow.has(Feature::Avx2) && !narrow.has(Feature::Avx512f) && !narrow.has(Feature::Avx512vnni));
            let none = with(1, 0, |a| a.ecx &= !(1 << 27));
            assert!(none.has(Feature::Sse42) && !none.has(Feature::Avx));
            // Matrix registers that the processor has, but the system does not save.
            assert!(!with(7, 0, |a| a.edx |= 1 << 24 | 1 << 25).has(Feature::AmxTile));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Feature;

    #[test]
    fn linux_describes_a_server_of_arm() {
        let cpuinfo = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs\n\
                       CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n";
        let files = [("1", "Data", "64K"), ("1", "Instruction", "64K"), ("2", "Unified", "1024K"), ("3", "Unified", "32768K")];
        let cache = |index: usize, file: &str| {
            let (level, kind, size) = files.get(index)?;
            Some(format!("{}\n", ["level", "type", "size"].iter().zip([level, kind, size]).find(|(f, _)| **f == file)?.1))
        };
        let found = linux(cpuinfo, cache);
        assert_eq!((found.nearest.name, found.caches), ("neoverse-n1", [64 << 10, 1 << 20, 32 << 20]));
        assert_eq!(found.features, aarch64::NEOVERSE_N1.features);
        assert!(found.features.has(Feature::Dotprod));
    }

    #[test]
    fn of_large_and_small_cores_the_large_count() {
        let cpu = |part: &str| format!("Features : fp asimd atomics asimdhp asimddp\nCPU implementer : 0x41\nCPU part : {part}\n");
        let found = linux(&[cpu("0xd05"), cpu("0xd0b")].concat(), |_, _| None);
        assert_eq!(found.target(8).l2, aarch64::CORTEX_A76.l2);
        assert_eq!(linux("", |_, _| None).nearest.name, "aarch64");
    }

    #[test]
    fn macos_describes_a_mac() {
        let found = macos(
            "machdep.cpu.brand_string: Apple M2 Pro\nhw.perflevel0.l1dcachesize: 131072\nhw.perflevel0.l2cachesize: 16777216\n\
             hw.optional.arm.FEAT_LSE: 1\nhw.optional.arm.FEAT_FP16: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n\
             hw.optional.arm.FEAT_BF16: 0\n",
        );
        let target = found.target(12);
        assert_eq!((found.nearest.name, target.l1d, target.l2, target.l3), ("apple-m2", 128 << 10, 16 << 20, 0));
        assert!(target.features.has(Feature::I8mm) && !target.features.has(Feature::Bf16));
        assert_eq!(target.triple, "aarch64-apple-darwin");
    }

    #[test]
    fn this_machine_is_found() {
        let native = crate::native();
        assert!(native.l1d > 0 && native.l2 > native.l1d);
        assert_eq!(crate::find("native"), Some(native));
    }
}
