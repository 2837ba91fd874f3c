//! Memory that only the thread that runs the loop may open.
//!
//! There is no lock and no atomic read-modify-write on an I/O path: a running
//! loop is owned by its thread, and every entry compares one word. While the
//! loop does not run, a thread claims it for the length of one call, so that
//! the same rule holds with the GIL off.
//!
//! # What other threads may do
//!
//! Everything outside of the cell is atomic and open to all: `stop`,
//! `is_running`, `is_closed`, `get_debug`, the inbox, the waker. A call that needs
//! the cell while another thread runs the loop is refused; it then either goes
//! through the inbox (`call_soon` and the other scheduling methods,
//! `Handle.cancel`) or raises RuntimeError with the method's name.
//! `docs/free-threading.md` lists both.
//!
//! # Why the collector may read the state
//!
//! With the GIL, the collector runs in a thread that holds it, and no body of
//! `with` gives the GIL up. Without it, the collector first stops the world: each
//! thread detaches or stops at a safe point of the evaluator, and bodies have
//! none, because they do not call into Python. The poll, which may block, runs
//! detached and touches nothing that the collector reads.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use tokioloop_reactor::sys::thread_id;

use crate::py::detached::detached;

/// No thread is inside.
const NOBODY: usize = 0;
/// A forked child owns nothing of its parent's loops.
const FOREIGN: usize = usize::MAX;

/// The loop's state, its owner, and who runs it.
#[repr(C)]
pub(crate) struct LoopCell<S> {
    /// The thread inside, [`NOBODY`] or [`FOREIGN`].
    owner: AtomicUsize,
    /// The thread inside `run_forever`, or [`NOBODY`].
    runner: AtomicUsize,
    _apart: Apart,
    state: UnsafeCell<S>,
    #[cfg(debug_assertions)]
    open: std::cell::Cell<bool>,
    _apart_from_what_follows: Apart,
}

/// Keeps what the loop's thread writes off the cache lines that others read.
struct Apart(#[allow(dead_code)] [u8; 64]);

// SAFETY: the state is opened through an `OnLoop`, which one thread at a time can have
// and cannot pass on, or through `peek` and `with_remains`, whose callers promise that
// no thread is inside.
unsafe impl<S: Send> Sync for LoopCell<S> {}

/// Why a thread may not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The loop runs in another thread.
    OtherThread,
    /// The loop was made before a fork, and this is the child.
    Forked,
}

impl<S> LoopCell<S> {
    pub(crate) fn new(state: S) -> Self {
        Self {
            owner: AtomicUsize::new(NOBODY),
            runner: AtomicUsize::new(NOBODY),
            _apart: Apart([0; 64]),
            state: UnsafeCell::new(state),
            #[cfg(debug_assertions)]
            open: std::cell::Cell::new(false),
            _apart_from_what_follows: Apart([0; 64]),
        }
    }

    /// Whether the calling thread is inside already.
    // HOT: proto, call_soon
    #[inline]
    pub(crate) fn is_mine(&self) -> bool {
        // Only this thread ever writes its own id, so a relaxed read suffices.
        self.owner.load(Ordering::Relaxed) == thread_id()
    }

    /// Enters for one call.
    // HOT: proto, call_soon
    #[inline]
    pub(crate) fn enter(&self, py: Python<'_>) -> Result<OnLoop<'_, S>, Refused> {
        if self.is_mine() {
            return Ok(OnLoop { cell: self, claimed: false, _here: PhantomData });
        }
        self.claim(py)
    }

    /// Enters for one call, or is refused at once if another thread is inside: for
    /// calls that can go through the inbox instead.
    // HOT: call_soon
    #[inline]
    pub(crate) fn try_enter(&self) -> Result<OnLoop<'_, S>, Refused> {
        if self.is_mine() {
            return Ok(OnLoop { cell: self, claimed: false, _here: PhantomData });
        }
        self.try_claim()
    }

    #[cold]
    fn try_claim(&self) -> Result<OnLoop<'_, S>, Refused> {
        // Load first: even a failed exchange takes the cache line from the thread
        // inside, which reads it for every call.
        let found = match self.owner.load(Ordering::Relaxed) {
            NOBODY => self.owner.compare_exchange(
                NOBODY,
                thread_id(),
                Ordering::Acquire,
                Ordering::Relaxed,
            ),
            taken => Err(taken),
        };
        match found {
            Ok(_) => Ok(OnLoop { cell: self, claimed: true, _here: PhantomData }),
            Err(FOREIGN) => Err(Refused::Forked),
            Err(_) => Err(Refused::OtherThread),
        }
    }

    #[cold]
    fn claim(&self, py: Python<'_>) -> Result<OnLoop<'_, S>, Refused> {
        loop {
            match self.try_claim() {
                // Another thread is inside for one call: let it finish, and detach
                // meanwhile, because it may be waiting for the interpreter.
                Err(Refused::OtherThread) if !self.is_running() => {
                    detached(py, std::thread::yield_now);
                }
                entered_or_refused => return entered_or_refused,
            }
        }
    }

    /// Enters for a run.
    pub(crate) fn run(&self, py: Python<'_>) -> Result<Running<'_, S>, Refused> {
        let inside = self.enter(py)?;
        let outer = self.runner.swap(thread_id(), Ordering::Relaxed);
        Ok(Running { inside, outer })
    }

    /// Whether some thread is inside a run.
    pub(crate) fn is_running(&self) -> bool {
        self.runner.load(Ordering::Relaxed) != NOBODY
    }

    /// Whether the loop belongs to the parent of this forked child.
    pub(crate) fn is_disowned(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == FOREIGN
    }

    /// In a forked child: nobody may enter any more.
    pub(crate) fn disown(&self) {
        self.runner.store(NOBODY, Ordering::Relaxed);
        self.owner.store(FOREIGN, Ordering::Relaxed);
    }

    /// Opens a disowned state in a forked child. A thread of the parent may have been
    /// changing it at the time of the fork, so only what changes in a single step is
    /// sure to be consistent.
    ///
    /// # Safety
    /// Called in a forked child by its only thread, outside of `with`.
    #[cfg(not(target_os = "linux"))]
    pub(crate) unsafe fn with_remains<R>(&self, body: impl FnOnce(&mut S) -> R) -> R {
        // SAFETY: the caller's promise; nobody may enter any more.
        body(unsafe { &mut *self.state.get() })
    }

    /// The state as the garbage collector sees it.
    ///
    /// # Safety
    /// Called from `tp_traverse` only: nothing is changed, and the owner, if
    /// there is one, is stopped or is the calling thread outside of `with`.
    pub(crate) unsafe fn peek(&self) -> &S {
        // SAFETY: the caller's promise.
        unsafe { &*self.state.get() }
    }
}

/// Proof that the calling thread is inside.
pub(crate) struct OnLoop<'a, S> {
    cell: &'a LoopCell<S>,
    claimed: bool,
    /// It proves something of one thread, so it stays there.
    _here: PhantomData<*mut ()>,
}

impl<S> OnLoop<'_, S> {
    /// Opens the state. The body must not call into Python, and must not drop
    /// what may run Python code: it takes such things out and returns them.
    // HOT: proto, call_soon
    #[inline]
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut S) -> R) -> R {
        #[cfg(debug_assertions)]
        let _open = Open::new(&self.cell.open);
        // SAFETY: `self` proves that no other thread is inside. Bodies call nothing that
        // could open the cell again; debug builds check that.
        body(unsafe { &mut *self.cell.state.get() })
    }
}

impl<S> Drop for OnLoop<'_, S> {
    #[inline]
    fn drop(&mut self) {
        if self.claimed {
            self.cell.leave();
        }
    }
}

impl<S> LoopCell<S> {
    /// Gives the cell up, unless a fork has taken it away meanwhile.
    #[cold]
    fn leave(&self) {
        let _ =
            self.owner.compare_exchange(thread_id(), NOBODY, Ordering::Release, Ordering::Relaxed);
    }
}

/// A run: the cell stays with this thread until it is dropped.
pub(crate) struct Running<'a, S> {
    inside: OnLoop<'a, S>,
    /// The runner before: this thread if runs nest, else nobody.
    outer: usize,
}

impl<'a, S> std::ops::Deref for Running<'a, S> {
    type Target = OnLoop<'a, S>;

    fn deref(&self) -> &Self::Target {
        &self.inside
    }
}

impl<S> Running<'_, S> {
    /// Whether it is within another run.
    pub(crate) fn is_nested(&self) -> bool {
        self.outer != NOBODY
    }
}

impl<S> Drop for Running<'_, S> {
    fn drop(&mut self) {
        self.inside.cell.runner.store(self.outer, Ordering::Relaxed);
    }
}

/// Finds nested bodies in builds with debug assertions.
#[cfg(debug_assertions)]
struct Open<'a>(&'a std::cell::Cell<bool>);

#[cfg(debug_assertions)]
impl<'a> Open<'a> {
    fn new(open: &'a std::cell::Cell<bool>) -> Self {
        assert!(!open.replace(true), "the loop's state was opened twice");
        Self(open)
    }
}

#[cfg(debug_assertions)]
impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
