//! Every raw system call of the reactor. Unsafe code is here, in `sys/` and in the files for
//! memory that the kernel fills (`address`, `raw_address`, `read_ring`, `datagram`).
//!
//! Most functions are one call with its result turned into `io::Result`; policy
//! (retry, short reads, ownership) lives in the callers. `WouldBlock` and
//! `Interrupted` are returned like any other error.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::address::Address;

/// Turns the result of a libc call into an `io::Result`.
macro_rules! check {
    ($call:expr) => {{
        // SAFETY: every argument of the call is valid for the duration of the
        // call: descriptors are plain numbers that the kernel checks, pointers
        // come from live references in the enclosing function.
        let result = unsafe { $call };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }};
}

mod datagram;
mod watch;

#[cfg(target_os = "linux")]
pub(crate) use self::datagram::MessageHeaders;
#[cfg(not(target_os = "linux"))]
pub(crate) use self::datagram::receive_from;
pub(crate) use self::datagram::send_to;
#[cfg(target_os = "linux")]
pub(crate) use self::watch::wait_briefly;
pub(crate) use self::watch::{unwatch_level, watch_edges, watch_level};

/// A send to a closed peer fails instead of raising SIGPIPE, and no send waits.
#[cfg(target_os = "linux")]
const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
/// CPython ignores SIGPIPE, and macOS has no such flag.
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: libc::c_int = 0;

/// The clock of Python's `time.monotonic()`, which stops while a Mac sleeps.
#[cfg(target_os = "macos")]
const MONOTONIC: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(not(target_os = "macos"))]
const MONOTONIC: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Reads that clock, in nanoseconds.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for a write of one timespec.
    unsafe { libc::clock_gettime(MONOTONIC, now.as_mut_ptr()) };
    // SAFETY: the call cannot fail for this clock, so the timespec is written.
    let now = unsafe { now.assume_init() };
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// An identity of the calling thread that is never 0 and never reused while
/// the thread lives.
#[inline]
pub fn thread_id() -> usize {
    // SAFETY: pthread_self has no preconditions.
    unsafe { libc::pthread_self() as usize }
}

/// Receives into memory that need not be initialised; returns how many bytes
/// at its start now are. It never waits, even if another process that shares the
/// open file, such as a child, has made it blocking.
#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let n = check!(libc::recv(
        fd.as_raw_fd(),
        buffer.as_mut_ptr().cast(),
        buffer.len(),
        libc::MSG_DONTWAIT
    ))?;
    Ok(n as usize)
}

/// Receives from a stream that is not TCP. Also returns whether ancillary data
/// (descriptors or the sender's credentials) came with it: the kernel ends a read there.
#[cfg(target_os = "linux")]
pub(crate) fn recv_beside(
    fd: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<(usize, bool)> {
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: no name, no room for ancillary data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    let n = check!(libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT))?;
    Ok((n as usize, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// As above. This system does not report ancillary data, so the answer is always yes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn recv_beside(
    fd: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<(usize, bool)> {
    recv(fd, buffer).map(|length| (length, true))
}

/// Sends one buffer.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    let n = check!(libc::send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), SEND_FLAGS))
        .map_err(send_error)?;
    Ok(n as usize)
}

/// Translates the error of a failed send on a connection.
#[cfg(not(target_os = "macos"))]
#[inline(always)]
fn send_error(error: io::Error) -> io::Error {
    error
}

/// As above. macOS may answer EPROTOTYPE while a connection is torn down. EINTR
/// makes the caller retry, which gets the connection's real error.
#[cfg(target_os = "macos")]
#[cold]
fn send_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EPROTOTYPE) => io::Error::from_raw_os_error(libc::EINTR),
        _ => error,
    }
}

/// Sends one buffer without waiting, whatever the descriptor's mode, as every send
/// does on Linux.
#[cfg(target_os = "linux")]
pub(crate) use self::send as send_now;

/// As above. On macOS MSG_DONTWAIT does not keep a send from waiting, so a
/// blocking descriptor is made non-blocking for the length of the call. Polling
/// for room first would not suffice: a message is sent whole or not at all, and a
/// blocking send on a stream returns only when all data is sent. Others who use
/// the same open file meanwhile may get EAGAIN instead of waiting.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send_now(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    let mode = check!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
    if mode & libc::O_NONBLOCK != 0 {
        return send(fd, data);
    }
    check!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, mode | libc::O_NONBLOCK))?;
    let result = send(fd, data);
    // The send's result counts, even if the mode cannot be restored.
    let _ = check!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, mode));
    result
}

/// Whether `poll` finds a descriptor writable, or failed, at this moment.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    check!(libc::poll(&mut entry, 1, 0)).is_ok_and(|found| found > 0)
}

/// Waits for something to read: over loopback macOS may deliver data a little
/// after the call that sent it.
#[cfg(test)]
pub(crate) fn await_readable(fd: BorrowedFd<'_>) {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert!(check!(libc::poll(&mut entry, 1, 10_000)).is_ok_and(|found| found > 0));
}

/// Whether a descriptor is known to be a TCP socket.
pub(crate) fn is_tcp(fd: BorrowedFd<'_>) -> bool {
    #[cfg(target_os = "linux")]
    {
        let option = |name| socket_option(fd, name).ok();
        matches!(option(libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6))
            && option(libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP)
            && option(libc::SO_TYPE) == Some(libc::SOCK_STREAM)
    }
    #[cfg(not(target_os = "linux"))]
    {
        // This system has no option for the family or the protocol.
        let _ = fd;
        false
    }
}

/// Reads an `int` option of level SOL_SOCKET.
#[cfg(target_os = "linux")]
fn socket_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of_val(&value) as libc::socklen_t;
    check!(libc::getsockopt(
        fd.as_raw_fd(),
        libc::SOL_SOCKET,
        name,
        (&raw mut value).cast(),
        &raw mut length
    ))?;
    Ok(value)
}

/// Up to this many bytes it is cheaper to copy several buffers into one than to pass an array
/// of them, for which the kernel needs some 80 ns more per call.
pub(crate) const WORTH_COPYING: usize = 4096;

/// Sends several buffers with one call, from a copy of at most [`WORTH_COPYING`] bytes; what
/// does not fit is not sent.
pub(crate) fn send_copied<'a>(
    fd: BorrowedFd<'_>,
    parts: impl Iterator<Item = &'a [u8]>,
) -> io::Result<usize> {
    let mut space = [const { MaybeUninit::<u8>::uninit() }; WORTH_COPYING];
    let mut filled = 0;
    for part in parts {
        let Some(room) = space.get_mut(filled..filled + part.len()) else { break };
        // SAFETY: bytes that may be uninitialised have the layout of bytes.
        room.copy_from_slice(unsafe { &*(&raw const *part as *const [MaybeUninit<u8>]) });
        filled += part.len();
    }
    // SAFETY: this many bytes at the start were written.
    send(fd, unsafe { std::slice::from_raw_parts(space.as_ptr().cast(), filled) })
}

/// Sends several buffers with one call.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: an all-zero msghdr is valid: no name, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = slices.as_ptr() as *mut libc::iovec;
    message.msg_iovlen = slices.len() as _;
    let n = check!(libc::sendmsg(fd.as_raw_fd(), &message, SEND_FLAGS)).map_err(send_error)?;
    Ok(n as usize)
}

/// Reads from a socket or a pipe; waits if the descriptor is blocking.
fn read(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let n = check!(libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()))?;
    Ok(n as usize)
}

/// Ends the sending direction.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    check!(libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR)).map(drop)
}

/// Accepts one connection: non-blocking, closed on exec, with its peer.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    #[cfg(target_os = "linux")]
    let accepted = check!(libc::accept4(
        fd.as_raw_fd(),
        storage.as_mut_ptr().cast(),
        &mut length,
        libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC
    ))?;
    #[cfg(not(target_os = "linux"))]
    let accepted = check!(libc::accept(fd.as_raw_fd(), storage.as_mut_ptr().cast(), &mut length))?;
    // SAFETY: the kernel has just returned this descriptor; nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(accepted) };
    #[cfg(not(target_os = "linux"))]
    {
        check!(libc::fcntl(accepted, libc::F_SETFD, libc::FD_CLOEXEC))?;
        set_nonblocking(borrow(accepted))?;
    }
    // SAFETY: zeroed storage is a valid sockaddr_storage, written or not.
    Ok((owned, Address::from_storage(unsafe { storage.assume_init_ref() }, length)))
}

/// The local address of a socket.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    name(fd, libc::getsockname)
}

/// The address of a socket's peer.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    name(fd, libc::getpeername)
}

type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(fd: BorrowedFd<'_>, call: NameCall) -> io::Result<Address> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    check!(call(fd.as_raw_fd(), storage.as_mut_ptr().cast(), &mut length))?;
    // SAFETY: zeroed storage is a valid sockaddr_storage, written or not.
    Ok(Address::from_storage(unsafe { storage.assume_init_ref() }, length))
}

/// The kernel's byte counts of a TCP connection. SYN and FIN each take a sequence
/// number and count as a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpBytes {
    /// Bytes that the peer has acknowledged.
    pub acknowledged: u64,
    /// Bytes that the peer has sent.
    pub received: u64,
}

/// Reads the kernel's counts; None if the socket is not TCP or the kernel is too old.
#[cfg(target_os = "linux")]
pub fn tcp_bytes(fd: BorrowedFd<'_>) -> Option<TcpBytes> {
    /// `struct tcp_info` of linux/tcp.h up to `tcpi_bytes_received`, in words:
    /// 8 bytes and 24 numbers of 4 bytes come before the numbers of 8 bytes.
    const WORDS: usize = 17;
    const ACKNOWLEDGED: usize = 15;
    const RECEIVED: usize = 16;
    let mut info = [0_u64; WORDS];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    check!(libc::getsockopt(
        fd.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        info.as_mut_ptr().cast(),
        &raw mut length
    ))
    .ok()?;
    // Kernels before 4.2 fill in less, and the length says so.
    if (length as usize) < mem::size_of_val(&info) {
        return None;
    }
    Some(TcpBytes { acknowledged: info[ACKNOWLEDGED], received: info[RECEIVED] })
}

/// Other systems count differently.
#[cfg(not(target_os = "linux"))]
pub fn tcp_bytes(_fd: BorrowedFd<'_>) -> Option<TcpBytes> {
    None
}

/// Switches Nagle's algorithm off.
pub fn set_nodelay(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    check!(libc::setsockopt(
        fd.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_NODELAY,
        (&raw const on).cast(),
        mem::size_of::<libc::c_int>() as libc::socklen_t
    ))
    .map(drop)
}

/// Makes a descriptor non-blocking.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = check!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
    check!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
}

/// Borrows a descriptor number that the caller knows to be open.
///
/// The number may still be closed by somebody else at any time; every use then
/// fails with EBADF or reaches another file, as with any descriptor number
/// that Python code hands to `add_reader`.
#[inline]
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    debug_assert!(fd >= 0, "descriptor {fd} is negative");
    // SAFETY: -1 is excluded by every caller, and the kernel checks the rest.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes over a descriptor number whose owner has let go of it.
///
/// # Safety
/// The caller is the only owner of `fd`, which is open.
pub unsafe fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise is the same.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets go of a descriptor: the number now belongs to the caller.
pub fn release(fd: OwnedFd) -> RawFd {
    fd.into_raw_fd()
}

/// Reads what a non-blocking pipe holds.
pub fn read_all(fd: BorrowedFd<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [MaybeUninit::<u8>::uninit(); 512];
    while let Ok(length @ 1..) = read(fd, &mut buffer) {
        let filled = buffer.iter().take(length);
        // SAFETY: the kernel has written the first `length` bytes.
        all.extend(filled.map(|byte| unsafe { byte.assume_init() }));
    }
    all
}
