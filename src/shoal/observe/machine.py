"""What the operating system says of the machine and of single processes, from Linux's ``/proc``.

Where there is no ``/proc`` every reading is None, and the metrics page leaves the family out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class MemoryUse(NamedTuple):
    """The machine's memory; used is what is not available, as Triton has it."""

    total_nbytes: int
    used_nbytes: int


class ProcessUse(NamedTuple):
    """What a process has used: processor time since its start, and memory resident now (shared pages included)."""

    cpu_seconds: float
    resident_nbytes: int


def memory_use(proc: Path = PROC) -> MemoryUse | None:
    """The machine's memory, or None where it cannot be read."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return MemoryUse(sizes["MemTotal"], sizes["MemTotal"] - sizes["MemAvailable"])
    except (OSError, LookupError, ValueError):
        return None


def process_use(pid: int, proc: Path = PROC) -> ProcessUse | None:
    """A process's processor time and memory, or None when it is gone or cannot be read."""
    try:
        # The command's name stands in parentheses and may hold anything, so count fields from behind it (proc(5)).
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        pages = int(fields[21])
    except (OSError, LookupError, ValueError):
        return None
    return ProcessUse(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


@dataclass(frozen=True, slots=True)
class _CpuTicks:
    busy: int
    idle: int


def _cpu_ticks(proc: Path) -> _CpuTicks | None:
    try:
        with (proc / "stat").open() as file:
            name, *numbers = file.readline().split()
        user, nice, system, idle, iowait, irq, softirq, steal = (int(number) for number in numbers[:8])
    except (OSError, ValueError):
        return None
    return _CpuTicks(user + nice + system + irq + softirq + steal, idle + iowait) if name == "cpu" else None


class CpuMeter:
    """The machine's processor utilization, 0 to 1, over the time since it was last read.

    Reading it again within ``interval_ms`` gives the same value, so that several scrapers do not shorten each other's
    time. The first reading covers the time since the meter was made.
    """

    def __init__(self, interval_ms: int, now_ns: Callable[[], int], proc: Path = PROC) -> None:
        self._interval_ns = interval_ms * 1_000_000
        self._now_ns = now_ns
        self._proc = proc
        self._ticks = _cpu_ticks(proc)
        self._next_ns = 0
        self._utilization = 0.0

    def utilization(self) -> float | None:
        """The share of the processors' time that was used, or None where it cannot be read."""
        now_ns = self._now_ns()
        if self._ticks is None or now_ns < self._next_ns:
            return None if self._ticks is None else self._utilization
        before, after = self._ticks, _cpu_ticks(self._proc)
        if after is None:
            return self._utilization
        busy, idle = max(0, after.busy - before.busy), max(0, after.idle - before.idle)
        if busy + idle:
            self._utilization = busy / (busy + idle)
            self._ticks = after
            self._next_ns = now_ns + self._interval_ns
        return self._utilization
