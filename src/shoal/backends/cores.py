"""How many processor cores this process may really use: affinity and control-group quota, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROCESS_CGROUPS = Path("/proc/self/cgroup")


def available_cores() -> float:
    """The cores this process may use at once: the smaller of its CPU affinity and its control group's quota.

    Returns:
        At least a small positive number; 1.5 for a container that is limited to one and a half cores.
    """
    return min(float(_affinity_cores()), *_quotas(_CGROUP_ROOT, _PROCESS_CGROUPS))


def _affinity_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path, process_cgroups: Path) -> list[float]:
    """Every quota that holds for the process, in cores: its own group's and those of the groups above it."""
    try:
        lines = process_cgroups.read_text().splitlines()
    except OSError:
        return [float("inf")]
    quotas = [float("inf")]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += [_quota_v2(group / "cpu.max") for group in _groups(root, path)]
        elif "cpu" in controllers.split(","):
            mounts = (root / controllers, root / "cpu")
            quotas += [_quota_v1(group) for mount in mounts for group in _groups(mount, path)]
    return quotas


def _groups(mount: Path, path: str) -> list[Path]:
    """The group and those above it; inside a container the path may not exist, but the mount itself is the group."""
    group = mount / path.lstrip("/")
    return [mount, *(parent for parent in (group, *group.parents) if mount in parent.parents)]


def _quota_v2(file: Path) -> float:
    words = _read(file).split()
    if len(words) != 2 or words[0] == "max":
        return float("inf")
    return int(words[0]) / int(words[1])


def _quota_v1(group: Path) -> float:
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:
        return float("inf")
    return int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
