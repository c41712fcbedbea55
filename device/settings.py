"""What the agent on the device can be told; every key is a flag of ``headwater device`` as well."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from headwater.compression.errors import SettingsError
from headwater.compression.exits import ExitScore
from headwater.compression.settings import between
from headwater.device.control.policy import PRICES, Objective, Policy, Prices
from headwater.device.radio import RadioKind
from headwater.device.route import ADDRESS

APP = re.compile(r"\w+(\.\w+)*:\w+")


@dataclass(frozen=True)
class DeviceSettings:
    """What the agent on the device can be told."""

    section: ClassVar[str] = "device"

    bundle: Path | None = None
    """The model bundle, a directory or a zip; the server has to serve the same one."""
    server: tuple[str, ...] = ("127.0.0.1:50051",)
    """Addresses of the edge server, host:port; of several, the device picks one, and goes to the next when it fails."""
    name: str = ""
    """The device's name; empty for the machine's own."""
    source: str = "camera"
    """Where pictures come from: a folder or file, solar, digits, camera:N, /dev/videoN, http://..., rtsp://..., or -
    for standard input."""
    wait_for_source: bool = False
    """Wait for a camera or stream that is not there yet, as a service should; else that ends the agent."""
    fps: float | None = None
    """Pictures a second; empty for as many as come and are answered."""
    repeat: bool = False
    """Begin a folder or data set again at its end."""
    count: int | None = None
    """Stop after so many pictures; empty for no end but the source's."""
    tasks: tuple[str, ...] = ()
    """Which tasks to ask for, of the bundle's or the server's; empty for all with labels."""
    save_images: Path | None = None
    """Folder for the pictures of image tasks, such as reconstruct; empty for none."""
    width: float | None = None
    """Use only this width of the head; with neither width nor gain set, a rule picks both for each frame."""
    gain: int | None = None
    """Use only this gain; 0 is the coarsest, with the fewest bytes."""
    deadline_ms: int | None = None
    """Time from a picture to its answer. Where the server's is not there by then, the local exit answers, if the bundle
    has one for what is asked; else the frame is given up. Empty for no limit."""
    level: float | None = None
    """Least probability of the server's answer by the deadline where no local exit can step in; empty for 0.99."""
    objective: Objective = "accuracy"
    """What is made as good as it can be: accuracy, or bytes or energy within `slack` points of the most accurate."""
    slack: float | None = None
    """Points of accuracy that the objectives bytes and energy may give up; empty for 1."""
    max_bytes_per_s: float | None = None
    """Bytes that may be sent a second, with what a frame costs on the wire beside its own; empty for any number."""
    radio: RadioKind | None = None
    """What the objective energy prices a byte by, `none` for a cable; empty for wifi."""
    compute_watts: float | None = None
    """What head, exit and coder add to the idle board while they run, for the objective energy; empty for 1 W."""
    prefer: tuple[str, ...] = ()
    """Weights of the tasks' accuracies, such as defect=2; a task that is not named weighs 1."""
    progressive: bool = False
    """Send long frames in parts: by the deadline, a slow link then gets an answer from what it has carried."""
    progressive_bytes: int = 150
    """Only frames of more bytes than this are sent in parts."""
    max_drop: float | None = None
    """Points of accuracy that may be lost by answering confident frames on the device; empty for sending all."""
    whole_model: bool = False
    """Load the whole model too, and answer with it on the device where that is better; takes the memory of both."""
    exit_score: ExitScore = "softmax"
    """What confidence is measured by there: softmax, the likeliest class's probability, or energy."""
    threads: int = 1
    """Threads of the head's inference."""
    window: int = 8
    """Frames that may be unanswered; the server may allow fewer."""
    records: Path | None = None
    """File to append a JSON line a frame to; empty for none."""
    retry_s: float = 10.0
    """Longest pause between two attempts to connect."""
    keep: Literal["none", "unanswered", "all"] = "none"
    """Frames to keep on disk until a server with an archive has stored them: those that no server answered, or all."""
    spool: Path | None = None
    """File that they are kept in."""
    spool_max_mib: int = 64
    """Of frames in it; more, and the oldest are dropped."""
    spool_max_hours: float = 168.0
    """How long a frame waits in it while the device is up, then it is dropped."""
    state: Path | None = None
    """Folder for what outlives the agent: bundles and messages that it was offered, and what training goes on from."""
    trusted_key: Path | None = None
    """Public key of whoever releases bundles; newer ones signed by it are taken from the server. Empty for none."""
    report_s: float = 30.0
    """How often the server is told how the device does."""
    train_data: Path | None = None
    """Folder of labelled pictures; the device takes part in federated rounds with them, and they stay on it."""
    train_app: str = "headwater.device.federated.app:app"
    """The Flower ClientApp that trains, MODULE:NAME."""
    train_memory_mb: int | None = None
    """Megabytes that training may take above what its process needs idle; empty for half of what is free."""
    train_seconds: float | None = None
    """Processor seconds that a message may train for. The app is told, and ended at twice that; empty for any time."""
    train_nice: int = 19
    """Priority of training, as by nice: 0 for that of others; at 19 it runs only when nobody else wants to."""
    train_on_battery: bool = False
    """Train although the device runs on its battery; else training waits for the mains."""
    train_max_celsius: float | None = None
    """Training waits while the device is hotter; empty for not looking."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Least level that is logged, on standard error."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        between("threads", self.threads, 1, 64)
        between("window", self.window, 1, 1024)
        between("progressive_bytes", self.progressive_bytes, 0, 1 << 21)
        between("retry_s", self.retry_s, 0.1, 3600)
        between("report_s", self.report_s, 0.1, 3600)
        between("train_nice", self.train_nice, 0, 19)
        between("spool_max_mib", self.spool_max_mib, 1, 1 << 20)
        between("spool_max_hours", self.spool_max_hours, 0.01, 1e6)
        if self.keep != "none" and self.spool is None:
            raise SettingsError(f"keep is {self.keep}, but no spool is set to keep frames in; give --spool FILE")
        for key, value, least, most in (
            ("fps", self.fps, 0.001, 1000),
            ("count", self.count, 1, 1 << 62),
            ("deadline_ms", self.deadline_ms, 1, 3_600_000),
            ("gain", self.gain, 0, 63),
            ("max_drop", self.max_drop, 0, 100),
            ("compute_watts", self.compute_watts, 0, 1000),
            ("train_memory_mb", self.train_memory_mb, 1, 1 << 20),
            ("train_seconds", self.train_seconds, 0.1, 1e6),
            ("train_max_celsius", self.train_max_celsius, 20, 120),
        ):
            if value is not None:
                between(key, value, least, most)
        self._check_together()
        _ = self.policy
        if not self.server or not all(map(ADDRESS.fullmatch, self.server)):
            given = ",".join(self.server)
            raise SettingsError(f"server is {given!r}; each must be host:port, such as edge.local:50051.")

    def _check_together(self) -> None:
        """Refuse settings of which one leaves the other nothing to say."""
        fixed = self.width is not None or self.gain is not None
        for key, given in (
            ("objective", self.objective != "accuracy"),
            ("level", self.level is not None),
            ("max_bytes_per_s", self.max_bytes_per_s is not None),
            ("prefer", bool(self.prefer)),
            ("whole_model", self.whole_model),
        ):
            if given and fixed:
                raise SettingsError(f"{key} is for choosing modes, and width or gain fix one; leave one of them out.")
        if self.level is not None and self.deadline_ms is None:
            raise SettingsError("level is the probability of an answer by the deadline; give --deadline-ms too.")
        if self.slack is not None and self.objective == "accuracy":
            raise SettingsError("slack is what the objectives bytes and energy may give up; give --objective too.")
        if (self.radio is not None or self.compute_watts is not None) and self.objective != "energy":
            raise SettingsError("radio and compute_watts are prices of energy; give --objective energy too.")
        self._check_training()
        if self.trusted_key is not None and self.state is None:
            raise SettingsError("trusted_key is set, but no folder for the bundles that it lets in; give --state DIR")

    def _check_training(self) -> None:
        if self.train_data is None:
            return
        if self.state is None:
            raise SettingsError("train_data is set, but no folder for what training goes on from; give --state DIR")
        if not self.train_data.is_dir():
            raise SettingsError(f"train_data is {self.train_data}; it must be a folder of labelled pictures")
        if not APP.fullmatch(self.train_app):
            raise SettingsError(f"train_app is {self.train_app!r}; it must be MODULE:NAME, such as fleet.client:app")

    @property
    def policy(self) -> Policy:
        """What the user wants of the frames; raises :class:`SettingsError`."""
        given = {"level": self.level, "slack": self.slack}
        return Policy(
            objective=self.objective,
            max_bytes_per_s=self.max_bytes_per_s,
            prices=self._prices(),
            prefer=self._weights(),
            **{key: value for key, value in given.items() if value is not None},
        )

    def _prices(self) -> Prices:
        prices = PRICES[self.radio or "wifi"]
        return prices if self.compute_watts is None else replace(prices, compute_watts=self.compute_watts)

    def _weights(self) -> Mapping[str, float]:
        weights = {}
        for item in self.prefer:
            found = re.fullmatch(r"([^=\s]+)\s*=\s*(\d+(?:\.\d*)?)", item.strip())
            if found is None:
                raise SettingsError(
                    f"prefer has {item!r}; it must be tasks with weights, such as defect=2,cell_type=1."
                )
            weights[found[1]] = float(found[2])
        return weights

    @property
    def bundle_path(self) -> Path:
        """The bundle, which has no default; raises :class:`SettingsError` if it is not set."""
        if self.bundle is None:
            raise SettingsError(
                "no bundle is set; give --bundle PATH, or set HEADWATER_DEVICE_BUNDLE or the file's key."
            )
        return self.bundle

    @property
    def device_name(self) -> str:
        """The name that was set, or the machine's."""
        return self.name or socket.gethostname()
