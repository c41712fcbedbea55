"""The model that the repository brings, for the demo and for simulated fleets whose own is not there yet."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from headwater.compression.errors import BundleError


def shipped_bundle() -> Path:
    """The bundle in the repository; raises :class:`BundleError` in a copy installed without it.

    Its weights are learnt from pictures under a non-commercial licence, so no wheel has it.
    """
    folder = Path(str(resources.files("headwater.simulations"))) / "bundles"
    for path in (folder / "solar", folder / "solar.zip"):
        if path.exists():
            return path
    raise BundleError(
        f"this copy of headwater has no model in {folder}: name one with --bundle PATH (`headwater train DATA --out "
        "PATH` makes one), or install the clone of the repository itself (`pip install -e .`)"
    )
