//! Sums of a register, a scaled register and a number.

use super::mach::{Base, Mem, V};

/// An address or index as base + index·scale + displacement.
#[derive(Clone, Copy, Debug)]
pub struct Sym {
    pub base: Option<V>,
    pub index: Option<(V, u8)>,
    pub disp: i64,
    /// The loop body it belongs to: deeper ones use the finished sum instead of keeping two registers.
    pub home: u32,
}

impl Sym {
    /// The operand, with another displacement.
    pub fn mem(self, disp: i32) -> Mem {
        match (self.base, self.index) {
            (Some(base), index) => Mem { base: Base::Reg(base), index, disp },
            (None, Some((r, 1))) => Mem { base: Base::Reg(r), index: None, disp },
            (None, index) => Mem { base: Base::None, index, disp },
        }
    }

    /// The sum of two, if it has at most one scaled term and one more.
    pub fn plus(self, other: Sym) -> Option<Sym> {
        let terms = [self.base.map(|v| (v, 1)), self.index, other.base.map(|v| (v, 1)), other.index];
        let mut terms = terms.into_iter().flatten();
        let (first, second) = (terms.next(), terms.next());
        if terms.next().is_some() {
            return None;
        }
        let disp = self.disp.wrapping_add(other.disp);
        let home = self.home;
        match (first, second) {
            (Some((a, 1)), index) => Some(Sym { base: Some(a), index, disp, home }),
            (Some(index), Some((b, 1))) => Some(Sym { base: Some(b), index: Some(index), disp, home }),
            (Some(index), None) => Some(Sym { base: None, index: Some(index), disp, home }),
            (None, None) => Some(Sym { base: None, index: None, disp, home }),
            _ => None,
        }
    }

    /// The product with a number, if it is a scaled term.
    pub fn times(self, by: u64) -> Option<Sym> {
        let (v, scale) = match (self.base, self.index) {
            (Some(v), None) => (v, 1),
            (None, Some(term)) => term,
            _ => return None,
        };
        let scale = u64::from(scale).checked_mul(by).filter(|s| matches!(s, 1 | 2 | 4 | 8))?;
        Some(Sym { base: None, index: Some((v, scale as u8)), disp: self.disp.wrapping_mul(by as i64), home: self.home })
    }
}
