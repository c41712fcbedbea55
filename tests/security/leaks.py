"""What a server holds, to be compared before and after: descriptors, tasks, and objects of our own classes."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import psutil

ROUNDS = 3
OURS = ("headwater.", "grpc.")


def census() -> Counter[str]:
    """Open descriptors, tasks, and every object of a class of headwater's or grpc's that is reachable."""
    gc.collect()
    found = Counter(
        f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()) if _is_ours(kind.__module__)
    )
    found["descriptors"] = psutil.Process().num_fds()
    found["tasks"] = len(asyncio.all_tasks())
    return found


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.startswith(OURS)


async def grown(once: Callable[[], Awaitable[None]]) -> dict[str, int]:
    """What there is more of after each of some rounds of the same; the first two rounds may fill caches."""
    for _ in range(2):
        await once()
    counts = [census()]
    for _ in range(ROUNDS):
        await once()
        counts.append(census())
    first, last = counts[0], counts[-1]
    more = {name: last[name] - first[name] for name in last if last[name] - first[name] >= ROUNDS}
    return {name: by for name, by in more.items() if all(a[name] < b[name] for a, b in pairwise(counts))}
