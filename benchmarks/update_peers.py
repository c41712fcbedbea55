"""Other ways to send an update, as codecs of `headwater.compression.updates.codecs.Codec`, and DeepCABAC as a coder.

    zstd       the float32 bytes as they lie, zstandard level 3
    planes     ZipNN's way without ZipNN: bytes sorted by significance, zstandard a plane
    zipnn      the package itself
    flower     the bytes of Flower's own ArrayRecord message
    DeepCABAC  the entropy coder of NNCodec and of the standard ISO/IEC 15938-17: it gets the integers that ours gets

What is not installed is left out, and `missing` says why. NNCodec as a whole needs a torchvision that fits torch and
numpy below 2; its entropy coder needs neither and is taken alone: pip install --no-deps nncodec==2.1.3 zipnn==0.5.4.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from headwater.compression.errors import UpdateError
from headwater.compression.updates import Encoded, Layout, Scheme, Update, flat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.codecs import Codec
    from headwater.compression.updates.flat import Arrays, Mask

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """An exact codec made of a way to code all floats of an update: the base first, then what it makes of them."""

    name: str
    shrink: Callable[[Floats, Layout], bytes]
    restore: Callable[[bytes, Layout], Floats]
    exact: bool = True

    def encode(self, delta: Arrays, layout: Layout, *, base: bytes, mask: Mask | None = None) -> Encoded:
        values, live = flat.join(delta, layout), flat.live(layout, mask)
        if live is not None:
            values[live == 0] = 0
        return Encoded(bytes((len(base),)) + base + self.shrink(values, layout), flat.shape(values, layout))

    def decode(self, data: bytes, layout: Layout, *, mask: Mask | None = None) -> Update:  # noqa: ARG002 - a codec's
        try:
            base, body = data[1 : 1 + data[0]], data[1 + data[0] :]
            values = self.restore(body, layout)
        except Exception as error:  # each package has errors of its own, some of them bare
            raise UpdateError(f"{self.name} cannot decode: {error}") from error
        if values.size != layout.size:
            raise UpdateError(f"{self.name} decodes {values.size} values; want {layout.size}")
        return Update(base, Scheme(), flat.shape(values, layout))


# --------------------------------------------------------------------------------------------------- general purpose


def zstd() -> Peer:
    return Peer(
        f"zstd {zstandard.__version__}",
        lambda values, _: zstandard.compress(values.tobytes(), 3),
        lambda data, _: np.frombuffer(zstandard.decompress(data), np.float32),
    )


def planes() -> Peer:
    def shrink(values: Floats, _: Layout) -> bytes:
        parts = [zstandard.compress(plane.tobytes(), 3) for plane in values.view(np.uint8).reshape(-1, 4).T]
        return b"".join(len(part).to_bytes(4, "little") + part for part in parts)

    def restore(data: bytes, _: Layout) -> Floats:
        found = []
        for _plane in range(4):
            end = 4 + int.from_bytes(data[:4], "little")
            found.append(np.frombuffer(zstandard.decompress(data[4:end]), np.uint8))
            data = data[end:]
        return np.ascontiguousarray(np.stack(found, axis=1)).view(np.float32).ravel()

    return Peer("byte planes + zstd", shrink, restore)


def zipnn() -> Peer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it has torch compile two functions of its own
        from zipnn import ZipNN

    def coder() -> Any:  # noqa: ANN401 - a package without types
        return ZipNN(input_format="byte", bytearray_dtype="float32", threads=1)

    return Peer(
        f"zipnn {importlib.metadata.version('zipnn')}",
        lambda values, _: bytes(coder().compress(bytearray(values.tobytes()))),
        lambda data, _: np.frombuffer(bytes(coder().decompress(data)), np.float32),
    )


def flower() -> Peer:
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from flwr.app import Array, ArrayRecord, RecordDict
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Message

    def shrink(values: Floats, layout: Layout) -> bytes:
        record = ArrayRecord({name: Array(each) for name, each in flat.shape(values, layout).items()})
        return bytes(recorddict_to_proto(RecordDict({"arrays": record})).SerializeToString())

    def restore(data: bytes, layout: Layout) -> Floats:
        arrays = recorddict_from_proto(Message.FromString(data)).array_records["arrays"]
        return np.concatenate([arrays[name].numpy().ravel() for name in layout.shapes])

    return Peer(f"flwr {importlib.metadata.version('flwr')}", shrink, restore)


PEERS: dict[str, Callable[[], Peer]] = {"zstd": zstd, "planes": planes, "zipnn": zipnn, "flower": flower}


@cache
def _tried() -> tuple[dict[str, Codec], dict[str, str]]:
    found, lacking = dict[str, "Codec"](), dict[str, str]()
    for name, make in PEERS.items():
        try:
            found[name] = make()
        except ImportError as error:
            lacking[name] = f"{name}: {error}"
    return found, lacking


def installed() -> dict[str, Codec]:
    """The peers that there are, by name."""
    return _tried()[0]


def missing() -> dict[str, str]:
    """Why others are not there."""
    return _tried()[1]


# --------------------------------------------------------------------------------------------------------- DeepCABAC


@cache
def deepcabac() -> Any:  # noqa: ANN401 - an extension module without types
    """Load the extension of NNCodec alone; raises ImportError."""
    package = importlib.util.find_spec("nncodec")
    if package is None or not package.submodule_search_locations:
        raise ImportError("nncodec is not installed (pip install --no-deps nncodec==2.1.3)")
    files = sorted((Path(package.submodule_search_locations[0]) / "extensions").glob("deepCABAC*.so"))
    if not files:
        raise ImportError("nncodec is installed without its deepCABAC extension")
    spec = importlib.util.spec_from_file_location("deepCABAC", files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def deepcabac_encode(arrays: list[NDArray[np.int32]]) -> bytes:
    """Encode integers [rows, columns] as NNCodec does: contexts chosen by trial, empty rows skipped, one stream."""
    module, nothing = deepcabac(), np.zeros(0, np.int8)
    encoder = module.Encoder()
    for array in arrays:
        encoder.initCtxModels(10, 1)
        skip = (~array.any(axis=1)).astype(np.int32)
        encoder.encodeLayer(array, 0, 0, 1, 0, 1, skip, module.HdspMode.AlwaysOff, nothing, 0, 0)
    return bytes(encoder.finish().tobytes())


def deepcabac_decode(data: bytes, shapes: list[tuple[int, int]]) -> list[NDArray[np.int32]]:
    """Decode what `deepcabac_encode` gave."""
    module, nothing = deepcabac(), np.zeros(0, np.int8)
    decoder, found = module.Decoder(), []
    decoder.setStream(np.frombuffer(data, np.uint8))
    for shape in shapes:
        array = np.zeros(shape, np.int32)
        decoder.initCtxModels(10)
        decoder.decodeLayer(array, 0, 0, 1, 0, module.HdspMode.AlwaysOff, nothing, 0, 0)
        found.append(array)
    return found
