//! One program, every way it can run: interpreter, JIT, linked object, object of another machine under an emulator.

use super::*;
use crate::jit::Jit;
use crate::testing::{Folder, exists, linked, run};
use dnnc_ir::{TensorType, Type};
use dnnc_kir::interpret;
use dnnc_kir::program::{Call, Loc, Step};
use dnnc_kir::testing::{Case, every_op, random};
use dnnc_kir::{Bin, Builder, Cmp, Elem, Fold, Ty};
use std::path::Path;
use std::process::Command;

fn call(kernel: usize, args: Vec<Loc>, tasks: usize) -> Step {
    Step::Call(Call { kernel, args, tasks, label: format!("k{kernel}"), work: 1, traffic: 1, ..Call::default() })
}

fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

const ROWS: usize = 13;
const COLUMNS: usize = 19;

/// Rows are scaled by a constant in parallel tasks; their sums decide which of two branches runs; a loop doubles a number until a condition fails; a
/// negative first element is status 3.
fn sample() -> Program {
    let v = Ty::vector(Elem::F32, 8);
    let mut b = Builder::new("scale rows", 4);
    let (x, w, y) = (b.element(b.param(0), b.task(), 4 * COLUMNS), b.param(1), b.element(b.param(2), b.task(), 4 * COLUMNS));
    let mut total = b.number(v, 0.0);
    for at in (0..COLUMNS).step_by(8) {
        let n = (COLUMNS - at).min(8);
        let (a, s) = (b.load_part(v, x, 4 * at as i32, n), b.load_part(v, w, 4 * at as i32, n));
        let z = b.mul(a, s);
        total = b.add(total, z);
        b.store_part(z, y, 4 * at as i32, n);
    }
    let sum = b.reduce(Fold::Add, total);
    let to = b.element(b.param(3), b.task(), 4);
    b.store(sum, to, 0);
    let first = b.load(Ty::F32, x, 0);
    let zero = b.number(Ty::F32, 0.0);
    let bad = b.cmp(Cmp::Lt, first, zero);
    b.when(bad, |b| b.fail(dnnc_runtime::abi::DIVISION));
    let scale = b.finish();

    // flag = sums[0] < sums[1]; also sets up the loop: trip = 100, go = 1, number = 1.
    let mut b = Builder::new("prepare", 2);
    let (p, q) = (b.load(Ty::F32, b.param(0), 0), b.load(Ty::F32, b.param(0), 4));
    let less = b.cmp(Cmp::Lt, p, q);
    let one = b.int(Ty::scalar(Elem::I8), 1);
    let zero = b.int(Ty::scalar(Elem::I8), 0);
    let flag = b.branch(less, |_| vec![one], |_| vec![zero]);
    b.store(flag[0], b.param(1), 0);
    b.store(one, b.param(1), 1);
    let (trip, number) = (b.index(100), b.index(1));
    b.store(trip, b.param(1), 8);
    b.store(number, b.param(1), 16);
    let prepare = b.finish();

    // number = 2·number + iteration, go = number < 1000
    let mut b = Builder::new("grow", 1);
    let (n, i) = (b.load(Ty::I64, b.param(0), 16), b.load(Ty::I64, b.param(0), 24));
    let two = b.mul_int(n, 2);
    let n = b.add(two, i);
    b.store(n, b.param(0), 16);
    let limit = b.index(1000);
    let go = b.cmp(Cmp::Lt, n, limit);
    let (one, zero) = (b.int(Ty::scalar(Elem::I8), 1), b.int(Ty::scalar(Elem::I8), 0));
    let go = b.branch(go, |_| vec![one], |_| vec![zero]);
    b.store(go[0], b.param(0), 1);
    let grow = b.finish();

    // result = sums ± number
    let finish = |name: &str, op: Bin| {
        let mut b = Builder::new(name, 3);
        let n = b.load(Ty::I64, b.param(1), 0);
        let n = b.conv(dnnc_kir::Conv::IntToFloat, n, Elem::F32);
        let x = b.element(b.param(0), b.task(), 4);
        let x = b.load(Ty::F32, x, 0);
        let y = b.bin(op, x, n);
        let to = b.element(b.param(2), b.task(), 4);
        b.store(y, to, 0);
        b.finish()
    };
    let sums = 64;
    let state = 128;
    let port = |name: &str, shape: &[usize]| (name.to_string(), TensorType::new(Type::F32, shape));
    Program {
        name: "net".into(),
        kernels: vec![scale, prepare, grow, finish("plus", Bin::Add), finish("minus", Bin::Sub)],
        constants: vec![vec![7; 3], f32s((0..COLUMNS).map(|i| i as f32 / 4.0 - 1.0))],
        steps: vec![
            call(0, vec![Loc::Input(0, 0), Loc::Const(1, 0), Loc::Output(1, 0), Loc::Arena(sums)], ROWS),
            call(1, vec![Loc::Arena(sums), Loc::Arena(state)], 1),
            Step::Loop {
                trip: Loc::Arena(state + 8),
                cond: Loc::Arena(state + 1),
                iter: Loc::Arena(state + 24),
                max_trip: 50,
                body: vec![call(2, vec![Loc::Arena(state)], 1)],
            },
            Step::If {
                cond: Loc::Arena(state),
                then: vec![call(3, vec![Loc::Arena(sums), Loc::Arena(state + 16), Loc::Output(0, 0)], ROWS)],
                otherwise: vec![call(4, vec![Loc::Arena(sums), Loc::Arena(state + 16), Loc::Output(0, 0)], ROWS)],
            },
        ],
        inputs: vec![port("x", &[ROWS, COLUMNS])],
        outputs: vec![port("sums", &[ROWS]), port("scaled", &[ROWS, COLUMNS])],
        arena_bytes: 192,
    }
}

/// The same with so many steps, outside and inside of loops and branches, that they are functions of several parts.
fn large() -> Program {
    let mut program = sample();
    let again = |step: &Step| vec![step.clone(); 1100];
    let Step::If { cond, then, otherwise } = program.steps.pop().expect("the last step") else { unreachable!("it is a branch") };
    let Step::Loop { body, .. } = &mut program.steps[2] else { unreachable!("it is a loop") };
    body.splice(0..0, again(&then[0]));
    let inner = Step::If { cond, then: again(&then[0]), otherwise: again(&otherwise[0]) };
    let outer = |step: &Step| [vec![inner.clone()], again(step), vec![inner.clone()]].concat();
    program.steps.push(Step::If { cond, then: outer(&then[0]), otherwise: outer(&otherwise[0]) });
    program.steps.splice(0..0, again(&program.steps[0]));
    program
}

/// Inputs of [`sample`] that take either branch, and one that fails.
fn inputs() -> [Vec<u8>; 3] {
    let number = |i: usize| (i * 7 % 23) as f32 / 2.0;
    let up = f32s((0..ROWS * COLUMNS).map(number));
    let down = f32s((0..ROWS * COLUMNS).map(|i| number(ROWS * COLUMNS - 1 - i)));
    let bad = f32s((0..ROWS * COLUMNS).map(|i| if i == 5 * COLUMNS { -1.0 } else { 1.0 }));
    [up, down, bad]
}

#[test]
fn branches_loops_and_tasks_mean_the_same_to_interpreter_and_jit() {
    let program = sample();
    let reference: Vec<_> = inputs().iter().map(|x| interpret::run(&program, &[x])).collect();
    assert_ne!(reference[0], reference[1]);
    for (program, threads) in [(sample(), 1), (sample(), 4), (large(), 1), (large(), 4)] {
        let jit = Jit::new(program, dnnc_targets::native(), threads).unwrap();
        let mut arena = jit.arena();
        for _ in 0..3 {
            for (x, want) in inputs().iter().zip(&reference) {
                let mut sums = vec![0; 4 * ROWS];
                let mut scaled = vec![0; 4 * ROWS * COLUMNS];
                let status = jit.run(&[x], &mut [&mut sums, &mut scaled], &mut arena);
                match want {
                    Ok(want) => assert_eq!((status, &vec![sums, scaled]), (Ok(()), want)),
                    Err(why) => assert_eq!(&status.unwrap_err().to_string(), why),
                }
            }
        }
    }
}

#[test]
fn the_same_program_gives_the_same_bytes() {
    for target in dnnc_targets::instruction_sets() {
        assert!(emit(&sample(), target).unwrap().bytes == emit(&sample(), target).unwrap().bytes, "{}", target.name);
    }
}

#[test]
fn objects_link_into_c_programs() {
    let program = sample();
    let check = |target: &str, cc: &[&str], runner: &[&str]| {
        let mut statuses = vec![];
        for x in inputs() {
            let outputs = [vec![0; 4 * ROWS], vec![0; 4 * ROWS * COLUMNS]];
            for (status, results) in linked(&program, target, cc, runner, std::slice::from_ref(&x), &outputs) {
                statuses.push(status);
                if let Ok(want) = interpret::run(&program, &[&x]) {
                    assert_eq!(results, want, "{target}");
                }
            }
        }
        let bad = dnnc_runtime::abi::DIVISION;
        assert_eq!(statuses, [0, 0, 0, 0, bad, bad]);
    };
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) && exists("cc") {
        for target in ["x86-64", dnnc_targets::native().name] {
            check(target, &["cc", "-fPIE", "-pie"], &[]);
            check(target, &["cc", "-static"], &[]);
        }
    }
    if exists("aarch64-linux-gnu-gcc") && exists("qemu-aarch64") {
        check("aarch64", &["aarch64-linux-gnu-gcc", "-static"], &["qemu-aarch64"]);
    }
}

/// Every symbol an object asks the linker for, by `nm`.
fn undefined(object: &Path) -> String {
    run(Command::new("nm").arg("-u").arg(object))
}

#[test]
fn objects_ask_for_nothing_and_make_shared_libraries() {
    if !exists("nm") {
        return;
    }
    let folder = Folder::new("undefined");
    let object = folder.0.join("net.o");
    // Every operation: none may have become a call.
    let (program, ..) = all_in_one(every_op(16));
    for target in dnnc_targets::instruction_sets().into_iter().filter(|t| t.triple.ends_with("linux-gnu")) {
        for program in [&program, &sample()] {
            std::fs::write(&object, emit(program, target).unwrap().bytes).expect("a file");
            assert_eq!(undefined(&object), "", "{}", target.name);
        }
        let cc = if target.triple.starts_with("x86") { "cc" } else { "aarch64-linux-gnu-gcc" };
        if exists(cc) {
            run(Command::new(cc).args(["-shared", "-Wl,-z,text,--fatal-warnings", "-o"]).args([folder.0.join("net.so"), object.clone()]));
        }
    }
}

/// Cases whose kernels succeed, as steps of one program, with its inputs and the first contents of its results.
fn all_in_one(cases: Vec<Case>) -> (Program, Vec<Case>, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let cases: Vec<Case> = cases.into_iter().filter(|c| c.expected(true).0 == 0).collect();
    let port = |bytes: usize| (String::new(), TensorType::new(Type::U8, [bytes]));
    let program = Program {
        name: "net".into(),
        kernels: cases.iter().map(|c| c.func.clone()).collect(),
        constants: vec![],
        steps: (0..cases.len()).map(|i| call(i, vec![Loc::Input(i, 0), Loc::Output(i, 0)], cases[i].tasks)).collect(),
        inputs: cases.iter().map(|c| port(c.buffers[0].len())).collect(),
        outputs: cases.iter().map(|c| port(c.buffers[1].len())).collect(),
        arena_bytes: 0,
    };
    let inputs = cases.iter().map(|c| c.buffers[0].clone()).collect();
    let outputs = cases.iter().map(|c| c.buffers[1].clone()).collect();
    (program, cases, inputs, outputs)
}

#[test]
fn kernels_mean_the_same_on_aarch64() {
    if !exists("aarch64-linux-gnu-gcc") || !exists("qemu-aarch64") {
        return;
    }
    let cases = || every_op(32).into_iter().chain((0..400).map(|seed| random(9000 + seed, [16, 32, 64][seed as usize % 3]))).collect();
    for target in ["aarch64", "neoverse-n1"] {
        let (program, cases, inputs, outputs) = all_in_one(cases());
        // Tasks of a random kernel write to the same place: only in order they mean what the interpreter says.
        let [(status, results), _] = linked(&program, target, &["aarch64-linux-gnu-gcc", "-static"], &["qemu-aarch64"], &inputs, &outputs);
        assert_eq!(status, 0);
        for (case, result) in cases.iter().zip(results) {
            if let Some(why) = case.differs(true, 0, vec![case.buffers[0].clone(), result]) {
                panic!("{target}: {why}");
            }
        }
    }
}
