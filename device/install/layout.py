"""Where the service's files are, in this system or in an image's root.

    /etc/systemd/system/headwater.service   the unit; a link in multi-user.target.wants starts it with the machine
    /etc/sysusers.d/headwater.conf          its user
    /etc/headwater/headwater.toml           its settings, for the administrator to edit
    /usr/local/share/headwater/bundle       the model bundle that it was installed with
    /var/lib/headwater/                     its state: identity, newer bundles, spool; mode 0700

The service may write the last one and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NAME = "headwater"
"""Of the service, its user and its folders."""
SERVICE = f"{NAME}.service"
UNIT = Path("/etc/systemd/system") / SERVICE
DROP_INS = Path(f"/etc/systemd/system/{SERVICE}.d")
"""What ``systemctl edit`` writes."""
WANTED = Path("/etc/systemd/system/multi-user.target.wants") / SERVICE
USERS = Path(f"/etc/sysusers.d/{NAME}.conf")
CONFIG = Path(f"/etc/{NAME}/{NAME}.toml")
BUNDLE = Path(f"/usr/local/share/{NAME}/bundle")
STATE = Path(f"/var/lib/{NAME}")
SPOOL = STATE / "spool.db"


@dataclass(frozen=True)
class Root:
    """A system's files: this one's, or those of an image below a folder."""

    folder: Path = Path("/")

    @property
    def is_image(self) -> bool:
        """Whether it is not the system that runs."""
        return self.folder != Path("/")

    def __call__(self, path: Path) -> Path:
        """Where a path of that system is found in this one."""
        return self.folder / path.relative_to("/")
