"""Targets: files that somebody else may have written. Each says of any bytes whether they were taken, or fails."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression import patch, settings
from headwater.compression.bundle import Bundle, from_safetensors, to_safetensors
from headwater.compression.coder import Coder
from headwater.compression.errors import BundleError, DataError, FrameError, SettingsError, SignatureError
from headwater.compression.exits import SCORES, ExitTables
from headwater.compression.manifest import Manifest
from headwater.compression.release import Release, heard
from headwater.compression.signature import SIGNATURE_BYTES, sign
from headwater.compression.tables import PriorTables
from headwater.compression.trust import KeyList, Trust, read_chain
from headwater.device.settings import DeviceSettings
from headwater.server.federation.settings import RoundSettings
from headwater.server.rollout.settings import RolloutSettings
from headwater.server.settings import ServerSettings
from headwater.simulations.fleet import scenario as scenarios
from headwater.simulations.fleet.calibration import Calibration
from headwater.simulations.trace import Trace
from tests import tiny

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SECTIONS = (DeviceSettings, ServerSettings, RoundSettings, RolloutSettings)
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder with a name of its own in it
_FOLDER = TemporaryDirectory(prefix="headwater-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)


def _file(data: bytes) -> Path:
    path = Path(_FOLDER.name) / "input"
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------- bundle


def manifest(data: bytes) -> bool:
    """manifest.json."""
    try:
        got = Manifest.from_json(data)
    except BundleError:
        return False
    assert Manifest.from_json(got.to_json()) == got
    assert got.widths
    got.missing_files()
    return True


def manifest_seeds() -> list[bytes]:
    return [_small_manifest().to_json(), tiny.later().manifest.to_json()]


def _small_manifest() -> Manifest:
    whole = tiny.bundle().manifest
    return Manifest(
        whole.name, whole.created, whole.input, whole.latent, whole.modes[:1], whole.tasks[:1], recipe={"seed": 1}
    )


def arrays(data: bytes) -> bool:
    """A safetensors file as a bundle's tables, its exit's calibration, and by itself."""
    try:
        found = from_safetensors(data, "it")
    except BundleError:
        return False
    for kind in (PriorTables, ExitTables):
        with contextlib.suppress(BundleError):
            made = kind.from_arrays(found)
            _use_tables(made) if isinstance(made, PriorTables) else _use_exits(made)
    return True


def _use_tables(tables: PriorTables) -> None:
    """The coder's C code gets them next."""
    coders = [Coder(tables, 2, 3, implementation=implementation) for implementation in ("c", "python")]
    for mode in (0, tables.modes - 1):
        symbols = np.zeros((tables.mode_channels[mode], 2, 3), np.int16)
        payloads = [each.encode(symbols, mode).payload for each in coders]
        assert payloads[0] == payloads[1]
        assert np.array_equal(coders[0].decode(payloads[0], mode), symbols)
        with contextlib.suppress(FrameError):
            coders[0].decode(b"\xff" * 20, mode)


def _use_exits(exits: ExitTables) -> None:
    logits = np.zeros(exits.opinions.shape[1], np.float32)
    assert exits.opinion(logits, 0) is None or len(exits.opinions)
    for score in SCORES:
        assert not math.isnan(exits.threshold_for(0, 0.5, score))


def arrays_seeds() -> list[bytes]:
    small = {"a": np.arange(3, dtype=np.float32), "b": np.zeros((2, 0), np.int16)}
    tables = PriorTables.from_counts([[np.array([3.0, 1.0])]], [[0]], np.ones((1, 1)), np.ones((1, 1)), [1], plane=6)
    bundle = tiny.bundle()
    return [to_safetensors(small), to_safetensors(tables.arrays()), bundle.read("exit.safetensors")]


def archive(data: bytes) -> bool:
    """A bundle as a zip."""
    try:
        Bundle.load(_file(data), device=True)
    except BundleError:
        return False
    return True


def archive_seeds() -> list[bytes]:
    return [_zip(kind) for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)]


def _zip(kind: int) -> bytes:
    small, found = _device_bundle(), io.BytesIO()
    with zipfile.ZipFile(found, "w", kind) as file:
        for name, content in {**small._files, "manifest.json": small.manifest_bytes}.items():
            file.writestr(zipfile.ZipInfo(name), content, kind)
    return found.getvalue()


@cache
def _device_bundle(text: bytes = b"graph") -> Bundle:
    """Whose files are a few bytes: loading one does not look into them."""
    made = _small_manifest()
    return Bundle.build(made, dict.fromkeys(made.missing_files(), text))


def packed(data: bytes) -> bool:
    """Byte 0: 1 with the id that its manifest has; the rest is a bundle packed as the change of another."""
    how, data = data[:1], data[1:]
    try:
        patch.apply(_named(data) if how == b"\x01" else data, _device_bundle())
    except BundleError:
        return False
    return True


def packed_seeds() -> list[bytes]:
    new, old = _device_bundle(b"later graph"), _device_bundle()
    alike = _device_bundle(b"grapf")
    made = [patch.make(new), patch.make(new, old), patch.make(alike, old), patch.make(new, old, device=True)]
    return [b"\x01" + each for each in made]


def _named(data: bytes) -> bytes:
    with contextlib.suppress(BundleError, zstandard.ZstdError):
        text = patch._unpack(patch._next(patch._entries(data)), _device_bundle().manifest_bytes, 1 << 20)
        return data[:4] + hashlib.sha256(text).digest() + data[36:]
    return data


def release(data: bytes) -> bool:
    """Byte 0: 1 with a right signature at its end; the rest is a release, after lists of keys or without."""
    how, data = data[:1], data[1:]
    try:
        trust, rest = heard(_released(data) if how == b"\x01" else data, Trust.anchored(KEY.public_key()))
        got = Release.read(rest, *trust.newest.release)
    except SignatureError:
        return False
    assert Release.read(got.signed(KEY), KEY.public_key()) == got
    assert trust.following(trust.chain) == trust
    return True


def release_seeds() -> list[bytes]:
    public = KEY.public_key()
    lists = KeyList(1, 1 << 40, (public,), (public,)).signed(KEY) + KeyList(2, 1, (public,) * 2, (public,)).signed(KEY)
    made = Release(7, bytes(32), "solar", 1000, 1, 1 << 40), Release(1, bytes(32), "", 0, 0, 0, back=True)
    return [b"\x01" + made[0].signed(KEY), b"\x00" + made[1].signed(KEY), b"\x01" + made[0].signed(KEY, lists)]


def _released(data: bytes) -> bytes:
    chain, rest = read_chain(data)
    return chain + rest[:-SIGNATURE_BYTES] + sign(rest[:-SIGNATURE_BYTES], KEY)


# ---------------------------------------------------------------- text


def config(data: bytes) -> bool:
    """Byte 0: which section, and from 4 on lines of the environment in place of a configuration file."""
    if not data:
        return False
    section, data, lines = SECTIONS[data[0] % 4], data[1:], data[0] >= 4
    pairs = [line.partition("=") for line in data.decode(errors="replace").split("\n")] if lines else []
    environment = {name: value for name, _, value in pairs if name != "HEADWATER_CONFIG"}
    try:
        settings.resolve(section, environment=environment, file=_file(b"" if lines else data))
    except SettingsError:
        return False
    return True


def config_seeds() -> list[bytes]:
    text = b'[device]\nserver = "edge:50051"\ndeadline_ms = 40\n[server]\nmax_batch = 8\n[rollout]\n[federation]\n'
    lines = b"HEADWATER_DEVICE_SERVER=edge:1\nHEADWATER_SERVER_MAX_BATCH=3\nHEADWATER_DEVICE_MAX_DROP=2.5"
    return [b"\x00" + text, b"\x01" + text, b"\x04" + lines]


def trace(data: bytes) -> bool:
    """A recording in Mahimahi's format."""
    try:
        got = Trace.mahimahi(_file(data), 0.5)
    except DataError:
        return False
    assert got.period_s > 0
    assert math.isfinite(got.mean_bits_per_s)
    end_s = got.finish(0.0, 1500)
    assert end_s >= 0
    assert got.finish(end_s, 1500) >= end_s
    assert got.capacity(got.period_s) >= 0
    got.later(got.period_s / 3)
    return True


def trace_seeds() -> list[bytes]:
    return [b"0\n1\n1\n2\n5\n", b"1000\n", b"0", b" ".join(b"%d" % (3 * n) for n in range(40))]


def scenario(data: bytes) -> bool:
    """A fleet's scenario."""
    try:
        got = scenarios.Scenario.of(settings.read_file(_file(data)))
    except SettingsError:
        return False
    assert scenarios.Scenario.of(got.plain()) == got
    assert got.scaled(10).device_count <= 10
    return True


def scenario_seeds() -> list[bytes]:
    ready = [(scenarios.FOLDER / f"{name}.toml").read_bytes() for name in scenarios.ready()]
    small = (
        b'name = "a"\n[[devices]]\nname = "b"\ncount = 3\nprofile = "pi-5"\nlink = "wifi"\n[[servers]]\nname = "c"\n'
    )
    return [small, *ready]


def calibration(data: bytes) -> bool:
    """What `headwater simulate calibrate` writes."""
    try:
        got = Calibration.load(_file(data))
    except SettingsError:
        return False
    for frames in got.frames:
        assert got.times(frames.width, frames.action, 1.0).shape[1] == 7
    assert got.batch_times(5) > 0
    with contextlib.suppress(SettingsError):
        assert got.middle.head_ms
    return True


def calibration_seeds() -> list[bytes]:
    stages = "".join(f"{name} = [1.0, 2.0]\n" for name in _stages())
    wire = "connect_up = 1\nconnect_down = 1\nclose_up = 1\nclose_down = 1\nreport_up = 1\nanswer_down = 1.5\n"
    text = (
        'bundle = "ab"\nmachine = "m"\nmade = "2026"\ntask = "t"\nslack_ms = 2\nserver_start_s = 1\n'
        f"device_start_s = 1\n[wire]\n{wire}[batch_ms]\n1 = 2.0\n8 = 3.5\n"
        f'[[frames]]\nwidth = 0.25\naction = "send"\nframes_per_s = 1\n{stages}'
    )
    return [text.encode()]


def _stages() -> tuple[str, ...]:
    from headwater.simulations.fleet.calibration import STAGES

    return STAGES
