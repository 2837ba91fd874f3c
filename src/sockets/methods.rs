//! The `sock_*` methods of `EventLoop`, which only parse their arguments.
//!
//! Like an `async def` they only make a coroutine. Arguments that asyncio would refuse
//! are left to asyncio's function, which has the error messages.
#![allow(unsafe_code)]

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::coroutine::{Body, CoroutineMethod, NativeCoroutine, Operation};
use crate::event_loop::{EventLoop, This};
use crate::py::Owned;
use crate::py::args::{Args, exact_size};
use crate::sockets::call::{Call, Connecting, Sending, Task};
use crate::sockets::stock::Stock;

/// A method's body for any receiver: if it is no native loop, asyncio's function is called.
macro_rules! of_loops {
    ($body:path) => {
        |receiver, args| {
            let py = receiver.py();
            if !EventLoop::is_instance(py, receiver.into()) {
                return Ok(None);
            }
            // SAFETY: checked to be an instance.
            $body(py, unsafe { This::of_object(py, receiver.into()) }, args)
        }
    };
}

/// Adds those of the methods to the class that this Python's asyncio has.
///
/// # Errors
/// What Python raises while one is made.
pub(crate) fn install(class: &Bound<'_, PyType>) -> PyResult<()> {
    let methods: [(&str, Body); 8] = [
        ("sock_recv", of_loops!(recv)),
        ("sock_recv_into", of_loops!(recv_into)),
        ("sock_recvfrom", of_loops!(recvfrom)),
        ("sock_recvfrom_into", of_loops!(recvfrom_into)),
        ("sock_sendall", of_loops!(sendall)),
        ("sock_sendto", of_loops!(sendto)),
        ("sock_accept", of_loops!(accept)),
        ("sock_connect", of_loops!(connect)),
    ];
    let py = class.py();
    let stock = Stock::get(py)?;
    for (name, body) in methods {
        if let Some(function) = stock.inherited(py, name) {
            let method = CoroutineMethod::make(function, body)?;
            class.setattr(name, method.bind(py))?;
        }
    }
    Ok(())
}

/// Makes the coroutine of a call.
#[inline]
fn start(
    py: Python<'_>,
    this: This<'_>,
    socket: &Bound<'_, PyAny>,
    task: Task,
) -> PyResult<Option<Owned>> {
    let call = Call::new(this.owned(py), Owned::from(socket), task);
    NativeCoroutine::make(py, Operation::Socket(call)).map(Some)
}

// HOT: raw
fn recv<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, count]) = args.exactly() else { return Ok(None) };
    // CPython allocates the whole size first, which may fail: large sizes are left to it.
    match exact_size(&count) {
        Some(count @ 1..=LARGEST) => start(py, this, &socket, Task::Recv(count as usize)),
        _ => Ok(None),
    }
}

fn recv_into<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, buffer]) = args.exactly() else { return Ok(None) };
    start(py, this, &socket, Task::RecvInto(Owned::from(&*buffer)))
}

fn recvfrom<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, count]) = args.exactly() else { return Ok(None) };
    start(py, this, &socket, Task::RecvFrom(Owned::from(&*count)))
}

fn recvfrom_into<'py>(
    py: Python<'py>,
    this: This<'_>,
    args: Args<'_, 'py>,
) -> PyResult<Option<Owned>> {
    let (socket, buffer, count) = match args.exactly() {
        Some([socket, buffer, count]) => (socket, buffer, Owned::from(&*count)),
        None => match args.exactly() {
            Some([socket, buffer]) => (socket, buffer, 0_u8.into_pyobject(py)?.into_any().into()),
            None => return Ok(None),
        },
    };
    start(py, this, &socket, Task::RecvFromInto(Owned::from(&*buffer), count))
}

// HOT: raw
fn sendall<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, data]) = args.exactly() else { return Ok(None) };
    start(py, this, &socket, Task::SendAll(Sending::new(Owned::from(&*data))))
}

fn sendto<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, data, address]) = args.exactly() else { return Ok(None) };
    start(py, this, &socket, Task::SendTo(Owned::from(&*data), Owned::from(&*address)))
}

fn accept<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket]) = args.exactly() else { return Ok(None) };
    start(py, this, &socket, Task::Accept)
}

fn connect<'py>(py: Python<'py>, this: This<'_>, args: Args<'_, 'py>) -> PyResult<Option<Owned>> {
    let Some([socket, address]) = args.exactly() else { return Ok(None) };
    let connecting = Connecting { address: Owned::from(&*address), is_under_way: false };
    start(py, this, &socket, Task::Connect(connecting))
}

/// The largest size, in bytes, that `socket.recv` is taken to be able to allocate.
const LARGEST: isize = 1 << 30;
