//! `sock_connect`: asyncio's own code resolves the address, the Python socket begins the
//! connection, and the wait for it is native.

use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokioloop_reactor::{socket, sys};

use crate::coroutine::{Input, Step, pass};
use crate::py::{Live, Owned};
use crate::sockets::attempt::{Attempt, Try};
use crate::sockets::call::{Call, Connecting, Stage, Task};
use crate::sockets::kept::Side;
use crate::sockets::stock::Stock;

impl Call {
    /// `_ensure_resolved`, which does not wait for numeric addresses.
    pub(super) fn resolve(&mut self, py: Python<'_>, address: &Owned) -> PyResult<Step> {
        let socket = self.socket().bind(py);
        let family = socket.getattr(intern!(py, "family"))?;
        if !matches!(family.extract()?, libc::AF_INET | libc::AF_INET6) {
            // The poll does not report when the listener of a Unix socket has room again.
            return self.delegate(py);
        }
        let keywords = PyDict::new(py);
        keywords.set_item("family", family)?;
        keywords.set_item("type", socket.getattr(intern!(py, "type"))?)?;
        keywords.set_item("proto", socket.getattr(intern!(py, "proto"))?)?;
        keywords.set_item("loop", self.event_loop_object().bind(py))?;
        let ensure = self.event_loop_object().bind(py).getattr(intern!(py, "_ensure_resolved"))?;
        let resolving = Owned::from(ensure.call((address.as_py(),), Some(&keywords))?);
        let step = pass(py, &resolving, Input::Send(Live::none(py)))?;
        self.follow_resolution(py, resolving, step)
    }

    /// Goes on once the address is known.
    pub(super) fn follow_resolution(
        &mut self,
        py: Python<'_>,
        resolving: Owned,
        step: Step,
    ) -> PyResult<Step> {
        match step {
            Step::Yield(_) => {
                self.set_stage(Stage::Resolving(resolving));
                Ok(step)
            }
            Step::Return(resolved) => {
                let address = resolved.bind(py).get_item(0)?.get_item(4)?;
                self.set_task(Task::Connect(Connecting {
                    address: address.into(),
                    is_under_way: false,
                }));
                self.go_on(py, true)
            }
        }
    }
}

impl Try<'_> {
    /// `socket.connect(address)`, or a check of how that has ended.
    pub(super) fn connect(&self, py: Python<'_>, connecting: &mut Connecting) -> PyResult<Attempt> {
        let address = &connecting.address;
        if !connecting.is_under_way {
            connecting.is_under_way = true;
            if self.method(py, intern!(py, "connect"), [address])?.is_some() {
                return Ok(Attempt::Done(Owned::none(py)));
            }
            self.has_blocked(Side::Write);
            return Ok(Attempt::Blocked);
        }
        let option = (libc::SOL_SOCKET, libc::SO_ERROR);
        let error = self.socket.bind(py).call_method1(intern!(py, "getsockopt"), option)?;
        let error = error.extract::<i32>()?;
        if error != 0 {
            let text = format!("Connect call failed {}", address.bind(py).str()?);
            let error = PyOSError::new_err((error, text));
            let again = Stock::get(py)?.is_again(py, &error);
            return if again { Ok(Attempt::Blocked) } else { Err(error) };
        }
        // The wake-up may have another cause, and a connection that is still under way
        // has no error either.
        if socket::has_room(sys::borrow(self.fd)) {
            return Ok(Attempt::Done(Owned::none(py)));
        }
        self.has_blocked(Side::Write);
        Ok(Attempt::Blocked)
    }
}
