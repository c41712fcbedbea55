"""What a roll-out can be told; every key is a flag of ``headwater server publish`` as well."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from headwater.compression import keyfiles
from headwater.compression.errors import SettingsError
from headwater.compression.release import VALID_DAYS, Signer
from headwater.compression.settings import between
from headwater.compression.signature import load_private
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.gate import Bounds


@dataclass(frozen=True)
class RolloutSettings:
    """What a roll-out can be told."""

    section: ClassVar[str] = "rollout"

    key: Path | None = None
    """Private key that bundles and releases are signed with; devices trust its public half."""
    key_lists: Path | None = None
    """Lists of keys that name it, as `headwater bundle rotate` writes them; empty where devices were given its public
    half."""
    valid_days: float = VALID_DAYS
    """So long may devices take up a release; sign it anew before, with `headwater server refresh`."""
    max_regression: float = 1.0
    """Points of accuracy that a task may lose in any mode on held-out images; a bundle that loses more is refused."""
    max_growth: float = 10.0
    """Per cent that the mean frame of any mode may grow."""
    canary: float = 0.1
    """Share of the devices that get a bundle first; 1 for all at once."""
    canary_frames: int = 500
    """Frames that it answers before it reaches three times as many devices, and so on."""
    max_fall: float = 5.0
    """Points that agreement of local exit and server, or mean confidence, may fall in the field."""
    max_failures: float = 1.0
    """Points that the share of failed frames may rise there."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        between("valid_days", self.valid_days, 0.01, 3650)
        _ = self.rules, self.bounds

    @property
    def rules(self) -> Rules:
        """How releases go."""
        return Rules(
            share=self.canary,
            frames=self.canary_frames,
            agreement=self.max_fall,
            confidence=self.max_fall,
            failures=self.max_failures,
        )

    @property
    def bounds(self) -> Bounds:
        """What may be published."""
        return Bounds(self.max_regression, self.max_growth)

    @property
    def signer(self) -> Signer:
        """Who signs.

        Raises:
            SettingsError: no key is set; it has no default.
            IdentityError: it is open to others, or not there.
            SignatureError: it is no key, or not one that the lists name.
        """
        chain = b"" if self.key_lists is None else keyfiles.read_public(self.key_lists)
        return Signer(load_private(self._key_path), chain, self.valid_days)

    @property
    def _key_path(self) -> Path:
        if self.key is None:
            raise SettingsError(
                "no key is set; make a pair with `headwater bundle keygen FILE`, give --key FILE here and "
                "--trusted-key FILE.pub to the devices."
            )
        return self.key
