"""An echo server of N loops on N threads that share one port by SO_REUSEPORT.

On a free-threaded interpreter the loops run side by side; elsewhere they show what the
GIL costs. The port is chosen by the first thread.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import threading

import handlers
import loops
import server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    server.raise_file_limit()
    server.age_allocator()
    try:
        factory = loops.loop_factory(arguments.loop)
    except loops.LoopUnavailable as error:
        sys.exit(f"{arguments.loop}: {error}")
    listeners = [shared_listener(0)]
    port = listeners[0].getsockname()[1]
    listeners += [shared_listener(port) for _ in range(arguments.threads - 1)]
    ready = threading.Barrier(arguments.threads + 1, timeout=20.0)
    for listener in listeners:
        thread = threading.Thread(target=serve, args=(factory, listener, ready), daemon=True)
        thread.start()
    ready.wait()
    server.announce({"port": port})
    threading.Event().wait()


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
