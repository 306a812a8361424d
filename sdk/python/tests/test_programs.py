import os
import signal
import subprocess
import sys
import unittest

from _script import PATIENCE, ROOT, Case

PROGRAM = {
    "signal": """
from perdure_worker import Worker
with Worker() as w:
    def hook():
        assert not w.stop_requested.is_set()  # else the worker might be closed
        w.emit("hook")
    w.on_shutdown(hook)
    w.ready()
    while not w.stop_requested.wait(1):
        pass
""",
    "signal of a loop": """
import asyncio
from perdure_worker import AsyncWorker
async def main():
    async with AsyncWorker() as w:
        async def hook():
            await asyncio.sleep(0)  # others get their turn
            assert not w.stop_requested.is_set()
            w.emit("hook")
        w.on_shutdown(hook)
        w.ready()
        await w.stop_requested.wait()
asyncio.run(main())
""",
    "no close": """
from perdure_worker import Worker
Worker().start().emit("last words")
""",
    "fork": """
import os
from perdure_worker import Worker
w = Worker().start()
w.emit("parent")
w.flush()
pid = os.fork()
if pid == 0:
    w.emit("child")
    w.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
w.emit("parent")
w.close()
""",
}


class Programs(Case):
    """Whole programs, which end."""

    def program(self, name, p):
        env = {**os.environ, "PYTHONPATH": str(ROOT / "sdk" / "python" / "src"), "PERDURE_WORKER_SOCKET": p.path}
        child = subprocess.Popen([sys.executable, "-W", "error", "-c", PROGRAM[name]], env=env)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_signals(self):
        for name in ("signal", "signal of a loop"):
            p = self.perdure()
            child = self.program(name, p)
            p.greet()
            self.assertEqual(p.message()["type"], "ready")
            child.send_signal(signal.SIGTERM)
            got = [p.message(), p.message()]
            self.assertEqual([m["type"] for m in got], ["stopping", "event"])
            p.write({"type": "ack", "id": 3})
            p.farewell()
            self.assertEqual(child.wait(PATIENCE), 0)

    def test_what_was_emitted_last_is_delivered(self):
        p = self.perdure()
        child = self.program("no close", p)
        p.greet()
        self.assertEqual(p.message()["event"], "last words")
        p.write({"type": "ack", "id": 1})
        p.farewell()
        self.assertEqual(child.wait(PATIENCE), 0)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_a_forked_child_is_a_worker_of_its_own(self):
        p = self.perdure()
        child = self.program("fork", p)
        parent = p.greet()
        self.assertEqual(p.message()["event"], "parent")
        p.write({"type": "ack", "id": 1})
        first, p.conn = p.conn, None
        first_input = p.input
        forked = p.greet()
        self.assertNotEqual(parent["instance"], forked["instance"])
        m = p.message()
        self.assertEqual((m["event"], m["id"]), ("child", 1))
        p.write({"type": "ack", "id": 1})
        p.farewell()
        p.conn, p.input = first, first_input
        m = p.message()
        self.assertEqual((m["event"], m["id"]), ("parent", 2))
        p.write({"type": "ack", "id": 2})
        p.farewell()
        self.assertEqual(child.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
