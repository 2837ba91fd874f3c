"""A drop-in asyncio event loop on a mio reactor.

>>> import asyncio, tokioloop
>>> async def main():
...     await asyncio.sleep(0)
...     return "done"
>>> tokioloop.run(main())
'done'
"""

from tokioloop._core import __version__
from tokioloop._run import install, run
from tokioloop.loop import TokioLoop, new_event_loop
from tokioloop.observe import dump_tasks, instrument, metrics_text
from tokioloop.policy import EventLoopPolicy, TokioEventLoopPolicy
from tokioloop.serve import serve

new_tokio_event_loop = new_event_loop

__all__ = [
    "EventLoopPolicy",
    "TokioEventLoopPolicy",
    "TokioLoop",
    "__version__",
    "dump_tasks",
    "install",
    "instrument",
    "metrics_text",
    "new_event_loop",
    "new_tokio_event_loop",
    "run",
    "serve",
]
