"""What this process uses."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any, Dict, Optional


class Meter:
    """Measures this process, and remembers the measurement before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = self._at = time.monotonic()
        self._cpu: Optional[float] = None

    def measure(self) -> Dict[str, Any]:
        """Return CPU times in microseconds and in percent of one core since the
        measurement before, memory in bytes, and seconds since the first."""
        times = os.times()
        cpu, now = times.user + times.system, time.monotonic()
        with self._lock:
            percent = 0.0
            if self._cpu is not None and now > self._at:
                percent = round((cpu - self._cpu) / (now - self._at) * 100, 2)
            self._at, self._cpu = now, cpu
        stats: Dict[str, Any] = {
            "cpu": {"user": int(times.user * 1e6), "system": int(times.system * 1e6), "percent": percent},
            "threads": threading.active_count(),
            "uptime": now - self._begun,
        }
        rss = resident()
        if rss is not None:
            stats["memory"] = {"rss": rss}
        return stats


def resident() -> Optional[int]:
    """Return the resident memory in bytes, None where only its peak is known."""
    if sys.platform != "linux":
        return None
    try:
        with open("/proc/self/statm", "rb") as f:  # proc_pid_statm(5): pages
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
