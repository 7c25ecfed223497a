"""How many NVIDIA GPUs this machine shows to the server."""

from __future__ import annotations

import os
import re
from pathlib import Path

DEVICES = Path("/dev")


def count_gpus(devices: Path = DEVICES) -> int:
    """The number of GPU device files; ``CUDA_VISIBLE_DEVICES`` limits it as it limits CUDA itself.

    Device files are there in containers too, and reading them needs no driver library.
    """
    present = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.glob("nvidia*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [part for part in visible.split(",") if part.strip() not in ("", "-1")]
    return min(present, len(named))
