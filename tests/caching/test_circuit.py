"""When a cache that failed is tried again, and how often it is spoken of."""

from __future__ import annotations

import logging

from shoal.caching.circuit import FIRST_RETRY_S, LAST_RETRY_S, Circuit
from shoal.caching.rare_warning import EVERY_S, RareWarning


class Now:
    """A clock in seconds."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def waits(circuit: Circuit, now: Now, failures: int) -> list[float]:
    """How long each failure keeps the next probe off."""
    found = []
    for _ in range(failures):
        circuit.open()
        failed_s = now.s
        while not circuit.probe_is_due():
            now.s += 0.5
        found.append(now.s - failed_s)
    return found


def test_it_is_open_until_a_probe_succeeds():
    circuit = Circuit(Now())
    assert not circuit.closed
    assert circuit.probe_is_due()
    circuit.close()
    assert circuit.closed
    assert not circuit.probe_is_due()


def test_probes_become_rarer_and_often_again_once_it_worked():
    now = Now()
    circuit = Circuit(now)
    assert waits(circuit, now, 7) == [1, 2, 4, 8, 16, 30, 30]
    circuit.close()
    assert waits(circuit, now, 1) == [LAST_RETRY_S]  # probes succeed and commands do not: no reason to trust it
    circuit.close()
    circuit.worked()
    assert waits(circuit, now, 2) == [FIRST_RETRY_S, 2 * FIRST_RETRY_S]


def test_a_warning_that_repeats_is_counted_and_not_written(caplog):
    now = Now()
    warn = RareWarning(logging.getLogger("shoal.cache"), now)
    for number in range(5):
        warn("it broke: %d", number)
    now.s += EVERY_S
    warn("it broke: %d", 5)
    warn("it broke: %d", 6)
    now.s += EVERY_S
    warn("it broke: %d", 7)
    assert [record.getMessage() for record in caplog.records] == [
        "it broke: 0",
        "it broke: 5 (4 more such warnings were left out)",
        "it broke: 7 (1 more such warnings were left out)",
    ]
