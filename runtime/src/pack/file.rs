//! A pack in memory: mapped, checked, run.

use super::format::{self, Contents, Entry, GROUP, Layout, PAGE};
use crate::memory::Aligned;
use crate::pool::{Body, Pool};
use std::ffi::c_void;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why a pack is not opened or a model of it not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackError {
    /// The file is damaged, of another version or machine, or cannot be read: a sentence.
    Refused(String),
    /// There is no such model, or the buffers are not those of the model.
    Usage(String),
    /// The model stopped ([`crate::abi`]).
    Status(i32),
}

impl std::fmt::Display for PackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PackError::Refused(text) | PackError::Usage(text) => f.write_str(text),
            PackError::Status(status) => write!(f, "the network stopped: {}", crate::abi::describe(*status)),
        }
    }
}

impl std::error::Error for PackError {}

/// Memory that runs work in; one at a time.
pub struct Arena(Aligned);

impl Arena {
    /// So many bytes: enough for every model whose arena is not larger.
    pub fn new(bytes: usize) -> Arena {
        Arena(Aligned::new(bytes))
    }
}

/// A pack that is mapped into memory. It can be used by any number of threads at once, each with an arena of its own.
///
/// The file must not be written to in place while it is mapped; `dnnc pack` replaces files as a whole, which leaves those that are mapped as they were.
pub struct Pack {
    path: PathBuf,
    file: File,
    map: memmap2::Mmap,
    layout: Layout,
    contents: Contents,
    /// Which groups were compared with their checksums.
    checked: Vec<AtomicBool>,
}

type Run = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8) -> i32;
type ParallelFor = unsafe extern "C" fn(*const Pool, usize, Body, *mut c_void);
type Parallel = unsafe extern "C" fn(*const *const u8, *const *mut u8, *mut u8, *const Pool, ParallelFor) -> i32;

impl Pack {
    /// Opens a pack: header, contents and code are checked now, constants when they are used first. `supports` says whether this machine is one for a triple
    /// and features.
    pub fn open(path: &Path, supports: impl Fn(&str, &[String]) -> Result<(), String>) -> Result<Pack, PackError> {
        let refused = |e: String| PackError::Refused(format!("{}: {e}", path.display()));
        let file = File::open(path).map_err(|e| refused(e.to_string()))?;
        if !file.metadata().is_ok_and(|m| m.is_file() && m.len() > 0) {
            return Err(refused("not a pack".into()));
        }
        // SAFETY: the mapping is private to this value and only read and executed; that the file is not written to in place is asked of the user above.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::MmapOptions::new().map_exec(&file) }.map_err(|e| refused(e.to_string()))?;
        let (layout, contents) = format::read(&map).map_err(refused)?;
        supports(&contents.target, &contents.features).map_err(refused)?;
        let checked = contents.groups.iter().map(|_| AtomicBool::new(false)).collect();
        let pack = Pack { path: path.to_path_buf(), file, map, layout, contents, checked };
        pack.check(PAGE..pack.layout.text_end)?;
        Ok(pack)
    }

    /// What it holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Bytes of code, and of constants.
    pub fn sizes(&self) -> (usize, usize) {
        (self.layout.text_end - PAGE, self.layout.contents_at - self.layout.data_at)
    }

    /// The number of a model by its name.
    pub fn find(&self, name: &str) -> Result<usize, PackError> {
        self.contents.models.iter().position(|m| m.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.contents.models.iter().map(|m| m.name.as_str()).collect();
            PackError::Usage(format!("the pack has no model `{name}`; it has {}", names.join(", ")))
        })
    }

    /// A model by its number.
    pub fn model(&self, number: usize) -> &Entry {
        &self.contents.models[number]
    }

    /// Compares the groups of a range with their checksums, each once.
    fn check(&self, range: std::ops::Range<usize>) -> Result<(), PackError> {
        if range.is_empty() {
            return Ok(());
        }
        for group in (range.start - PAGE) / GROUP..=(range.end - 1 - PAGE) / GROUP {
            if self.checked[group].load(Ordering::Acquire) {
                continue;
            }
            let begin = PAGE + group * GROUP;
            let bytes = &self.map[begin..(begin + GROUP).min(self.layout.contents_at)];
            if format::checksum(bytes) != self.contents.groups[group] {
                let text = format!("{}: the pack is damaged: checksum of bytes {begin} to {}", self.path.display(), begin + bytes.len());
                return Err(PackError::Refused(text));
            }
            self.checked[group].store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Compares the constants of a model with their checksums, as far as that was not done.
    pub fn verify(&self, number: usize) -> Result<(), PackError> {
        self.model(number).constants.iter().try_for_each(|&(a, b)| self.check(a..b))
    }

    /// Reads the constants of a model into memory, in the order of their use, and checks them.
    pub fn load(&self, number: usize) -> Result<(), PackError> {
        for &(a, b) in &self.model(number).constants {
            self.advise(a, b, Advice::WillNeed);
        }
        for &(a, b) in &self.model(number).constants {
            self.check(a..b)?;
            for page in (a..b).step_by(PAGE) {
                std::hint::black_box(self.map[page]);
            }
        }
        Ok(())
    }

    /// Gives the memory of a model's constants back; they are read again when they are used. Pages that other models share go, too.
    pub fn release(&self, number: usize) {
        for &(a, b) in &self.model(number).constants {
            self.advise(a, b, Advice::DontNeed);
        }
    }

    /// Drops the whole file from this process's memory and, as far as the system does it, from its cache: the next use reads the disk.
    pub fn make_cold(&self) {
        self.advise(self.layout.data_at, self.layout.contents_at, Advice::DontNeed);
        #[cfg(target_os = "linux")]
        // SAFETY: advice on a file that is open.
        #[allow(unsafe_code)]
        unsafe {
            use std::os::fd::AsRawFd;
            libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = &self.file;
    }

    fn advise(&self, begin: usize, end: usize, advice: Advice) {
        #[cfg(unix)]
        {
            let (begin, end) = (begin / PAGE * PAGE, end.next_multiple_of(PAGE).min(self.map.len()));
            if begin < end {
                let advice = if advice == Advice::WillNeed { libc::MADV_WILLNEED } else { libc::MADV_DONTNEED };
                // SAFETY: a range of our mapping of a file, which is only read: what is dropped is read again from the file.
                #[allow(unsafe_code)]
                unsafe {
                    libc::madvise(self.map[begin..end].as_ptr().cast_mut().cast(), end - begin, advice);
                }
            }
        }
        #[cfg(not(unix))]
        let _ = (begin, end, advice);
    }

    /// One inference, after the constants are checked. `inputs` and `outputs` hold the elements of each input and result; with a pool on its threads. The
    /// buffers of the results hold nothing of use after an error.
    pub fn run(
        &self,
        number: usize,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        arena: &mut Arena,
        pool: Option<&Pool>,
    ) -> Result<(), PackError> {
        self.verify(number)?;
        let model = self.model(number);
        let given: Vec<usize> = inputs.iter().map(|b| b.len()).collect();
        let room: Vec<usize> = outputs.iter().map(|b| b.len()).collect();
        let want = |ports: &[format::Port]| ports.iter().map(|p| p.bytes).collect::<Vec<_>>();
        if given != want(&model.inputs) || room != want(&model.outputs) {
            return Err(PackError::Usage(format!("buffers that do not fit `{}`: inputs {given:?}, results {room:?} bytes", model.name)));
        }
        if arena.0.bytes().len() < model.arena {
            return Err(PackError::Usage(format!("`{}` needs an arena of {} bytes", model.name, model.arena)));
        }
        let inputs: Vec<*const u8> = inputs.iter().map(|b| b.as_ptr()).collect();
        let outputs: Vec<*mut u8> = outputs.iter_mut().map(|b| b.as_mut_ptr()).collect();
        let arena = arena.0.bytes_mut().as_mut_ptr();
        let code = |at: usize| self.map[at..].as_ptr();
        // SAFETY: header, contents and code are what `dnnc pack` wrote (their checksums agree): functions of these signatures are at these offsets. All
        // buffers are as long as the model says.
        #[allow(unsafe_code)]
        let status = unsafe {
            match pool {
                Some(pool) => {
                    let run = std::mem::transmute::<*const u8, Parallel>(code(model.parallel));
                    run(inputs.as_ptr(), outputs.as_ptr(), arena, pool, parallel_for)
                }
                None => {
                    let run = std::mem::transmute::<*const u8, Run>(code(model.run));
                    run(inputs.as_ptr(), outputs.as_ptr(), arena)
                }
            }
        };
        if status == 0 { Ok(()) } else { Err(PackError::Status(status)) }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Advice {
    WillNeed,
    DontNeed,
}

#[allow(unsafe_code)]
unsafe extern "C" fn parallel_for(pool: *const Pool, count: usize, body: Body, ctx: *mut c_void) {
    // SAFETY: the entry passes on the pointer that `run` gave it, which is valid until `run` returns.
    unsafe { (*pool).run(count, body, ctx) };
}
