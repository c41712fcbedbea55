"""What a fleet costs: a list of prices, which is the user's, and what a simulated fleet comes to by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between, read_file
from headwater.simulations.fleet.outcome import ClassOutcome
from headwater.simulations.fleet.reading import read

EXAMPLE = Path(__file__).parent / "prices.toml"
HOURS_A_MONTH = 30 * 24


@dataclass(frozen=True)
class LinkPrice:
    """Of a link."""

    device: float = 0.0
    """Once, for each device."""
    month: float = 0.0
    """For each device."""
    gigabyte: float = 0.0


@dataclass(frozen=True)
class ServerPrice:
    """Of a kind of server."""

    workers: int
    """Batches that it runs at a time."""
    month: float
    buy: float = 0.0


@dataclass(frozen=True)
class Prices:
    """The list; see prices.toml."""

    boards: Mapping[str, float]
    links: Mapping[str, LinkPrice]
    servers: Mapping[str, ServerPrice]
    currency: str = "EUR"
    months: float = 36.0
    """Over which everything is summed."""
    kwh: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is something to choose from; raises :class:`SettingsError`."""
        between("months", self.months, 1, 1200)
        for what in ("boards", "links", "servers"):
            if not getattr(self, what):
                raise SettingsError(f"the price list has no {what}; a fleet needs one at least.")

    @classmethod
    def load(cls, path: Path | None = None) -> Prices:
        """Read a list; the example where none is given. Raises :class:`SettingsError`."""
        path = path or EXAMPLE
        if not path.is_file():
            raise SettingsError(f"there is no price list {path}; {EXAMPLE.name} beside this module is an example.")
        return read(cls, read_file(path), str(path))

    def cost(self, of: ClassOutcome, devices: int, servers: int, board: str, link: str, kind: str) -> float:
        """Of so many devices that are each like the mean one of an outcome, and of servers, over all months."""
        price, server = self.links[link], self.servers[kind]
        kwh_a_month = of.watts / 1e3 * HOURS_A_MONTH
        a_month = price.month + of.month_gigabytes * price.gigabyte + kwh_a_month * self.kwh
        each = self.boards[board] + price.device + self.months * a_month
        return devices * each + servers * (server.buy + self.months * server.month)
