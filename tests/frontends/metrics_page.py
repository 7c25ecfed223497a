"""Reads the metrics page of a server as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.clients import get
from tests.serving import ShoalProcess

PENDING = "nv_inference_pending_request_count"
FAILURES = "nv_inference_request_failure"
OPEN_CONNECTIONS = "shoal_open_connections"
ROWS = "shoal_inference_batch_rows"


class MetricsPage:
    """One scrape of ``/metrics``.

    Attributes:
        kinds: the type of each family.
        samples: for each sample its name, its labels and its value; the parser ends the name of every counter with
            ``_total``, whether or not the page does, and here none does.
    """

    def __init__(self, shoal: ShoalProcess) -> None:
        reply = get(shoal.metrics, "/metrics")
        assert reply.status == 200, reply.body
        families = list(text_string_to_metric_families(reply.body.decode()))
        self.kinds = {family.name: family.type for family in families}
        self.samples = [
            (one.name.removesuffix("_total"), one.labels, one.value) for family in families for one in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The value of the one sample with this name and, among others, these labels."""
        (found,) = [value for (one, its, value) in self.samples if one == name and labels.items() <= its.items()]
        return found


def pending(shoal: ShoalProcess, model: str) -> float:
    """How many requests wait for the model."""
    return MetricsPage(shoal).value(PENDING, model=model)


def cancelled(shoal: ShoalProcess, model: str) -> float:
    """How many requests for the model were cancelled."""
    return MetricsPage(shoal).value(FAILURES, model=model, reason="CANCELED")


def open_connections(shoal: ShoalProcess, service: str) -> float:
    """How many connections are open at one of the server's ports."""
    return MetricsPage(shoal).value(OPEN_CONNECTIONS, service=service)


def closed_batches(shoal: ShoalProcess, model: str) -> dict[str, tuple[int, int]]:
    """How many batches of the model ran, and how many rows they had, by the reason for which they were closed."""
    found: dict[str, dict[str, int]] = {}
    for name, labels, value in MetricsPage(shoal).samples:
        if labels.get("model") == model and name in (ROWS + "_count", ROWS + "_sum"):
            found.setdefault(labels["reason"], {})[name] = int(value)
    return {reason: (each[ROWS + "_count"], each[ROWS + "_sum"]) for reason, each in found.items()}
