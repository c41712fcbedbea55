"""A secret that was given as an argument is not to be read off the process afterwards."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from pathlib import Path
from headwater.device.access.argv import forget
print("s3cret" in Path("/proc/self/cmdline").read_text())
forget("")
forget("nowhere")
forget("s3cret")
print(Path("/proc/self/cmdline").read_text().split("\\0")[-4:], sys.argv[1:])
"""


def test_it_is_overwritten_wherever_it_stands() -> None:
    command = [sys.executable, "-c", _PROGRAM, "--token", "s3cret", "--again=s3cret"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen, left = done.stdout.splitlines()
    assert seen == "True"
    assert left == "['--token', '******', '--again=******', ''] ['--token', 's3cret', '--again=s3cret']"
