//! What happens to a thread that outlives the interpreter.
//!
//! Before 3.14, if a thread wants to attach after the interpreter has ended, CPython
//! calls `pthread_exit`, which glibc implements by unwinding the thread's stack. The
//! unwinder would run the drops of Rust frames, which touch Python objects that
//! nobody may touch any more, and end in a `catch_unwind` that swallows what must
//! not be swallowed: `FATAL: exception not rethrown`, or worse. This can begin in
//! any call into CPython, so the calls are not guarded one by one. Instead, the
//! library's personality routine, which the unwinder asks at every frame of ours that
//! has something to run, is replaced by one that lets the thread wait for the end of
//! the process. CPython itself does that from 3.14 on.
//!
//! Other C libraries end a thread without unwinding it.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// `_UA_FORCE_UNWIND`: not an exception, but the end of the thread.
const FORCED: c_int = 8;

type Personality = unsafe extern "C" fn(c_int, c_int, u64, *mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    /// Where every unwind table of this library finds its personality routine:
    /// a word of its writable data, under the name that the compiler gives it.
    #[link_name = "DW.ref.rust_eh_personality"]
    static PERSONALITY: AtomicPtr<c_void>;
}

/// The routine of Rust's standard library.
static RUST: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Makes threads wait that CPython would unwind. Called while the module is
/// initialised; a second call does nothing.
pub(crate) fn park_instead_of_unwinding() {
    // SAFETY: an aligned word of this library's data that lives as long as the
    // library; others only read it.
    let word = unsafe { &PERSONALITY };
    let found = word.load(Ordering::Relaxed);
    let ours = personality as Personality as *mut c_void;
    if found != ours {
        RUST.store(found, Ordering::Release);
        word.store(ours, Ordering::Release);
    }
}

unsafe extern "C" fn personality(
    version: c_int,
    actions: c_int,
    class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    if actions & FORCED != 0 {
        loop {
            std::thread::park();
        }
    }
    let rust = RUST.load(Ordering::Acquire);
    // SAFETY: the pointer was the personality routine's, stored before this one
    // took its place.
    let rust = unsafe { std::mem::transmute::<*mut c_void, Personality>(rust) };
    // SAFETY: the unwinder's own arguments.
    unsafe { rust(version, actions, class, exception, context) }
}
