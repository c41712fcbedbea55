"""What an installation leaves on a machine, what the service may do there, and what is put there in the first place.

    python -m benchmarks.field

The service is installed into an image's root and taken out again, by the system's own tools where root runs this, by
stand-ins for them elsewhere; systemd says how exposed it would be. ``--quick`` does the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import claims
from headwater.device.install import service
from headwater.device.install.layout import DROP_INS, STATE, UNIT
from tests import tiny
from tests.device.install import image
from tests.supply.lock import locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from headwater.device.install.layout import Root

NAME = "field"
TIMED = False
SECONDS = 2
OK_LEVEL = 2.0
"""Below it systemd-analyze says OK; from 0, the best, to 10."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install, uninstall and report."""
    options = claims.options(__doc__, arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = tiny.bundle().save(folder / "tiny.zip")
        found = [
            left(image.make(folder / "image"), bundle),
            exposure(image.make(folder / "rated"), bundle),
            unhashed(),
        ]
    return claims.report("In the field", found, options)


def left(root: Root, bundle: Path) -> Claim:
    """Install, use and uninstall; what is there then that was not there before, is not there any more, or differs."""
    run, by = (service.run, "systemd-sysusers and userdel") if image.can_make_users() else (image.Tools(root), "fakes")
    before = image.files(root)
    list(service.install(root, None, bundle, {"server": ["edge.local:50051"]}, run=run))
    (root(STATE) / "device.key").touch(0o600)
    root(DROP_INS).mkdir()
    (root(DROP_INS) / "override.conf").write_text("[Service]\nMemoryMax=1G\n", encoding="utf-8")
    written = _differs(before, image.files(root))
    list(service.uninstall(root, run=run))
    still = _differs(before, image.files(root))
    text = f"files and folders left or changed by uninstalling, of {len(written)}"
    peer = ", ".join(still) or f"an image's root; users by {by}"
    return claims.at_most(NAME, text, len(still), unit="files", target=0, peer=peer)


def _differs(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def exposure(root: Root, bundle: Path) -> Claim:
    """What systemd thinks of the unit."""
    text = "exposure of the service with a camera, systemd-analyze security (0 best, 10 worst)"
    if shutil.which("systemd-analyze") is None:
        return claims.at_most(NAME, text, None, unit="", target=OK_LEVEL, peer="there is no systemd-analyze here")
    list(service.install(root, None, bundle, {}, run=image.Tools(root)))
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", str(root(UNIT)))
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    level = re.search(r"exposure level for .*: ([\d.]+)", said.stdout)
    assert level is not None, said.stderr
    version = subprocess.run(("systemd-analyze", "--version"), capture_output=True, text=True, check=True).stdout
    peer = " ".join(version.split()[:2])
    return claims.at_most(NAME, text, float(level[1]), unit="", target=OK_LEVEL, peer=peer)


def unhashed() -> Claim:
    """Packages that the demo is installed from without a hash of their files."""
    lock = locked()
    without = [name for name, (_, hashes) in lock.items() if not hashes]
    text = f"packages of the demo installed without a hash, of {len(lock)}"
    peer = ", ".join(without) or "requirements-demo.txt; torch, by its version alone, is not in it"
    return claims.at_most(NAME, text, len(without), unit="packages", target=0, peer=peer)


if __name__ == "__main__":
    sys.exit(main())
