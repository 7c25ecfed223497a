"""The latest batches of a model in the Trace Event Format, which Perfetto and Chrome show as lanes over time."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

QUEUE_LANE = 0


def chrome_trace(explanation: Json) -> Json:
    """A trace of an explanation's ``recent`` batches: a lane for the queue, and one for each instance.

    In the queue's lane an event lasts from the arrival of a batch's first request until the batch was closed. Times are
    microseconds of the server's monotonic clock.

    Args:
        explanation: as ``observe.explanation.explain`` makes it.
    """
    now_us = explanation["now_us"]
    model = f"{explanation['name']} version {explanation['version']}"
    events = [_name("process_name", QUEUE_LANE, model), _name("thread_name", QUEUE_LANE, "queue")]
    events += [_name("thread_name", each["number"] + 1, each["name"]) for each in explanation["instances"]]
    for record in explanation["recent"]:
        told = {name: record[name] for name in ("reason", "requests", "rows", "elements", "padded_elements")}
        title = f"{record['rows']} rows, {record['reason']}"
        queued, taken, done = (now_us - record[name] for name in ("first_queued_us", "taken_us", "done_us"))
        events.append(_event(title, QUEUE_LANE, queued, taken, told))
        events.append(_event(title, record["instance"] + 1, taken, done, told))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, lane: int, name: str) -> Json:
    return {"ph": "M", "name": kind, "pid": 1, "tid": lane, "args": {"name": name}}


def _event(title: str, lane: int, start_us: int, end_us: int, told: Json) -> Json:
    return {
        "ph": "X",
        "name": title,
        "pid": 1,
        "tid": lane,
        "ts": start_us,
        "dur": max(0, end_us - start_us),
        "args": told,
    }
