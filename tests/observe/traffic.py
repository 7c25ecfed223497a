"""Batches and requests made up for the tests of what is counted."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec
from shoal.errors import FailureReason
from shoal.execution.recorder import BatchTimes
from shoal.observe.source import ModelSample, ProcessSample
from shoal.observe.statistics import ModelStatistics
from shoal.requests import LATEST, InferHead, InferRequest, RequestPlan
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics


class Nobody:
    """A sink and a responder that nothing reaches."""

    def submit(self, request):
        raise AssertionError

    cancel = completed = failed = submit


NOBODY = Nobody()


def make_request(rows=1, arrival_ns=0, queued_ns=0):
    plan = RequestPlan(InferHead("m", LATEST, "", ()), NOBODY, rows, (), (), (), ())
    request = InferRequest(plan, (), NOBODY, None, arrival_ns)
    request.queued_ns = queued_ns
    return request


def make_times(taken_ns, input_ns=0, infer_ns=0, output_ns=0, done_ns=0):
    """Times of a batch from when it was taken and how long each phase took."""
    ends = [taken_ns]
    for phase_ns in (input_ns, infer_ns, output_ns, done_ns):
        ends.append(ends[-1] + phase_ns)
    return BatchTimes(*ends)


@dataclass
class MadeBatch:
    """A batch, when it passed each point, and which of its requests the model failed."""

    batch: Batch
    times: BatchTimes
    failed: list[bool]

    def play(self, statistics):
        """Report it as execution does: first the requests that failed, then the batch."""
        for request, failed in zip(self.batch.requests, self.failed, strict=True):
            if failed:
                statistics.request_failed(request, FailureReason.BACKEND, self.times.done_ns)
        statistics.batch_done(self.batch, self.times, self.answered)

    @property
    def answered(self):
        return [request for request, failed in zip(self.batch.requests, self.failed, strict=True) if not failed]


durations_ns = st.integers(0, 20_000_000_000)
reasons = st.sampled_from(CloseReason)


@st.composite
def batches(draw):
    taken_ns = draw(st.integers(10**11, 10**12))
    requests = []
    for rows in draw(st.lists(st.integers(1, 40), min_size=1, max_size=8)):
        queued_ns = taken_ns - draw(durations_ns)
        requests.append(make_request(rows, queued_ns - draw(durations_ns), queued_ns))
    batch = Batch(requests, sum(request.plan.rows for request in requests), draw(reasons))
    times = make_times(taken_ns, *(draw(durations_ns) for _ in range(4)))
    return MadeBatch(batch, times, draw(st.lists(st.booleans(), min_size=len(requests), max_size=len(requests))))


@st.composite
def rejections(draw):
    """A request that never ran, why, and how long it took to say so."""
    return draw(st.sampled_from(FailureReason)), draw(durations_ns)


traffic = st.lists(batches() | rejections(), max_size=12)


def play(statistics, events):
    for event in events:
        if isinstance(event, MadeBatch):
            event.play(statistics)
        else:
            reason, took_ns = event
            statistics.request_failed(make_request(arrival_ns=1000), reason, 1000 + took_ns)


def make_spec(name="m", version=1, tags=None):
    instances = (InstanceSpec(f"{name}_0_0", InstanceKind.CPU, 0),)
    return ModelSpec(name, version, "python", "", 8, (), (), instances, metric_tags=tags or {})


def make_sample(statistics=None, tags=None, name="m", version=1):
    statistics = statistics or ModelStatistics(name, version)
    return ModelSample(make_spec(name, version, tags), statistics, QueueStatistics(3, 7, 5), 0.25, 2, 4)


@dataclass
class Source:
    """A metrics source that says what it was given."""

    model_samples: list[ModelSample] = field(default_factory=list)
    process_samples: list[ProcessSample] = field(default_factory=list)
    open_connections: dict[str, int] = field(default_factory=dict)

    def models(self):
        return self.model_samples

    def processes(self):
        return self.process_samples

    def cache(self):
        return None

    def connections(self):
        return self.open_connections
