//! A BIO of our own between a session and each of its `MemoryBIO`s. Memory is lent to it
//! for one call, so that the session reads records where the socket has put them, and
//! writes them where they are sent from.
//!
//! The BIO stays there for as long as the session lives. With no memory lent it passes
//! reads and writes on to the `MemoryBIO`, so that `ssl` notices nothing. OpenSSL owns
//! it, and frees it with the session.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::tls::openssl::{Bio, Functions, SetBio, Ssl};

/// The data of our BIO.
struct Inner {
    functions: &'static Functions,
    /// The BIO of the `MemoryBIO`, to which this owns a reference.
    memory: Bio,
    /// Lent to read from, and not read yet.
    unread: Cell<*const [u8]>,
    /// Lent to write into, and not written yet.
    room: Cell<*mut [MaybeUninit<u8>]>,
    /// A write found no room and went to the `MemoryBIO`. Later ones go there as well, to
    /// keep the order.
    overflowed: Cell<bool>,
}

const NOTHING: *const [u8] = ptr::slice_from_raw_parts(ptr::null(), 0);
const NO_ROOM: *mut [MaybeUninit<u8>] = ptr::slice_from_raw_parts_mut(ptr::null_mut(), 0);

/// Our BIO on one side of a session; valid for as long as the session lives.
pub(crate) struct Between(*const Inner);

/// What was written into lent memory.
pub(crate) struct Written {
    pub(crate) length: usize,
    /// More went to the `MemoryBIO`.
    pub(crate) overflowed: bool,
}

impl Between {
    /// Puts a BIO of ours between a session and `memory`, the session's BIO on the side
    /// that `set` sets. None if OpenSSL cannot make one.
    ///
    /// # Safety
    /// All are alive, and the result is not used after the session's end.
    pub(crate) unsafe fn install(
        py: Python<'_>,
        functions: &'static Functions,
        ssl: Ssl,
        memory: Bio,
        set: SetBio,
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
            unread: Cell::new(NOTHING),
            room: Cell::new(NO_ROOM),
            overflowed: Cell::new(false),
        }));
        // SAFETY: the BIO is new. The last call makes it the session's, which then gives up
        // its reference to `memory`; the first one takes a reference for `inner`.
        unsafe {
            (functions.bio_up_ref)(memory);
            (functions.bio_set_data)(bio, inner.cast());
            (functions.bio_set_init)(bio, 1);
            set(ssl, bio);
        }
        Some(Self(inner))
    }

    #[inline]
    fn inner(&self) -> &Inner {
        // SAFETY: by the promise to `install` the session lives, and with it our BIO.
        unsafe { &*self.0 }
    }

    /// Makes the session write into `room` while `body` runs.
    #[inline]
    pub(crate) fn lend_room<R>(
        &self,
        room: &mut [MaybeUninit<u8>],
        body: impl FnOnce() -> R,
    ) -> (R, Written) {
        let inner = self.inner();
        let length = room.len();
        let before = inner.overflowed.replace(false);
        let lent = Lent::new(inner);
        inner.room.set(room);
        let result = body();
        let left = inner.room.get().len();
        drop(lent);
        let overflowed = inner.overflowed.get();
        inner.overflowed.set(before || overflowed);
        (result, Written { length: length - left, overflowed })
    }

    /// Makes the session read `data` while `body` runs. Also returns how many bytes it has
    /// left unread.
    #[inline]
    pub(crate) fn lend_data<R>(&self, data: &[u8], body: impl FnOnce() -> R) -> (R, usize) {
        let inner = self.inner();
        let lent = Lent::new(inner);
        inner.unread.set(data);
        let result = body();
        let left = inner.unread.get().len();
        drop(lent);
        (result, left)
    }

    /// How much of what is lent has not been read yet.
    #[inline]
    pub(crate) fn unread(&self) -> usize {
        self.inner().unread.get().len()
    }
}

/// Ends a loan when it is dropped, also by a panic, and restores the one before: a
/// callback that `ssl` makes meanwhile may lend memory as well.
struct Lent<'a> {
    inner: &'a Inner,
    unread: *const [u8],
    room: *mut [MaybeUninit<u8>],
}

impl<'a> Lent<'a> {
    #[inline]
    fn new(inner: &'a Inner) -> Self {
        Self { inner, unread: inner.unread.get(), room: inner.room.get() }
    }
}

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        self.inner.unread.set(self.unread);
        self.inner.room.set(self.room);
    }
}

/// The table of functions of our BIOs, made once.
struct Method(Bio);

// SAFETY: OpenSSL only reads a method once it is complete.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

static METHOD: PyOnceLock<Option<Method>> = PyOnceLock::new();

fn method(py: Python<'_>, functions: &Functions) -> Option<Bio> {
    let method = METHOD.get_or_init(py, || {
        // SAFETY: a C string that lives for ever.
        let method = unsafe { (functions.meth_new)(KIND, c"tokioloop".as_ptr()) };
        if method.is_null() {
            return None;
        }
        // SAFETY: the method is new, and the functions have OpenSSL's types.
        unsafe {
            (functions.meth_set_read)(method, read);
            (functions.meth_set_write)(method, write);
            (functions.meth_set_ctrl)(method, control);
            (functions.meth_set_destroy)(method, destroy);
        }
        Some(Method(method))
    });
    method.as_ref().map(|method| method.0)
}

/// `BIO_TYPE_SOURCE_SINK`, without a number of its own: nobody looks for our BIO by type.
const KIND: c_int = 0x0400;
/// `BIO_FLAGS_RWS` and `BIO_FLAGS_SHOULD_RETRY`: why a call did nothing.
const REASON: c_int = 0x0f;
/// `BIO_CTRL_EOF` and `BIO_CTRL_FLUSH`, the two requests that a session relies
/// on; it asks for much else that no `MemoryBIO` has.
const AT_END: c_int = 2;
const FLUSH: c_int = 11;

unsafe extern "C" fn read(bio: Bio, room: *mut c_char, length: c_int) -> c_int {
    // SAFETY: OpenSSL calls this for our BIOs only, whose data `install` sets before a
    // session has them.
    let (functions, inner) = unsafe { inner(bio) };
    // SAFETY: the BIO is alive.
    unsafe { (functions.bio_clear_flags)(bio, REASON) };
    let unread = inner.unread.get();
    if unread.len() > 0 && length > 0 {
        // Not more than `length`, so it fits.
        let count = unread.len().min(length as usize);
        // SAFETY: the lender keeps `unread` alive, and OpenSSL passes room for `length`
        // bytes of its own.
        unsafe {
            let start = unread.cast::<u8>();
            ptr::copy_nonoverlapping(start, room.cast(), count);
            let rest = ptr::slice_from_raw_parts(start.add(count), unread.len() - count);
            inner.unread.set(rest);
        }
        return count as c_int;
    }
    // SAFETY: our BIO holds a reference to this one.
    unsafe {
        let count = (functions.bio_read)(inner.memory, room.cast(), length);
        if count <= 0 {
            (functions.bio_set_flags)(bio, (functions.bio_test_flags)(inner.memory, REASON));
        }
        count
    }
}

unsafe extern "C" fn write(bio: Bio, data: *const c_char, length: c_int) -> c_int {
    // SAFETY: as in `read`.
    let (functions, inner) = unsafe { inner(bio) };
    let Ok(count) = usize::try_from(length) else { return 0 };
    let room = inner.room.get();
    if !room.is_null() && !inner.overflowed.get() && count <= room.len() {
        // SAFETY: `room` was lent exclusively, and `count` bytes fit into it.
        unsafe {
            let start = room.cast::<u8>();
            ptr::copy_nonoverlapping(data.cast(), start, count);
            let rest = start.add(count).cast();
            inner.room.set(ptr::slice_from_raw_parts_mut(rest, room.len() - count));
        }
        return length;
    }
    inner.overflowed.set(true);
    // SAFETY: our BIO holds a reference to this one.
    unsafe { (functions.bio_write)(inner.memory, data.cast(), length) }
}

unsafe extern "C" fn control(
    bio: Bio,
    request: c_int,
    number: c_long,
    pointer: *mut c_void,
) -> c_long {
    if request != AT_END {
        return c_long::from(request == FLUSH);
    }
    // SAFETY: as in `read`.
    let (functions, inner) = unsafe { inner(bio) };
    if inner.unread.get().len() > 0 {
        return 0;
    }
    // SAFETY: our BIO holds a reference to this one.
    unsafe { (functions.bio_ctrl)(inner.memory, request, number, pointer) }
}

unsafe extern "C" fn destroy(bio: Bio) -> c_int {
    // SAFETY: as in `read`; OpenSSL calls this once, at the end.
    unsafe {
        let (functions, inner) = inner(bio);
        (functions.bio_free)(inner.memory);
        (functions.bio_set_data)(bio, ptr::null_mut());
        drop(Box::from_raw(ptr::from_ref(inner).cast_mut()));
    }
    1
}

/// The functions and the data of our BIO.
///
/// # Safety
/// One of our BIOs, which a session has had and which is not freed yet.
unsafe fn inner<'a>(bio: Bio) -> (&'static Functions, &'a Inner) {
    // SAFETY: our BIOs are only made with functions of a library that was found.
    let get_data = unsafe { crate::tls::openssl::found().unwrap_unchecked().bio_get_data };
    // SAFETY: the caller's promise.
    let inner: &Inner = unsafe { &*get_data(bio).cast_const().cast() };
    (inner.functions, inner)
}
