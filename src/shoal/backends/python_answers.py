"""The answers that a Python model gives through response senders: who may send what, and what becomes of it.

In a decoupled model every response goes out at once. In any other, the one response that is sent while ``execute`` runs
goes out with the batch, like one that ``execute`` returns; one that is sent afterwards goes out by itself. Both notice
when the model lets go of a request that it still owes an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from shoal.backends.contract import BatchControl, RequestResult, ResponseStream
from shoal.backends.triton_python.errors import TritonModelException
from shoal.backends.triton_python.response import InferenceResponse

Convert = Callable[[InferenceResponse], RequestResult]

_CLOSED = "Unable to send response. Response sender has been closed."
_MORE_THAN_ONE = "Unable to send response. Non-decoupled model cannot send more than one response."
_FINAL_FIRST = "Unable to send response. Non-decoupled model cannot send complete final before sending a response."


class DecoupledAnswers:
    """The responses to one request of a decoupled model (``response_sender.Answers``)."""

    __slots__ = ("_closed", "_convert", "_lock", "_stream")

    def __init__(self, stream: ResponseStream, convert: Convert) -> None:
        self._closed = False
        self._convert = convert
        self._lock = threading.Lock()
        self._stream = stream

    def send(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Send a response. One thread at a time, so that nothing comes behind the final one."""
        with self._lock:
            if self._closed:
                raise TritonModelException(_CLOSED)
            self._stream.send(None if response is None else self._convert(response), final=final)
            if final:
                self._closed = True

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request."""
        return self._stream.is_cancelled()

    def close(self) -> None:
        """Send nothing more: the server knows the end of the request, or is going to run it again."""
        self._closed = True

    def __del__(self) -> None:
        """Nobody is left who could send: the request must not wait for ever."""
        if not self._closed:
            self._stream.abandon()


class OneAnswer:
    """The one response to a request of a model that is not decoupled (``response_sender.Answers``).

    Args:
        control: that of the batch.
        place: the request's place in it.
        convert: turns a response into a result.
    """

    __slots__ = ("_closed", "_control", "_convert", "_lock", "_place", "_result", "_sent", "_stream")

    def __init__(self, control: BatchControl, place: int, convert: Convert) -> None:
        self._closed = self._sent = False
        self._control = control
        self._convert = convert
        self._lock = threading.Lock()
        self._place = place
        self._result: RequestResult | None = None
        self._stream: ResponseStream | None = None

    def send(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Take the response, or send it when its batch is over."""
        with self._lock:
            if response is not None and self._sent:
                raise TritonModelException(_MORE_THAN_ONE)
            if response is None and not self._sent:
                raise TritonModelException(_FINAL_FIRST)
            if self._closed:
                raise TritonModelException(_CLOSED)
            if response is not None:
                self._take(self._convert(response))
                self._sent = True
            self._closed = final

    def _take(self, result: RequestResult) -> None:
        if self._stream is not None:
            self._stream.send(result, final=True)
        else:  # a copy, for the model may use its arrays for something else before the batch is over
            self._result = replace(result, outputs={name: array.copy() for name, array in result.outputs.items()})

    def settle(self) -> RequestResult:
        """The result at the end of the batch: the response, or the word that it comes later."""
        with self._lock:
            if self._result is None:
                self._stream = self._control.stream(self._place)
                return RequestResult({}, later=self._stream)
            result, self._result = self._result, None
            return result

    @property
    def sent(self) -> bool:
        """Whether the response was sent."""
        return self._sent

    def close(self) -> None:
        """Take nothing more: the request is answered in another way."""
        self._sent = self._closed = True

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request."""
        return self._control.is_cancelled(self._place) if self._stream is None else self._stream.is_cancelled()

    def __del__(self) -> None:
        """Nobody is left who could send what was to come later."""
        if self._stream is not None and not self._sent:
            self._stream.abandon()
