"""Files of keys: their modes when they are made, and what is refused when they are read."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.compression import keyfiles
from headwater.compression.errors import IdentityError

Read = Callable[[Path], bytes]


def _private(path: Path, data: bytes) -> None:
    keyfiles.write_new(path, data, keyfiles.PRIVATE_MODE)


def _public(path: Path, data: bytes) -> None:
    keyfiles.write_new(path, data, keyfiles.PUBLIC_MODE)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        _private(tmp_path / "new" / "key", b"secret")
        _public(tmp_path / "new" / "key.pub", b"known")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) for name in ("key", "key.pub")]
    assert modes == [0o600, 0o644]
    assert keyfiles.read_private(tmp_path / "new" / "key") == b"secret"
    assert keyfiles.read_public(tmp_path / "new" / "key.pub") == b"known"


@pytest.mark.parametrize("write", [_private, _public])
def test_nothing_is_ever_replaced(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    (tmp_path / "key").write_bytes(b"precious")
    with pytest.raises(IdentityError, match="key exists; a key is never replaced"):
        write(tmp_path / "key", b"other")
    assert (tmp_path / "key").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_private_key_is_for_its_owner_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    _private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(IdentityError, match=rf"open to other users \(mode {mode:o}\); run `chmod 600 {path}`"):
        keyfiles.read_private(path)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_who_is_trusted_is_not_for_others_to_say(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pub"
    _public(path, b"known")
    path.chmod(mode)
    with pytest.raises(IdentityError, match=rf"open to other users \(mode {mode:o}\); run `chmod go-w {path}`"):
        keyfiles.read_public(path)


@pytest.mark.parametrize("read", [keyfiles.read_private, keyfiles.read_public])
def test_another_user_s_file_is_refused(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    _private(tmp_path / "key", b"theirs")
    owner = (tmp_path / "key").stat().st_uid
    if owner == 0:
        os.chown(tmp_path / "key", 4711, -1)
        owner = 4711
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(IdentityError, match=f"belongs to user {owner}"):
        read(tmp_path / "key")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read(tmp_path / "key") == b"theirs", "root reads everybody's"


@pytest.mark.parametrize("read", [keyfiles.read_private, keyfiles.read_public])
def test_what_cannot_be_read_is_said(tmp_path: Path, read: Read) -> None:
    with pytest.raises(IdentityError, match="cannot be read: No such file"):
        read(tmp_path / "none")
    with pytest.raises(IdentityError, match="cannot be read: Is a directory"):
        read(tmp_path)
    _private(tmp_path / "huge", bytes(keyfiles.MAX_BYTES + 1))
    with pytest.raises(IdentityError, match="it is no file of keys"):
        read(tmp_path / "huge")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="cannot be written: Not a directory"):
        _private(tmp_path / "file" / "in" / "key", b"secret")


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "certificate"
    for text in (b"first", b"second"):
        keyfiles.write(path, text, keyfiles.PUBLIC_MODE)
        assert path.read_bytes() == text
    assert stat.S_IMODE(path.stat().st_mode) == keyfiles.PUBLIC_MODE
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(IdentityError, match="cannot be written: No such file"):
        keyfiles.write(tmp_path / "none" / "certificate", b"", keyfiles.PUBLIC_MODE)


def test_a_folder_of_keys_is_its_owner_s(tmp_path: Path) -> None:
    keyfiles.make_folder(tmp_path / "access")
    keyfiles.make_folder(tmp_path / "access")
    assert stat.S_IMODE((tmp_path / "access").stat().st_mode) == keyfiles.FOLDER_MODE
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="cannot be made"):
        keyfiles.make_folder(tmp_path / "file" / "access")
