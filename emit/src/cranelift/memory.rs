//! Loads and stores: complete values, first elements.

use super::translator::{REGISTER, Translator, access, lane_type, part_count, part_type};
use cranelift_codegen::ir::types::{F32, F64, I8, I8X16, I16, I32, I32X4};
use cranelift_codegen::ir::{InstBuilder, Value};
use dnnc_kir::{Elem, Ty, Val};

impl Translator<'_> {
    pub fn load(&mut self, ty: Ty, ptr: Val, disp: i32, count: u8) -> Vec<Value> {
        let p = self.one(ptr);
        if !ty.is_vector() {
            return vec![self.b.ins().load(lane_type(ty.elem), access(), p, disp)];
        }
        let bytes = count as usize * ty.elem.bytes();
        (0..part_count(ty)).map(|i| self.load_part(ty.elem, p, disp + (i * REGISTER) as i32, bytes.saturating_sub(i * REGISTER))).collect()
    }

    /// A register of which the first `bytes` come from memory and the others are 0.
    pub fn load_part(&mut self, elem: Elem, p: Value, disp: i32, bytes: usize) -> Value {
        let ty = part_type(elem);
        if bytes == 0 {
            return self.splat_bits(elem, 0);
        }
        if bytes >= REGISTER {
            if self.features.unaligned_operands {
                return self.b.ins().load(ty, access(), p, disp);
            }
            // Cranelift 0.135 takes a load into `cmpps` as a memory operand, which has to be aligned, but no bitcast of one.
            let x = self.b.ins().load(I8X16, access(), p, disp);
            return self.cast(ty, x);
        }
        // Pieces of 8, 4, 2 and 1 bytes, the largest first, so that each lies at a multiple of its size.
        let mut made: Option<Value> = None;
        let mut at = 0;
        for (size, lane) in [(8, F64), (4, F32), (2, I16), (1, I8)] {
            if bytes - at < size {
                continue;
            }
            let vector = lane.by((REGISTER / size) as u32).expect("a register of lanes is a type");
            made = Some(match made {
                None if size >= 4 => {
                    let x = self.b.ins().load(lane, access(), p, disp);
                    self.b.ins().scalar_to_vector(vector, x)
                }
                None => {
                    let x =
                        if size == 2 { self.b.ins().uload16(I32, access(), p, disp) } else { self.b.ins().uload8(I32, access(), p, disp) };
                    self.b.ins().scalar_to_vector(I32X4, x)
                }
                Some(rest) => {
                    let x = self.b.ins().load(lane, access(), p, disp + at as i32);
                    let rest = self.cast(vector, rest);
                    self.b.ins().insertlane(rest, x, (at / size) as u8)
                }
            });
            at += size;
        }
        let made = made.expect("at least one byte is read");
        self.cast(ty, made)
    }

    pub fn store(&mut self, ptr: Val, disp: i32, val: Val, count: u8) {
        let (ty, p) = (self.ty(val), self.one(ptr));
        if !ty.is_vector() {
            let x = self.one(val);
            self.b.ins().store(access(), x, p, disp);
            return;
        }
        let bytes = count as usize * ty.elem.bytes();
        for (i, x) in self.get(val).into_iter().enumerate() {
            let (disp, bytes) = (disp + (i * REGISTER) as i32, bytes.saturating_sub(i * REGISTER));
            if bytes >= REGISTER {
                self.b.ins().store(access(), x, p, disp);
                continue;
            }
            let mut at = 0;
            for (size, lane) in [(8, F64), (4, F32), (2, I16), (1, I8)] {
                if bytes - at >= size {
                    let vector = self.cast(lane.by((REGISTER / size) as u32).expect("a register of lanes is a type"), x);
                    let piece = self.b.ins().extractlane(vector, (at / size) as u8);
                    self.b.ins().store(access(), piece, p, disp + at as i32);
                    at += size;
                }
            }
        }
    }
}
