"""Where Perdure is, and how its socket is reached."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Iterator, Mapping, Optional

# sun_path has 108 bytes with the zero at its end (unix(7)).
_MAX_PATH = 107


@dataclass(frozen=True)
class Address:
    """Where to connect: a path, or host and port with a token. Neither means
    that the program runs without supervision."""

    path: str = ""
    host: str = ""
    port: int = 0
    token: str = ""

    def __bool__(self) -> bool:
        return bool(self.path or self.port)


def find(socket_path: Optional[str], address: Optional[str], token: Optional[str], env: Mapping[str, str]) -> Address:
    """Return the address that was given, or else that of the environment."""
    if not socket_path and not address:
        socket_path = env.get("PERDURE_WORKER_SOCKET")
        address = env.get("PERDURE_WORKER_ADDRESS")
        token = token or env.get("PERDURE_WORKER_TOKEN")
    if socket_path:
        return Address(path=socket_path)
    if not address:
        return Address()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"cannot use {address!r} as the address of Perdure: write it like 127.0.0.1:7070")
    return Address(host=host.strip("[]"), port=int(port), token=token or "")


@contextlib.contextmanager
def short(path: str) -> Iterator[str]:
    """Yield a path that fits into a socket address. A long one goes through a
    descriptor of its folder, which is open only meanwhile."""
    if len(os.fsencode(path)) <= _MAX_PATH or not hasattr(os, "O_PATH"):
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)

