"""A run of real devices once more, in the twin: the same pictures at the same moments, the same links, the same rule.

    Played ──> a crew of one for each device ── its frames' bytes, its moments, its link ──┐
    Calibration ──> what each stage takes, drawn by lot ────────────────────────────────────┴──> Figures

Queue, controller, exit rule and link are those of the simulation of fleets; what is known of this run takes the place
of what is drawn there. Each replay of a run has other luck, and several are put together.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headwater.device.exit import LocalExit
from headwater.device.settings import DeviceSettings
from headwater.simulations.fleet.agenda import Agenda
from headwater.simulations.fleet.calibrated import CalibratedStation
from headwater.simulations.fleet.chance import key_of
from headwater.simulations.fleet.comparing import Comparison, Figures
from headwater.simulations.fleet.content import Content
from headwater.simulations.fleet.drawn import Drawn
from headwater.simulations.fleet.known import Known, KnownCrew, KnownLink, Latencies, Moments
from headwater.simulations.fleet.links import Line
from headwater.simulations.fleet.member import Device
from headwater.simulations.fleet.model import Model, model_of
from headwater.simulations.fleet.outcome import ClassOutcome
from headwater.simulations.fleet.routes import Routes
from headwater.simulations.fleet.scenario import Arrivals, DeviceClass, Server, Times
from headwater.simulations.fleet.station import without_exit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headwater.compression.bundle import Bundle
    from headwater.simulations.fleet.calibration import Calibration
    from headwater.simulations.fleet.stage import Played
    from headwater.simulations.fleet.traffic import Traffic

ROUNDS = 10
"""Replays of each run: their luck differs, and what is compared is all of them."""
SLICE_S = 0.1


def compare(
    played: Sequence[Played],
    calibration: Calibration,
    bundle: Bundle,
    pictures: Sequence[Path],
    rounds: int = ROUNDS,
) -> Comparison:
    """Several runs of the same traffic beside their replays; :class:`SettingsError` for what was not measured."""
    traffic = played[0].traffic
    bundle = bundle if traffic.exit else without_exit(bundle)
    settings = settings_of(traffic, calibration.task)
    content = Content(bundle, settings, pictures)
    replays = [Replay(one, calibration, bundle, content).run(seed) for one in played for seed in range(rounds)]
    real = tuple(Figures.of_played(one) for one in played)
    return Comparison(traffic.name, Figures.of_all(real), Figures.of_all(replays), real)


def settings_of(traffic: Traffic, task: str) -> DeviceSettings:
    """What the agents of a run are told."""
    more: dict[str, object] = dict(traffic.settings)
    return DeviceSettings(tasks=(task,), deadline_ms=traffic.deadline_ms, fps=traffic.fps, **more)  # type: ignore[arg-type]


class Replay:
    """Replays of one run."""

    def __init__(self, played: Played, calibration: Calibration, bundle: Bundle, content: Content) -> None:
        """``bundle`` without an exit where the run had none."""
        self._played, self._calibration, self._content = played, calibration, content
        self._traffic = played.traffic
        self._settings = settings_of(self._traffic, calibration.task)
        self._class = _class_of(self._traffic, self._settings, bundle)
        self._model = _model(bundle, self._class, calibration)
        self._drawn = Drawn(calibration, self._model.widths, self._traffic.frames_per_s)

    def run(self, seed: int) -> Figures:
        """Once, with the luck of this seed."""
        agenda = Agenda(SLICE_S)
        server = Server("edge", workers=len(os.sched_getaffinity(0)), handling_ms=0.0)
        station = CalibratedStation("edge", server, agenda, seed, [], drawn=self._drawn)
        routes = Routes({"edge": station})
        crews = [self._crew(number, agenda, routes, station, seed) for number in range(self._traffic.devices)]
        agenda.run()
        return Figures.of_all([self._figures(crew, agenda.now_s) for crew in crews])

    def _crew(self, number: int, agenda: Agenda, routes: Routes, station: CalibratedStation, seed: int) -> KnownCrew:
        traffic = self._traffic
        tally = Latencies(ClassOutcome(self._class.name, 1), traffic.deadline_ms)
        clock = Moments(traffic, number, self._class.arrivals)
        link = KnownLink(traffic.link_of(number), tally.used, self._calibration.wire.answer_down)
        crew = KnownCrew(
            *(self._class, self._model, clock, agenda, tally, routes, clock.end_s, 0.0),
            drawn=self._drawn,
            known=Known(self._content, self._played.pictures[number], self._settings.tasks, clock, link),
        )
        crew.begin(Device(key_of(seed, traffic.name, number), self._model.make(), link, Line(0.0), station))
        return crew

    def _figures(self, crew: KnownCrew, end_s: float) -> Figures:
        tally = crew.tally
        assert isinstance(tally, Latencies)
        outcome, used = tally.outcome, tally.used
        reports = int(end_s / self._settings.report_s) * self._calibration.wire.report_up
        sources = {"server": outcome.server, "exit": outcome.exit, "whole": outcome.whole}
        nobody = outcome.unanswered + outcome.skipped + outcome.dropped
        return Figures(
            latency_ms=np.array(tally.all_ms),
            frames=outcome.frames,
            missed=outcome.missed,
            up_bytes=used.up_bytes + reports,
            down_bytes=used.down_bytes,
            sources={**sources, "nobody": nobody},
        )


def _class_of(traffic: Traffic, settings: DeviceSettings, bundle: Bundle) -> DeviceClass:
    """One device; its times and its link are not those of the class."""
    times = Times(dict.fromkeys(bundle.manifest.widths, 1.0))
    arrivals = Arrivals(interval_s=1 / traffic.fps)
    return DeviceClass("station", 1, "wifi", times=times, settings=settings, arrivals=arrivals)


def _model(bundle: Bundle, devices: DeviceClass, calibration: Calibration) -> Model:
    """With the exit's own thresholds, as its scores are those of the pictures, and the slack that was measured."""
    settings, model = devices.settings, model_of(bundle, devices)
    if model.exit is None:
        return model
    local = LocalExit.of(bundle, settings)
    assert local is not None
    exit_ = replace(model.exit, sure_above=tuple(local.thresholds))
    if settings.deadline_ms is None:
        return replace(model, exit=exit_)
    left_ms = settings.deadline_ms - min(calibration.slack_ms, settings.deadline_ms / 5)
    return replace(model, exit=exit_, deadline_ms=left_ms, give_up_ms=left_ms)
