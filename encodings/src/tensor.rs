//! One tensor as bytes: of several forms the smallest.
//!
//! Zeros are left out by their gaps, as in CSC with relative indices (Han et al., *Deep Compression*, 2016); values that occur often are numbers of a
//! codebook; gaps and numbers are written in Huffman codes.

use crate::bits::{Reader, Writer, put_number, take_bytes, take_number};
use crate::codebook::{Codebook, LARGEST};
use crate::huffman::{Decoder, Encoder};

/// How a tensor is kept. The number is the first byte of what [`encode`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All values, four bytes each.
    Dense = 0,
    /// A codebook, and a Huffman code for each value.
    Shared = 1,
    /// Gaps between values that are not zero in Huffman codes, and the values, four bytes each.
    Sparse = 2,
    /// The same gaps, and Huffman codes of a codebook.
    SparseShared = 3,
    /// All values, two bytes each: the high halves of their bits, where the low ones are zero.
    Halves = 4,
}

const FORMS: [Form; 5] = [Form::Dense, Form::Shared, Form::Sparse, Form::SparseShared, Form::Halves];

impl Form {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        ["dense", "codebook", "sparse", "sparse codebook", "half"][self as usize]
    }

    fn is_sparse(self) -> bool {
        matches!(self, Form::Sparse | Form::SparseShared)
    }
}

/// In the first byte: sparse values are in the order of columns.
const BY_COLUMNS: u8 = 0x80;

/// The gap that stands for as many zeros without a value behind them.
const SKIP: usize = 255;

/// The smallest of all forms. `rows` divides the number of values; it decides between the orders of rows and of columns.
pub fn encode(values: &[f32], rows: usize) -> Vec<u8> {
    let all = FORMS.iter().flat_map(|&form| [false, true].map(|columns| encode_as(values, rows, form, columns)));
    all.flatten().min_by_key(Vec::len).expect("every tensor has a dense form")
}

/// One form; `None` where the values have none: too many different ones, or low bits that are not zero. `by_columns` is for sparse forms of several
/// rows only.
pub fn encode_as(values: &[f32], rows: usize, form: Form, by_columns: bool) -> Option<Vec<u8>> {
    let columns = values.len().checked_div(rows)?;
    if by_columns && (!form.is_sparse() || rows < 2 || columns < 2) {
        return None;
    }
    let mut out = vec![form as u8 | if by_columns { BY_COLUMNS } else { 0 }];
    match form {
        Form::Dense => out.extend_from_slice(bytemuck::cast_slice(values)),
        Form::Halves => {
            for value in values {
                let bits = value.to_bits();
                if bits & 0xffff != 0 {
                    return None;
                }
                out.extend(((bits >> 16) as u16).to_le_bytes());
            }
        }
        Form::Shared => {
            let book = Codebook::of(values.iter().copied())?;
            let codes: Vec<usize> = values.iter().map(|v| book.code(*v)).collect();
            let encoder = put_codebook(&book, &codes, &mut out)?;
            let mut bits = Writer::default();
            codes.iter().for_each(|&c| encoder.put(c, &mut bits));
            out.extend(bits.finish());
        }
        Form::Sparse | Form::SparseShared => {
            let ordered: Vec<f32> = match by_columns {
                true => (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect(),
                false => values.to_vec(),
            };
            let (gaps, kept) = gaps(&ordered);
            put_number(&mut out, kept.len() as u64);
            if kept.is_empty() {
                return Some(out);
            }
            let mut counts = vec![0; SKIP + 1];
            gaps.iter().for_each(|&g| counts[usize::from(g)] += 1);
            let gap_encoder = Encoder::new(&counts);
            gap_encoder.put_table(&mut out);
            let mut shared = None;
            if form == Form::SparseShared {
                let book = Codebook::of(kept.iter().copied())?;
                let codes: Vec<usize> = kept.iter().map(|v| book.code(*v)).collect();
                let encoder = put_codebook(&book, &codes, &mut out)?;
                shared = Some((encoder, codes));
            }
            let mut bits = Writer::default();
            let mut at = 0;
            for &gap in &gaps {
                gap_encoder.put(gap.into(), &mut bits);
                if usize::from(gap) != SKIP {
                    if let Some((encoder, codes)) = &shared {
                        encoder.put(codes[at], &mut bits);
                    }
                    at += 1;
                }
            }
            let bits = bits.finish();
            if form == Form::Sparse {
                put_number(&mut out, bits.len() as u64);
            }
            out.extend(bits);
            if form == Form::Sparse {
                out.extend_from_slice(bytemuck::cast_slice(&kept));
            }
        }
    }
    Some(out)
}

/// The gaps before each value that is not zero, and these values.
fn gaps(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (mut gaps, mut kept, mut gap) = (vec![], vec![], 0);
    for &value in values {
        if value.to_bits() == 0 {
            gap += 1;
            continue;
        }
        while gap >= SKIP {
            gaps.push(SKIP as u8);
            gap -= SKIP;
        }
        gaps.push(gap as u8);
        kept.push(value);
        gap = 0;
    }
    (gaps, kept)
}

/// Writes a codebook and the table of its codes.
fn put_codebook(book: &Codebook, codes: &[usize], out: &mut Vec<u8>) -> Option<Encoder> {
    if codes.is_empty() {
        return None;
    }
    put_number(out, book.values.len() as u64);
    out.extend_from_slice(bytemuck::cast_slice(&book.values));
    let mut counts = vec![0; book.values.len()];
    codes.iter().for_each(|&c| counts[c] += 1);
    let encoder = Encoder::new(&counts);
    encoder.put_table(out);
    Some(encoder)
}

/// Reads what [`put_codebook`] wrote.
fn take_codebook(bytes: &mut &[u8]) -> Option<(Vec<f32>, Decoder)> {
    let n = take_number(bytes)?;
    if n > LARGEST as u64 {
        return None;
    }
    let mut values = floats(take_bytes(bytes, n * 4)?);
    let decoder = Decoder::take(bytes)?;
    // A code that is no value of the book cannot be written; one that is read all the same is a zero.
    values.resize(crate::huffman::SYMBOLS, 0.0);
    Some((values, decoder))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// The form of an encoded tensor.
pub fn form(bytes: &[u8]) -> Option<Form> {
    FORMS.get(usize::from(bytes.first()? & !BY_COLUMNS)).copied()
}

/// The values of an encoded tensor of `len` values. An error is the end of a sentence that begins with the tensor.
pub fn decode(bytes: &[u8], len: usize, rows: usize) -> Result<Vec<f32>, String> {
    let form = form(bytes).ok_or("has an encoding that this version does not know")?;
    let by_columns = bytes[0] & BY_COLUMNS != 0;
    let damaged = || "is damaged".to_string();
    if rows == 0 || !len.is_multiple_of(rows) || by_columns && !form.is_sparse() {
        return Err(damaged());
    }
    decode_form(&bytes[1..], form, by_columns, len, rows).ok_or_else(damaged)
}

fn decode_form(mut bytes: &[u8], form: Form, by_columns: bool, len: usize, rows: usize) -> Option<Vec<f32>> {
    match form {
        Form::Dense => (bytes.len() as u64 == len as u64 * 4).then(|| floats(bytes)),
        Form::Halves => {
            let half = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            (bytes.len() as u64 == len as u64 * 2).then(|| bytes.chunks_exact(2).map(half).collect())
        }
        Form::Shared => {
            let (book, decoder) = take_codebook(&mut bytes)?;
            // Each value has at least one bit: a short file cannot ask for much memory.
            if (bytes.len() as u64).saturating_mul(8) < len as u64 {
                return None;
            }
            let mut reader = Reader::new(bytes);
            let mut values = vec![0.0; len];
            for pair in values.chunks_mut(2) {
                reader.fill();
                for value in pair {
                    *value = book[decoder.next(&mut reader)];
                }
            }
            (!reader.overrun()).then_some(values)
        }
        Form::Sparse | Form::SparseShared => {
            let kept = usize::try_from(take_number(&mut bytes)?).ok().filter(|n| *n <= len)?;
            let mut values = vec![0.0; len];
            if kept == 0 {
                return bytes.is_empty().then_some(values);
            }
            let gaps = Decoder::take(&mut bytes)?;
            let (book, codes, given, stream);
            if form == Form::SparseShared {
                let (values, decoder) = take_codebook(&mut bytes)?;
                (book, codes, given, stream) = (values, Some(decoder), vec![], bytes);
            } else {
                let length = take_number(&mut bytes)?;
                stream = take_bytes(&mut bytes, length)?;
                if bytes.len() as u64 != kept as u64 * 4 {
                    return None;
                }
                (book, codes, given) = (vec![], None, floats(bytes));
            }
            let mut reader = Reader::new(stream);
            let mut at = 0usize;
            for i in 0..kept {
                reader.fill();
                loop {
                    let gap = gaps.next(&mut reader);
                    at += gap;
                    if gap != SKIP {
                        break;
                    }
                    if at >= len {
                        return None;
                    }
                    reader.fill();
                }
                let value = match &codes {
                    Some(codes) => book[codes.next(&mut reader)],
                    None => given[i],
                };
                *values.get_mut(at)? = value;
                at += 1;
            }
            if reader.overrun() {
                return None;
            }
            if by_columns {
                let columns = len / rows;
                values = (0..len).map(|i| values[i % columns * rows + i / columns]).collect();
            }
            Some(values)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
    }

    /// Tensors with zeros, shared values, runs of zeros longer than a gap can say, and special values.
    fn cases() -> Vec<(Vec<f32>, usize)> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut cases = vec![(vec![0.0; 6000], 10), (vec![1.5], 1), (vec![-0.0, 0.0, f32::NAN, f32::INFINITY], 2)];
        for (density, values) in [(0.01, 5), (0.1, 16), (0.3, 256), (0.3, 1 << 30), (1.0, 2), (1.0, 200), (1.0, 1 << 30), (0.001, 1)] {
            let mut value = || if random.f64() < density { (1 + random.u32(..values)) as f32 / 3.0 } else { 0.0 };
            cases.push(((0..12_000).map(|_| value()).collect(), 40));
        }
        cases
    }

    #[test]
    fn every_form_gives_the_same_bits() {
        for (values, rows) in cases() {
            for form in FORMS {
                for columns in [false, true] {
                    let Some(bytes) = encode_as(&values, rows, form, columns) else { continue };
                    assert_eq!(super::form(&bytes), Some(form));
                    assert!(same(&decode(&bytes, values.len(), rows).expect("whole"), &values), "{form:?} {columns}");
                }
            }
            assert!(encode(&values, rows).len() <= 1 + values.len() * 4);
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(3);
        for (values, rows) in cases() {
            let whole = encode(&values, rows);
            for _ in 0..300 {
                let mut bytes = whole.clone();
                for _ in 0..=random.usize(..3) {
                    let at = random.usize(..bytes.len().min(400));
                    bytes[at] = random.u8(..);
                }
                bytes.truncate(bytes.len() - random.usize(..bytes.len().min(3)));
                let _ = decode(&bytes, values.len(), rows);
            }
        }
    }

    #[test]
    fn sparse_shared_weights_are_small() {
        // 8 % of 300×784 in 16 values: four bits a code, and the entropy of the places, 0.4 bits a weight, within 10 %.
        let mut random = fastrand::Rng::with_seed(2);
        let values: Vec<f32> = (0..300 * 784).map(|_| if random.f64() < 0.08 { (1 + random.u32(..16)) as f32 } else { 0.0 }).collect();
        let bytes = encode(&values, 300);
        assert_eq!(form(&bytes), Some(Form::SparseShared));
        let entropy = 300.0 * 784.0 * (0.402 + 0.08 * 4.0) / 8.0;
        assert!((bytes.len() as f64) < 1.1 * entropy, "{} of {entropy}", bytes.len());
    }
}
