import asyncio
import logging
import threading
import unittest

from _script import PATIENCE, Aio, Case, Sync


def setUpModule():
    logging.getLogger("perdure_worker").setLevel(logging.CRITICAL)


class Commands(Case):
    def test_commands(self):
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, **p.options())
            self.assertNotIn("capabilities", p.greet())
            w.run("connected", PATIENCE)
            w.set_up("add", lambda data: data[0] + data[1])
            p.end()  # it connects anew to say so
            self.assertEqual(p.greet()["capabilities"], ["commands"])
            w.set_up("big", lambda _: "x" * (1 << 20))
            w.set_up("odd", lambda _: object())
            if kind is Aio:

                async def half(n):
                    return n / 2

                w.set_up("half", half)
            for ident, name, data in ((1, "add", [1, 2]), (2, "add", {}), (3, "big", {}), (4, "odd", None), (5, "half", 1)):
                p.write({"type": "command", "id": str(ident), "command": name, "data": data, "timeoutMs": 60000})
                m = p.message()
                self.assertEqual((m["to"], m["id"]), (str(ident), ident))
                if ident == 1 or (ident == 5 and kind is Aio):
                    self.assertEqual(m["data"], {1: 3, 5: 0.5}[ident])
                else:
                    self.assertTrue(m["error"])
                    self.assertNotIn("data", m)
            p.write({"type": "ack", "id": 5})
            self.closing(w, p.farewell)

    def test_too_many_commands(self):
        for kind, most in ((Sync, 16), (Aio, 64)):
            p = self.perdure()
            w = self.begin(kind, start=False, **p.options())
            free = threading.Event()
            if kind is Sync:
                w.set_up("wait", lambda _: free.wait(PATIENCE))
            else:

                async def forever(_):
                        await asyncio.Event().wait()

                w.set_up("wait", forever)
            w.run("start")
            p.greet()
            p.write(*[{"type": "command", "id": str(n), "command": "wait", "data": {}, "timeoutMs": 60000} for n in range(most + 1)])
            m = p.message()
            self.assertEqual(m["to"], str(most))
            self.assertIn("busy", m["error"])
            free.set()

            def server():  # closing waits for them, or cancels them; their replies still go out
                for _ in range(most):
                    self.assertEqual(p.message()["type"], "reply")
                p.write({"type": "ack", "id": most + 1})
                p.farewell()

            self.closing(w, server)

    def test_a_command_that_takes_too_long(self):
        p = self.perdure()
        w = self.begin(Aio, start=False, **p.options())

        async def forever(_):
            await asyncio.Event().wait()

        w.set_up("wait", forever)
        w.run("start")
        p.greet()
        p.write({"type": "command", "id": "1", "command": "wait", "data": {}, "timeoutMs": 1})
        self.assertIn("too long", p.message()["error"])

    def test_the_last_replies_come_before_the_end(self):
        """What is acked while the last command ends is not the end: its reply is to come."""
        for kind in self.both():
            p = self.perdure()
            w = self.begin(kind, start=False, **p.options())
            begun, free = threading.Event(), threading.Event()
            if kind is Sync:

                def slow(_):
                    begun.set()
                    free.wait(PATIENCE)

            else:

                async def slow(_):
                    begun.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await asyncio.get_running_loop().run_in_executor(None, free.wait, PATIENCE)

            w.set_up("slow", slow)
            w.set_up("quick", lambda _: "done")
            w.run("start")
            p.greet()
            p.write({"type": "command", "id": "slow", "command": "slow", "data": {}, "timeoutMs": 60000})
            self.assertTrue(begun.wait(PATIENCE))

            def ask():
                p.write({"type": "command", "id": "quick", "command": "quick", "data": {}, "timeoutMs": 60000})
                m = p.message()
                self.assertEqual(m.get("to"), "quick", m)
                p.write({"type": "ack", "id": m["id"]})  # nothing waits in the outbox
                return m

            def server():
                while "error" not in ask():  # it is not closing yet
                    pass
                self.assertIn("about to end", ask()["error"])
                free.set()
                m = p.message()
                self.assertEqual(m["to"], "slow")
                p.write({"type": "ack", "id": m["id"]})
                p.farewell()

            self.closing(w, server)


if __name__ == "__main__":
    unittest.main()
