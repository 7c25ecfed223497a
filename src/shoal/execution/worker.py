"""A worker process: loads one model version and runs its instances, one thread for each.

It reads ``LoadModel`` and ``StartInstances`` from its control socket; from then on each instance has a channel of its
own, on which its thread waits for batches. A worker ends when its channels are closed; ``finalize`` runs then.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
import traceback
from pathlib import Path

import msgspec

from shoal.backends import registry
from shoal.backends.contract import LoadContext, ModelFiles
from shoal.backends.cores import available_cores
from shoal.config.compile import compile_spec
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.render import config_to_dict
from shoal.errors import ShoalError, Status
from shoal.execution.arena import Mapping
from shoal.execution.instance_loop import InstanceLoop
from shoal.execution.messages import (
    MAX_INSTANCES,
    PREFIX_NBYTES,
    Completed,
    LoadFailed,
    LoadModel,
    Ready,
    StartInstances,
    ToControl,
    encodable,
    frame,
)
from shoal.execution.parent_death import exit_when_closed


class Control:
    """The worker's end of its control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []
        self._decode = msgspec.msgpack.Decoder(ToControl).decode

    def receive(self) -> ToControl | None:
        """The next message; descriptors that came along are kept in ``descriptors``. None at the end."""
        prefix = self._exactly(PREFIX_NBYTES)
        if prefix is None:
            return None
        data = self._exactly(int.from_bytes(prefix, "little"))
        return None if data is None else self._decode(data)

    def _exactly(self, nbytes: int) -> bytes | None:
        data = b""
        while len(data) < nbytes:
            part, descriptors, _, _ = socket.recv_fds(self.connection, nbytes - len(data), 2 * MAX_INSTANCES)
            self.descriptors += descriptors
            if not part:
                return None
            data += part
        return data

    def send(self, message: msgspec.Struct) -> None:
        """Send a message."""
        self.connection.sendall(frame(message))


def run_worker(connection: socket.socket, arena: int) -> int:
    """Load the model that the control socket asks for, run it until the server closes the channels.

    Args:
        connection: the control socket.
        arena: the descriptor of the model's shared memory.

    Returns:
        The process's exit code: 0, or 1 when the model could not be loaded.
    """
    control = Control(connection)
    try:
        return _load_and_run(control, arena)
    except ShoalError as error:
        return _fail(control, error.status, error.message)
    except (Exception, SystemExit) as error:  # a model's own code may raise anything: it is told, never lost
        traceback.print_exc()
        return _fail(control, Status.INTERNAL, f"{type(error).__name__}: {error}")


def _fail(control: Control, status: Status, message: str) -> int:
    try:
        control.send(LoadFailed(status.name, encodable(message)))
    except OSError:
        sys.stderr.write(message + "\n")
    return 1


def _load_and_run(control: Control, arena: int) -> int:
    load = control.receive()
    if load is None:
        return 0
    assert isinstance(load, LoadModel)
    backend = registry.get(load.backend, load.options)
    files = ModelFiles(Path(load.repository), Path(load.model_dir), Path(load.model_dir) / str(load.version))
    config = ModelConfig.FromString(load.config)
    if load.complete:
        backend.complete(config, files)
    control.send(Completed(config.SerializeToString()))
    start = control.receive()
    if start is None:
        return 0
    assert isinstance(start, StartInstances)
    config = ModelConfig.FromString(start.config)
    spec = compile_spec(config, load.version, files.model_dir, load.gpu_count)
    model = backend.load(LoadContext(spec, json.dumps(config_to_dict(config)), files, available_cores()))
    instances = [model.instance(spec.instances[number]) for number in start.numbers]
    mapping = Mapping(arena, load.arena_nbytes)
    channels = zip(control.descriptors[::2], control.descriptors[1::2], strict=True)
    triples = zip(instances, channels, start.marks, strict=True)
    loops = [InstanceLoop(instance, channel, spec, mapping, marks) for instance, channel, marks in triples]
    gc.collect()
    gc.freeze()  # what loading made stays: no collection needs to look at it again
    control.send(Ready())
    if sys.platform != "linux":
        exit_when_closed(control.connection)
    _run(loops)
    model.close()
    return 0


def _run(loops: list[InstanceLoop]) -> None:
    """Run every instance; the first in the main thread, which some libraries want."""
    threads = [threading.Thread(target=loop.run, daemon=True) for loop in loops[1:]]
    for thread in threads:
        thread.start()
    loops[0].run()
    for thread in threads:
        thread.join()
