"""A bundle as one string, whole or as a difference: byte-exact, small, and total for hostile bytes."""

import dataclasses
import random
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from headwater.compression import patch
from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError
from headwater.compression.manifest import for_server
from tests import tiny


@cache
def moved() -> Bundle:
    """The tiny bundle a little later: its heads' weights have moved by some thousandths, its tables are longer."""
    old = tiny.bundle()
    files = {name: old.read(name) for name in old.manifest.files}
    rng = np.random.default_rng(0)
    for name in [name for name in files if name.startswith("head_")]:
        model = onnx.load_from_string(files[name])
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim > 1:
                near = (array * (1 + rng.normal(0, 1e-3, array.shape))).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(near, tensor.name))
        files[name] = model.SerializeToString()
    files["MODEL_CARD.md"] = b"# later\n"
    made = dataclasses.replace(old.manifest, created="2026-03-01T00:00:00+00:00", parent=old.id.hex())
    return Bundle.build(made, files).signed(b"HWS\x01" + bytes(72))


def same(one: Bundle, other: Bundle) -> None:
    assert (one.id, one.manifest_bytes, one.signature) == (other.id, other.manifest_bytes, other.signature)
    assert {n: one.read(n) for n in one.manifest.files} == {n: other.read(n) for n in other.manifest.files}


def test_the_shortest_way_is_found_by_quick_trials() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=5000).astype(np.float32)
    near = (old * np.float32(1.001)).tobytes()
    ways = {
        patch.Method.SAME: (old.tobytes(), old.tobytes()),
        patch.Method.ZSTD: (bytes(20_000), old.tobytes()),
        patch.Method.DICTIONARY: (old.tobytes() + near[:40], old.tobytes()),
        patch.Method.PLANES_4: (near, old.tobytes()),
    }
    for method, (new, had) in ways.items():
        packed = patch._pack(new, had)
        assert packed[0] == method
        assert len(packed) < len(new) * 0.8


def test_whole_and_as_a_difference_it_is_the_same_bundle() -> None:
    whole, difference = patch.make(moved()), patch.make(moved(), tiny.bundle())
    same(patch.apply(whole), moved())
    same(patch.apply(difference, tiny.bundle()), moved())
    assert len(difference) < len(whole) / 3
    assert patch.read_ids(whole) == patch.Ids(moved().id, None)
    assert patch.read_ids(difference) == patch.Ids(moved().id, tiny.bundle().id)


def test_the_way_back_works_too() -> None:
    same(patch.apply(patch.make(tiny.bundle(), moved()), moved()), tiny.bundle())


def test_the_same_bundles_give_the_same_bytes() -> None:
    assert patch.make(moved(), tiny.bundle()) == patch.make(moved(), tiny.bundle())


def test_a_device_gets_no_file_that_only_a_server_reads() -> None:
    whole = patch.make(moved(), device=True)
    got = patch.apply(whole)
    assert got.id == moved().id
    assert "head_1.onnx" in got
    assert not any(for_server(name) for name in got.manifest.files if name in got)
    assert len(whole) < len(patch.make(moved()))
    older = patch.apply(patch.make(tiny.bundle(), device=True))
    again = patch.apply(patch.make(moved(), tiny.bundle(), device=True), older)
    assert again.read("head_1.onnx") == moved().read("head_1.onnx")


def test_a_device_s_bundle_can_be_saved_and_loaded(tmp_path: Path) -> None:
    path = patch.apply(patch.make(moved(), device=True)).save(tmp_path / "small")
    loaded = Bundle.load(path, device=True)
    assert (loaded.id, loaded.signature) == (moved().id, moved().signature)
    with pytest.raises(BundleError, match=r"cannot read decoder\.onnx"):
        Bundle.load(path)


def test_a_file_that_a_device_needs_must_be_there(tmp_path: Path) -> None:
    path = moved().save(tmp_path / "holed")
    (path / "head_1.onnx").unlink()
    with pytest.raises(BundleError, match=r"cannot read head_1\.onnx"):
        Bundle.load(path, device=True)


def test_it_needs_the_very_bundle_that_it_changes() -> None:
    difference = patch.make(moved(), tiny.bundle())
    with pytest.raises(BundleError, match="none is there"):
        patch.apply(difference)
    with pytest.raises(BundleError, match="is there; fetch it whole"):
        patch.apply(difference, moved())


def test_a_difference_to_files_that_are_not_there() -> None:
    small = patch.apply(patch.make(tiny.bundle(), device=True))
    with pytest.raises(BundleError, match="fetch the bundle whole"):
        patch.apply(patch.make(moved(), tiny.bundle()), small)


@pytest.mark.parametrize("difference", [False, True])
def test_cut_anywhere(*, difference: bool) -> None:
    base = tiny.bundle() if difference else None
    data = patch.make(moved(), base)
    for length in sorted({0, 3, 67, 68, 76, len(data) - 1, *random.Random(1).sample(range(len(data)), 60)}):
        with pytest.raises(BundleError):
            patch.apply(data[:length], base)
    with pytest.raises(BundleError):
        patch.apply(data + b"x", base)


@pytest.mark.parametrize("difference", [False, True])
def test_any_byte_changed(*, difference: bool) -> None:
    """What comes out is the bundle or nothing; some bytes of zstd's own headers say nothing."""
    base = tiny.bundle() if difference else None
    data = patch.make(moved(), base)
    rng = random.Random(2)
    for at in sorted({*range(80), *rng.sample(range(len(data)), 150)}):
        hurt = bytearray(data)
        hurt[at] ^= rng.randrange(1, 256)
        try:
            got = patch.apply(bytes(hurt), base)
        except BundleError:
            continue
        assert got.id == moved().id


def test_a_size_is_not_believed() -> None:
    """A file that claims gigabytes is refused before they are allocated."""
    data = bytearray(patch.make(moved()))
    data[69:73] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(BundleError, match="at most"):
        patch.apply(bytes(data))


def test_bytes_of_something_else() -> None:
    with pytest.raises(BundleError, match="are no packed bundle"):
        patch.read_ids(b"PK\x03\x04")
