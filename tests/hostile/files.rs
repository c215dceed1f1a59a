//! Cases that a text cannot say: broken bytes, tensors whose parts contradict one another, data outside the file, functions, and models that are much
//! larger than their files.

use crate::attempt::{Outcome, attempt_bytes};
use crate::cases::{Case, Expect, judge_all};
use crate::hostile::{self, Rng, proto::*};
use crate::sweep::{Fill, uses};
use crate::text;
use prost::Message;
use std::path::Path;

fn case(name: &str, expect: &str, model: Vec<u8>) -> Case {
    let expect = match expect {
        "any" => Expect::Any,
        "accept" => Expect::Accept,
        words => Expect::Refuse(words.split(' ').map(str::to_lowercase).collect()),
    };
    Case { name: name.into(), expect, model, inputs: None, beside: |_| {} }
}

/// `y = x · w` with `w` changed.
fn with_tensor(change: impl FnOnce(&mut TensorProto)) -> Vec<u8> {
    let mut model = text::model("x:f32[2] -> y; w:f32[2] = 1 2; bad: Mul x w -> y");
    change(&mut model.graph.as_mut().expect("a graph").initializer[0]);
    model.encode_to_vec()
}

fn with_model(text: &str, change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = text::model(text);
    change(&mut model);
    model.encode_to_vec()
}

const TANH: &str = "x:f32[4] -> y; bad: Tanh x -> y";

#[test]
fn bytes_that_are_no_model_are_refused() {
    let tanh = text::model(TANH).encode_to_vec();
    let mut all = vec![];
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("newline", b"\n"),
        ("json", b"{\"ir_version\": 8, \"graph\": {}}"),
        ("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        ("zip", b"PK\x03\x04\x14\0\0\0\x08\0"),
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("zeros", &[0; 4096]),
        ("ones", &[0xff; 4096]),
        ("numpy", b"\x93NUMPY\x01\0v\0{'descr': '<f4'}"),
        ("length past the end", b"\x3a\xff\xff\x03x"),
        ("length of 2^63", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("length of 2^64 and more", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        ("endless varint", &[0x80; 64]),
        ("field 0", b"\x02\x00"),
        ("end of a group", b"\x3c"),
        ("group", b"\x3b\x3b\x3b\x3b"),
        ("graph as a number", b"\x38\x05"),
        ("graph as 8 bytes", b"\x39\0\0\0\0\0\0\0\0"),
        ("version as text", b"\x0a\x01x"),
        ("wire type 7", b"\x3f"),
        ("version only", b"\x08\x08"),
        ("empty graph", b"\x08\x08\x3a\x00"),
    ] {
        all.push(case(name, "no model not graph group opset output version part", bytes.to_vec()));
    }
    let broken_name = |part: &str| {
        let at = tanh.windows(part.len()).position(|w| w == part.as_bytes()).expect("it is in there");
        let mut bytes = tanh.clone();
        bytes[at] = 0xff;
        bytes
    };
    all.push(case("name of a node that is no UTF-8", "UTF-8", broken_name("bad")));
    all.push(case("operator that is no UTF-8", "UTF-8", broken_name("Tanh")));
    all.push(case("no graph", "graph", with_model(TANH, |m| m.graph = None)));
    all.push(case("no version of the format", "version", with_model(TANH, |m| m.ir_version = None)));
    for version in [0, -1, 99, i64::MAX, i64::MIN] {
        all.push(case(&format!("format {version}"), "version", with_model(TANH, |m| m.ir_version = Some(version))));
    }
    all.push(case("no opset", "opset", with_model(TANH, |m| m.opset_import.clear())));
    all.push(case("bytes after the model", "any", [&tanh[..], b"\0\0"].concat()));
    all.push(case("the model twice", "any", [&tanh[..], &tanh[..]].concat()));
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tensors_that_contradict_themselves_are_refused() {
    let mut all = vec![];
    let mut add = |name: &str, expect: &str, change: &dyn Fn(&mut TensorProto)| all.push(case(name, expect, with_tensor(|t| change(t))));
    for len in [0, 1, 4, 7, 9, 12, 16] {
        add(&format!("raw data of {len} bytes"), "\"w\"", &|t| t.raw_data = Some(vec![0; len].into()));
    }
    for dims in [
        vec![-1],
        vec![-2],
        vec![i64::MIN],
        vec![-1, -2],
        vec![i64::MAX],
        vec![1 << 32, 1 << 32],
        vec![1 << 62, 4],
        vec![1 << 40],
        vec![2, 2],
        vec![3],
        vec![0],
        vec![0, i64::MAX, i64::MAX],
        vec![2; 100],
    ] {
        add(&format!("sizes {dims:?}"), "\"w\" \"bad\"", &|t| t.dims = dims.clone());
    }
    add("a thousand axes of 1", "any", &|t| t.dims = [&vec![1; 999][..], &[2]].concat());
    for code in [0, -1, 17, 27, 99, i32::MAX, i32::MIN] {
        add(&format!("type {code}"), "\"w\" \"bad\"", &|t| t.data_type = code);
    }
    add("strings", "string", &|t| (t.data_type, t.raw_data, t.string_data) = (8, None, vec!["a".into(), "b".into()]));
    add("no data", "\"w\"", &|t| t.raw_data = None);
    add("two kinds of data", "\"w\"", &|t| t.float_data = vec![1.0, 2.0]);
    add("data of another type", "\"w\"", &|t| (t.raw_data, t.int64_data) = (None, vec![1, 2]));
    add("too few elements", "\"w\"", &|t| (t.raw_data, t.float_data) = (None, vec![1.0]));
    add("too many elements", "\"w\"", &|t| (t.raw_data, t.float_data) = (None, vec![1.0; 3]));
    add("two lists", "\"w\"", &|t| (t.raw_data, t.float_data, t.double_data) = (None, vec![1.0; 2], vec![1.0; 2]));
    add("a segment", "\"w\"", &|t| t.segment = Some(Box::default()));
    add("location 7", "\"w\"", &|t| t.data_location = 7);
    add("no name", "name", &|t| t.name = String::new());
    add("elements that do not fit", "\"w\"", &|t| (t.data_type, t.raw_data, t.int32_data) = (3, None, vec![1, 1000]));
    let sparse = |change: &dyn Fn(&mut SparseTensorProto)| {
        with_model("x:f32[2,3] -> y; w:f32[2] = 1 2; bad: Mul x w -> y", |m| {
            let g = m.graph.as_mut().expect("a graph");
            let mut s =
                SparseTensorProto { values: g.initializer.pop(), indices: Some(text::constant("i:i64[2] = 1 4")), dims: vec![2, 3] };
            change(&mut s);
            g.sparse_initializer.push(s);
        })
    };
    let mut add = |name: &str, expect: &str, change: &dyn Fn(&mut SparseTensorProto)| all.push(case(name, expect, sparse(change)));
    add("sparse", "accept", &|_| {});
    for place in [6, -1, i64::MAX, i64::MIN] {
        add(&format!("sparse at {place}"), "\"w\"", &|s| s.indices = Some(text::constant(&format!("i:i64[2] = 1 {place}"))));
    }
    add("sparse twice at one place", "any", &|s| s.indices = Some(text::constant("i:i64[2] = 1 1")));
    add("sparse without values", "any", &|s| s.values = None);
    add("sparse without places", "\"w\"", &|s| s.indices = None);
    add("sparse with too few places", "\"w\"", &|s| s.indices = Some(text::constant("i:i64[1] = 1")));
    add("sparse places of floats", "\"w\"", &|s| s.indices = Some(text::constant("i:f32[2] = 1 4")));
    add("sparse places of the wrong depth", "\"w\"", &|s| s.indices = Some(text::constant("i:i64[2,3]")));
    add("huge when written out", "\"w\"", &|s| s.dims = vec![1 << 20, 1 << 20]);
    add("sparse of negative size", "\"w\"", &|s| s.dims = vec![-2, 3]);
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn beside(folder: &Path) {
    use std::os::unix::fs::symlink;
    let inside = folder.join("inside");
    std::fs::create_dir_all(&inside).expect("a folder");
    std::fs::create_dir_all(folder.join("../outside")).expect("a folder");
    for path in ["w.bin", "inside/w.bin", "../outside/w.bin"] {
        std::fs::write(folder.join(path), [1u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]).expect("written");
    }
    let _ = symlink("../outside/w.bin", folder.join("link.bin"));
    let _ = symlink("/etc/hostname", folder.join("absolute-link.bin"));
    let _ = symlink("../outside", folder.join("linked"));
    let _ = symlink("/dev/zero", folder.join("zero.bin"));
    let _ = symlink("loop.bin", folder.join("loop.bin"));
    let _ = symlink("w.bin", folder.join("good-link.bin"));
    let _ = std::process::Command::new("mkfifo").arg(folder.join("fifo.bin")).status();
}

#[test]
fn data_is_read_inside_the_folder_only() {
    let mut all = vec![];
    let external = |entries: &[(&str, &str)]| {
        with_tensor(|t| {
            (t.raw_data, t.data_location) = (None, 1);
            t.external_data = entries.iter().map(|(k, v)| StringStringEntryProto { key: k.to_string(), value: v.to_string() }).collect();
        })
    };
    let mut add = |name: &str, expect: &str, entries: &[(&str, &str)]| all.push(Case { beside, ..case(name, expect, external(entries)) });
    for good in ["w.bin", "inside/w.bin", "./w.bin", "good-link.bin"] {
        add(good, "accept", &[("location", good)]);
    }
    add("an offset", "accept", &[("location", "w.bin"), ("offset", "4"), ("length", "8")]);
    add("a checksum", "accept", &[("location", "w.bin"), ("checksum", "0000")]);
    for bad in [
        "../outside/w.bin",
        "inside/../../outside/w.bin",
        "link.bin",
        "absolute-link.bin",
        "linked/w.bin",
        "zero.bin",
        "loop.bin",
        "fifo.bin",
        "/etc/hostname",
        "/dev/zero",
        "inside",
        ".",
        "..",
        "",
        "missing.bin",
        "w.bin/x",
        "..\\outside\\w.bin",
        "C:\\w.bin",
        "file:///etc/hostname",
        "w.bin\0.txt",
        "//etc/hostname",
        "~/w.bin",
        "/proc/self/mem",
    ] {
        add(bad, "\"w\"", &[("location", bad)]);
    }
    add(&"d/".repeat(5000), "\"w\"", &[("location", &"d/".repeat(5000))]);
    add("no location", "\"w\"", &[("offset", "0")]);
    for offset in
        ["8", "12", "13", "-1", "18446744073709551615", "18446744073709551608", "9223372036854775807", "99999999999999999999", "x", "1e3"]
    {
        add(&format!("offset {offset}"), "\"w\"", &[("location", "w.bin"), ("offset", offset)]);
    }
    for length in ["0", "7", "9", "-8", "18446744073709551615", "x"] {
        add(&format!("length {length}"), "\"w\"", &[("location", "w.bin"), ("length", length)]);
    }
    let both = with_tensor(|t| {
        t.data_location = 1;
        t.external_data = vec![StringStringEntryProto { key: "location".into(), value: "w.bin".into() }];
    });
    all.push(Case { beside, ..case("data in both places", "\"w\"", both) });
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A function `f.name` of a text as for a graph.
fn function(name: &str, text: &str) -> FunctionProto {
    let g = text::graph(text);
    let names = |ports: &[ValueInfoProto]| ports.iter().map(|p| p.name.clone()).collect();
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    FunctionProto {
        name: name.into(),
        domain: "f".into(),
        input: names(&g.input),
        output: names(&g.output),
        node: g.node,
        opset_import: vec![opset("", 21), opset("f", 1)],
        ..Default::default()
    }
}

#[test]
fn functions_do_no_harm() {
    let calls = |functions: Vec<FunctionProto>, text: &str| with_model(&format!("f:opset=1; {text}"), |m| m.functions = functions);
    let one = "x:f32[2] -> y; bad: f.F x -> y";
    let chain = |n: usize, times: usize| -> Vec<FunctionProto> {
        let step = |k: usize| {
            let body: String = (0..times).map(|i| format!("f.F{} v{i} -> v{}; ", k - 1, i + 1)).collect();
            function(&format!("F{k}"), &format!("v0 -> v{times}; {body}"))
        };
        [function("F0", "a -> b; Neg a -> b")].into_iter().chain((1..n).map(step)).collect()
    };
    let all = [
        case("a function", "accept", calls(vec![function("F", "a -> b; Neg a -> b")], one)),
        case("calls itself", "itself F", calls(vec![function("F", "a -> b; f.F a -> b")], one)),
        case(
            "two call one another",
            "itself F G",
            calls(vec![function("F", "a -> b; f.G a -> b"), function("G", "a -> b; f.F a -> b")], one),
        ),
        case("calls itself, unused", "itself F", calls(vec![function("F", "a -> b; f.F a -> b")], TANH)),
        case("twice", "F", calls(vec![function("F", "a -> b; Neg a -> b"), function("F", "a -> b; Abs a -> b")], one)),
        case("no such function", "F bad", calls(vec![function("G", "a -> b; Neg a -> b")], one)),
        case("output not made", "F b", calls(vec![function("F", "a -> b; Neg a -> c")], one)),
        case("too many inputs", "bad", calls(vec![function("F", "-> b; Constant{value_float=1.0} -> b")], one)),
        case("undefined inside", "phantom", calls(vec![function("F", "a -> b; Add a phantom -> b")], one)),
        case("a name from outside", "x", calls(vec![function("F", "a -> b; Add a x -> b")], one)),
        case("unknown operator inside", "Mystery", calls(vec![function("F", "a -> b; Mystery a -> b")], one)),
        case("a cycle inside", "cycl", calls(vec![function("F", "a -> b; n1: Add a c -> b; n2: Neg b -> c")], one)),
        case("doubles 40 times", "deep", calls(chain(40, 2), "x:f32[2] -> y; bad: f.F39 x -> y")),
        case("grows tenfold 20 times", "nodes", calls(chain(20, 10), "x:f32[2] -> y; bad: f.F19 x -> y")),
        case("20 deep", "accept", calls(chain(20, 1), "x:f32[2] -> y; bad: f.F19 x -> y")),
        case("1000 deep", "deep", calls(chain(1000, 1), "x:f32[2] -> y; bad: f.F999 x -> y")),
        case("no opset inside", "opset F", calls(vec![FunctionProto { opset_import: vec![], ..function("F", "a -> b; Neg a -> b") }], one)),
    ];
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn large_models_are_compiled_or_refused_in_time() {
    let chain = |n: usize, op: &str| {
        let step = |i: usize| {
            format!(
                "{op} {} -> {}; ",
                if i == 0 { "x".into() } else { format!("t{}", i - 1) },
                if i + 1 == n { "y".into() } else { format!("t{i}") }
            )
        };
        let nodes: String = (0..n).map(step).collect();
        text::model(&format!("x:f32[4] -> y; {nodes}")).encode_to_vec()
    };
    let nested = |depth: usize| {
        let mut body = "-> t; Neg x -> t".to_string();
        for _ in 0..depth {
            body = format!("-> t; If{{then_branch=({body}),else_branch=( -> e; Abs x -> e)}} c -> t");
        }
        text::model(&format!("c:bool[] x:f32[2] -> t; {}", body.trim_start_matches("-> t; "))).encode_to_vec()
    };
    let wide = |n: usize| {
        let nodes: String = (0..n).map(|i| format!("Exp x -> t{i}; ")).collect();
        let names: Vec<String> = (0..n).map(|i| format!("t{i}")).collect();
        text::model(&format!("x:f32[4] -> y; {nodes} Concat{{axis=0}} {} -> y", names.join(" "))).encode_to_vec()
    };
    let endless = "x:f32[2] -> y; big:f32[] = 1e30; go:bool[] = 1; \
                   bad: Loop{body=(i:i64[] c:bool[] v:f32[2] -> d w; ReduceSum{keepdims=0} v -> s; Less s big -> d; Identity v -> w)} _ go x -> y";
    let mut all = vec![
        case("chain of 3000", "accept", chain(3000, "Tanh")),
        case("chain of 20000 that changes nothing", "accept", chain(20_000, "Identity")),
        case("chain of 400000", "max-nodes", chain(400_000, "Neg")),
        case("20 bodies deep", "accept", nested(20)),
        case("60 bodies deep", "deep", nested(60)),
        case("concatenation of 2000", "accept", wide(2000)),
    ];
    let input = dnnc::frontend::encode_tensor("x", &text::tensor("f32[2] = 1 2"));
    all.push(Case { inputs: Some(vec![input]), ..case("a loop without end", "loop end", text::model(endless).encode_to_vec()) });
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn values_that_are_no_tensors_are_refused() {
    let typed = |set: &dyn Fn(&mut TypeProto)| {
        with_model("x:f32[2] -> y; bad: Identity x -> y", |m| {
            let ty = m.graph.as_mut().expect("a graph").input[0].r#type.as_mut().expect("a type");
            ty.tensor = None;
            set(ty);
        })
    };
    let graph = |text: &str, change: &dyn Fn(&mut GraphProto)| with_model(text, |m| change(m.graph.as_mut().expect("a graph")));
    let with_constant = "x:f32[2] -> y; w:f32[2] = 1 2; bad: Mul x w -> y";
    let all = [
        case("sequence", "\"x\"", typed(&|t| t.sequence = Some(OpaqueProto {}))),
        case("map", "\"x\"", typed(&|t| t.map = Some(OpaqueProto {}))),
        case("optional", "\"x\"", typed(&|t| t.optional = Some(OpaqueProto {}))),
        case("sparse tensor", "\"x\"", typed(&|t| t.sparse_tensor = Some(OpaqueProto {}))),
        case("opaque", "\"x\"", typed(&|t| t.opaque = Some(OpaqueProto {}))),
        case("nothing", "\"x\"", typed(&|_| {})),
        case("sequence of a node", "SequenceConstruct bad", text::model("x:f32[2] -> y; bad: SequenceConstruct x -> y").encode_to_vec()),
        case("negative size of an input", "\"x\"", text::model("x:f32[-3] -> y; bad: Identity x -> y").encode_to_vec()),
        case("nameless input", "name", graph(TANH, &|g| g.input[0].name.clear())),
        case("nameless output", "output", graph(TANH, &|g| g.output[0].name.clear())),
        case("nameless nodes", "accept", graph(TANH, &|g| g.node[0].name.clear())),
        case("nameless graph", "accept", graph(TANH, &|g| g.name.clear())),
        case("default of an input", "accept", graph(with_constant, &|g| g.input.push(text::graph("w:f32[2] -> ").input.remove(0)))),
        case("default of another shape", "\"w\"", graph(with_constant, &|g| g.input.push(text::graph("w:f32[3] -> ").input.remove(0)))),
        case("default of another type", "\"w\"", graph(with_constant, &|g| g.input.push(text::graph("w:i64[2] -> ").input.remove(0)))),
        case("declared otherwise inside", "bad \"t\"", {
            graph("x:f32[2] -> y; bad: Abs x -> t; Neg t -> y", &|g| g.value_info.push(text::graph("t:i64[2] -> ").input.remove(0)))
        }),
        case(
            "long names",
            "accept",
            graph(TANH, &|g| {
                let long = "n".repeat(100_000);
                (g.node[0].name, g.node[0].output[0], g.output[0].name) = (long.clone(), long.clone(), long);
            }),
        ),
        case("a name of control characters", "phantom", graph(TANH, &|g| g.node[0].input[0] = "phantom\u{1b}[2J\u{7}\n".into())),
    ];
    let wrong = judge_all(&all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each length at which a file can be cut short, single bits, spliced parts.
#[test]
fn broken_bytes_do_no_harm() {
    let mut wrong = vec![];
    let seeds: Vec<Vec<u8>> = uses().into_iter().map(|(_, m)| m.encode_to_vec()).collect();
    let mut rng = Rng::new(1);
    let mut check = |what: String, bytes: &[u8]| {
        let outcome = attempt_bytes(bytes, Fill::Ones);
        if matches!(outcome, Outcome::Panicked(_) | Outcome::Slow(_)) {
            wrong.push(format!("{what}: {outcome:?}"));
        }
    };
    let thorough = std::env::var_os("DNNC_EXHAUSTIVE").is_some();
    for (k, seed) in seeds.iter().enumerate() {
        for len in (0..seed.len()).skip(k % 7).step_by(if thorough { 1 } else { 17 }) {
            check(format!("use {k} cut at {len}"), &seed[..len]);
        }
        for turn in 0..if thorough { 200 } else { 4 } {
            let mut bytes = seed.clone();
            for _ in 0..1 + rng.below(3) {
                let (at, other) = (rng.below(bytes.len()), &seeds[rng.below(seeds.len())]);
                match rng.below(5) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes[at] = rng.below(256) as u8,
                    2 => drop(bytes.remove(at)),
                    3 => bytes.insert(at, rng.below(256) as u8),
                    _ => {
                        let from = rng.below(other.len());
                        let part = &other[from..(from + 1 + rng.below(40)).min(other.len())];
                        bytes.splice(at..at, part.iter().copied());
                    }
                }
            }
            check(format!("use {k} broken, turn {turn}"), &bytes);
        }
        for turn in 0..if thorough { 200 } else { 4 } {
            let Some(bytes) = hostile::mutate(seed, &mut rng) else { continue };
            check(format!("use {k} changed, turn {turn}"), &bytes);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
