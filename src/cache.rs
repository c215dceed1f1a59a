//! Things made on demand and kept under a bound on their bytes: the least recently used goes first.
//!
//! What is made for a key is made once, while other keys are served: nobody waits but those who want the same. A thing may be made from
//! another one (a stage after a stage): it can only be reached through that one, and goes before it.

use crate::Error;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A cache of `T`.
pub(crate) struct Cache<T> {
    limit: usize,
    table: Mutex<Table<T>>,
}

/// What a thing is kept under: the number of the thing it was made from (0: none), and what tells it from its siblings.
type Key = (u64, Vec<u8>);

struct Table<T> {
    entries: HashMap<Key, Entry<T>>,
    /// Number of the last use, and of the last thing.
    clock: u64,
}

struct Entry<T> {
    id: u64,
    /// How many others it stems from.
    depth: usize,
    used: u64,
    /// 0 until it is made.
    bytes: usize,
    /// Locked while it is made.
    cell: Arc<Mutex<Option<Arc<T>>>>,
}

/// A thing in the cache, by which those that are made from it are found.
pub(crate) struct Found<T> {
    /// The thing, which stays alive while it is held.
    pub value: Arc<T>,
    id: u64,
    depth: usize,
    /// The use that it was found for; what is found from it belongs to the same.
    used: u64,
}

/// What a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Number of things.
    pub count: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl<T> Cache<T> {
    /// An empty cache that holds at most `limit` bytes, and what is in use.
    pub fn new(limit: usize) -> Cache<T> {
        Cache { limit, table: Mutex::new(Table { entries: HashMap::new(), clock: 0 }) }
    }

    /// How much is there.
    pub fn held(&self) -> Held {
        let table = self.table();
        let made = || table.entries.values().filter(|e| e.bytes > 0);
        Held { count: made().count(), bytes: made().map(|e| e.bytes).sum() }
    }

    /// The thing for `key` that stems from `from`. `make` gives it with its bytes; `shared` tells the bytes that all things have in common.
    pub fn get(
        &self,
        from: Option<&Found<T>>,
        key: Vec<u8>,
        shared: impl Fn() -> usize,
        make: impl FnOnce() -> Result<(T, usize), Error>,
    ) -> Result<Found<T>, Error> {
        let key = (from.map_or(0, |f| f.id), key);
        let (id, depth, used, cell) = self.table().use_or_begin(&key, from);
        let found = |value| Found { value, id, depth, used };
        let mut cell = cell.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(value) = &*cell {
            return Ok(found(value.clone()));
        }
        // Whoever waited for the cell and finds it empty tries, too, and gets the error itself.
        match make() {
            Ok((value, bytes)) => {
                let value = Arc::new(value);
                *cell = Some(value.clone());
                drop(cell);
                self.keep(&key, id, bytes, shared);
                Ok(found(value))
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

    /// Notes the bytes of what was made, and lets go of what has not been used for longest until all fits.
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
    fn use_or_begin(&mut self, key: &Key, from: Option<&Found<T>>) -> (u64, usize, u64, Arc<Mutex<Option<Arc<T>>>>) {
        self.clock += 1;
        let (used, depth) = from.map_or((self.clock, 0), |f| (f.used, f.depth + 1));
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = entry.used.max(used);
            return (entry.id, depth, used, entry.cell.clone());
        }
        let entry = Entry { id: self.clock, depth, used, bytes: 0, cell: Arc::new(Mutex::new(None)) };
        let begun = (entry.id, depth, used, entry.cell.clone());
        self.entries.insert(key.clone(), entry);
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn get(cache: &Cache<u8>, from: Option<&Found<u8>>, key: u8, bytes: usize, made: &mut Vec<u8>) -> Found<u8> {
        let make = || {
            made.push(key);
            Ok((key, bytes))
        };
        cache.get(from, vec![key], || 0, make).expect("it is made")
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        for key in [1, 2, 3, 1, 4] {
            get(&cache, None, key, 33, made);
        }
        assert_eq!(cache.held(), Held { count: 3, bytes: 99 });
        for key in [1, 3, 4, 2] {
            get(&cache, None, key, 33, made);
        }
        assert_eq!(*made, [1, 2, 3, 4, 2], "2 had not been used for longest");
    }

    #[test]
    fn the_one_in_use_is_kept_though_it_is_too_large() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        get(&cache, None, 1, 10, made);
        get(&cache, None, 2, 1000, made);
        assert_eq!(cache.held(), Held { count: 1, bytes: 1000 });
        get(&cache, None, 3, 10, made);
        assert_eq!(cache.held(), Held { count: 1, bytes: 10 });
    }

    #[test]
    fn what_is_shared_counts() {
        let cache = Cache::new(100);
        for key in 0..5 {
            cache.get(None, vec![key], || 70, || Ok((key, 10))).expect("it is made");
        }
        assert_eq!(cache.held().count, 3);
    }

    #[test]
    fn stages_go_before_what_they_stem_from() {
        let cache = Cache::new(100);
        let made = &mut vec![];
        let root = get(&cache, None, 1, 30, made);
        get(&cache, Some(&root), 11, 30, made);
        get(&cache, Some(&root), 12, 30, made);
        get(&cache, None, 2, 30, made);
        assert_eq!(cache.held().count, 3, "one stage had to go");
        let root = get(&cache, None, 1, 30, made);
        get(&cache, Some(&root), 12, 30, made);
        get(&cache, Some(&root), 11, 30, made);
        assert_eq!(*made, [1, 11, 12, 2, 11]);
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let cache: Cache<u8> = Cache::new(100);
        let failed = cache.get(None, vec![1], || 0, || Err(Error::Usage("no".into())));
        assert!(failed.is_err());
        assert_eq!(cache.held(), Held::default());
        assert!(cache.get(None, vec![1], || 0, || Ok((1, 1))).is_ok());
    }

    #[test]
    fn others_are_served_while_one_is_made_and_it_is_made_once() {
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
