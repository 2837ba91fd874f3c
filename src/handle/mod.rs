//! Handles: callbacks that wait to be run.
//!
//! Their classes extend asyncio's own classes: the memory begins with the slots of
//! those classes, filled as asyncio fills them wherever other code may look, and
//! up to two arguments follow inline. A handle belongs to its loop's thread, but
//! any thread may cancel or inspect it. The slots of a handle that others may see
//! are emptied only by the thread inside the loop, under the object's lock where
//! there is no GIL.
//!
//! The collector is not told of a handle while a running loop holds it: the loop
//! is alive then, and so is all that the handle refers to. It is told when the run
//! ends, or when somebody keeps a handle past its call.
#![allow(unsafe_code)]

mod cancel;
mod class;
mod free_list;
mod object;
mod shared_list;
mod timer;

use std::sync::atomic::{Ordering, fence};

use pyo3::prelude::*;

pub(crate) use self::cancel::Released;
pub(crate) use self::class::make_classes;
pub(crate) use self::free_list::{Handles, Memory};
pub(crate) use self::object::HandleObject;
pub(crate) use self::shared_list::SharedHandles;
use self::timer::TimerObject;
use crate::imports::Imports;
use crate::py::native;
use crate::py::{Live, Owned, context};
use crate::threadsafe_cancel;

/// What a new handle is made of.
pub(crate) struct Callback<'a> {
    pub(crate) callable: Live<'a>,
    pub(crate) args: &'a [Live<'a>],
    /// None stands for an empty context, which is made when it is needed.
    pub(crate) context: Option<Owned>,
}

/// What a handle is for. Its memory is only reused for the same kind.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Zero, as in fresh memory.
    Plain = 0,
    Timer,
    /// Of `call_soon_threadsafe`; has a class of its own in CPython 3.14 and later.
    Threadsafe,
}

/// A strong reference to a handle of ours.
#[repr(transparent)]
pub(crate) struct HandleRef(Owned);

impl HandleRef {
    /// Makes a handle that the collector does not know yet.
    // HOT: call_soon
    #[inline(always)]
    pub(crate) fn new(
        py: Python<'_>,
        memory: Memory,
        event_loop: Live<'_>,
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
        // SAFETY: each class is made for this memory; all zero is a valid value.
        let object = unsafe {
            match kind {
                Kind::Plain => native::new_untracked::<HandleObject>(imports.handle.bind(py)),
                Kind::Threadsafe => {
                    native::new_untracked::<HandleObject>(imports.threadsafe_handle.bind(py))
                }
                Kind::Timer => native::new_untracked::<TimerObject>(imports.timer_handle.bind(py)),
            }?
        };
        let handle: *mut HandleObject = object.into_raw().cast();
        // SAFETY: just made, and seen by nobody.
        unsafe { (*handle).set_kind(kind) };
        Ok(handle)
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

    /// A reference that another thread will drop (`shared_count`).
    #[inline]
    pub(crate) fn share(&self, py: Python<'_>) -> Self {
        self.get().shared_ref(py)
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
        if handle.kind() == Kind::Threadsafe {
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
        let calls = handle.running.load(Ordering::Relaxed);
        handle.running.store(calls.wrapping_add(1), Ordering::Relaxed);
        // SAFETY: the slot owns its reference as long as the handle lives. It is empty only in
        // handles of `call_soon_threadsafe`, which `run` has sent elsewhere.
        let context = unsafe { Live::new(handle.context.get()) };
        let result = context::run(py, context, || handle.call(py));
        let calls = handle.running.load(Ordering::Relaxed);
        handle.running.store(calls.wrapping_sub(1), Ordering::Relaxed);
        if handle.is_cancelled() {
            self.release_after_call(py);
        }
        match result {
            Ok(result) => result.map(drop),
            Err(error) => Err(error),
        }
    }

    /// Drops what the handle holds, which was cancelled during its call, maybe by its
    /// own callback; not while another call of it is under way.
    #[cold]
    fn release_after_call(&self, py: Python<'_>) {
        if !self.get().is_running() {
            self.get().release(py);
        }
    }

    /// As `run`, but `cancel` in other threads can wait for the callback's end.
    fn run_threadsafe(&self, py: Python<'_>) -> PyResult<()> {
        let handle = self.get();
        if handle.is_out_of_reach() {
            // A thread that has cancelled it has sent a message, which implies a fence,
            // before it dropped its reference. This fence pairs with that one.
            fence(Ordering::Acquire);
            if handle.is_cancelled() {
                return Ok(());
            }
            return self.run_in_own_context(py, true);
        }
        if !threadsafe_cancel::begin(&handle.running, &handle.cancelled) {
            self.release_after_call(py);
            return Ok(());
        }
        let result = self.run_in_own_context(py, false);
        threadsafe_cancel::end(&handle.running);
        if handle.is_cancelled() {
            self.release_after_call(py);
        }
        result
    }

    #[inline]
    fn run_in_own_context(&self, py: Python<'_>, out_of_reach: bool) -> PyResult<()> {
        let handle = self.get();
        let made = handle.context.get().is_null();
        let context = if out_of_reach { handle.fill_context(py) } else { handle.own_context(py) };
        let result = match context {
            Ok(context) => context::run(py, context.live(), || handle.call(py)),
            Err(error) => Err(error),
        };
        if made {
            handle.give_context_back(py);
        }
        match result {
            Ok(result) => result.map(drop),
            Err(error) => Err(error),
        }
    }
}
