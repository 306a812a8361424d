"""Programs under Perdure speak to their supervisor.

``Worker`` is for programs with threads or with none, ``AsyncWorker`` for
asyncio. Both say that the program is alive, ready and how far it is, emit
events that are never lost, and take commands::

    from perdure_worker import Worker

    with Worker() as worker:
        worker.ready()
        worker.progress(40, "pass 1")
        worker.emit("file.done", {"file": "a.mp4"})

Without supervision each call does nothing and succeeds.
"""

from ._aio import AsyncWorker
from ._core import ClosedError, Counters, Identity, OutboxFullError, RefusedError, WorkerError
from ._sync import Worker
from ._version import __version__

__all__ = [
    "AsyncWorker",
    "ClosedError",
    "Counters",
    "Identity",
    "OutboxFullError",
    "RefusedError",
    "Worker",
    "WorkerError",
    "__version__",
]
