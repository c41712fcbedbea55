"""Fuzzes every target under atheris for a time, says what was tried, and keeps what was found: `make fuzz`.

    python -m tests.fuzz.run                           # five minutes for all together
    python -m tests.fuzz.run --minutes 60 message      # an hour for one
    python -m tests.fuzz.run --json out/bench.json     # also merges its claims into that file

Each target has a process of its own, which goes on from the inputs that earlier runs found (out/fuzz/TARGET/found). An
input that is a finding is kept as out/fuzz/TARGET/crash-*: mend what it shows, and move it to tests/fuzz/corpus/TARGET
under a name that says what it is, where the tests try it from then on. The status is the number of findings. A process
that libFuzzer's own clock does not end, though no input follows the last, is killed, and that input is one too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks import claims
from tests.fuzz.harness import Counts, read_counts, read_now
from tests.fuzz.targets import MODULES

ROOT = Path(__file__).parents[2]
OUT = Path("out/fuzz")
STALL_S = 300.0
"""Without another input; libFuzzer ends a process after 25 s with one. It imports what it needs in that time, and ends,
on a machine that has much else to do."""
LOOK_S = 1.0
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*", "stall-*")
MISSING = """atheris is not installed here: `make fuzz` installs it, from wheels for Linux on x86-64 and CPython 3.11 to
3.13. Without it the same targets run under hypothesis, not guided by coverage: `make test ARGS=tests/fuzz`."""


class Outcome(NamedTuple):
    """Of one target."""

    name: str
    counts: Counts
    findings: list[Path]
    said: str
    """The end of what the process printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, print a table, merge the claims; how many findings there were."""
    options = _options(arguments)
    if importlib.util.find_spec("atheris") is None:
        sys.exit(MISSING)
    names = options.targets or list(MODULES)
    seconds = max(1, round(options.minutes * 60 / len(names)))
    outcomes = [_fuzzed(name, options.out / name, seconds, _links(options.out)) for name in names]
    for one in outcomes:
        _tell(one)
    claims.report("Fuzzing", _claims(outcomes, seconds), claims.Options(quick=False, json=options.json))
    return sum(len(one.findings) for one in outcomes)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which; default all: {', '.join(MODULES)}")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all of them together; default 5")
    parser.add_argument("--out", type=Path, default=OUT, help=f"for what is found; default {OUT}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="merge the claims into this file (out/bench.json)")
    return parser.parse_args(arguments)


def _links(out: Path) -> Path:
    """A folder in which every package lies under the name that it is imported by: where atheris looks for sources."""
    folder = out.absolute() / "names"
    (folder / "headwater").mkdir(parents=True, exist_ok=True)
    for package in ("protos", "compression", "device", "server", "simulations"):
        link = folder / "headwater" / package
        if not link.is_symlink():
            link.symlink_to(ROOT / package)
    return folder


def _fuzzed(name: str, folder: Path, seconds: int, names: Path) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in FINDINGS:  # those of earlier runs are in the corpus, or are found again
        for path in folder.glob(pattern):
            path.unlink()
    command = [sys.executable, "-m", "tests.fuzz.harness", name, str(folder.absolute()), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(names), str(ROOT)])}
    print(f"{name}: {seconds} s", flush=True)
    (folder / "counts").unlink(missing_ok=True)
    with (folder / "log").open("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
            stalled = _watched(process, folder)
        log.seek(0)
        said = log.read()[-4000:]
    if stalled:
        data = read_now(folder)
        (folder / f"stall-{hashlib.sha256(data).hexdigest()[:40]}").write_bytes(data)
    findings = sorted(path for pattern in FINDINGS for path in folder.glob(pattern))
    if process.returncode and not findings:
        raise SystemExit(f"{name} did not run (status {process.returncode}):\n{said}")
    return Outcome(name, read_counts(folder), findings, said)


def _watched(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait for its end; whether it had to be killed, because no input followed the last for too long."""
    inputs, since_s = -1, time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
            return False
        if (now := read_counts(folder).inputs) != inputs:
            inputs, since_s = now, time.monotonic()
        elif time.monotonic() > since_s + STALL_S:
            process.send_signal(signal.SIGQUIT)  # it says where it stands
            time.sleep(LOOK_S)
            process.kill()
            return True


def _tell(one: Outcome) -> None:
    inputs, size, taken = one.counts
    print(f"{one.name:12} {inputs:>10,} inputs {size:>14,} bytes {taken:>9,} taken {len(one.findings)} findings")
    for path in one.findings:
        print(f"  {path}\n{one.said}")


def _claims(outcomes: Sequence[Outcome], seconds: int) -> list[claims.Claim]:
    inputs = sum(one.counts.inputs for one in outcomes)
    size = sum(one.counts.size for one in outcomes)
    findings = sum(len(one.findings) for one in outcomes)
    what = f"{len(outcomes)} targets, {seconds} s each"
    peer = f"atheris {importlib.metadata.version('atheris')}"
    return [
        claims.at_least("fuzz", f"hostile inputs tried: {what}", inputs, unit="inputs", target=100_000, peer=peer),
        claims.at_least("fuzz", "bytes of these", size / 1e6, unit="MB", target=10, peer=peer),
        claims.at_most(
            "fuzz", "crashes, hangs and undocumented errors", findings, unit="findings", target=0, peer=peer
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
