"""A safetensors file of a bundle as a class: which arrays it holds, of what type, and how a wrong one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from headwater.compression.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ArrayFile:
    """Base of a frozen dataclass whose fields are the arrays of one file."""

    FILE: ClassVar[str]
    """The file's name in a bundle."""
    DTYPES: ClassVar[Mapping[str, type[np.generic]]]
    """Of each array."""

    def check_dtypes(self) -> None:
        """Raise :class:`BundleError` for an array of another type."""
        for name, dtype in self.DTYPES.items():
            if getattr(self, name).dtype != dtype:
                raise self.wrong(f"{name} is {getattr(self, name).dtype}; want {np.dtype(dtype)}")

    def check_shapes(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Raise :class:`BundleError` for an array of another shape."""
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise self.wrong(f"{name} has shape {getattr(self, name).shape}; want {shape}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays as they are stored."""
        return {name: getattr(self, name) for name in self.DTYPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Take the arrays of the file; raises :class:`BundleError` unless they are sound."""
        if missing := cls.DTYPES.keys() - arrays.keys():
            raise cls.wrong(f"it lacks {', '.join(sorted(missing))}")
        if unknown := arrays.keys() - cls.DTYPES.keys():
            raise cls.wrong(f"it has {', '.join(sorted(unknown))}, which this version does not know")
        return cls(**{name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def wrong(cls, what: str) -> BundleError:
        """The error for a file that cannot be used."""
        return BundleError(f"the bundle's {cls.FILE} is unusable: {what}; build the bundle again")
