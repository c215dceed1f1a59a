//! How fast element-wise functions, normalisations and moves are, one thread, in this process: on arrays that the first cache holds, and on larger ones.
//!
//! `cargo bench -p dnnc-codegen --bench elements -- [--asm | --kir] [WORD…]` runs the cases whose names contain a word; `--asm` prints the machine
//! code of their kernels instead, `--kir` their text.

mod common;

use common::time;
use dnnc_codegen::choice::alone;
use dnnc_codegen::expr::{Expr, ExprNode, What};
use dnnc_codegen::kernels::{self, map};
use dnnc_codegen::unit::{Operand, Options, Unit};
use dnnc_emit::emitter;
use dnnc_ir::{Attr, Class, Kind, Op, TensorType, Type};
use dnnc_kir::program::Program;

/// A use of an operator on f32.
struct Case {
    name: String,
    op: Op,
    operands: Vec<TensorType>,
}

impl Case {
    fn new(kind: Kind, attrs: &[(&'static str, Attr)], shapes: &[&[usize]]) -> Case {
        let op = Op::new(kind, attrs.iter().cloned()).expect("attributes");
        Case {
            name: format!("{} {:?}", kind.name(), shapes[0]),
            op,
            operands: shapes.iter().map(|s| TensorType::new(Type::F32, *s)).collect(),
        }
    }

    fn result(&self) -> TensorType {
        (self.op.def.infer)(&self.op.attrs, &self.operands).expect("operands of the operator").remove(0)
    }

    fn program(&self) -> Result<Program, String> {
        let (target, options) = (dnnc_targets::native(), Options::default());
        let inputs: Vec<Operand> = self.operands.iter().map(|ty| Operand { ty: ty.clone(), constant: None }).collect();
        let result = self.result();
        let unit =
            Unit { op: &self.op, inputs, results: vec![result.clone()], epilogue: None, stored: result.clone(), target, options: &options };
        if self.op.def.class == Class::Elementwise {
            let mut nodes: Vec<ExprNode> = (0..self.operands.len()).map(|i| ExprNode { what: What::Operand(i), ty: Type::F32 }).collect();
            nodes.push(ExprNode { what: What::Apply(self.op.clone(), (0..self.operands.len()).collect()), ty: Type::F32 });
            return Ok(alone(&unit, map::lower(&Expr { nodes }, &unit.inputs, &result, target, &options)?));
        }
        let family = kernels::family(self.op.kind()).ok_or("no family")?;
        Ok(alone(&unit, (family.lower)(&unit)?))
    }
}

fn cases() -> Vec<Case> {
    use Kind::*;
    let mut all = vec![];
    for n in [4096, 65536] {
        for kind in [Exp, Tanh, Sigmoid, Erf, Gelu, GeluTanh, Silu, Softplus, Log, HardSwish, Sin, Relu] {
            all.push(Case::new(kind, &[], &[&[n]]));
        }
        all.push(Case::new(Add, &[], &[&[n], &[n]]));
    }
    for shape in [[32, 128], [512, 128], [64, 1000]] {
        all.push(Case::new(Softmax, &[("axis", Attr::Int(1))], &[&shape]));
    }
    for shape in [[32, 128], [128, 384], [128, 768]] {
        all.push(Case::new(Norm, &[("axes", Attr::Ints(vec![1]))], &[&shape]));
    }
    let block = dnnc_targets::native().vector.bits / 32;
    let axis = [("axis", Attr::Int(1)), ("block", Attr::Int(block as i64))];
    all.push(Case::new(Pack, &axis, &[&[1, 64, 56, 56]]));
    all.push(Case::new(Unpack, &[axis.as_slice(), &[("size", Attr::Int(64))]].concat(), &[&[1, 64 / block, 56, 56, block]]));
    all.push(Case::new(Transpose, &[("perm", Attr::Ints(vec![1, 0]))], &[&[384, 384]]));
    all.push(Case::new(Transpose, &[("perm", Attr::Ints(vec![0, 2, 1, 3]))], &[&[1, 128, 12, 64]]));
    all.push(Case::new(Transpose, &[("perm", Attr::Ints(vec![0, 2, 3, 1]))], &[&[1, 64, 56, 56]]));
    all
}

fn main() {
    let (flags, words): (Vec<String>, Vec<String>) = std::env::args().skip(1).filter(|a| a != "--bench").partition(|w| w.starts_with("--"));
    let target = dnnc_targets::native();
    println!("{}\n{:32} {:>9} {:>12} {:>8}", target.name, "", "µs", "elements/ns", "GB/s");
    for case in cases().iter().filter(|c| words.is_empty() || words.iter().any(|w| c.name.contains(w.as_str()))) {
        let program = case.program().unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let result = case.result();
        if let Some(flag) = flags.first() {
            for func in &program.kernels {
                let text = if flag == "--asm" { emitter::assembly(func, target).expect("machine code") } else { func.to_string() };
                println!("; {}: {}\n{text}", case.name, func.name);
            }
            continue;
        }
        let seconds = time(program, 1.0).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let traffic: usize = case.operands.iter().chain([&result]).map(TensorType::bytes).sum();
        let (ns, elements) = (seconds * 1e9, result.len() as f64);
        println!("{:32} {:9.2} {:12.2} {:8.1}", case.name, ns / 1e3, elements / ns, traffic as f64 / ns);
    }
}
