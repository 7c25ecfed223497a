"""gRPC inference messages, both ways: what a frontend needs, in one place."""

from shoal.protocols.grpc_infer_decode import Split, decode_head, request_id, split
from shoal.protocols.grpc_infer_encode import (
    encode_response,
    encode_stream_failure,
    encode_stream_final,
    encode_stream_refusal,
    encode_stream_response,
)
from shoal.protocols.parameters import parse_version
from shoal.protocols.prefix_memo import PrefixMemo

__all__ = [
    "PrefixMemo",
    "Split",
    "decode_head",
    "encode_response",
    "encode_stream_failure",
    "encode_stream_final",
    "encode_stream_refusal",
    "encode_stream_response",
    "parse_version",
    "request_id",
    "split",
]
