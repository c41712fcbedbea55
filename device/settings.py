"""What the agent on the device can be told; every key is a flag of ``headwater device`` as well."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from headwater.compression.errors import SettingsError
from headwater.compression.exits import ExitScore
from headwater.compression.settings import between


@dataclass(frozen=True)
class DeviceSettings:
    """What the agent on the device can be told."""

    section: ClassVar[str] = "device"

    bundle: Path | None = None
    """The model bundle, a directory or a zip; the server has to serve the same one."""
    server: str = "127.0.0.1:50051"
    """Address of the edge server, host:port."""
    name: str = ""
    """The device's name; empty for the machine's own."""
    source: str = "camera"
    """Where pictures come from: a folder or file, solar, digits, camera:N, /dev/videoN, http://..., rtsp://..., or -
    for standard input."""
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
    """Time from a picture to its answer; a frame that is later is given up. Empty for no limit."""
    progressive: bool = False
    """Send long frames in parts: by the deadline, a slow link then gets an answer from what it has carried."""
    progressive_bytes: int = 150
    """Only frames of more bytes than this are sent in parts."""
    max_drop: float | None = None
    """Points of accuracy that may be lost by answering confident frames on the device; empty for sending all."""
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
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Least level that is logged, on standard error."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        between("threads", self.threads, 1, 64)
        between("window", self.window, 1, 1024)
        between("progressive_bytes", self.progressive_bytes, 0, 1 << 21)
        between("retry_s", self.retry_s, 0.1, 3600)
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
        ):
            if value is not None:
                between(key, value, least, most)
        if not re.fullmatch(r"(unix:.+|.+:\d{1,5})", self.server):
            raise SettingsError(f"server is {self.server!r}; it must be host:port, such as edge.local:50051.")

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
