//! Watching descriptors by epoll or kqueue in ways that mio does not offer.

use std::io;
use std::os::fd::RawFd;

use crate::interest::Interest;

/// Waits until the poll descriptor has events or `nanos` have passed. mio's
/// own timeout counts whole milliseconds; this sleeps the rest of a deadline.
#[cfg(target_os = "linux")]
pub(crate) fn wait_briefly(poll: RawFd, nanos: u64) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: poll, events: libc::POLLIN, revents: 0 };
    let rest = libc::timespec {
        tv_sec: (nanos / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanos % 1_000_000_000) as _,
    };
    check!(libc::ppoll(&mut entry, 1, &rest, std::ptr::null())).map(drop)
}

/// Watches a descriptor level-triggered, which mio cannot: `add_reader` and
/// `add_writer` promise a call per turn for as long as the condition holds.
/// `known` says whether the caller believes the descriptor to be in the poll
/// already. If it was closed or reused behind our back the caller is wrong, and
/// the other operation is tried.
#[cfg(target_os = "linux")]
pub(crate) fn watch_level(
    poll: RawFd,
    fd: RawFd,
    token: usize,
    interest: Interest,
    known: bool,
) -> io::Result<()> {
    let mut events = 0;
    if interest.readable() {
        events |= libc::EPOLLIN;
    }
    if interest.writable() {
        events |= libc::EPOLLOUT;
    }
    let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
    let (first, other) = if known {
        (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD)
    } else {
        (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD)
    };
    match check!(libc::epoll_ctl(poll, first, fd, &mut event)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {
            check!(libc::epoll_ctl(poll, other, fd, &mut event)).map(drop)
        }
        result => result.map(drop),
    }
}

/// Watches a socket edge-triggered in both directions, and for urgent data.
/// If the socket is in the poll already, this replaces its registration, and
/// the next wait reports again what is ready now.
#[cfg(target_os = "linux")]
pub(crate) fn watch_edges(poll: RawFd, fd: RawFd, token: usize) -> io::Result<()> {
    let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;
    let mut event = libc::epoll_event { events: events as u32, u64: token as u64 };
    match check!(libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &mut event)) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            check!(libc::epoll_ctl(poll, libc::EPOLL_CTL_MOD, fd, &mut event)).map(drop)
        }
        result => result.map(drop),
    }
}

/// As above; kqueue adds and changes with one call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn watch_edges(poll: RawFd, fd: RawFd, token: usize) -> io::Result<()> {
    add_filters(poll, fd, Interest::BOTH, libc::EV_ADD | libc::EV_CLEAR, token)
}

/// Ends what [`watch_level`] began.
#[cfg(target_os = "linux")]
pub(crate) fn unwatch_level(poll: RawFd, fd: RawFd, _was: Interest) -> io::Result<()> {
    check!(libc::epoll_ctl(poll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut())).map(drop)
}

/// kqueue filters are levels unless EV_CLEAR is set.
#[cfg(not(target_os = "linux"))]
pub(crate) fn watch_level(
    poll: RawFd,
    fd: RawFd,
    token: usize,
    interest: Interest,
    known: bool,
) -> io::Result<()> {
    if known {
        // Both filters go first: which of them are set is not known here.
        let _ = kevent_change(poll, fd, libc::EVFILT_READ, libc::EV_DELETE, 0);
        let _ = kevent_change(poll, fd, libc::EVFILT_WRITE, libc::EV_DELETE, 0);
    }
    add_filters(poll, fd, interest, libc::EV_ADD, token)
}

/// Ends what [`watch_level`] began.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unwatch_level(poll: RawFd, fd: RawFd, was: Interest) -> io::Result<()> {
    let change = |filter, was: bool| {
        if was { kevent_change(poll, fd, filter, libc::EV_DELETE, 0) } else { Ok(()) }
    };
    // The second is deleted even if the first is gone already.
    let read = change(libc::EVFILT_READ, was.readable());
    let write = change(libc::EVFILT_WRITE, was.writable());
    read.and(write)
}

/// Adds a descriptor's filters, all or none: after an error the caller assumes
/// that nothing is watched, and would never delete a filter that is left.
#[cfg(not(target_os = "linux"))]
fn add_filters(
    poll: RawFd,
    fd: RawFd,
    interest: Interest,
    flags: u16,
    token: usize,
) -> io::Result<()> {
    if interest.readable() {
        kevent_change(poll, fd, libc::EVFILT_READ, flags, token)?;
    }
    if interest.writable() {
        kevent_change(poll, fd, libc::EVFILT_WRITE, flags, token).inspect_err(|_| {
            let _ = kevent_change(poll, fd, libc::EVFILT_READ, libc::EV_DELETE, 0);
        })?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn kevent_change(poll: RawFd, fd: RawFd, filter: i16, flags: u16, token: usize) -> io::Result<()> {
    let change = libc::kevent {
        ident: fd as _,
        filter,
        flags,
        fflags: 0,
        data: 0,
        udata: token as *mut libc::c_void,
    };
    check!(libc::kevent(poll, &change, 1, std::ptr::null_mut(), 0, std::ptr::null())).map(drop)
}
