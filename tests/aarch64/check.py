"""What run.sh checks in the arm64 system with headwater installed: ``check.py HOST:PORT`` of a server elsewhere.

It imports headwater as installed, not the tree beside it.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "simulations/bundles/solar"
PICTURE = Path("/tmp/cell.png")  # noqa: S108 - of a system that has nobody else in it


def memory_mb() -> int:
    """The most that this process has had in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main() -> None:
    """Check one thing after the other; an exception ends it."""
    import cv2
    import numpy as np
    from PIL import Image

    from headwater.compression import coder
    from headwater.compression.bundle import Bundle
    from headwater.device.control import kernel
    from headwater.device.exit import LocalExit
    from headwater.device.head import FrameMaker
    from headwater.device.rollout import golden
    from headwater.device.settings import DeviceSettings

    assert platform.machine() == "aarch64", platform.machine()
    assert coder._rans is not None, "the entropy coder was not built in C"
    assert coder._rans.__file__.startswith("/opt/headwater/"), coder._rans.__file__
    assert kernel.compiled(), "the deadline rule's arithmetic was not built in C"
    versions = f"Python {platform.python_version()}, OpenCV {cv2.__version__}"
    print(f"{versions}, {Path(coder._rans.__file__).name} on {platform.machine()}")

    bundle = Bundle.load(BUNDLE)
    maker = FrameMaker(bundle, local_exit=LocalExit.of(bundle, DeviceSettings(bundle=BUNDLE, max_drop=1.0)))
    golden.check(bundle, maker)
    arrays = bundle.arrays(golden.FILE)
    images = golden._images(bundle, arrays)
    latents = {width: [maker.head.latent(image, width) for image in images] for width in bundle.manifest.widths}
    off = max(
        float(np.abs(latent - golden._wanted(arrays, width, number)).max())
        for width, each in latents.items()
        for number, latent in enumerate(each)
    )
    print(f"{len(images)} golden images, {len(bundle.manifest.widths)} widths: latents off by {off:.2g} at most")
    picture = Image.fromarray(images[0][0])
    picture.save(PICTURE)
    for mode in bundle.manifest.modes:
        coded = maker.make(picture, mode.index)
        frame = bundle.frames().unpack_file(maker.self_contained(coded))
        symbols = maker.head.quantise(latents[mode.width][0][: mode.channels], mode.index)
        assert np.array_equal(bundle.coder().decode(frame.payload, frame.mode, frame.groups), symbols)
    print(f"a frame in each of {len(bundle.manifest.modes)} modes; {memory_mb()} MB, the emulator's own part included")

    words = ("device", "--bundle", BUNDLE, "--server", sys.argv[1], "--once", PICTURE, "--json")
    command = [sys.executable, "-m", "headwater.compression.cli", *map(str, words)]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert answer["source"] == "edge", answer
    result = answer["results"]["defect"]
    print(f"{answer['bytes']} bytes to the server: {result['label']} {result['score']:.1%}")


main()
