"""Decoupled models with one FP32 input and one FP32 output."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.execution.models import write_model

DECOUPLED = "dynamic_batching { }\nmodel_transaction_policy { decoupled: true }"

HELP = """
import threading
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

def number(request):
    return int(value(request)[0, 0])

def in_thread(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()

def wait_for(path):
    until = time.monotonic() + 20
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.005)
"""

REPEAT = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for place in range(number(request)):
                sender.send(answer(np.full((1, 2), place, np.float32)))
            sender.send(flags=FINAL)
"""


def write_decoupled(repository: Path, name: str, code: str = REPEAT, more: str = DECOUPLED, **config: object) -> Path:
    """Write a model; gives its folder."""
    return write_model(repository, name, HELP + textwrap.dedent(code), more=more, **config)
