//! Memory of a process that runs networks: aligned, in large pages where that pays, and with a clear end when there is no more.

use crate::abi::ALIGN;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// Bytes of a large page of this machine.
const LARGE_PAGE: usize = 2 << 20;
/// Bytes from which memory is asked for in large pages.
const LARGE: usize = 256 << 10;

/// Memory aligned to [`ALIGN`], and in large pages where it is large and the system has them.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many bytes, all 0.
    pub fn new(len: usize) -> Aligned {
        let (align, room) = if len >= LARGE { (LARGE_PAGE, len.next_multiple_of(LARGE_PAGE)) } else { (ALIGN, len) };
        let mut bytes = vec![0u8; room + align];
        let start = bytes.as_ptr().align_offset(align);
        if len >= LARGE {
            use_large_pages(&mut bytes[start..start + room]);
        }
        Aligned { bytes, start, len }
    }

    /// Bytes of memory that it may take: whole pages where they are large.
    pub fn taken(&self) -> usize {
        if self.len >= LARGE { self.len.next_multiple_of(LARGE_PAGE) } else { self.len }
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

/// Lets the allocator of this process give every large block back to the system when it is freed. Without it glibc learns from the first large
/// constant that is freed to keep such blocks, and a compilation peaks at 1.4 times the memory. Elsewhere it does nothing.
pub fn free_large_blocks_at_once() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a parameter of the allocator, under its lock; any value is allowed.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Asks the system to back memory by large pages: weights are read once a run, and in pages of 4 KiB a third of the rate of the caches goes
/// to address translation (5 MB read by one core of a Zen 3: 38 GB/s, in pages of 2 MiB 50 GB/s). Elsewhere it does nothing.
fn use_large_pages(memory: &mut [u8]) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range is ours; the advice changes how it is backed and not what it holds. A system without large pages says so and is not heard.
    #[allow(unsafe_code)]
    unsafe {
        libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// The system's allocator, except that exhausted memory ends the program with a message and status 1 instead of an abort.
pub struct OomExitAllocator;

// SAFETY: every call is passed on to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for OomExitAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        or_exit(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        or_exit(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        or_exit(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

/// The block; ends the program where it is null.
fn or_exit(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() {
        // The message is formatted on the stack: nothing can be allocated any more.
        let mut text = [0u8; 96];
        let mut rest = &mut text[..];
        let _ = writeln!(rest, "error: out of memory: {bytes} bytes more are needed than there are");
        let left = rest.len();
        let _ = std::io::stderr().write_all(&text[..96 - left]);
        std::process::exit(1);
    }
    block
}
