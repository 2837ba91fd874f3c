//! Classes that extend one of asyncio's classes with a Rust value.
//!
//! PyO3 cannot derive from a class written in Python, and its methods collect
//! arguments into a tuple if there are keywords. So handles and transports are
//! heap types of our own: the memory starts with the base class's slots, a Rust
//! value follows, and each method is a fastcall function. A panic in a method
//! becomes `SystemError`.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::{PyImportError, PySystemError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

#[cfg(not(any(Py_3_14, Py_GIL_DISABLED)))]
use crate::py::trashcan;
use crate::py::{Args, Owned};

/// The body of a native method.
pub(crate) type Method<T> = for<'a, 'py> fn(Python<'py>, &'a T, Args<'a, 'py>) -> PyResult<Owned>;

/// The body of a read-only attribute.
pub(crate) type Getter<T> = for<'a, 'py> fn(Python<'py>, &'a T) -> PyResult<Owned>;

/// Runs a method body for CPython.
///
/// # Safety
/// `this` points to a live object whose memory is a `T`, and the arguments are
/// those of a fastcall method.
// HOT: proto
#[inline]
pub(crate) unsafe fn enter_method<T>(
    this: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    body: Method<T>,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the descriptor has checked the type of the receiver.
    let this = unsafe { &*this.cast::<T>() };
    // SAFETY: passed on from CPython.
    let args = unsafe { Args::new(py, values, count, names) };
    answer(py, || body(py, this, args))
}

/// Runs an attribute's body for CPython.
///
/// # Safety
/// As for [`enter_method`].
#[inline]
pub(crate) unsafe fn enter_getter<T>(
    this: *mut ffi::PyObject,
    body: Getter<T>,
) -> *mut ffi::PyObject {
    // SAFETY: CPython reads attributes on attached threads.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the descriptor has checked the type of the receiver.
    let this = unsafe { &*this.cast::<T>() };
    answer(py, || body(py, this))
}

/// Turns a result, or a panic, into what a C caller expects.
// HOT: proto
// Not inlined it is a second call for each method, some 15 instructions.
#[inline(always)]
pub(crate) fn answer(py: Python<'_>, body: impl FnOnce() -> PyResult<Owned>) -> *mut ffi::PyObject {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value.into_raw(),
        Ok(Err(error)) => {
            error.restore(py);
            ptr::null_mut()
        }
        Err(payload) => {
            raise_panic(py, payload.as_ref());
            ptr::null_mut()
        }
    }
}

#[cold]
fn raise_panic(py: Python<'_>, payload: &(dyn Any + Send)) {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    PySystemError::new_err(format!("tokioloop panicked: {text}")).restore(py);
}

/// A fastcall method of a native class.
macro_rules! method {
    ($type:ty, $name:literal, $body:path, $doc:literal) => {{
        #[allow(unsafe_code)]
        unsafe extern "C" fn raw(
            this: *mut pyo3::ffi::PyObject,
            values: *const *mut pyo3::ffi::PyObject,
            count: pyo3::ffi::Py_ssize_t,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: called by CPython for a method of this class.
            unsafe { $crate::py::native::enter_method::<$type>(this, values, count, names, $body) }
        }
        pyo3::ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: raw },
            ml_flags: pyo3::ffi::METH_FASTCALL | pyo3::ffi::METH_KEYWORDS,
            ml_doc: $doc.as_ptr(),
        }
    }};
}
pub(crate) use method;

/// A read-only attribute of a native class.
macro_rules! getter {
    ($type:ty, $name:literal, $body:path) => {{
        #[allow(unsafe_code)]
        unsafe extern "C" fn raw(
            this: *mut pyo3::ffi::PyObject,
            _closure: *mut std::ffi::c_void,
        ) -> *mut pyo3::ffi::PyObject {
            // SAFETY: called by CPython for an attribute of this class.
            unsafe { $crate::py::native::enter_getter::<$type>(this, $body) }
        }
        pyo3::ffi::PyGetSetDef {
            name: $name.as_ptr(),
            get: Some(raw),
            set: None,
            doc: std::ptr::null(),
            closure: std::ptr::null_mut(),
        }
    }};
}
pub(crate) use getter;

/// Shows the references of a value to the garbage collector.
pub(crate) struct Visitor {
    visit: ffi::visitproc,
    argument: *mut c_void,
    result: c_int,
}

impl Visitor {
    /// Shows one reference.
    #[inline]
    pub(crate) fn object(&mut self, object: &Owned) {
        // SAFETY: the reference keeps the object alive.
        unsafe { self.pointer(object.as_ptr()) };
    }

    /// Shows a reference that may be absent.
    #[inline]
    pub(crate) fn maybe(&mut self, object: &Option<Owned>) {
        if let Some(object) = object {
            self.object(object);
        }
    }

    /// Shows an object by pointer, unless it is null.
    ///
    /// # Safety
    /// The object is alive.
    #[inline]
    pub(crate) unsafe fn pointer(&mut self, object: *mut ffi::PyObject) {
        if self.result == 0 && !object.is_null() {
            // SAFETY: alive by the caller's promise.
            self.result = unsafe { (self.visit)(object, self.argument) };
        }
    }
}

/// What a native class is made of.
///
/// # Safety
/// `Self` is `repr(C)`, begins with the memory of an instance of the base class
/// (checked against [`NativeClass::BASE_SIZE`] when the class is made), and is
/// valid when all its bytes after the object header are zero.
pub(crate) unsafe trait NativeClass: Sized {
    /// Dotted name.
    const NAME: &'static CStr;
    /// Size of the base class's part of the memory.
    const BASE_SIZE: usize;
    /// Offset of the weak reference list, if the base has none.
    const WEAKLIST: Option<usize>;
    /// Offset of the attribute dictionary, if the base has none.
    const DICT: Option<usize>;
    /// Whether Python code may derive from it.
    const SUBCLASSABLE: bool;
    /// Offset of the vectorcall function, if instances can be called.
    const VECTORCALL: Option<usize> = None;
    /// Additional type flags.
    const FLAGS: c_ulong = 0;

    /// Additional type slots, such as those of an awaitable.
    fn slots() -> Vec<ffi::PyType_Slot> {
        Vec::new()
    }
    /// Attributes that are read directly from the memory.
    fn members() -> Vec<ffi::PyMemberDef> {
        Vec::new()
    }
    /// Shows every reference to the garbage collector.
    fn traverse(&self, visitor: &mut Visitor);
    /// Drops every reference that can be part of a cycle.
    fn clear(&self);
    /// Ends the object: drops everything and gives the memory back.
    ///
    /// # Safety
    /// Called once by CPython, with no reference left.
    unsafe fn dealloc(this: *mut Self);
}

/// Makes the class.
///
/// # Errors
/// ImportError where the base class of this interpreter has another layout.
pub(crate) fn make_class<'py, T: NativeClass>(
    base: &Bound<'py, PyType>,
    methods: Vec<ffi::PyMethodDef>,
    getters: Vec<ffi::PyGetSetDef>,
    doc: &'static CStr,
) -> PyResult<Bound<'py, PyType>> {
    let py = base.py();
    // SAFETY: a type object is alive and has this field.
    let base_size = unsafe { (*base.as_type_ptr()).tp_basicsize } as usize;
    if base_size != T::BASE_SIZE {
        return Err(PyImportError::new_err(format!(
            "tokioloop was built for a {} of {} bytes, this interpreter's has {base_size}",
            base.name()?,
            T::BASE_SIZE,
        )));
    }
    let members: Vec<_> = [
        (c"__weaklistoffset__", T::WEAKLIST),
        (c"__dictoffset__", T::DICT),
        (c"__vectorcalloffset__", T::VECTORCALL),
    ]
    .into_iter()
    .filter_map(|(name, offset)| offset.map(|offset| offset_member(name, offset)))
    .chain(T::members())
    .chain([END_OF_MEMBERS])
    .collect();
    let methods = methods.into_iter().chain([ffi::PyMethodDef::zeroed()]).collect::<Vec<_>>();
    let getters = getters.into_iter().chain([ffi::PyGetSetDef::default()]).collect::<Vec<_>>();
    // The type keeps pointers to these tables and lives as long as the process.
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = T::slots();
    slots.extend([
        slot(ffi::Py_tp_dealloc, dealloc::<T> as ffi::destructor as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<T> as ffi::traverseproc as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<T> as ffi::inquiry as *mut c_void),
        slot(ffi::Py_tp_methods, methods.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getters.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast()),
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(0, ptr::null_mut()),
    ]);
    let extra = if T::SUBCLASSABLE {
        ffi::Py_TPFLAGS_BASETYPE
    } else {
        ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
    };
    let mut spec = ffi::PyType_Spec {
        name: T::NAME.as_ptr(),
        basicsize: size_of::<T>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | extra | T::FLAGS) as _,
        slots: slots.as_mut_ptr(),
    };
    let bases = PyTuple::new(py, [base])?;
    // SAFETY: the specification is complete and its tables are leaked.
    let class = unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&mut spec, bases.as_ptr()))
    }?;
    Ok(class.cast_into::<PyType>()?)
}

const END_OF_MEMBERS: ffi::PyMemberDef =
    ffi::PyMemberDef { name: ptr::null(), type_code: 0, offset: 0, flags: 0, doc: ptr::null() };

fn offset_member(name: &'static CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

unsafe extern "C" fn traverse<T: NativeClass>(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let mut visitor = Visitor { visit, argument, result: 0 };
    // SAFETY: the collector calls this for live instances, which keep their class alive.
    unsafe { visitor.pointer(ffi::Py_TYPE(this).cast()) };
    // SAFETY: as above.
    unsafe { &*this.cast::<T>() }.traverse(&mut visitor);
    visitor.result
}

unsafe extern "C" fn clear<T: NativeClass>(this: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector calls this for live instances.
    unsafe { &*this.cast::<T>() }.clear();
    0
}

unsafe extern "C" fn dealloc<T: NativeClass>(this: *mut ffi::PyObject) {
    #[cfg(any(Py_3_14, Py_GIL_DISABLED))]
    // SAFETY: CPython calls this once, when the last reference has gone.
    unsafe {
        end::<T>(this);
    }
    #[cfg(not(any(Py_3_14, Py_GIL_DISABLED)))]
    // SAFETY: as above; every class of ours takes part in garbage collection.
    unsafe {
        trashcan::end(this, end::<T>);
    }
}

/// # Safety
/// As for [`NativeClass::dealloc`].
#[inline]
unsafe fn end<T: NativeClass>(this: *mut ffi::PyObject) {
    // SAFETY: the caller's promise.
    unsafe { T::dealloc(this.cast()) }
}

/// Makes an instance with every byte after the header zero; the collector
/// knows it from now on.
///
/// # Safety
/// `class` has CPython's generic allocator, as those made by [`make_class`] and by
/// `type` do, and zero is valid for what its instances hold.
#[inline]
pub(crate) unsafe fn new_instance(class: &Bound<'_, PyType>) -> PyResult<Owned> {
    // SAFETY: this allocator serves every class; a new reference or null.
    unsafe { Owned::from_result(class.py(), ffi::PyType_GenericAlloc(class.as_type_ptr(), 0)) }
}

/// Makes an instance as [`new_instance`] does, but one that the collector does
/// not know yet.
///
/// # Safety
/// As for [`new_instance`]; the class is one of `T`.
pub(crate) unsafe fn new_untracked<T>(class: &Bound<'_, PyType>) -> PyResult<Owned> {
    let py = class.py();
    // SAFETY: the class takes part in garbage collection; a new reference or null.
    let object = unsafe { Owned::from_result(py, ffi::PyObject_GC_New(class.as_type_ptr()))? };
    let rest = size_of::<T>() - size_of::<ffi::PyObject>();
    // SAFETY: the memory of a `T` after its header, which nobody else has seen.
    unsafe { object.as_ptr().add(1).cast::<u8>().write_bytes(0, rest) };
    Ok(object)
}

/// The memory of one dead instance, kept for the next of its class. For objects so
/// short-lived that the allocator is most of their cost.
pub(crate) struct Reserve(AtomicPtr<ffi::PyObject>);

impl Reserve {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Makes an instance, which the collector knows from now on. After the
    /// header its memory is zero, or as the last instance has left it.
    ///
    /// # Safety
    /// As for [`new_instance`]; all instances of the class come from here and
    /// are freed here.
    #[inline]
    pub(crate) unsafe fn new_instance(&self, class: &Bound<'_, PyType>) -> PyResult<Owned> {
        let kept = self.exchange(ptr::null_mut());
        if kept.is_null() {
            // SAFETY: the caller's promise.
            return unsafe { new_instance(class) };
        }
        // SAFETY: memory of an instance that nobody refers to; the call makes
        // the first reference to it and one to the class.
        unsafe {
            ffi::PyObject_Init(kept, class.as_type_ptr());
            ffi::PyObject_GC_Track(kept.cast());
            Ok(Owned::from_raw(kept))
        }
    }

    /// Gives an instance back.
    ///
    /// # Safety
    /// As for [`free`].
    #[inline]
    pub(crate) unsafe fn free(&self, this: *mut ffi::PyObject) {
        if cfg!(Py_GIL_DISABLED) || !self.0.load(Ordering::Relaxed).is_null() {
            // SAFETY: the caller's promise.
            return unsafe { free(this) };
        }
        // SAFETY: a dead object keeps its type.
        let class = unsafe { ffi::Py_TYPE(this) };
        self.exchange(this);
        // SAFETY: each instance of a heap type holds one reference to it.
        unsafe { ffi::Py_DECREF(class.cast()) };
    }

    /// Swaps the kept memory. The GIL protects it; without the GIL nothing is kept.
    #[inline]
    fn exchange(&self, new: *mut ffi::PyObject) -> *mut ffi::PyObject {
        let old = self.0.load(Ordering::Relaxed);
        if old != new {
            self.0.store(new, Ordering::Relaxed);
        }
        old
    }
}

/// Gives the memory of an instance and its reference to the class back.
///
/// # Safety
/// The object has no reference left, is unknown to the collector, and its
/// value has been dropped.
pub(crate) unsafe fn free(this: *mut ffi::PyObject) {
    // SAFETY: a dead object keeps its type until it is freed.
    let class = unsafe { ffi::Py_TYPE(this) };
    // SAFETY: instances come from the collector's allocator.
    unsafe { ffi::PyObject_GC_Del(this.cast()) };
    // SAFETY: each instance of a heap type holds one reference to it.
    unsafe { ffi::Py_DECREF(class.cast()) };
}
