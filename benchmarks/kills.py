"""Rounds by the commands that users have, in processes of their own, which are killed for good while the rounds go on.

    python -m benchmarks.kills                         # two rounds, eight kills
    python -m benchmarks.kills --quick                 # one round, three kills

    undisturbed    a server, two devices, `headwater server federate` to its end
    killed         the same, but that server, devices and the process of the rounds are killed (SIGKILL) and started
                   again, each when a message is where :data:`KILLS` says

Both end with a version: the SHA-256 of all weights, of which a bundle is made. They have to be the same.
"""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from PIL import Image

from benchmarks import claims
from headwater.compression.bundle import Bundle
from headwater.protos.nodes import node_id
from headwater.server.federation.versions import latest
from headwater.server.mail.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMED = False
SECONDS = 75
BUNDLE = Path(__file__).parent.parent / "simulations" / "bundles" / "solar"
NAMES = ("cam-1", "cam-2")
SERVER, LEARNING = "server", "rounds"
STATES = ("offered", "accepted", "fetched", "replied")
"""Of a message, in their order."""
KILLS = (
    (1, SERVER, "accepted"),
    (1, "cam-1", "fetched"),
    (1, LEARNING, "replied"),
    (2, LEARNING, "offered"),
    (2, "cam-2", "accepted"),
    (2, SERVER, "fetched"),
    (2, LEARNING, "fetched"),
    (2, SERVER, "replied"),
)
"""In which round, who, and what a message to one of the devices is by then."""
ROUNDS = 2
QUICK_ROUNDS = 1
PICTURES = 2
"""Of each label on each device."""
WITHIN_S = 500.0
_HEADWATER = (sys.executable, "-m", "headwater.compression.cli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rounds twice, and compare."""
    options = claims.options(__doc__, arguments)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    kills = [kill for kill in KILLS if kill[0] <= rounds]
    with tempfile.TemporaryDirectory(prefix="headwater-kills-") as folder:
        quiet, killed = (ended(Path(folder) / str(len(those)), those, rounds) for those in ([], kills))
    counts = ", ".join(
        f"{what} {sum(who.startswith(start) for _, who, _ in kills)}"
        for what, start in (("server", SERVER), ("devices", "cam-"), ("rounds", LEARNING))
    )
    same = claims.at_least(
        "kills",
        f"runs that end with the hash of an undisturbed one after {len(kills)} kills -9 ({counts})",
        float(quiet == killed),
        unit="of 1",
        target=1,
        peer=f"undisturbed: {quiet[:10]}; killed: {killed[:10]}",
    )
    return claims.report("Rounds among kills", [same], options)


def ended(folder: Path, kills: Sequence[tuple[int, str, str]], rounds: int) -> str:
    """The version that rounds end with."""
    with Fleet(folder, rounds) as fleet, Mailbox(fleet.state) as mailbox:
        fleet.until(lambda: sum(one.connected for one in mailbox.devices()) == len(NAMES), "the devices connect")
        fleet.start(LEARNING)
        for round_, who, state in kills:
            there = STATES.index(state)
            fleet.until(lambda: furthest(mailbox, round_) >= there, f"a message of round {round_} is {state}")  # noqa: B023
            fleet.kill(who)
            fleet.start(who)
        fleet.until(fleet.over, "the rounds end")
        learnt = latest(fleet.state)
        assert (learnt.finished, learnt.round) == (True, rounds), fleet.log(LEARNING)
        return learnt.version


def furthest(mailbox: Mailbox, round_: int) -> int:
    """How far the messages of a round of the first run have come; -1 where there are none."""
    keys = [hashlib.sha256(f"1/{round_}/{node_id(name)}/train".encode()).hexdigest() for name in NAMES]
    return max((STATES.index(one.state) for one in mailbox.find(keys)), default=-1)


class Fleet:
    """A server and two devices with pictures of their own, as processes that can be killed and started again."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self._folder, self.state, self._rounds = folder, folder / "state", rounds
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()
        for number, name in enumerate(NAMES):
            pictures(folder / name, PICTURES, 0.1 * number)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{one.getsockname()[1]}"

    def __enter__(self) -> Self:
        for name in (SERVER, *NAMES):
            self.start(name)
        self.until((self.state / "mailbox.db").exists, "the server starts")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.kill(name)

    def start(self, name: str) -> None:
        """Start a process, or start it again."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*_HEADWATER, *map(str, self._words(name))], stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """For good, and at once."""
        process = self._running.pop(name)
        process.kill()
        process.communicate()

    def over(self) -> bool:
        """Whether the rounds have ended."""
        return self._running[LEARNING].poll() is not None

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self._folder / f"{name}.log").read_text(encoding="utf-8")

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Look again and again."""
        end_s = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < end_s, f"waited {WITHIN_S:g} s in vain until {what}"
            time.sleep(0.005)

    def _words(self, name: str) -> Sequence[object]:
        if name == SERVER:
            return ("server", "--bundle", BUNDLE, "--listen", self._address, "--http", "", "--state", self.state)
        if name == LEARNING:
            settings = (
                "--rounds",
                self._rounds,
                "--least",
                len(NAMES),
                "--epochs",
                1,
                "--batch",
                2,
                "--deadline-s",
                600,
            )
            return ("server", "federate", "--bundle", BUNDLE, "--state", self.state, *settings)
        given = {"--name": name, "--bundle": BUNDLE, "--server": self._address, "--source": "-"}
        learning = {"--state": self._folder / f"{name}-state", "--train-data": self._folder / name, "--train-nice": 0}
        room = {"--train-memory-mb": 2000, "--retry-s": 0.2}
        return ("device", *(w for pair in {**given, **learning, **room}.items() for w in pair), "--train-on-battery")


def pictures(folder: Path, count: int, darker: float) -> None:
    """So many of each label: the bundle's own golden images, made darker by a share that differs."""
    bundle = Bundle.load(BUNDLE)
    images = dict(zip(bundle.manifest.tasks[0].labels, bundle.arrays("golden.safetensors")["image"], strict=True))
    for number in range(count):
        for label, image in images.items():
            (folder / label).mkdir(parents=True, exist_ok=True)
            shade = 1 - darker - 0.05 * number
            Image.fromarray((image[0] * shade).astype("uint8")).save(folder / label / f"{number}.png")


if __name__ == "__main__":
    sys.exit(main())
