"""A process that runs rounds of the toy fleet over a mailbox, and says each step: `python killed_rounds.py STATE`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from headwater.server.federation.grid import StreamGrid
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import FleetStrategy, Surroundings
from headwater.server.federation.versions import FOLDER
from tests.server.federation import toy

TOLD = RoundSettings(
    rounds=2,
    rate=0.1,
    least=3,
    deadline_s=600,
    average=2,
    up=toy.scheme(values="ternary", keep=0.3),
    down=toy.scheme(values="int8", keep=0.5),
)


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.WARNING)
    state = Path(sys.argv[1])
    around = Surroundings(at=lambda step: print(step, flush=True))
    rounds = FleetStrategy(toy.OUTLINE, state / FOLDER, TOLD, around=around)
    run = rounds.open(toy.ZERO)
    with StreamGrid(state, run.number) as grid:
        rounds.start(grid, toy.initial())
    rounds.journal.close()


if __name__ == "__main__":
    main()
