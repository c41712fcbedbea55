"""What `headwater doctor server` looks at: the files of its state, certificates, releases, bundles, port and disk.

Nothing is changed but that a database that is opened may write its log back; a server may run meanwhile.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from headwater.compression import keyfiles
from headwater.compression.bundle import Bundle
from headwater.compression.doctor import machine
from headwater.compression.errors import IdentityError
from headwater.compression.settings import resolve
from headwater.server.access.authority import FOLDER as ACCESS
from headwater.server.access.register import Register, Standing
from headwater.server.rollout.settings import RolloutSettings
from headwater.server.rollout.versions import Versions
from headwater.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headwater.compression.doctor.finding import Findings

CONNECT_S = 5.0
SOON_S = 14 * 24 * 3600.0


def examine(findings: Findings, flags: Mapping[str, Any], config: Path | None = None) -> None:
    """Look at the server that flags and configuration describe; raises :class:`SettingsError` if they are wrong."""
    given = {**flags, "bundle": None if (path := flags.get("bundle")) is None else (path,)}
    settings = resolve(ServerSettings, given, file=config).value
    if settings.state is not None:
        _state(findings, settings.state)
    _signing_key(findings, config)
    for path in settings.bundle:
        with findings.looking("bundle", "build or fetch it again; `headwater bundle verify` looks at each file"):
            bundle = Bundle.load(path)
            findings.well("bundle", f"{bundle.manifest.name} {bundle.short_id} is whole")
    _link(findings, settings.listen)


def _state(findings: Findings, folder: Path) -> None:
    if not folder.is_dir():
        findings.wrong("permissions", f"{folder} is not there", "give the --state that the server has")
        return
    _permissions(findings, folder)
    if (folder / ACCESS / "ca.pem").exists() or (folder / ACCESS / "ca.key").exists():
        _authority(findings, folder / ACCESS)
    if (folder / ACCESS / "devices.db").is_file():
        _devices(findings, folder)
    if (folder / "rollout" / "rollout.db").is_file():
        _releases(findings, folder)
    machine.space(findings, folder)


# ---------------------------------------------------------------- files


def _permissions(findings: Findings, folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        findings.wrong("permissions", f"{folder} can be changed by others (mode {mode:o})", f"`chmod go-w {folder}`")
    elif not os.access(folder, os.W_OK | os.X_OK):
        findings.wrong("permissions", f"{folder} cannot be written", f"`sudo chown -R {os.geteuid()} {folder}`")
    else:
        findings.well("permissions", f"{folder} is for this user alone to change")


def _signing_key(findings: Findings, config: Path | None) -> None:
    settings = resolve(RolloutSettings, file=config).value
    if settings.key is None:
        return
    with findings.looking("permissions", "see to the file; no bundle can be released without it"):
        _ = settings.signer
        findings.well("permissions", f"{settings.key} signs releases, and is its owner's alone")


# ---------------------------------------------------------------- certificates


def _authority(findings: Findings, folder: Path) -> None:
    with findings.looking("certificate", "devices know the server by it: restore both files from a backup"):
        keyfiles.read_private(folder / "ca.key")
        try:
            own = x509.load_pem_x509_certificate(keyfiles.read_public(folder / "ca.pem"))
        except ValueError as error:
            raise IdentityError(f"{folder / 'ca.pem'} is damaged: {error}") from error
        findings.well("certificate", f"the authority holds until {own.not_valid_after_utc:%Y-%m-%d}")


def _devices(findings: Findings, state: Path) -> None:
    with findings.looking("certificate", f"move {state / ACCESS / 'devices.db'} away and enrol the devices again"):
        with Register.open(state) as register:
            entries = register.entries()
        ended = [one.name for one in entries if one.standing is Standing.EXPIRED]
        good = [one for one in entries if one.standing is Standing.IN_FORCE]
        soon = [one.name for one in good if one.expires - time.time() <= SOON_S]
        if ended:
            enrol = "for each `headwater server devices token --name NAME` here, and `headwater device enroll` there"
            findings.wrong("certificate", f"those of {_some(ended)} have ended", enrol)
        if soon:
            renew = "an agent that has a link renews its own: switch them on before, or see to their links"
            findings.doubtful("certificate", f"those of {_some(soon)} end within {SOON_S / 86400:.0f} days", renew)
        if not ended and not soon:
            findings.well("certificate", f"devices with one that holds: {len(good)}")


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


# ---------------------------------------------------------------- releases


def _releases(findings: Findings, state: Path) -> None:
    with findings.looking("release", f"restore {state / 'rollout'} from a backup"), Versions(state) as versions:
        for name in versions.names():
            release = versions.in_force(name)
            assert release is not None
            what = f"{name} {release.bundle[:5].hex()}"
            until = f"{datetime.fromtimestamp(release.expires, UTC):%Y-%m-%d %H:%M} UTC"
            left_s = release.expires - time.time()
            refresh = f"`headwater server refresh --state {state} --key FILE --name {name}`, where the key is"
            if left_s <= 0:
                findings.wrong("release", f"that of {what} ended at {until}: no device takes it up any more", refresh)
            elif left_s < SOON_S:
                findings.doubtful("release", f"that of {what} ends at {until}", refresh)
            else:
                findings.well("release", f"that of {what} holds until {until}")
            _stored(findings, versions, release.bundle, what)


def _stored(findings: Findings, versions: Versions, bundle_id: bytes, what: str) -> None:
    with findings.looking("bundle", f"publish another one; {what} cannot be sent to devices"):
        versions.load(bundle_id)
        findings.well("bundle", f"{what}, which is released, is whole")


# ---------------------------------------------------------------- port


def _link(findings: Findings, listen: str) -> None:
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - as it may be written
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            findings.well("link", f"a server listens at {listen}")
    except OSError as error:
        findings.doubtful(
            "link",
            f"nobody listens at {listen}: {error.strerror or 'no answer'}",
            "start `headwater server`; if it stops again, its log says why",
        )
