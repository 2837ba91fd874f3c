//! Classes whose members native code may bypass as long as nobody changes them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::Live;

/// A class and those of its members that native code bypasses.
pub(crate) struct Guarded {
    class: Py<PyType>,
    members: Vec<(&'static str, Py<PyAny>)>,
    /// Whether the members were the original ones when they were noted.
    genuine: bool,
    /// The last version of the class that was found unmodified; CPython gives
    /// a class a new version whenever it, or a base, is changed.
    version: AtomicU32,
}

impl Guarded {
    /// Notes the members of a class; `is_genuine` says whether a member is the
    /// original one.
    ///
    /// # Errors
    /// AttributeError where the class lacks one.
    pub(crate) fn new(
        class: &Bound<'_, PyType>,
        names: &[&'static str],
        is_genuine: fn(&Bound<'_, PyAny>) -> bool,
    ) -> PyResult<Self> {
        let mut members = Vec::with_capacity(names.len());
        let mut genuine = true;
        for &name in names {
            let member = class.getattr(name)?;
            genuine &= is_genuine(&member);
            members.push((name, member.unbind()));
        }
        Ok(Self { class: class.clone().unbind(), members, genuine, version: AtomicU32::new(0) })
    }

    /// The class.
    pub(crate) fn class<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, PyType> {
        self.class.bind(py)
    }

    /// Whether `object` is a direct instance of the class.
    #[inline]
    pub(crate) fn is_exact(&self, object: Live<'_>) -> bool {
        object.is_exactly(&self.class)
    }

    /// The names that an instance attribute could hide.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.members.iter().map(|(name, _)| *name)
    }

    /// Whether the class still has the original members.
    #[inline]
    pub(crate) fn is_unmodified(&self, py: Python<'_>) -> bool {
        let version = self.current_version();
        (version != 0 && version == self.version.load(Ordering::Relaxed)) || self.compare(py)
    }

    /// The class has changed since the last check: whether our members are the same.
    #[cold]
    fn compare(&self, py: Python<'_>) -> bool {
        if !self.genuine {
            return false;
        }
        let class = self.class.bind(py);
        // An attribute look-up gives a changed class its new version; any change
        // after that gives it yet another one.
        let find = |name: &str| class.getattr(name);
        if self.members.first().is_none_or(|(name, _)| find(name).is_err()) {
            return false;
        }
        let version = self.current_version();
        let same = self
            .members
            .iter()
            .all(|(name, member)| find(name).is_ok_and(|found| found.is(member.bind(py))));
        if same {
            self.version.store(version, Ordering::Relaxed);
        }
        same
    }

    #[inline]
    fn current_version(&self) -> u32 {
        let class = self.class.as_ptr().cast::<ffi::PyTypeObject>();
        // SAFETY: the class is alive; another thread may write the version, so
        // it is read as one word.
        unsafe { (&raw const (*class).tp_version_tag).cast::<AtomicU32>().as_ref() }
            .map_or(0, |version| version.load(Ordering::Relaxed))
    }
}

/// Whether a member is native: a slot or a method of an extension.
pub(crate) fn is_native(member: &Bound<'_, PyAny>) -> bool {
    member.hasattr("__objclass__").unwrap_or(false)
}

/// Whether a member comes from this module or is native, and so is no patch that was made
/// before tokioloop was imported.
pub(crate) fn is_defined_in(member: &Bound<'_, PyAny>, module: &str) -> bool {
    let function = member.getattr("fget").unwrap_or_else(|_| member.clone());
    match function.getattr("__module__").and_then(|name| name.extract::<String>()) {
        Ok(name) => name == module,
        // Slots, and methods written in C, have no module.
        Err(_) => is_native(&function),
    }
}
