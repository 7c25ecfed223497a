"""What ``shoal serve`` says when it is ready: a table on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from shoal.frontends.serving import Serving
from shoal.repository.catalog import ModelState, ModelVersion

READY = ModelState.READY.value
NOT_READY = "started, but not ready: not every model could be loaded"

log = logging.getLogger("shoal.serve")

SERVICES = {"http": "HTTP", "grpc": "gRPC", "metrics": "metrics", "all": "HTTP, gRPC and metrics"}


def report_start(serving: Serving) -> None:
    """Show the models and the addresses."""
    if sys.stderr.isatty():
        _print_table(serving)
        return
    for name, version, state, text in _rows(serving):
        level = logging.INFO if state == READY else logging.ERROR
        log.log(level, "model %s version %s is %s: %s", name, version, state, text, extra={"model": name})
    for service, address in _addresses(serving):
        log.info("%s on %s", service, address, extra={"service": service, "address": address})
    if serving.server.ready:
        log.info("ready")
    else:
        log.warning(NOT_READY)


def _rows(serving: Serving) -> Iterator[tuple[str, str, str, str]]:
    """Name, version, state and a description of every model."""
    catalog = serving.server.catalog
    for name in catalog.names():
        if catalog.failure(name):
            yield name, "-", "UNAVAILABLE", catalog.failure(name)
    for entry in catalog:
        yield entry.name, str(entry.version), entry.state.value, _describe(entry)


def _describe(entry: ModelVersion) -> str:
    served = entry.served
    if served is None:
        return entry.reason
    spec = served.spec
    if spec.ensemble is not None:
        names = ", ".join(step.model_name for step in spec.ensemble.steps)
        steps = len(spec.ensemble.steps)
        return f"ensemble of {steps} step{'s' * (steps > 1)}: {names}"
    kinds = sorted({instance.kind.value.removeprefix("KIND_") for instance in spec.instances})
    joins = spec.max_batch_size and (spec.batching or spec.sequence)
    batches = f"batches up to {spec.max_batch_size}" if joins else "one request at a time"
    count = len(spec.instances)
    return f"{spec.backend}, {count} {'/'.join(kinds)} instance{'s' * (count > 1)}, {batches}, {served.load_s:.2f} s"


def _addresses(serving: Serving) -> Iterator[tuple[str, str]]:
    for service, listener in serving.listeners.items():
        yield SERVICES[service], listener.address


def _print_table(serving: Serving) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and for terminals only
    from rich.markup import escape  # noqa: PLC0415 - likewise
    from rich.table import Table  # noqa: PLC0415 - likewise

    title = "Shoal is ready" if serving.server.ready else f"[red]Shoal is {NOT_READY}"
    table = Table(title=title, title_justify="left")
    for heading in ("model", "version", "state"):
        table.add_column(heading)
    table.add_column(overflow="fold")
    for name, version, state, text in _rows(serving):
        table.add_row(escape(name), version, f"[{'green' if state == READY else 'red'}]{state}", escape(text.strip()))
    console = Console(stderr=True)
    console.print(table)
    for service, address in _addresses(serving):
        console.print(f"{service} on [bold]{address}[/]", highlight=False)
    console.print("Press Ctrl-C to stop.")
