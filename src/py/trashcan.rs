//! Ends objects that hold one another in a long chain.
//!
//! An object ends inside the end of the one that held it, so that a chain takes the
//! stack that its length asks for: a hundred thousand handles, each an argument of
//! the next, are more than there is. CPython's containers put off what is too deep (its
//! "trashcan"), and from 3.14 on, or without the GIL, its deallocator does so for every
//! class. Before, our classes have to.
//!
//! The count that every end pays for is one of all threads together, for the GIL guards
//! it. Only where that is high does a thread look at a count and a list of its own.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;

/// Ends an object, or leaves it to an end that is under way in this thread.
pub(super) type End = unsafe fn(*mut ffi::PyObject);

/// So many ends nest without a look at whose they are, and as many again in one thread.
const LIMIT: usize = 64;

/// Ends under way, of all threads.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What this thread does beyond [`LIMIT`]; null while it does nothing there.
    static CHAIN: Cell<*mut Chain> = const { Cell::new(ptr::null_mut()) };
}

/// Ends of one thread.
struct Chain {
    depth: usize,
    waiting: Vec<(*mut ffi::PyObject, End)>,
}

/// Ends a dead object by `end`: now, or where too many ends nest, later.
///
/// # Safety
/// As for `end`, which takes a dead object of a class that is collected.
#[inline(always)]
pub(super) unsafe fn end(object: *mut ffi::PyObject, end: End) {
    let depth = DEPTH.load(Ordering::Relaxed);
    if depth >= LIMIT {
        // SAFETY: the caller's promise.
        return unsafe { end_deep(object, end) };
    }
    DEPTH.store(depth + 1, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { end(object) };
    // Others may have come and gone, or be in the middle of theirs.
    DEPTH.store(DEPTH.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
}

/// As [`end`], where many ends are under way.
#[cold]
unsafe fn end_deep(object: *mut ffi::PyObject, end: End) {
    let chain = CHAIN.get();
    if chain.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { end_all(object, end) };
    }
    // SAFETY: this thread's, freed where the pointer is taken back; no reference to
    // it outlives a statement.
    if unsafe { (*chain).depth } < LIMIT {
        // SAFETY: as above.
        unsafe { (*chain).depth += 1 };
        // SAFETY: the caller's promise.
        unsafe { end(object) };
        // SAFETY: as above: the outermost end, which frees it, is still under way.
        unsafe { (*chain).depth -= 1 };
        return;
    }
    // SAFETY: a dead object whose memory is whole. The collector must not find it
    // without references; to tell it twice does nothing.
    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    // SAFETY: as above.
    unsafe { (*chain).waiting.push((object, end)) };
}

/// Ends an object, and then what has been put off meanwhile.
unsafe fn end_all(object: *mut ffi::PyObject, end: End) {
    // Not on the stack, which other code of this thread may exchange (greenlets).
    let chain = Box::into_raw(Box::new(Chain { depth: 1, waiting: Vec::new() }));
    CHAIN.set(chain);
    // SAFETY: the caller's promise.
    unsafe { end(object) };
    // SAFETY: this thread's; the reference ends with the statement.
    while let Some((object, end)) = unsafe { (*chain).waiting.pop() } {
        // SAFETY: dead, and whoever put it off has left its end to this.
        unsafe { end(object) };
    }
    CHAIN.set(ptr::null_mut());
    // SAFETY: made above, and out of everybody's reach.
    drop(unsafe { Box::from_raw(chain) });
}
