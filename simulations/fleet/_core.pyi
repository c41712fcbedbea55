from collections.abc import Callable, Sequence
from typing import Any

from headwater.device.control.controller import Controller, Observation, Situation
from headwater.simulations.fleet.arrivals import Clock
from headwater.simulations.fleet.links import Gap, Link, Segments
from headwater.simulations.fleet.model import Model
from headwater.simulations.fleet.outcome import ClassOutcome, ServerOutcome
from headwater.simulations.fleet.routes import Routes

def prepare(normal: Sequence[float], /) -> None: ...

class Agenda:
    @property
    def now_s(self) -> float: ...
    @property
    def events(self) -> int: ...
    def at(self, time_s: float, do: Callable[[Any, float], None], what: object, /) -> None: ...
    def run(self) -> None: ...

class Used:
    send_s: float
    receive_s: float
    tail_s: float
    up_bytes: float
    down_bytes: float
    wakes: int

class Line:
    shift_s: float
    up_s: float
    down_s: float
    last_s: float
    bulk_up: Any
    bulk_down: Any
    def __init__(self, shift_s: float) -> None: ...

class Road:
    def lay(
        self,
        used: object,
        up: Segments,
        down: Segments,
        radio: tuple[float, float, float, float],
        overheads: tuple[float, float, float, float],
        gaps: bool,
        /,
    ) -> None: ...

class Flight:
    @property
    def luck(self) -> int: ...
    told: bool

class Ticket:
    @property
    def work(self) -> Flight: ...

class Device:
    controller: Controller
    station: Station
    release: Any
    uses_new: bool
    pace: float
    since_s: float
    def __init__(self, key: int, controller: Controller, link: Link, line: Line, station: Station) -> None: ...
    @property
    def key(self) -> int: ...
    @property
    def link(self) -> Link: ...
    @property
    def line(self) -> Line: ...
    @property
    def flights(self) -> list[Flight]: ...
    def part(self) -> None: ...

class Tally:
    prepare_s: float
    head_s: float
    exit_s: float
    code_s: float
    whole_s: float
    train_s: float
    def __init__(self, outcome: ClassOutcome, used: Used, deadline_ms: float) -> None: ...
    @property
    def outcome(self) -> ClassOutcome: ...
    @property
    def used(self) -> Used: ...
    def counts(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]: ...
    def hours(self) -> list[tuple[Any, ...]]: ...
    def stages(self) -> list[float]: ...

class Station:
    def __init__(
        self,
        name: str,
        outages: list[Gap],
        outcome: ServerOutcome,
        agenda: Agenda,
        times: tuple[float, float, float, float],
        key: int,
        rules: tuple[Any, Any, Any, Any],
        /,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def outages(self) -> list[Gap]: ...
    @property
    def outcome(self) -> ServerOutcome: ...
    @property
    def handling_s(self) -> float: ...
    def hours(self) -> list[tuple[Any, ...]]: ...

class Crew:
    def __init__(
        self,
        name: str,
        model: Model,
        tables: object,
        clock: Clock,
        agenda: Agenda,
        tally: Tally,
        routes: Routes,
        situation: Situation,
        observation: Observation,
        numbers: tuple[float, float, float, float, float],
        rules: tuple[int, int, bool, bool],
        /,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Model: ...
    @property
    def tally(self) -> Tally: ...
    def begin(self, device: Device, /) -> None: ...
