//! Canonical Huffman codes of limited length, decoded by one look at a table.

use crate::bits::{Reader, Writer, put_number, take_number};

/// Bits of the longest code: the table of a decoder has at most 2¹² entries and stays in the first-level cache.
const LONGEST: u8 = 12;

/// Most symbols of an alphabet.
pub const SYMBOLS: usize = 1024;

/// The lengths of the codes of least total length, none longer than [`LONGEST`], by package-merge (Larmore and Hirschberg, 1990). Symbols that do
/// not occur have length 0; a single one has length 1.
fn lengths(counts: &[u64]) -> Vec<u8> {
    let mut leaves: Vec<(u64, usize)> = counts.iter().copied().zip(0..).filter(|(n, _)| *n > 0).collect();
    leaves.sort();
    let mut lengths = vec![0; counts.len()];
    if let [(_, only)] = leaves[..] {
        lengths[only] = 1;
        return lengths;
    }
    // A package is a weight and the symbols in it; each level pairs the packages of the level below and merges them with the leaves.
    let coins: Vec<(u64, Vec<usize>)> = leaves.iter().map(|&(n, s)| (n, vec![s])).collect();
    let mut level = coins.clone();
    for _ in 1..LONGEST {
        let mut next: Vec<(u64, Vec<usize>)> =
            level.chunks_exact(2).map(|pair| (pair[0].0 + pair[1].0, [&pair[0].1[..], &pair[1].1].concat())).collect();
        next.extend(coins.iter().cloned());
        next.sort_by_key(|(n, _)| *n);
        level = next;
    }
    for symbol in level.iter().take((2 * leaves.len()).saturating_sub(2)).flat_map(|(_, symbols)| symbols) {
        lengths[*symbol] += 1;
    }
    lengths
}

/// The code of each symbol, first bit lowest.
fn codes(lengths: &[u8]) -> Vec<u32> {
    let mut codes = vec![0; lengths.len()];
    let mut next = 0u32;
    for length in 1..=LONGEST {
        next <<= 1;
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, l)| **l == length) {
            *code = next.reverse_bits() >> (32 - u32::from(length));
            next += 1;
        }
    }
    codes
}

/// Writes symbols.
pub struct Encoder {
    lengths: Vec<u8>,
    codes: Vec<u32>,
}

impl Encoder {
    /// The best code for symbols that occur so often; at least one does.
    pub fn new(counts: &[u64]) -> Encoder {
        let lengths = lengths(counts);
        Encoder { codes: codes(&lengths), lengths }
    }

    /// Appends what [`Decoder::take`] reads: the number of symbols, then a nibble for each length, where 0 is followed by a nibble with one less
    /// than the number of zeros.
    pub fn put_table(&self, out: &mut Vec<u8>) {
        let used = self.lengths.iter().rposition(|l| *l > 0).map_or(0, |last| last + 1);
        put_number(out, used as u64);
        let mut nibbles = Writer::default();
        let mut at = 0;
        while at < used {
            let length = self.lengths[at];
            nibbles.put(length.into(), 4);
            let zeros = self.lengths[at..used].iter().take(16).take_while(|l| **l == 0).count();
            if zeros > 0 {
                nibbles.put(zeros as u32 - 1, 4);
            }
            at += zeros.max(1);
        }
        out.extend(nibbles.finish());
    }

    /// Appends a symbol.
    pub fn put(&self, symbol: usize, out: &mut Writer) {
        out.put(self.codes[symbol], self.lengths[symbol].into());
    }
}

/// Reads symbols.
pub struct Decoder {
    /// Symbol and length by the next bits.
    table: Vec<(u16, u8)>,
    mask: u32,
}

impl Decoder {
    /// Reads the table from the front of `bytes`; `None` where the lengths are not those of a code.
    pub fn take(bytes: &mut &[u8]) -> Option<Decoder> {
        let used = usize::try_from(take_number(bytes)?).ok().filter(|n| *n <= SYMBOLS)?;
        let mut lengths: Vec<u8> = vec![];
        let mut nibbles = bytes.iter().flat_map(|b| [b & 15, b >> 4]);
        let mut read = 0;
        while lengths.len() < used {
            let length = nibbles.next()?;
            read += 1;
            let mut run = 1;
            if length == 0 {
                run += usize::from(nibbles.next()?);
                read += 1;
            }
            lengths.extend(std::iter::repeat_n(length, run));
        }
        *bytes = &bytes[usize::div_ceil(read, 2)..];
        Decoder::new(&lengths).filter(|_| lengths.len() == used)
    }

    fn new(lengths: &[u8]) -> Option<Decoder> {
        let longest = *lengths.iter().max()?;
        if longest == 0 || longest > LONGEST {
            return None;
        }
        let size = 1usize << longest;
        // The codes fill the table exactly, or there is only one code, of one bit.
        let filled: usize = lengths.iter().filter(|l| **l > 0).map(|l| size >> l).sum();
        let single = longest == 1 && filled == 1;
        if filled != size && !single {
            return None;
        }
        let mut table = vec![(0, 1); size];
        for (symbol, (code, &length)) in codes(lengths).into_iter().zip(lengths).enumerate().filter(|(_, (_, l))| **l > 0) {
            for at in (code as usize..size).step_by(1 << length) {
                table[at] = (symbol as u16, length);
            }
        }
        if single {
            table[1] = table[0];
        }
        Some(Decoder { table, mask: size as u32 - 1 })
    }

    /// The next symbol; the reader must hold 12 bits.
    #[inline]
    pub fn next(&self, reader: &mut Reader) -> usize {
        let (symbol, length) = self.table[(reader.peek() & self.mask) as usize];
        reader.skip(length.into());
        symbol.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_come_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for symbols in [1, 2, 3, 17, 256, 1000] {
            // Counts over many orders of magnitude ask for codes longer than allowed.
            let counts: Vec<u64> = (0..symbols).map(|i| if i % 3 == 1 { 0 } else { 1u64 << (i % 40) }).collect();
            let encoder = Encoder::new(&counts);
            let known: Vec<usize> = (0..symbols).filter(|&i| counts[i] > 0).collect();
            let message: Vec<usize> = (0..1000).map(|_| known[random.usize(..known.len())]).collect();
            let mut bytes = vec![];
            encoder.put_table(&mut bytes);
            let mut out = Writer::default();
            message.iter().for_each(|&s| encoder.put(s, &mut out));
            bytes.extend(out.finish());
            let mut rest = &bytes[..];
            let decoder = Decoder::take(&mut rest).expect("a table");
            let mut reader = Reader::new(rest);
            for &symbol in &message {
                reader.fill();
                assert_eq!(decoder.next(&mut reader), symbol);
            }
            assert!(!reader.overrun());
        }
    }

    #[test]
    fn lengths_are_those_of_huffman_where_none_is_too_long() {
        assert_eq!(lengths(&[5, 9, 12, 13, 16, 45]), [4, 4, 3, 3, 3, 1]);
        assert_eq!(lengths(&[0, 7, 0]), [0, 1, 0]);
        let fibonacci: Vec<u64> = (0..30).scan((1, 1), |(a, b), _| Some(std::mem::replace(a, std::mem::replace(b, *a + *b)))).collect();
        let limited = lengths(&fibonacci);
        assert_eq!(limited.iter().max(), Some(&LONGEST));
        assert_eq!(limited.iter().map(|l| 1.0 / f64::from(1u32 << l)).sum::<f64>(), 1.0, "the code is complete");
    }
}
