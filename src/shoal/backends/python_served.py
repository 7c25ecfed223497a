"""What the requests of one batch of a Python model share, and what their response senders make of the batch."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.backends.contract import BatchControl, BatchResult, RequestResult
from shoal.backends.python_answers import Convert, DecoupledAnswers, OneAnswer
from shoal.backends.triton_python.errors import TritonModelException
from shoal.backends.triton_python.response import InferenceResponse
from shoal.backends.triton_python.response_sender import InferenceResponseSender
from shoal.errors import ModelError


class ServedBatch:
    """One batch of requests. It knows none of them, so that each is gone as soon as the model lets go of it.

    Args:
        bf16: the inputs that are BF16.
        control: what can be asked about single requests; None outside of a server.
        convert: turns a response into a result.

    Attributes:
        bf16: the same.
        answers: by their places, the answers of those requests whose sender the model has asked for; None when it has
            asked for none, and when the batch is over. Unused in a decoupled model.
    """

    __slots__ = ("_control", "_convert", "_over", "answers", "bf16")

    def __init__(self, bf16: frozenset[str], control: BatchControl | None, convert: Convert) -> None:
        self.bf16 = bf16
        self.answers: dict[int, OneAnswer] | None = None
        self._control = control
        self._convert = convert
        self._over = False

    def is_cancelled(self, place: int) -> bool:
        """Whether the client has given up on a request."""
        return self._control is not None and self._control.is_cancelled(place)

    def open_sender(self, place: int) -> InferenceResponseSender:
        """The sender of a request that may have one response."""
        answer = OneAnswer(self._known_control(), place, self._convert)
        if self._over:
            answer.close()
        else:
            self.answers = self.answers or {}
            self.answers[place] = answer
        return InferenceResponseSender(answer)

    def decoupled_answers(self, place: int) -> DecoupledAnswers:
        """What takes the responses to a request of a decoupled model."""
        return DecoupledAnswers(self._known_control().stream(place), self._convert)

    def _known_control(self) -> BatchControl:
        if self._control is None:
            raise TritonModelException("Cannot send responses: the request did not come from the server")
        return self._control

    # --- the end of a batch whose model asked for senders -----------------------------------------------------------

    def settle(self, returned: Sequence[InferenceResponse | None], again: Sequence[bool]) -> BatchResult:
        """The batch's result, from what ``execute`` returned and what was sent.

        Args:
            returned: for each request a response, or None for one that runs again or whose sender was asked for.
            again: which requests run again.
        """
        answers = self._end()
        results = []
        for place, response in enumerate(returned):
            answer = answers.get(place)
            if not again[place] and answer is not None and (answer.sent or response is None):
                results.append(answer.settle())
                continue
            if answer is not None:
                answer.close()
            results.append(RequestResult({}, rescheduled=True) if response is None else self._convert(response))
        return BatchResult(per_request=results)

    def settle_failed(self, failure: ModelError, requests: int) -> BatchResult:
        """The result of a batch of so many requests whose ``execute`` failed after it had sent some responses."""
        answers = self._end()
        results = []
        for place in range(requests):
            answer = answers.get(place)
            if answer is not None and answer.sent:
                results.append(answer.settle())
                continue
            if answer is not None:
                answer.close()
            results.append(RequestResult({}, failure))
        return BatchResult(per_request=results)

    def _end(self) -> dict[int, OneAnswer]:
        answers, self.answers, self._over = self.answers or {}, None, True
        return answers
