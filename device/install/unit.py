"""The texts that are installed: the unit, its user, and its settings.

The unit follows the settings: what a setting does not need, the service may not do. ``systemd-analyze security`` rates
it; what it still counts against it is what an agent is for: the network, and a camera.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from headwater.device.install.layout import BUNDLE, CONFIG, NAME, SPOOL, STATE

if TYPE_CHECKING:
    from collections.abc import Mapping

WATCHDOG_S = 60
MEMORY_MAX = "60%"
"""Of the board's: the agent takes some 125 MB; what trains on a device has the rest."""

_UNIT = """\
# Written by `headwater device install` to fit {config}; it is written anew when that runs again.
# Own changes: systemctl edit {name}
[Unit]
Description=headwater device agent
# Neither the network nor the right time is waited for: without them the device answers itself and keeps frames.
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
User={name}
Group={name}
ExecStart={program} device --config {config}
# Answers go to the server and the log to the journal; a line a frame would only wear the card.
StandardOutput=null
StandardError=journal
Restart=always
RestartSec=5
TimeoutStartSec=300
TimeoutStopSec=30
# The agent says so when it gets on, and only then; one that hangs is ended and started again.
WatchdogSec={watchdog_s}
KillMode=mixed
LimitCORE=0
MemoryMax={memory_max}
# Where memory runs out a training process goes first, and the agent stays.
OOMPolicy=continue

StateDirectory={name}
StateDirectoryMode=0700
WorkingDirectory={state}
UMask=0077
{writable}
ProtectSystem=strict
ProtectHome=yes
PrivateMounts=yes
PrivateTmp=yes
{devices}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
CapabilityBoundingSet=
NoNewPrivileges=yes
KeyringMode=private
LockPersonality=yes
{executable_memory}
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_CAMERA = """\
# A camera, and no other device.
SupplementaryGroups=video
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw"""

SYSUSERS = f'u {NAME} - "headwater device agent" {STATE}\n'

_HEAD = f"""\
# What the service {NAME} runs with. `headwater config --config {CONFIG}` explains every key.
# After a change: headwater device install (it fits the unit to this file) and systemctl restart {NAME}
[device]
"""


def config(given: Mapping[str, Any]) -> str:
    """The settings of a device with these; None leaves a key out. Values are those of `DeviceSettings`."""
    keys = {
        "bundle": str(BUNDLE),
        **given,
        "wait_for_source": True,
        "state": str(STATE),
        "keep": "unanswered",
        "spool": str(SPOOL),
        "log_level": "info",
    }
    return _HEAD + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items() if value is not None
    )


def unit(program: PurePosixPath, settings: Mapping[str, Any]) -> str:
    """The unit's text.

    Args:
        program: the command ``headwater``, as the service finds it.
        settings: the section ``[device]`` of its settings.
    """
    writable = _writable(settings)
    return _UNIT.format(
        name=NAME,
        program=_quoted(str(program)),
        config=CONFIG,
        state=STATE,
        watchdog_s=WATCHDOG_S,
        memory_max=MEMORY_MAX,
        writable="\n".join(f"ReadWritePaths=-{_quoted(path)}" for path in writable),
        devices=_CAMERA if _is_camera(str(settings.get("source", "camera"))) else "PrivateDevices=yes",
        executable_memory=_executable_memory(settings),
    ).replace("\n\n\n", "\n\n")


def _is_camera(source: str) -> bool:
    return source.partition(":")[0] == "camera" or source.startswith("/dev/")


def _executable_memory(settings: Mapping[str, Any]) -> str:
    if settings.get("train_data"):
        return "# train_data is set, and torch writes machine code while it runs.\nMemoryDenyWriteExecute=no"
    return "MemoryDenyWriteExecute=yes"


def _writable(settings: Mapping[str, Any]) -> list[str]:
    """Folders beside its state that the service writes into, for the settings say so."""
    files = [Path(str(settings[key])).parent for key in ("records", "spool") if settings.get(key)]
    folders = [Path(str(settings[key])) for key in ("save_images", "state") if settings.get(key)]
    outside = {str(path) for path in (*files, *folders) if path.is_absolute() and not path.is_relative_to(STATE)}
    return sorted(outside)


def _quoted(word: str) -> str:
    """As a unit file takes it: specifiers and quotes are doubled or escaped."""
    return json.dumps(word.replace("%", "%%"), ensure_ascii=False) if set(word) & set(' "\\%$;') else word
