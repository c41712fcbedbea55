"""Bells: who rings is heard, and never the worse for a bell that cannot be rung."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headwater.server.mail.doorbell import FOLDER, Doorbell, ring


def test_every_bell_but_ones_own_rings(tmp_path: Path) -> None:
    ring(tmp_path)  # nobody has ever listened
    with Doorbell(tmp_path) as one, Doorbell(tmp_path) as other:
        ring(tmp_path)
        assert one.heard()
        assert other.heard()
        ring(tmp_path, but=one)
        assert not one.heard()
        assert other.wait(5.0)


def test_the_bell_of_a_killed_listener_is_taken_down(tmp_path: Path) -> None:
    with Doorbell(tmp_path):
        os.mkfifo(tmp_path / FOLDER / "left")  # nobody has it open
        ring(tmp_path)
        assert not (tmp_path / FOLDER / "left").exists()


@pytest.mark.parametrize("fails", ["open", "write", "unlink"])
def test_a_bell_that_cannot_be_rung_keeps_no_other_from_ringing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    real = getattr(os, fails)
    with Doorbell(tmp_path) as bell:
        broken = [str(tmp_path / FOLDER / name) for name in ("broken", "zbroken")]  # before and after it, by any order
        for path in broken:
            os.mkfifo(path)
        descriptors = [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in broken] if fails == "write" else []

        def refuse(what: object, *more: object, **options: object) -> object:
            of = str(Path(f"/proc/self/fd/{what}").readlink()) if isinstance(what, int) else str(what)
            if of in broken:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(what, *more, **options)

        monkeypatch.setattr(os, fails, refuse)
        ring(tmp_path)
        assert bell.heard()
        for descriptor in descriptors:
            os.close(descriptor)
