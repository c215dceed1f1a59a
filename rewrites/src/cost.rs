//! What a term costs on a machine, in nanoseconds: what code generation forecasts for its kernel, and what stands around kernels.

use crate::fact::{Classes, Facts};
use crate::forecast::{Forecast, Forecaster};
use crate::language::import;
use crate::sparsity::SparsityPattern;
use crate::term::{Head, OpRef, Term};
use dnnc_ir::{Class, Graph, Kind, TensorType};
use dnnc_targets::Target;
use egg::Id;
use std::cell::RefCell;
use std::collections::HashMap;

/// A kernel beside its call: the first cache misses, the cut into tasks.
const KERNEL_NS: f64 = 250.0;
/// What choosing a term costs at least: so that of equal programs the one with fewer terms wins and no term is free in a cycle.
const TERM_NS: f64 = 0.5;

/// A general power takes so many operations: it is a logarithm and an exponential beyond the precision of the type.
const POW: f64 = 40.0;
/// What stands there already.
const LEAF_NS: f64 = 0.1;

/// An operator with the types of its operands and whether each is constant.
type Asked = (OpRef, Vec<(TensorType, bool)>);

/// The answers of code generation, each asked for once.
pub struct Forecasts<'a> {
    forecaster: &'a dyn Forecaster,
    known: RefCell<HashMap<Asked, Forecast>>,
}

impl<'a> Forecasts<'a> {
    /// None is known yet.
    pub fn new(forecaster: &'a dyn Forecaster) -> Forecasts<'a> {
        Forecasts { forecaster, known: RefCell::default() }
    }

    fn of(&self, op: &OpRef, operands: &[(&TensorType, bool)], results: &[TensorType]) -> Forecast {
        let asked = (op.clone(), operands.iter().map(|&(ty, constant)| (ty.clone(), constant)).collect());
        if let Some(&known) = self.known.borrow().get(&asked) {
            return known;
        }
        let forecast = self.forecaster.forecast(op, operands, results);
        self.known.borrow_mut().insert(asked, forecast);
        forecast
    }
}

/// The model of one machine.
pub struct Model<'a> {
    forecasts: &'a Forecasts<'a>,
    /// f32 lanes a register.
    lanes: f64,
    /// Bytes a nanosecond from caches.
    cache: f64,
    /// Bytes a nanosecond from memory.
    memory: f64,
    /// Bytes of the second-level cache.
    l2: f64,
    /// Cycles a nanosecond.
    ghz: f64,
    /// Nanoseconds of a kernel that does nothing.
    kernel: f64,
    /// Whether the layouts at hand are the final ones.
    layouts: bool,
}

impl<'a> Model<'a> {
    /// The model of `target`; `layouts`: whether the layouts at hand are the final ones.
    pub fn new(target: &Target, forecasts: &'a Forecasts<'a>, layouts: bool) -> Model<'a> {
        let ghz = target.ghz();
        Model {
            forecasts,
            lanes: target.vector.bits as f64 / 32.0,
            cache: ghz * target.bandwidth.stream[1],
            memory: target.memory_mb_s as f64 / 1e3,
            l2: target.l2 as f64,
            ghz,
            kernel: KERNEL_NS + target.overheads.call,
            layouts,
        }
    }

    /// Cost of a term whose operands are in memory, in nanoseconds.
    pub fn term(&self, classes: &Classes, id: Id, term: &Term) -> f64 {
        let fact = &classes[id].data;
        let op = match &term.head {
            Head::Op(op) if !fact.constant => op,
            _ => return LEAF_NS,
        };
        let inputs: Vec<&TensorType> = term.children.iter().map(|&c| classes[c].data.ty()).collect();
        match op.kind() {
            Kind::Input | Kind::Const => return LEAF_NS,
            Kind::If => return self.kernel + self.graph(op.attrs.graph("then")).max(self.graph(op.attrs.graph("else"))),
            Kind::Loop => return self.kernel + op.attrs.int("max_trip") as f64 * (self.kernel + self.graph(op.attrs.graph("body"))),
            _ => {}
        }
        // An element-wise operator on the registers of the kernel before it adds arithmetic, the operands that do not come from
        // there, and the memory that the longer kernel keeps busy; elsewhere it is a kernel of its own.
        if op.def.class == Class::Elementwise {
            let written: usize = fact.types.iter().map(TensorType::bytes).sum();
            let owned: Vec<TensorType> = inputs.iter().map(|t| (*t).clone()).collect();
            let work = (op.def.work)(&op.attrs, &owned, &fact.types) as f64;
            // Scalar operations run a lane each, one register a cycle.
            let scalar = work / (self.lanes * self.ghz) * if op.kind() == Kind::Pow { POW } else { 1.0 };
            let complete = |t: &&TensorType| t.len() == fact.types[0].len();
            let main = inputs.iter().position(complete);
            let fused = (0..inputs.len()).any(|i| complete(&inputs[i]) && self.is_on_registers(classes, term.children[i]));
            let others: usize = inputs.iter().enumerate().filter(|(i, _)| Some(*i) != main).map(|(_, t)| t.bytes()).sum();
            let own = if fused { 0.1 * self.traffic(2 * written) } else { self.kernel + self.traffic(2 * written) };
            return TERM_NS + scalar + self.traffic(others) + own;
        }
        let forecast = self.forecast(classes, id, op, term);
        if forecast.in_place {
            return TERM_NS + forecast.ns;
        }
        KERNEL_NS + forecast.ns * self.share(classes, op, term, &inputs)
    }

    /// What code generation forecasts for a term. While layouts are still to be chosen, images count in the better layout.
    fn forecast(&self, classes: &Classes, id: Id, op: &OpRef, term: &Term) -> Forecast {
        let types = &classes[id].data.types;
        let operands: Vec<(&TensorType, bool)> = term.children.iter().map(|&c| (classes[c].data.ty(), classes[c].data.constant)).collect();
        let plain = self.forecasts.of(op, &operands, types);
        let images = matches!(op.kind(), Kind::Conv | Kind::MaxPool | Kind::AvgPool) && types[0].rank() == 4;
        if self.layouts || !images || op.attrs.int("block") > 0 {
            return plain;
        }
        let block = self.lanes as usize;
        let packed = |ty: &TensorType| {
            let s = &ty.shape;
            TensorType::new(ty.ty, [s[0], s[1].div_ceil(block), s[2], s[3], block])
        };
        let x = packed(operands[0].0);
        let operands: Vec<(&TensorType, bool)> = [(&x, operands[0].1)].into_iter().chain(operands[1..].iter().copied()).collect();
        let blocked = self.forecasts.of(&op.with("block", block as i64), &operands, &[packed(&types[0])]);
        if blocked.ns < plain.ns { blocked } else { plain }
    }

    /// Share of the time of a kernel that is left when it leaves out the zeros of a constant.
    fn share(&self, classes: &Classes, op: &OpRef, term: &Term, inputs: &[&TensorType]) -> f64 {
        let lanes = self.lanes as usize;
        let filled = |fits: bool| classes[term.children[1]].data.filled.as_ref().filter(|_| fits);
        let blocks = |f: &SparsityPattern| match op.kind() {
            Kind::MatMul if !op.attrs.flag("trans_b") => f.columns(lanes),
            _ => f.rows(lanes),
        };
        let filled = match op.kind() {
            Kind::Conv => filled(op.attrs.size("groups") == 1),
            Kind::MatMul => filled(inputs[1].rank() == 2),
            _ => None,
        };
        filled.map_or(1.0, |f| self.sparse(f.density(), blocks(f)))
    }

    /// Whether a value leaves a kernel that computes further on it before it is stored. What is unpacked has been through memory.
    fn is_on_registers(&self, classes: &Classes, id: Id) -> bool {
        let kernel = |t: &Term| t.op().is_some_and(|op| op.def.class == Class::Elementwise || self.takes_epilogue(classes, id, op, t));
        let nodes = &classes[id].nodes;
        nodes.iter().any(kernel) && !nodes.iter().any(|t| t.kind() == Some(Kind::Unpack))
    }

    /// A transposed convolution becomes convolutions by phases more often than not, and what interleaves them has been through memory.
    fn takes_epilogue(&self, classes: &Classes, id: Id, op: &OpRef, term: &Term) -> bool {
        op.def.class == Class::Compute && op.kind() != Kind::ConvTranspose && self.forecast(classes, id, op, term).epilogue
    }

    /// Cost of a graph as it stands, in nanoseconds.
    pub fn graph(&self, graph: &Graph) -> f64 {
        let classes = import(graph, Facts::default()).classes;
        classes.classes().flat_map(|c| c.nodes.iter().map(move |t| (c.id, t))).map(|(id, t)| self.term(&classes, id, t)).sum()
    }

    fn traffic(&self, bytes: usize) -> f64 {
        let bytes = bytes as f64;
        bytes / if bytes <= self.l2 { self.cache } else { self.memory }
    }

    /// Share of a dense kernel's time that one takes which leaves out blocks of zeros, or every zero: so many elements and blocks are left.
    fn sparse(&self, density: f64, blocks: f64) -> f64 {
        (blocks * 1.2).min(0.1 + density * 1.7).min(1.0)
    }
}
