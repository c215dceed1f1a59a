//! Loads and stores: whole values, first elements, one element in every lane.

use super::lower::Lower;
use super::mach::{Arg, Kind, Mem, V, imm8, x};
use super::scalar::sign_extended;
use super::view::View;
use dnnc_kir::{Elem, Ty, Val};
use iced_x86::Code::{self, *};
use iced_x86::OpKind;

impl Lower<'_> {
    /// Reads `count` elements.
    pub fn load(&mut self, ty: Ty, mem: Mem, count: usize) -> Result<Vec<V>, String> {
        if !ty.is_vector() {
            return self.load_scalar(ty.elem, mem).map(|r| vec![r]);
        }
        if ty.elem.is_mask() {
            return Err(format!("a mask is read from memory in {}", self.func.name));
        }
        let n = ty.elem.bytes();
        let bytes = count.min(ty.lanes as usize) * n;
        let register = self.isa.bytes;
        Ok((0..self.parts_of(ty))
            .map(|p| self.load_bytes(offset(mem, p * register), bytes.saturating_sub(p * register).min(register), n))
            .collect())
    }

    /// Reads `bytes` bytes of elements of `n` bytes; the others are zero.
    fn load_bytes(&mut self, mem: Mem, bytes: usize, n: usize) -> V {
        let at = Arg::Mem(mem);
        match bytes {
            64 => self.vec_op(VEX_Vmovups_xmm_xmmm128, View::Z, &[at]),
            32 => self.vec_op(VEX_Vmovups_xmm_xmmm128, View::Y, &[at]),
            16 => self.vec_op(VEX_Vmovups_xmm_xmmm128, View::X, &[at]),
            8 => self.vec_op(VEX_Vmovq_xmm_xmmm64, View::X, &[at]),
            4 => self.vec_op(VEX_Vmovd_xmm_rm32, View::X, &[at]),
            0 => self.zero(),
            _ if self.masks_access(bytes) => {
                let mask = self.mask_constant(u64::MAX >> (64 - bytes / n));
                let w = self.width_of(bytes);
                self.vec_op(MASKED_LOADS[n.ilog2() as usize], w, &[Arg::Mask(mask, true), at])
            }
            _ if n >= 4 => {
                let w = if bytes > 16 { View::Y } else { View::X };
                let pattern: Vec<u8> = (0..w.bytes()).map(|i| if i < bytes { 0xFF } else { 0 }).collect();
                let pattern = Arg::Mem(self.m.pool(pattern));
                let mask = self.vec_op(VEX_Vmovups_xmm_xmmm128, w, &[pattern]);
                self.vec_op(VEX_Vmaskmovps_xmm_xmm_m128, w, &[Arg::Use(mask, w), at])
            }
            17.. => {
                let low = self.vec_op(VEX_Vmovups_xmm_xmmm128, View::X, &[at]);
                let high = self.load_bytes(offset(mem, 16), bytes - 16, n);
                self.join_low(low, high, 16)
            }
            _ => {
                let start = if bytes >= 8 { 8 } else { bytes / 4 * 4 };
                let mut r = self.load_bytes(mem, start, n);
                let mut done = start;
                for (size, code) in
                    [(4, VEX_Vpinsrd_xmm_xmm_rm32_imm8), (2, VEX_Vpinsrw_xmm_xmm_r32m16_imm8), (1, VEX_Vpinsrb_xmm_xmm_r32m8_imm8)]
                {
                    if bytes - done >= size {
                        r = self.vec_op(code, View::X, &[x(r), Arg::Mem(offset(mem, done)), imm8((done / size) as u8)]);
                        done += size;
                    }
                }
                r
            }
        }
    }

    /// Reads one element into every lane.
    pub fn load_splat(&mut self, ty: Ty, mem: Mem) -> Result<V, String> {
        if !ty.is_vector() {
            return self.load_scalar(ty.elem, mem);
        }
        let w = self.width(ty);
        let code = match (ty.elem.bytes(), w) {
            (1, _) => VEX_Vpbroadcastb_xmm_xmmm8,
            (2, _) => VEX_Vpbroadcastw_xmm_xmmm16,
            (4, _) => VEX_Vbroadcastss_xmm_m32,
            (_, View::Y | View::Z) => VEX_Vbroadcastsd_ymm_m64,
            _ => VEX_Vmovddup_xmm_xmmm64,
        };
        Ok(self.vec_op(code, w, &[Arg::Mem(mem)]))
    }

    /// Writes `count` elements.
    pub fn store(&mut self, ptr: Val, disp: i32, val: Val, count: u8) -> Result<(), String> {
        let ty = self.ty(val);
        let mem = self.address(ptr, disp);
        if !ty.is_vector() {
            return self.store_scalar(mem, val);
        }
        if ty.elem.is_mask() {
            return Err(format!("a mask is written to memory in {}", self.func.name));
        }
        let bytes = count.min(ty.lanes) as usize * ty.elem.bytes();
        let register = self.isa.bytes;
        for p in 0..bytes.div_ceil(register) {
            let r = self.reg(val, p);
            self.store_bytes(offset(mem, p * register), r, (bytes - p * register).min(register), ty.elem.bytes());
        }
        Ok(())
    }

    fn store_bytes(&mut self, mem: Mem, r: V, bytes: usize, n: usize) {
        if self.masks_access(bytes) {
            let mask = self.mask_constant(u64::MAX >> (64 - bytes / n));
            let w = self.width_of(bytes);
            let args = [Arg::Mem(mem), Arg::Mask(mask, false), Arg::Use(r, w)];
            self.m.push(Kind::Op(MASKED_STORES[n.ilog2() as usize]), &args);
            return;
        }
        let mut put = |code: Code, at: usize, args: &[Arg]| {
            let mut all = vec![Arg::Mem(offset(mem, at))];
            all.extend_from_slice(args);
            self.m.push(Kind::Op(code), &all);
        };
        match bytes {
            64 => put(VEX_Vmovups_xmmm128_xmm, 0, &[Arg::Use(r, View::Z)]),
            32 => put(VEX_Vmovups_xmmm128_xmm, 0, &[Arg::Use(r, View::Y)]),
            16 => put(VEX_Vmovups_xmmm128_xmm, 0, &[x(r)]),
            17.. => {
                put(VEX_Vmovups_xmmm128_xmm, 0, &[x(r)]);
                let high = self.slice(r, 16);
                self.store_bytes(offset(mem, 16), high, bytes - 16, n);
            }
            _ => {
                let mut done = 0;
                if bytes >= 8 {
                    put(VEX_Vmovq_xmmm64_xmm, 0, &[x(r)]);
                    done = 8;
                }
                let narrow = [(4, VEX_Vpextrd_rm32_xmm_imm8), (2, VEX_Vpextrw_r32m16_xmm_imm8), (1, VEX_Vpextrb_r32m8_xmm_imm8)];
                for (size, code) in narrow {
                    if bytes - done >= size {
                        match done {
                            0 if size == 4 => put(VEX_Vmovd_rm32_xmm, 0, &[x(r)]),
                            _ => put(code, done, &[x(r), imm8((done / size) as u8)]),
                        }
                        done += size;
                    }
                }
            }
        }
    }

    /// Reads a scalar.
    fn load_scalar(&mut self, elem: Elem, mem: Mem) -> Result<V, String> {
        let mem = [Arg::Mem(mem)];
        Ok(match elem {
            Elem::I8 => self.int_op(Movzx_r32_rm8, View::D, &mem),
            Elem::I16 => self.int_op(Movzx_r32_rm16, View::D, &mem),
            Elem::I32 => self.int_op(Mov_r32_rm32, View::D, &mem),
            Elem::I64 | Elem::Ptr => self.int_op(Mov_r64_rm64, View::Q, &mem),
            Elem::F32 => self.vec_op(VEX_Vmovss_xmm_m32, View::X, &mem),
            Elem::F64 => self.vec_op(VEX_Vmovsd_xmm_m64, View::X, &mem),
            _ => return Err(format!("a mask is read from memory in {}", self.func.name)),
        })
    }

    /// Writes a scalar.
    fn store_scalar(&mut self, mem: Mem, val: Val) -> Result<(), String> {
        let elem = self.ty(val).elem;
        if elem.is_mask() {
            return Err(format!("a mask is written to memory in {}", self.func.name));
        }
        let to = Arg::Mem(mem);
        if let Some(bits) = self.constant(val) {
            let n = sign_extended(elem.int(), bits);
            let stored = match elem.bytes() {
                1 => Some((Mov_rm8_imm8, OpKind::Immediate8)),
                2 => Some((Mov_rm16_imm16, OpKind::Immediate16)),
                4 => Some((Mov_rm32_imm32, OpKind::Immediate32)),
                _ => i32::try_from(n).is_ok().then_some((Mov_rm64_imm32, OpKind::Immediate32to64)),
            };
            if let Some((code, kind)) = stored {
                self.m.push(Kind::Op(code), &[to, Arg::Imm(kind, n)]);
                return Ok(());
            }
        }
        let (code, view) = match elem {
            Elem::I8 => (Mov_rm8_r8, View::B),
            Elem::I16 => (Mov_rm16_r16, View::W),
            Elem::I32 => (Mov_rm32_r32, View::D),
            Elem::F32 => (VEX_Vmovss_m32_xmm, View::X),
            Elem::F64 => (VEX_Vmovsd_m64_xmm, View::X),
            _ => (Mov_rm64_r64, View::Q),
        };
        let r = if elem.is_float() { self.reg(val, 0) } else { self.int(val) };
        self.m.push(Kind::Op(code), &[to, Arg::Use(r, view)]);
        Ok(())
    }
}

/// The operand some bytes further.
fn offset(mem: Mem, by: usize) -> Mem {
    Mem { disp: mem.disp + by as i32, ..mem }
}

/// Moves of the lanes that a mask has, by the size of a lane.
const MASKED_LOADS: [Code; 4] =
    [EVEX_Vmovdqu8_xmm_k1z_xmmm128, EVEX_Vmovdqu16_xmm_k1z_xmmm128, EVEX_Vmovdqu32_xmm_k1z_xmmm128, EVEX_Vmovdqu64_xmm_k1z_xmmm128];
const MASKED_STORES: [Code; 4] =
    [EVEX_Vmovdqu8_xmmm128_k1z_xmm, EVEX_Vmovdqu16_xmmm128_k1z_xmm, EVEX_Vmovdqu32_xmmm128_k1z_xmm, EVEX_Vmovdqu64_xmmm128_k1z_xmm];
