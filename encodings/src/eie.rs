//! The form of the EIE accelerator (Han et al., ISCA 2016): a byte for each entry, four bits of run and four of code.
//!
//! The run is the number of zeros before the entry in its column; a run of more than 15 is split by entries whose code is 0, the value zero. A product
//! walks only the columns whose input is not zero.

/// A matrix in this form.
#[derive(Clone, Debug, PartialEq)]
pub struct Eie {
    /// Rows: outputs.
    pub rows: usize,
    /// Values of the 16 codes; the first is 0.
    pub values: [f32; 16],
    /// Where each column (an input) begins in `entries`, and the end of the last.
    pub starts: Vec<u32>,
    /// Run in the low four bits, code in the high ones.
    pub entries: Vec<u8>,
}

impl Eie {
    /// A row-major matrix of `rows` rows; `None` where it has more than 15 different values beside 0.
    pub fn new(weights: &[f32], rows: usize) -> Option<Eie> {
        let columns = weights.len().checked_div(rows)?;
        let book = crate::codebook::Codebook::of(weights.iter().copied().filter(|w| *w != 0.0)).filter(|b| b.values.len() <= 15)?;
        let mut values = [0.0; 16];
        values[1..=book.values.len()].copy_from_slice(&book.values);
        let (mut starts, mut entries) = (vec![0], vec![]);
        for c in 0..columns {
            let mut run = 0;
            for r in 0..rows {
                let weight = weights[r * columns + c];
                let code = if weight == 0.0 { 0 } else { 1 + book.code(weight) as u8 };
                if code == 0 && run < 15 {
                    run += 1;
                    continue;
                }
                // A run of 15 zeros and a zero behind it are an entry too, unless nothing follows in the column.
                if code != 0 || (r + 1..rows).any(|r| weights[r * columns + c] != 0.0) {
                    entries.push(run | code << 4);
                }
                run = 0;
            }
            starts.push(u32::try_from(entries.len()).ok()?);
        }
        Some(Eie { rows, values, starts, entries })
    }

    /// Bytes of entries, starts and values.
    pub fn bytes(&self) -> usize {
        self.entries.len() + 4 * self.starts.len() + 64
    }

    /// `y = W x`, without the columns whose input is zero.
    pub fn product(&self, x: &[f32], y: &mut [f32]) {
        y.fill(0.0);
        for (c, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            let mut row = 0;
            for &entry in &self.entries[self.starts[c] as usize..self.starts[c + 1] as usize] {
                row += usize::from(entry & 15);
                y[row] += self.values[usize::from(entry >> 4)] * x;
                row += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_that_of_the_dense_matrix() {
        let mut random = fastrand::Rng::with_seed(5);
        for density in [0.0, 0.02, 0.1, 0.9] {
            let (rows, columns) = (300, 40);
            let mut weight = || if random.f64() < density { (1 + random.u32(..15)) as f32 } else { 0.0 };
            let weights: Vec<f32> = (0..rows * columns).map(|_| weight()).collect();
            let x: Vec<f32> = (0..columns).map(|i| if i % 3 == 0 { 0.0 } else { i as f32 }).collect();
            let dense: Vec<f32> = weights.chunks(columns).map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum()).collect();
            let eie = Eie::new(&weights, rows).expect("15 values");
            let mut y = vec![0.0; rows];
            eie.product(&x, &mut y);
            assert_eq!(y, dense);
        }
        assert!(Eie::new(&(0..20).map(|i| i as f32).collect::<Vec<_>>(), 4).is_none());
    }
}
