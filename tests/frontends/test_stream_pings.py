"""A long stream is not a flood: pings and window updates that go with its messages are the client's right."""

from __future__ import annotations

import itertools
import queue

import grpc

from tests.clients import SERVICE, channel_to, grpc_row

ANSWERS = 6000


def test_a_long_stream_is_not_taken_for_a_flood_of_pings(shoal):
    requests = queue.SimpleQueue()
    request = grpc_row("double", 1).SerializeToString()
    with channel_to(shoal.grpc) as channel:
        stream = channel.stream_stream(SERVICE + "ModelStreamInfer", request_serializer=bytes)
        requests.put(request)
        call = stream(iter(requests.get, None), timeout=60)
        for number, _ in zip(itertools.count(1), call, strict=False):
            requests.put(request if number < ANSWERS else None)
    assert (number, call.code()) == (ANSWERS, grpc.StatusCode.OK)
