"""Frame rate, dropping, back-pressure and re-opening."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.errors import DataError, SourceError
from headwater.device import feed as module
from headwater.device.feed import Feed
from headwater.device.sources import CameraSource, FolderSource, HttpSource, Shot
from tests.device.cameras import FakeCapture, MjpegServer, encoded, mjpeg_server, number_of


class Scripted:
    """A source that gives numbered pictures and reports how many were asked for."""

    def __init__(self, count: int, *, live: bool, broken: tuple[int, ...] = ()) -> None:
        self.live, self.count, self.broken = live, count, broken
        self.given = 0
        self.all_given = threading.Event()
        self.closed = threading.Event()

    def shots(self) -> Iterator[Shot]:
        for number in range(1, self.count + 1):
            if self.closed.is_set():
                return
            self.given = number
            yield Shot(str(number), lambda number=number: self._read(number))
        self.all_given.set()
        if self.live:
            self.closed.wait()

    def _read(self, number: int) -> Image.Image:
        if number in self.broken:
            raise DataError("damaged")
        return Image.new("L", (number, 1))

    def close(self) -> None:
        self.closed.set()


async def test_a_file_source_waits_and_loses_nothing() -> None:
    source = Scripted(50, live=False)
    async with Feed(source) as feed:
        names = []
        async for picture in feed:
            names.append(picture.name)
            assert source.given <= len(names) + 2  # one in the slot, one in the hand of the thread
    assert names == [str(number) for number in range(1, 51)]
    assert feed.dropped == 0


async def test_a_live_source_keeps_the_newest_and_counts() -> None:
    source = Scripted(50, live=True)
    async with Feed(source) as feed:
        await asyncio.to_thread(source.all_given.wait)
        picture = await anext(feed)
    assert (picture.name, feed.dropped) == ("50", 49)


async def test_a_live_picture_is_as_old_as_it_is() -> None:
    source = Scripted(1, live=True)
    async with Feed(source) as feed:
        await asyncio.to_thread(source.all_given.wait)
        before = module.time.monotonic()
        assert (await anext(feed)).taken_s < before


async def test_a_picture_from_a_file_is_taken_when_it_is_wanted() -> None:
    source = Scripted(1, live=False)
    async with Feed(source) as feed:
        await asyncio.to_thread(source.all_given.wait, 0.05)
        before = module.time.monotonic()
        assert (await anext(feed)).taken_s >= before


async def test_damaged_pictures_are_skipped_and_counted() -> None:
    async with Feed(Scripted(5, live=False, broken=(1, 4))) as feed:
        assert [picture.name async for picture in feed] == ["2", "3", "5"]
    assert feed.skipped == 2


async def test_a_source_of_nothing_but_damaged_pictures_is_an_error() -> None:
    async with Feed(Scripted(2, live=False, broken=(1, 2)), repeat=True) as feed:
        with pytest.raises(SourceError, match="no readable picture; 2 files were skipped"):
            await anext(feed)


async def test_repeat_begins_again(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    async with Feed(FolderSource(tmp_path), repeat=True) as feed:
        assert [number_of((await anext(feed)).image) for _ in range(5)] == [1, 2, 1, 2, 1]


async def test_frame_rate_of_a_file() -> None:
    async with Feed(Scripted(5, live=False), fps=50) as feed:
        times = [picture.taken_s async for picture in feed]
    # Sleeping never ends early, so the whole cannot be quicker than its four periods; how late it is, is the machine's.
    assert times[-1] - times[0] >= 4 * 0.02 - 0.021


async def test_frame_rate_of_a_camera_thins_without_counting_drops() -> None:
    gate = threading.Semaphore(0)
    capture = FakeCapture(200, gate)
    async with Feed(CameraSource(0, lambda _: capture), fps=0.001) as feed:
        gate.release(1)
        first = await anext(feed)
        gate.release(100)
        while capture.given < 100:  # noqa: ASYNC110 - a thread's counter has no event
            await asyncio.sleep(0)
        gate.release(100)
        assert (first.name, feed.dropped, feed._slot) == ("picture000001", 0, None)


async def test_a_missing_camera_is_an_error_at_once() -> None:
    async with Feed(CameraSource(0, lambda _: FakeCapture(there=False))) as feed:
        with pytest.raises(SourceError, match="cannot be opened"):
            await anext(feed)


async def test_a_camera_that_is_unplugged_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    gates = [threading.Semaphore(0) for _ in range(3)]
    captures = iter([FakeCapture(1, gates[0]), FakeCapture(there=False), FakeCapture(1, gates[2])])
    async with Feed(CameraSource(0, lambda _: next(captures))) as feed:
        gates[0].release(2)
        await anext(feed)
        gates[2].release(1)
        await anext(feed)
        gates[2].release(1)


async def test_a_stream_that_ends_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    with mjpeg_server(MjpegServer(rounds=[1, 1, 1], hang=False)) as server:
        async with Feed(HttpSource(server.url)) as feed:
            for _ in range(3):
                await anext(feed)
    assert server.clients >= 3


async def test_an_unexpected_error_in_the_thread_reaches_the_loop() -> None:
    class Faulty(Scripted):
        def shots(self) -> Iterator[Shot]:
            raise RuntimeError("a fault")

    async with Feed(Faulty(1, live=False)) as feed:
        with pytest.raises(RuntimeError, match="a fault"):
            await anext(feed)


async def test_leaving_early_ends_the_thread() -> None:
    async with Feed(Scripted(50, live=False)) as feed:
        await anext(feed)
    assert not feed._thread.is_alive()


async def test_a_service_waits_for_a_camera_that_comes_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.01)
    captures = iter([*(FakeCapture(there=False) for _ in range(5)), FakeCapture(1)])
    async with Feed(CameraSource(0, lambda _: next(captures)), wait_for_source=True) as feed:
        assert (await anext(feed)).name == "picture000001"
    said = [record.message for record in caplog.records]
    assert said[0].startswith("camera:0 cannot be opened")
    assert said[0].endswith("it is opened again and again until it is there")
    assert len([line for line in said if line == said[0]]) == 1, "once, not for each attempt"
