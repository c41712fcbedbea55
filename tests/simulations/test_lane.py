"""A lane's times, to the microsecond, in an event loop whose clock jumps instead of waiting."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from headwater.simulations.lane import Lane
from headwater.simulations.trace import Trace


class _JumpingSelector(selectors.DefaultSelector):
    """Waiting for nothing but a timer takes no time: the clock jumps to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and no timer is set"
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def run() -> Iterator[Run]:
    loop = VirtualLoop()
    yield loop.run_until_complete
    loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def later(delay: float, act: Callable[[], object]) -> None:
    await asyncio.sleep(delay)
    act()


async def carry(lane: Lane, *sizes: int) -> list[float]:
    """Carry chunks that all came at once; when each was delivered."""
    begin = now()
    return [await lane.carry(begin, size) for size in sizes]


@pytest.mark.parametrize("bits_per_s", [5_000, 50_000_000])
def test_many_chunks_take_what_their_bytes_take(run: Run, bits_per_s: int) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(bits_per_s), delay_s=0.5)
        sizes = [lane.chunk_bytes] * 300
        times = await carry(lane, *sizes)
        assert times[-1] == pytest.approx(sum(sizes) * 8 / bits_per_s + 0.5)
        assert lane.bytes == sum(sizes)

    run(story())


def test_an_idle_lane_saves_nothing_up(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        await asyncio.sleep(100)
        assert await carry(lane, 500, 500) == pytest.approx([100.5, 101.0])

    run(story())


def test_connections_share_the_rate_in_turns(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        one, other = await asyncio.gather(carry(lane, 100, 100, 100), carry(lane, 100, 100, 100))
        assert one == pytest.approx([0.1, 0.3, 0.5])
        assert other == pytest.approx([0.2, 0.4, 0.6])

    run(story())


def test_a_stall_holds_what_is_underway_and_all_behind_it(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        asyncio.get_running_loop().call_at(0.05, lane.hold)
        asyncio.get_running_loop().call_at(7.0, lane.release)
        assert await carry(lane, 100, 100) == pytest.approx([7.1, 7.2])

    run(story())


def test_what_comes_in_a_stall_leaves_after_it(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        lane.hold()
        asyncio.get_running_loop().call_at(3.0, lane.release)
        await asyncio.sleep(1)
        assert await carry(lane, 100) == pytest.approx([3.1])

    run(story())


def test_a_lane_held_again_at_once_stays_held(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        lane.hold()
        task = asyncio.ensure_future(carry(lane, 100))
        await asyncio.sleep(1)
        lane.release()
        lane.hold()
        await asyncio.sleep(1)
        lane.release()
        assert await task == pytest.approx([2.1])

    run(story())


def test_the_end_of_a_connection_costs_nothing_but_waits_for_a_stall(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000), delay_s=0.01)
        assert await lane.carry(now(), 0) == pytest.approx(0.01)
        lane.hold()
        asyncio.get_running_loop().call_at(2.0, lane.release)
        assert await lane.carry(now(), 0) == pytest.approx(2.01)
        assert lane.bytes == 0

    run(story())


def test_another_trace_counts_at_once(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(0))
        faster: Awaitable[None] = later(5, lambda: setattr(lane, "trace", Trace.constant(80_000)))
        times, _ = await asyncio.gather(carry(lane, 100, 100), faster)
        assert times == pytest.approx([5.01, 5.02])

    run(story())


def test_a_trace_s_gap_is_waited_for(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.steps([(1, 8_000), (4, 0)]))
        assert await carry(lane, 1000, 500) == pytest.approx([1.0, 5.5])

    run(story())


def test_a_cancelled_connection_gives_its_turn_back(run: Run) -> None:
    async def story() -> None:
        lane = Lane(Trace.constant(8_000))
        slow = asyncio.ensure_future(carry(lane, 1_000_000))
        await asyncio.sleep(1)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await carry(lane, 100) == pytest.approx([1.1])
        assert lane.bytes == 100

    run(story())


def test_chunks_are_some_20_ms_within_bounds(run: Run) -> None:
    async def story() -> None:
        sizes = [Lane(Trace.constant(rate)).chunk_bytes for rate in (0, 5_000, 300_000, 20e6)]
        assert sizes == [16, 16, 750, 16384]
        assert Lane(Trace.steps([(1, 0), (1, 600_000)])).chunk_bytes == 750, "in a gap the mean rate decides"

    run(story())
