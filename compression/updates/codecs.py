"""Ways to code an update, by name: what a fleet's settings choose from, and what the contract tests go through.

CODECS["ternary"].encode(delta, layout, base=version)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwater.compression.updates.codec import Encoded, Update, decode, encode
from headwater.compression.updates.scheme import Scheme

if TYPE_CHECKING:
    from headwater.compression.updates.flat import Arrays, Mask
    from headwater.compression.updates.layout import Layout


class Codec(Protocol):
    """A way to code updates. tests/compression/updates/test_contract.py says what it has to do."""

    @property
    def exact(self) -> bool:
        """Whether what is decoded is what was encoded, to the last bit."""

    def encode(self, delta: Arrays, layout: Layout, *, base: bytes, mask: Mask | None = None) -> Encoded:
        """See `headwater.compression.updates.encode`."""

    def decode(self, data: bytes, layout: Layout, *, mask: Mask | None = None) -> Update:
        """See `headwater.compression.updates.decode`."""


@dataclass(frozen=True)
class SchemeCodec:
    """Our codec with one scheme. Its decoder reads the updates of every scheme."""

    scheme: Scheme

    @property
    def exact(self) -> bool:
        """Only float32 with nothing left out."""
        return self.scheme == Scheme("float32")

    def encode(self, delta: Arrays, layout: Layout, *, base: bytes, mask: Mask | None = None) -> Encoded:
        """See `headwater.compression.updates.encode`."""
        return encode(delta, layout, self.scheme, base=base, mask=mask)

    def decode(self, data: bytes, layout: Layout, *, mask: Mask | None = None) -> Update:
        """See `headwater.compression.updates.decode`."""
        return decode(data, layout, mask=mask)


CODECS: dict[str, Codec] = {
    "float32": SchemeCodec(Scheme("float32")),
    "float16": SchemeCodec(Scheme("float16")),
    "float32-sparse": SchemeCodec(Scheme("float32", 1 / 20)),
    "float16-sparse": SchemeCodec(Scheme("float16", 1 / 20)),
    "int8": SchemeCodec(Scheme("int8")),
    "int8-sparse": SchemeCodec(Scheme("int8", 1 / 20)),
    "ternary": SchemeCodec(Scheme("ternary", 1 / 400)),
    "ternary-dense": SchemeCodec(Scheme("ternary")),
    "sign": SchemeCodec(Scheme("sign")),
    "factors": SchemeCodec(Scheme("factors", 1 / 20)),
    "factors-dense": SchemeCodec(Scheme("factors")),
}
