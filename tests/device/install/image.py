"""An image's root for the service to be installed into, what is in it, and stand-ins for the system's own tools."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from headwater.device.install.layout import Root

PROGRAM = PurePosixPath("/opt/headwater/bin/headwater")
TOOLS_OF_THEIR_OWN = {"etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"}


def can_make_users() -> bool:
    """Whether a user can really be made and deleted here: by root, with systemd-sysusers and userdel."""
    return os.geteuid() == 0 and bool(shutil.which("systemd-sysusers")) and bool(shutil.which("userdel"))


def make(folder: Path) -> Root:
    """An image with users and headwater in it."""
    users = {"passwd": "root:x:0:0::/root:/bin/sh\n", "group": "root:x:0:\nvideo:x:44:\n"}
    for name, text in {**users, "shadow": "root:*:1:0:99999:7:::\n", "gshadow": "root:*::\nvideo:*::\n"}.items():
        (folder / "etc").mkdir(parents=True, exist_ok=True)
        (folder / "etc" / name).write_text(text)
    image = Root(folder)
    image(Path(PROGRAM)).parent.mkdir(parents=True)
    image(Path(PROGRAM)).touch(0o755)
    return image


def files(root: Root) -> dict[str, bytes]:
    """Everything below the root, with what is in it."""
    found = sorted(root.folder.rglob("*"))
    return {
        str(path.relative_to(root.folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for path in found
        if str(path.relative_to(root.folder)) not in TOOLS_OF_THEIR_OWN
    }


class Tools:
    """Stands in for systemd-sysusers, userdel and systemctl: what they were asked for, and a user all the same."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> None:
        self.asked.append(list(command))
        for name in ("passwd", "group"):
            path = self.root(Path("/etc") / name)
            without = re.sub("(?m)^headwater:.*\n", "", path.read_text())
            path.write_text(
                without + (f"headwater:x:{os.getuid()}:{os.getgid()}::/:\n" if command[0] == "systemd-sysusers" else "")
            )
