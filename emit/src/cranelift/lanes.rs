//! Lanes: splats, rearrangements, halves, reductions.

use super::translator::{REGISTER, Translator, lanes_of, part_type};
use cranelift_codegen::ir::types::I8X16;
use cranelift_codegen::ir::{ConstantData, InstBuilder, Value};
use dnnc_kir::{Elem, Fold, Op, Ty, Val};

impl Translator<'_> {
    pub fn splat(&mut self, ty: Ty, a: Val) -> Value {
        // The lane of a register, where the machine multiplies by one: Cranelift knows it by this form.
        if let Some(Op::Extract(v, lane)) = self.ops[a.0 as usize]
            && ty.elem.bytes() >= 4
            && !ty.elem.is_mask()
        {
            let n = lanes_of(ty.elem);
            let part = self.get(*v)[*lane as usize / n];
            return self.pick(ty.elem, &[part], &vec![*lane as usize % n; n]);
        }
        let x = self.lane(ty.elem, a);
        self.b.ins().splat(part_type(ty.elem), x)
    }

    /// A register whose lane `i` is lane `lanes[i]` of the sources one after another.
    pub fn pick(&mut self, elem: Elem, sources: &[Value], lanes: &[usize]) -> Value {
        let n = lanes_of(elem);
        // Lanes nobody asked for repeat the others: that form is most often an instruction.
        let lanes: Vec<usize> = lanes.iter().copied().cycle().take(n).collect();
        let mut used: Vec<usize> = lanes.iter().map(|l| l / n).collect();
        used.sort_unstable();
        used.dedup();
        if let [only] = used[..]
            && lanes.iter().enumerate().all(|(i, l)| l % n == i)
        {
            return sources[only];
        }
        let words = elem.bytes() >= 4 && used.len() == 1;
        if !self.features.permute && !words {
            return lanes.iter().enumerate().fold(sources[used[0]], |made, (i, l)| {
                let x = self.b.ins().extractlane(sources[l / n], (l % n) as u8);
                self.b.ins().insertlane(made, x, i as u8)
            });
        }
        let size = elem.bytes();
        let mut made = self.cast(I8X16, sources[used[0]]);
        let mut have = vec![used[0]];
        for second in used.iter().skip(1).map(|s| Some(*s)).chain(if used.len() == 1 { vec![None] } else { vec![] }) {
            let from = match second {
                Some(s) => self.cast(I8X16, sources[s]),
                None => made,
            };
            let bytes: Vec<u8> = (0..n)
                .flat_map(|i| {
                    let (source, lane) = (lanes[i] / n, lanes[i] % n);
                    let lane = match second {
                        Some(s) if source == s => n + lane,
                        // After the first step what was picked lies in its place.
                        _ if have.len() > 1 => i,
                        _ if have.contains(&source) => lane,
                        _ => i,
                    };
                    (0..size).map(move |byte| (lane * size + byte) as u8)
                })
                .collect();
            let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes));
            made = self.b.ins().shuffle(made, from, mask);
            have.extend(second);
        }
        self.cast(part_type(elem), made)
    }

    pub fn shuffle(&mut self, ty: Ty, a: Val, b: Val, pick: &[u8]) -> Vec<Value> {
        let (n, lanes) = (lanes_of(ty.elem), ty.lanes as usize);
        let mut sources = self.get(a);
        let second = sources.len() * n;
        sources.extend(self.get(b));
        let lanes: Vec<usize> = pick.iter().map(|p| *p as usize).map(|p| if p < lanes { p } else { second + p - lanes }).collect();
        lanes.chunks(n).map(|lanes| self.pick(ty.elem, &sources, lanes)).collect()
    }

    pub fn half(&mut self, ty: Ty, a: Val, upper: bool) -> Vec<Value> {
        let (parts, n) = (self.get(a), ty.lanes as usize);
        let first = if upper { n } else { 0 };
        if !ty.is_vector() {
            let all = lanes_of(ty.elem);
            return vec![self.extract(ty.elem, parts[first / all], first % all)];
        }
        if parts.len() > 1 {
            let count = parts.len() / 2;
            return if upper { parts[count..].to_vec() } else { parts[..count].to_vec() };
        }
        if !upper {
            return parts;
        }
        let lanes: Vec<usize> = (first..first + n).collect();
        vec![self.pick(ty.elem, &parts, &lanes)]
    }

    pub fn join(&mut self, ty: Ty, a: Val, b: Val) -> Vec<Value> {
        let half = ty.lanes as usize / 2;
        if half == 1 {
            let (x, y) = (self.lane(ty.elem, a), self.lane(ty.elem, b));
            let x = self.b.ins().splat(part_type(ty.elem), x);
            return vec![self.b.ins().insertlane(x, y, 1)];
        }
        let sources = [self.get(a), self.get(b)].concat();
        if ty.bytes() / 2 >= REGISTER {
            return sources;
        }
        let n = lanes_of(ty.elem);
        let lanes: Vec<usize> = (0..half).chain(n..n + half).collect();
        vec![self.pick(ty.elem, &sources, &lanes)]
    }

    pub fn reduce(&mut self, fold: Fold, a: Val) -> Value {
        let (ty, mut parts) = (self.ty(a), self.get(a));
        let op = fold.of(ty.elem);
        while parts.len() > 1 {
            let upper = parts.split_off(parts.len() / 2);
            parts = parts.into_iter().zip(upper).map(|(a, b)| self.bin(op, ty, a, b)).collect();
        }
        let mut x = parts[0];
        let mut lanes = lanes_of(ty.elem).min(ty.lanes as usize);
        while lanes > 1 {
            lanes /= 2;
            let upper: Vec<usize> = (lanes..2 * lanes).collect();
            let upper = self.pick(ty.elem, &[x], &upper);
            x = self.bin(op, ty, x, upper);
        }
        self.b.ins().extractlane(x, 0)
    }

    pub fn any(&mut self, a: Val) -> Value {
        let (ty, parts) = (self.ty(a), self.get(a));
        if !ty.is_vector() {
            return parts[0];
        }
        let mut x = parts[1..].iter().fold(parts[0], |x, y| self.b.ins().bor(x, *y));
        if ty.bytes() < REGISTER {
            let bytes = (0..REGISTER).map(|i| if i < ty.bytes() { 0xff } else { 0 }).collect();
            let lanes = self.vector_bytes(part_type(ty.elem), bytes);
            x = self.b.ins().band(x, lanes);
        }
        self.b.ins().vany_true(x)
    }
}
