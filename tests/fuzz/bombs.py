"""Small inputs that speak of gigabytes, and what each takes until it is refused, as JSON.

    python -m tests.fuzz.bombs FOLDER

The process may not have half a gigabyte more than it has before the first. What is measured is what Python and numpy
allocate (tracemalloc), and by how much the process's memory grows at most, which counts the libraries' own too.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from flwr.app import Array, ArrayRecord, Message, RecordDict

from headwater.compression import patch, settings
from headwater.compression.bundle import Bundle, from_safetensors
from headwater.compression.errors import HeadwaterError
from headwater.compression.manifest import Manifest
from headwater.compression.updates.floats import FORMATS
from headwater.protos.flower import Parcel, acting_as, content_of, envelope_of, unpack
from headwater.simulations.trace import Trace
from tests.fuzz import files, messages

MIB, GIB = 1 << 20, 1 << 30
MORE_BYTES = 512 << 20


def bombs(folder: Path) -> dict[str, tuple[Callable[[bytes], object], bytes]]:
    """Each by name: what reads it, and its bytes."""

    def in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def run(data: bytes) -> object:
            (folder / "bomb").write_bytes(data)
            return read(folder / "bomb")

        return run

    plane = _zeros(256 * MIB)
    tensor = b'{"x":{"dtype":"F32","shape":[274877906944],"data_offsets":[0,1099511627776]}}'
    return {
        "a message of a gigabyte of zeros": (_message, b"\x01" + _zeros(GIB)),
        "a message with an array of 8 TiB": (_message, _array(1 << 40)),
        "a message with an array of a gigabyte": (_message, _array(1 << 27)),
        "an update's plane of 256 MiB": (_plane, struct.pack("<I", len(plane) | 1 << 31) + plane),
        "a zip whose manifest is 64 MiB": (in_file(Bundle.load), _zip(zipfile.ZIP_DEFLATED, 64)),
        "a zip packed by bzip2": (in_file(Bundle.load), _zip(zipfile.ZIP_BZIP2, 2)),
        "a zip whose LZMA dictionary is 4 GiB": (in_file(Bundle.load), _lzma()),
        "a packed bundle whose manifest is a gigabyte": (patch.apply, _packed(GIB, _zeros(GIB))),
        "a packed bundle that claims less than it is": (patch.apply, _packed(MIB // 2, _zeros(GIB))),
        "a safetensors header of 2^63 bytes": (_tensors, struct.pack("<Q", 1 << 63) + bytes(64)),
        "a safetensors header of 90 MB": (_tensors, struct.pack("<Q", 90_000_000) + bytes(64)),
        "a tensor of a terabyte": (_tensors, struct.pack("<Q", len(tensor)) + tensor),
        "a manifest of lists in lists": (Manifest.from_json, b'{"schema":1,"recipe":' + b"[" * 200_000),
        "a manifest of 4 MiB": (Manifest.from_json, b" " * (4 * MIB)),
        "a configuration of lists in lists": (in_file(settings.read_file), b"x = " + b"[" * 100_000),
        "a trace of one packet in a week": (in_file(Trace.mahimahi), b"604800000"),
        "a trace with a number of 50000 digits": (in_file(Trace.mahimahi), b"1" * 50_000),
    }


def _message(content: bytes) -> object:
    with acting_as(7):
        envelope = envelope_of(Message(RecordDict(), messages.ASKED.node, "train"))
    return unpack(Parcel(envelope, content))


def _array(side: int) -> bytes:
    """The content of a message with an array whose header says that it has so many numbers."""
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "<f8", "fortran_order": False, "shape": (side,)})
    with acting_as(7):
        record = ArrayRecord({"w": Array("float64", (1,), "numpy.ndarray", data.getvalue() + bytes(8))})
        return content_of(Message(RecordDict({"a": record}), messages.ASKED.node, "train"))


def _plane(data: bytes) -> object:
    return FORMATS["float32"].decode_rests(data, 10)


def _tensors(data: bytes) -> object:
    return from_safetensors(data, "it")


def _packed(size: int, data: bytes) -> bytes:
    return patch.make(files._device_bundle())[:68] + struct.pack("<BII", patch.Method.ZSTD, size, len(data)) + data


def _zeros(count: int) -> bytes:
    file = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(file, size=count, closefd=False) as writer:
        for _ in range(count // MIB):
            writer.write(bytes(MIB))
    return file.getvalue()


def _zip(kind: int, mebibytes: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive, archive.open("manifest.json", "w") as entry:
        for _ in range(mebibytes):
            entry.write(bytes(MIB))
    return file.getvalue()


def _lzma() -> bytes:
    """The dictionary's size stands behind the entry's name, its version and the size and first of the properties."""
    data, name = bytearray(_zip(zipfile.ZIP_LZMA, 2)), b"manifest.json"
    at = data.index(name) + len(name) + 5
    data[at : at + 4] = b"\xff" * 4
    return bytes(data)


def main(folder: Path) -> None:
    """Try each, and print verdict, bytes that were allocated, bytes by which the process grew."""
    made, used = bombs(folder), {}
    for file, target in ((files.archive_seeds()[0], files.archive), (messages.message_seeds()[0], messages.message)):
        assert target(file)  # so that what is imported late is there
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    tracemalloc.start()
    for name, (read, data) in made.items():
        used[name] = _tried(read, data)
    print(json.dumps(used))


def _tried(read: Callable[[bytes], object], data: bytes) -> tuple[str, int, int]:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is that of now
    tracemalloc.reset_peak()
    held, resident = tracemalloc.get_traced_memory()[0], _peak_bytes()
    try:
        read(data)
        verdict = "taken"
    except HeadwaterError:
        verdict = "refused"
    return verdict, tracemalloc.get_traced_memory()[1] - held, _peak_bytes() - resident


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


if __name__ == "__main__":
    main(Path(sys.argv[1]))
