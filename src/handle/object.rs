//! The memory of a handle, and what is done with it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};

use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyTuple;
use pyo3::{Borrowed, ffi};

use super::free_list::DeadHandle;
use super::timer::TimerObject;
use super::{Callback, HandleRef, Kind};
use crate::event_loop::EventLoop;
use crate::py::native::Visitor;
use crate::py::{Live, Owned, call, context, shared_count};

/// How many arguments are stored in the handle, without a tuple.
pub(super) const INLINE_ARGS: usize = 2;

pub(super) type Slot = Cell<*mut ffi::PyObject>;

/// The memory of a `Handle`, and the beginning of a `TimerHandle`'s.
#[repr(C)]
pub(crate) struct HandleObject {
    pub(super) ob_base: ffi::PyObject,
    // The slots of asyncio.Handle, in the order in which CPython lays them out.
    /// The tuple of more than [`INLINE_ARGS`] arguments.
    pub(super) args: Slot,
    pub(super) callback: Slot,
    _cancelled: Slot,
    pub(super) context: Slot,
    pub(super) event_loop: Slot,
    pub(super) repr: Slot,
    pub(super) source_traceback: Slot,
    /// From CPython 3.12 on the list is kept before the object.
    #[cfg(not(Py_3_12))]
    _weakrefs: Slot,
    /// `_scheduled` in asyncio.TimerHandle, the lock in asyncio's _ThreadSafeHandle;
    /// unused.
    _first: Slot,
    /// `_when` in asyncio.TimerHandle, unused there. In other handles the scratch word
    /// before the arguments, which `PY_VECTORCALL_ARGUMENTS_OFFSET` lets the callee
    /// overwrite.
    second: Slot,
    // Ours.
    pub(super) inline: [Slot; INLINE_ARGS],
    pub(super) inline_count: Cell<u8>,
    pub(super) cancelled: AtomicBool,
    /// How many calls of the callback are under way; it may run its own handle.
    pub(super) running: AtomicU16,
    kind: Cell<Kind>,
    tracked: Cell<bool>,
}

/// A handle's memory up to where asyncio.Handle's ends.
pub(super) const HANDLE_SIZE: usize = offset_of!(HandleObject, _first);
/// A handle's memory up to where asyncio's _ThreadSafeHandle's ends.
pub(super) const THREADSAFE_HANDLE_SIZE: usize = offset_of!(HandleObject, second);
/// A handle's memory up to where asyncio.TimerHandle's ends.
pub(super) const TIMER_HANDLE_SIZE: usize = offset_of!(HandleObject, inline);

impl HandleObject {
    #[inline]
    pub(super) fn fill(
        &self,
        py: Python<'_>,
        event_loop: Live<'_>,
        callback: Callback<'_>,
    ) -> PyResult<()> {
        let keep = |object| self.keep(py, object);
        self.callback.set(keep(callback.callable));
        self.context
            .set(callback.context.map_or(ptr::null_mut(), |context| self.take(py, context)));
        if self.event_loop.get().is_null() {
            self.event_loop.set(keep(event_loop));
        }
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
    fn fill_tuple(&self, py: Python<'_>, args: &[Live<'_>]) -> PyResult<()> {
        let tuple = PyTuple::new(py, args.iter().map(|object| object.bind(py)))?;
        self.args.set(self.take(py, tuple.into_any().into()));
        Ok(())
    }

    /// Adds a reference for a slot to own.
    #[inline]
    fn keep(&self, _py: Python<'_>, object: Live<'_>) -> *mut ffi::PyObject {
        let object = object.as_ptr();
        // SAFETY: a live object, on an attached thread.
        unsafe {
            if counts_apart(self.kind()) {
                shared_count::add(object);
            } else {
                ffi::Py_INCREF(object);
            }
        }
        object
    }

    /// Turns a reference into one that a slot owns.
    #[inline]
    pub(super) fn take(&self, py: Python<'_>, object: Owned) -> *mut ffi::PyObject {
        if counts_apart(self.kind()) {
            return self.keep(py, object.live());
        }
        object.into_raw()
    }

    /// The context of the callback, which is made here if it was empty.
    pub(super) fn own_context(&self, py: Python<'_>) -> PyResult<Owned> {
        self.alone(py, || self.fill_context(py))
    }

    /// As [`own_context`](Self::own_context), for callers that know that no other thread
    /// accesses the handle meanwhile.
    #[inline]
    pub(super) fn fill_context(&self, py: Python<'_>) -> PyResult<Owned> {
        if self.context.get().is_null() {
            let made = context::empty(py)?;
            // Making it may have run the collector, and with it any code.
            if self.context.get().is_null() {
                self.context.set(self.take(py, made));
            }
        }
        // SAFETY: the slot is filled, and owns its reference.
        Ok(unsafe { Owned::from_borrowed(self.context.get()) })
    }

    /// After a call that made a context for itself: keeps the context for the next such
    /// call, if nobody has seen it or put anything into it.
    #[inline]
    pub(super) fn give_context_back(&self, py: Python<'_>) {
        // Without the GIL another thread could be looking at it.
        if cfg!(Py_GIL_DISABLED) || self.context.get().is_null() {
            return;
        }
        // SAFETY: the slot owned this reference.
        let context = unsafe { Owned::from_raw(self.context.replace(ptr::null_mut())) };
        if context::is_as_new(py, &context) {
            context::keep(py, context);
        } else {
            self.context.set(context.into_raw());
        }
    }

    #[inline]
    pub(super) fn call(&self, py: Python<'_>) -> PyResult<Owned> {
        let tuple = self.args.get();
        if tuple.is_null() {
            let first = self.inline.as_ptr().cast::<*mut ffi::PyObject>();
            let count = usize::from(self.inline_count.get());
            // The word before the first argument is `second`, which the callee may
            // overwrite, except in a timer, where it is asyncio's slot.
            let slot_before = self.kind() != Kind::Timer;
            let callback = self.callback.get();
            // SAFETY: the slots keep callable and arguments alive: they are not emptied while
            // `running` is above 0, and a handle that is out of reach cannot be cancelled.
            unsafe { call::vectorcall_at(py, callback, first, count, slot_before) }
        } else {
            // SAFETY: as above, with the arguments in a tuple.
            unsafe { call::with_tuple(py, self.callback.get(), tuple) }
        }
    }

    /// What it calls; None once it was cancelled.
    pub(crate) fn callback(&self, py: Python<'_>) -> Option<Owned> {
        if self.is_cancelled() {
            return None;
        }
        self.alone(py, || {
            let callback = self.callback.get();
            // SAFETY: the slot owns this reference, and nobody empties it meanwhile.
            (!callback.is_null()).then(|| unsafe { Owned::from_borrowed(callback) })
        })
    }

    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether a call of the callback is under way, which needs what the handle holds.
    #[inline]
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) != 0
    }

    #[inline]
    pub(super) fn kind(&self) -> Kind {
        self.kind.get()
    }

    pub(super) fn set_kind(&self, kind: Kind) {
        self.kind.set(kind);
    }

    /// The handle as a timer's, if it is one.
    #[inline]
    pub(super) fn timer(&self) -> Option<&TimerObject> {
        let memory = ptr::with_exposed_provenance::<TimerObject>((&raw const *self).addr());
        // SAFETY: memory of this kind was allocated by CPython as a `TimerObject`, which
        // begins with this handle.
        (self.kind() == Kind::Timer).then(|| unsafe { &*memory })
    }

    pub(crate) fn set_source_traceback(&self, py: Python<'_>, traceback: Owned) {
        let old = self.source_traceback.replace(self.take(py, traceback));
        // SAFETY: the slot owned this reference.
        unsafe { give_up(self.kind(), old) };
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

    /// Whether nobody but the caller can reach the handle: there is no other reference,
    /// no weak reference, and the collector does not know it.
    #[inline]
    pub(super) fn is_out_of_reach(&self) -> bool {
        // SAFETY: a live handle.
        !self.is_shared() && !self.tracked.get() && unsafe { *weakrefs(self) }.is_null()
    }

    /// A reference that another thread will drop.
    pub(super) fn shared_ref(&self, _py: Python<'_>) -> HandleRef {
        let this = (&raw const *self).cast_mut().cast();
        // SAFETY: alive during its own method; the reference is the one just counted.
        HandleRef(unsafe {
            shared_count::add(this);
            Owned::from_raw(this)
        })
    }

    /// Runs `body` in the object's critical section: no other thread uses the slots.
    #[inline]
    pub(super) fn alone<R>(&self, py: Python<'_>, body: impl FnOnce() -> R) -> R {
        let this = (&raw const *self).cast_mut().cast();
        // SAFETY: alive during its own method.
        let this: Borrowed<'_, '_, PyAny> = unsafe { Borrowed::from_ptr(py, this) };
        with_critical_section(&this, body)
    }

    /// The loop that it was scheduled on.
    #[inline]
    pub(super) fn event_loop(&self, py: Python<'_>) -> &EventLoop {
        // SAFETY: a handle keeps its loop alive, an instance of `EventLoop`.
        unsafe { EventLoop::borrow(py, Live::new(self.event_loop.get())) }
    }

    pub(super) fn visit(&self, visitor: &mut Visitor) {
        let slots = [&self.args, &self.callback, &self.context, &self.event_loop, &self.repr];
        for slot in slots.into_iter().chain([&self.source_traceback]) {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(slot.get()) };
        }
        for slot in self.inline.iter().take(usize::from(self.inline_count.get())) {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(slot.get()) };
        }
        if let Some(timer) = self.timer() {
            timer.visit(visitor);
        }
    }

    /// Drops every reference but the loop's; the handle is dead or about to be.
    fn clear_all(&self) {
        let count = self.inline_count.replace(0);
        for slot in self.inline.iter().take(usize::from(count)) {
            // SAFETY: the slot owned this reference.
            unsafe { give_up(self.kind(), slot.replace(ptr::null_mut())) };
        }
        for slot in [&self.args, &self.callback, &self.context, &self.repr, &self.source_traceback]
        {
            // SAFETY: the slot owned this reference, if any.
            unsafe { give_up(self.kind(), slot.replace(ptr::null_mut())) };
        }
    }

    /// Gives up the reference to the loop.
    pub(super) fn forget_loop(&self) {
        let event_loop = self.event_loop.replace(ptr::null_mut());
        // SAFETY: the slot owned this reference, if any.
        unsafe { give_up(self.kind(), event_loop) };
    }

    /// Deallocates a handle. Its memory goes to a list of its loop for reuse, if this
    /// thread may use that list.
    ///
    /// # Safety
    /// Called once by `tp_dealloc`: no reference is left and the memory is whole.
    // HOT: call_soon
    pub(super) unsafe fn end(this: *mut Self) {
        // SAFETY: the memory is whole by the caller's promise.
        let handle = unsafe { &*this };
        if handle.tracked.replace(false) {
            // SAFETY: known to the collector, as the flag says.
            unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        }
        // SAFETY: a dead object whose class has weak references.
        unsafe { clear_weakrefs(this) };
        handle.clear_all();
        handle.cancelled.store(false, Ordering::Relaxed);
        // Nobody is calling it, even if concurrent calls have miscounted.
        handle.running.store(0, Ordering::Relaxed);
        if let Some(timer) = handle.timer() {
            timer.forget();
        }
        let event_loop = handle.event_loop.get();
        // SAFETY: nothing refers to it, and it refers to its class and loop only.
        let dead = unsafe { DeadHandle::new(this) };
        if event_loop.is_null() {
            return drop(dead);
        }
        // SAFETY: deallocation runs attached.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: the slot's reference outlasts every use, and once the handle is on a list,
        // which other threads empty, `alive` below or the loop's own run does.
        let event_loop = unsafe { Live::new(event_loop) };
        // SAFETY: a handle's loop is an instance of `EventLoop`.
        let target = unsafe { EventLoop::borrow(py, event_loop) };
        let is_mine = target.cell.is_mine();
        let kind = handle.kind();
        if kind == Kind::Threadsafe {
            // A thread inside the loop keeps the loop alive; for any other thread only this
            // handle does.
            let alive = (!is_mine).then(|| event_loop.clone_ref(py));
            // From here on another thread may reuse the memory.
            target.shared_handles.put(py, event_loop, dead);
            if !is_mine {
                // Another thread may be closing the loop. Either it drains this handle, or
                // this thread sees below that the loop is closed.
                fence(Ordering::SeqCst);
            }
            if target.closed() {
                // A handle on the list would keep the loop alive until the collector runs.
                drop(target.shared_handles.drain(py));
            }
            drop(alive);
            return;
        }
        handle.event_loop.set(ptr::null_mut());
        // SAFETY: the slot owned this reference.
        let event_loop = unsafe { Owned::from_raw(event_loop.as_ptr()) };
        let mut dead = Some(dead);
        if is_mine {
            if let Ok(inside) = target.cell.enter(py) {
                dead = dead.and_then(|dead| inside.with(|state| state.handles.put(kind, dead)));
            }
        }
        drop((dead, event_loop));
    }
}

/// Whether such a handle's references use the count that all threads share
/// (`shared_count`).
#[inline]
fn counts_apart(kind: Kind) -> bool {
    cfg!(Py_GIL_DISABLED) && kind == Kind::Threadsafe
}

/// Gives up what a slot of such a handle owned, if anything.
///
/// # Safety
/// The slot owned a reference to the object, and is empty.
#[inline]
pub(super) unsafe fn give_up(kind: Kind, object: *mut ffi::PyObject) {
    if object.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if counts_apart(kind) {
            shared_count::subtract(object);
        } else {
            ffi::Py_DECREF(object);
        }
    }
}

/// Ends the weak references to a dead handle.
///
/// # Safety
/// The object is dead, and its memory whole.
#[inline]
unsafe fn clear_weakrefs(this: *mut HandleObject) {
    // SAFETY: the caller's promise.
    if !unsafe { *weakrefs(this) }.is_null() {
        // SAFETY: the list belongs to this object.
        unsafe { ffi::PyObject_ClearWeakRefs(this.cast()) };
    }
}

/// Where the list of weak references to a handle is.
///
/// # Safety
/// The memory of a handle, alive or dead.
#[inline]
unsafe fn weakrefs(this: *const HandleObject) -> *const *mut ffi::PyObject {
    // SAFETY: dead objects keep their class.
    let class = unsafe { ffi::Py_TYPE(this.cast_mut().cast()) };
    // SAFETY: a class is alive as long as its instances.
    let offset = unsafe { (*class).tp_weaklistoffset };
    let memory = ptr::with_exposed_provenance::<u8>(this.addr());
    // SAFETY: asyncio.Handle has weak references, so the offset leads to the list,
    // which may lie before the object.
    unsafe { memory.offset(offset) }.cast()
}
