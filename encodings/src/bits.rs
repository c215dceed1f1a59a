//! Streams of bits, the lowest bit of a byte first, and numbers of seven bits a byte.

/// Appends a number, seven bits a byte, lowest first; the high bit says that more follow.
pub fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads what [`put_number`] wrote from the front of `bytes`; `None` where it is cut short or has more than 64 bits.
pub fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        n |= part << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Takes `n` bytes from the front; `None` where there are fewer.
pub fn take_bytes<'a>(bytes: &mut &'a [u8], n: u64) -> Option<&'a [u8]> {
    let n = usize::try_from(n).ok().filter(|n| *n <= bytes.len())?;
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    Some(taken)
}

/// Writes bits.
#[derive(Default)]
pub struct Writer {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Writer {
    /// Appends the `n` lowest bits of `bits`; `n` is at most 32.
    pub fn put(&mut self, bits: u32, n: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += n;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// The bytes; the last is filled with zeros.
    pub fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.out.push(self.held as u8);
        }
        self.out
    }
}

/// Reads bits. Behind the end there are zeros; [`Reader::overrun`] says whether any were read.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Reader<'a> {
    /// From the first bit of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0, held: 0, count: 0 }
    }

    /// Holds at least 32 bits.
    #[inline]
    pub fn fill(&mut self) {
        if self.count < 32 {
            let word = match self.bytes.get(self.at..self.at + 4) {
                Some(word) => u32::from_le_bytes(word.try_into().expect("four bytes")),
                None => {
                    let rest = self.bytes.get(self.at..).unwrap_or(&[]);
                    rest.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
                }
            };
            self.at += 4;
            self.held |= u64::from(word) << self.count;
            self.count += 32;
        }
    }

    /// The next bits, lowest first; valid after [`Reader::fill`].
    #[inline]
    pub fn peek(&self) -> u32 {
        self.held as u32
    }

    /// Drops `n` bits that were held.
    #[inline]
    pub fn skip(&mut self, n: u32) {
        self.held >>= n;
        self.count -= n;
    }

    /// Whether more bits were read than there are, or whole bytes are left over.
    pub fn overrun(&self) -> bool {
        let read = self.at as u64 * 8 - u64::from(self.count);
        read > self.bytes.len() as u64 * 8 || read + 8 <= self.bytes.len() as u64 * 8
    }
}
