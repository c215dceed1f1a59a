//! Constants that are stored once: an index of data by content, and the constants of all networks in this process.

use crate::abi::ALIGN;
use crate::memory::Aligned;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

/// Finds data that is equal. The owner of the data gives each piece a number; the index knows the numbers by a hash of the data.
#[derive(Default)]
pub struct ContentIndex(HashMap<u64, Vec<usize>>);

/// Bytes of each end of the data that are hashed: constants are large, and those that differ do so early.
const HASHED: usize = 128;

impl ContentIndex {
    /// The number of data equal to `data`; `stored` gives the data of a number.
    pub fn find<'a>(&self, data: &[u8], stored: impl Fn(usize) -> &'a [u8]) -> Option<usize> {
        self.0.get(&hash(data))?.iter().copied().find(|&i| stored(i) == data)
    }

    /// Adds data under a number.
    pub fn insert(&mut self, data: &[u8], number: usize) {
        self.0.entry(hash(data)).or_default().push(number);
    }
}

fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let end = data.len().saturating_sub(HASHED);
    (data.len(), &data[..HASHED.min(data.len())], &data[end..]).hash(&mut hasher);
    hasher.finish()
}

/// Constants of fewer bytes are not shared between networks.
const SHARED_BYTES: usize = 256;

/// The constants that one network brought.
pub struct Block {
    memory: Aligned,
    /// Offset and length of those that others may use.
    shared: Vec<(usize, usize)>,
    /// By content: positions in `shared`.
    index: ContentIndex,
}

impl Block {
    fn get(&self, i: usize) -> &[u8] {
        let (at, len) = self.shared[i];
        &self.memory.bytes()[at..at + len]
    }
}

/// The constants of the networks in this process: equal ones are in memory once, while any network that uses them lives.
#[derive(Default)]
pub struct ConstantPool(Mutex<Vec<Weak<Block>>>);

impl ConstantPool {
    /// Bytes of memory that all blocks in use take.
    pub fn bytes(&self) -> usize {
        self.blocks().iter().map(|b| b.memory.taken()).sum()
    }

    /// Stores constants: the address of each, and the blocks that must live as long as the addresses are used. Those that are already stored are
    /// dropped, the others move into one new block, which needs no more memory than there was at once.
    pub fn place(&self, constants: Vec<Vec<u8>>) -> (Vec<u64>, Vec<Arc<Block>>) {
        let existing = self.blocks();
        let mut used: Vec<Arc<Block>> = vec![];
        let mut find = |data: &[u8]| {
            existing.iter().filter(|_| data.len() >= SHARED_BYTES).find_map(|block| {
                let found = block.get(block.index.find(data, |i| block.get(i))?);
                if !used.iter().any(|b| Arc::ptr_eq(b, block)) {
                    used.push(block.clone());
                }
                Some(found.as_ptr() as u64)
            })
        };
        let found: Vec<Option<u64>> = constants.iter().map(|data| find(data)).collect();
        let own = |(data, found): (&Vec<u8>, &Option<u64>)| if found.is_none() { data.len().next_multiple_of(ALIGN) } else { 0 };
        let memory = Aligned::new(constants.iter().zip(&found).map(own).sum());
        let mut block = Block { memory, shared: vec![], index: ContentIndex::default() };
        let (mut end, mut addresses) = (0, vec![]);
        let start = block.memory.bytes().as_ptr() as u64;
        for (data, found) in constants.into_iter().zip(found) {
            addresses.push(found.unwrap_or_else(|| {
                let at = end;
                end += data.len().next_multiple_of(ALIGN);
                block.memory.bytes_mut()[at..at + data.len()].copy_from_slice(&data);
                if data.len() >= SHARED_BYTES {
                    block.index.insert(&data, block.shared.len());
                    block.shared.push((at, data.len()));
                }
                start + at as u64
            }));
        }
        let block = Arc::new(block);
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push(Arc::downgrade(&block));
        used.push(block);
        (addresses, used)
    }

    fn blocks(&self) -> Vec<Arc<Block>> {
        let mut blocks = self.0.lock().unwrap_or_else(|e| e.into_inner());
        blocks.retain(|b| b.strong_count() > 0);
        blocks.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_constants_are_stored_once_while_they_are_used() {
        let pool = ConstantPool::default();
        let data = |seed: u8, len: usize| (0..len).map(|i| seed.wrapping_add(i as u8)).collect::<Vec<u8>>();
        let (first, held) = pool.place(vec![data(1, 1000), data(2, 4000), data(3, 10)]);
        assert!(first.iter().all(|at| at % ALIGN as u64 == 0));
        assert_eq!(pool.bytes(), 1024 + 4032 + 64);
        let (second, also) = pool.place(vec![data(2, 4000), data(4, 500), data(3, 10)]);
        assert_eq!(second[0], first[1]);
        assert_ne!(second[2], first[2], "small ones are not shared");
        assert_eq!(pool.bytes(), 1024 + 4032 + 64 + 512 + 64);
        drop(held);
        assert_eq!(pool.bytes(), 1024 + 4032 + 64 + 512 + 64, "the second network still uses the first block");
        drop(also);
        assert_eq!(pool.bytes(), 0);
    }
}
