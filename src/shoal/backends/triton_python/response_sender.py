"""``pb_utils.InferenceResponseSender``: sends the responses to one request, from any thread."""

from __future__ import annotations

from typing import Protocol

from shoal.backends.triton_python.errors import TritonModelException
from shoal.backends.triton_python.response import InferenceResponse

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class Answers(Protocol):
    """What becomes of the responses to one request."""

    def send(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Take a response, or None with ``final``: there are no more.

        Raises:
            TritonModelException: it comes after the final one or, unless the model is decoupled, is one too many.
        """

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request."""


class InferenceResponseSender:
    """Sends the responses to one request. A model gets it from ``InferenceRequest.get_response_sender``.

    It may be used from any thread, also after ``execute`` has returned.
    """

    __slots__ = ("_answers",)

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response.

        It returns when the response is on its way, and waits before that while the client does not keep up.

        Args:
            response: the response; may be left out with the final flag.
            flags: ``TRITONSERVER_RESPONSE_COMPLETE_FINAL`` for the last call, else 0.

        Raises:
            TritonModelException: the flags are wrong, there is no response, or the last call was made before.
        """
        if response is not None and not isinstance(response, InferenceResponse):
            raise TypeError(f"send: the response must be a pb_utils.InferenceResponse, not {type(response).__name__}")
        if not isinstance(flags, int):
            raise TypeError(f"send: the flags must be an int, not {type(flags).__name__}")
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if response is None and not flags:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        self._answers.send(response, final=bool(flags))

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request. The final flag is to be sent all the same."""
        return self._answers.is_cancelled()
