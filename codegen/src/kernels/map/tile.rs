//! Square tiles, for operands that are contiguous along another axis than the result.

use super::vectors::{Generator, Stream};
use crate::expr::{load_element, load_element_splat, register, store_element};
use crate::kernels::lib::nest::{self, Axis, Part, place, walk};
use crate::kernels::lib::transpose::transpose;
use dnnc_kir::{Builder, Ty, Val};

/// The axis to walk in tiles together with the last: the one along which the operands are contiguous that have gaps along the last.
pub(super) fn across(axes: &[Axis], streams: &[Stream], lanes: u8) -> Option<usize> {
    let (last, outer) = axes.split_last().expect("an axis");
    let (result, inputs) = streams.split_last().expect("the result");
    let out = inputs.len();
    if !(2..=8).contains(&lanes) || last.strides[out] != result.width() || last.size < 2 {
        return None;
    }
    let gaps: Vec<usize> = (0..out)
        .filter(|&i| last.strides[i] != 0 && last.strides[i] != inputs[i].width() && last.strides[i] != -inputs[i].width())
        .collect();
    if gaps.is_empty() {
        return None;
    }
    (0..outer.len()).find(|&a| outer[a].size > 1 && gaps.iter().all(|&i| outer[a].strides[i] == inputs[i].width()))
}

impl Generator<'_> {
    /// All tiles of two axes.
    pub(super) fn tiles(&self, b: &mut Builder, across: (&Axis, Part), last: (&Axis, Part), pointers: &[Val]) {
        let lanes = self.lanes as usize;
        let has_valid = self.streams.iter().any(|s| s.valid.is_some());
        self.strip(b, across, pointers, &mut |b, p, rows| {
            if has_valid {
                for start in (0..last.0.size).step_by(lanes) {
                    self.tile(b, across.0, last.0, p, start, rows, (last.0.size - start).min(lanes));
                }
            } else {
                self.strip(b, last, p, &mut |b, p, columns| self.tile(b, across.0, last.0, p, 0, rows, columns));
            }
        });
    }

    /// An axis in steps of a vector: `body` is given the pointers and the number of indices.
    fn strip(&self, b: &mut Builder, (axis, part): (&Axis, Part), pointers: &[Val], body: &mut dyn FnMut(&mut Builder, &[Val], usize)) {
        let lanes = self.lanes as usize;
        let main = axis.size / lanes * lanes;
        walk(b, axis, part.bounds(main), lanes, pointers, &[], &mut |b, p, _| {
            body(b, p, lanes);
            vec![]
        });
        if main < axis.size {
            nest::in_last_task(b, part, axis.size, |b| {
                let p = nest::at(b, axis, pointers, main);
                body(b, &p, axis.size - main);
            });
        }
    }

    /// One tile: `rows` indices of the axis across and `columns` of the last, from index `first` on.
    fn tile(&self, b: &mut Builder, across: &Axis, last: &Axis, pointers: &[Val], first: usize, rows: usize, columns: usize) {
        let inputs = self.streams.len() - 1;
        let operands: Vec<Vec<Val>> = (0..inputs)
            .map(|i| {
                let (stream, ptr) = (&self.streams[i], pointers[i]);
                let (down, right) = (across.strides[i], last.strides[i]);
                if down == stream.width() && right != 0 && right.abs() != stream.width() {
                    let zero = Ty { elem: register(stream.ty), lanes: self.lanes };
                    let vectors: Vec<Val> = (0..self.lanes as usize)
                        .map(|c| {
                            if c >= columns || stream.valid.is_some_and(|valid| first + c >= valid) {
                                return b.bits(zero, 0);
                            }
                            let (ptr, disp) = place(b, ptr, right * (first + c) as i64);
                            load_element(b, stream.ty, ptr, disp, self.lanes, rows)
                        })
                        .collect();
                    return transpose(b, vectors);
                }
                if right == 0 && down == 0 {
                    let v = load_element_splat(b, stream.ty, ptr, 0, self.lanes);
                    return vec![v; rows];
                }
                (0..rows)
                    .map(|r| {
                        let (ptr, disp) = place(b, ptr, down * r as i64);
                        if right == 0 {
                            return load_element_splat(b, stream.ty, ptr, disp, self.lanes);
                        }
                        let ptr = b.offset_int(ptr, i64::from(disp));
                        self.load(b, i, ptr, right, first, columns)
                    })
                    .collect()
            })
            .collect();
        for r in 0..rows {
            let row: Vec<Val> = operands.iter().map(|o| o[r]).collect();
            let v = self.expr.emit(b, self.lanes, &row);
            let result = &self.streams[inputs];
            let (ptr, disp) = place(b, pointers[inputs], across.strides[inputs] * r as i64 + last.strides[inputs] * first as i64);
            store_element(b, result.ty, v, ptr, disp, columns);
        }
    }
}
