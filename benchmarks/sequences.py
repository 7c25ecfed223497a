"""Requests per second of many sequences at once through the running_sum example, beside the same model in Triton.

Each connection has one sequence after the other, of ``--length`` requests each; the next request goes out when the last
one is answered, as a client must that needs the answer. The sums are checked. The load comes from this process, which
shares the machine with the servers, so rates are lower than what a server could do; each case is measured in turn, and
the ratio of the medians is what counts. Without ``--peer`` only Shoal is measured.
"""

import argparse
import asyncio
import itertools
import json
import re
import shlex
import shutil
import statistics
import struct
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop
from demo_server import DemoServer, DemoServerError

RUNNING_SUM = Path(__file__).resolve().parents[1] / "examples" / "models" / "running_sum"
STRATEGIES = {"oldest": "oldest { max_candidate_sequences: 64 }", "direct": "direct { }"}
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
NUMBER = 3.0
OK = b"HTTP/1.1 200"


def main() -> None:
    """Serve, measure case by case, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the command that starts the real Triton, such as tritonserver")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="only this strategy (repeatable)")
    parser.add_argument("--sequences", type=int, action="append", help="sequences at once (repeatable; 1, 16 and 64)")
    parser.add_argument("--length", type=int, default=20, help="requests of a sequence")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of one measurement")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = make_repository(folder)
        servers = {"shoal": stack.enter_context(DemoServer(repository))}
        if args.peer:
            servers["triton"] = stack.enter_context(DemoServer(repository, shlex.split(args.peer)))
        for strategy, count in itertools.product(args.strategy or STRATEGIES, args.sequences or (1, 16, 64)):
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(args.rounds):
                for name, server in servers.items():
                    load = Load(server.http_port, strategy, args.length, args.seconds)
                    rates[name].append(uvloop.run(load.requests_per_second(count)))
            report(f"{strategy}-{count}", {name: statistics.median(values) for name, values in rates.items()})


def make_repository(folder: Path) -> Path:
    """The running_sum example with each strategy, with room for 64 sequences."""
    for name, strategy in STRATEGIES.items():
        shutil.copytree(RUNNING_SUM, folder / name)
        model = folder / name / "1" / "model.py"  # direct also gives it rows without a sequence
        model.write_text(
            model.read_text().replace("self.sums[sequence] + number", "self.sums.get(sequence, 0) + number")
        )
        config = folder / name / "config.pbtxt"
        text = (
            config.read_text().replace('"running_sum"', f'"{name}"').replace("max_batch_size: 16", "max_batch_size: 64")
        )
        config.write_text(text.replace(STRATEGIES["oldest"], strategy))
    return folder


class Load:
    """Sequences on connections of their own, for a while.

    Args:
        port: where the server speaks HTTP.
        model: the model.
        length: the requests of each sequence.
        seconds: for how long.
    """

    def __init__(self, port: int, model: str, length: int, seconds: float) -> None:
        self.length = length
        self.answered = 0
        self._port, self._model, self._seconds = port, model, seconds
        self._ids = itertools.count(1)
        self._over = False

    async def requests_per_second(self, count: int) -> float:
        """The rate of answers with this many sequences at once."""
        loop = asyncio.get_running_loop()
        ends = []
        for _ in range(count):
            end = loop.create_future()
            await loop.create_connection(lambda end=end: Client(self, end), "127.0.0.1", self._port)
            ends.append(end)
        began_s, before = time.monotonic(), self.answered
        await asyncio.sleep(self._seconds)
        rate = (self.answered - before) / (time.monotonic() - began_s)
        self._over = True
        await asyncio.gather(*ends)
        return rate

    def next_sequence(self) -> list[bytes] | None:
        """The requests of another sequence; None when it is time to stop."""
        if self._over:
            return None
        number = next(self._ids)
        first, middle, last = (self._request(number, flags) for flags in ("start", "", "end"))
        return [first, *[middle] * (self.length - 2), last]

    def _request(self, sequence: int, flag: str) -> bytes:
        parameters = {"sequence_id": sequence, **({f"sequence_{flag}": True} if flag else {})}
        tensor = {"name": "NUMBER", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
        outputs = [{"name": "SUM", "parameters": {"binary_data": True}}]
        text = json.dumps({"inputs": [tensor], "outputs": outputs, "parameters": parameters}).encode()
        head = (
            f"POST /v2/models/{self._model}/infer HTTP/1.1\r\nHost: localhost\r\n"
            f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + 4}\r\n\r\n"
        )
        return head.encode() + text + struct.pack("<f", NUMBER)


class Client(asyncio.Protocol):
    """One connection: sends a sequence's next request when the last one is answered."""

    def __init__(self, load: Load, end: asyncio.Future) -> None:
        self._load = load
        self._end = end
        self._requests: list[bytes] = []
        self._place = 0
        self._received = b""
        self._sums = [struct.pack("<f", NUMBER * count) for count in range(1, load.length + 1)]

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin the first sequence."""
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._requests = self._load.next_sequence() or []
        self._place = 0
        if self._requests:
            self._transport.write(self._requests[0])
        else:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Check the answer when it is whole, and go on."""
        if data[-4:] == self._sums[self._place] and data.startswith(OK) and not self._received:
            self._go_on()  # the answer in one piece, as it nearly always comes
            return
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < int(LENGTH.search(head + b"\r\n")[1]):
            return
        self._received = b""
        if head.startswith(OK) and body[-4:] == self._sums[self._place]:
            self._go_on()
        else:
            self._end.set_exception(DemoServerError(f"a wrong answer: {head + body}"))
            self._transport.close()

    def _go_on(self) -> None:
        self._load.answered += 1
        self._place += 1
        if self._place < len(self._requests):
            self._transport.write(self._requests[self._place])
        else:
            self._begin()

    def connection_lost(self, error: Exception | None) -> None:
        """Say that it is over."""
        if not self._end.done():
            self._end.set_result(None) if error is None else self._end.set_exception(error)


def report(case: str, medians: dict[str, float]) -> None:
    """Print one line: each server's median and the ratio."""
    columns = [f"{name} {rate:9.0f}/s" for name, rate in medians.items()]
    if "triton" in medians:
        columns.append(f"ratio {medians['shoal'] / medians['triton']:5.2f}")
    print(f"{case:10}", *columns, sep="  ", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
