"""Sequences against the real Triton: the same answers, the same batches, the same controls (rules 41 and 44-46)."""

from __future__ import annotations

import pytest
from sequence_answers import Answer, ask_in_turn, ask_triton, recorded_answers, write_models
from sequence_cases import EXECUTION_MS, IN_TURN, TIMED, Send, SequenceCase
from triton_peer import installed

from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType
from shoal.errors import ShoalError
from shoal.requests import LATEST, NOBODY, InferHead, InferRequest, InputHead
from shoal.scheduling.admission import plan_request
from shoal.scheduling.contract import SequenceTurn
from shoal.scheduling.make import make_scheduler
from tests.serving import ShoalProcess

RECORDED = recorded_answers()
MS = 1_000_000


class NoSink:
    """Planning only keeps the sink."""

    def submit(self, request):
        raise AssertionError

    def cancel(self, request):
        raise AssertionError


OURS = {
    # A new sequence waits for the end of the one before it with the same id; in Triton they may run in one batch.
    "direct: the same id once more": [
        "99se 99 3",
        "1s 1 1 | - | 2s 2 1",
        "1e 1 2",
        "- | 1s 1 1",
        "1s 1 1 | - | 2s 2 1",
    ],
    "oldest: the same id once more": ["99s 99 1", "1s 1 1 | 2s 2 1", "1e 1 2", "1s 1 1", "1s 1 1 | 2s 2 1"],
    # A sequence from the backlog counts as old from when it has its slot; in Triton, from when what ran there is done.
    "oldest: four for three places": [
        "99s 99 1",
        *["1s 1 1 | 2s 2 1 | 3s 3 1"] * 3,
        "4s 4 1 | 1e 1 2",
        "4e 4 2",
        *["1 1 0 | 2e 2 2 | 3e 3 2"] * 3,
        "4s 4 1 | 1e 1 2",
    ],
}


def make_request(spec: ModelSpec, send: Send, place: int) -> InferRequest:
    batch = (send.rows,) if spec.max_batch_size else ()
    nbytes = 4 * send.rows * send.width
    inputs = (InputHead("IN", DataType.INT32, (*batch, send.width), nbytes),)
    head = InferHead("MODEL", LATEST, send.request_id, inputs, (), send.parameters())
    return InferRequest(plan_request(head, spec, NoSink()), (bytes(nbytes),), NOBODY, place, 0)


def row(turn: SequenceTurn) -> str:
    """What the model would say of a row."""
    if not turn.ready:
        return "-"
    flags = "s" * turn.start + "e" * turn.end
    return f"{turn.correlation_id}{flags} {turn.correlation_id} {turn.start + 2 * turn.end}"


def simulate(case: SequenceCase, spec: ModelSpec) -> list[Answer]:
    """Play the case to our scheduler, with an instance that takes its time and wakes when it is told."""
    scheduler = make_scheduler(spec)
    answers: list[Answer] = [""] * len(case.sends)
    arrivals = sorted(
        ((each.at_ms * MS, place, each) for place, each in enumerate(case.sends)), key=lambda item: item[0]
    )
    now_ns = free_ns = 0
    running = None
    while True:
        if running is not None and free_ns <= now_ns:
            scheduler.done(running, now_ns)
            running = None
        while arrivals and arrivals[0][0] <= now_ns:
            _, place, send = arrivals.pop(0)
            try:
                scheduler.enqueue(make_request(spec, send, place), now_ns)
            except ShoalError as error:
                answers[place] = f"{error.status.http} {error.message}"
        for request in scheduler.expired(now_ns):
            error = scheduler.refusal(request)
            answers[request.context] = f"{error.status.http} {error.message}"
        if running is None and (running := scheduler.take(now_ns)) is not None:
            free_ns = now_ns + EXECUTION_MS * MS
            for request in running.requests:
                if request.context is not None:
                    answers[request.context] = " | ".join(map(row, running.turns))
        moments = [at_ns for at_ns, *_ in arrivals[:1]] + ([free_ns] if running is not None else [])
        wake_ns = scheduler.wake_ns(now_ns)
        if wake_ns is not None and scheduler.statistics().requests:
            moments.append(wake_ns)
        if not moments:
            return answers
        now_ns = max(now_ns, min(moments))


@pytest.mark.parametrize("case", TIMED, ids=lambda case: case.name)
def test_batches_are_tritons(case, tmp_path):
    spec = case.model.spec(tmp_path, "MODEL")
    assert simulate(case, spec) == OURS.get(case.name, RECORDED[case.name])


def test_known_differences_are_differences():
    assert all(RECORDED[name] != ours for name, ours in OURS.items())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    names = write_models(repository, IN_TURN)
    with ShoalProcess(repository) as shoal:
        yield f"http://{shoal.http}", names


# The type of an id that the model's control for it cannot hold is Triton's business only since a later version; the one
# that was recorded looks for the sequence first, and lets models see memory that is not theirs.
WRONG_TYPE = (
    "400 [request id: <id_unknown>] the correlation ID 'abc' is a string, but the control input of model 'MODEL' for "
    "it has the type TYPE_UINT64; send a number as sequence_id"
)


@pytest.mark.parametrize("case", IN_TURN, ids=lambda case: case.name)
def test_answers_in_turn_are_tritons(case, server):
    address, names = server
    answers = ask_in_turn(address, names[case.name], case)
    expected = [WRONG_TYPE if "sequence abc" in answer else answer for answer in RECORDED[case.name]]
    assert answers == expected


def test_every_case_is_recorded_once():
    names = [case.name for case in IN_TURN + TIMED]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED)


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_answers_are_the_real_ones(tmp_path):
    found = ask_triton(tmp_path)
    assert {name: found[name] for name in found if name not in OURS} == {
        name: answers for name, answers in RECORDED.items() if name not in OURS
    }
