import contextlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from _script import PATIENCE, ROOT, Aio, Case, Perdure, Sync
from perdure_worker import ClosedError, OutboxFullError, RefusedError, Worker
from perdure_worker._core import Backoff, depth


def setUpModule():
    logging.getLogger("perdure_worker").setLevel(logging.CRITICAL)


class Unsupervised(Case):
    def test_everything_succeeds(self):
        for kind in self.both():
            w = self.begin(kind, environ={})
            for call in (["emit", "a", 1], ["emit_acked", "a"], ["ready"], ["reloading"], ["stopping"], ["unhealthy", "x"], ["status", "x"],
                         ["progress", 1], ["extend", 1], ["stats"], ["log", "info", "x"], ["heartbeat"], ["flush"], ["connected"], ["close"], ["close"]):
                w.run(*call)
            self.assertEqual(w.run("metadata"), {})
            self.assertFalse(w.worker.supervised)
            self.assertEqual(w.worker.counters.waiting, 0)
            self.assertGreater(w.worker.measure()["cpu"]["user"], 0)

    def test_environment(self):
        for kind in self.both():
            env = {"PERDURE_WORKER_ADDRESS": "127.0.0.1:7", "PERDURE_WORKER_TOKEN": "t", "PERDURE_ID": "i", "PERDURE_NAME": "n",
                   "PERDURE_GENERATION": "3", "PERDURE_METADATA": '{"file":"a"}'}
            w = self.begin(kind, start=False, environ=env)
            self.assertEqual((w.worker._address.port, w.worker._address.token), (7, "t"))
            self.assertEqual((w.worker.identity.id, w.worker.identity.name, w.worker.identity.generation), ("i", "n", 3))
            self.assertEqual(w.run("metadata"), {"file": "a"})
            with self.assertRaisesRegex(ValueError, "127.0.0.1:7070"):
                kind(address="nonsense", environ={}).done()
            with self.assertRaisesRegex(ValueError, "max_messages"):
                kind(max_messages=0, environ={}).done()


class Connection(Case):
    def test_perdure_comes_later(self):
        """P25: the first try may fail, and no number of failures ends the tries."""
        for kind in self.both():
            folder = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, folder)
            w = self.begin(kind, socket_path=folder + "/w.sock")
            w.run("emit", "early")
            for last in (0, 1):
                p = Perdure(folder + "/w.sock")
                self.addCleanup(p.close)
                p.greet(last)
                if last == 0:
                    m = p.message()
                    self.assertEqual((m["event"], m["id"], m["data"]), ("early", 1, {}))
                    p.write({"type": "ack", "id": 1})
                    w.run("flush", PATIENCE)
                    p.close()
                    os.remove(folder + "/w.sock")
            w.run("connected", PATIENCE)
            self.closing(w, p.farewell)
            self.assertEqual((w.worker.counters.connections, w.worker.counters.settled), (2, 1))

    def test_replay_through_losses(self):
        """P24: a Perdure that dies at random moments gets each event once, in order."""
        events = 3000
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, max_messages=500, **p.options())

            def emit():
                for n in range(events):
                    while True:
                        try:
                            w.run("emit", "n", n)
                            break
                        except OutboxFullError:
                            w.run("flush", PATIENCE)
                w.run("flush", PATIENCE)

            emitter = threading.Thread(target=emit)
            emitter.start()
            chance, last, losses = random.Random(1), 0, 0
            while last < events:
                p.greet(last)
                while last < events:
                    m = p.message()
                    if m["id"] > last:
                        self.assertEqual((m["id"], m["data"]), (last + 1, last))
                        last = m["id"]
                    p.write({"type": "ack", "id": last})
                    if chance.randrange(200) == 0:
                        losses += 1
                        p.reset()
                        break
            emitter.join(PATIENCE)
            self.assertFalse(emitter.is_alive())
            self.assertGreater(losses, 3)
            self.assertEqual((w.worker.counters.settled, w.worker.counters.waiting), (events, 0))
            self.closing(w, p.farewell)

    def test_long_path(self):
        for kind in self.both():
            folder = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, folder)
            deep = os.path.join(folder, "d" * 120, "e" * 120)
            os.makedirs(deep)
            fd = os.open(deep, os.O_RDONLY)
            p = self.perdure("/proc/self/fd/%d/w.sock" % fd)
            w = self.begin(kind, socket_path=deep + "/w.sock")
            p.greet()
            self.closing(w, p.farewell)
            os.close(fd)

    def test_token_is_for_tcp_alone(self):
        for kind in self.both():
            for tcp in (True, False):
                p = self.perdure(tcp=tcp)
                w = self.begin(kind, token="secret", **p.options())
                self.assertEqual(p.greet().get("token"), "secret" if tcp else None)
                self.closing(w, p.farewell)

    def test_denied_waits_longer(self):
        for kind in self.both():
            for code in ("denied", "version"):
                p = self.perdure()
                w = self.begin(kind, start=False, **p.options())
                w.worker._backoff = Backoff(3600, 3600, 0.001)  # only the wait after a refusal is short
                w.run("start")
                p.accept()
                p.line()
                p.write({"type": "error", "code": code, "message": "go away"})
                p.reset()
                p.greet()
                self.closing(w, p.farewell)

    def test_backoff(self):
        b = Backoff()
        for want in (0.1, 0.2, 0.4, 0.8, 1.6, 2, 2):
            got = b.next(False, "")
            self.assertTrue(want * 0.5 <= got <= want * 1.5, got)
        self.assertLessEqual(b.next(True, ""), 0.15)
        self.assertEqual(b.next(False, "denied"), 30)

    def test_no_welcome_is_tried_again(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, start=False, **p.options())
            w.worker._welcome_timeout = 0.001
            w.run("start")
            for _ in range(3):
                p.accept()
                p.input.read()  # its hello, if the time was enough for that, and the end

    def test_metadata_of_the_welcome(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, environ={}, **p.options())
            with self.assertRaises(TimeoutError):
                w.run("metadata", 0)
            p.greet(metadata={"file": "b"}, stop={"graceMs": 1500})
            self.assertEqual(w.run("metadata", PATIENCE), {"file": "b"})
            self.assertEqual(w.worker.grace, 1.5)
            self.closing(w, p.farewell)

    def test_status_outlives_perdure(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, start=False, **p.options())
            for call in (["status", "old"], ["status", "new"], ["progress", 50, "half"], ["start"]):
                w.run(*call)
            for _ in range(2):
                p.greet()
                self.assertEqual([p.message().get(k) for k in ("status", "percent")], ["new", 50])
                p.reset()
            self.assertEqual(w.worker.counters.dropped, 1)


class Outbox(Case):
    def test_it_is_bounded(self):
        for kind in self.both():
            folder = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, folder)
            w = self.begin(kind, socket_path=folder + "/w.sock", max_messages=2, max_bytes=1000)
            with self.assertRaisesRegex(ValueError, "1000"):
                w.run("emit", "a", "x" * 2000)
            w.run("emit", "a", 1)
            w.run("emit", "a", 2)
            with self.assertRaises(OutboxFullError):
                w.run("emit", "a", 3)
            with self.assertRaises(TimeoutError):
                w.run("emit_acked", "a", 3, timeout=0)
            self.assertEqual((w.worker.counters.waiting, w.worker.counters.full), (2, 2))
            acked = w.later("emit_acked", "a", 3, timeout=PATIENCE)  # it waits for room
            p = self.perdure(folder + "/w.sock")
            p.greet()
            for n in (1, 2, 3):
                m = p.message()
                self.assertEqual((m["id"], m["data"]), (n, n))
                p.write({"type": "ack", "id": n})
            acked.result()
            self.closing(w, p.farewell)
            with self.assertRaises(ClosedError):
                w.run("emit", "a")
            with self.assertRaises(ClosedError):
                w.run("connected", PATIENCE)

    def test_bytes_bound_it(self):
        for kind in self.both():
            w = self.begin(kind, socket_path="/nowhere/w.sock", max_bytes=1000)
            with self.assertRaises(OutboxFullError):
                for _ in range(100):
                    w.run("emit", "a", "x" * 100)
            self.assertTrue(3 < w.worker.counters.waiting < 10)
            self.assertLessEqual(w.worker.counters.waiting_bytes, 1000)

    def test_what_cannot_be_sent_raises(self):
        deep = []
        for _ in range(199):
            deep = [deep]
        for kind in self.both():
            w = self.begin(kind, socket_path="/nowhere/w.sock")
            for error, call in ((ValueError, ["emit", "a", "x" * (1 << 20)]), (TypeError, ["emit", "a", object()]), (ValueError, ["emit", "a", deep]),
                                (ValueError, ["emit", "a", float("nan")]), (ValueError, ["progress", float("inf")]), (ValueError, ["extend", 0])):
                with self.assertRaises(error, msg=call[:2]):
                    w.run(*call)
            w.run("emit", "a", deep[0])
            w.run("emit", "a", "[" * 500)
            self.assertEqual(w.worker.counters.waiting, 2)
        self.assertEqual(depth(json.dumps(["[\"[{", {"a\\": [1]}])), 3)

    def test_refusals(self):
        for kind in self.both():
            refused = []
            got = threading.Event()

            def on_refused(error):
                refused.append(error)
                got.set()

            p = self.perdure()
            w = self.begin(kind, on_refused=on_refused, **p.options())
            p.greet()
            acked = w.later("emit_acked", "a", 1)
            p.message()
            p.write({"type": "error", "code": "invalid", "message": "no", "id": 1}, {"type": "ack", "id": 1})
            with self.assertRaisesRegex(RefusedError, "no") as caught:
                acked.result()
            self.assertEqual((caught.exception.code, caught.exception.sent["event"]), ("invalid", "a"))
            w.run("emit", "b")
            p.message()
            p.write({"type": "error", "code": "invalid", "message": "no", "id": 2}, {"type": "ack", "id": 2})
            self.assertTrue(got.wait(PATIENCE))
            got.clear()
            w.run("flush", PATIENCE)
            w.run("emit", "c", "x" * 500)
            p.message()
            p.reset()
            p.greet(2, maxLine=300)  # Perdure would skip it, and never settle it
            self.assertTrue(got.wait(PATIENCE))
            self.assertEqual([e.code for e in refused], ["invalid", "too_long"])
            self.closing(w, p.farewell)
            self.assertEqual((w.worker.counters.refused, w.worker.counters.settled), (3, 3))

    def test_close_is_bounded(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, close_timeout=0.001, **p.options())
            acked = w.later("emit_acked", "a")
            p.greet()
            p.message()  # and no ack
            with self.assertRaisesRegex(ClosedError, "1 messages"):
                w.run("close")
            with self.assertRaises(ClosedError):
                acked.result()

    def test_a_server_that_does_not_read(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, max_bytes=4 << 20, close_timeout=0.001, **p.options())
            p.greet()
            with self.assertRaises(OutboxFullError):
                while True:
                    w.run("emit", "a", "x" * 65536)
            with self.assertRaises(ClosedError):
                w.run("close")

    def test_nothing_is_left_running(self):
        before = threading.active_count()
        p = self.perdure()
        w = self.begin(Sync, **p.options())
        p.greet()
        self.closing(w, p.farewell)
        self.assertEqual(threading.active_count(), before)


class Life(Case):
    def test_heartbeats_by_themselves(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, stats_interval=0.001, **p.options())
            p.greet(heartbeat={"intervalMs": 1, "timeoutMs": 60000})
            count = {"heartbeat": 0, "stats": 0}
            while min(count.values()) < 3:
                m = p.message()
                count[m["type"]] += 1
                if m["type"] == "stats":
                    self.assertGreaterEqual(m["stats"]["cpu"]["percent"], 0)

            def server():
                while p.message()["type"] != "disconnecting":
                    pass
                p.hang_up()

            self.closing(w, server)

    def test_heartbeats_by_hand(self):
        """None is sent by itself, so that a hung program is noticed; many calls send few."""
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, manual_heartbeat=True, **p.options())
            p.greet(heartbeat={"intervalMs": 3600000, "timeoutMs": 7200000})
            w.run("connected", PATIENCE)
            w.run("emit", "a")
            self.assertEqual(p.message()["type"], "event")
            for _ in range(100):
                w.run("heartbeat")
            self.assertEqual(p.message()["type"], "heartbeat")
            p.write({"type": "ack", "id": 1})
            self.closing(w, p.farewell)

    def test_a_blocked_loop_sends_no_heartbeats(self):
        p = self.perdure()
        w = self.begin(Aio, **p.options())
        p.greet(heartbeat={"intervalMs": 1, "timeoutMs": 60000})
        p.message()
        blocked, free = threading.Event(), threading.Event()

        def block():
            blocked.set()
            free.wait(PATIENCE)

        w.loop.call_soon_threadsafe(block)
        blocked.wait(PATIENCE)
        p.conn.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while p.conn.recv(65536):  # what was on its way
                pass
        with self.assertRaises(BlockingIOError):
            p.conn.recv(1)
        free.set()
        p.conn.settimeout(PATIENCE)
        self.assertTrue(p.conn.recv(1))

    def test_callbacks_hold_nothing_up(self):
        p = self.perdure()
        got, free = [], threading.Event()

        def on_message(data):
            got.append(data)
            free.wait(PATIENCE)

        w = self.begin(Sync, on_message=on_message, **p.options())
        p.greet()
        p.write(*[{"type": "message", "data": n} for n in range(400)])
        acked = w.later("emit_acked", "a")
        p.message()
        p.write({"type": "ack", "id": 1})
        acked.result()
        self.assertIn(w.worker.counters.dropped, (143, 144))
        free.set()
        self.closing(w, p.farewell)
        self.assertEqual(got[:3], [0, 1, 2])

    def test_callbacks_of_the_loop(self):
        p = self.perdure()
        got, enough = [], threading.Event()

        async def on_message(data):
            got.append(data)
            if data == 1:
                enough.set()

        w = self.begin(Aio, on_message=on_message, **p.options())
        p.greet()
        p.write({"type": "message", "data": 0}, {"type": "message", "data": 1})
        self.assertTrue(enough.wait(PATIENCE))
        self.closing(w, p.farewell)
        self.assertEqual(got, [0, 1])

    def test_logging(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, **p.options())
            p.greet()
            log = logging.getLogger("test." + kind.__name__)
            log.propagate = False
            log.setLevel(logging.DEBUG)
            log.addHandler(w.worker.handler(logging.DEBUG))
            for call, want in (
                (lambda: log.debug("a %d", 1), {"level": "debug", "message": "a 1"}),
                (lambda: log.warning("b", extra={"ms": 12, "odd": object}), {"level": "warn", "data": {"logger": log.name, "ms": 12, "odd": str(object)}}),
                (lambda: log.critical("c"), {"level": "error"}),
            ):
                if kind is Sync:
                    call()
                else:
                    w.loop.call_soon_threadsafe(call)
                m = p.message()
                self.assertEqual({k: m[k] for k in want}, want)
            try:
                raise RuntimeError("broken")
            except RuntimeError:
                record = log.makeRecord(log.name, logging.ERROR, "f", 1, "d", (), sys.exc_info())
            if kind is Sync:
                log.handle(record)
            else:
                w.loop.call_soon_threadsafe(log.handle, record)
            self.assertIn("RuntimeError: broken", p.message()["data"]["exception"])
            p.write({"type": "ack", "id": 4})
            self.closing(w, p.farewell)


if __name__ == "__main__":
    unittest.main()
