"""How an update is made small: what becomes of its values, and how many of its coordinates are sent.

| values  | a coordinate that is sent becomes                                        | exact |
|---------|--------------------------------------------------------------------------|-------|
| float32 | itself                                                                   | yes   |
| float16 | the nearest of half precision                                            |       |
| int8    | one of 255 levels, of a step of its array's own                          |       |
| ternary | plus or minus one value of its array's own (Sattler 2019, arXiv:1903.02891) |    |
| sign    | the same, and no coordinate is left out: one bit each (HideNseek)        |       |
| factors | for a matrix, few products of two vectors of integers (factors.py)       |       |

What a sender keeps back, ``delta - decoded``, it adds to its next update (error feedback): nothing is lost, only late.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from headwater.compression.errors import UpdateError

Values = Literal["float32", "float16", "int8", "ternary", "sign", "factors"]
VALUES: tuple[Values, ...] = get_args(Values)
"""The place of a name in this list is its number in an update's header."""


@dataclass(frozen=True)
class Scheme:
    """What becomes of an update's values, and which are sent."""

    values: Values = "float32"
    """See the table above."""
    keep: float = 1.0
    """Share of the coordinates that are sent: those largest in magnitude over the whole update. 1 sends all. Of factors
    the numbers in the vectors that are sent, as a share of the coordinates."""

    def __post_init__(self) -> None:
        """Check both; raises `UpdateError`."""
        if self.values not in VALUES:
            raise UpdateError(f"an update's values are {self.values!r}; want one of {', '.join(VALUES)}")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep <= 1:
            raise UpdateError(f"an update's share of coordinates is {self.keep!r}; want above 0, and 1 at most")
        if self.values == "sign" and self.keep != 1:
            raise UpdateError(f"sign sends every coordinate, so keep has to be 1, not {self.keep}; or take ternary")

    @property
    def sparse(self) -> bool:
        """Whether most coordinates arrive as 0 where little is kept: vectors that are sent give all of a matrix."""
        return self.keep < 1 and self.values != "factors"

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scheme:
        """Read what `to_json` wrote; raises `UpdateError` for anything else, unknown keys too."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UpdateError(f"a scheme is no JSON: {text[:80]!r}") from error
        if not isinstance(found, dict) or (unknown := found.keys() - asdict(cls()).keys()):
            what = f"unknown keys {sorted(unknown)}" if isinstance(found, dict) else type(found).__name__
            raise UpdateError(f'a scheme has {what}; want {{"values": ..., "keep": ...}}')
        return cls(**found)
