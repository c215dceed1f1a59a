//! Kernels that copy bytes as they are, for results that could not be made in place.

use dnnc_kir::{Builder, Elem, Func, Ty};
use dnnc_targets::Target;

/// Copies a fixed number of bytes: vectors, then single bytes.
pub(crate) fn copy(bytes: usize, target: &Target) -> Func {
    let mut b = Builder::new(format!("copy_{bytes}"), 2);
    let (from, to) = (b.param(0), b.param(1));
    let wide = Ty::vector(Elem::I32, (target.vector.bits / 32) as u8);
    let mut done = 0;
    for (ty, width) in [(wide, wide.bytes()), (Ty::I64, 8), (Ty::scalar(Elem::I8), 1)] {
        let count = (bytes - done) / width;
        if count > 0 {
            let (src, dst) = (b.offset_int(from, done as i64), b.offset_int(to, done as i64));
            b.each(count, |b, i| {
                let (s, d) = (b.element(src, i, width), b.element(dst, i, width));
                let x = b.load(ty, s, 0);
                b.store(x, d, 0);
            });
            done += count * width;
        }
    }
    b.finish()
}

/// Copies `bytes` from the first pointer to the second at index · bytes; the third points at the index (i64).
pub(crate) fn append(bytes: usize) -> Func {
    let mut b = Builder::new(format!("scan_{bytes}"), 3);
    let (from, to, at) = (b.param(0), b.param(1), b.param(2));
    let index = b.load(Ty::I64, at, 0);
    let dst = b.element(to, index, bytes);
    let (ty, width) = if bytes.is_multiple_of(8) {
        (Ty::I64, 8)
    } else if bytes.is_multiple_of(4) {
        (Ty::I32, 4)
    } else {
        (Ty::scalar(Elem::I8), 1)
    };
    b.each(bytes / width, |b, i| {
        let (s, d) = (b.element(from, i, width), b.element(dst, i, width));
        let x = b.load(ty, s, 0);
        b.store(x, d, 0);
    });
    b.finish()
}
