//! Cases by class (`cases.txt`): each goes through the command line, in a process with little memory and time.

use crate::text;
use dnnc::frontend::encode_tensor;
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What a correct compiler does.
#[derive(Clone, PartialEq, Debug)]
pub enum Expect {
    /// Refuses, with one of these words in its message.
    Refuse(Vec<String>),
    Accept,
    /// Either, without harm.
    Any,
}

/// A model, what is fed to it, and what is expected.
pub struct Case {
    /// Class and name.
    pub name: String,
    pub expect: Expect,
    /// The bytes of the model file.
    pub model: Vec<u8>,
    /// The bytes of the files of its inputs; `None`: the model is compiled only.
    pub inputs: Option<Vec<Vec<u8>>>,
    /// Other files beside the model, which are made before it runs.
    pub beside: fn(&Path),
}

/// The cases of a text.
fn cases(text: &str) -> Vec<Case> {
    let (mut all, mut class) = (vec![], "");
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match line.strip_prefix("= ") {
            Some(name) => class = name,
            None => all.extend(expand(line).iter().map(|line| case(class, line))),
        }
    }
    all
}

fn case(class: &str, line: &str) -> Case {
    let fields: Vec<&str> = line.split(" | ").map(|f| f.trim().trim_end_matches(" |")).collect();
    let [name, expect, model, inputs @ ..] = &fields[..] else { panic!("too few fields: {line}") };
    let fed = line.ends_with('|') || !inputs.is_empty();
    let tensors = inputs.first().map_or(vec![], |i| i.split(';').map(str::trim).filter(|t| !t.is_empty()).collect());
    let expect = match expect.split_once(' ').unwrap_or((expect, "")) {
        ("refuse", words) => Expect::Refuse(words.split(' ').map(str::to_lowercase).collect()),
        ("accept", _) => Expect::Accept,
        ("any", _) => Expect::Any,
        (other, _) => panic!("`{other}` in: {line}"),
    };
    Case {
        name: format!("{class}/{name}"),
        expect,
        model: text::model(model).encode_to_vec(),
        inputs: fed.then(|| tensors.iter().map(|t| encode_tensor("", &text::tensor(t))).collect()),
        beside: |_| {},
    }
}

/// Writes out `<a¦b>`: equal ones change together.
fn expand(line: &str) -> Vec<String> {
    let Some(bar) = line.find('¦') else { return vec![line.to_string()] };
    let start = line[..bar].rfind('<').unwrap_or_else(|| panic!("no `<` in: {line}"));
    // The `>` of an arrow is none.
    let end = line[bar..].char_indices().find(|(i, c)| *c == '>' && !line[..bar + i].ends_with('-')).map(|(i, _)| bar + i);
    let group = &line[start..=end.unwrap_or_else(|| panic!("no `>` in: {line}"))];
    group[1..group.len() - 1].split('¦').flat_map(|choice| expand(&line.replace(group, choice))).collect()
}

/// Runs `dnnc run` on a case with 2 GiB of memory and 20 s, as a judge would; what is wrong.
fn judge(case: &Case, folder: &Path) -> Option<String> {
    std::fs::create_dir_all(folder).expect("a folder");
    let model = folder.join("model.onnx");
    std::fs::write(&model, &case.model).expect("written");
    (case.beside)(folder);
    let out = folder.join("out");
    let mut args: Vec<PathBuf> = vec!["--output-dir".into(), out.clone(), model];
    for (i, bytes) in case.inputs.iter().flatten().enumerate() {
        let path = folder.join(format!("input_{i}.pb"));
        std::fs::write(&path, bytes).expect("written");
        args.push(path);
    }
    let limits = "ulimit -v 2097152; ulimit -t 20; ulimit -c 0; exec \"$0\" run \"$@\"";
    let done = Command::new("sh").args(["-c", limits, env!("CARGO_BIN_EXE_dnnc")]).args(args).output().expect("sh runs");
    let message = String::from_utf8_lossy(&done.stderr).into_owned();
    let written = out.exists();
    let _ = std::fs::remove_dir_all(folder);
    let wrong = match (&case.expect, done.status.code()) {
        (_, Some(1)) if !message.starts_with("error: ") && !message.contains("\nerror: ") => Some("no error is said"),
        (_, Some(1)) if written => Some("refused, and something was written"),
        (_, Some(1)) if message.contains("this is a bug") || message.contains("please report") => Some("a defect of dnnc"),
        (Expect::Refuse(words), Some(1)) => {
            let message = message.to_lowercase();
            (!words.iter().any(|w| message.contains(w))).then_some("names nothing")
        }
        (Expect::Refuse(_), Some(0)) => Some("accepted"),
        (Expect::Accept, Some(1)) => Some("refused"),
        (_, Some(0 | 1)) => None,
        _ => Some("DIED"),
    };
    wrong.map(|what| format!("{what}: {}  [{:?}]\n    {}", case.name, done.status.code(), message.trim_end().replace('\n', "\n    ")))
}

/// Judges cases, two at a time; all that is wrong.
pub fn judge_all(cases: &[Case]) -> Vec<String> {
    let (next, wrong) = (Mutex::new(cases.iter().enumerate()), Mutex::new(vec![]));
    let root = tempfile::tempdir().expect("a temporary folder");
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let Some((i, case)) = next.lock().expect("no thread panics").next() else { break };
                    let bad = judge(case, &root.path().join(format!("{i}/model")));
                    wrong.lock().expect("no thread panics").extend(bad.map(|b| (i, b)));
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("no thread panics");
    wrong.sort();
    wrong.into_iter().map(|w| w.1).collect()
}

#[test]
fn each_case_is_judged_right() {
    let only = std::env::var("DNNC_CASE").unwrap_or_default();
    let cases: Vec<Case> = cases(include_str!("cases.txt")).into_iter().filter(|c| c.name.contains(&only)).collect();
    let wrong = judge_all(&cases);
    eprintln!("{} cases", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
