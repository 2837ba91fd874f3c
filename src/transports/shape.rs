//! The memory layout of a transport: the slots of asyncio's base class, followed by the
//! state of the kind of transport.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{ffi, intern};

use crate::event_loop::{EventLoop, Inside};
use crate::py::native::{self, NativeClass, Visitor};
use crate::py::{Live, Owned};
use crate::transports::interior::Interior;
use crate::transports::stream;

/// A transport of connected streams.
pub(crate) type StreamTransport = Transport<stream::Inner>;

/// A strong reference to a transport.
#[repr(transparent)]
pub(crate) struct TransportRef<I = stream::Inner>(Owned, PhantomData<fn() -> I>);

impl<I: Interior> TransportRef<I> {
    /// Wraps a reference.
    ///
    /// # Safety
    /// The object is a filled [`Transport`] of this kind.
    pub(crate) unsafe fn new(object: Owned) -> Self {
        Self(object, PhantomData)
    }

    #[inline]
    pub(crate) fn get(&self) -> &Transport<I> {
        // SAFETY: `new` takes transports of this kind only, and `self` keeps it alive.
        unsafe { &*self.0.as_ptr().cast() }
    }

    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py), PhantomData)
    }

    #[inline]
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }
}

/// The object. It is empty until `install` sets its loop and its inner part.
#[repr(C)]
pub(crate) struct Transport<I> {
    ob_base: ffi::PyObject,
    /// asyncio.BaseTransport's `_extra`: a dictionary of what was passed in.
    extra: Cell<*mut ffi::PyObject>,
    // The slots of asyncio's _FlowControlMixin, in the order in which CPython
    // lays them out; `sendfile`'s fallback wants an instance of it.
    high_water: Cell<*mut ffi::PyObject>,
    /// Its `_loop`.
    event_loop: Cell<*mut ffi::PyObject>,
    low_water: Cell<*mut ffi::PyObject>,
    protocol_paused: Cell<*mut ffi::PyObject>,
    dict: Cell<*mut ffi::PyObject>,
    weakrefs: Cell<*mut ffi::PyObject>,
    /// The inner part's flag for every thread: `StreamWriter.__del__` asks for it, and
    /// the collector runs that on any.
    closing: AtomicBool,
    /// The same for the finalizer: connection_lost was called.
    finished: AtomicBool,
    inner: UnsafeCell<MaybeUninit<I>>,
}

impl StreamTransport {
    /// The transport behind an object, if it is one; `class` is that of stream
    /// transports.
    #[inline]
    pub(crate) fn of<'a>(object: &'a Owned, class: &Bound<'_, PyType>) -> Option<&'a Self> {
        // SAFETY: both references keep what they refer to alive.
        if unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class.as_type_ptr()) } == 0 {
            return None;
        }
        // SAFETY: an instance of the class begins with this memory, and lives
        // as long as the reference.
        Some(unsafe { &*object.as_ptr().cast() })
    }
}

impl<I: Interior> Transport<I> {
    /// Makes an empty object of `class`. It is a step before [`install`](Self::install),
    /// which takes the descriptor over and cannot fail.
    pub(crate) fn allocate(class: &Bound<'_, PyType>) -> PyResult<Owned> {
        // SAFETY: callers have checked that `class` is the native one or derives from it.
        unsafe { native::new_instance(class) }
    }

    /// Fills a new object.
    ///
    /// # Safety
    /// The object comes from [`Transport::allocate`] and is still empty.
    pub(crate) unsafe fn install(
        object: Owned,
        event_loop: Owned,
        extra: Option<Owned>,
        inner: I,
    ) -> TransportRef<I> {
        // SAFETY: the caller promises that it is an instance.
        let this = unsafe { &*object.as_ptr().cast::<Self>() };
        // SAFETY: the inner part of an empty object is never borrowed.
        unsafe { (*this.inner.get()).write(inner) };
        this.event_loop.set(event_loop.into_raw());
        this.extra.set(extra.map_or(ptr::null_mut(), Owned::into_raw));
        // SAFETY: filled now.
        unsafe { TransportRef::new(object) }
    }

    /// `close` or `abort` was called, or the connection was lost.
    pub(crate) fn note_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether [`note_closing`](Self::note_closing) was called; from any thread.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// connection_lost was called: the finalizer need not warn.
    pub(crate) fn note_finished(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has set attributes, which may hide methods.
    #[inline]
    pub(crate) fn has_attributes(&self) -> bool {
        !self.dict.get().is_null()
    }

    fn is_empty(&self) -> bool {
        self.event_loop.get().is_null()
    }

    /// The loop that the transport belongs to.
    #[inline]
    pub(crate) fn event_loop(&self, py: Python<'_>) -> PyResult<&EventLoop> {
        let event_loop = self.event_loop.get();
        if event_loop.is_null() {
            return Err(PyRuntimeError::new_err("the transport was not made by an event loop"));
        }
        // SAFETY: the slot holds an EventLoop for as long as the object lives.
        Ok(unsafe { EventLoop::borrow(py, Live::new(event_loop)) })
    }

    /// What Python code can set, also those of asyncio's slots that are not used here; all
    /// that the object owns but for its loop and its inner part.
    fn fields(&self) -> [&Cell<*mut ffi::PyObject>; 5] {
        [&self.extra, &self.high_water, &self.low_water, &self.protocol_paused, &self.dict]
    }

    /// The loop as a Python object.
    pub(crate) fn event_loop_object(&self) -> Owned {
        // SAFETY: every method calls `event_loop` first, which checks that the slot is set.
        unsafe { Owned::from_borrowed(self.event_loop.get()) }
    }

    /// The dictionary of extra information, if one was passed in.
    pub(crate) fn extra(&self) -> Option<Owned> {
        let extra = self.extra.get();
        // SAFETY: a filled slot owns a reference.
        (!extra.is_null()).then(|| unsafe { Owned::from_borrowed(extra) })
    }

    /// Keeps a dictionary of extra information.
    pub(crate) fn set_extra(&self, extra: Owned) {
        let old = self.extra.replace(extra.into_raw());
        // SAFETY: the slot owned this reference, if any.
        unsafe { ffi::Py_XDECREF(old) };
    }

    /// Opens the inner part. As for the loop's state, the body must not call into Python,
    /// nor drop what may run Python code.
    #[inline]
    pub(crate) fn with<R>(&self, _proof: &Inside<'_>, body: impl FnOnce(&mut I) -> R) -> R {
        debug_assert!(!self.is_empty(), "an empty transport was opened");
        // SAFETY: the proof shows that this thread is the only one inside the loop; a
        // transport with a loop has its inner part; bodies do not nest.
        body(unsafe { (*self.inner.get()).assume_init_mut() })
    }

    /// A new reference to this object.
    pub(crate) fn reference(&self) -> TransportRef<I> {
        let this = (&raw const *self).cast_mut().cast();
        // SAFETY: a live, filled object during its own method.
        unsafe { TransportRef::new(Owned::from_borrowed(this)) }
    }
}

// SAFETY: the memory begins with the slots of asyncio's base classes. All zeros are valid,
// because the inner part is not read before the loop is set.
unsafe impl<I: Interior> NativeClass for Transport<I> {
    const NAME: &'static CStr = I::CLASS_NAME;
    const BASE_SIZE: usize = offset_of!(Self, dict);
    const WEAKLIST: Option<usize> = Some(offset_of!(Self, weakrefs));
    const DICT: Option<usize> = Some(offset_of!(Self, dict));
    const SUBCLASSABLE: bool = true;

    fn slots() -> Vec<ffi::PyType_Slot> {
        let pfunc = finalize::<I> as ffi::destructor as *mut c_void;
        vec![ffi::PyType_Slot { slot: ffi::Py_tp_finalize, pfunc }]
    }

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in self.fields().into_iter().chain([&self.event_loop]) {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(slot.get()) };
        }
        if !self.is_empty() {
            // SAFETY: the collector only reads, and an object that is not empty has an
            // inner part.
            unsafe { (*self.inner.get()).assume_init_ref() }.traverse(visitor);
        }
    }

    fn clear(&self) {
        if !self.is_empty() {
            // SAFETY: the collector clears only what nobody else can reach.
            let dropped = unsafe { (*self.inner.get()).assume_init_mut() }.release();
            drop(dropped);
        }
        for slot in self.fields() {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.replace(ptr::null_mut())) };
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        let object = unsafe { &*this };
        if !object.weakrefs.get().is_null() {
            // SAFETY: the list belongs to this object.
            unsafe { ffi::PyObject_ClearWeakRefs(this.cast()) };
        }
        if !object.is_empty() {
            // SAFETY: an object that is not empty has an inner part; it is dropped only here.
            unsafe { (*object.inner.get()).assume_init_drop() };
        }
        for slot in object.fields().into_iter().chain([&object.event_loop]) {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.replace(ptr::null_mut())) };
        }
        // SAFETY: the object is dead and untracked, and its value was dropped.
        unsafe { native::free(this.cast()) };
    }
}

/// `__del__`: warns if the transport was never closed.
unsafe extern "C" fn finalize<I: Interior>(this: *mut ffi::PyObject) {
    // SAFETY: the slot belongs to a class whose instances are transports.
    let object = unsafe { &*this.cast::<Transport<I>>() };
    if !object.is_empty() && !object.finished.load(Ordering::Relaxed) {
        // SAFETY: CPython finalizes objects on attached threads.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: a dying object lives until its finalizer returns.
        warn_of_abandoned(py, unsafe { Owned::from_borrowed(this) });
    }
}

/// Nobody closed the transport: lets its Python class issue the warning.
#[cold]
fn warn_of_abandoned(py: Python<'_>, transport: Owned) {
    // An exception that is being raised meanwhile is set aside and restored.
    let raised = PyErr::take(py);
    let transport = transport.bind(py);
    if let Err(error) = transport.call_method0(intern!(py, "_warn_of_abandoned")) {
        error.write_unraisable(py, Some(&transport));
    }
    if let Some(raised) = raised {
        raised.restore(py);
    }
}
