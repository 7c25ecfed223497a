"""What ``shoal explain`` shows: the explanation of a model as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

Json = dict[str, Any]
Rows = list[tuple[str, ...]]

MEANINGS = {
    "full": "as large as it may be, or the next request did not fit",
    "preferred": "a preferred size was reached",
    "delay": "the oldest request had waited for the whole delay",
    "idle": "an instance was free and nothing else waited",
    "shape": "the next request had another shape or other inputs",
    "rule": "the model's own batch rule refused the next request",
    "target": "the latency target made it smaller",
}
REASONS = ("closed by", "batches", "share", "rows each", "first waited", "meaning")
INSTANCES = ("instance", "batches", "rows each", "busy")
PRIORITIES = ("priority", "requests", "rows", "waited each")


def title(found: Json) -> str:
    """The model and how it is scheduled."""
    settings = ", ".join(f"{name}={value}" for name, value in found["settings"].items())
    return (
        f"{found['name']} version {found['version']}: {found['scheduler']}, max_batch_size {found['max_batch_size']}"
        + (f" ({settings})" if settings else "")
    )


def summary(found: Json, before: Json | None) -> str:
    """Rates since the last look (or totals), and what waits now."""
    total, queue = found["batches"], found["queue"]
    waiting = (
        f"{queue['requests']} requests ({queue['rows']} rows) wait, the oldest for {duration(queue['oldest_wait_us'])}"
    )
    if before is None:
        return f"{total['requests']} requests in {total['batches']} batches so far; {waiting}"
    seconds = max(1, found["now_us"] - before["now_us"]) / 1e6
    requests = (total["requests"] - before["batches"]["requests"]) / seconds
    batches = (total["batches"] - before["batches"]["batches"]) / seconds
    return f"{requests:,.0f} requests/s in {batches:,.0f} batches/s; {waiting}"


def reasons(found: Json) -> Rows:
    """Why batches were closed, the most frequent first."""
    total = max(1, found["batches"]["batches"])
    return [
        (
            each["reason"],
            f"{each['batches']:,}",
            f"{each['batches'] / total:.1%}",
            f"{each['rows'] / each['batches']:.1f}",
            duration(each["waited_us"] / each["batches"]),
            MEANINGS.get(each["reason"], ""),
        )
        for each in found["reasons"]
    ]


def instances(found: Json, before: Json | None) -> Rows:
    """What each instance did; its busy share since the last look, or within the latest batches."""
    rows: Rows = []
    for position, each in enumerate(found["instances"]):
        size = f"{each['rows'] / each['batches']:.1f}" if each["batches"] else "-"
        rows.append((each["name"], f"{each['batches']:,}", size, f"{_busy(found, before, position):.0%}"))
    return rows


def _busy(found: Json, before: Json | None, position: int) -> float:
    if before is not None:
        span_us = max(1, found["now_us"] - before["now_us"])
        return _share((found["instances"][position]["busy_us"] - before["instances"][position]["busy_us"]) / span_us)
    mine = [record for record in found["recent"] if record["instance"] == found["instances"][position]["number"]]
    if not mine:
        return 0.0
    span_us = max(1, found["recent"][0]["taken_us"] - found["recent"][-1]["done_us"])
    return _share(sum(record["taken_us"] - record["done_us"] for record in mine) / span_us)


def _share(value: float) -> float:
    return min(1.0, value)


def priorities(found: Json) -> Rows:
    """How long the requests of each priority level waited."""
    return [
        (
            str(each["priority"]),
            f"{each['requests']:,}",
            f"{each['rows']:,}",
            duration(each["waited_us"] / each["requests"]),
        )
        for each in found["priorities"]
    ]


def extras(found: Json) -> list[str]:
    """Padding, and what a latency target has measured."""
    lines = []
    padding = found["padding"]
    if padding["padded_elements"]:
        lines.append(f"padding: {1 - padding['elements'] / padding['padded_elements']:.1%} of what the model computes")
    lines += [
        f"latency target: {name} = {_plain_value(value)}" for name, value in found.get("latency_target", {}).items()
    ]
    return lines


def _plain_value(value: object) -> str:
    """A number with three digits, and lists of numbers one after the other."""
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list):
        return "; ".join(
            " ".join(map(_plain_value, each)) if isinstance(each, list) else _plain_value(each) for each in value
        )
    return str(value)


def duration(microseconds: float) -> str:
    """A duration with three digits and its unit."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds:.0f} us"


def text_page(found: Json) -> str:
    """The page as plain text."""
    parts = [
        title(found),
        summary(found, None),
        "",
        _plain(REASONS, reasons(found)),
        "",
        _plain(INSTANCES, instances(found, None)),
    ]
    if found["priorities"]:
        parts += ["", _plain(PRIORITIES, priorities(found))]
    return "\n".join([*parts, *([""] if extras(found) else []), *extras(found), "", *found["advice"]])


def _plain(columns: Sequence[str], rows: Rows) -> str:
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    )


def page(found: Json, before: Json | None) -> Group:
    """The page for a terminal.

    Args:
        found: the explanation.
        before: the one of the last look, for rates; None at the first.
    """
    from rich.console import Group  # noqa: PLC0415 - only for people
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def table(columns: Sequence[str], rows: Rows) -> Table:
        made = Table(*columns)
        for row in rows:
            made.add_row(*(Text(cell) for cell in row))
        return made

    parts: list[Any] = [Text(title(found), style="bold"), Text(summary(found, before)), table(REASONS, reasons(found))]
    parts.append(table(INSTANCES, instances(found, before)))
    if found["priorities"]:
        parts.append(table(PRIORITIES, priorities(found)))
    parts += [Text(line) for line in extras(found)]
    return Group(*parts, *(Text(f"- {line}", style="yellow") for line in found["advice"]))
