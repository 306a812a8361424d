import logging
import unittest

from _script import ROOT, Aio, Case, Player, Sync


def setUpModule():
    logging.getLogger("perdure_worker").setLevel(logging.CRITICAL)


class Transcripts(Case):
    def test_all(self):
        files = sorted((ROOT / "internal" / "wire" / "testdata").glob("client-*.txt"))
        self.assertTrue(files)
        for file in files:
            for kind in (Sync, Aio):
                for tcp in (False, True):
                    with self.subTest(file.name, kind=kind.__name__, tcp=tcp):
                        Player(self, kind, self.perdure(tcp=tcp)).play(file.read_text("utf-8"))


if __name__ == "__main__":
    unittest.main()
