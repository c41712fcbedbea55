"""Putting the service into a system and taking it out of it again.

What was installed before is brought up to date: the unit is written anew, the settings are left as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError, StorageError
from headwater.device.install import unit
from headwater.device.install.layout import (
    BUNDLE,
    CONFIG,
    DROP_INS,
    NAME,
    SERVICE,
    STATE,
    UNIT,
    USERS,
    WANTED,
    Root,
)
from headwater.device.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Run = Callable[[Sequence[str]], None]

IMAGE_PROGRAM = PurePosixPath("/opt/headwater/bin/headwater")
"""Where docs/raspberry-pi.md installs it."""
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - places that the service does not see
_FILES = (UNIT, WANTED, USERS, CONFIG, BUNDLE)


def run(command: Sequence[str]) -> None:
    """Run a tool of the system; raises :class:`StorageError` with what it said."""
    program = shutil.which(command[0])
    if program is None:
        raise SettingsError(f"{command[0]} is not here; the service needs a system with systemd")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise StorageError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def install(
    root: Root,
    program: PurePosixPath | None,
    bundle: Path | None,
    given: Mapping[str, Any],
    *,
    start: bool = True,
    run: Run = run,
) -> Iterator[str]:
    """Install the service; yields a line for each thing that is done.

    Args:
        root: of the system.
        program: the command ``headwater`` there; None for this one, in an image :data:`IMAGE_PROGRAM`.
        bundle: is copied; None where one was installed before.
        given: the settings that a new file of settings begins with, None for those that are not set.
        start: start it, where it is this system.
        run: runs a tool.

    Raises:
        SettingsError: a setting is wrong, or the system has no place for the service.
        BundleError: the bundle is damaged.
        StorageError: a file cannot be written, or a tool failed.
    """
    _check_system(root)
    program = _found(root, program)
    _check_bundle(root, bundle)
    try:
        yield from _write_all(root, program, bundle, given)
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be written: {error.strerror}") from error
    run(["systemd-sysusers", *([f"--root={root.folder}"] if root.is_image else []), str(root(USERS))])
    yield f"user {NAME}"
    _give_away(root)
    if not root.is_image:
        run(["systemctl", "daemon-reload"])
        if start:
            run(["systemctl", "restart", SERVICE])
            yield f"started {SERVICE}; systemctl status {NAME} and journalctl -u {NAME} show how it does"


def uninstall(root: Root, *, keep_state: bool = False, run: Run = run) -> Iterator[str]:
    """Take the service out; yields a line for each thing that is done. Raises :class:`StorageError`.

    Args:
        root: of the system.
        keep_state: leave the state folder, with the device's key and frames that no server has, and its user.
        run: runs a tool.
    """
    _check_system(root)
    if not root.is_image and root(UNIT).exists():
        run(["systemctl", "disable", "--now", SERVICE])
    gone = [*_FILES, DROP_INS, *(() if keep_state else (STATE,))]
    for path in filter(os.path.lexists, map(root, gone)):
        _remove(path, root)
        yield f"removed {path}"
    if not keep_state:
        yield from _remove_user(root, run)
    if not root.is_image:
        run(["systemctl", "daemon-reload"])


# ---------------------------------------------------------------- what has to be so


def _check_system(root: Root) -> None:
    if root.is_image:
        if not root.folder.is_dir():
            raise SettingsError(f"{root.folder} is no folder; --root names the root of an image that is mounted there")
        return
    if os.geteuid() != 0:
        raise SettingsError("a service is installed and taken out by root; run it with sudo")
    if not Path("/run/systemd/system").is_dir():
        raise SettingsError("systemd does not run this system; --root DIR installs into an image's root")


def _found(root: Root, program: PurePosixPath | None) -> PurePosixPath:
    own = IMAGE_PROGRAM if root.is_image else PurePosixPath(sys.executable).with_name("headwater")
    program = program or own
    if not program.is_absolute() or not root(Path(program)).exists():
        raise SettingsError(
            f"there is no {program}{f' in {root.folder}' if root.is_image else ''}; install headwater there, or name "
            "its command with --program"
        )
    for hidden in HIDDEN:
        if program.is_relative_to(hidden):
            raise SettingsError(
                f"headwater is installed in {program.parent.parent}, and a service sees nothing below {hidden}; "
                f"install it elsewhere, such as {IMAGE_PROGRAM.parent.parent} (docs/raspberry-pi.md)"
            )
    return program


def _check_bundle(root: Root, bundle: Path | None) -> None:
    if bundle is not None:
        Bundle.load(bundle)
    elif not root(BUNDLE).exists() and not root(CONFIG).exists():
        raise SettingsError("no bundle was installed before; give --bundle PATH")


# ---------------------------------------------------------------- files


def _write_all(root: Root, program: PurePosixPath, bundle: Path | None, given: Mapping[str, Any]) -> Iterator[str]:
    settings_text = unit.config(given)
    DeviceSettings(**_typed(given))
    kept = root(CONFIG).exists()
    if kept:
        settings_text = root(CONFIG).read_text(encoding="utf-8")
    settings = _parsed(settings_text, root(CONFIG))
    if bundle is not None:
        _copy(bundle, root(BUNDLE))
        yield f"wrote {root(BUNDLE)}"
    if not kept:
        _write(root(CONFIG), settings_text, 0o640)
    yield f"{'left' if kept else 'wrote'} {root(CONFIG)}"
    for path, text in ((USERS, unit.SYSUSERS), (UNIT, unit.unit(program, settings))):
        _write(root(path), text, 0o644)
        yield f"wrote {root(path)}"
    _link(root(WANTED), UNIT)


def _typed(given: Mapping[str, Any]) -> dict[str, Any]:
    """As `DeviceSettings` has them: lists are tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if value is not None
    }


def _parsed(text: str, path: Path) -> Mapping[str, Any]:
    try:
        section: Mapping[str, Any] = tomllib.loads(text).get("device", {})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}; mend it, or move it away") from error
    return section


def _write(path: Path, text: str, mode: int) -> None:
    """All or nothing: a power cut leaves what was there before, or this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _copy(bundle: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        fresh = Path(folder) / "bundle"
        if bundle.is_dir():
            shutil.copytree(bundle, fresh)
        else:
            shutil.copyfile(bundle, fresh)
        _readable(fresh)
        _remove_tree(path)
        fresh.replace(path)


def _readable(path: Path) -> None:
    """By the service, whatever the modes of what was copied."""
    for each in (path, *path.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _remove(path: Path, root: Root) -> None:
    """With the folders above it that are empty then."""
    try:
        _remove_tree(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}") from error
    with suppress(OSError):  # one that is not empty
        for parent in path.parents:
            if parent in {root.folder, *root.folder.parents}:
                return
            parent.rmdir()


def _remove_tree(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- the user


def _entry(root: Root, file: str) -> list[str]:
    """The fields of the service's line in ``passwd`` or ``group``; none where it has none."""
    with suppress(OSError):
        for line in root(Path("/etc") / file).read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{NAME}:"):
                return line.split(":")
    return []


def _remove_user(root: Root, run: Run) -> Iterator[str]:
    where = ["--prefix", str(root.folder)] if root.is_image else []
    for file, tool in (("passwd", "userdel"), ("group", "groupdel")):  # the first takes the second's along, or not
        if _entry(root, file):
            run([tool, *where, NAME])
            yield f"{tool} {NAME}"


def _give_away(root: Root) -> None:
    """State is the service's. Settings may hold a camera's password: root's to write, the service's to read."""
    user, group = (int(field) for field in _entry(root, "passwd")[2:4])
    state = root(STATE)
    try:
        state.mkdir(parents=True, exist_ok=True)  # here already, for enrolling comes before the first start
        state.chmod(0o700)
        os.chown(state, user, group)
        os.chown(root(CONFIG), -1, group)
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be given to {NAME}: {error.strerror}") from error
