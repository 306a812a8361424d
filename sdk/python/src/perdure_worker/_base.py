"""What both workers have in common: all that a program says."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any, Callable, ContextManager, Dict, Mapping, Optional, TypeVar

from ._address import Address, find
from ._core import MAX_STATUS, Backoff, Command, Core, Counters, Identity, Waiter, clip, encode, now_ms
from ._stats import Meter

logger = logging.getLogger("perdure_worker")

F = TypeVar("F", bound=Callable[..., Any])

MAX_CALLBACKS = 256
CLOSE_TIMEOUT = 5.0
# How long Perdure may take to answer hello, and to hang up in the end.
WELCOME_TIMEOUT = 10.0
BYE_TIMEOUT = 2.0


class Base:
    """What a program says. Subclasses make the connection."""

    _lock: ContextManager[Any]

    def __init__(
        self,
        *,
        socket_path: Optional[str] = None,
        address: Optional[str] = None,
        token: Optional[str] = None,
        max_messages: int = 10_000,
        max_bytes: int = 8 << 20,
        manual_heartbeat: bool = False,
        stats_interval: Optional[float] = None,
        on_message: Optional[Callable[[Any], Any]] = None,
        on_refused: Optional[Callable[[Any], Any]] = None,
        close_timeout: Optional[float] = None,
        environ: Optional[Mapping[str, str]] = None,
    ) -> None:
        env = os.environ if environ is None else environ
        if max_messages < 1 or max_bytes < 1 or (stats_interval is not None and stats_interval <= 0):
            raise ValueError("max_messages, max_bytes and stats_interval must be above 0")
        self._address: Address = find(socket_path, address, token, env)
        generation = env.get("PERDURE_GENERATION", "")
        self.identity = Identity(env.get("PERDURE_ID", ""), env.get("PERDURE_NAME", ""), int(generation) if generation.isdigit() else 0)
        self._metadata = _object(env.get("PERDURE_METADATA"))
        self._core = Core(max_messages, max_bytes)
        self._manual = manual_heartbeat
        self._stats_interval = stats_interval
        self._on_message = on_message
        self._on_refused = on_refused
        self._close_timeout = close_timeout
        self._commands: Dict[str, Callable[[Any], Any]] = {}
        self._meter = Meter()
        self._backoff = Backoff()
        self._welcome_timeout = WELCOME_TIMEOUT
        self._beat_due = self._stats_due = float("inf")

    @property
    def supervised(self) -> bool:
        """Whether the program runs under Perdure; not whether the connection stands."""
        return bool(self._address)

    @property
    def grace(self) -> float:
        """Seconds between the signal that asks the program to stop and SIGKILL; 0
        while that is not known."""
        stop = self._core.welcome.get("stop") or {}
        return float(stop.get("graceMs", 0)) / 1000

    @property
    def counters(self) -> Counters:
        """What became of the messages so far."""
        with self._lock:
            return Counters(**vars(self._core.counters))

    def _nudge(self) -> None:
        raise NotImplementedError

    def _put(self, message: Dict[str, Any], waiter: Optional[Waiter] = None) -> None:
        if not self._address:
            return
        message["timestamp"] = now_ms()
        line = encode(message)
        with self._lock:
            self._core.add(message, line, waiter)
            self._nudge()

    def _say(self, slot: str, message: Dict[str, Any]) -> None:
        if not self._address:
            return
        message["timestamp"] = now_ms()
        line = encode(message)
        with self._lock:
            self._core.fill(slot, line)
            self._nudge()

    def emit(self, event: str, data: Any = None) -> None:
        """Put an event into the outbox and return: this never waits. ``data`` is
        what json makes of it; None stands for ``{}``. Raises OutboxFullError when
        there is no room, TypeError or ValueError for what JSON or Perdure cannot
        take."""
        self._put({"type": "event", "event": event, "data": {} if data is None else data})

    def ready(self) -> None:
        """Say that the program is ready to do its work. It goes through the
        outbox, as reloading, stopping, unhealthy and log do: they raise what emit
        raises."""
        self._put({"type": "ready"})

    def reloading(self) -> None:
        """Say that the program reads its configuration again; ready ends that."""
        self._put({"type": "reloading"})

    def stopping(self) -> None:
        """Say that the program has begun to end."""
        self._put({"type": "stopping"})

    def unhealthy(self, message: str = "") -> None:
        """Say that the program knows that it is broken: it is treated as one whose
        heartbeats have failed."""
        self._put({"type": "unhealthy", "message": message})

    def log(self, level: str, message: str, data: Optional[Mapping[str, Any]] = None) -> None:
        """Send a structured line of log; the level is debug, info, warn or error."""
        line: Dict[str, Any] = {"type": "log", "level": level, "message": message}
        if data is not None:
            line["data"] = dict(data)
        self._put(line)

    def handler(self, level: int = logging.INFO) -> logging.Handler:
        """Return a handler for the module logging that sends each record as log
        does. A record that the outbox has no room for is counted and given up:
        logging never waits."""
        return LogHandler(self, level)

    def status(self, text: str) -> None:
        """Say in one line what the program does. Only the latest counts."""
        self._say("status", {"type": "status", "status": clip(text, MAX_STATUS)})

    def progress(self, percent: float, message: Optional[str] = None, data: Optional[Mapping[str, Any]] = None) -> None:
        """Say how far the program is, in percent from 0 to 100, and what it is at.
        Only the latest counts."""
        line: Dict[str, Any] = {"type": "progress", "percent": percent}
        if message:
            line["message"] = message
        if data is not None:
            line["data"] = dict(data)
        self._say("progress", line)

    def extend(self, seconds: float) -> None:
        """Say that the program needs this much longer, from now, to become ready or to stop."""
        if seconds < 0.001:
            raise ValueError("cannot extend by less than a millisecond")
        self._say("extend", {"type": "extend", "timeoutMs": int(seconds * 1000)})

    def stats(self, stats: Optional[Mapping[str, Any]] = None) -> None:
        """Send what the program uses: what measure returns, or an object of the
        program's own."""
        self._say("stats", {"type": "stats", "stats": self.measure() if stats is None else dict(stats)})

    def measure(self) -> Dict[str, Any]:
        """Return what this process uses: CPU, memory, threads. Perdure measures
        the process with all its children by itself."""
        return self._meter.measure()

    def heartbeat(self) -> None:
        """Say that the program gets on with its work. This never waits and may be
        called as often as one likes: one within a quarter of the interval that
        Perdure asks for is not sent."""
        if not self._address:
            return
        with self._lock:
            self._core.beat_by_hand(time.monotonic())
            self._nudge()

    def command(self, name: str) -> Callable[[F], F]:
        """Set up, as a decorator, what the program does when Perdure gives it the
        command: the function gets the data and returns the data of the reply. What
        it raises goes, as text, to whoever has sent the command."""

        def set_up(function: F) -> F:
            with self._lock:
                self._commands[name] = function
                if self._address:
                    self._nudge()
            return function

        return set_up

    def _reply(self, command: Command, data: Any, error: Optional[str]) -> None:
        message: Dict[str, Any] = {"type": "reply", "to": command.id}
        if error is not None:
            message["error"] = error
        elif data is not None:
            message["data"] = data
        try:
            self._put(message)
        except (TypeError, ValueError, RecursionError) as e:  # the data cannot be sent: that can be told
            self._reply(command, None, f"cannot send the reply: {e}")
        except Exception as e:  # noqa: BLE001 - whoever waits for it learns that its outcome is unknown
            logger.warning("Cannot reply to the command %s: %s", command.name, e)

    # Heartbeats and stats that are sent by themselves. The lock is held.

    def _arm(self, now: float) -> None:
        """Begin with a connection that was welcomed."""
        wish = self._core.welcome.get("heartbeat")
        self._beat_due = now if wish and wish.get("intervalMs", 0) > 0 and not self._manual else float("inf")
        self._stats_due = now if self._stats_interval else float("inf")

    def _tick(self, now: float) -> None:
        """Put what is due into its slot."""
        if now >= self._beat_due:
            self._core.beat(now)
            self._beat_due = now + self._core.welcome["heartbeat"]["intervalMs"] / 1000
        if now >= self._stats_due and self._stats_interval:
            self._core.fill("stats", encode({"type": "stats", "stats": self.measure(), "timestamp": now_ms()}))
            self._stats_due = now + self._stats_interval

    def _bye(self) -> bytes:
        return encode({"type": "disconnecting", "timestamp": now_ms()})

    def _hello(self) -> bytes:
        self._beat_due = self._stats_due = float("inf")  # until it is welcomed
        return self._core.hello(self._address.token, bool(self._commands))

    def _unannounced(self) -> bool:
        """Say whether commands were set up after hello: then it is said anew, on
        a new connection."""
        return bool(self._commands) and not self._core.told

    def _limit(self, timeout: Optional[float]) -> float:
        """Return how long closing may take."""
        if timeout is not None:
            return timeout
        if self._close_timeout is not None:
            return self._close_timeout
        return min(CLOSE_TIMEOUT, self.grace * 0.75) if self.grace else CLOSE_TIMEOUT


def _object(text: Optional[str]) -> Optional[Dict[str, Any]]:
    """Read a JSON object; what is none is nothing."""
    try:
        value = json.loads(text) if text else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# What every record has; the rest is what the program has added with "extra".
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogHandler(logging.Handler):
    """Sends records of the module logging to Perdure."""

    def __init__(self, worker: Base, level: int) -> None:
        super().__init__(level)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == logger.name:
            return  # it is about this very connection
        try:
            data: Dict[str, Any] = {"logger": record.name}
            if record.exc_info:
                data["exception"] = logging.Formatter().formatException(record.exc_info)
            for key, value in vars(record).items():
                if key not in _PLAIN:
                    data[key] = _plain(value)
            self._worker.log(_level(record.levelno), record.getMessage(), data)
        except Exception:  # noqa: BLE001 - logging must not break the program; a full outbox is counted
            pass


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    return "info" if number >= logging.INFO else "debug"
