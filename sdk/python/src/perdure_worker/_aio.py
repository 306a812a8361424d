"""The worker for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import time
from typing import Any, Callable, Dict, List, Optional, Set

from ._address import short
from ._base import BYE_TIMEOUT, MAX_CALLBACKS, Base, logger
from ._core import ClosedError, Command, Message, OutboxFullError, RefusedError

MAX_COMMANDS = 64


class AsyncWorker(Base):
    """The program's end of the connection to Perdure, for asyncio.

    It works as Worker does, in a task of the event loop: heartbeats stop when the
    loop is blocked, so a hung loop is noticed. Functions for commands and
    callbacks may be coroutines. All methods are called from the loop's thread;
    those that wait are coroutines, the others return at once::

        async with AsyncWorker() as worker:
            worker.ready()
            await worker.emit_acked("file.done", {"file": "a.mp4"})
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lock = contextlib.nullcontext()
        self._task: Optional["asyncio.Task[None]"] = None
        self._wake: Optional[asyncio.Event] = None
        self._waiting: Set["asyncio.Future[None]"] = set()
        self._commanded: Set["asyncio.Task[Any]"] = set()
        self._callbacks: Optional["asyncio.Queue[Callable[[], Any]]"] = None
        self._caller: Optional["asyncio.Task[None]"] = None
        self._stop: Optional[asyncio.Event] = None
        self._hooks: List[Callable[[], Any]] = []
        self._signals: List[int] = []
        self._stopped: Optional["asyncio.Task[None]"] = None
        self._killed = False
        self._ended = False

    async def start(self) -> "AsyncWorker":
        """Let the worker connect. This does not wait for the connection. Commands
        are best set up before."""
        if self._address and self._task is None:
            self._wake = asyncio.Event()
            self._callbacks = asyncio.Queue(MAX_CALLBACKS)
            self._task = asyncio.ensure_future(self._run())
            self._caller = asyncio.ensure_future(self._call())
        return self

    async def __aenter__(self) -> "AsyncWorker":
        return await self.start()

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    # What waits.

    async def emit_acked(self, event: str, data: Any = None, timeout: Optional[float] = None) -> None:
        """Emit an event and wait until it is durable; wait for room in the outbox
        as well. Raises RefusedError when Perdure does not take it, TimeoutError
        when the time is over: the event, if it was taken, is still delivered."""
        if not self._address:
            return
        end = None if timeout is None else time.monotonic() + timeout
        outcome: List[Optional[Exception]] = []
        message = {"type": "event", "event": event, "data": {} if data is None else data}
        while True:
            try:
                self._put(message, outcome.append)
                break
            except OutboxFullError:
                await self._wait(end)
        while not outcome:
            await self._wait(end)
        if outcome[0] is not None:
            raise outcome[0]

    async def flush(self, timeout: Optional[float] = None) -> None:
        """Wait until everything that was accepted before is settled, and the latest
        status and progress are sent; TimeoutError when the time is over."""
        last = self._core.last
        await self._until(lambda: self._core.flushed(last), timeout)

    async def connected(self, timeout: Optional[float] = None) -> None:
        """Wait until Perdure has welcomed the worker and the connection stands."""
        await self._until(lambda: self._core.welcomed, timeout)

    async def metadata(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the metadata of the process, ``{}`` when there is none. Waits for
        the connection when the environment does not hold them (they are long or secret)."""
        if self._metadata is None and self._address:
            await self._until(lambda: bool(self._core.welcome), timeout)
            return dict(self._core.welcome.get("metadata") or {})
        return dict(self._metadata or {})

    async def _until(self, true: Callable[[], bool], timeout: Optional[float]) -> None:
        if not self._address:
            return
        end = None if timeout is None else time.monotonic() + timeout
        while not true():
            await self._wait(end)

    async def _wait(self, end: Optional[float]) -> None:
        """Wait for a change."""
        if self._ended:
            raise ClosedError("the worker is closed")
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("Perdure has not answered in time")
        change: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await asyncio.wait([change], timeout=left)
        finally:
            self._waiting.discard(change)

    def _changed(self) -> None:
        for change in list(self._waiting):
            if not change.done():
                change.set_result(None)

    async def close(self, timeout: Optional[float] = None) -> None:
        """End in order: cancel the commands that run, wait for the outbox, and tell
        Perdure that the worker hangs up on purpose. ``timeout`` bounds it;
        default: 5 s, or three quarters of the grace if that is less. What is not
        settled by then is lost, and ClosedError says how much. A later call does nothing."""
        if not self._address or self._core.closing:
            return
        self._core.closing = True
        end = time.monotonic() + self._limit(timeout)
        current = asyncio.current_task()
        commanded = [t for t in self._commanded if t is not current]
        for task in commanded:
            task.cancel()
        if commanded:
            await asyncio.wait(commanded, timeout=max(0.0, end - time.monotonic()))
        self._core.leaving = True
        self._nudge()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=max(0.0, end - time.monotonic()))
        self._killed = True
        for background in (self._task, self._caller):
            if background is not None and background is not current:
                background.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await background
        self._ended = True
        for waiter, error in self._core.abandon():
            waiter(error)
        self._changed()
        if self._core.counters.waiting:
            raise ClosedError(f"cannot deliver {self._core.counters.waiting} messages: Perdure has not settled them in time")

    def _nudge(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # The task that connects.

    async def _run(self) -> None:
        while not self._over():
            before = self._core.counters.connections
            try:
                again = await self._connect()
            except OSError as e:
                logger.debug("Cannot connect to Perdure: %s", e)
                again = False
            self._core.lost()
            pause = self._backoff.next(self._core.counters.connections > before, self._core.refusal)
            end = time.monotonic() + (0 if again else pause)
            while not self._over() and time.monotonic() < end:
                await self._sleep(end)

    def _over(self) -> bool:
        return self._killed or self._core.over()

    async def _sleep(self, end: float) -> None:
        """Wait until something is to be done, or a monotonic time."""
        assert self._wake is not None
        self._wake.clear()
        timer = None
        if end != float("inf"):  # not wait_for: it may swallow a cancellation
            timer = asyncio.get_running_loop().call_later(max(0.0, end - time.monotonic()), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _connect(self) -> bool:
        loop = asyncio.get_running_loop()
        if self._address.path:
            with short(self._address.path) as path:
                transport, link = await loop.create_unix_connection(lambda: _Link(self), path)
        else:
            transport, link = await asyncio.wait_for(loop.create_connection(lambda: _Link(self), self._address.host, self._address.port), 10)
        try:
            return await self._serve(transport, link)
        finally:
            transport.abort()
            await link.over.wait()

    async def _serve(self, transport: Any, link: "_Link") -> bool:
        transport.write(self._hello())
        patience = time.monotonic() + self._welcome_timeout
        welcomed = bye = False
        while not link.over.is_set():
            now = time.monotonic()
            if self._core.welcomed and not welcomed:
                welcomed, patience = True, float("inf")
                self._arm(now)
            if now >= patience:
                return False
            if welcomed and not bye:
                if self._unannounced():
                    return True
                self._tick(now)
                batch = self._core.next() if link.writable else b""
                if batch:
                    transport.write(batch)
                    continue
                if link.writable:
                    self._changed()
                    if self._core.over():
                        bye, patience = True, now + BYE_TIMEOUT
                        transport.write(self._bye())
                        transport.write_eof()
            await self._sleep(min(self._beat_due, self._stats_due, patience) if not bye else patience)
        return False

    def _received(self, data: bytes) -> None:
        for news in self._core.feed(data):
            self._tell(news)
        self._changed()
        self._nudge()

    # What belongs to the program.

    def _tell(self, news: Any) -> None:
        if isinstance(news, Command):
            self._obey(news)
        elif isinstance(news, Message) and self._on_message:
            self._later(lambda f=self._on_message: f(news.data))
        elif isinstance(news, RefusedError):
            logger.warning("%s: %s %s", news, news.sent.get("type"), news.sent.get("event", ""))
            if self._on_refused:
                self._later(lambda f=self._on_refused: f(news))

    def _later(self, f: Callable[[], Any]) -> None:
        assert self._callbacks is not None
        try:
            self._callbacks.put_nowait(f)
        except asyncio.QueueFull:
            self._core.counters.dropped += 1

    async def _call(self) -> None:
        assert self._callbacks is not None
        while True:
            f = await self._callbacks.get()
            try:
                await _result(f())
            except Exception:  # noqa: BLE001 - it is the program's, and is told
                logger.exception("A callback of the worker has failed")

    def _obey(self, command: Command) -> None:
        function = self._commands.get(command.name)
        error = None
        if function is None:
            error = f'unknown command "{command.name}"'
        elif self._core.closing:
            error = "the program is about to end"
        elif len(self._commanded) >= MAX_COMMANDS:
            error = f"the program is busy with {MAX_COMMANDS} commands"
        if function is None or error is not None:
            self._reply(command, None, error)
            return
        task = asyncio.ensure_future(self._do(command, function))
        self._commanded.add(task)
        # Not at the end of the task: one that is cancelled before its turn has none.
        task.add_done_callback(lambda t: self._answer(command, t))

    async def _do(self, command: Command, function: Callable[[Any], Any]) -> Any:
        return await asyncio.wait_for(_result(function(command.data)), command.timeout or None)

    def _answer(self, command: Command, task: "asyncio.Task[Any]") -> None:
        self._commanded.discard(task)
        if task.cancelled():
            self._reply(command, None, "the program is about to end")
            return
        e = task.exception()
        if e is None:
            self._reply(command, task.result(), None)
        elif isinstance(e, asyncio.TimeoutError):
            self._reply(command, None, "it took too long")
        else:
            self._reply(command, None, str(e) or type(e).__name__)

    # The end.

    @property
    def stop_requested(self) -> asyncio.Event:
        """Set when the program was asked to end and what on_shutdown was given is done;
        to be used in the loop."""
        if self._stop is None:
            self._stop = asyncio.Event()
        return self._stop

    def on_shutdown(self, function: Optional[Callable[[], Any]] = None) -> None:
        """From now on, SIGTERM and SIGINT ask the program to end instead of ending
        it: Perdure is told that the program is stopping, ``function``, which may be
        a coroutine function, is called, and when it is done ``stop_requested`` is
        set. The program ends by itself; a second signal ends it at once. Called in
        the loop, in the main thread."""
        if function is not None:
            self._hooks.append(function)
        _ = self.stop_requested
        if self._signals:
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._signals.append(number)
            try:
                loop.add_signal_handler(number, self._signalled)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._signalled))

    def _signalled(self) -> None:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        self._stopped = asyncio.ensure_future(self._end_orderly())

    async def _end_orderly(self) -> None:
        try:
            self.stopping()
        except Exception as e:  # noqa: BLE001 - the program ends all the same
            logger.warning("Cannot say that the program is stopping: %s", e)
        for hook in self._hooks:  # before the program closes the worker, which they may use
            try:
                await _result(hook())
            except Exception:  # noqa: BLE001 - the next one is as important
                logger.exception("A hook of on_shutdown has failed")
        self.stop_requested.set()


async def _result(value: Any) -> Any:
    """Wait for what a coroutine function has returned; other values are results."""
    return await value if inspect.isawaitable(value) else value


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, worker: AsyncWorker) -> None:
        self._worker = worker
        self.writable = True
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if not self.over.is_set():
            self._worker._received(data)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._worker._nudge()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if exc is not None:
            logger.info("Lost the connection to Perdure: %s", exc)
        self.over.set()
        self._worker._nudge()
