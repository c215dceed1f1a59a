//! A cache of values that are made on demand, bounded by bytes: the least recently used entry is evicted first.
//!
//! The value of a key is made once, and other keys are served meanwhile: only callers that ask for the same key wait. An entry may have a parent (the
//! stage before it): it is reached through the parent only, and evicted before it.

use crate::Error;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A cache of `T`.
pub(crate) struct Cache<T> {
    limit: usize,
    table: Mutex<Table<T>>,
}

/// The key of an entry: the number of its parent (0: none), and bytes that tell it from other entries of that parent.
type Key = (u64, Vec<u8>);

struct Table<T> {
    entries: HashMap<Key, Entry<T>>,
    /// Number of the last use, and of the last entry.
    clock: u64,
}

struct Entry<T> {
    id: u64,
    /// Number of ancestors.
    depth: usize,
    used: u64,
    /// 0 until the value is made.
    bytes: usize,
    /// Locked while the value is made.
    cell: Arc<Mutex<Option<Arc<T>>>>,
}

/// A handle to an entry, through which the entries are found whose parent it is.
pub(crate) struct CacheHandle<T> {
    /// The value, which stays alive as long as the handle.
    pub value: Arc<T>,
    id: u64,
    depth: usize,
    /// Number of the use; entries that are found through this handle belong to the same use.
    used: u64,
}

/// How much a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Number of entries.
    pub count: usize,
    /// Bytes of the entries.
    pub bytes: usize,
}

impl<T> Cache<T> {
    /// An empty cache that holds at most `limit` bytes, and what is in use.
    pub fn new(limit: usize) -> Cache<T> {
        Cache { limit, table: Mutex::new(Table { entries: HashMap::new(), clock: 0 }) }
    }

    /// Number and bytes of the entries whose values are made.
    pub fn stats(&self) -> CacheStats {
        let table = self.table();
        let made = || table.entries.values().filter(|e| e.bytes > 0);
        CacheStats { count: made().count(), bytes: made().map(|e| e.bytes).sum() }
    }

    /// The entry of `key` and `parent`. `make` gives the value with its bytes; `shared` gives the bytes that all values have in common.
    pub fn get(
        &self,
        parent: Option<&CacheHandle<T>>,
        key: Vec<u8>,
        shared: impl Fn() -> usize,
        make: impl FnOnce() -> Result<(T, usize), Error>,
    ) -> Result<CacheHandle<T>, Error> {
        let key = (parent.map_or(0, |p| p.id), key);
        let (id, depth, used, cell) = self.table().use_or_insert(&key, parent);
        let handle = |value| CacheHandle { value, id, depth, used };
        let mut cell = cell.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(value) = &*cell {
            return Ok(handle(value.clone()));
        }
        // A caller that waited for the cell and finds it empty makes the value, too, and gets the error itself.
        match make() {
            Ok((value, bytes)) => {
                let value = Arc::new(value);
                *cell = Some(value.clone());
                drop(cell);
                self.keep(&key, id, bytes, shared);
                Ok(handle(value))
            }
            Err(error) => {
                let mut table = self.table();
                if table.entries.get(&key).is_some_and(|e| e.id == id) {
                    table.entries.remove(&key);
                }
                Err(error)
            }
        }
    }

    /// Records the bytes of a new value, and evicts the least recently used entries until all fit.
    fn keep(&self, key: &Key, id: u64, bytes: usize, shared: impl Fn() -> usize) {
        let mut table = self.table();
        if let Some(entry) = table.entries.get_mut(key).filter(|e| e.id == id) {
            entry.bytes = bytes.max(1);
        }
        loop {
            let total = table.entries.values().map(|e| e.bytes).sum::<usize>() + shared();
            let others = table.entries.iter().filter(|(_, e)| e.bytes > 0 && e.id != id);
            let oldest = others.min_by_key(|(_, e)| (e.used, Reverse(e.depth), e.id)).map(|(k, _)| k.clone());
            match oldest {
                Some(oldest) if total > self.limit => drop(table.entries.remove(&oldest)),
                _ => return,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<T> Table<T> {
    fn use_or_insert(&mut self, key: &Key, parent: Option<&CacheHandle<T>>) -> (u64, usize, u64, Arc<Mutex<Option<Arc<T>>>>) {
        self.clock += 1;
        let (used, depth) = parent.map_or((self.clock, 0), |p| (p.used, p.depth + 1));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = entry.used.max(used);
            return (entry.id, depth, used, entry.cell.clone());
        }
        let entry = Entry { id: self.clock, depth, used, bytes: 0, cell: Arc::new(Mutex::new(None)) };
        let inserted = (entry.id, depth, used, entry.cell.clone());
        self.entries.insert(key.clone(), entry);
        inserted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn get(cache: &Cache<u8>, parent: Option<&CacheHandle<u8>>, key: u8, bytes: usize, made: &mut Vec<u8>) -> CacheHandle<u8> {
        let make = || {
            made.push(key);
            Ok((key, bytes))
        };
        cache.get(parent, vec![key], || 0, make).expect("it is made")
    }

    #[test]
    fn the_least_recently_used_entry_is_evicted_first() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        for key in [1, 2, 3, 1, 4] {
            get(&cache, None, key, 33, made);
        }
        assert_eq!(cache.stats(), CacheStats { count: 3, bytes: 99 });
        for key in [1, 3, 4, 2] {
            get(&cache, None, key, 33, made);
        }
        assert_eq!(*made, [1, 2, 3, 4, 2], "2 was the least recently used");
    }

    #[test]
    fn the_entry_in_use_is_kept_even_if_too_large() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        get(&cache, None, 1, 10, made);
        get(&cache, None, 2, 1000, made);
        assert_eq!(cache.stats(), CacheStats { count: 1, bytes: 1000 });
        get(&cache, None, 3, 10, made);
        assert_eq!(cache.stats(), CacheStats { count: 1, bytes: 10 });
    }

    #[test]
    fn shared_bytes_count() {
        let cache = Cache::new(100);
        for key in 0..5 {
            cache.get(None, vec![key], || 70, || Ok((key, 10))).expect("it is made");
        }
        assert_eq!(cache.stats().count, 3);
    }

    #[test]
    fn stages_are_evicted_before_their_parents() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        let root = get(&cache, None, 1, 30, made);
        get(&cache, Some(&root), 11, 30, made);
        get(&cache, Some(&root), 12, 30, made);
        get(&cache, None, 2, 30, made);
        assert_eq!(cache.stats().count, 3, "one stage had to go");
        let root = get(&cache, None, 1, 30, made);
        get(&cache, Some(&root), 12, 30, made);
        get(&cache, Some(&root), 11, 30, made);
        assert_eq!(*made, [1, 11, 12, 2, 11]);
    }

    #[test]
    fn an_error_leaves_no_entry() {
        let cache: Cache<u8> = Cache::new(100);
        let failed = cache.get(None, vec![1], || 0, || Err(Error::Usage("no".into())));
        assert!(failed.is_err());
        assert_eq!(cache.stats(), CacheStats::default());
        assert!(cache.get(None, vec![1], || 0, || Ok((1, 1))).is_ok());
    }

    #[test]
    fn other_keys_are_served_while_a_value_is_made_once() {
        let cache: Cache<u8> = Cache::new(100);
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let make = move || {
                    begin.send(()).expect("the test waits");
                    ended.recv().expect("the test goes on");
                    Ok((1, 1))
                };
                *cache.get(None, vec![1], || 0, make).expect("it is made").value
            });
            begun.recv().expect("the thread has begun");
            // Would wait for ever if the cache were locked.
            assert_eq!(*cache.get(None, vec![2], || 0, || Ok((2, 1))).expect("it is made").value, 2);
            let again = scope.spawn(|| {
                let make = || {
                    made.fetch_add(1, Ordering::Relaxed);
                    Ok((1, 1))
                };
                *cache.get(None, vec![1], || 0, make).expect("it is there").value
            });
            end.send(()).expect("the thread waits");
            assert_eq!((slow.join().expect("no panic"), again.join().expect("no panic")), (1, 1));
        });
        assert_eq!(made.load(Ordering::Relaxed), 0);
    }
}
