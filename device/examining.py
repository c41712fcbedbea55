"""What `headwater doctor device` looks at: files, bundles, releases, certificates, servers, camera and disk.

Nothing is changed, and an agent may run meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import threading
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from headwater.compression.bundle import Bundle
from headwater.compression.doctor import machine
from headwater.compression.errors import HeadwaterError, IdentityError, SourceError
from headwater.compression.settings import resolve
from headwater.compression.signature import key_id, load_public
from headwater.device.access.identity import Identities
from headwater.device.channel import describe_server
from headwater.device.rollout.bundles import STATE, State
from headwater.device.rollout.trusting import Trusting, day
from headwater.device.settings import DeviceSettings
from headwater.device.sources import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headwater.compression.doctor.finding import Findings
    from headwater.device.access.identity import Identity
    from headwater.protos import edge_pb2 as pb

CONNECT_S, PICTURE_S = 5.0, 15.0
SOON_S = 7 * 24 * 3600.0
CLOCKS_APART_S, CLOCKS_FAR_APART_S = 5.0, 300.0
"""The first is more than a link takes; with more than the second, times in answers and archives mislead."""


def examine(findings: Findings, flags: Mapping[str, Any], config: Path | None = None) -> None:
    """Look at the device that flags and configuration describe; raises :class:`SettingsError` if they are wrong."""
    given = {**flags, "server": _listed(flags.get("server"))}
    settings = resolve(DeviceSettings, given, file=config).value
    identities = Identities.under(settings.state)
    _permissions(findings, settings)
    own = _bundle(findings, settings)
    if settings.state is not None and settings.trusted_key is not None:
        _release(findings, settings.state / "bundles", settings.trusted_key)
    _certificates(findings, settings, identities)
    for server in settings.server:
        _link(findings, server, identities, own)
    _camera(findings, settings.source)
    for folder in {path for path in (settings.state, settings.spool, settings.records) if path is not None}:
        machine.space(findings, folder)


def _listed(words: str | None) -> tuple[str, ...] | None:
    return tuple(map(str.strip, words.split(","))) if words else None


# ---------------------------------------------------------------- files


def _permissions(findings: Findings, settings: DeviceSettings) -> None:
    before = len(findings.all)
    if settings.trusted_key is not None:
        with findings.looking("permissions", "see to the file; without it no newer bundle is taken"):
            load_public(settings.trusted_key)
    if settings.state is not None:
        _folder(findings, settings.state)
    for path in (settings.spool, settings.records):
        if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
            findings.wrong("permissions", f"{path} cannot be written", f"`sudo chown {os.geteuid()} {path.parent}`")
    if len(findings.all) == before:
        findings.well("permissions", "files are there, and for whom they are meant")


def _folder(findings: Findings, folder: Path) -> None:
    """The folder of what outlives the agent: its own, and nobody else's to change."""
    if not folder.is_dir():
        findings.doubtful("permissions", f"{folder} is not there yet", "the first start of the agent makes it")
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        findings.wrong("permissions", f"{folder} can be changed by others (mode {mode:o})", f"`chmod go-w {folder}`")
    if not os.access(folder, os.W_OK | os.X_OK):
        findings.wrong("permissions", f"{folder} cannot be written", f"`sudo chown -R {os.geteuid()} {folder}`")


# ---------------------------------------------------------------- bundles and releases


def _bundle(findings: Findings, settings: DeviceSettings) -> bytes:
    """Look at the bundle in use; its id, empty if there is none that loads."""
    remedy = "give --bundle PATH of one that `headwater bundle verify` finds whole"
    with findings.looking("bundle", remedy):
        state = _state(settings.state)
        released = settings.state is not None and state is not None and state.current != state.factory
        path = settings.state / "bundles" / state.current if released else settings.bundle_path  # type: ignore[operator,union-attr]
        bundle = Bundle.load(path, device=True)
        findings.well("bundle", f"{bundle.manifest.name} {bundle.short_id} of {bundle.manifest.created} is whole")
        return bundle.id
    return b""


def _state(folder: Path | None) -> State | None:
    """What the agent has noted of its bundles, if it ever has."""
    path = None if folder is None else folder / "bundles" / STATE
    if path is None or not path.is_file():
        return None
    try:
        return State(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, OSError) as error:
        raise IdentityError(f"{path} cannot be read: {error}; the agent begins anew with the bundle given") from error


def _release(findings: Findings, folder: Path, trusted_key: Path) -> None:
    """Whether somebody vouches for what is in use, and by which keys."""
    with findings.looking("release", f"move {folder} away; the agent begins anew with the bundle that it was given"):
        state = _state(folder.parent)
        if state is None:
            findings.well("release", "none was heard of yet")
            return
        newest = Trusting(folder, load_public(trusted_key)).trust.newest
        keys = ", ".join(key_id(key).hex() for key in newest.release)
        ask = "is `headwater server refresh` due? If not, somebody keeps releases from this device: look at the link"
        if state.refused:
            why = f"{state.serial} was refused: {state.refused}"
            findings.doubtful("release", why, "publish another bundle, or the same again once that is mended")
        if state.expires and state.expires <= time.time():
            findings.doubtful("release", f"{state.serial} ended at {day(state.expires)}, and none came since", ask)
        elif newest.expires <= time.time():
            findings.doubtful("release", f"list {newest.number} of keys ended at {day(newest.expires)}", "rotate keys")
        else:
            until = f"{state.serial} holds until {day(state.expires)}; " if state.expires else ""
            findings.well("release", f"{until}releases are believed by {keys}")


# ---------------------------------------------------------------- identity and link


def _certificates(findings: Findings, settings: DeviceSettings, identities: Identities) -> None:
    enrol = f"`headwater device enroll --server {settings.server[0]}` with a token of `headwater server devices token`"
    with findings.looking("certificate", enrol):
        every = identities.all()
        for server in settings.server:
            identities.of(server)
        for one in every:
            _certificate(findings, one, enrol)
        if not every:
            findings.well("certificate", "none is needed for a server on this machine")


def _certificate(findings: Findings, one: Identity, enrol: str) -> None:
    left_s, until = one.expires.timestamp() - time.time(), f"{one.expires:%Y-%m-%d}"
    if left_s <= 0:
        findings.wrong("certificate", f"that of {one.device} ended at {until}", f"enrol again: {enrol}")
    elif time.time() > one.renew + SOON_S or left_s < SOON_S:
        findings.doubtful(
            "certificate",
            f"that of {one.device} ends at {until} and was not renewed in its time",
            "an agent that runs and has a link renews it; see to the link below, or enrol again before the end",
        )
    else:
        findings.well("certificate", f"that of {one.device} holds until {until}")


def _link(findings: Findings, server: str, identities: Identities, own: bytes) -> None:
    if not server.startswith("unix:") and not _reached(findings, server):
        return
    began_s = time.monotonic()
    try:
        said = asyncio.run(describe_server(server, timeout_s=CONNECT_S, channel=identities.channel))
    except HeadwaterError as error:
        findings.wrong("link", str(error), "look at the server's log; it says whom it turns away, and why")
        return
    took_ms = (time.monotonic() - began_s) * 1e3
    findings.well("link", f"{server} answered in {took_ms:.0f} ms, connection and all")
    _clocks(findings, server, said)
    _serves(findings, server, said, own)


def _reached(findings: Findings, server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S):
            return True
    except socket.gaierror as error:
        remedy = "is the name right? `getent hosts NAME` asks as the agent does; an address needs no names"
        findings.wrong("link", f"the name {host} is not known here: {error.strerror}", remedy)
    except ConnectionRefusedError:
        remedy = "start `headwater server` there with --listen 0.0.0.0:PORT; on loopback it hears only its own machine"
        findings.wrong("link", f"nobody listens at {server}", remedy)
    except OSError as error:
        remedy = f"is the network up (`ip addr`), and does a firewall stand between? `ping {host}`"
        findings.wrong("link", f"{server} cannot be reached: {error.strerror or 'no answer'}", remedy)
    return False


def _clocks(findings: Findings, server: str, said: pb.Description) -> None:
    apart_s = time.time() - said.unix_ms / 1e3
    if abs(apart_s) < CLOCKS_APART_S:
        return
    text = f"it is {abs(apart_s):.0f} s {'later' if apart_s > 0 else 'earlier'} here than at {server}"
    say = findings.wrong if abs(apart_s) > CLOCKS_FAR_APART_S else findings.doubtful
    say("clock", text, "`timedatectl set-ntp true` here and there")


def _serves(findings: Findings, server: str, said: pb.Description, own: bytes) -> None:
    version = metadata.version("headwater")
    if said.server_version != version:
        findings.doubtful(
            "versions",
            f"headwater {version} here, {said.server_version} at {server}",
            "install the same version at both ends, the server's first",
        )
    served = {bundle_id for bundle in said.bundles for bundle_id in (bundle.id, *bundle.answers_for)}
    if own and own not in served:
        names = ", ".join(f"{bundle.name} {bundle.id[:5].hex()}" for bundle in said.bundles) or "none"
        findings.wrong(
            "bundle",
            f"{server} does not serve {own[:5].hex()}; it serves {names}",
            "give both ends the same --bundle, or the server the --state that the bundle was released with",
        )
    if said.draining:
        findings.doubtful("link", f"{server} is stopping", "start it again, or name another server too")


# ---------------------------------------------------------------- camera


def _camera(findings: Findings, name: str) -> None:
    if name == "-":
        findings.well("camera", "pictures come from standard input; there is nothing to look at")
        return
    with findings.looking("camera", _camera_remedy(name)):
        taken = _Taking(open_source(name))
        if taken.error is not None:
            raise taken.error
        if not taken.done:
            findings.wrong("camera", f"{name} gave no picture in {PICTURE_S:g} s", _camera_remedy(name))
        else:
            findings.well("camera", f"{name} gives pictures")


class _Taking:
    """One picture, on a thread that may hang for ever: a driver that is stuck cannot be interrupted."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: HeadwaterError | None = None
        self.done = False
        thread = threading.Thread(target=self._take, daemon=True, name="headwater-doctor-camera")
        thread.start()
        thread.join(PICTURE_S)

    def _take(self) -> None:
        try:
            for shot in self._source.shots():
                shot.read()
                self.done = True
                break
            else:
                self.error = SourceError("it ended before its first picture")
        except HeadwaterError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - a driver's own
            self.error = SourceError(f"it failed: {error}")
        finally:
            self._source.close()


def _camera_remedy(name: str) -> str:
    if not name.startswith(("camera", "/dev/")):
        return "give --source where pictures are"
    busy = "`fuser -v /dev/video0` tells who uses it" if shutil.which("fuser") else "an agent that runs has it"
    return f"is the cable in (`ls /dev/video*`), is this user in the group (`sudo usermod -aG video $USER`)? {busy}"
