"""One simulation, from its settings to its result; killed at any moment, the same command goes on.

OUT/simulation.json   what was asked for; another question needs another folder, or --anew
OUT/federation/       the journal and the versions of the rounds, as a server has them
OUT/devices.sqlite    what devices know, and the simulated moment
OUT/result.json       what came out: the same bytes for the same question
OUT/report.html       the same, drawn
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, RecordDict

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.compression.learning.fitting import needs
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.reading import network_of
from headwater.protos.flower import SERVER_NODE, acting_as
from headwater.server.federation.app import app
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from headwater.simulations.learning import shelf as shelves
from headwater.simulations.learning.fleet import Fleet
from headwater.simulations.learning.grid import VirtualGrid
from headwater.simulations.learning.ground import HELD, ground
from headwater.simulations.learning.report import write_report
from headwater.simulations.learning.result import write_result
from headwater.simulations.learning.shelf import Shelf

if TYPE_CHECKING:
    from headwater.server.federation.settings import RoundSettings
    from headwater.simulations.learning.crew import Crew
    from headwater.simulations.learning.ground import Ground
    from headwater.simulations.learning.settings import LearningSettings

QUESTION, RESULT, REPORT = "simulation.json", "result.json", "report.html"
MakeCrew = Callable[[bytes], "Crew"]
"""Makes a crew for a zipped bundle."""
_RUN = 1


@dataclass(frozen=True)
class Question:
    """What is simulated."""

    data: str
    bundle: Path
    fleet: LearningSettings
    rounds: RoundSettings

    def to_json(self, bundle: Bundle) -> dict[str, Any]:
        """As it is kept, with the bundle's id in place of its path."""
        return {
            "data": self.data,
            "bundle": bundle.id.hex(),
            "fleet": self.fleet.to_json(),
            "rounds": self.rounds.to_json(),
        }


def simulate(
    question: Question,
    out: Path,
    make_crew: MakeCrew,
    *,
    anew: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Run it to its end, from wherever it stands; what is in `result.json`.

    Args:
        question: what to simulate.
        out: the folder of this simulation.
        make_crew: see :mod:`.crew`.
        anew: throw away what is there of another simulation, or of this one.
        progress: called with the round, and how many of its replies were worked out, and are out.

    Raises:
        SettingsError: the folder holds another simulation.
        DataError: there are too few images for so many devices.
        LearningError: the rounds cannot go on.
    """
    bundle = Bundle.load(question.bundle)
    asked = question.to_json(bundle)
    _begin(out, asked, anew=anew)
    stands = ground(question.data, bundle.manifest, question.fleet, out)
    if not _ended(out):
        _rounds(question, bundle, stands, out, make_crew, progress)
    fleet = _fleet(question, bundle, stands)
    result = write_result(out, asked, fleet, out / RESULT)
    write_report(out, result, out / REPORT)
    return result


def _begin(out: Path, asked: Mapping[str, Any], *, anew: bool) -> None:
    """See that the folder is this simulation's."""
    file = out / QUESTION
    if anew:
        _clear(out)
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if different := sorted(_differences(before, asked)):
            raise SettingsError(
                f"{out} holds another simulation, whose {', '.join(different)} differ; give another --out, or --anew"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(asked, indent=2, sort_keys=True), encoding="utf-8")
    part.replace(file)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    found = {key for key in ("data", "bundle") if before.get(key) != now[key]}
    for part in ("fleet", "rounds"):
        known = before.get(part, {})
        found |= {key for key, value in now[part].items() if known.get(key) != value}
    return found


def _clear(out: Path) -> None:
    """Remove what a simulation has written, and nothing else."""
    for name in (QUESTION, RESULT, REPORT, *(f"{shelves.FILE}{end}" for end in ("", "-wal", "-shm"))):
        (out / name).unlink(missing_ok=True)
    for name in (FOLDER, HELD):
        shutil.rmtree(out / name, ignore_errors=True)


def _ended(out: Path) -> bool:
    return (out / FOLDER).is_dir() and survey(out, devices=False).status == "done"


def _rounds(
    question: Question,
    bundle: Bundle,
    stands: Ground,
    out: Path,
    make_crew: MakeCrew,
    progress: Callable[[str, int, int], None],
) -> None:
    """The fleet's ServerApp over virtual devices."""
    logging.getLogger("flwr").setLevel(logging.ERROR)  # its own words of every round
    told = question.rounds
    shelf, crew = Shelf(out), make_crew(_zipped(bundle))
    try:
        gives_up_s = told.lifetime_s if told.asynchronous else told.deadline_s
        fleet = _fleet(question, bundle, stands)
        grid = VirtualGrid(fleet, shelf, crew, gives_up_s=gives_up_s, run_id=_RUN, progress=progress)
        config: dict[str, Any] = {**told.to_json(), "bundle": str(question.bundle), "state": str(out)}
        if stands.measured is not None:
            config["data"] = stands.measured
        with acting_as(_RUN):
            app(grid, Context(_RUN, SERVER_NODE, {}, RecordDict(), config))
    finally:
        crew.close()
        shelf.close()


def _fleet(question: Question, bundle: Bundle, stands: Ground) -> Fleet:
    memory = memory_of(bundle, question.rounds) if question.fleet.widths else {}
    if unknown := [width for width, _ in question.fleet.width_shares() if width not in memory]:
        have = ", ".join(f"{width:g}" for width in bundle.manifest.widths)
        raise SettingsError(f"--widths names {unknown[0]:g}; the bundle has {have}")
    return Fleet(question.fleet, stands.images, memory, str(question.bundle))


def memory_of(bundle: Bundle, told: RoundSettings) -> dict[float, int]:
    """Bytes that let a device train each width, with a batch at once if there is room, and no wider one."""
    network, spec = network_of(bundle), bundle.manifest.input

    def peak(width: float, at_once: int) -> int:
        plan = Plan(width=width, part=told.part, batch=told.batch, at_once=at_once, epochs=told.epochs)
        return needs(network, spec, plan).peak

    widths = network.widths
    limits = [peak(wider, 1) - 1 for wider in widths[1:]]
    found = {widths[-1]: peak(widths[-1], told.batch)}
    return found | {
        width: min(peak(width, told.batch), limit) for width, limit in zip(widths[:-1], limits, strict=True)
    }


def _zipped(bundle: Bundle) -> bytes:
    """For actors, which may be on other machines."""
    with tempfile.TemporaryDirectory() as folder:
        return bundle.save(Path(folder) / "bundle.zip").read_bytes()
