//! Packs: equal answers, shared constants, damage, interrupted writes, the command line.

mod common;

use dnnc::pack::{self, Packed, Source};
use dnnc::runtime::pack::executor;
use dnnc::runtime::pack::file::Pack;
use dnnc::runtime::plan::load::Job;
use dnnc::runtime::plan::random::Random;
use dnnc::runtime::pool::Pool;
use dnnc::{Options, Tensor};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SMALL: [&str; 3] = ["lenet-300-100", "lenet-5", "bonsai-depth3"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).join("model.onnx")
}

fn shapes(model: &dnnc::frontend::Model) -> Result<Vec<Vec<usize>>, dnnc::Error> {
    Ok(dnnc::bind(model.inputs(), &Default::default())?.0)
}

fn packed(names: &[&str]) -> (Vec<Source>, Packed) {
    let sources = pack::sources(&names.iter().map(|n| path(n)).collect::<Vec<_>>(), None).expect("names");
    let made = pack::pack(&sources, &Options::default(), 0, None, shapes, |_| {}).expect("a pack");
    (sources, made)
}

fn written(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("test.pack");
    std::fs::write(&path, bytes).expect("written");
    path
}

/// The results of all models of a pack.
fn results(file: &Pack, pool: Option<&Pool>) -> Result<Vec<Vec<Tensor>>, dnnc::Error> {
    let mut arena = executor::arena(file);
    let run = |(i, entry)| pack::run(file, i, &pack::sample_inputs(entry)?, &mut arena, pool);
    file.contents().models.iter().enumerate().map(run).collect()
}

fn bits(all: &[Vec<Tensor>]) -> Vec<Vec<Vec<u8>>> {
    all.iter().map(|r| r.iter().map(|t| t.bytes().to_vec()).collect()).collect()
}

#[test]
fn answers_are_those_of_separate_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sources, made) = packed(&SMALL);
    let file = pack::open(&written(folder.path(), &made.bytes)).expect("a pack");
    assert_eq!(sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), SMALL);
    let want: Vec<Vec<Tensor>> = sources
        .iter()
        .zip(&file.contents().models)
        .map(|(s, entry)| {
            dnnc::compile(&s.path, &Options::default()).expect("a model").run(&pack::sample_inputs(entry).expect("inputs")).expect("a run")
        })
        .collect();
    assert_eq!(bits(&results(&file, None).expect("runs")), bits(&want));
    assert_eq!(bits(&results(&file, Some(&Pool::new(2))).expect("runs")), bits(&want));
    // Four clients at once, each with an arena of its own.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(bits(&results(&file, None).expect("runs")), bits(&want))));
        }
    });
    // The executor in every order, within the memory of the largest model.
    let limit = file.contents().models.iter().map(|m| m.bytes() as u64).max().expect("models");
    let jobs: Vec<Job> = file.contents().models.iter().map(|m| Job { load: 1.0, compute: 1.0, bytes: m.bytes() as u64 }).collect();
    for overlap in [false, true] {
        file.make_cold();
        let plan = executor::plan(&file, &jobs, limit).expect("each model fits");
        let mut arena = executor::arena(&file);
        let mut ran = vec![0; SMALL.len()];
        let done = executor::execute(&file, &plan, limit, overlap, |m| {
            let inputs = pack::sample_inputs(file.model(m)).expect("inputs");
            assert_eq!(bits(&[pack::run(&file, m, &inputs, &mut arena, None).expect("a run")]), bits(&want[m..=m]));
            ran[m] += 1;
            Ok(())
        });
        assert_eq!((done.expect("a round").len(), ran), (3, vec![1, 1, 1]));
    }
    assert!(executor::plan(&file, &jobs, limit - 1).expect_err("too little").to_string().contains("raise --ram"));
}

#[test]
fn equal_models_are_stored_once_and_bytes_are_the_same_each_time() {
    let (one, two) = (packed(&SMALL[..1]).1, packed(&["lenet-300-100", "lenet-300-100"]).1);
    assert_eq!((one.constants * 2, one.stored), (two.constants, two.stored));
    assert!(two.bytes.len() < one.bytes.len() + one.bytes.len() / 50, "{} {}", one.bytes.len(), two.bytes.len());
    assert_eq!(packed(&SMALL[..1]).1.bytes, one.bytes);
}

#[test]
fn damaged_packs_are_refused_or_give_equal_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, made) = packed(&["lenet-5", "bonsai-depth3"]);
    let want = bits(&results(&pack::open(&written(folder.path(), &made.bytes)).expect("a pack"), None).expect("runs"));
    let (mut random, mut refused) = (Random(5), 0);
    for round in 0..200 {
        let mut bytes = made.bytes.clone();
        match round % 4 {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes.extend(vec![0; 1 + random.below(5000)]),
            2 => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            _ => {
                // Near the beginning and the end, where header and contents are.
                let at = if round % 8 == 3 { random.below(96) } else { bytes.len() - 1 - random.below(2000) };
                bytes[at] = bytes[at].wrapping_add(1 + random.below(255) as u8);
            }
        }
        // A file of its own: what is mapped must not be written to.
        let path = folder.path().join(format!("{round}.pack"));
        std::fs::write(&path, &bytes).expect("written");
        match pack::open(&path).and_then(|file| results(&file, None)) {
            Ok(all) => assert_eq!(bits(&all), want, "round {round}"),
            Err(e) => {
                assert!(e.to_string().contains(&format!("{round}.pack")), "{e}");
                refused += 1;
            }
        }
        std::fs::remove_file(&path).expect("removed");
    }
    assert_eq!(refused, 200, "every byte belongs to a checksum");
}

fn dnnc(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dnnc"));
    command.args(args);
    command
}

#[test]
fn an_interrupted_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (packed(&SMALL[..1]).1.bytes, packed(&SMALL[1..2]).1.bytes);
    let file = written(folder.path(), &old);
    let (target, model) = (file.display().to_string(), path("lenet-5").display().to_string());
    // The system ends the process in the middle of the file (blocks of 512 bytes).
    let bin = env!("CARGO_BIN_EXE_dnnc");
    let limited =
        Command::new("sh").args(["-c", &format!("ulimit -f 40; '{bin}' pack '{model}' -o '{target}'")]).output().expect("a shell");
    assert!(!limited.status.success());
    assert!(std::fs::read(&file).expect("there") == old);
    for delay in [1, 20, 60, 120, 240, 480] {
        let mut child = dnnc(&["pack", &model, "-o", &target]).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let found = std::fs::read(&file).expect("there");
        assert!(found == old || found == new, "after {delay} ms");
    }
}

#[test]
fn the_command_line_packs_runs_and_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let run = |args: &[&str]| {
        let out = dnnc(args).output().expect("a run");
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let models: Vec<String> = SMALL.iter().map(|n| path(n).display().to_string()).collect();
    let (ok, out, err) = run(&["pack", &models[0], &models[1], &models[2], "-o", &at("a.pack")]);
    assert!(ok && out.contains("without sharing"), "{out}{err}");
    let (ok, out, err) = run(&["run", &at("a.pack"), "--cold"]);
    assert!(ok && out.contains("makespan_ms") && out.contains("lenet-5: f32[1,10] mean"), "{out}{err}");
    let (ok, _, err) = run(&["run", &at("a.pack"), "--ram", "64K"]);
    assert!(!ok && err.contains("--ram"), "{err}");
    let (ok, _, err) = run(&["run", &at("a.pack"), "--model", "nobody"]);
    assert!(!ok && err.contains("lenet-300-100, lenet-5, bonsai-depth3"), "{err}");
    let (ok, out, err) = run(&["inspect", &at("a.pack")]);
    assert!(ok && out.contains("3 models"), "{out}{err}");

    let row = |name: &str, accuracy, ms| {
        format!(r#"{{"file": "{}", "model": "digits", "accuracy": {accuracy}, "ms": {ms}}}"#, path(name).display())
    };
    std::fs::write(at("front.json"), format!(r#"{{"variants": [{}, {}]}}"#, row("lenet-300-100", 0.9, 1.0), row("lenet-5", 0.99, 5.0)))
        .expect("written");
    let (ok, out, err) = run(&["pack", "--catalog", &at("front.json"), "-o", &at("digits.pack")]);
    assert!(ok, "{out}{err}");
    let requests: Vec<String> = (0..300).map(|i| format!(r#"[{}, "digits"]"#, f64::from(i) / 10.0)).collect();
    std::fs::write(at("t.json"), format!("[{}]", requests.join(","))).expect("written");
    let (ok, out, err) = run(&["serve", &at("digits.pack"), "--budget", "30ms/s", "--trace", &at("t.json"), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert!(ok && report["served"] == 300 && report["peak_of_budget"].as_f64().expect("a number") <= 1.0, "{out}");
    assert!(report["mean_accuracy"].as_f64() > Some(0.95 * report["offline_optimum"].as_f64().expect("a number")), "{out}");

    std::fs::write(at("seconds.json"), r#"{"seconds": 2}"#).expect("written");
    let stages = "cores = 2\n[[stage]]\nname = \"vad\"\nrate = 100\ncompute_ms = 0.4\ndeadline_ms = 50\npass = 0.1\n[[stage]]\nname = \"speech\"\nafter = \"vad\"\ncompute_ms = 6.0\ndeadline_ms = 200\n";
    std::fs::write(at("p.toml"), stages).expect("written");
    let (ok, out, err) = run(&["serve", &at("p.toml"), "--simulate", &at("seconds.json"), "--chart", &at("chart.json")]);
    assert!(ok && out.contains(" 0 late"), "{out}{err}");
    let chart: serde_json::Value = serde_json::from_slice(&std::fs::read(at("chart.json")).expect("there")).expect("JSON");
    assert!(chart["traceEvents"].as_array().is_some_and(|e| e.len() > 200));
    std::fs::write(at("bad.toml"), stages.replace("vad\"\ncompute_ms = 6", "nobody\"\ncompute_ms = 6")).expect("written");
    let (ok, _, err) = run(&["serve", &at("bad.toml"), "--simulate", &at("seconds.json")]);
    assert!(!ok && err.contains("no stage `nobody`"), "{err}");

    let (ok, out, err) = run(&["pack", &models[0], &models[1], "-o", &at("pack.o")]);
    assert!(ok, "{out}{err}");
    std::fs::write(at("main.c"), "#include \"pack.h\"\nint main(void) { return lenet_5_run == 0 || lenet_300_100_run == 0 || DNNC_PACK_PACK_ARENA_BYTES < LENET_5_ARENA_BYTES; }\n").expect("written");
    let cc = Command::new("cc").current_dir(folder.path()).args(["main.c", "pack.o", "-o", "main"]).output().expect("a C compiler");
    assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
    assert!(Command::new(folder.path().join("main")).status().expect("a run").success());
}
