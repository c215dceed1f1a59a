//! The distinct values of a tensor.

use std::collections::HashMap;

/// Most values of a codebook.
pub const LARGEST: usize = 256;

/// The distinct values by their bits, ascending as numbers, and where each is; `None` where there are more than [`LARGEST`].
pub struct Codebook {
    /// The values, ascending.
    pub values: Vec<f32>,
    index: HashMap<u32, usize>,
}

impl Codebook {
    /// The codebook of these values.
    pub fn of(values: impl Iterator<Item = f32>) -> Option<Codebook> {
        let mut index = HashMap::new();
        for value in values {
            index.insert(value.to_bits(), 0);
            if index.len() > LARGEST {
                return None;
            }
        }
        let mut values: Vec<f32> = index.keys().map(|&bits| f32::from_bits(bits)).collect();
        values.sort_by(f32::total_cmp);
        index = values.iter().enumerate().map(|(i, v)| (v.to_bits(), i)).collect();
        Some(Codebook { values, index })
    }

    /// The place of a value that is in it.
    pub fn code(&self, value: f32) -> usize {
        self.index[&value.to_bits()]
    }
}
