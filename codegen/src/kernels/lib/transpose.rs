//! Square tiles transposed in registers.

use dnnc_kir::{Builder, Val};

/// As many vectors as they have lanes, transposed: first pairs and pairs of pairs within 128 bits, then the halves of registers.
pub fn transpose(b: &mut Builder, mut rows: Vec<Val>) -> Vec<Val> {
    let ty = b.ty(rows[0]);
    let lanes = ty.lanes as usize;
    assert_eq!(rows.len(), lanes, "a tile is square");
    let chunk = (16 / ty.elem.bytes()).min(lanes);
    // Interleave within chunks: lane pairs of (row, row + distance) stand side by side.
    let mut width = 1;
    while width < chunk {
        let pick = |upper: bool| -> Vec<u8> {
            let mut order = Vec::with_capacity(lanes);
            for c in (0..lanes).step_by(chunk) {
                let from = c + if upper { chunk / 2 } else { 0 };
                for k in (0..chunk / 2).step_by(width) {
                    order.extend((0..width).map(|w| (from + k + w) as u8));
                    order.extend((0..width).map(|w| (lanes + from + k + w) as u8));
                }
            }
            order
        };
        let (low, high) = (pick(false), pick(true));
        rows = interleave(b, &rows, width, &low, &high);
        width *= 2;
    }
    // Whole chunks.
    let mut distance = chunk;
    while distance < lanes {
        let low: Vec<u8> = (0..lanes).map(|l| if (l / distance).is_multiple_of(2) { l } else { lanes + l - distance } as u8).collect();
        let high: Vec<u8> = (0..lanes).map(|l| if (l / distance).is_multiple_of(2) { l + distance } else { lanes + l } as u8).collect();
        let mut next = rows.clone();
        for i in (0..lanes).filter(|i| (i / distance).is_multiple_of(2)) {
            next[i] = b.shuffle(rows[i], rows[i + distance], &low);
            next[i + distance] = b.shuffle(rows[i], rows[i + distance], &high);
        }
        rows = next;
        distance *= 2;
    }
    rows
}

/// One stage of interleaving: rows `i` and `i + width` of each group of 2·width become the lower and the upper half of their pairs.
fn interleave(b: &mut Builder, rows: &[Val], width: usize, low: &[u8], high: &[u8]) -> Vec<Val> {
    let mut next = rows.to_vec();
    for group in (0..rows.len()).step_by(2 * width) {
        for i in 0..width {
            let (x, y) = (rows[group + i], rows[group + width + i]);
            next[group + 2 * i] = b.shuffle(x, y, low);
            next[group + 2 * i + 1] = b.shuffle(x, y, high);
        }
    }
    next
}
