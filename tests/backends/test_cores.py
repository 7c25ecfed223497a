"""``available_cores`` sees affinity and both versions of control groups."""

import os
from pathlib import Path

import pytest

from shoal.backends import cores


def groups(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        ("0::/not/visible/here\n", {"cpu.max": "300000 100000"}, 3.0),
        ("0::/\n", {"cpu.max": "max 100000"}, float("inf")),
        (
            "4:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ("3:memory:/x\n", {"memory/x/cpu.cfs_quota_us": "1", "memory/x/cpu.cfs_period_us": "100000"}, float("inf")),
    ],
)
def test_smallest_quota_counts(tmp_path: Path, lines: str, files: dict[str, str], expected: float) -> None:
    process = tmp_path / "process"
    process.write_text(lines)
    groups(tmp_path / "fs", files)
    assert min(cores._quotas(tmp_path / "fs", process)) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert cores._quotas(tmp_path, tmp_path / "missing") == [float("inf")]


def test_affinity_is_an_upper_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert 0 < cores.available_cores() <= 1
