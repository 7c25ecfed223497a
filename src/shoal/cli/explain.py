"""``shoal explain``: why a model's batches are what they are, live in the terminal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

import click

from shoal.cli.batch_trace import chrome_trace
from shoal.cli.explain_page import page, text_page
from shoal.errors import InvalidArgumentError, NotFoundError, UnavailableError

TIMEOUT_S = 10.0

Json = dict[str, Any]


def fetch(url: str, model: str, version: int | None) -> Json:
    """A server's explanation of a model.

    Args:
        url: the server's HTTP address, such as ``http://localhost:8000``; ``http://`` may be left out.
        model: the model's name.
        version: its version, None for the newest.

    Raises:
        UnavailableError: nothing answers at this address.
        NotFoundError: the server answers, but does not know the model or cannot explain.
    """
    if "://" not in url:
        url = f"http://{url}"
    place = f"/v2/models/{quote(model, safe='')}" + (f"/versions/{version}" if version is not None else "") + "/explain"
    try:
        with urlopen(url.rstrip("/") + place, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the user names the address
            return json.load(answer)  # type: ignore[no-any-return]
    except HTTPError as error:
        raise NotFoundError(f"{url}: {_told(error)}") from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UnavailableError(f"no server answers at {url} ({reason}); give its HTTP address with --url") from None
    except ValueError:
        raise InvalidArgumentError(f"{url} is not the HTTP address of a Shoal server") from None


def _told(error: HTTPError) -> str:
    """The server's own words, where it has any."""
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {error.code}"


@click.command("explain")
@click.argument("model")
@click.option("--url", default="http://localhost:8000", show_default=True, help="The server's HTTP address.")
@click.option("--model-version", type=click.IntRange(min=0), help="The version to explain; the newest if not given.")
@click.option("--once", is_flag=True, help="Print once and end; what happens anyway when the output is no terminal.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON and end.")
@click.option(
    "--trace", type=click.Path(path_type=Path, dir_okay=False), help="Write the latest batches to a trace file."
)
def explain(
    model: str, *, url: str, model_version: int | None, once: bool, interval: float, as_json: bool, trace: Path | None
) -> None:
    """Show how MODEL's requests are batched by a running server: why each batch was closed, how long requests waited.

    The trace file is for https://ui.perfetto.dev or chrome://tracing: one line for each instance and one for the queue.
    """
    found = fetch(url, model, model_version)
    if trace is not None:
        _write(trace, found)
    elif as_json:
        click.echo(json.dumps(found, indent=2))
    elif once or not sys.stdout.isatty():
        click.echo(text_page(found))
    else:
        _live(url, model, model_version, interval, found)


def _write(path: Path, found: Json) -> None:
    try:
        path.write_text(json.dumps(chrome_trace(found)))
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"{len(found['recent'])} batches written to {path}; open it at https://ui.perfetto.dev")


def _live(url: str, model: str, version: int | None, interval_s: float, found: Json) -> None:
    """Look again and again, until Ctrl-C."""
    from rich.live import Live  # noqa: PLC0415 - only for people

    before = found
    with Live(page(found, None), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            found = fetch(url, model, version)
            live.update(page(found, before), refresh=True)
            before = found
