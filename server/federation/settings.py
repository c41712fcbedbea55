"""What a run of rounds can be told; it is written into the journal, so that a run goes on as it began."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self

from headwater.compression.errors import SettingsError, UpdateError
from headwater.compression.settings import between
from headwater.compression.updates import Scheme

_UP = Scheme("factors", keep=0.02)
_DOWN = Scheme("factors", keep=0.1)


@dataclass(frozen=True)
class RoundSettings:
    """How rounds are run, what devices are asked for, and what is done with what they send."""

    section: ClassVar[str] = "federation"

    rounds: int = 10
    """How many; of asynchronous ones, how many new versions."""
    seed: int = 0
    """Of the choice of devices, and (with the round and the device) of their training."""

    share: float = 1.0
    """Of the devices that are there, how many are wanted in a round."""
    least: int = 2
    """Fewest devices that a round begins with, and fewest replies that change anything."""
    over: float = 1.0
    """Ask so many times more devices than are wanted, and go on when those that are wanted have answered."""
    deadline_s: float = 600.0
    """A round takes what has come by then; a device that is asked asynchronously is given up after `lifetime_s`."""

    asynchronous: bool = False
    """Devices train at their own pace, and every `buffer` replies make a version."""
    buffer: int = 4
    """Replies that make a version."""
    at_once: int = 0
    """Devices that may train at a time; 0 for all that are there."""
    most_stale: int = 20
    """Versions that may have been made since the one that a reply starts from."""
    lifetime_s: float = 43200.0
    """How long an asynchronous message waits for its reply."""

    width: float = 1.0
    """The widest sub-network that a device may train; each one takes the widest that fits it."""
    part: Literal["all", "head"] = "all"
    """all: whatever fits; head: only the part before the split, with a local loss."""
    epochs: float = 1.0
    """Passes over a device's own data, in a round."""
    batch: int = 16
    """Images in a step."""
    optimizer: Literal["scaled", "sgd", "adam"] = "scaled"
    """How steps follow from gradients on the device: scaled and sgd keep nothing beside what is trained, adam twice as
    much as that; a device on which it does not fit trains a narrower width."""
    rate: float = 1e-4
    """Step size on the device, in the first round."""
    decay: float = 1.0
    """What the step size is multiplied by after each round: devices that do not see the same agree in the end only if
    their steps become small (Li et al., "On the convergence of FedAvg on non-IID data", ICLR 2020)."""
    distil: float = 1.0
    """Weight of what narrow widths learn from the wider ones on the device."""
    logit_adjustment: float = 1.0
    """How much of the skew of a device's labels is taken out of its loss. 1, all of it, keeps a device that sees mostly
    one class from teaching just that in many steps; at 0 rounds of few steps learn as if all images were together."""
    server_rate: float = 1.0
    """How far the network goes towards the aggregate."""
    average: int = 1
    """Over how many versions the result is a running mean: what is measured and published, while devices go on from the
    last one. Single versions of rounds of few steps differ in what the last devices saw; their mean does not (Polyak
    and Juditsky, "Acceleration of stochastic approximation by averaging", 1992). 1 for the last version itself."""

    sparse: float = 0.0
    """Share of the weights of convolutions and linear layers that stay active, in sparse rounds; 0 for dense ones."""
    sparse_keep: float = 0.3
    """Share of each layer's input that devices keep for backward there."""
    sparse_extrude: float = 0.2
    """Share of a weight due to be dropped that a step takes away, in a round that ends with an adjustment."""
    sparse_every: int = 10
    """Rounds between adjustments of what is active."""
    sparse_until: int = 100
    """The round of a run after which it stays as it is."""

    up: str = _UP.to_json()
    """How devices code their updates: a scheme, as JSON."""
    down: str = _DOWN.to_json()
    """How new versions are coded for devices."""

    aggregator: Literal["mean", "trimmed", "median", "krum", "flag"] = "mean"
    """mean, trimmed, median, krum or flag."""
    hostile: float = 1 / 3
    """The share of devices that may lie."""
    longest: float = 10.0
    """An update that is so many times longer than the median of its round is refused."""
    noise: float = 0.0
    """Differential privacy: noise in units of what one device can add; 0 for none. Replaces the aggregator."""
    clip: float = 1.0
    """Differential privacy: longest update."""

    evaluate_every: int = 0
    """After every so many rounds devices measure the new version on their own data; 0 for never."""

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` for what is out of range or contradicts itself."""
        between("rounds", self.rounds, 1, 1_000_000)
        between("share", self.share, 0.001, 1)
        between("least", self.least, 1, 1_000_000)
        between("over", self.over, 1, 10)
        between("deadline_s", self.deadline_s, 0.001, 31_536_000)
        between("buffer", self.buffer, 1, 1_000_000)
        between("width", self.width, 0.01, 1)
        between("epochs", self.epochs, 0.001, 1000)
        between("longest", self.longest, 1, 1_000_000)
        between("decay", self.decay, 0.001, 1)
        between("average", self.average, 1, 1_000_000)
        between("logit_adjustment", self.logit_adjustment, 0, 1)
        between("sparse", self.sparse, 0, 1)
        if self.sparse and self.asynchronous:
            raise SettingsError(
                "masks differ between versions, and asynchronous replies are of several: leave out --async or --sparse"
            )
        self._check_schemes()
        self._check_aggregator()

    def _check_schemes(self) -> None:
        for key in ("up", "down"):
            try:
                Scheme.from_json(getattr(self, key))
            except UpdateError as error:
                raise SettingsError(f"{key} is no way of coding updates: {error}") from error
        if self.aggregator in {"trimmed", "median"} and self.scheme_up.sparse:
            raise SettingsError(
                f"--aggregator {self.aggregator} looks at each coordinate alone; where each device sends only "
                f"{self.scheme_up.keep:g} of them, most send nothing, and nothing would come out. Take krum or flag, "
                "or --up with keep 1 or factors"
            )

    def _check_aggregator(self) -> None:
        if self.noise < 0 or self.clip <= 0:
            raise SettingsError(f"noise is {self.noise} and clip is {self.clip}; they cannot be negative, clip not 0")
        if self.noise and self.aggregator != "mean":
            raise SettingsError(f"--noise makes a private mean; it does not go with --aggregator {self.aggregator}")
        if self.noise and self.asynchronous:
            raise SettingsError("--noise needs rounds in which every device counts the same; leave out --async")

    @property
    def scheme_up(self) -> Scheme:
        """How devices code."""
        return Scheme.from_json(self.up)

    @property
    def scheme_down(self) -> Scheme:
        """How the server codes."""
        return Scheme.from_json(self.down)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From a dictionary; keys that another version wrote are an error."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise SettingsError(f"the run was begun by another headwater: it says {', '.join(sorted(unknown))}")
        return cls(**values)
