//! `bytes` objects that data is received into, reused once nobody holds them.
//!
//! Most protocols drop a message before they return: they parse it, or pass its
//! content on. Its memory then serves the next message, without a call of the
//! allocator, for whose fast paths a kilobyte is already too large.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::outstanding::Outstanding;
use crate::py::{Owned, bytes};

/// Below this many bytes CPython's own allocator is as fast as the spare, which is
/// left to the messages that profit.
const WORTHWHILE: usize = 480;
/// The largest room that is kept after a message that has used less than half of it.
const LARGEST_SPARE: usize = 64 * 1024;
/// Larger messages have a spare of their own, so that small ones do not displace it.
const SMALL: usize = 8 * 1024;

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A `bytes` object for a protocol.
pub(crate) struct Message {
    object: Owned,
    /// Bytes that it has room for; 0 if it is not worth reusing.
    room: usize,
}

impl Message {
    /// An exact copy of `data`.
    #[inline]
    fn copy(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let room = if data.len() < WORTHWHILE { 0 } else { data.len() };
        Ok(Self { object: bytes::copy(py, data)?, room })
    }

    /// An object whose memory is not reused.
    pub(crate) fn of(object: Owned) -> Self {
        Self { object, room: 0 }
    }

    pub(crate) fn object(&self) -> &Owned {
        &self.object
    }

    /// What the protocol gets to read.
    #[inline]
    pub(crate) fn content(&self) -> &[u8] {
        // SAFETY: a bytes object, which this reference keeps alive.
        unsafe { bytes::content(self.object.as_ptr()) }
    }

    /// Bytes that its memory has room for; 0 if it is not worth reusing.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Whether its memory is worth reusing.
    #[inline]
    pub(crate) fn is_worthwhile(&self) -> bool {
        self.room > 0
    }

    /// Whether nobody else can ever see the object again.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        let object = self.object.as_ptr();
        #[cfg(Py_GIL_DISABLED)]
        {
            // SAFETY: a live object.
            let alone = unsafe { ffi::PyUnstable_Object_IsUniquelyReferenced(object) } != 0;
            // Another thread may have read the content before it let go.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            alone
        }
        #[cfg(not(Py_GIL_DISABLED))]
        // SAFETY: a live object.
        unsafe {
            ffi::Py_REFCNT(object) == 1
        }
    }

    /// Gives the object another length.
    ///
    /// # Safety
    /// The object is alone, `length` is within its room, and its first `length`
    /// bytes are written before anybody reads them.
    #[inline]
    unsafe fn set_length(&mut self, length: usize) {
        debug_assert!(length <= self.room && self.is_alone(), "{length} of {}", self.room);
        let object = self.object.as_ptr().cast::<ffi::PyBytesObject>();
        // SAFETY: nobody else refers to the object, and it was allocated with one byte
        // more than its room, for the zero at the end.
        unsafe {
            (*object.cast::<ffi::PyVarObject>()).ob_size = length as ffi::Py_ssize_t;
            #[allow(deprecated)]
            (&raw mut (*object).ob_shash).write(-1);
            (&raw mut (*object).ob_sval).cast::<u8>().add(length).write(0);
        }
    }

    /// The message with another content.
    ///
    /// # Safety
    /// The object is alone, and has room for `data`.
    #[inline]
    unsafe fn with_content(mut self, data: &[u8]) -> Self {
        // SAFETY: the caller's promise; memory that nobody else sees is not part of `data`.
        unsafe {
            let memory = self.space().as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(data.as_ptr(), memory, data.len());
            self.set_length(data.len());
        }
        self
    }

    /// All of the room.
    #[inline]
    fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: callers own an object that nobody else sees.
        let memory = unsafe { ffi::PyBytes_AS_STRING(self.object.as_ptr()) }.cast_mut();
        // SAFETY: the object was made with that much room.
        unsafe { std::slice::from_raw_parts_mut(memory.cast(), self.room) }
    }
}

/// One small and one large message at most, whose memory waits for the next, and those
/// that the program may let go of.
#[derive(Default)]
pub(crate) struct Spare {
    small: Option<Message>,
    large: Option<Message>,
    outstanding: Outstanding,
}

impl Spare {
    /// Where a message with this much room waits.
    #[inline]
    fn place(&mut self, room: usize) -> &mut Option<Message> {
        if room > SMALL { &mut self.large } else { &mut self.small }
    }

    /// A message with a copy of `data`. A receiver that `keeps` what it gets
    /// gets no spare, which may be twice as large as needed.
    // HOT: proto
    #[inline(always)]
    pub(crate) fn copy(&mut self, py: Python<'_>, data: &[u8], keeps: bool) -> PyResult<Message> {
        let length = data.len();
        if keeps || length < WORTHWHILE {
            return self.copy_to_keep(py, data);
        }
        let fits = |message: &mut Message| message.room >= length && message.room / 2 <= length;
        match self.place(length).take_if(fits) {
            // SAFETY: the room suffices, and a spare is alone.
            Some(message) => Ok(unsafe { message.with_content(data) }),
            None => Message::copy(py, data),
        }
    }

    /// The same for a receiver that keeps it, or if it is small: not in line, to leave the
    /// other case short.
    // HOT: stream
    #[inline(never)]
    fn copy_to_keep(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<Message> {
        let length = data.len();
        match if length < WORTHWHILE { None } else { self.outstanding.take(length) } {
            // SAFETY: the room suffices, and nobody else holds the message.
            Some(message) => Ok(unsafe { message.with_content(data) }),
            None => Message::copy(py, data),
        }
    }

    /// Room to receive `capacity` bytes into, which is at least [`WORTHWHILE`].
    pub(crate) fn filling(&mut self, py: Python<'_>, capacity: usize) -> PyResult<Filling> {
        debug_assert!(capacity >= WORTHWHILE, "{capacity} bytes may be a shared object");
        let fits = |message: &mut Message| {
            message.room >= capacity && message.room <= capacity.saturating_mul(2)
        };
        if let Some(message) = self.place(capacity).take_if(fits) {
            return Ok(Filling(message));
        }
        let size = capacity as ffi::Py_ssize_t;
        // SAFETY: without a source the content is left unset.
        let object = unsafe {
            Owned::from_result(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))?
        };
        Ok(Filling(Message { object, room: capacity }))
    }

    /// The message of which `length` bytes were received into `filling`. If it is small
    /// and most of the room is left over, it is copied, and the room waits for another.
    ///
    /// # Safety
    /// As for [`Filling::finish`].
    pub(crate) unsafe fn finish(
        &mut self,
        py: Python<'_>,
        mut filling: Filling,
        length: usize,
        keeps: bool,
    ) -> PyResult<Message> {
        let room = filling.0.room;
        if keeps || length > SMALL.min(room / 2) || room > LARGEST_SPARE {
            // SAFETY: the caller's promise.
            return unsafe { filling.finish(py, length, keeps) };
        }
        let received = &raw const *filling.space(0).get(..length).unwrap_or_default();
        // SAFETY: the caller has written so many bytes, to memory that `filling` owns.
        let message = Message::copy(py, unsafe { &*(received as *const [u8]) })?;
        drop(self.put_back(filling.0));
        Ok(message)
    }

    /// Takes back a message that nobody else holds; returns the one that it replaces.
    #[inline]
    pub(crate) fn put_back(&mut self, message: Message) -> Option<Message> {
        debug_assert!(message.is_alone(), "somebody reads the spare message");
        self.place(message.room).replace(message)
    }

    /// Watches a message that its receiver has kept. Returns one that is not watched any
    /// longer, to be dropped.
    #[inline]
    pub(crate) fn watch(&mut self, message: Message) -> Option<Message> {
        self.outstanding.watch(message)
    }
}

/// A message under construction: nobody else has seen its object.
pub(crate) struct Filling(Message);

impl Filling {
    /// The room from `start` on.
    #[inline]
    pub(crate) fn space(&mut self, start: usize) -> &mut [MaybeUninit<u8>] {
        self.0.space().get_mut(start..).unwrap_or_default()
    }

    /// Copies bytes to the front.
    pub(crate) fn begin_with(&mut self, data: &[u8]) {
        for (to, from) in self.0.space().iter_mut().zip(data) {
            to.write(*from);
        }
    }

    /// The message, `length` bytes long. Its memory is cut to that if the receiver
    /// `keeps` what it gets, or if half would be wasted.
    ///
    /// # Safety
    /// The first `length` bytes have been written.
    pub(crate) unsafe fn finish(
        mut self,
        py: Python<'_>,
        length: usize,
        keeps: bool,
    ) -> PyResult<Message> {
        if length >= WORTHWHILE && (length == self.0.room || (!keeps && length > self.0.room / 2)) {
            // SAFETY: the object is new, or was alone as a spare.
            unsafe { self.0.set_length(length) };
            return Ok(self.0);
        }
        // SAFETY: as above. The call below expects a length that matches the memory.
        unsafe { self.0.set_length(self.0.room) };
        let mut object = self.0.object.into_raw();
        // SAFETY: the only reference; on failure the call frees the object,
        // nulls the pointer and sets MemoryError.
        unsafe { _PyBytes_Resize(&mut object, length as ffi::Py_ssize_t) };
        // SAFETY: still the only reference, or null with an exception.
        let object = unsafe { Owned::from_result(py, object)? };
        Ok(Message { object, room: if length < WORTHWHILE { 0 } else { length } })
    }
}
