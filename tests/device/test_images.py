"""Files of the pictures that a server sends."""

import errno
from pathlib import Path

import pytest

from headwater.compression.errors import SettingsError
from headwater.device.images import ImageFolder

TAKEN = "2026-05-04T09:12:33.120+00:00"


def test_each_task_has_a_file_named_by_moment_number_and_picture(tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "new" / "folder")
    files = folder.save("images/cell 0031.png", TAKEN, 7, {"reconstruct": b"one", "edges": b"two"})
    assert Path(files["reconstruct"]).name == "20260504T091233120-000007-cell_0031-reconstruct.png"
    assert [Path(files[task]).read_bytes() for task in ("reconstruct", "edges")] == [b"one", b"two"]
    assert len(list(folder.path.iterdir())) == 2


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "..", "a\x00b", "x" * 500, "http://cam/still?id=1"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = ImageFolder(tmp_path / "in")
    (file,) = folder.save(name, TAKEN, 1, {"reconstruct": b"one"}).values()
    assert Path(file).parent == folder.path
    assert Path(file).read_bytes() == b"one"


def test_a_folder_or_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"save_images is .*file: .*; name another folder"):
        ImageFolder(tmp_path / "file")
    folder = ImageFolder(tmp_path / "gone")
    folder.path.rmdir()
    with pytest.raises(SettingsError, match=r"cannot be saved as .*gone"):
        folder.write("x.png", TAKEN, 1, {"reconstruct": b"one"})


def test_a_disk_that_takes_nothing_costs_the_pictures_and_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ImageFolder(tmp_path / "there")
    folder.path.rmdir()
    for number in (1, 2):
        assert folder.save("x.png", TAKEN, number, {"reconstruct": b"one"}) == {}
    assert len(caplog.records) == 1, "said once"
    folder.path.mkdir()
    (file,) = folder.save("x.png", TAKEN, 3, {"reconstruct": b"one"}).values()
    assert Path(file).read_bytes() == b"one"


def test_a_folder_that_the_disk_does_not_take_yet_is_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        folder = ImageFolder(tmp_path / "new")
        assert folder.save("x.png", TAKEN, 1, {"reconstruct": b"one"}) == {}
    assert len(folder.save("x.png", TAKEN, 1, {"reconstruct": b"one"})) == 1


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
