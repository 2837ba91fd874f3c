//! Handles: callbacks that wait to be run.
//!
//! Their classes extend asyncio's own classes: the memory begins with the slots of
//! those classes, filled as asyncio fills them wherever another object may
//! look, and up to three arguments follow in place. A handle belongs to its
//! loop's thread; `cancel` may come from any, and so may a look at it. The
//! slots of a handle that others may see are emptied by the thread inside the
//! loop only, under the object's lock where there is no GIL.
//!
//! The collector is not told of a handle while a running loop holds it: the
//! loop is alive then, and with it all that the handle refers to. When a run
//! ends, and when somebody keeps a handle past its call, it is told.
#![allow(unsafe_code)]

mod class;
mod free_list;

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};
use tokioloop_reactor::TimerKey;

pub(crate) use self::class::make_classes;
use self::free_list::DeadHandle;
pub(crate) use self::free_list::{Handles, Memory};
use crate::event_loop::{EventLoop, Inside};
use crate::imports::Imports;
use crate::py::native::{self, Visitor};
use crate::py::{Owned, call, context};
use crate::threadsafe_cancel;

/// Arguments that need no tuple.
pub(crate) const INLINE_ARGS: usize = 3;

type Slot = Cell<*mut ffi::PyObject>;

/// The memory of a `Handle` and of a `TimerHandle`.
#[repr(C)]
pub(crate) struct HandleObject {
    ob_base: ffi::PyObject,
    // The slots of asyncio.Handle, in the order in which CPython lays them out.
    /// The tuple of more than [`INLINE_ARGS`] arguments.
    args: Slot,
    callback: Slot,
    _cancelled: Slot,
    context: Slot,
    event_loop: Slot,
    repr: Slot,
    source_traceback: Slot,
    /// From CPython 3.12 on the list is kept before the object.
    #[cfg(not(Py_3_12))]
    _weakrefs: Slot,
    // The slots of asyncio.TimerHandle; the first is also that of the lock of
    // asyncio's _ThreadSafeHandle, which stays empty.
    _scheduled: Slot,
    /// `when` as the caller gave it, if it did.
    when: Slot,
    // Ours.
    /// A callee may use the slot before its arguments for itself.
    scratch: Slot,
    inline: [Slot; INLINE_ARGS],
    inline_count: Cell<u8>,
    cancelled: AtomicBool,
    running: AtomicBool,
    /// Came from `call_soon_threadsafe`.
    threadsafe: Cell<bool>,
    tracked: Cell<bool>,
    timer: Cell<Option<TimerKey>>,
    when_seconds: Cell<f64>,
}

/// A handle's memory up to where asyncio.Handle's ends.
const HANDLE_SIZE: usize = offset_of!(HandleObject, _scheduled);
/// A handle's memory up to where asyncio's _ThreadSafeHandle's ends.
const THREADSAFE_HANDLE_SIZE: usize = offset_of!(HandleObject, when);
/// A handle's memory up to where asyncio.TimerHandle's ends.
const TIMER_HANDLE_SIZE: usize = offset_of!(HandleObject, scratch);

/// What a new handle is made of.
pub(crate) struct Callback<'a> {
    pub(crate) callable: *mut ffi::PyObject,
    pub(crate) args: &'a [*mut ffi::PyObject],
    /// None stands for an empty context, which is made when it is needed.
    pub(crate) context: Option<Owned>,
}

/// Which class a handle has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Timer,
    /// CPython 3.14 and later give `call_soon_threadsafe` a class of its own.
    Threadsafe,
}

/// A strong reference to a handle of ours.
#[repr(transparent)]
pub(crate) struct HandleRef(Owned);

impl HandleRef {
    /// Makes a handle that the collector does not know yet.
    // HOT: call_soon
    #[inline]
    pub(crate) fn new(
        py: Python<'_>,
        memory: Memory,
        event_loop: *mut ffi::PyObject,
        callback: Callback<'_>,
    ) -> PyResult<Self> {
        let object = match memory {
            Memory::Dead(dead) => dead.revive(),
            Memory::New(kind) => Self::allocate(py, kind)?,
        };
        // SAFETY: the object is new, so nobody else refers to it.
        let handle = Self(unsafe { Owned::from_raw(object.cast()) });
        handle.get().fill(py, event_loop, callback)?;
        Ok(handle)
    }

    #[cold]
    fn allocate(py: Python<'_>, kind: Kind) -> PyResult<*mut HandleObject> {
        let imports = Imports::get(py)?;
        let class = match kind {
            Kind::Plain => &imports.handle,
            Kind::Timer => &imports.timer_handle,
            Kind::Threadsafe => &imports.threadsafe_handle,
        };
        // SAFETY: a class made for this memory; all zero is a valid value.
        let object = unsafe { native::new_untracked::<HandleObject>(class.bind(py))? };
        Ok(object.into_raw().cast())
    }

    #[inline]
    pub(crate) fn get(&self) -> &HandleObject {
        // SAFETY: a HandleRef is only made of handles.
        unsafe { &*self.0.as_ptr().cast() }
    }

    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(self.0.clone_ref(py))
    }

    #[inline]
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }

    #[inline]
    pub(crate) fn into_object(self) -> Owned {
        self.0
    }

    /// Calls the callback in its context. Cancelled handles do nothing.
    ///
    /// # Errors
    /// What the callback raised.
    // HOT: call_soon
    #[inline]
    pub(crate) fn run(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.get();
        if handle.threadsafe.get() {
            return self.run_threadsafe(py);
        }
        if handle.is_cancelled() {
            return Ok(());
        }
        self.run_callback(py)
    }

    #[inline]
    fn run_callback(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.get();
        handle.running.store(true, Ordering::Relaxed);
        let result = context::run(py, handle.context.get(), || handle.call(py));
        handle.running.store(false, Ordering::Relaxed);
        if handle.is_cancelled() {
            // It was cancelled by its own callback, which kept its arguments.
            handle.release(py);
        }
        match result {
            Ok(result) => result.map(drop),
            Err(error) => Err(error),
        }
    }

    /// As `run`, with `cancel` in other threads waiting for the end.
    fn run_threadsafe(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.get();
        if !threadsafe_cancel::begin(&handle.running, &handle.cancelled) {
            handle.release(py);
            return Ok(());
        }
        let made = handle.context.get().is_null();
        let result = match handle.own_context(py) {
            Ok(context) => context::run(py, context, || handle.call(py)),
            Err(error) => Err(error),
        };
        if made {
            handle.give_context_back(py);
        }
        threadsafe_cancel::end(&handle.running);
        if handle.is_cancelled() {
            handle.release(py);
        }
        match result {
            Ok(result) => result.map(drop),
            Err(error) => Err(error),
        }
    }
}

impl HandleObject {
    #[inline]
    fn fill(
        &self,
        py: Python<'_>,
        event_loop: *mut ffi::PyObject,
        callback: Callback<'_>,
    ) -> PyResult<()> {
        let keep = |object: *mut ffi::PyObject| {
            // SAFETY: alive for the length of the call that makes the handle.
            unsafe { ffi::Py_INCREF(object) };
            object
        };
        self.callback.set(keep(callback.callable));
        self.context.set(callback.context.map_or(ptr::null_mut(), Owned::into_raw));
        self.event_loop.set(keep(event_loop));
        if callback.args.len() <= INLINE_ARGS {
            for (slot, &argument) in self.inline.iter().zip(callback.args) {
                slot.set(keep(argument));
            }
            self.inline_count.set(callback.args.len() as u8);
            Ok(())
        } else {
            self.fill_tuple(py, callback.args)
        }
    }

    #[cold]
    fn fill_tuple(&self, py: Python<'_>, args: &[*mut ffi::PyObject]) -> PyResult<()> {
        // SAFETY: the arguments are alive for the length of this call.
        let args = args.iter().map(|&object| unsafe { Bound::from_borrowed_ptr(py, object) });
        let tuple = PyTuple::new(py, args.collect::<Vec<_>>())?;
        self.args.set(tuple.into_ptr());
        Ok(())
    }

    /// The context of the callback, which is made here if it was empty.
    fn own_context(&self, py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
        self.alone(py, || {
            if self.context.get().is_null() {
                let made = context::empty(py)?;
                // Making it may have run the collector, and that any code.
                if self.context.get().is_null() {
                    self.context.set(made.into_raw());
                }
            }
            Ok(self.context.get())
        })
    }

    /// A context that was made for one call, and that nobody has seen or put
    /// anything into, serves the next one.
    #[inline]
    fn give_context_back(&self, py: Python<'_>) {
        // Without the GIL another thread could be looking at it.
        if cfg!(not(Py_GIL_DISABLED)) {
            let context = self.context.get();
            if context::is_as_new(py, context) {
                self.context.set(ptr::null_mut());
                // SAFETY: the slot owned this reference.
                context::keep(py, unsafe { Owned::from_raw(context) });
            }
        }
    }

    #[inline]
    fn call(&self, py: Python<'_>) -> PyResult<Owned> {
        let tuple = self.args.get();
        if tuple.is_null() {
            let first = self.inline.as_ptr().cast::<*mut ffi::PyObject>();
            let count = usize::from(self.inline_count.get());
            // SAFETY: the handle keeps callable and arguments alive while
            // `running` is set, and `scratch` lies before the first argument.
            unsafe { call::vectorcall(py, self.callback.get(), first, count) }
        } else {
            // SAFETY: as above, with the arguments in a tuple.
            unsafe { call::with_tuple(py, self.callback.get(), tuple) }
        }
    }

    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Notes where the loop's timers hold the handle.
    #[inline]
    pub(crate) fn set_timer(&self, timer: Option<TimerKey>) {
        self.timer.set(timer);
    }

    pub(crate) fn when_seconds(&self) -> f64 {
        self.when_seconds.get()
    }

    #[inline]
    pub(crate) fn set_when(&self, seconds: f64, given: Option<Owned>) {
        self.when_seconds.set(seconds);
        if let Some(given) = given {
            self.when.set(given.into_raw());
        }
    }

    pub(crate) fn set_threadsafe(&self) {
        self.threadsafe.set(true);
    }

    pub(crate) fn set_source_traceback(&self, traceback: Owned) {
        let old = self.source_traceback.replace(traceback.into_raw());
        // SAFETY: the slot owned this reference.
        unsafe { ffi::Py_XDECREF(old) };
    }

    /// Lets the collector see the handle from now on.
    pub(crate) fn track(&self) {
        if !self.tracked.replace(true) {
            // SAFETY: a live object that the collector does not know.
            unsafe { ffi::PyObject_GC_Track((&raw const *self).cast_mut().cast()) };
        }
    }

    /// Whether somebody else than the caller keeps the handle.
    pub(crate) fn is_shared(&self) -> bool {
        // SAFETY: a live object.
        unsafe { ffi::Py_REFCNT((&raw const *self).cast_mut().cast()) > 1 }
    }

    /// Drops what the callback needed, as asyncio does when it is cancelled.
    fn release(&self, py: Python<'_>) {
        // The slot reads as None afterwards. All are emptied before what they
        // held is dropped, because that may run any code.
        let none = Owned::none(py);
        let held = self.alone(py, || {
            let count = usize::from(self.inline_count.replace(0));
            let mut held = [ptr::null_mut(); INLINE_ARGS + 2];
            let [callback, tuple, inline @ ..] = &mut held;
            *callback = self.callback.replace(none.into_raw());
            *tuple = self.args.replace(ptr::null_mut());
            for (object, slot) in inline.iter_mut().zip(&self.inline).take(count) {
                *object = slot.replace(ptr::null_mut());
            }
            held
        });
        for object in held {
            // SAFETY: the slots owned these references.
            unsafe { ffi::Py_XDECREF(object) };
        }
    }

    /// Runs `body` while no other thread looks at the slots.
    #[inline]
    fn alone<R>(&self, py: Python<'_>, body: impl FnOnce() -> R) -> R {
        let this = (&raw const *self).cast_mut().cast();
        // SAFETY: alive during its own method.
        let this: Borrowed<'_, '_, PyAny> = unsafe { Borrowed::from_ptr(py, this) };
        with_critical_section(&this, body)
    }

    /// `cancel()`, from any thread.
    pub(crate) fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_cancelled() {
            return self.wait_until_cancelled(py);
        }
        // SAFETY: the handle keeps its loop alive.
        let event_loop = unsafe { EventLoop::borrow(py, self.event_loop.get()) };
        self.cancelled.store(true, Ordering::SeqCst);
        if event_loop.debug() {
            self.remember_repr(py)?;
        }
        match event_loop.cell.try_enter() {
            Ok(inside) => {
                self.take_back(py, &inside);
                Ok(())
            }
            Err(_) => {
                // SAFETY: alive during its own method.
                let this = unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) };
                event_loop.reap(py, HandleRef(this));
                self.wait_until_cancelled(py)
            }
        }
    }

    /// A handle of `call_soon_threadsafe` does not go on running behind the back
    /// of a thread that cancels it or asks for its state (CPython 3.14 and
    /// later).
    fn wait_until_cancelled(&self, py: Python<'_>) -> PyResult<()> {
        if self.threadsafe.get() && cfg!(Py_3_14) {
            // SAFETY: the handle keeps its loop alive.
            let event_loop = unsafe { EventLoop::borrow(py, self.event_loop.get()) };
            if !event_loop.cell.is_mine() {
                threadsafe_cancel::wait(py, &self.running);
            }
        }
        Ok(())
    }

    /// On the loop's thread: finishes what another thread's `cancel` began.
    pub(crate) fn take_back(&self, py: Python<'_>, inside: &Inside<'_>) {
        let held = match self.timer.take() {
            Some(key) => inside.with(|state| state.timers.remove(key)),
            None => None,
        };
        if !self.running.load(Ordering::Relaxed) {
            self.release(py);
        }
        drop(held);
        if self.is_shared() {
            // The loop holds it no longer: what keeps it may be in a cycle with
            // the context.
            self.track();
        }
    }

    /// Debug mode shows what a cancelled handle would have called.
    #[cold]
    fn remember_repr(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: alive during its own method.
        let this = unsafe { Owned::from_borrowed((&raw const *self).cast_mut().cast()) };
        let text = this.bind(py).repr()?.into_any();
        let old = self.alone(py, || self.repr.replace(text.into_ptr()));
        // SAFETY: the slot owned this reference.
        unsafe { ffi::Py_XDECREF(old) };
        Ok(())
    }

    fn visit(&self, visitor: &mut Visitor) {
        let slots = [&self.args, &self.callback, &self.context, &self.event_loop, &self.repr];
        for slot in slots.into_iter().chain([&self.source_traceback, &self.when]) {
            visitor.pointer(slot.get());
        }
        for slot in self.inline.iter().take(usize::from(self.inline_count.get())) {
            visitor.pointer(slot.get());
        }
    }

    /// Drops every reference; the handle is dead or about to be.
    fn clear_all(&self) {
        let count = self.inline_count.replace(0);
        for slot in self.inline.iter().take(usize::from(count)) {
            // SAFETY: the slot owned this reference.
            unsafe { ffi::Py_XDECREF(slot.replace(ptr::null_mut())) };
        }
        for slot in [
            &self.args,
            &self.callback,
            &self.context,
            &self.repr,
            &self.source_traceback,
            &self.when,
            &self.event_loop,
        ] {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.replace(ptr::null_mut())) };
        }
    }

    /// Ends a handle: its memory goes to its loop's free list where that is
    /// within reach.
    // HOT: call_soon
    unsafe fn end(this: *mut Self, kind: Kind) {
        // SAFETY: CPython passes the dead object, whose memory is still whole.
        let handle = unsafe { &*this };
        if handle.tracked.replace(false) {
            // SAFETY: known to the collector, as the flag says.
            unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        }
        // SAFETY: a dead object whose class has weak references.
        unsafe { clear_weakrefs(this) };
        let event_loop = handle.event_loop.replace(ptr::null_mut());
        handle.clear_all();
        handle.cancelled.store(false, Ordering::Relaxed);
        handle.threadsafe.set(false);
        handle.timer.set(None);
        // SAFETY: nothing refers to it any more, nor does it.
        let mut dead = Some(unsafe { DeadHandle::new(this) });
        if !event_loop.is_null() {
            // SAFETY: the slot owned this reference.
            let event_loop = unsafe { Owned::from_raw(event_loop) };
            // SAFETY: deallocation runs attached.
            let py = unsafe { Python::assume_attached() };
            // SAFETY: the slot held the handle's loop.
            let target = unsafe { EventLoop::borrow(py, event_loop.as_ptr()) };
            if target.cell.is_mine() {
                if let Ok(inside) = target.cell.enter(py) {
                    dead = dead.and_then(|dead| inside.with(|state| state.handles.put(kind, dead)));
                }
            }
        }
        drop(dead);
    }
}

/// Ends the weak references to a dead handle.
///
/// # Safety
/// The object is dead, and its memory whole.
#[inline]
unsafe fn clear_weakrefs(this: *mut HandleObject) {
    // SAFETY: dead objects keep their class.
    let class = unsafe { ffi::Py_TYPE(this.cast()) };
    // SAFETY: a class is alive as long as its instances.
    let offset = unsafe { (*class).tp_weaklistoffset };
    // SAFETY: asyncio.Handle has weak references, so the offset leads to the
    // list, which may lie before the object.
    let list = unsafe { *this.byte_offset(offset).cast::<*mut ffi::PyObject>() };
    if !list.is_null() {
        // SAFETY: the list belongs to this object.
        unsafe { ffi::PyObject_ClearWeakRefs(this.cast()) };
    }
}

impl HandleObject {
    /// Breaks cycles. The loop stays: a handle without one cannot be asked
    /// anything, and the loop's own clear breaks that side.
    fn clear_for_collector(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // SAFETY: the collector runs attached.
        self.release(unsafe { Python::assume_attached() });
    }
}
