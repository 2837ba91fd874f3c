//! The class that comes before asyncio's `_SSLProtocolTransport` in the method order:
//! `write` and `writelines` without an interpreter frame.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyTuple, PyType};
use pyo3::{ffi, intern};

use crate::py::native::{self, NativeClass, Visitor, method};
use crate::py::{Args, Owned};
use crate::tls::protocol::{native_half, on_loop};
use crate::tls::writing;

/// The memory of the transport that protocols over TLS talk to.
#[repr(C)]
struct TlsTransport {
    ob_base: ffi::PyObject,
    /// The slots of asyncio's BaseTransport and _FlowControlMixin, all unused
    /// but for the loop.
    base: [AtomicPtr<ffi::PyObject>; BASE_SLOTS],
    /// `_ssl_protocol`.
    protocol: AtomicPtr<ffi::PyObject>,
}

const BASE_SLOTS: usize = 5;

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The class.
pub(crate) fn class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    Ok(CLASS.get_or_try_init(py, || make_class(py).map(Bound::unbind))?.bind(py).clone())
}

impl TlsTransport {
    /// The `SSLProtocol`, or what user code has set `_ssl_protocol` to.
    #[inline]
    fn protocol(&self, py: Python<'_>) -> PyResult<Owned> {
        let this: *mut ffi::PyObject = (&raw const *self).cast_mut().cast();
        if cfg!(Py_GIL_DISABLED) {
            let mut member = protocol_member();
            // SAFETY: the definition describes a slot of this object's memory;
            // a new reference, or null with an exception.
            return unsafe {
                Owned::from_result(py, ffi::PyMember_GetOne(this.cast(), &mut member))
            };
        }
        let value = self.protocol.load(Ordering::Relaxed);
        if value.is_null() {
            // SAFETY: alive during its own method.
            let this = unsafe { Owned::from_borrowed(this) };
            return Ok(this.bind(py).getattr(intern!(py, "_ssl_protocol"))?.into());
        }
        // SAFETY: with the GIL held, a filled slot owns a reference.
        Ok(unsafe { Owned::from_borrowed(value) })
    }
}

// HOT: tls
fn write<'py>(py: Python<'py>, t: &TlsTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let data = args.one("_SSLProtocolTransport.write", "data")?;
    let known = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !known {
        let class = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "data: expecting a bytes-like instance, got {class}"
        )));
    }
    if data.len()? == 0 {
        return Ok(Owned::none(py));
    }
    let protocol = t.protocol(py)?;
    match native_half(py, &protocol) {
        Some(native) => on_loop(py, native, "write", || writing::write_one(py, native, &data))?,
        None => {
            let list = PyTuple::new(py, [&*data])?;
            protocol.bind(py).call_method1(intern!(py, "_write_appdata"), (list,))?;
        }
    }
    Ok(Owned::none(py))
}

fn writelines<'py>(py: Python<'py>, t: &TlsTransport, args: Args<'_, 'py>) -> PyResult<Owned> {
    let list = args.one("_SSLProtocolTransport.writelines", "list_of_data")?;
    let protocol = t.protocol(py)?;
    match native_half(py, &protocol) {
        Some(native) => {
            on_loop(py, native, "writelines", || writing::write_list(py, native, &list))?;
        }
        None => {
            protocol.bind(py).call_method1(intern!(py, "_write_appdata"), (&*list,))?;
        }
    }
    Ok(Owned::none(py))
}

// SAFETY: the memory begins with the slots of the base class, whose size is
// checked; null is a valid value of every field.
unsafe impl NativeClass for TlsTransport {
    const NAME: &'static CStr = c"tokioloop._core.TlsTransport";
    const BASE_SIZE: usize = offset_of!(Self, protocol);
    const WEAKLIST: Option<usize> = None;
    const DICT: Option<usize> = None;
    const SUBCLASSABLE: bool = true;

    fn members() -> Vec<ffi::PyMemberDef> {
        vec![protocol_member()]
    }

    fn traverse(&self, visitor: &mut Visitor) {
        for slot in self.base.iter().chain([&self.protocol]) {
            // SAFETY: a slot owns what it holds.
            unsafe { visitor.pointer(slot.load(Ordering::Relaxed)) };
        }
    }

    fn clear(&self) {
        for slot in self.base.iter().chain([&self.protocol]) {
            // SAFETY: the slot owned this reference, if any.
            unsafe { ffi::Py_XDECREF(slot.swap(ptr::null_mut(), Ordering::AcqRel)) };
        }
    }

    unsafe fn dealloc(this: *mut Self) {
        // SAFETY: the object is tracked until here, and must not be visited any more.
        unsafe { ffi::PyObject_GC_UnTrack(this.cast()) };
        // SAFETY: the memory is whole until it is freed.
        unsafe { &*this }.clear();
        // SAFETY: the object is dead and untracked, and its value was dropped.
        unsafe { native::free(this.cast()) };
    }
}

fn protocol_member() -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: c"_ssl_protocol".as_ptr(),
        type_code: ffi::Py_T_OBJECT_EX,
        offset: offset_of!(TlsTransport, protocol) as ffi::Py_ssize_t,
        flags: 0,
        doc: ptr::null(),
    }
}

fn make_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let base = py.import("asyncio.transports")?.getattr("_FlowControlMixin")?;
    type T = TlsTransport;
    native::make_class::<T>(
        base.cast::<PyType>()?,
        vec![
            method!(T, c"write", write, c"write($self, data)\n--\n\nEncrypt data and send it; what cannot be sent yet is queued."),
            method!(T, c"writelines", writelines, c"writelines($self, list_of_data)\n--\n\nEncrypt several pieces of data and send them together."),
        ],
        Vec::new(),
        c"The records' way through an asyncio.sslproto._SSLProtocolTransport.",
    )
}
