"""An echo server of N loops on N threads that share one port by SO_REUSEPORT.

On a free-threaded interpreter the loops run side by side; elsewhere they show what the
GIL costs. The port is chosen by the first thread.

`--apart` runs the loops in processes of their own instead, which share nothing but the
machine: what is left of the difference is what it costs to share the interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading

import handlers
import loops
import processes
import server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--apart", action="store_true", help="N processes of one thread")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    threads = 1 if arguments.apart else arguments.threads
    port = start(arguments.loop, threads, arguments.port)
    with contextlib.ExitStack() as others:
        pids = [os.getpid()]
        for _ in range(arguments.threads - 1 if arguments.apart else 0):
            command = [sys.executable, __file__, "--loop", arguments.loop, "--threads", "1"]
            command += ["--port", str(port)]
            other = others.enter_context(processes.running(command))
            pids.append(other.pid)
        server.announce({"port": port, "pids": ",".join(map(str, pids))})
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


def start(loop: str, threads: int, port: int) -> int:
    """Run that many loops on a port, on threads of their own; return the port."""
    server.raise_file_limit()
    server.age_allocator()
    server.scatter()
    try:
        factory = loops.loop_factory(loop)
    except loops.LoopUnavailable as error:
        sys.exit(f"{loop}: {error}")
    # For `sigwait` in the main thread: whoever ends this process ends the others by it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    listeners = [shared_listener(port)]
    port = listeners[0].getsockname()[1]
    listeners += [shared_listener(port) for _ in range(threads - 1)]
    ready = threading.Barrier(threads + 1, timeout=20.0)
    for listener in listeners:
        thread = threading.Thread(target=serve, args=(factory, listener, ready), daemon=True)
        thread.start()
    ready.wait()
    return port


def serve(factory: loops.LoopFactory, listener: socket.socket, ready: threading.Barrier) -> None:
    """Run one loop with its own listener until the process ends."""
    loop = factory()
    asyncio.set_event_loop(loop)

    async def start() -> None:
        kept = await loop.create_server(handlers.Echo, sock=listener, backlog=server.BACKLOG)
        ready.wait()
        await loop.create_future()
        kept.close()

    loop.run_until_complete(start())


def shared_listener(port: int) -> socket.socket:
    """A listener that lets others listen on its port; the kernel spreads the connections."""
    listener = socket.socket(socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(server.BACKLOG)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    main()
