"""The unit of deployment: a trained model as a directory or a zip of plain files.

    manifest.json         what it is, and the SHA-256 of every other file        (manifest.py)
    tables.safetensors    the prior as integers, gains, channel groups            (tables.py)
    head_0.25.onnx ...    the head, a graph a width: image -> latent
    decoder.onnx          latent, mode -> features
    tail_<task>.onnx      features -> logits, one a task
    weights.safetensors   the trainable weights, for federated rounds and further training
    local.onnx            optional: the whole unsplit model, image -> logits
    exit.onnx             optional: latent, width -> logits, for confident frames    (device/exit.py)
    exit.safetensors      beside it: which score is worth which loss                 (exits.py)
    golden.safetensors    a few images with the answers the bundle gave when it was built
    manifest.sig          optional: Ed25519 signature over manifest.json           (signature.py)
    MODEL_CARD.md         optional: data, licence, recipe, figures

A bundle's id is the SHA-256 of its manifest's bytes. Everything is checked on loading; nothing in a bundle is code that
Python runs (no pickle). A device may have it without the files that only a server reads (decoder, tails, weights).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import safetensors
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from headwater.compression.coder import Coder
from headwater.compression.errors import BundleError
from headwater.compression.exits import ExitTables
from headwater.compression.frame import FrameCodec
from headwater.compression.manifest import FileEntry, Manifest, Mode, Task, for_server
from headwater.compression.tables import PriorTables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
SHORT_ID_BYTES = 5
MAX_FILE_BYTES = 1 << 30


class _Store(Protocol):
    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file; raises BundleError if it is missing or longer than ``limit``."""

    def names(self) -> list[str]:
        """Names of all files."""


class _Directory:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise BundleError(f"cannot read {name} of the bundle {self.path}: {error.strerror}") from error
        return _within(data, name, limit)

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.iterdir())


class _Zip:
    _METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
    """The others' decoders take gigabytes where a header says so."""
    _DAMAGE = (OSError, EOFError, KeyError, ValueError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                if (method := archive.getinfo(name).compress_type) not in self._METHODS:
                    raise BundleError(f"{name} of the bundle {self.path} is packed by method {method}; want deflate")
                with archive.open(name) as file:
                    # Reading one byte past the limit, never the size that the archive claims, bounds a zip bomb.
                    data = file.read(limit + 1)
        except self._DAMAGE as error:
            raise BundleError(f"cannot read {name} of the bundle {self.path}: {error}") from error
        return _within(data, name, limit)

    def names(self) -> list[str]:
        with zipfile.ZipFile(self.path) as archive:
            return sorted(archive.namelist())


def _within(data: bytes, name: str, limit: int) -> bytes:
    if len(data) > limit:
        raise BundleError(f"{name} is longer than the {limit} bytes it may have; fetch the bundle again")
    return data


class Bundle:
    """A loaded and verified bundle. Make one with :meth:`load` or :meth:`from_files`."""

    def __init__(
        self,
        manifest_bytes: bytes,
        files: Mapping[str, bytes],
        signature: bytes | None = None,
        *,
        device: bool = False,
    ) -> None:
        """Check every file against the manifest; raises :class:`BundleError`.

        ``device``: the files that only a server reads may be missing.
        """
        self.manifest_bytes = manifest_bytes
        self.manifest = Manifest.from_json(manifest_bytes)
        self.signature = signature
        self.id = hashlib.sha256(manifest_bytes).digest()
        self._files = dict(files)
        self._device = device
        if missing := self.manifest.missing_files():
            raise BundleError(f"the manifest lists no {', '.join(missing)}; build the bundle again")
        for name, entry in self.manifest.files.items():
            if name in files or not (device and for_server(name)):
                _check(name, entry, self._files)

    @property
    def short_id(self) -> str:
        """First five bytes of the id in hex: what a self-contained frame carries."""
        return self.id[:SHORT_ID_BYTES].hex()

    @classmethod
    def load(cls, path: Path | str, *, device: bool = False) -> Bundle:
        """Read a bundle from a directory or a zip and verify it; raises :class:`BundleError`.

        ``device``: the files that only a server reads may be missing.
        """
        path = Path(path)
        if not path.exists():
            raise BundleError(f"there is no bundle at {path}; `headwater train DATA --out {path}` makes one")
        store: _Store = _Directory(path) if path.is_dir() else _Zip(path)
        manifest_bytes = store.read(MANIFEST, limit=1 << 20)
        manifest = Manifest.from_json(manifest_bytes)
        for name, entry in manifest.files.items():
            if entry.size > MAX_FILE_BYTES:
                raise BundleError(f"{name} claims {entry.size} bytes; the most that is read is {MAX_FILE_BYTES}")
        have = store.names()
        wanted = {n: e for n, e in manifest.files.items() if n in have or not (device and for_server(n))}
        files = {name: store.read(name, limit=entry.size) for name, entry in wanted.items()}
        signature = store.read(SIGNATURE, limit=4096) if SIGNATURE in have else None
        return cls(manifest_bytes, files, signature, device=device)

    @classmethod
    def build(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
        """Make a bundle of new files: the manifest's own ``files`` are replaced by the hashes of these."""
        entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())}
        return cls(manifest.replace_files(entries).to_json(), files)

    def signed(self, signature: bytes) -> Bundle:
        """The same bundle with this ``manifest.sig``; see :mod:`headwater.compression.signature`."""
        return Bundle(self.manifest_bytes, self._files, signature, device=self._device)

    def with_file(self, name: str, data: bytes) -> Bundle:
        """The same bundle with one file added or replaced; it has another id and no signature."""
        return Bundle.build(self.manifest, {**self._files, name: data})

    def save(self, path: Path | str) -> Path:
        """Write it as a directory, or as a zip if the path ends in ``.zip``; returns the path.

        The manifest is written last, so that a directory that was cut short is not taken for a bundle.
        """
        path = Path(path)
        entries = {
            **self._files,
            **({SIGNATURE: self.signature} if self.signature else {}),
            MANIFEST: self.manifest_bytes,
        }
        if path.suffix == ".zip":
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in entries.items():
                    archive.writestr(name, data)
            return path
        path.mkdir(parents=True, exist_ok=True)
        for name, data in entries.items():
            (path / name).write_bytes(data)
        return path

    def save_whole(self, path: Path) -> None:
        """Write it as a directory that a power cut leaves whole or not at all; raises OSError."""
        new = path.with_name(f"new-{path.name}")
        shutil.rmtree(new, ignore_errors=True)
        self.save(new)
        for file in new.iterdir():
            _sync(file, os.O_RDONLY)
        _sync(new, os.O_RDONLY | os.O_DIRECTORY)
        new.rename(path)
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises :class:`BundleError` with the names there are."""
        try:
            return self._files[name]
        except KeyError:
            have = ", ".join(sorted(self._files))
            raise BundleError(f"the bundle {self.manifest.name} has no file {name}; it has {have}") from None

    def __contains__(self, name: str) -> bool:
        """Whether the bundle has a file of this name."""
        return name in self._files

    def arrays(self, name: str) -> dict[str, NDArray[np.generic]]:
        """The tensors of a safetensors file; raises :class:`BundleError`."""
        return from_safetensors(self.read(name), f"{name} of the bundle {self.manifest.name}")

    @cached_property
    def tables(self) -> PriorTables:
        """The prior's integer tables, gains and channel groups."""
        tables = PriorTables.from_arrays(self.arrays("tables.safetensors"))
        if (tables.modes, tables.channels) != (len(self.manifest.modes), self.manifest.latent.channels):
            raise BundleError(
                f"tables.safetensors is for {tables.modes} modes and {tables.channels} channels; "
                f"the manifest has {len(self.manifest.modes)} and {self.manifest.latent.channels}"
            )
        return tables

    @cached_property
    def exits(self) -> ExitTables:
        """The local exit's calibration; raises :class:`BundleError` where the bundle has no exit."""
        manifest = self.manifest
        if manifest.exit is None:
            raise BundleError(f"the bundle {manifest.name} has no local exit; `headwater train` builds one with it")
        tables = ExitTables.from_arrays(self.arrays("exit.safetensors"))
        width_of = [manifest.widths.index(mode.width) for mode in manifest.modes]
        if tables.widths != len(manifest.widths) or tables.width_of.tolist() != width_of:
            raise BundleError(
                f"exit.safetensors is for {tables.widths} widths, by mode {tables.width_of.tolist()}; "
                f"the manifest has {len(manifest.widths)}, by mode {width_of}; build the bundle again"
            )
        classes = len(self.task(manifest.exit.task).labels)
        if len(tables.opinions) and tables.opinions.shape[1] != classes:
            raise BundleError(
                f"exit.safetensors has opinions on {tables.opinions.shape[1]} classes; {manifest.exit.task} has "
                f"{classes}; build the bundle again"
            )
        return tables

    def coder(self) -> Coder:
        """A new entropy coder for this bundle's latents."""
        return Coder(self.tables, self.manifest.latent.height, self.manifest.latent.width)

    def frames(self, bundle_id: bytes | None = None) -> FrameCodec:
        """A new frame codec, bound to this bundle's id, or to that of a bundle with the same heads and tables."""
        opinions = 0 if self.manifest.exit is None else len(self.exits.opinions)
        return FrameCodec(bundle_id or self.id, len(self.manifest.modes), len(self.tables.group_ends), opinions)

    def mode(self, width: float, gain: int) -> Mode:
        """The mode of this width and gain; raises :class:`BundleError` with those there are."""
        for mode in self.manifest.modes:
            if (mode.width, mode.gain) == (width, gain):
                return mode
        gains = sorted({mode.gain for mode in self.manifest.modes})
        widths = ", ".join(f"{w:g}" for w in self.manifest.widths)
        raise BundleError(f"there is no mode of width {width:g} and gain {gain}; widths: {widths}; gains: {gains}")

    def task(self, name: str) -> Task:
        """The task of this name; raises :class:`BundleError` with those there are."""
        for task in self.manifest.tasks:
            if task.name == name:
                return task
        have = ", ".join(task.name for task in self.manifest.tasks)
        raise BundleError(f"there is no task {name!r} in the bundle {self.manifest.name}; it has {have}")


def _check(name: str, entry: FileEntry, files: Mapping[str, bytes]) -> None:
    if name not in files:
        raise BundleError(f"the bundle lacks {name}, which its manifest lists; fetch the bundle again")
    digest = hashlib.sha256(files[name]).hexdigest()
    if digest != entry.sha256:
        raise BundleError(
            f"{name} is damaged: its SHA-256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}...; "
            "fetch the bundle again"
        )


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_safetensors(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Serialise arrays; the same arrays always give the same bytes."""
    return save_safetensors({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def from_safetensors(data: bytes, what: str) -> dict[str, NDArray[np.generic]]:
    """The other way round; raises :class:`BundleError` that says `what` is none."""
    try:
        return dict(load_safetensors(data))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{what} is no safetensors file: {error}") from error
