"""Request heads from header blocks: decoded by ``hpack``, and remembered by their bytes while that is sound.

A gRPC client repeats its header block byte for byte. A block means the same again as long as the dynamic table is the
same, and it leaves the table as it was if it neither inserts an entry nor resizes it. So such a block is decoded once
and then looked up; any change of the table empties the memo. A block that does not touch the dynamic table at all
means the same on every connection.
"""

from __future__ import annotations

from hpack import Decoder, HeaderTuple, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from shoal.transport.connection import Limits
from shoal.transport.grpc_codec import RESOURCE_EXHAUSTED
from shoal.transport.http2_frames import ErrorCode, Http2ConnectionError
from shoal.transport.http2_head import Http2Head, read_head

_MEMO_ENTRIES = 128
_MEMO_BLOCK_NBYTES = 4096
_RESIZE = 0b001
"""The first three bits of a table size update, which may only stand at the start of a block (RFC 7541 section 4.2)."""
_shared: dict[bytes, Http2Head] = {}


class _WatchedTable(HeaderTable):
    """A header table that knows whether it changed and whether its dynamic part was read."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = False
        self.used = False

    def add(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().add(name, value)

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        if index > self.STATIC_TABLE_LENGTH:
            self.used = True
        return super().get_by_index(index)


class HeadMemo:
    """The HPACK decoder of one connection, with its memo.

    Attributes:
        heads: the memo; the frame loop looks a block up here before it calls ``head``.
    """

    __slots__ = ("_decoder", "_limits", "_table", "heads")

    def __init__(self, limits: Limits) -> None:
        """Make a decoder.

        Args:
            limits: a header list longer than these is answered with an error; one twice as long ends the connection.
        """
        self.heads: dict[bytes, Http2Head] = {}
        self._table = _WatchedTable()
        self._decoder = Decoder(2 * limits.head_nbytes)
        self._decoder.header_table = self._table
        self._limits = limits

    def head(self, block: bytes) -> Http2Head:
        """The head of a request whose block is not in ``heads``.

        Raises:
            Http2ConnectionError: the block cannot be decoded, so that the table is lost.
            MalformedError: the header list breaks a rule.
        """
        head = _shared.get(block)
        if head is not None and not head.too_long(self._limits):
            _remember(self.heads, block, head)
            return head
        fields = self.decode(block)
        head = read_head(fields)
        table = self._table
        if head.too_long(self._limits):
            head.refusal = (RESOURCE_EXHAUSTED, head.complaint(self._limits))
        elif not table.changed and len(block) <= _MEMO_BLOCK_NBYTES:
            _remember(self.heads, block, head)
            if not table.used:
                _remember(_shared, block, head)
        return head

    def decode(self, block: bytes) -> list[HeaderTuple]:
        """The fields of any header block.

        Raises:
            Http2ConnectionError: it cannot be decoded.
        """
        table = self._table
        table.used = False
        table.changed = block[:1] != b"" and block[0] >> 5 == _RESIZE
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "the header list is too long") from error
        except (HPACKError, IndexError) as error:
            raise Http2ConnectionError(ErrorCode.COMPRESSION_ERROR, f"bad header block: {error}") from error
        finally:
            if table.changed:
                self.heads.clear()


def _remember(memo: dict[bytes, Http2Head], block: bytes, head: Http2Head) -> None:
    """Keep a head; a full memo starts afresh, which is cheaper than to keep an order."""
    if len(memo) >= _MEMO_ENTRIES:
        memo.clear()
    memo[block] = head
