from collections.abc import Sequence

from headwater.device.options import Option
from headwater.device.policy import Cost
from headwater.device.ways import Exits, Key, Room, Wanted, Way, Work

class Margin:
    def __init__(self, level: float) -> None: ...
    @property
    def upper(self) -> float: ...
    @property
    def noise(self) -> float: ...
    def add(self, error: float, /) -> None: ...
    def chance(self, error: float, beyond: float = 0.0) -> float: ...
    def quantile(self, share: float, /) -> float: ...

class Scales:
    def __init__(self, way: type[Way], table: Sequence[tuple[int, tuple[Option, ...]]], /) -> None: ...
    def all(
        self, exits: Exits, whole: Way | None, work: Work, room: Room | None, wanted: Wanted, /
    ) -> tuple[list[Way], float]: ...
    def best(
        self,
        exits: Exits,
        whole: Way | None,
        work: Work,
        room: Room | None,
        wanted: Wanted,
        kept: Key | None,
        cost: Cost | None,
        /,
    ) -> tuple[Way | None, float]: ...
