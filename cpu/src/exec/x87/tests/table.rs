//! Tables of constants for the transcendental functions: results of a computation with 400 bits, rounded to
//! nearest.

use super::super::calc::{Control, Res};
use super::super::ext::Ext;
use super::super::trans;
use super::native::{Model, Native, State};

/// The instruction that a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Sin,
    Cos,
    Tan,
    Exp,
    Log,
    LogP1,
    Atan,
}
use Function::{Atan, Cos, Exp, Log, LogP1, Sin, Tan};

impl Function {
    fn compute(self, x: Ext, y: Ext, control: Control) -> Res {
        match self {
            Sin => trans::sine(x, control),
            Cos => trans::cosine(x, control),
            Tan => trans::tangent(x, control),
            Exp => trans::exp2_minus_1(x, control),
            Log => trans::y_log2_x(x, y, control),
            LogP1 => trans::y_log2_x_plus_1(x, y, control),
            Atan => trans::arctangent(x, y, control),
        }
    }

    const fn code(self) -> [u8; 2] {
        [
            0xd9,
            match self {
                Sin => 0xfe,
                Cos => 0xff,
                Tan => 0xf2,
                Exp => 0xf0,
                Log => 0xf1,
                LogP1 => 0xf9,
                Atan => 0xf3,
            },
        ]
    }
}

/// Sign with exponent, and significand.
type Number = (u16, u64);

const fn ext((se, sig): Number) -> Ext {
    Ext { sig, se }
}

#[test]
fn transcendental_functions_are_rounded_to_nearest() {
    for (function, x, y, want) in ROWS {
        let res = function.compute(ext(x), ext(y), Control(0x37f));
        assert_eq!(res.value, ext(want), "{function:?} {:?} {:?}", ext(x), ext(y));
        assert_eq!(res.flags, 0x20, "{function:?} {:?}", ext(x));
    }
}

#[test]
fn directed_rounding_brackets_the_result() {
    for (function, x, y, _) in ROWS {
        let [down, up, zero] =
            [0x77f, 0xb7f, 0xf7f].map(|c| function.compute(ext(x), ext(y), Control(c)));
        let away = if down.value.negative() { down } else { up };
        assert_eq!(zero.value, if down.value.negative() { up } else { down }.value);
        // A result that is exact in the 128-bit format, like cos of a tiny number, is not moved.
        let next = zero.value.sig.wrapping_add(1) | 1 << 63;
        let moved = zero.value != away.value;
        assert!(!moved || next == away.value.sig, "{function:?} {x:x?}");
        assert!(away.up == moved && !zero.up);
    }
}

/// CPUs differ in the last place, and in how they reduce great arguments; this one stays near.
#[test]
fn near_the_host() {
    let (mut native, mut model) = (Native::new(), Model::new());
    for (function, x, y, want) in ROWS {
        let great = matches!(function, Sin | Cos | Tan) && ext(x).exponent() > 0x3ffe;
        let outside = function == LogP1 && ext(x).exponent() >= 0x3ffd;
        if great || outside {
            continue;
        }
        let mut st = [Ext::ZERO; 8];
        st[0] = ext(x);
        st[1] = ext(y);
        let state = State { control: 0x37f, status: 0, tags: 3, st, memory: [0; 16], flags: 0 };
        let code = function.code();
        native.set_code(&code);
        let (host, ours) = (native.run(&state), model.run(&code, &state));
        let at = usize::from(function == Tan);
        assert_eq!(ours.st[at], ext(want), "{function:?} through the instruction");
        assert_eq!(
            (host.tags, host.status & 0x3fff),
            (ours.tags, ours.status & 0x3dff | host.status & 0x200)
        );
        let place = |e: Ext| u128::from(e.se & 0x7fff) << 63 | u128::from(e.sig << 1 >> 1);
        let distance = place(host.st[at]).abs_diff(place(ours.st[at]));
        assert!(distance <= 1, "{function:?} {x:x?} {y:x?}: {:x?} {:x?}", host.st[at], ours.st[at]);
    }
}

#[rustfmt::skip]
const ROWS: [(Function, Number, Number, Number); 131] = [
    (Sin, (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xd76a_a478_4867_7021)),
    (Cos, (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0x8a51_407d_a834_5c92)),
    (Tan, (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0xc759_22e5_f71d_2dc5)),
    (Sin, (0x4000, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xbfbe, 0xece6_75d1_fc8f_8cbb)),
    (Cos, (0x4000, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xbfff, 0x8000_0000_0000_0000)),
    (Tan, (0x4000, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x3fbe, 0xece6_75d1_fc8f_8cbb)),
    (Sin, (0x3fff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000)),
    (Cos, (0x3fff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xbfbd, 0xece6_75d1_fc8f_8cbb)),
    (Tan, (0x3fff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xc040, 0x8a51_e04d_aabd_a35f)),
    (Sin, (0xbfff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xbfff, 0x8000_0000_0000_0000)),
    (Cos, (0xbfff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0xbfbd, 0xece6_75d1_fc8f_8cbb)),
    (Tan, (0xbfff, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x4040, 0x8a51_e04d_aabd_a35f)),
    (Sin, (0x3ffe, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xb504_f333_f9de_6485)),
    (Cos, (0x3ffe, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xb504_f333_f9de_6484)),
    (Tan, (0x3ffe, 0xc90f_daa2_2168_c235), (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000)),
    (Sin, (0x403d, 0xffff_ffff_ffff_ffff), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xdf32_7e11_2abe_ef8f)),
    (Cos, (0x403d, 0xffff_ffff_ffff_ffff), (0x3fff, 0x8000_0000_0000_0000), (0x3ffd, 0xfac0_35ec_4849_29c2)),
    (Tan, (0x403d, 0xffff_ffff_ffff_ffff), (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0xe3de_9ed3_992f_3138)),
    (Sin, (0x403d, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xb3f2_b9aa_f80a_3946)),
    (Cos, (0x403d, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xb615_8fc1_0638_3e05)),
    (Tan, (0x403d, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xfcff_2df3_327d_3a09)),
    (Sin, (0x3fc0, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3fc0, 0x8000_0000_0000_0000)),
    (Cos, (0x3fc0, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000)),
    (Tan, (0x3fc0, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3fc0, 0x8000_0000_0000_0000)),
    (Sin, (0x4038, 0xc90f_daa2_2168_c234), (0x3fff, 0x8000_0000_0000_0000), (0xbff8, 0xc4c5_2c85_68ba_dbd2)),
    (Cos, (0x4038, 0xc90f_daa2_2168_c234), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xfffb_4600_b422_a7f0)),
    (Tan, (0x4038, 0xc90f_daa2_2168_c234), (0x3fff, 0x8000_0000_0000_0000), (0xbff8, 0xc4c8_cea1_feec_b5b0)),
    (Sin, (0x3ff5, 0xd351_d228_6513_270e), (0x3fff, 0x8000_0000_0000_0000), (0x3ff5, 0xd351_cc28_79f3_ca19)),
    (Cos, (0x3ff5, 0xd351_d228_6513_270e), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ea32_00fc_9585)),
    (Tan, (0x3ff5, 0xd351_d228_6513_270e), (0x3fff, 0x8000_0000_0000_0000), (0x3ff5, 0xd351_de28_3c3d_5b67)),
    (Sin, (0xbfec, 0x8c0c_7408_892f_902b), (0x3fff, 0x8000_0000_0000_0000), (0xbfec, 0x8c0c_7408_88bf_cb07)),
    (Cos, (0xbfec, 0x8c0c_7408_892f_902b), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ffff_fd9b_1304)),
    (Tan, (0xbfec, 0x8c0c_7408_892f_902b), (0x3fff, 0x8000_0000_0000_0000), (0xbfec, 0x8c0c_7408_8a0f_1a72)),
    (Sin, (0x3ff6, 0xc0f3_a77a_e8e2_5d94), (0x3fff, 0x8000_0000_0000_0000), (0x3ff6, 0xc0f3_9536_0b31_1678)),
    (Cos, (0x3ff6, 0xc0f3_a77a_e8e2_5d94), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_b748_d1e1_6350)),
    (Tan, (0x3ff6, 0xc0f3_a77a_e8e2_5d94), (0x3fff, 0x8000_0000_0000_0000), (0x3ff6, 0xc0f3_cc04_ad9c_1ff8)),
    (Sin, (0xbff1, 0xb586_aa4d_6f03_675a), (0x3fff, 0x8000_0000_0000_0000), (0xbff1, 0xb586_aa49_a172_696c)),
    (Cos, (0xbff1, 0xb586_aa4d_6f03_675a), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ffef_e909_8b24)),
    (Tan, (0xbff1, 0xb586_aa4d_6f03_675a), (0x3fff, 0x8000_0000_0000_0000), (0xbff1, 0xb586_aa55_0a25_63a4)),
    (Sin, (0xbfed, 0xb656_a513_8d11_6ece), (0x3fff, 0x8000_0000_0000_0000), (0xbfed, 0xb656_a513_8936_bc7c)),
    (Cos, (0xbfed, 0xb656_a513_8d11_6ece), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ffff_efc4_15ff)),
    (Tan, (0xbfed, 0xb656_a513_8d11_6ece), (0x3fff, 0x8000_0000_0000_0000), (0xbfed, 0xb656_a513_94c6_d372)),
    (Sin, (0x3fec, 0xf946_082e_1fb1_7c23), (0x3fff, 0x8000_0000_0000_0000), (0x3fec, 0xf946_082e_1d3b_3a6d)),
    (Cos, (0x3fec, 0xf946_082e_1fb1_7c23), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ffff_f86a_3587)),
    (Tan, (0x3fec, 0xf946_082e_1fb1_7c23), (0x3fff, 0x8000_0000_0000_0000), (0x3fec, 0xf946_082e_249d_ff8f)),
    (Sin, (0x3ff2, 0xf94e_86d4_953f_48f1), (0x3fff, 0x8000_0000_0000_0000), (0x3ff2, 0xf94e_86ad_2d1c_d448)),
    (Cos, (0x3ff2, 0xf94e_86d4_953f_48f1), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ff86_9b12_d99b)),
    (Tan, (0x3ff2, 0xf94e_86d4_953f_48f1), (0x3fff, 0x8000_0000_0000_0000), (0x3ff2, 0xf94e_8723_6584_53e5)),
    (Sin, (0x3fec, 0x8658_f14e_658c_da14), (0x3fff, 0x8000_0000_0000_0000), (0x3fec, 0x8658_f14e_652a_2f09)),
    (Cos, (0x3fec, 0x8658_f14e_658c_da14), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xffff_ffff_fdcb_f624)),
    (Tan, (0x3fec, 0x8658_f14e_658c_da14), (0x3fff, 0x8000_0000_0000_0000), (0x3fec, 0x8658_f14e_6652_302a)),
    (Sin, (0xc012, 0x910b_df56_dbc4_96cb), (0x3fff, 0x8000_0000_0000_0000), (0x3ffc, 0xe9d7_2895_478a_cd46)),
    (Cos, (0xc012, 0x910b_df56_dbc4_96cb), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xf93c_544c_a125_d50b)),
    (Tan, (0xc012, 0x910b_df56_dbc4_96cb), (0x3fff, 0x8000_0000_0000_0000), (0xbffc, 0xf02f_dd53_1394_b759)),
    (Sin, (0xc016, 0x8f13_d0e0_8a6a_63ec), (0x3fff, 0x8000_0000_0000_0000), (0xbffc, 0x8fbd_385b_70f1_f9a2)),
    (Cos, (0xc016, 0x8f13_d0e0_8a6a_63ec), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xfd77_2227_8080_aa30)),
    (Tan, (0xc016, 0x8f13_d0e0_8a6a_63ec), (0x3fff, 0x8000_0000_0000_0000), (0x3ffc, 0x912d_308d_1f82_2787)),
    (Sin, (0xc028, 0xd74b_dd4a_d0ed_a82f), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xc748_f411_7322_bef7)),
    (Cos, (0xc028, 0xd74b_dd4a_d0ed_a82f), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xa0b0_d14e_9110_e22a)),
    (Tan, (0xc028, 0xd74b_dd4a_d0ed_a82f), (0x3fff, 0x8000_0000_0000_0000), (0xbfff, 0x9ebe_2271_c22a_2ab0)),
    (Sin, (0xc00f, 0xd1c7_eaa3_923a_7369), (0x3fff, 0x8000_0000_0000_0000), (0xbffb, 0x9fd2_0d46_b7cf_5ced)),
    (Cos, (0xc00f, 0xd1c7_eaa3_923a_7369), (0x3fff, 0x8000_0000_0000_0000), (0xbffe, 0xff38_24cb_0cbb_00f8)),
    (Tan, (0xc00f, 0xd1c7_eaa3_923a_7369), (0x3fff, 0x8000_0000_0000_0000), (0x3ffb, 0xa04f_341d_2478_9e04)),
    (Sin, (0xc010, 0xdb26_7211_8c38_fb29), (0x3fff, 0x8000_0000_0000_0000), (0x3ffd, 0xe52f_67c1_ad05_2dc0)),
    (Cos, (0xc010, 0xdb26_7211_8c38_fb29), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xe4eb_9dc7_4d91_f274)),
    (Tan, (0xc010, 0xdb26_7211_8c38_fb29), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0x8025_e769_fca2_0efc)),
    (Sin, (0x4008, 0x9a5c_daef_9e77_69b1), (0x3fff, 0x8000_0000_0000_0000), (0x3ffe, 0xfde8_a50e_46eb_98d7)),
    (Cos, (0x4008, 0x9a5c_daef_9e77_69b1), (0x3fff, 0x8000_0000_0000_0000), (0xbffc, 0x829e_8911_7794_6aa4)),
    (Tan, (0x4008, 0x9a5c_daef_9e77_69b1), (0x3fff, 0x8000_0000_0000_0000), (0xc001, 0xf8d1_3392_76d6_efff)),
    (Exp, (0x3ffe, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3ffd, 0xd413_cccf_e779_9211)),
    (Exp, (0xbffe, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0xbffd, 0x95f6_1998_0c43_36f7)),
    (Exp, (0x3fc0, 0x8000_0000_0000_0000), (0x3fff, 0x8000_0000_0000_0000), (0x3fbf, 0xb172_17f7_d1cf_79ac)),
    (Exp, (0x3ff0, 0xe37c_3b8c_6d76_b07e), (0x3fff, 0x8000_0000_0000_0000), (0x3ff0, 0x9daf_0a0a_11cf_68b3)),
    (Exp, (0xbfeb, 0xba01_f218_ec66_a787), (0x3fff, 0x8000_0000_0000_0000), (0xbfeb, 0x80ee_3a9c_55ee_f8f1)),
    (Exp, (0xbfec, 0x9702_98cd_cb5c_7427), (0x3fff, 0x8000_0000_0000_0000), (0xbfeb, 0xd158_2730_6edd_a90a)),
    (Exp, (0x3ff7, 0xc986_b757_14f4_733f), (0x3fff, 0x8000_0000_0000_0000), (0x3ff7, 0x8bfc_49ee_59ff_1c72)),
    (Exp, (0x3fea, 0xabf7_02e6_e009_02c7), (0x3fff, 0x8000_0000_0000_0000), (0x3fe9, 0xee64_ddad_2937_98a9)),
    (Exp, (0xbff8, 0xfd76_5e9c_9be4_bcfc), (0x3fff, 0x8000_0000_0000_0000), (0xbff8, 0xaebf_8642_9634_9ec2)),
    (Exp, (0xbfe3, 0x951d_7a6a_6b0a_18e8), (0x3fff, 0x8000_0000_0000_0000), (0xbfe2, 0xceb7_ad6e_f6b7_81e4)),
    (Exp, (0xbff9, 0xbe96_57c1_eeea_cbe2), (0x3fff, 0x8000_0000_0000_0000), (0xbff9, 0x830b_aa3d_7b1c_758c)),
    (Exp, (0xbfee, 0x89ef_77c3_ab10_31d0), (0x3fff, 0x8000_0000_0000_0000), (0xbfed, 0xbf37_f302_276d_b982)),
    (Exp, (0x3ff9, 0xf00f_a82b_ca02_135e), (0x3fff, 0x8000_0000_0000_0000), (0x3ff9, 0xa819_6339_5ee4_38d3)),
    (Log, (0x3fff, 0x8000_0000_0000_0001), (0xc001, 0x8efc_febc_9c65_3938), (0xbfc2, 0xce49_d848_44a6_56aa)),
    (Log, (0x3ffe, 0xffff_ffff_ffff_ffff), (0xc001, 0xa4ca_91cc_c4aa_eac1), (0x3fc1, 0xedbe_5aca_9d52_65d2)),
    (Log, (0x4000, 0xadf8_5458_a2bb_4a9a), (0x3ffc, 0xb20a_a3ce_65dc_9f50), (0x3ffd, 0x806e_09f2_57c7_7dca)),
    (Log, (0x3fff, 0xb504_f333_f9de_6484), (0xc001, 0xb369_143b_72fd_f202), (0xc000, 0xb369_143b_72fd_f201)),
    (Log, (0x3fff, 0xb504_f333_f9de_6485), (0xc002, 0xe8de_296c_230d_977e), (0xc001, 0xe8de_296c_230d_9780)),
    (Log, (0x4002, 0xab89_2121_5051_c1cc), (0x4000, 0xda6b_351d_4746_9a4d), (0x4002, 0xbae0_8ef8_8312_c0b1)),
    (Log, (0x4001, 0xcc14_4fe6_59a5_4a7b), (0x4000, 0xf12d_3b02_aec6_f024), (0x4002, 0xa12a_5de0_f314_1920)),
    (Log, (0x3fff, 0xe600_8e6e_9474_031b), (0x4000, 0x8a9f_3e15_26a2_c0bd), (0x3fff, 0xea69_3042_0dbd_6676)),
    (Log, (0x3fff, 0xeb84_107f_119a_72d1), (0xbffc, 0x9ddd_f4f5_a894_8c89), (0xbffc, 0x8adf_5ec1_39f7_e649)),
    (Log, (0x3ffc, 0xa28d_5ec0_f1d6_9ed6), (0xbffa, 0x9757_02e7_96d0_cc5f), (0x3ffb, 0xc8ec_0194_ffff_fb38)),
    (Log, (0x3fff, 0xd502_f08d_b271_5945), (0xbffe, 0xb5a0_09f7_254b_0c4e), (0xbffe, 0x8574_b40d_e983_b79a)),
    (Log, (0x09d0, 0xdd96_a107_0f88_080b), (0xc002, 0xa8c8_447a_90fb_bd11), (0x4010, 0x8ee2_d653_1b42_da5e)),
    (Log, (0x5b49, 0xd2d5_1e40_4f42_6dcb), (0x3ffc, 0xf9a0_f03d_83f7_3f16), (0x4009, 0xd4e6_aca4_1709_edc3)),
    (Log, (0x4b79, 0xd732_c799_fe3b_890b), (0x4003, 0x86e9_3d32_bd62_8881), (0x400e, 0xc196_bcd9_e398_420b)),
    (Log, (0x6ab3, 0xa46d_a057_7215_8370), (0x4001, 0xf9d7_685b_c7ac_1491), (0x400f, 0xa6b5_7367_80c9_6411)),
    (Log, (0x5d39, 0xf18a_8944_62c3_3a4f), (0x4004, 0xb2f3_f211_6472_f1a3), (0x4011, 0xa376_8d12_577f_961e)),
    (Log, (0x5715, 0x82e3_5783_58d5_563d), (0xc000, 0xd130_6685_7b45_145c), (0xc00d, 0x96ea_d0d5_133a_d397)),
    (LogP1, (0x3fc0, 0x8000_0000_0000_0000), (0x4002, 0xc399_1712_c215_a82a), (0x3fc4, 0x8d18_1972_b027_c6f6)),
    (LogP1, (0xbf80, 0x8000_0000_0000_0000), (0x3ffe, 0x8ba6_3bd1_dd02_de92), (0xbf7f, 0xc978_af50_dfb9_265c)),
    (LogP1, (0xbff0, 0xfe09_9686_113d_b17d), (0x3ffe, 0x9561_a223_e883_a1d4), (0xbff0, 0xd5dd_b88a_8278_7ff8)),
    (LogP1, (0xbfe4, 0xab86_e0ca_1c24_42f9), (0x3fff, 0xc552_1246_8857_f9a4), (0xbfe5, 0xbebd_24b8_340c_8e98)),
    (LogP1, (0xbfda, 0x935c_a63f_9118_bb16), (0xc002, 0xce7e_4329_3919_4242), (0x3fde, 0xab7c_1b12_717d_1e2a)),
    (LogP1, (0xbff9, 0xce8e_f150_5d15_8a2f), (0x3ffd, 0xb349_a01b_d17e_4497), (0xbff8, 0xd360_f5b0_32e3_4f3f)),
    (LogP1, (0xbfd8, 0xce99_d00e_353c_631c), (0xbffd, 0xad83_12c7_7e26_f36a), (0x3fd7, 0xca05_5596_05ab_107f)),
    (LogP1, (0xbfef, 0xfa4c_c6be_4093_f6de), (0x3ffa, 0xa3c3_fc9d_ca44_eb86), (0xbfeb, 0xe701_af49_fc1b_2d17)),
    (LogP1, (0x3fed, 0x8fb9_4b55_7961_fd92), (0xc001, 0xcd75_3214_b149_1e24), (0xbff0, 0xa669_8143_f3cb_9d95)),
    (LogP1, (0x3fde, 0xfd29_4dd1_fe3b_fada), (0xbfff, 0xdc8f_74f2_efe0_9f07), (0xbfe0, 0x9d56_2475_ce00_db8a)),
    (LogP1, (0xbff4, 0x8afe_44cf_4fd5_8dbe), (0x3fff, 0x8a4f_12cd_5d58_c705), (0xbff4, 0xd8bb_725d_c95e_a756)),
    (LogP1, (0xbfe0, 0xdec3_d432_57b6_fb7e), (0xbffd, 0x992d_aaee_7857_2976), (0x3fdf, 0xc04c_c2f7_493b_b692)),
    (LogP1, (0xbffd, 0x94aa_0537_b12a_a1f6), (0xbfff, 0xfe1c_a392_9fc2_d0a1), (0x3ffe, 0xfb7d_4d98_b919_1a1f)),
    (LogP1, (0x4020, 0x9a44_7c3b_05e9_99f3), (0x4003, 0xf460_a3a1_7abe_c539), (0x4008, 0xfe12_20a6_88d4_a386)),
    (LogP1, (0x403b, 0xc39d_f03c_f3b7_a50d), (0xc004, 0x8ada_0575_a4a4_5eff), (0xc00a, 0x8380_3dca_44bc_4216)),
    (LogP1, (0x4016, 0xd854_2272_2587_be6b), (0xc004, 0xe422_8038_6377_1407), (0xc009, 0xa95e_8791_3159_6a7d)),
    (Atan, (0x4001, 0xf1cb_1cdf_7a60_5a91), (0xbffd, 0xaa8f_ec7c_a2c6_8e45), (0xbffa, 0xb477_7bbe_6581_1ef4)),
    (Atan, (0x3ffc, 0xdc64_c0bd_f8be_8831), (0xbfff, 0xf930_a4f6_be4c_5ce6), (0xbfff, 0xbaf7_d730_c7e7_d3f3)),
    (Atan, (0x3ffc, 0xff1e_4e47_2b85_5c1f), (0xbffd, 0xf3d2_3184_973f_7986), (0xbfff, 0x8b5d_60d2_fc46_b7e3)),
    (Atan, (0x3fff, 0xce48_08f7_256b_adf9), (0x4002, 0xd421_5e0c_796f_74ad), (0x3fff, 0xb994_3c52_297f_100e)),
    (Atan, (0xbffe, 0x90c4_143f_8c5c_715f), (0xbffc, 0xdcf9_b1ae_f88c_422b), (0xc000, 0xb1bb_0b4f_cb34_b147)),
    (Atan, (0xc001, 0xf781_0485_bfde_fc15), (0xbffd, 0x98ef_627a_df2a_8b79), (0xc000, 0xc697_6dc8_0f50_3e7f)),
    (Atan, (0x4002, 0xa03c_1f85_072a_98d2), (0xbffd, 0xe1c0_4250_3d93_fd4c), (0xbffa, 0xb438_3f5c_546e_48a2)),
    (Atan, (0xc000, 0xb5a2_3403_8b5a_b3ee), (0xc002, 0xdeb5_c40d_e8f6_e0bd), (0xbfff, 0xe2ce_979d_4108_fd15)),
    (Atan, (0x3ffe, 0xcaab_2c2f_a997_f351), (0x4002, 0xe9df_b680_6bae_4b5b), (0x3fff, 0xc222_d899_997e_02de)),
    (Atan, (0xc000, 0xc302_438c_26de_bfdb), (0xc000, 0xe364_8dc9_70ac_06ac), (0xc000, 0x91e6_3e41_a6ef_388f)),
    (Atan, (0x3fec, 0xe64b_37a3_c6aa_7d55), (0xbfea, 0xcf3e_b59b_7936_d536), (0xbffc, 0xe29a_fa3a_3c5d_ff57)),
    (Atan, (0xc00f, 0xa9b9_c872_0fcf_31ca), (0x400c, 0xbdc2_2268_8e31_7041), (0x4000, 0xc02c_dd4f_4e1e_8f23)),
    (Atan, (0x4013, 0xc7b7_c8af_e21b_37ca), (0xbfe4, 0x8566_c5f0_46e4_0990), (0xbfcf, 0xaafe_bb8e_6c8f_f04a)),
    (Atan, (0xc012, 0xc7e6_bfa0_73c1_cd2c), (0x3fe2, 0x881c_785a_e998_d0ee), (0x4000, 0xc90f_daa2_2168_96a1)),
    (Atan, (0xbffd, 0xc0b5_f703_f92e_2339), (0x4007, 0xa37a_d0da_b156_d1ad), (0x3fff, 0xc935_9367_001d_ba45)),
    (Atan, (0x3ffd, 0xbd30_4b41_ceaf_4915), (0x4001, 0xc2f8_88ad_b2ff_f17b), (0x3fff, 0xc14f_059d_2c75_b3e8)),
];
