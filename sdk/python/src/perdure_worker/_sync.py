"""The worker for programs with threads, or with none."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import selectors
import signal
import socket
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional

from ._address import short
from ._base import BYE_TIMEOUT, MAX_CALLBACKS, Base, logger
from ._core import ClosedError, Command, Core, Message, OutboxFullError, RefusedError

MAX_COMMANDS = 16


class Worker(Base):
    """The program's end of the connection to Perdure.

    A thread of its own connects, again and again until the worker is closed, and
    sends the heartbeats that Perdure asks for, unless ``manual_heartbeat`` leaves
    them to the program's own calls, so that a program that hangs is noticed.
    ``stats_interval`` is how often, in seconds, measure is sent by itself;
    default: never. ``max_messages`` and ``max_bytes`` bound the outbox.
    ``on_message`` takes what somebody has sent that is no command, ``on_refused``
    a RefusedError for each message that Perdure has refused and that no
    emit_acked waits for; both run in a thread of their own, one call at a time.
    Commands run in a thread each, at most 16 at the same time.

    Everything comes from the environment that Perdure gives to a program; without
    it each call does nothing and succeeds. All methods may be called from any thread. A
    forked child has a worker of its own, with an empty outbox.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._reset()
        self.stop_requested = threading.Event()
        self._hooks: List[Callable[[], Any]] = []
        self._old_signals: Dict[int, Any] = {}
        _all.add(self)

    def _reset(self) -> None:
        """Make what belongs to this process, not to the one that it was forked from."""
        self._lock = self._change = threading.Condition(threading.RLock())
        self._thread: Optional[threading.Thread] = None
        self._wake_out: Optional[socket.socket] = None
        self._wake_in: Optional[socket.socket] = None
        self._sock: Optional[socket.socket] = None
        self._lazy = False  # start with the next call
        self._killed = False
        self._ended = False
        self._running = 0
        self._callbacks: "queue.Queue[Optional[Callable[[], Any]]]" = queue.Queue(MAX_CALLBACKS)
        self._caller: Optional[threading.Thread] = None

    def start(self) -> "Worker":
        """Let the worker connect. This does not wait for the connection. Commands
        are best set up before."""
        with self._lock:
            if self._address and self._thread is None:
                self._wake_out, self._wake_in = socket.socketpair()
                self._wake_out.setblocking(False)
                self._wake_in.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="perdure-worker", daemon=True)
                self._thread.start()
                self._caller = threading.Thread(target=self._call, name="perdure-callbacks", daemon=True)
                self._caller.start()
                atexit.register(_at_exit, weakref.ref(self))
        return self

    def __enter__(self) -> "Worker":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.close()

    # What waits.

    def emit_acked(self, event: str, data: Any = None, timeout: Optional[float] = None) -> None:
        """Emit an event and wait until it is durable; wait for room in the outbox
        as well. Raises RefusedError when Perdure does not take it, TimeoutError
        when the time is over: the event, if it was taken, is still delivered."""
        if not self._address:
            return
        end = None if timeout is None else time.monotonic() + timeout
        outcome: List[Optional[Exception]] = []

        def settled(error: Optional[Exception]) -> None:
            outcome.append(error)

        message = {"type": "event", "event": event, "data": {} if data is None else data}
        with self._change:
            while True:
                try:
                    self._put(message, settled)
                    break
                except OutboxFullError:
                    self._wait(end)
            while not outcome:
                self._wait(end)
        if outcome[0] is not None:
            raise outcome[0]

    def flush(self, timeout: Optional[float] = None) -> None:
        """Wait until everything that was accepted before is settled, and the latest
        status and progress are sent; TimeoutError when the time is over."""
        last = self._core.last
        self._until(lambda: self._core.flushed(last), timeout)

    def connected(self, timeout: Optional[float] = None) -> None:
        """Wait until Perdure has welcomed the worker and the connection stands."""
        self._until(lambda: self._core.welcomed, timeout)

    def metadata(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the metadata of the process, ``{}`` when there is none. Waits for
        the connection when the environment does not hold them (they are long or secret)."""
        if self._metadata is None and self._address:
            self._until(lambda: bool(self._core.welcome), timeout)
            return dict(self._core.welcome.get("metadata") or {})
        return dict(self._metadata or {})

    def _until(self, true: Callable[[], bool], timeout: Optional[float]) -> None:
        if not self._address:
            return
        end = None if timeout is None else time.monotonic() + timeout
        with self._change:
            self._nudge()
            while not true():
                self._wait(end)

    def _wait(self, end: Optional[float]) -> None:
        """Wait for a change. The lock is held."""
        if self._ended:
            raise ClosedError("the worker is closed")
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("Perdure has not answered in time")
        self._change.wait(left)

    def close(self, timeout: Optional[float] = None) -> None:
        """End in order: wait for commands that run and for the outbox, tell Perdure
        that the worker hangs up on purpose, and end the threads. ``timeout``
        bounds it; default: 5 s, or three quarters of the grace if that is less.
        What is not settled by then is lost, and WorkerError says how much. A later
        call does nothing."""
        with self._change:
            if not self._address or self._core.closing:
                return
            self._core.closing = True
            thread, end = self._thread, time.monotonic() + self._limit(timeout)
            while self._running and time.monotonic() < end:
                self._change.wait(end - time.monotonic())
            self._core.leaving = True
            self._nudge()
        if thread is not None:
            thread.join(max(0.0, end - time.monotonic()))
            self._killed = True
            self._nudge()
            thread.join()
            with contextlib.suppress(queue.Full):  # then it sees _ended
                self._callbacks.put_nowait(None)
            if self._caller is not None and self._caller is not threading.current_thread():
                self._caller.join(max(0.0, end - time.monotonic()))
        self._finish()

    def _finish(self) -> None:
        with self._change:
            self._ended = True
            for waiter, error in self._core.abandon():
                waiter(error)
            self._change.notify_all()
            for s in (self._wake_out, self._wake_in):
                if s is not None:
                    s.close()
            self._wake_out = self._wake_in = None
            lost = self._core.counters.waiting
        if lost:
            raise ClosedError(f"cannot deliver {lost} messages: Perdure has not settled them in time")

    def _nudge(self) -> None:
        if self._lazy:
            self._lazy = False
            self.start()
        if self._wake_in is None:
            return
        with contextlib.suppress(OSError):  # full: it wakes anyway
            self._wake_in.send(b".")

    # The thread that connects.

    def _run(self) -> None:
        while not self._over():
            before = self._core.counters.connections
            again = self._connect()
            with self._change:
                self._core.lost()
                pause = self._backoff.next(self._core.counters.connections > before, self._core.refusal)
            if not again:
                self._pause(pause)

    def _over(self) -> bool:
        with self._lock:
            return self._killed or self._core.over()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        assert self._wake_out is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            while not self._over():
                left = end - time.monotonic()
                if left <= 0:
                    return
                selector.select(left)
                self._drain()

    def _drain(self) -> None:
        assert self._wake_out is not None
        with contextlib.suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass

    def _connect(self) -> bool:
        """Make one connection and serve it to its end; say whether the next is to
        be made at once."""
        try:
            sock = dial(self._address.path, self._address.host, self._address.port)
        except OSError as e:
            logger.debug("Cannot connect to Perdure: %s", e)
            return False
        self._sock = sock
        try:
            return self._serve(sock)
        except OSError as e:
            logger.info("Lost the connection to Perdure: %s", e)
            return False
        finally:
            self._sock = None
            sock.close()

    def _serve(self, sock: socket.socket) -> bool:
        sock.setblocking(False)
        with self._lock:
            out = self._hello()
        patience = time.monotonic() + self._welcome_timeout
        welcomed = bye = half = False
        assert self._wake_out is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            selector.register(sock, selectors.EVENT_READ)
            while not self._killed:
                now = time.monotonic()
                with self._change:
                    if self._core.welcomed and not welcomed:
                        welcomed, patience = True, float("inf")
                        self._arm(now)
                    if welcomed and not bye and not out and self._unannounced():
                        return True
                    self._tick(now)
                    if not out and not bye:
                        out = self._core.next()
                        if not out and welcomed and self._core.over():
                            out, bye, patience = self._bye(), True, now + BYE_TIMEOUT
                        self._change.notify_all()
                if now >= patience:
                    return False
                if bye and not out and not half:
                    sock.shutdown(socket.SHUT_WR)
                    half = True
                selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0))
                due = min(self._beat_due, self._stats_due, patience)
                for key, events in selector.select(None if due == float("inf") else max(0.0, due - now)):
                    if key.fileobj is self._wake_out:
                        self._drain()
                        continue
                    if events & selectors.EVENT_READ and not self._receive(sock):
                        return False
                    if events & selectors.EVENT_WRITE and out:
                        with contextlib.suppress(BlockingIOError):
                            out = out[sock.send(out) :]
        return False

    def _receive(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(64 << 10)
        except BlockingIOError:
            return True
        if not data:
            return False
        with self._change:
            news = self._core.feed(data)
            self._change.notify_all()
        for n in news:
            self._tell(n)
        return True

    # What belongs to the program runs in threads of its own.

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
        try:
            self._callbacks.put_nowait(f)
        except queue.Full:
            with self._lock:
                self._core.counters.dropped += 1

    def _call(self) -> None:
        while not self._ended:
            f = self._callbacks.get()
            if f is None:
                return
            try:
                f()
            except Exception:  # noqa: BLE001 - it is the program's, and is told
                logger.exception("A callback of the worker has failed")

    def _obey(self, command: Command) -> None:
        with self._lock:
            function = self._commands.get(command.name)
            error = None
            if function is None:
                error = f'unknown command "{command.name}"'
            elif self._core.closing:
                error = "the program is about to end"
            elif self._running >= MAX_COMMANDS:
                error = f"the program is busy with {MAX_COMMANDS} commands"
            else:
                self._running += 1
        if function is None or error is not None:
            self._reply(command, None, error)
            return
        threading.Thread(target=self._do, args=(command, function), name="perdure-command", daemon=True).start()

    def _do(self, command: Command, function: Callable[[Any], Any]) -> None:
        try:
            data, error = function(command.data), None
        except Exception as e:  # noqa: BLE001 - it goes to whoever has sent the command
            data, error = None, str(e) or type(e).__name__
        self._reply(command, data, error)
        with self._change:
            self._running -= 1
            self._change.notify_all()

    # The end.

    def on_shutdown(self, function: Optional[Callable[[], Any]] = None) -> None:
        """From now on, SIGTERM and SIGINT ask the program to end instead of ending
        it: Perdure is told that the program is stopping, ``function`` is called in a
        thread of its own, and when it has returned ``stop_requested`` is set. The
        program ends by itself; a second signal ends it at once. To be called from
        the main thread."""
        if function is not None:
            self._hooks.append(function)
        for number in (signal.SIGTERM, signal.SIGINT):
            if number not in self._old_signals:
                self._old_signals[number] = signal.signal(number, self._signalled)

    def _signalled(self, *_: Any) -> None:
        # A handler may interrupt this very class: it only starts a thread.
        for number, old in self._old_signals.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
        threading.Thread(target=self._stop, name="perdure-stop").start()

    def _stop(self) -> None:
        try:
            self.stopping()
        except Exception as e:  # noqa: BLE001 - the program ends all the same
            logger.warning("Cannot say that the program is stopping: %s", e)
        for hook in self._hooks:  # before the program closes the worker, which they may use
            try:
                hook()
            except Exception:  # noqa: BLE001 - the next one is as important
                logger.exception("A hook of on_shutdown has failed")
        self.stop_requested.set()

    def _forked(self) -> None:
        """Begin anew in a forked child: the connection is the parent's, and so is
        what its outbox holds."""
        started = self._thread is not None
        for s in (self._sock, self._wake_out, self._wake_in):
            if s is not None:
                s.close()  # this process's copy
        closing = self._core.closing
        self._core = Core(self._core.max_messages, self._core.max_bytes)
        self._reset()
        self._core.closing = closing
        # Not at once: a child that has nothing to say must not send heartbeats.
        self._lazy = started and not closing


def dial(path: str, host: str, port: int) -> socket.socket:
    """Connect to Perdure."""
    if not path:
        return socket.create_connection((host, port), 10)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short(path) as p:
            sock.connect(p)
    except BaseException:
        sock.close()
        raise
    return sock


def _at_exit(ref: "weakref.ref[Worker]") -> None:
    worker = ref()
    if worker is not None:
        try:
            worker.close()
        except Exception as e:  # noqa: BLE001 - nobody is left to catch it
            logger.warning("%s", e)


_all: "weakref.WeakSet[Worker]" = weakref.WeakSet()


def _after_fork() -> None:
    for worker in list(_all):
        worker._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
