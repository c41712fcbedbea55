"""What every source must do, and what each does beside."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from headwater.compression.errors import DataError, SourceError
from headwater.device import sources
from headwater.device.sources import (
    CameraSource,
    DatasetSource,
    FolderSource,
    HttpSource,
    Source,
    StreamSource,
    open_source,
)
from tests.device.cameras import FakeCapture, MjpegServer, encoded, mjpeg_server, number_of

Make = Callable[[Path], AbstractContextManager[Source]]


@contextmanager
def folder(tmp: Path) -> Iterator[Source]:
    for number in (1, 2, 3):
        (tmp / f"{number}.png").write_bytes(encoded(number))
    yield FolderSource(tmp)


@contextmanager
def single_file(tmp: Path) -> Iterator[Source]:
    (tmp / "photo.png").write_bytes(encoded(1))
    yield FolderSource(tmp / "photo.png")


@contextmanager
def data_set(_: Path) -> Iterator[Source]:
    pytest.importorskip("sklearn")
    yield DatasetSource("digits")


@contextmanager
def pipe(_: Path) -> Iterator[Source]:
    reader, writer = os.pipe()
    os.write(writer, b"".join(encoded(number) for number in (1, 2, 3)))
    os.close(writer)
    try:
        yield StreamSource(reader)
    finally:
        os.close(reader)


@contextmanager
def mjpeg(_: Path) -> Iterator[Source]:
    with mjpeg_server(MjpegServer()) as server:
        yield HttpSource(server.url)


@contextmanager
def camera(_: Path) -> Iterator[Source]:
    yield CameraSource(0, lambda _: FakeCapture())


@contextmanager
def network_camera(_: Path) -> Iterator[Source]:
    yield CameraSource("rtsp://user:secret@10.0.0.9/live", lambda _: FakeCapture())


EVERY: list[Make] = [folder, single_file, data_set, pipe, mjpeg, camera, network_camera]
NUMBERED: list[Make] = [folder, pipe, mjpeg, camera, network_camera]


@pytest.mark.parametrize("make", EVERY)
class TestEverySource:
    def test_gives_pictures_with_names_of_their_own(self, make: Make, tmp_path: Path) -> None:
        with make(tmp_path) as source:
            shots = list(until_it_stops(source))
            assert shots
            assert len({shot.name for shot in shots}) == len(shots)
            assert all(min(shot.read().size) > 0 for shot in shots)

    def test_close_ends_it_from_another_thread(self, make: Make, tmp_path: Path) -> None:
        with make(tmp_path) as source:
            shots = source.shots()
            next(shots)
            closer = threading.Thread(target=source.close)
            closer.start()
            closer.join()
            assert list(shots) == []

    def test_close_before_the_start_and_twice(self, make: Make, tmp_path: Path) -> None:
        with make(tmp_path) as source:
            source.close()
            source.close()
            assert list(source.shots()) == []

    def test_says_whether_time_goes_on_without_us(self, make: Make, tmp_path: Path) -> None:
        with make(tmp_path) as source:
            assert source.live is (make in {mjpeg, camera, network_camera})


@pytest.mark.parametrize("make", NUMBERED)
def test_pictures_come_in_order(make: Make, tmp_path: Path) -> None:
    with make(tmp_path) as source:
        assert [number_of(shot.read()) for shot in until_it_stops(source)] == [1, 2, 3]


def until_it_stops(source: Source) -> Iterator[sources.Shot]:
    """Read on until the end, or until a camera is gone."""
    try:
        yield from source.shots()
    except SourceError as error:
        if "stopped giving pictures after" not in str(error):
            raise


class TestFolder:
    def test_sub_folders_are_labels(self, tmp_path: Path) -> None:
        (tmp_path / "cat").mkdir()
        (tmp_path / "cat" / "1.png").write_bytes(encoded(1))
        (tmp_path / "2.png").write_bytes(encoded(2))
        (tmp_path / ".hidden.png").write_bytes(b"")
        shots = list(FolderSource(tmp_path).shots())
        assert [(shot.name, dict(shot.truth)) for shot in shots] == [("2.png", {}), ("cat/1.png", {"class": "cat"})]

    def test_damaged_file_raises_when_read(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").write_bytes(b"no picture")
        (shot,) = FolderSource(tmp_path).shots()
        with pytest.raises(DataError, match=r"x\.jpg cannot be read"):
            shot.read()

    def test_missing_and_empty(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="has no files"):
            list(FolderSource(tmp_path).shots())
        with pytest.raises(SourceError, match="does not exist"):
            list(FolderSource(tmp_path / "nowhere").shots())


def test_data_set_gives_its_test_part_with_labels() -> None:
    pytest.importorskip("elpv_dataset")
    shots = list(DatasetSource("solar").shots())
    assert len(shots) == 656
    assert set(shots[0].truth) == {"defect", "cell_type"}
    assert {shot.truth["defect"] for shot in shots} == {"intact", "defective"}


def test_data_set_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.datasets, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match="pip install elpv-dataset"):
        list(DatasetSource("solar").shots())


def test_a_silent_pipe_can_be_closed() -> None:
    reader, writer = os.pipe()
    source = StreamSource(reader)
    thread = threading.Thread(target=lambda: list(source.shots()))
    thread.start()
    source.close()
    thread.join(5)
    assert not thread.is_alive()
    os.close(writer)
    os.close(reader)


class TestHttp:
    def test_a_silent_camera_can_be_closed(self) -> None:
        with mjpeg_server(MjpegServer(rounds=[2], hang=True)) as server:
            source = HttpSource(server.url)
            shots = source.shots()
            next(shots), next(shots)
            closer = threading.Timer(0.05, source.close)
            closer.start()
            assert list(shots) == []
            closer.join()

    def test_a_silent_camera_is_given_up(self) -> None:
        with mjpeg_server(MjpegServer(rounds=[1], hang=True)) as server:
            shots = HttpSource(server.url, timeout_s=0.05).shots()
            next(shots)
            with pytest.raises(SourceError, match="timed out"):
                next(shots)

    def test_logs_in_and_never_shows_the_password(self) -> None:
        with mjpeg_server(MjpegServer(login=("me", "p:w"))) as server:
            url = server.url.replace("//", "//me:p%3Aw@")
            assert len(list(HttpSource(url).shots())) == 3
            with pytest.raises(SourceError) as caught:
                list(HttpSource(url.replace("p%3Aw", "wrong")).shots())
            assert "401" in str(caught.value)
            assert "wrong" not in str(caught.value)

    def test_says_what_is_no_stream(self) -> None:
        with (
            mjpeg_server(MjpegServer(content_type="text/html; charset=utf-8")) as server,
            pytest.raises(SourceError, match="is text/html; charset=utf-8, not a stream"),
        ):
            list(HttpSource(server.url).shots())

    def test_an_error_of_the_camera(self) -> None:
        with mjpeg_server(MjpegServer(status=503)) as server, pytest.raises(SourceError, match="503"):
            list(HttpSource(server.url).shots())

    def test_nobody_there(self) -> None:
        with mjpeg_server(MjpegServer()) as server:
            url = server.url
        with pytest.raises(SourceError, match="refused"):
            list(HttpSource(url).shots())


class TestCamera:
    def test_missing_camera(self) -> None:
        capture = FakeCapture(there=False)
        with pytest.raises(SourceError, match="camera:3 cannot be opened; is it there"):
            list(CameraSource(3, lambda _: capture).shots())
        assert capture.released

    def test_colours_are_turned_round(self) -> None:
        source = CameraSource(0, lambda _: FakeCapture())
        image = next(source.shots()).read()
        np.testing.assert_array_equal(np.asarray(image)[0, 0], [1, 0, 0])

    def test_errors_do_not_show_the_password(self) -> None:
        source = CameraSource("rtsp://me:secret@10.0.0.9/live", lambda _: FakeCapture(there=False))
        with pytest.raises(SourceError) as caught:
            list(source.shots())
        assert "rtsp://10.0.0.9/live" in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_without_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(SourceError, match=r"headwater\[camera\]"):
            list(CameraSource(0).shots())


class TestOpenSource:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("solar", DatasetSource),
            ("digits", DatasetSource),
            ("-", StreamSource),
            ("camera", CameraSource),
            ("camera:2", CameraSource),
            ("/dev/video1", CameraSource),
            ("rtsp://10.0.0.9/live", CameraSource),
            ("http://10.0.0.9/video", HttpSource),
            (".", FolderSource),
        ],
    )
    def test_forms(self, text: str, kind: type) -> None:
        assert type(open_source(text)) is kind

    @pytest.mark.parametrize("text", ["nowhere/at/all", "camera:x", "ftp://x", ""])
    def test_others_are_refused_with_the_forms_there_are(self, text: str) -> None:
        with pytest.raises(SourceError, match=r"the other forms are digits, solar, camera"):
            open_source(text)
