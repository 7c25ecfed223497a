"""Requests with the ``curl`` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.clients import TIMEOUT_S, Reply

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(url: str, *options: str, body: bytes | None = None) -> tuple[list[str], Reply]:
    """Run curl, with ``body`` to send; gives the status lines of all responses, interim ones too, and the last of them.

    Raises:
        CalledProcessError: curl failed; ``returncode`` says why.
    """
    with TemporaryDirectory() as folder:
        head, content = Path(folder, "head"), Path(folder, "content")
        content.touch()
        command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_S), "--noproxy", "*", *options]
        data = [] if body is None else ["--data-binary", "@-"]
        subprocess.run(
            [*command, *data, "--dump-header", str(head), "--output", str(content), url],
            input=body or b"",
            capture_output=True,
            timeout=TIMEOUT_S + 10,
            check=True,
        )
        blocks = [block.splitlines() for block in head.read_text("latin-1").replace("\r", "").split("\n\n") if block]
        return [block[0].strip() for block in blocks], _reply(blocks[-1], content.read_bytes())


def _reply(lines: list[str], body: bytes) -> Reply:
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}, body)
