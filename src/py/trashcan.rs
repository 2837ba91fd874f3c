//! Deallocates long chains of objects without overflowing the stack.
//!
//! Dropping an object deallocates what it held, recursively: 100,000 handles, each an
//! argument of the next, nest 100,000 deep. CPython's containers postpone what is too
//! deep (its "trashcan"), and from 3.14 on, or without the GIL, its deallocator does so
//! for every class. Before, our classes have to do it, which they do here.
//!
//! Every deallocation pays for one count of all threads together, which the GIL
//! protects. Only while that is high does a thread use a count and a list of its own.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;

/// A function that deallocates a dead object.
pub(super) type End = unsafe fn(*mut ffi::PyObject);

/// How many deallocations may be under way in all threads before a thread counts its
/// own, and how many of those may nest.
const LIMIT: usize = 64;

/// Deallocations under way in all threads.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's deallocations beyond [`LIMIT`]; null while there are none.
    static CHAIN: Cell<*mut Chain> = const { Cell::new(ptr::null_mut()) };
}

/// Deallocations of one thread.
struct Chain {
    depth: usize,
    waiting: Vec<(*mut ffi::PyObject, End)>,
}

/// Deallocates a dead object with `end`: now, or later if too many deallocations nest.
///
/// # Safety
/// The object is dead, and its class takes part in garbage collection; `end` may be
/// called on it.
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
    // Not `depth`: other threads may have begun or finished deallocations meanwhile.
    DEPTH.store(DEPTH.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
}

/// As [`end`], while many deallocations are under way.
///
/// # Safety
/// As for [`end`].
#[cold]
unsafe fn end_deep(object: *mut ffi::PyObject, end: End) {
    let chain = CHAIN.get();
    if chain.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { end_all(object, end) };
    }
    // SAFETY: only this thread uses the chain, and `end_all` resets `CHAIN` before it
    // frees it; no reference to it outlives a statement.
    if unsafe { (*chain).depth } < LIMIT {
        // SAFETY: as above.
        unsafe { (*chain).depth += 1 };
        // SAFETY: the caller's promise.
        unsafe { end(object) };
        // SAFETY: as above; `end_all`, which frees the chain, is still under way.
        unsafe { (*chain).depth -= 1 };
        return;
    }
    // SAFETY: a dead object whose memory is whole. The collector must not find it while
    // it has no references; untracking it again later does nothing.
    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    // SAFETY: as above.
    unsafe { (*chain).waiting.push((object, end)) };
}

/// Deallocates an object, and then those that were postponed meanwhile.
///
/// # Safety
/// As for [`end`].
unsafe fn end_all(object: *mut ffi::PyObject, end: End) {
    // Not on the stack, which a greenlet switch may replace.
    let chain = Box::into_raw(Box::new(Chain { depth: 1, waiting: Vec::new() }));
    CHAIN.set(chain);
    // SAFETY: the caller's promise.
    unsafe { end(object) };
    // SAFETY: only this thread uses the chain; the reference ends with the statement.
    while let Some((object, end)) = unsafe { (*chain).waiting.pop() } {
        // SAFETY: dead, and `end_deep` has left its deallocation to this loop.
        unsafe { end(object) };
    }
    CHAIN.set(ptr::null_mut());
    // SAFETY: made above, and nothing points to it any more.
    drop(unsafe { Box::from_raw(chain) });
}
