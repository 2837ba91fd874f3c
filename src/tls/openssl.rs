//! The interpreter's own OpenSSL, for the session of an `ssl.SSLObject`.
//!
//! The functions come from the library that the `_ssl` module has loaded, and the session
//! is the one that `_ssl` works on: the settings and callbacks of the user's `SSLContext`
//! apply here as well. Only calls that succeed, or that need more records, are completed
//! here. After any other outcome the call is repeated through `_ssl`, which finds the
//! session as it was left and raises its usual exception.
//!
//! `_ssl` is no public interface. A session is used only if its memory has the layout of
//! the CPython versions that are known here, which OpenSSL itself has to confirm. If it
//! does not, or if `_ssl` is not a library of its own, `engine.rs` calls the methods of
//! `ssl` instead.
//!
//! Other threads may ask a session for its cipher or its peer's certificate. While it
//! reads or writes, the GIL keeps them out; without the GIL, the critical section of
//! `_ssl`'s object does, which that object's methods take as well.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::OnceLock;

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::{ffi, intern};

use crate::py::Owned;
use crate::py::native::Visitor;
use crate::tls::bio::{Between, Written};

/// An `SSL`, an `SSL_CTX` and a `BIO`; only OpenSSL looks inside.
pub(crate) type Ssl = *mut c_void;
type SslCtx = *mut c_void;
pub(crate) type Bio = *mut c_void;

/// `SSL_set0_rbio` and `SSL_set0_wbio`.
pub(crate) type SetBio = unsafe extern "C" fn(Ssl, Bio);

/// The functions of a BIO of our own.
type OnRead = unsafe extern "C" fn(Bio, *mut c_char, c_int) -> c_int;
type OnWrite = unsafe extern "C" fn(Bio, *const c_char, c_int) -> c_int;
type OnControl = unsafe extern "C" fn(Bio, c_int, c_long, *mut c_void) -> c_long;
type OnDestroy = unsafe extern "C" fn(Bio) -> c_int;

const SSL_ERROR_WANT_READ: c_int = 2;

macro_rules! functions {
    ($($field:ident = $symbol:literal ($($argument:ty),*) -> $result:ty,)*) => {
        pub(crate) struct Functions {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// All of them, or none.
            fn find(find: impl Fn(&CStr) -> Option<NonNull<c_void>>) -> Option<Self> {
                Some(Self {$(
                    $field: {
                        type Function = unsafe extern "C" fn($($argument),*) -> $result;
                        let address = find($symbol)?.as_ptr();
                        // SAFETY: the type is that of OpenSSL's headers, where it is the
                        // same in all versions since 1.1.1.
                        unsafe { std::mem::transmute::<*mut c_void, Function>(address) }
                    },
                )*})
            }
        }
    };
}

functions! {
    read = c"SSL_read" (Ssl, *mut c_void, c_int) -> c_int,
    write = c"SSL_write" (Ssl, *const c_void, c_int) -> c_int,
    pending = c"SSL_pending" (Ssl) -> c_int,
    has_pending = c"SSL_has_pending" (Ssl) -> c_int,
    get_error = c"SSL_get_error" (Ssl, c_int) -> c_int,
    get_context = c"SSL_get_SSL_CTX" (Ssl) -> SslCtx,
    get_rbio = c"SSL_get_rbio" (Ssl) -> Bio,
    get_wbio = c"SSL_get_wbio" (Ssl) -> Bio,
    bio_read = c"BIO_read" (Bio, *mut c_void, c_int) -> c_int,
    bio_write = c"BIO_write" (Bio, *const c_void, c_int) -> c_int,
    bio_pending = c"BIO_ctrl_pending" (Bio) -> usize,
    peek_error = c"ERR_peek_error" () -> c_ulong,
    clear_error = c"ERR_clear_error" () -> (),
    set_rbio = c"SSL_set0_rbio" (Ssl, Bio) -> (),
    set_wbio = c"SSL_set0_wbio" (Ssl, Bio) -> (),
    bio_new = c"BIO_new" (*mut c_void) -> Bio,
    bio_free = c"BIO_free" (Bio) -> c_int,
    bio_up_ref = c"BIO_up_ref" (Bio) -> c_int,
    bio_set_data = c"BIO_set_data" (Bio, *mut c_void) -> (),
    bio_get_data = c"BIO_get_data" (Bio) -> *mut c_void,
    bio_set_init = c"BIO_set_init" (Bio, c_int) -> (),
    bio_set_flags = c"BIO_set_flags" (Bio, c_int) -> (),
    bio_clear_flags = c"BIO_clear_flags" (Bio, c_int) -> (),
    bio_test_flags = c"BIO_test_flags" (Bio, c_int) -> c_int,
    bio_ctrl = c"BIO_ctrl" (Bio, c_int, c_long, *mut c_void) -> c_long,
    meth_new = c"BIO_meth_new" (c_int, *const c_char) -> *mut c_void,
    meth_set_read = c"BIO_meth_set_read" (*mut c_void, OnRead) -> c_int,
    meth_set_write = c"BIO_meth_set_write" (*mut c_void, OnWrite) -> c_int,
    meth_set_ctrl = c"BIO_meth_set_ctrl" (*mut c_void, OnControl) -> c_int,
    meth_set_destroy = c"BIO_meth_set_destroy" (*mut c_void, OnDestroy) -> c_int,
}

/// The outcome of a read.
pub(crate) enum Read {
    Plaintext(usize),
    /// There is no whole record.
    WantsMore,
    /// Anything else, which `_ssl` has to report.
    Other,
}

/// A session.
pub(crate) struct Session {
    functions: &'static Functions,
    ssl: Ssl,
    incoming: Bio,
    outgoing: Bio,
    source: Between,
    sink: Between,
    /// The `_ssl._SSLSocket`, which keeps `ssl` alive, and `ssl` the BIOs.
    owner: Owned,
}

impl Session {
    /// The session of `socket`, an exact `_ssl._SSLSocket`, with its two exact
    /// `MemoryBIO`s. None if the memory layout is not known or not confirmed.
    pub(crate) fn of(
        py: Python<'_>,
        socket: &Owned,
        incoming: &Owned,
        outgoing: &Owned,
    ) -> PyResult<Option<Self>> {
        if !cfg!(Py_3_11) || cfg!(Py_3_15) {
            return Ok(None);
        }
        let Some(functions) = functions(py)? else { return Ok(None) };
        let context = Owned::from(socket.bind(py).getattr(intern!(py, "context"))?);
        // SAFETY: live objects, each as large as its type says.
        let (layered_on, ssl, owner, native_context, rbio, wbio) = unsafe {
            match (
                word(socket, 0),
                word(socket, 1),
                word(socket, 2),
                word(&context, 0),
                word(incoming, 0),
                word(outgoing, 0),
            ) {
                (Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)) => (a, b, c, d, e, f),
                _ => return Ok(None),
            }
        };
        // The words are the socket (null for a session over BIOs), the session and the
        // context's object.
        if !layered_on.is_null() || owner != context.as_ptr().cast() || ssl.is_null() {
            return Ok(None);
        }
        // SAFETY: `ssl` lies between two words that were just identified, as in the layout
        // of `PySSLSocket` in CPython 3.11 to 3.14, the only versions that get here. OpenSSL
        // then confirms it.
        let confirmed = unsafe {
            (functions.get_context)(ssl) == native_context
                && (functions.get_rbio)(ssl) == rbio
                && (functions.get_wbio)(ssl) == wbio
        };
        if !confirmed || rbio == wbio {
            return Ok(None);
        }
        // SAFETY: confirmed above; the result keeps the session alive.
        let (source, sink) = unsafe {
            let Some(source) = Between::install(py, functions, ssl, rbio, functions.set_rbio)
            else {
                return Ok(None);
            };
            let Some(sink) = Between::install(py, functions, ssl, wbio, functions.set_wbio) else {
                return Ok(None);
            };
            (source, sink)
        };
        Ok(Some(Self {
            functions,
            ssl,
            incoming: rbio,
            outgoing: wbio,
            source,
            sink,
            owner: socket.clone_ref(py),
        }))
    }

    /// Runs `body` while no other thread can use the session through a method of `ssl`.
    #[inline]
    fn alone<R>(&self, body: impl FnOnce() -> R) -> R {
        // SAFETY: sessions are used on attached threads.
        let py = unsafe { Python::assume_attached() };
        with_critical_section(&self.owner.bind(py), body)
    }

    /// Shows what the session keeps to the collector.
    pub(crate) fn traverse(&self, visitor: &mut Visitor) {
        visitor.object(&self.owner);
    }

    /// Adds ciphertext to what waits to be decrypted.
    ///
    /// # Errors
    /// MemoryError.
    #[inline]
    pub(crate) fn feed(&self, ciphertext: &[u8]) -> PyResult<()> {
        for part in ciphertext.chunks(c_int::MAX as usize) {
            let length = part.len() as c_int;
            // SAFETY: the BIO lives, and pointer and length describe the part.
            let taken =
                unsafe { (self.functions.bio_write)(self.incoming, part.as_ptr().cast(), length) };
            if taken != length {
                return Err(PyMemoryError::new_err(()));
            }
        }
        Ok(())
    }

    /// Lends ciphertext to the session while `body` runs, and then feeds it what is left.
    ///
    /// # Errors
    /// MemoryError.
    #[inline]
    pub(crate) fn reading_from<R>(
        &self,
        ciphertext: &[u8],
        body: impl FnOnce() -> R,
    ) -> PyResult<R> {
        if self.incoming_bytes() > 0 {
            // What waits already has to be read first.
            self.feed(ciphertext)?;
            return Ok(body());
        }
        let (result, left) = self.source.lend_data(ciphertext, body);
        let read = ciphertext.len() - left;
        self.feed(ciphertext.get(read..).unwrap_or_default())?;
        Ok(result)
    }

    /// How much ciphertext waits to be decrypted.
    #[inline]
    pub(crate) fn incoming_bytes(&self) -> usize {
        // SAFETY: the BIO lives.
        self.source.unread() + unsafe { (self.functions.bio_pending)(self.incoming) }
    }

    /// How much ciphertext waits to be sent.
    #[inline]
    pub(crate) fn outgoing_bytes(&self) -> usize {
        // SAFETY: the BIO lives.
        unsafe { (self.functions.bio_pending)(self.outgoing) }
    }

    /// Whether the session holds a part of a record, or plaintext.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        // SAFETY: the session lives, and `alone` keeps other threads out.
        self.alone(|| unsafe { (self.functions.has_pending)(self.ssl) != 0 })
    }

    /// Whether a read would find nothing to do.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        // SAFETY: as above.
        let pending = || self.alone(|| unsafe { (self.functions.pending)(self.ssl) });
        self.incoming_bytes() == 0 && pending() == 0
    }

    /// Clears errors that other users of the library have left on this thread: they would
    /// be taken for the session's.
    #[inline]
    pub(crate) fn forget_old_errors(&self) {
        // SAFETY: both access the error queue of this thread only.
        unsafe {
            if (self.functions.peek_error)() != 0 {
                (self.functions.clear_error)();
            }
        }
    }

    /// Decrypts at most one record. Callbacks of the context may run.
    #[inline]
    pub(crate) fn read(&self, room: &mut [MaybeUninit<u8>]) -> Read {
        let length = room.len().min(c_int::MAX as usize) as c_int;
        self.alone(|| {
            let start = room.as_mut_ptr().cast();
            // SAFETY: the session lives, and pointer and length describe the room.
            let count = unsafe { (self.functions.read)(self.ssl, start, length) };
            if count > 0 {
                return Read::Plaintext(count as usize);
            }
            // SAFETY: the session lives, and `count` is the result of its last call.
            match unsafe { (self.functions.get_error)(self.ssl, count) } {
                SSL_ERROR_WANT_READ => Read::WantsMore,
                _ => Read::Other,
            }
        })
    }

    /// Encrypts all of `data`; false if `_ssl` has to repeat the same call.
    #[inline]
    pub(crate) fn write(&self, data: &[u8]) -> bool {
        let length = data.len().min(c_int::MAX as usize) as c_int;
        let start = data.as_ptr().cast();
        // SAFETY: the session lives, and pointer and length are within `data`.
        let count = self.alone(|| unsafe { (self.functions.write)(self.ssl, start, length) });
        count as usize == data.len()
    }

    /// Encrypts all of `data` into `room`; false as for [`write`](Self::write).
    #[inline]
    pub(crate) fn write_into(&self, data: &[u8], room: &mut [MaybeUninit<u8>]) -> (bool, Written) {
        self.sink.lend_room(room, || self.write(data))
    }

    /// Moves ciphertext that waits to be sent into `room`; returns the number of bytes.
    #[inline]
    pub(crate) fn take_outgoing(&self, room: &mut [MaybeUninit<u8>]) -> usize {
        let length = room.len().min(c_int::MAX as usize) as c_int;
        // SAFETY: the BIO lives, and pointer and length describe the room.
        let count =
            unsafe { (self.functions.bio_read)(self.outgoing, room.as_mut_ptr().cast(), length) };
        count.max(0) as usize
    }
}

/// The word at `index` after the header of an object, if the object is large enough.
///
/// # Safety
/// The object is as large as its type says.
unsafe fn word(object: &Owned, index: usize) -> Option<*mut c_void> {
    let offset = size_of::<ffi::PyObject>() + index * size_of::<*mut c_void>();
    // SAFETY: a live object has a live type.
    let size = unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_basicsize };
    if (size as usize) < offset + size_of::<*mut c_void>() {
        return None;
    }
    // SAFETY: within the object's memory, as just checked.
    Some(unsafe { object.as_ptr().byte_add(offset).cast::<*mut c_void>().read() })
}

static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();

/// The library's functions, if they were looked up and found. Threads that are not
/// attached may call it.
#[inline]
pub(crate) fn found() -> Option<&'static Functions> {
    FUNCTIONS.get()?.as_ref()
}

/// The library's functions, if they can be found.
fn functions(py: Python<'_>) -> PyResult<Option<&'static Functions>> {
    if let Some(functions) = FUNCTIONS.get() {
        return Ok(functions.as_ref());
    }
    let loaded = load(py)?;
    Ok(FUNCTIONS.get_or_init(|| loaded).as_ref())
}

/// Asks the loader for the functions that `_ssl` itself calls. The module is loaded
/// already, and only it and the libraries that it depends on are searched.
fn load(py: Python<'_>) -> PyResult<Option<Functions>> {
    let Ok(file) = py.import("_ssl")?.getattr("__file__") else {
        // `_ssl` is built into the interpreter, whose OpenSSL has no symbols to look up.
        return Ok(None);
    };
    let Ok(file) = CString::new(file.extract::<String>()?) else { return Ok(None) };
    // SAFETY: a C string; with `RTLD_NOLOAD` nothing is loaded, so no code runs.
    let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if library.is_null() {
        return Ok(None);
    }
    Ok(Functions::find(|name| {
        // SAFETY: an open library, which is never closed, and a C string.
        NonNull::new(unsafe { libc::dlsym(library, name.as_ptr()) })
    }))
}
