"""A scripted Perdure on a real socket, and the transcripts of the protocol."""

import asyncio
import contextlib
import json
import pathlib
import shutil
import socket
import struct
import sys
import tempfile
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "sdk" / "python" / "src"))

from perdure_worker import AsyncWorker, Worker  # noqa: E402
from perdure_worker._core import Backoff  # noqa: E402

# Ends a test that waits for what does not come; nothing depends on how long it is.
PATIENCE = 60.0


class Perdure:
    """One scripted server; the current connection is the one accepted last."""

    def __init__(self, path=None, tcp=False):
        self.folder = None
        if tcp:
            self.path = None
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
        else:
            if path is None:
                self.folder = tempfile.mkdtemp()
                path = self.folder + "/w.sock"
            self.path = path
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
        self.listener.listen(8)
        self.listener.settimeout(PATIENCE)
        self.conn = None
        self.input = None

    def options(self):
        if self.path:
            return {"socket_path": self.path}
        return {"address": "127.0.0.1:%d" % self.listener.getsockname()[1]}

    def close(self):
        self.hang_up()
        self.listener.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def accept(self):
        self.hang_up()
        self.conn, _ = self.listener.accept()
        self.conn.settimeout(PATIENCE)
        self.input = self.conn.makefile("rb")

    def hang_up(self):
        if self.conn:
            self.input.close()
            self.conn.close()
            self.conn = None

    def reset(self):
        if self.path is None:  # a close is then a reset
            self.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()

    def line(self):
        line = self.input.readline()
        if not line.endswith(b"\n"):
            raise AssertionError("the connection has ended, after %r" % line)
        return line

    def message(self):
        return json.loads(self.line())

    def write(self, *messages):
        self.conn.sendall(b"".join(json.dumps(m).encode() + b"\n" for m in messages))

    def greet(self, last=0, **more):
        """Take hello of the next connection, and welcome it."""
        self.accept()
        hello = self.message()
        assert hello["type"] == "hello", hello
        self.write({"type": "welcome", "version": 1, "last": last, "maxLine": 1 << 20, "capabilities": [], **more})
        return hello

    def end(self):
        """Expect the end of what the worker sends."""
        rest = self.input.read()
        assert rest == b"", rest

    def farewell(self):
        m = self.message()
        assert m["type"] == "disconnecting", m
        self.end()
        self.hang_up()


def quick(worker):
    """Make a worker try again at once, as tests that lose connections want it."""
    worker._backoff = Backoff(0.001, 0.005, PATIENCE)
    worker._welcome_timeout = PATIENCE
    return worker


class Sync:
    """A Worker."""

    def __init__(self, **options):
        self.worker = quick(Worker(**options))

    def run(self, name, *args, **kwargs):
        """Call a method, and wait for it if it waits."""
        return getattr(self.worker, name)(*args, **kwargs)

    def later(self, name, *args, **kwargs):
        """Call a method that waits in a thread; the result waits for it."""
        return Later(lambda: self.run(name, *args, **kwargs))

    def wait(self, true):
        self.worker._until(true, PATIENCE)

    def set_up(self, name, function):
        self.worker.command(name)(function)

    def done(self):
        with contextlib.suppress(Exception):
            self.worker.close(0)


class Later:
    """A call in a thread of its own."""

    def __init__(self, f):
        self.outcome = None
        self.error = None
        self.thread = threading.Thread(target=self.call, args=(f,))
        self.thread.start()

    def call(self, f):
        try:
            self.outcome = f()
        except BaseException as e:  # it is raised again by result
            self.error = e

    def result(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "it does not return"
        if self.error:
            raise self.error
        return self.outcome


class Aio:
    """An AsyncWorker, whose loop runs in a thread."""

    def __init__(self, **options):
        self.worker = quick(AsyncWorker(**options))
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, name, *args, **kwargs):
        return self.later(name, *args, **kwargs).result(PATIENCE)

    def later(self, name, *args, **kwargs):
        async def call():
            outcome = getattr(self.worker, name)(*args, **kwargs)
            return await outcome if asyncio.iscoroutine(outcome) else outcome

        return asyncio.run_coroutine_threadsafe(call(), self.loop)

    def set_up(self, name, function):
        async def call():
            self.worker.command(name)(function)

        asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def wait(self, true):
        asyncio.run_coroutine_threadsafe(self.worker._until(true, PATIENCE), self.loop).result(PATIENCE)

    def done(self):
        with contextlib.suppress(Exception):
            self.run("close", 0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Case(unittest.TestCase):
    """A test with scripted servers and workers that end with it."""

    def perdure(self, *args, **kwargs):
        p = Perdure(*args, **kwargs)
        self.addCleanup(p.close)
        return p

    def begin(self, kind, start=True, **options):
        w = kind(**options)
        self.addCleanup(w.done)
        if start:
            w.run("start")
        return w

    def closing(self, w, server):
        """Close the worker while the server goes on."""
        closed = w.later("close", PATIENCE)
        server()
        closed.result()

    def both(self):
        """Run what follows for both workers."""
        for kind in (Sync, Aio):
            with self.subTest(kind.__name__):
                yield kind


class Player:
    """Plays one transcript of internal/wire/testdata against a worker."""

    def __init__(self, case, kind, perdure):
        self.case, self.kind, self.p = case, kind, perdure
        self.w = case.begin(kind, start=False, **perdure.options())
        self.bound = {}
        self.closed = None

    def play(self, text):
        for number, line in enumerate(text.split("\n"), 1):
            if not line or line.startswith("#"):
                continue
            mark, _, rest = line.partition(" ")
            try:
                self.step(mark, rest)
            except Exception as e:
                raise AssertionError("line %d, %s: %r" % (number, line, e)) from e
        self.closed.result()

    def step(self, mark, rest):
        if mark == "@":
            self.call(*(rest.split(" ", 1) + [""])[:2])
        elif mark == "=":
            self.p.accept()
        elif mark == ">":
            self.match("", json.loads(rest), self.p.message())
        elif mark == ">fin":
            self.p.end()
        elif mark == "<":
            m = self.fill(json.loads(rest))
            if m.pop("...", None):
                m = {"processId": "proc_1", "name": "w", "generation": 1, "maxLine": 1 << 20, "capabilities": [], **m}
            self.p.write(m)
        elif mark == "<raw":
            self.p.conn.sendall(json.loads(rest).encode("latin-1"))
        elif mark == "<fin":
            self.p.hang_up()
        elif mark not in "*!":
            raise AssertionError("a mark that clients do not know")

    def call(self, verb, rest):
        if verb in ("command", "fail"):
            name, _, data = rest.partition(" ")
            value = json.loads(data)

            def function(_):
                if verb == "fail":
                    raise RuntimeError(value)
                return value

            self.w.set_up(name, function)
        elif verb == "start":
            self.w.run("start")
        elif verb == "emit":
            name, _, data = rest.partition(" ")
            self.w.run("emit", name, json.loads(data))
        elif verb == "settled":
            self.w.wait(lambda: not any(i.id <= int(rest) for i in (*self.w.worker._core.out, *self.w.worker._core.queue)))
        elif verb == "lost":
            self.p.reset()
        elif verb == "close":
            self.closed = self.w.later("close", PATIENCE)
        elif verb == "log":
            level, _, data = rest.partition(" ")
            self.w.run("log", level, *values(data))
        elif verb == "extend":
            self.w.run("extend", int(rest) / 1000)
        else:  # heartbeat, stats, ready, reloading, stopping, status, progress, unhealthy
            self.w.run(verb, *values(rest))

    def match(self, at, want, got):
        if isinstance(want, dict):
            assert isinstance(got, dict), (at, want, got)
            more = "..." in want
            for k, v in want.items():
                if k != "...":
                    assert k in got, (at, k, got)
                    self.match(at + "." + k, v, got[k])
            assert more or set(got) == set(want), (at, want, got)
        elif isinstance(want, list):
            assert isinstance(got, list) and len(got) == len(want), (at, want, got)
            for i, v in enumerate(want):
                self.match("%s[%d]" % (at, i), v, got[i])
        elif want == "<number>":
            assert isinstance(got, (int, float)), (at, got)
        elif want == "<string>":
            assert isinstance(got, str), (at, got)
        elif isinstance(want, str) and want.startswith("<string:"):
            assert got == self.bound.setdefault(want, got), (at, got)
        else:
            assert want == got, (at, want, got)

    def fill(self, v):
        if isinstance(v, dict):
            return {k: self.fill(x) for k, x in v.items()}
        if isinstance(v, list):
            return [self.fill(x) for x in v]
        if v == "<number>":
            return 1754000000000
        if v == "<string>":
            return "some-text"
        if isinstance(v, str) and v.startswith("<string:"):
            return self.bound.setdefault(v, "text-" + v[8:-1])
        return v


def values(text):
    """The JSON values of a line, one after the other."""
    out, decoder = [], json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        out.append(value)
        text = text[end:].lstrip()
    return out
