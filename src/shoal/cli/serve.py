"""``shoal serve``: run a server until a signal stops it.

Exit statuses: 0 after a clean stop; 1 when it could not start, or when requests were still unanswered at the end of
``--exit-timeout-secs``; 128 and the signal's number when a second signal forced it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from shoal.execution.fork_client import ForkClient
from shoal.observe.logs import setup_logging
from shoal.options import ServerOptions
from shoal.options.command import ServerCommand

SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger("shoal.serve")


@click.command(cls=ServerCommand)
def serve(options: ServerOptions) -> int:
    """Serve the models of one or more model repositories."""
    setup_logging(options.log_settings())
    for note in options.notes:
        log.warning("%s", note)
    client = ForkClient()
    client.start()  # it imports what workers need while this process imports what the server needs
    return _event_loop()(_serve(options, client))


def _event_loop() -> Callable[[Coroutine[Any, Any, int]], int]:
    """What runs the server: uvloop where it is installed, asyncio elsewhere."""
    try:
        import uvloop  # noqa: PLC0415 - not on every system
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, int]], int] = uvloop.run
    return run


async def _serve(options: ServerOptions, client: ForkClient) -> int:
    from shoal.cli.start_report import report_start  # noqa: PLC0415 - the fork server should start before these imports
    from shoal.frontends.serving import Serving  # noqa: PLC0415 - likewise

    signals = StopSignals()
    serving = Serving(options, client)
    starting = asyncio.ensure_future(serving.start())
    stopped_early = asyncio.ensure_future(signals.first.wait())
    await asyncio.wait([starting, stopped_early], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    starting.result()
    report_start(serving)
    gc.collect()
    gc.freeze()  # what start-up made stays: no collection needs to look at it again
    await stopped_early
    return await _stop(serving, options)


async def _stop(serving: Any, options: ServerOptions) -> int:
    """Stop in order; a second signal ends the process before this does."""
    log.info("stopping: not ready from now on; press Ctrl-C again to end at once")
    serving.server.refuse_readiness()
    await asyncio.sleep(options.drain_secs)
    if await serving.stop(options.exit_timeout_secs):
        log.info("stopped; every request was answered")
        return 0
    log.error("Exit timeout expired. Exiting immediately.")
    return 1


class StopSignals:
    """SIGINT and SIGTERM: the first asks the server to stop, the second ends the process at once.

    Attributes:
        first: set by the first signal.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: int) -> None:
        if self.first.is_set():
            log.warning("ended by a second signal; requests in flight are lost")
            logging.shutdown()
            sys.stderr.flush()
            os._exit(128 + number)  # the workers die with this process
        self.first.set()
