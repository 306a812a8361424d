"""The protocol without input and output: what is kept, what goes out next, and
what becomes of what comes in. docs/reference/wire.md of Perdure specifies it.

Nothing here waits, and nothing here is safe for threads: the worker that owns a
Core guards it.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from ._version import __version__

MAX_LINE = 1 << 20
MAX_DEPTH = 200
MAX_STATUS = 4096
BATCH = 64 << 10
# The most that the field "id" adds to a line.
_ID_FIELD = len(',"id":9007199254740991')

# The messages of which only the latest counts, in the order in which they go
# out. They do not wait behind the outbox.
SLOTS = ("heartbeat", "extend", "status", "progress", "stats")


class WorkerError(Exception):
    """What went wrong between the program and Perdure."""


class OutboxFullError(WorkerError):
    """The outbox has no room: nothing was taken, and the refusal is counted."""


class ClosedError(WorkerError):
    """The worker was closed before."""


class RefusedError(WorkerError):
    """Perdure refused a message for good, durably. It is not sent again.

    ``code`` is that of the protocol, such as ``invalid``; ``reason`` is for
    people; ``sent`` is the message.
    """

    def __init__(self, code: str, reason: str, sent: Dict[str, Any]) -> None:
        super().__init__(f"refused by Perdure: {reason} ({code})")
        self.code = code
        self.reason = reason
        self.sent = sent


@dataclass(frozen=True)
class Identity:
    """Who the program is to Perdure. The id is stable over restarts of the
    program; the generation counts them, from 1, and is 0 without supervision."""

    id: str
    name: str
    generation: int


@dataclass
class Counters:
    """What became of the messages of a worker.

    ``waiting`` messages, ``waiting_bytes`` long, are in the outbox. ``settled``
    are durable or were refused, of which ``refused`` were refused. ``full`` is
    how often the outbox had no room. ``dropped`` were given up: statuses,
    progresses, stats and heartbeats that a later one replaced before they could
    be sent, and callbacks that were too many. ``connections`` is how often
    Perdure has welcomed the worker.
    """

    waiting: int = 0
    waiting_bytes: int = 0
    settled: int = 0
    refused: int = 0
    full: int = 0
    dropped: int = 0
    connections: int = 0


# What waits for a message is told once: None, or why the message was not taken.
Waiter = Callable[[Optional[Exception]], None]


@dataclass
class Item:
    """One message that is not settled."""

    id: int
    line: bytes
    waiter: Optional[Waiter]
    error: Optional[RefusedError] = None


@dataclass
class Command:
    """What Perdure asks the program to do."""

    id: str
    name: str
    data: Any
    timeout: float  # seconds


@dataclass
class Message:
    """What somebody has sent to the program that is no command."""

    data: Any


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def encode(message: Dict[str, Any]) -> bytes:
    """Return the line of a message. Whatever Perdure would not take raises here."""
    text = json.dumps(message, allow_nan=False, separators=(",", ":"))
    if len(text) + _ID_FIELD > MAX_LINE:  # it is ASCII
        raise ValueError(f"cannot send {message['type']}: the message has {len(text)} bytes, {MAX_LINE} at most are taken")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(text) > MAX_DEPTH:
        raise ValueError(f"cannot send {message['type']}: the data is nested deeper than {MAX_DEPTH}")
    return text.encode("ascii") + b"\n"


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def depth(text: str) -> int:
    """Return how deep the objects and arrays of a JSON text are nested."""
    deepest = now = 0
    for c in _STRING.sub("", text):
        if c in "[{":
            now += 1
            deepest = max(deepest, now)
        elif c in "]}":
            now -= 1
    return deepest


def clip(text: str, limit: int) -> str:
    """Cut text to at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


class Core:
    """The state of one worker over all its connections."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.instance = secrets.token_hex(12)
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.counters = Counters()
        self.closing = False  # nothing new is taken but replies
        self.leaving = False  # and no command runs any more that could reply
        self.last = 0  # the highest id given
        self.out: Deque[Item] = deque()  # sent on this connection
        self.queue: Deque[Item] = deque()  # not sent on it
        self.slots: Dict[str, bytes] = {}
        self.pending: Dict[str, bool] = {}
        self.welcomed = False  # on this connection
        self.welcome: Dict[str, Any] = {}  # the last one, kept over a loss; empty before the first
        self.refusal = ""  # the error that hello was answered with
        self.told = False  # hello has said that commands are taken
        self.beat_at = 0.0
        self._rest = bytearray()

    # What the program says.

    def add(self, message: Dict[str, Any], line: bytes, waiter: Optional[Waiter] = None) -> None:
        """Put a message into the outbox; line is what encode makes of it."""
        size = len(line) + _ID_FIELD
        if size > self.max_bytes:
            raise ValueError(f"cannot take a message of {size} bytes into an outbox of {self.max_bytes}")
        if self.closing and message["type"] != "reply":
            raise ClosedError("the worker is closed")
        c = self.counters
        if c.waiting >= self.max_messages or c.waiting_bytes + size > self.max_bytes:
            c.full += 1
            raise OutboxFullError("the outbox is full")
        self.last += 1
        line = b'%s,"id":%d}\n' % (line[:-2], self.last)
        self.queue.append(Item(self.last, line, waiter))
        c.waiting += 1
        c.waiting_bytes += len(line)

    def fill(self, slot: str, line: bytes) -> None:
        """Take a message of which only the latest counts."""
        if self.pending.get(slot):
            self.counters.dropped += 1
        self.slots[slot] = line
        self.pending[slot] = True

    def beat(self, at: float) -> None:
        """Take a heartbeat; at is a monotonic time."""
        self.beat_at = at
        self.fill("heartbeat", encode({"type": "heartbeat", "timestamp": now_ms()}))

    def beat_by_hand(self, at: float) -> None:
        """Take a heartbeat of the program's, unless one has just been sent."""
        wish = self.welcome.get("heartbeat")
        if not wish or at - self.beat_at >= wish["intervalMs"] / 4000:
            self.beat(at)

    # What goes out.

    def hello(self, token: str, commands: bool) -> bytes:
        """Begin a connection."""
        self._rest.clear()
        self.refusal = ""
        self.told = commands
        message: Dict[str, Any] = {"type": "hello", "version": 1, "instance": self.instance, "sdk": "python/" + __version__}
        if token:
            message["token"] = token
        if commands:
            message["capabilities"] = ["commands"]
        return encode(message)

    def next(self) -> bytes:
        """Return what is to be written now, in about one batch."""
        if not self.welcomed:
            return b""
        parts: List[bytes] = []
        for slot in SLOTS:
            if self.pending.get(slot):
                self.pending[slot] = False
                parts.append(self.slots[slot])
        size = 0
        while self.queue and size < BATCH:
            item = self.queue.popleft()
            self.out.append(item)
            parts.append(item.line)
            size += len(item.line)
        return b"".join(parts)

    def over(self) -> bool:
        """Say whether the worker is closed and nothing is left to be said."""
        return self.leaving and self.flushed()

    def flushed(self, last: Optional[int] = None) -> bool:
        """Say whether everything up to an id is settled, and the latest of what
        the program says of itself is sent."""
        if any(self.pending.get(s) for s in ("extend", "status", "progress")):
            return False
        first = self.out[0] if self.out else self.queue[0] if self.queue else None
        return first is None or (last is not None and first.id > last)

    # What comes in.

    def feed(self, data: bytes) -> List[Any]:
        """Take bytes of Perdure, and return what the program is to be told: a
        Command, a Message or a RefusedError that nobody waits for."""
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > 2 * MAX_LINE:  # no Perdure sends such a line
                self._rest.clear()
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        news: List[Any] = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                try:
                    self._take(message, news)
                except (KeyError, TypeError, ValueError):
                    continue  # a field is not as this version knows it
        return news

    def _take(self, m: Dict[str, Any], news: List[Any]) -> None:
        kind = m.get("type")
        if kind == "ack":
            self._settle(int(m["id"]))
        elif kind == "welcome" and not self.welcomed:
            self._welcome(m, news)
        elif kind == "error":
            self._refused(m, news)
        elif kind == "command":
            news.append(Command(str(m["id"]), str(m["command"]), m.get("data"), float(m.get("timeoutMs") or 0) / 1000))
        elif kind == "message":
            news.append(Message(m.get("data")))

    def _welcome(self, m: Dict[str, Any], news: List[Any]) -> None:
        last, limit = int(m["last"]), int(m.get("maxLine") or MAX_LINE)
        self.welcomed = True
        self.welcome = m
        self.counters.connections += 1
        self._settle(last)
        while self.out:  # all of it is sent again
            self.queue.appendleft(self.out.pop())
        for item in [i for i in self.queue if len(i.line) - 1 > limit]:
            # Perdure would skip it, and never settle it.
            self._mark(item, "too_long", f"the message has {len(item.line) - 1} bytes, and this Perdure takes {limit}", news)
            self.queue.remove(item)
            self._done(item)
        for slot in ("status", "progress"):
            # A Perdure that was killed may not have kept the latest one.
            self.pending[slot] = slot in self.slots

    def _settle(self, last: int) -> None:
        for items in (self.out, self.queue):
            while items and items[0].id <= last:
                self._done(items.popleft())

    def _done(self, item: Item) -> None:
        self.counters.waiting -= 1
        self.counters.waiting_bytes -= len(item.line)
        self.counters.settled += 1
        if item.waiter:
            item.waiter(item.error)

    def _refused(self, m: Dict[str, Any], news: List[Any]) -> None:
        ident = m.get("id")
        if ident is None:
            if not self.welcomed:
                self.refusal = str(m["code"])
            return
        for item in self.out:
            if item.id == ident:
                self._mark(item, str(m["code"]), str(m.get("message", "")), news)
                return

    def _mark(self, item: Item, code: str, reason: str, news: List[Any]) -> None:
        self.counters.refused += 1
        item.error = RefusedError(code, reason, json.loads(item.line))
        if item.waiter is None:
            news.append(item.error)

    def lost(self) -> None:
        """The connection is over."""
        self.welcomed = False

    def abandon(self) -> List[Tuple[Waiter, Exception]]:
        """Return whom to let go at the end, and why; the messages stay counted."""
        gone: List[Tuple[Waiter, Exception]] = []
        for item in (*self.out, *self.queue):
            if item.waiter:
                gone.append((item.waiter, ClosedError("the worker is closed")))
                item.waiter = None
        return gone


class Backoff:
    """The waits between two tries to connect, in seconds."""

    def __init__(self, first: float = 0.1, most: float = 2.0, denied: float = 30.0) -> None:
        self._first, self._most, self._denied = first, most, denied
        self._pause = first

    def next(self, welcomed: bool, refusal: str) -> float:
        """Return the wait after a connection that was, or was not, welcomed."""
        if welcomed:
            self._pause = self._first
        pause, self._pause = self._pause, min(2 * self._pause, self._most)
        if refusal in ("denied", "version"):
            return self._denied
        return pause * random.uniform(0.5, 1.5)
