//! Vector instructions by table: the narrowest VEX and EVEX code of each.
//!
//! Lowering names an instruction by the first code of its row and says by the views of its operands how wide it is. Which of the row's
//! forms is encoded is known when registers are: VEX, which is shorter, where it has the width and all registers are among the first
//! sixteen. Wider forms follow the narrowest in the encoder's list. A wider register is a [`View`] and a step here.

use super::view::View;
use iced_x86::Code::{self, *};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The width of the first codes; none where there is one width.
    first: Option<View>,
    vex: Option<Code>,
    evex: Option<Code>,
}

impl Form {
    /// Whether only the first sixteen registers can be operands.
    pub fn is_vex_only(self) -> bool {
        self.evex.is_none()
    }

    /// The code for operands of a width; `evex` where only that encoding has the registers, masks or broadcasts.
    pub fn code(self, width: View, evex: bool) -> Option<Code> {
        let steps = match self.first {
            Some(first) => width.rank()?.checked_sub(first.rank()?)?,
            None => 0,
        };
        let first = match self.vex {
            Some(vex) if !evex && width != View::Z => vex,
            _ => self.evex?,
        };
        Code::try_from(first as usize + steps).ok()
    }
}

impl View {
    /// Which of the widths of vector registers it is, from the narrowest.
    fn rank(self) -> Option<usize> {
        [View::X, View::Y, View::Z].iter().position(|v| *v == self)
    }
}

macro_rules! table {
    (both { $($a:ident $vex:ident => $evex:ident,)* } vex { $($b:ident $only:ident,)* } evex { $($c:ident $wide:ident,)* }) => {
        /// The row of an instruction, if it is one of vectors.
        pub fn form(code: Code) -> Option<Form> {
            Some(match code {
                $($vex => Form { first: $a, vex: Some($vex), evex: Some($evex) },)*
                $($only => Form { first: $b, vex: Some($only), evex: None },)*
                $($wide => Form { first: $c, vex: None, evex: Some($wide) },)*
                _ => return None,
            })
        }

        #[cfg(test)]
        const ALL: &[Code] = &[$($vex,)* $($only,)* $($wide,)*];
    };
}

/// Packed, from 128 or from 256 bits on; of one width.
const X: Option<View> = Some(View::X);
const Y: Option<View> = Some(View::Y);
const S: Option<View> = None;

table! {
    both {
        X VEX_Vaddpd_xmm_xmm_xmmm128 => EVEX_Vaddpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vaddps_xmm_xmm_xmmm128 => EVEX_Vaddps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vaddsd_xmm_xmm_xmmm64 => EVEX_Vaddsd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vaddss_xmm_xmm_xmmm32 => EVEX_Vaddss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vandnps_xmm_xmm_xmmm128 => EVEX_Vandnps_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vandps_xmm_xmm_xmmm128 => EVEX_Vandps_xmm_k1z_xmm_xmmm128b32,
        Y VEX_Vbroadcastsd_ymm_m64 => EVEX_Vbroadcastsd_ymm_k1z_xmmm64,
        Y VEX_Vbroadcastsd_ymm_xmm => EVEX_Vbroadcastsd_ymm_k1z_xmmm64,
        X VEX_Vbroadcastss_xmm_m32 => EVEX_Vbroadcastss_xmm_k1z_xmmm32,
        X VEX_Vbroadcastss_xmm_xmm => EVEX_Vbroadcastss_xmm_k1z_xmmm32,
        X VEX_Vcvtdq2pd_xmm_xmmm64 => EVEX_Vcvtdq2pd_xmm_k1z_xmmm64b32,
        X VEX_Vcvtdq2ps_xmm_xmmm128 => EVEX_Vcvtdq2ps_xmm_k1z_xmmm128b32,
        X VEX_Vcvtpd2ps_xmm_xmmm128 => EVEX_Vcvtpd2ps_xmm_k1z_xmmm128b64,
        X VEX_Vcvtph2ps_xmm_xmmm64 => EVEX_Vcvtph2ps_xmm_k1z_xmmm64,
        X VEX_Vcvtps2pd_xmm_xmmm64 => EVEX_Vcvtps2pd_xmm_k1z_xmmm64b32,
        X VEX_Vcvtps2ph_xmmm64_xmm_imm8 => EVEX_Vcvtps2ph_xmmm64_k1z_xmm_imm8,
        S VEX_Vcvtsd2ss_xmm_xmm_xmmm64 => EVEX_Vcvtsd2ss_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vcvtsi2sd_xmm_xmm_rm32 => EVEX_Vcvtsi2sd_xmm_xmm_rm32_er,
        S VEX_Vcvtsi2sd_xmm_xmm_rm64 => EVEX_Vcvtsi2sd_xmm_xmm_rm64_er,
        S VEX_Vcvtsi2ss_xmm_xmm_rm32 => EVEX_Vcvtsi2ss_xmm_xmm_rm32_er,
        S VEX_Vcvtsi2ss_xmm_xmm_rm64 => EVEX_Vcvtsi2ss_xmm_xmm_rm64_er,
        S VEX_Vcvtss2sd_xmm_xmm_xmmm32 => EVEX_Vcvtss2sd_xmm_k1z_xmm_xmmm32_sae,
        X VEX_Vcvttps2dq_xmm_xmmm128 => EVEX_Vcvttps2dq_xmm_k1z_xmmm128b32,
        S VEX_Vcvttsd2si_r32_xmmm64 => EVEX_Vcvttsd2si_r32_xmmm64_sae,
        S VEX_Vcvttsd2si_r64_xmmm64 => EVEX_Vcvttsd2si_r64_xmmm64_sae,
        S VEX_Vcvttss2si_r32_xmmm32 => EVEX_Vcvttss2si_r32_xmmm32_sae,
        S VEX_Vcvttss2si_r64_xmmm32 => EVEX_Vcvttss2si_r64_xmmm32_sae,
        X VEX_Vdivpd_xmm_xmm_xmmm128 => EVEX_Vdivpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vdivps_xmm_xmm_xmmm128 => EVEX_Vdivps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vdivsd_xmm_xmm_xmmm64 => EVEX_Vdivsd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vdivss_xmm_xmm_xmmm32 => EVEX_Vdivss_xmm_k1z_xmm_xmmm32_er,
        Y VEX_Vextracti128_xmmm128_ymm_imm8 => EVEX_Vextracti32x4_xmmm128_k1z_ymm_imm8,
        X VEX_Vfmadd132pd_xmm_xmm_xmmm128 => EVEX_Vfmadd132pd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vfmadd132ps_xmm_xmm_xmmm128 => EVEX_Vfmadd132ps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vfmadd132sd_xmm_xmm_xmmm64 => EVEX_Vfmadd132sd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vfmadd132ss_xmm_xmm_xmmm32 => EVEX_Vfmadd132ss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vfmadd213pd_xmm_xmm_xmmm128 => EVEX_Vfmadd213pd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vfmadd213ps_xmm_xmm_xmmm128 => EVEX_Vfmadd213ps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vfmadd213sd_xmm_xmm_xmmm64 => EVEX_Vfmadd213sd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vfmadd213ss_xmm_xmm_xmmm32 => EVEX_Vfmadd213ss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vfmadd231pd_xmm_xmm_xmmm128 => EVEX_Vfmadd231pd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vfmadd231ps_xmm_xmm_xmmm128 => EVEX_Vfmadd231ps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vfmadd231sd_xmm_xmm_xmmm64 => EVEX_Vfmadd231sd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vfmadd231ss_xmm_xmm_xmmm32 => EVEX_Vfmadd231ss_xmm_k1z_xmm_xmmm32_er,
        Y VEX_Vinserti128_ymm_ymm_xmmm128_imm8 => EVEX_Vinserti32x4_ymm_k1z_ymm_xmmm128_imm8,
        S VEX_Vinsertps_xmm_xmm_xmmm32_imm8 => EVEX_Vinsertps_xmm_xmm_xmmm32_imm8,
        X VEX_Vmaxpd_xmm_xmm_xmmm128 => EVEX_Vmaxpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vmaxps_xmm_xmm_xmmm128 => EVEX_Vmaxps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vmaxsd_xmm_xmm_xmmm64 => EVEX_Vmaxsd_xmm_k1z_xmm_xmmm64_sae,
        S VEX_Vmaxss_xmm_xmm_xmmm32 => EVEX_Vmaxss_xmm_k1z_xmm_xmmm32_sae,
        X VEX_Vminpd_xmm_xmm_xmmm128 => EVEX_Vminpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vminps_xmm_xmm_xmmm128 => EVEX_Vminps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vminsd_xmm_xmm_xmmm64 => EVEX_Vminsd_xmm_k1z_xmm_xmmm64_sae,
        S VEX_Vminss_xmm_xmm_xmmm32 => EVEX_Vminss_xmm_k1z_xmm_xmmm32_sae,
        X VEX_Vmovaps_xmm_xmmm128 => EVEX_Vmovaps_xmm_k1z_xmmm128,
        X VEX_Vmovaps_xmmm128_xmm => EVEX_Vmovaps_xmmm128_k1z_xmm,
        S VEX_Vmovd_rm32_xmm => EVEX_Vmovd_rm32_xmm,
        S VEX_Vmovd_xmm_rm32 => EVEX_Vmovd_xmm_rm32,
        X VEX_Vmovddup_xmm_xmmm64 => EVEX_Vmovddup_xmm_k1z_xmmm64,
        S VEX_Vmovlhps_xmm_xmm_xmm => EVEX_Vmovlhps_xmm_xmm_xmm,
        S VEX_Vmovq_rm64_xmm => EVEX_Vmovq_rm64_xmm,
        S VEX_Vmovq_xmm_rm64 => EVEX_Vmovq_xmm_rm64,
        S VEX_Vmovq_xmm_xmmm64 => EVEX_Vmovq_xmm_xmmm64,
        S VEX_Vmovq_xmmm64_xmm => EVEX_Vmovq_xmmm64_xmm,
        S VEX_Vmovsd_m64_xmm => EVEX_Vmovsd_m64_k1_xmm,
        S VEX_Vmovsd_xmm_m64 => EVEX_Vmovsd_xmm_k1z_m64,
        S VEX_Vmovsd_xmm_xmm_xmm => EVEX_Vmovsd_xmm_k1z_xmm_xmm,
        X VEX_Vmovshdup_xmm_xmmm128 => EVEX_Vmovshdup_xmm_k1z_xmmm128,
        S VEX_Vmovss_m32_xmm => EVEX_Vmovss_m32_k1_xmm,
        S VEX_Vmovss_xmm_m32 => EVEX_Vmovss_xmm_k1z_m32,
        X VEX_Vmovups_xmm_xmmm128 => EVEX_Vmovups_xmm_k1z_xmmm128,
        X VEX_Vmovups_xmmm128_xmm => EVEX_Vmovups_xmmm128_k1z_xmm,
        X VEX_Vmulpd_xmm_xmm_xmmm128 => EVEX_Vmulpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vmulps_xmm_xmm_xmmm128 => EVEX_Vmulps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vmulsd_xmm_xmm_xmmm64 => EVEX_Vmulsd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vmulss_xmm_xmm_xmmm32 => EVEX_Vmulss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vpabsb_xmm_xmmm128 => EVEX_Vpabsb_xmm_k1z_xmmm128,
        X VEX_Vpabsd_xmm_xmmm128 => EVEX_Vpabsd_xmm_k1z_xmmm128b32,
        X VEX_Vpabsw_xmm_xmmm128 => EVEX_Vpabsw_xmm_k1z_xmmm128,
        X VEX_Vpaddb_xmm_xmm_xmmm128 => EVEX_Vpaddb_xmm_k1z_xmm_xmmm128,
        X VEX_Vpaddd_xmm_xmm_xmmm128 => EVEX_Vpaddd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpaddq_xmm_xmm_xmmm128 => EVEX_Vpaddq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpaddw_xmm_xmm_xmmm128 => EVEX_Vpaddw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpalignr_xmm_xmm_xmmm128_imm8 => EVEX_Vpalignr_xmm_k1z_xmm_xmmm128_imm8,
        X VEX_Vpand_xmm_xmm_xmmm128 => EVEX_Vpandd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpbroadcastb_xmm_xmmm8 => EVEX_Vpbroadcastb_xmm_k1z_xmmm8,
        X VEX_Vpbroadcastw_xmm_xmmm16 => EVEX_Vpbroadcastw_xmm_k1z_xmmm16,
        X VEX_Vpdpbusd_xmm_xmm_xmmm128 => EVEX_Vpdpbusd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpdpwssd_xmm_xmm_xmmm128 => EVEX_Vpdpwssd_xmm_k1z_xmm_xmmm128b32,
        Y VEX_Vpermd_ymm_ymm_ymmm256 => EVEX_Vpermd_ymm_k1z_ymm_ymmm256b32,
        Y VEX_Vpermq_ymm_ymmm256_imm8 => EVEX_Vpermq_ymm_k1z_ymmm256b64_imm8,
        S VEX_Vpextrb_r32m8_xmm_imm8 => EVEX_Vpextrb_r32m8_xmm_imm8,
        S VEX_Vpextrd_rm32_xmm_imm8 => EVEX_Vpextrd_rm32_xmm_imm8,
        S VEX_Vpextrq_rm64_xmm_imm8 => EVEX_Vpextrq_rm64_xmm_imm8,
        S VEX_Vpextrw_r32_xmm_imm8 => EVEX_Vpextrw_r32_xmm_imm8,
        S VEX_Vpextrw_r32m16_xmm_imm8 => EVEX_Vpextrw_r32m16_xmm_imm8,
        S VEX_Vpinsrb_xmm_xmm_r32m8_imm8 => EVEX_Vpinsrb_xmm_xmm_r32m8_imm8,
        S VEX_Vpinsrd_xmm_xmm_rm32_imm8 => EVEX_Vpinsrd_xmm_xmm_rm32_imm8,
        S VEX_Vpinsrq_xmm_xmm_rm64_imm8 => EVEX_Vpinsrq_xmm_xmm_rm64_imm8,
        S VEX_Vpinsrw_xmm_xmm_r32m16_imm8 => EVEX_Vpinsrw_xmm_xmm_r32m16_imm8,
        X VEX_Vpmaddwd_xmm_xmm_xmmm128 => EVEX_Vpmaddwd_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmaxsb_xmm_xmm_xmmm128 => EVEX_Vpmaxsb_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmaxsd_xmm_xmm_xmmm128 => EVEX_Vpmaxsd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpmaxsw_xmm_xmm_xmmm128 => EVEX_Vpmaxsw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmaxub_xmm_xmm_xmmm128 => EVEX_Vpmaxub_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmaxud_xmm_xmm_xmmm128 => EVEX_Vpmaxud_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpmaxuw_xmm_xmm_xmmm128 => EVEX_Vpmaxuw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpminsb_xmm_xmm_xmmm128 => EVEX_Vpminsb_xmm_k1z_xmm_xmmm128,
        X VEX_Vpminsd_xmm_xmm_xmmm128 => EVEX_Vpminsd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpminsw_xmm_xmm_xmmm128 => EVEX_Vpminsw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpminub_xmm_xmm_xmmm128 => EVEX_Vpminub_xmm_k1z_xmm_xmmm128,
        X VEX_Vpminud_xmm_xmm_xmmm128 => EVEX_Vpminud_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpminuw_xmm_xmm_xmmm128 => EVEX_Vpminuw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmovsxbd_xmm_xmmm32 => EVEX_Vpmovsxbd_xmm_k1z_xmmm32,
        X VEX_Vpmovsxbq_xmm_xmmm16 => EVEX_Vpmovsxbq_xmm_k1z_xmmm16,
        X VEX_Vpmovsxbw_xmm_xmmm64 => EVEX_Vpmovsxbw_xmm_k1z_xmmm64,
        X VEX_Vpmovsxdq_xmm_xmmm64 => EVEX_Vpmovsxdq_xmm_k1z_xmmm64,
        X VEX_Vpmovsxwd_xmm_xmmm64 => EVEX_Vpmovsxwd_xmm_k1z_xmmm64,
        X VEX_Vpmovsxwq_xmm_xmmm32 => EVEX_Vpmovsxwq_xmm_k1z_xmmm32,
        X VEX_Vpmovzxbd_xmm_xmmm32 => EVEX_Vpmovzxbd_xmm_k1z_xmmm32,
        X VEX_Vpmovzxbq_xmm_xmmm16 => EVEX_Vpmovzxbq_xmm_k1z_xmmm16,
        X VEX_Vpmovzxbw_xmm_xmmm64 => EVEX_Vpmovzxbw_xmm_k1z_xmmm64,
        X VEX_Vpmovzxdq_xmm_xmmm64 => EVEX_Vpmovzxdq_xmm_k1z_xmmm64,
        X VEX_Vpmovzxwd_xmm_xmmm64 => EVEX_Vpmovzxwd_xmm_k1z_xmmm64,
        X VEX_Vpmovzxwq_xmm_xmmm32 => EVEX_Vpmovzxwq_xmm_k1z_xmmm32,
        X VEX_Vpmulld_xmm_xmm_xmmm128 => EVEX_Vpmulld_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpmullw_xmm_xmm_xmmm128 => EVEX_Vpmullw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpmuludq_xmm_xmm_xmmm128 => EVEX_Vpmuludq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpor_xmm_xmm_xmmm128 => EVEX_Vpord_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpshufb_xmm_xmm_xmmm128 => EVEX_Vpshufb_xmm_k1z_xmm_xmmm128,
        X VEX_Vpshufd_xmm_xmmm128_imm8 => EVEX_Vpshufd_xmm_k1z_xmmm128b32_imm8,
        X VEX_Vpslld_xmm_xmm_imm8 => EVEX_Vpslld_xmm_k1z_xmmm128b32_imm8,
        X VEX_Vpsllq_xmm_xmm_imm8 => EVEX_Vpsllq_xmm_k1z_xmmm128b64_imm8,
        X VEX_Vpsllvd_xmm_xmm_xmmm128 => EVEX_Vpsllvd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpsllvq_xmm_xmm_xmmm128 => EVEX_Vpsllvq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpsllw_xmm_xmm_imm8 => EVEX_Vpsllw_xmm_k1z_xmmm128_imm8,
        X VEX_Vpsrad_xmm_xmm_imm8 => EVEX_Vpsrad_xmm_k1z_xmmm128b32_imm8,
        X VEX_Vpsravd_xmm_xmm_xmmm128 => EVEX_Vpsravd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpsraw_xmm_xmm_imm8 => EVEX_Vpsraw_xmm_k1z_xmmm128_imm8,
        X VEX_Vpsrld_xmm_xmm_imm8 => EVEX_Vpsrld_xmm_k1z_xmmm128b32_imm8,
        X VEX_Vpsrldq_xmm_xmm_imm8 => EVEX_Vpsrldq_xmm_xmmm128_imm8,
        X VEX_Vpsrlq_xmm_xmm_imm8 => EVEX_Vpsrlq_xmm_k1z_xmmm128b64_imm8,
        X VEX_Vpsrlvd_xmm_xmm_xmmm128 => EVEX_Vpsrlvd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpsrlvq_xmm_xmm_xmmm128 => EVEX_Vpsrlvq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpsrlw_xmm_xmm_imm8 => EVEX_Vpsrlw_xmm_k1z_xmmm128_imm8,
        X VEX_Vpsubb_xmm_xmm_xmmm128 => EVEX_Vpsubb_xmm_k1z_xmm_xmmm128,
        X VEX_Vpsubd_xmm_xmm_xmmm128 => EVEX_Vpsubd_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpsubq_xmm_xmm_xmmm128 => EVEX_Vpsubq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpsubw_xmm_xmm_xmmm128 => EVEX_Vpsubw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpunpckhbw_xmm_xmm_xmmm128 => EVEX_Vpunpckhbw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpunpckhwd_xmm_xmm_xmmm128 => EVEX_Vpunpckhwd_xmm_k1z_xmm_xmmm128,
        X VEX_Vpunpcklbw_xmm_xmm_xmmm128 => EVEX_Vpunpcklbw_xmm_k1z_xmm_xmmm128,
        X VEX_Vpunpckldq_xmm_xmm_xmmm128 => EVEX_Vpunpckldq_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vpunpcklqdq_xmm_xmm_xmmm128 => EVEX_Vpunpcklqdq_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vpunpcklwd_xmm_xmm_xmmm128 => EVEX_Vpunpcklwd_xmm_k1z_xmm_xmmm128,
        X VEX_Vpxor_xmm_xmm_xmmm128 => EVEX_Vpxord_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vroundpd_xmm_xmmm128_imm8 => EVEX_Vrndscalepd_xmm_k1z_xmmm128b64_imm8,
        X VEX_Vroundps_xmm_xmmm128_imm8 => EVEX_Vrndscaleps_xmm_k1z_xmmm128b32_imm8,
        S VEX_Vroundsd_xmm_xmm_xmmm64_imm8 => EVEX_Vrndscalesd_xmm_k1z_xmm_xmmm64_imm8_sae,
        S VEX_Vroundss_xmm_xmm_xmmm32_imm8 => EVEX_Vrndscaless_xmm_k1z_xmm_xmmm32_imm8_sae,
        X VEX_Vshufps_xmm_xmm_xmmm128_imm8 => EVEX_Vshufps_xmm_k1z_xmm_xmmm128b32_imm8,
        X VEX_Vsqrtpd_xmm_xmmm128 => EVEX_Vsqrtpd_xmm_k1z_xmmm128b64,
        X VEX_Vsqrtps_xmm_xmmm128 => EVEX_Vsqrtps_xmm_k1z_xmmm128b32,
        S VEX_Vsqrtsd_xmm_xmm_xmmm64 => EVEX_Vsqrtsd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vsqrtss_xmm_xmm_xmmm32 => EVEX_Vsqrtss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vsubpd_xmm_xmm_xmmm128 => EVEX_Vsubpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vsubps_xmm_xmm_xmmm128 => EVEX_Vsubps_xmm_k1z_xmm_xmmm128b32,
        S VEX_Vsubsd_xmm_xmm_xmmm64 => EVEX_Vsubsd_xmm_k1z_xmm_xmmm64_er,
        S VEX_Vsubss_xmm_xmm_xmmm32 => EVEX_Vsubss_xmm_k1z_xmm_xmmm32_er,
        X VEX_Vunpckhpd_xmm_xmm_xmmm128 => EVEX_Vunpckhpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vunpckhps_xmm_xmm_xmmm128 => EVEX_Vunpckhps_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vunpcklpd_xmm_xmm_xmmm128 => EVEX_Vunpcklpd_xmm_k1z_xmm_xmmm128b64,
        X VEX_Vunpcklps_xmm_xmm_xmmm128 => EVEX_Vunpcklps_xmm_k1z_xmm_xmmm128b32,
        X VEX_Vxorps_xmm_xmm_xmmm128 => EVEX_Vxorps_xmm_k1z_xmm_xmmm128b32,
    }
    vex {
        X VEX_Vblendvpd_xmm_xmm_xmmm128_xmm,
        X VEX_Vblendvps_xmm_xmm_xmmm128_xmm,
        X VEX_Vcmppd_xmm_xmm_xmmm128_imm8,
        X VEX_Vcmpps_xmm_xmm_xmmm128_imm8,
        S VEX_Vcmpsd_xmm_xmm_xmmm64_imm8,
        S VEX_Vcmpss_xmm_xmm_xmmm32_imm8,
        X VEX_Vmaskmovps_xmm_xmm_m128,
        X VEX_Vpblendd_xmm_xmm_xmmm128_imm8,
        X VEX_Vpblendvb_xmm_xmm_xmmm128_xmm,
        X VEX_Vpcmpeqb_xmm_xmm_xmmm128,
        X VEX_Vpcmpeqd_xmm_xmm_xmmm128,
        X VEX_Vpcmpeqq_xmm_xmm_xmmm128,
        X VEX_Vpcmpeqw_xmm_xmm_xmmm128,
        X VEX_Vpcmpgtb_xmm_xmm_xmmm128,
        X VEX_Vpcmpgtd_xmm_xmm_xmmm128,
        X VEX_Vpcmpgtq_xmm_xmm_xmmm128,
        X VEX_Vpcmpgtw_xmm_xmm_xmmm128,
        X VEX_Vpdpbssd_xmm_xmm_xmmm128,
        Y VEX_Vperm2i128_ymm_ymm_ymmm256_imm8,
        S VEX_Vpmovmskb_r32_xmm,
        S VEX_Vpmovmskb_r32_ymm,
    }
    evex {
        X EVEX_Vmovdqu8_xmm_k1z_xmmm128,
        X EVEX_Vmovdqu16_xmm_k1z_xmmm128,
        X EVEX_Vmovdqu32_xmm_k1z_xmmm128,
        X EVEX_Vmovdqu64_xmm_k1z_xmmm128,
        X EVEX_Vmovdqu8_xmmm128_k1z_xmm,
        X EVEX_Vmovdqu16_xmmm128_k1z_xmm,
        X EVEX_Vmovdqu32_xmmm128_k1z_xmm,
        X EVEX_Vmovdqu64_xmmm128_k1z_xmm,
        X EVEX_Vpabsq_xmm_k1z_xmmm128b64,
        X EVEX_Vpmovm2b_xmm_kr,
        X EVEX_Vpmovm2w_xmm_kr,
        X EVEX_Vpmovm2d_xmm_kr,
        X EVEX_Vpmovm2q_xmm_kr,
        X EVEX_Vpmovb2m_kr_xmm,
        X EVEX_Vpmovw2m_kr_xmm,
        X EVEX_Vpmovd2m_kr_xmm,
        X EVEX_Vpmovq2m_kr_xmm,
        X EVEX_Vpmovwb_xmmm64_k1z_xmm,
        X EVEX_Vpmovdb_xmmm32_k1z_xmm,
        X EVEX_Vpmovqb_xmmm16_k1z_xmm,
        X EVEX_Vpmovdw_xmmm64_k1z_xmm,
        X EVEX_Vpmovqw_xmmm32_k1z_xmm,
        X EVEX_Vpmovqd_xmmm64_k1z_xmm,
        X EVEX_Vpminsq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpminuq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpmaxsq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpmaxuq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpmullq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpdpbusd_xmm_k1z_xmm_xmmm128b32,
        X EVEX_Vpdpwssd_xmm_k1z_xmm_xmmm128b32,
        X EVEX_Vpblendmb_xmm_k1z_xmm_xmmm128,
        X EVEX_Vpblendmw_xmm_k1z_xmm_xmmm128,
        X EVEX_Vpblendmd_xmm_k1z_xmm_xmmm128b32,
        X EVEX_Vpblendmq_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpermi2b_xmm_k1z_xmm_xmmm128,
        X EVEX_Vpermi2w_xmm_k1z_xmm_xmmm128,
        X EVEX_Vpermi2d_xmm_k1z_xmm_xmmm128b32,
        X EVEX_Vpermi2q_xmm_k1z_xmm_xmmm128b64,
        X EVEX_Vpermb_xmm_k1z_xmm_xmmm128,
        X EVEX_Vpermw_xmm_k1z_xmm_xmmm128,
        Y EVEX_Vpermd_ymm_k1z_ymm_ymmm256b32,
        Y EVEX_Vpermq_ymm_k1z_ymm_ymmm256b64,
        Y EVEX_Vshufi32x4_ymm_k1z_ymm_ymmm256b32_imm8,
        S EVEX_Vextracti64x4_ymmm256_k1z_zmm_imm8,
        S EVEX_Vextracti32x4_xmmm128_k1z_zmm_imm8,
        S EVEX_Vinserti64x4_zmm_k1z_zmm_ymmm256_imm8,
        X EVEX_Vpcmpb_kr_k1_xmm_xmmm128_imm8,
        X EVEX_Vpcmpw_kr_k1_xmm_xmmm128_imm8,
        X EVEX_Vpcmpd_kr_k1_xmm_xmmm128b32_imm8,
        X EVEX_Vpcmpq_kr_k1_xmm_xmmm128b64_imm8,
        X EVEX_Vpcmpub_kr_k1_xmm_xmmm128_imm8,
        X EVEX_Vpcmpuw_kr_k1_xmm_xmmm128_imm8,
        X EVEX_Vpcmpud_kr_k1_xmm_xmmm128b32_imm8,
        X EVEX_Vpcmpuq_kr_k1_xmm_xmmm128b64_imm8,
        X EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8,
        X EVEX_Vcmppd_kr_k1_xmm_xmmm128b64_imm8,
        X EVEX_Vpternlogd_xmm_k1z_xmm_xmmm128b32_imm8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and registers of a code as the encoder spells them.
    fn spelled(code: Code) -> (String, String) {
        let text = format!("{code:?}");
        let text = text.trim_start_matches("EVEX_").trim_start_matches("VEX_").to_string();
        let (name, rest) = text.split_once('_').expect("operands");
        (name.to_string(), rest.to_string())
    }

    #[test]
    fn each_step_is_the_same_instruction_on_wider_registers() {
        for &code in ALL {
            let row = form(code).expect("a row");
            for (width, register) in [(View::X, "xmm"), (View::Y, "ymm"), (View::Z, "zmm")] {
                if row.first.is_none() {
                    continue;
                }
                for evex in [false, true] {
                    let Some(found) = row.code(width, evex) else { continue };
                    if width == View::Z && row.evex.is_none() {
                        panic!("{code:?} has no EVEX form");
                    }
                    let encoded_as_evex = format!("{found:?}").starts_with("EVEX");
                    let first = if encoded_as_evex { row.evex } else { row.vex }.expect("it was found");
                    let ((name, operands), (first_name, _)) = (spelled(found), spelled(first));
                    assert_eq!(name, first_name, "{code:?} at {register}");
                    assert!(operands.contains(register), "{found:?} is not {code:?} at {register}");
                }
            }
        }
    }
}
