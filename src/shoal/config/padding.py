"""PaddingSpec: how requests of unequal lengths are padded so that they can share a batch, frozen for the hot path.

Triton has nothing like it: it batches equal shapes, or ragged inputs that the model itself must take apart. Where it is
written and what it means for users: ``docs/unequal-lengths.md``. ``padding_policy`` reads it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaddedInput:
    """One input that is padded.

    Attributes:
        input: its index in ``ModelSpec.inputs``.
        axis: the dimension that is padded, of the tensor as the backend sees it; the batch is dimension 0.
        value: what it is padded with: the wire bytes of one element.
    """

    input: int
    axis: int
    value: bytes


@dataclass(frozen=True, slots=True)
class PaddedOutput:
    """One output that is cut back to the length of its request.

    Attributes:
        output: its index in ``ModelSpec.outputs``.
        axis: the dimension that follows the padded length; the batch is dimension 0.
    """

    output: int
    axis: int


@dataclass(frozen=True, slots=True)
class PaddedLength:
    """One length in which the requests of a batch may differ.

    Attributes:
        inputs: the inputs that have it; the first one decides, and the others of a request must have the same.
        multiple_of: the padded length is a multiple of this.
        maximum: the longest that a request may be; 0 for no limit.
        buckets: the longest length of each bucket, in rising order; empty for no buckets.
        mask: the input that says which elements are real (an index into ``ModelSpec.all_inputs``); None when there is
            none.
        lengths: the input that says how long each row is (an index into ``ModelSpec.all_inputs``); None as well.
        outputs: the outputs that are cut back.
    """

    inputs: tuple[PaddedInput, ...]
    multiple_of: int = 1
    maximum: int = 0
    buckets: tuple[int, ...] = ()
    mask: int | None = None
    lengths: int | None = None
    outputs: tuple[PaddedOutput, ...] = ()

    def padded(self, longest: int) -> int:
        """The padded length of a batch whose longest request has this length."""
        return -(-longest // self.multiple_of) * self.multiple_of

    def bucket(self, length: int) -> int:
        """The number of the bucket for this length; what is longer than all of them shares one more."""
        return bisect_left(self.buckets, length)


@dataclass(frozen=True, slots=True)
class PaddingSpec:
    """Every length in which requests may differ."""

    lengths: tuple[PaddedLength, ...]

    @property
    def inputs(self) -> frozenset[int]:
        """Every padded input (indices into ``ModelSpec.inputs``)."""
        return frozenset(member.input for length in self.lengths for member in length.inputs)

    @property
    def bucketed(self) -> bool:
        """Whether requests share a batch only within a bucket."""
        return any(length.buckets for length in self.lengths)
