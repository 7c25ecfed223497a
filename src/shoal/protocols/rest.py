"""REST inference bodies, both ways: what a frontend needs, in one place."""

from shoal.protocols.rest_infer_decode import (
    HEADER_LENGTH,
    decode_head,
    header_nbytes,
    is_repeatable,
    split_payload,
)
from shoal.protocols.rest_infer_encode import encode_response

__all__ = ["HEADER_LENGTH", "decode_head", "encode_response", "header_nbytes", "is_repeatable", "split_payload"]
