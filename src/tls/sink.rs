//! Where a session writes its records: straight into the memory that they are
//! sent from, while there is some, else into the `MemoryBIO` as before.
//!
//! A BIO of our own comes between the session and the BIO of its `MemoryBIO`,
//! for good: with no memory lent it only passes on, so that `ssl` notices
//! nothing. OpenSSL owns it, and frees it with the session.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::tls::openssl::{Bio, Functions, Ssl};

/// What our BIO works on.
struct Inner {
    functions: &'static Functions,
    /// The `MemoryBIO`'s, of which this holds a reference.
    memory: Bio,
    start: Cell<*mut u8>,
    room: Cell<usize>,
    length: Cell<usize>,
    /// Something had no room, and what follows has to stay behind it.
    overflowed: Cell<bool>,
}

/// A session's way out; valid for as long as the session lives.
pub(crate) struct Sink(*const Inner);

/// What was written into lent memory.
pub(crate) struct Written {
    pub(crate) length: usize,
    /// More went to the `MemoryBIO`.
    pub(crate) overflowed: bool,
}

impl Sink {
    /// Puts a sink between a session and `memory`, its BIO for writing.
    ///
    /// # Safety
    /// Both are alive, and the sink is not used after the session's end.
    pub(crate) unsafe fn install(
        py: Python<'_>,
        functions: &'static Functions,
        ssl: Ssl,
        memory: Bio,
    ) -> Option<Self> {
        let method = method(py, functions)?;
        // SAFETY: the method lives for ever.
        let bio = unsafe { (functions.bio_new)(method) };
        if bio.is_null() {
            return None;
        }
        let inner = Box::into_raw(Box::new(Inner {
            functions,
            memory,
            start: Cell::new(ptr::null_mut()),
            room: Cell::new(0),
            length: Cell::new(0),
            overflowed: Cell::new(false),
        }));
        // SAFETY: the BIO is new; from the last call on it is the session's,
        // which gives its reference to `memory` up, hence one more before.
        unsafe {
            (functions.bio_up_ref)(memory);
            (functions.bio_set_data)(bio, inner.cast());
            (functions.bio_set_init)(bio, 1);
            (functions.set_wbio)(ssl, bio);
        }
        Some(Self(inner))
    }

    /// Has the session write into `room` while `body` runs.
    #[inline]
    pub(crate) fn lend<R>(
        &self,
        room: &mut [MaybeUninit<u8>],
        body: impl FnOnce() -> R,
    ) -> (R, Written) {
        // SAFETY: the session lives, and with it the sink.
        let inner = unsafe { &*self.0 };
        inner.start.set(room.as_mut_ptr().cast());
        inner.room.set(room.len());
        inner.length.set(0);
        inner.overflowed.set(false);
        let result = body();
        inner.start.set(ptr::null_mut());
        (result, Written { length: inner.length.get(), overflowed: inner.overflowed.get() })
    }
}

/// The kind of BIO, made once.
struct Method(Bio);

// SAFETY: OpenSSL only reads a method once it is complete.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

static METHOD: PyOnceLock<Option<Method>> = PyOnceLock::new();

fn method(py: Python<'_>, functions: &Functions) -> Option<Bio> {
    let method = METHOD.get_or_init(py, || {
        // SAFETY: a string that lives for ever.
        let method = unsafe { (functions.meth_new)(KIND, c"tokioloop".as_ptr()) };
        if method.is_null() {
            return None;
        }
        // SAFETY: the method is new, and the functions have OpenSSL's types.
        unsafe {
            (functions.meth_set_write)(method, write);
            (functions.meth_set_ctrl)(method, control);
            (functions.meth_set_destroy)(method, destroy);
        }
        Some(Method(method))
    });
    method.as_ref().map(|method| method.0)
}

/// `BIO_TYPE_SOURCE_SINK`, for kinds that nobody looks for by number.
const KIND: c_int = 0x0400;
/// `BIO_CTRL_FLUSH`, the one request that a session relies on.
const FLUSH: c_int = 11;

unsafe extern "C" fn write(bio: Bio, data: *const c_char, length: c_int) -> c_int {
    // SAFETY: OpenSSL calls this for BIOs of our kind, whose data is never null
    // once they were handed out.
    let (functions, inner) = unsafe { inner(bio) };
    let Ok(count) = usize::try_from(length) else { return 0 };
    let (start, filled) = (inner.start.get(), inner.length.get());
    if !start.is_null() && !inner.overflowed.get() && count <= inner.room.get() - filled {
        // SAFETY: so much room was lent, which nobody else knows of.
        unsafe { ptr::copy_nonoverlapping(data.cast(), start.add(filled), count) };
        inner.length.set(filled + count);
        return length;
    }
    inner.overflowed.set(true);
    // SAFETY: the sink holds a reference to this BIO.
    unsafe { (functions.bio_write)(inner.memory, data.cast(), length) }
}

unsafe extern "C" fn control(_: Bio, request: c_int, _: c_long, _: *mut c_void) -> c_long {
    c_long::from(request == FLUSH)
}

unsafe extern "C" fn destroy(bio: Bio) -> c_int {
    // SAFETY: as in `write`; OpenSSL calls this once, at the end.
    unsafe {
        let (functions, inner) = inner(bio);
        (functions.bio_free)(inner.memory);
        (functions.bio_set_data)(bio, ptr::null_mut());
        drop(Box::from_raw(ptr::from_ref(inner).cast_mut()));
    }
    1
}

/// What our BIO works on.
///
/// # Safety
/// A BIO of our kind that was handed out and has not been freed.
unsafe fn inner<'a>(bio: Bio) -> (&'static Functions, &'a Inner) {
    // SAFETY: only sessions whose library was found have such a BIO.
    let get_data = unsafe { crate::tls::openssl::found().unwrap_unchecked().bio_get_data };
    // SAFETY: the caller's promise.
    let inner: &Inner = unsafe { &*get_data(bio).cast_const().cast() };
    (inner.functions, inner)
}
