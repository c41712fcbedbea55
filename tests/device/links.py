"""A link to an edge server of a test."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from tests.device.fake_edge import FakeEdge, serving

BUNDLE = bytes(range(32))


def make(port: int, **changes: object) -> Link:
    options = {"device": "pi", "bundle_id": BUNDLE, "first_pause_s": 0.01, "longest_pause_s": 0.05, **changes}
    return Link(f"127.0.0.1:{port}", LinkOptions(**options), rng=random.Random(1))  # type: ignore[arg-type]


@asynccontextmanager
async def linked(edge: FakeEdge, **changes: object) -> AsyncIterator[Link]:
    async with serving(edge), make(edge.port, **changes) as link:
        await link.wait_connected(10)
        yield link
