"""Which model exactly an answer came from: what makes two loaded models the same to the response cache.

A cache in this process tells one load from the next, for that is always safe: a model that is loaded again begins with
no answers. A cache that servers share must know the same model again, in another server and after a restart, so there
the model's files are hashed. What a model reads from elsewhere is not seen.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shoal.caching.key import KEY_NBYTES, Identity

log = logging.getLogger("shoal.cache")

_BYTECODE = "__pycache__"


def _unique() -> bytes:
    return os.urandom(KEY_NBYTES)


@dataclass(slots=True, eq=False)
class ModelContent:
    """What a loaded model was made from.

    Attributes:
        folder: the model's folder.
        version: its version.
        config: its completed configuration, serialized.
        options: the backend settings that it was loaded with.
        identity: ``KEY_NBYTES`` bytes that stand for it: unlike any other's, until ``fingerprint`` made them from it.
        is_fingerprint: whether it did.
    """

    folder: Path
    version: int
    config: bytes
    options: Mapping[str, str] = field(default_factory=dict)
    identity: bytes = field(default_factory=_unique)
    is_fingerprint: bool = False

    def fingerprint(self) -> None:
        """Make the identity from the content, once. It reads every file, so keep it off the event loop."""
        if self.is_fingerprint:
            return
        hashing = hashlib.blake2b(digest_size=KEY_NBYTES)
        hashing.update(repr((self.version, self.config, sorted(self.options.items()))).encode())
        try:
            for path in _files(self.folder, self.version):
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").digest()
                hashing.update(repr((path.relative_to(self.folder).as_posix(), digest)).encode())
        except OSError as error:
            log.warning("%s cannot be read, so its model shares no cached responses: %s", self.folder, error)
            return
        self.identity, self.is_fingerprint = hashing.digest(), True


def _files(folder: Path, version: int) -> Iterator[Path]:
    """The files of a version and those beside it; not those of other versions, and no bytecode."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path
        elif path.name == str(version) or not path.name.isdecimal():
            yield from (below for below in sorted(path.rglob("*")) if below.is_file() and _BYTECODE not in below.parts)


def identity_of(content: ModelContent, members: Callable[[], Sequence[ModelContent]]) -> Identity:
    """The identity of a model that has these members, which may come and go; a model of its own has none."""
    return lambda: b"".join((content.identity, *(member.identity for member in members())))
