//! Constants of networks in this process: equal ones are in memory once, while any network that uses them lives.

use crate::abi::ALIGN;
use crate::memory::Aligned;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

/// Constants shorter than this are not worth looking for.
const SHARED_BYTES: usize = 256;

/// The constants that one network brought.
pub struct Block {
    memory: Aligned,
    /// Offset and length of those that others may use, by their marks.
    places: HashMap<u64, Vec<(usize, usize)>>,
}

/// The blocks of constants of several networks.
#[derive(Default)]
pub struct Shelf(Mutex<Vec<Weak<Block>>>);

impl Shelf {
    /// Bytes of memory that all blocks in use take.
    pub fn bytes(&self) -> usize {
        self.blocks().iter().map(|b| b.memory.taken()).sum()
    }

    /// Places constants: the address of each, and the blocks that must live as long as the addresses are used. Those that are already there are let
    /// go of, the others move into one new block, which needs no more memory than there was at once.
    pub fn place(&self, constants: Vec<Vec<u8>>) -> (Vec<u64>, Vec<Arc<Block>>) {
        let there = self.blocks();
        let mut used = vec![];
        let mut find = |data: &[u8]| {
            let mark = mark(data)?;
            there.iter().find_map(|block| {
                let at = *block.places.get(&mark)?.iter().find(|&&(at, len)| block.memory.bytes()[at..at + len] == *data)?;
                if !used.iter().any(|b| Arc::ptr_eq(b, block)) {
                    used.push(block.clone());
                }
                Some(block.memory.bytes()[at.0..].as_ptr() as u64)
            })
        };
        let found: Vec<Option<u64>> = constants.iter().map(|data| find(data)).collect();
        let own = |(data, found): (&Vec<u8>, &Option<u64>)| if found.is_none() { data.len().next_multiple_of(ALIGN) } else { 0 };
        let mut block = Block { memory: Aligned::new(constants.iter().zip(&found).map(own).sum()), places: HashMap::new() };
        let (mut end, mut addresses) = (0, vec![]);
        let start = block.memory.bytes().as_ptr() as u64;
        for (data, found) in constants.into_iter().zip(found) {
            addresses.push(found.unwrap_or_else(|| {
                let at = end;
                end += data.len().next_multiple_of(ALIGN);
                block.memory.bytes_mut()[at..at + data.len()].copy_from_slice(&data);
                if let Some(mark) = mark(&data) {
                    block.places.entry(mark).or_default().push((at, data.len()));
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

/// What equal constants have in common, found by looking at their ends only; `None` for those that are not shared.
fn mark(data: &[u8]) -> Option<u64> {
    let ends = SHARED_BYTES / 2;
    (data.len() >= SHARED_BYTES).then(|| {
        let mut hasher = DefaultHasher::new();
        (data.len(), &data[..ends], &data[data.len() - ends..]).hash(&mut hasher);
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_constants_are_there_once_while_they_are_used() {
        let shelf = Shelf::default();
        let data = |seed: u8, len: usize| (0..len).map(|i| seed.wrapping_add(i as u8)).collect::<Vec<u8>>();
        let (first, held) = shelf.place(vec![data(1, 1000), data(2, 4000), data(3, 10)]);
        assert!(first.iter().all(|at| at % ALIGN as u64 == 0));
        assert_eq!(shelf.bytes(), 1024 + 4032 + 64);
        let (second, also) = shelf.place(vec![data(2, 4000), data(4, 500), data(3, 10)]);
        assert_eq!(second[0], first[1]);
        assert_ne!(second[2], first[2], "small ones are not looked for");
        assert_eq!(shelf.bytes(), 1024 + 4032 + 64 + 512 + 64);
        drop(held);
        assert_eq!(shelf.bytes(), 1024 + 4032 + 64 + 512 + 64, "the second still uses the first block");
        drop(also);
        assert_eq!(shelf.bytes(), 0);
    }
}
