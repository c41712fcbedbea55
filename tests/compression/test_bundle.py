"""Bundles: saved and loaded, damaged, cut short, hostile."""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.bundle import MANIFEST, Bundle
from headwater.compression.errors import BundleError, HeadwaterError
from headwater.compression.manifest import Manifest
from tests import tiny


@pytest.fixture(params=["directory", "tiny.zip"])
def saved(request: pytest.FixtureRequest, tmp_path: Path, tiny_bundle: Bundle) -> Path:
    return tiny_bundle.save(tmp_path / request.param)


def test_what_is_saved_loads_the_same(saved: Path, tiny_bundle: Bundle) -> None:
    loaded = Bundle.load(saved)
    assert loaded.id == tiny_bundle.id
    assert loaded.manifest == tiny_bundle.manifest
    assert loaded.read("decoder.onnx") == tiny_bundle.read("decoder.onnx")
    assert (loaded.tables.frequencies == tiny_bundle.tables.frequencies).all()


def test_the_id_is_the_hash_of_the_manifest(saved: Path, tiny_bundle: Bundle) -> None:
    assert tiny_bundle.id == hashlib.sha256(tiny_bundle.manifest_bytes).digest()
    assert Bundle.load(saved).short_id == tiny_bundle.id[:5].hex()


@pytest.mark.parametrize("name", ["decoder.onnx", "tables.safetensors", "head_0.25.onnx"])
def test_a_changed_file_is_named(tmp_path: Path, tiny_bundle: Bundle, name: str) -> None:
    path = tiny_bundle.save(tmp_path / "b")
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        Bundle.load(path)


def test_a_file_that_was_cut_short_or_grew_is_refused(tmp_path: Path, tiny_bundle: Bundle) -> None:
    path = tiny_bundle.save(tmp_path / "b")
    whole = (path / "decoder.onnx").read_bytes()
    for data in (whole[:-1], whole + b"x", b""):
        (path / "decoder.onnx").write_bytes(data)
        with pytest.raises(BundleError, match=r"decoder\.onnx"):
            Bundle.load(path)


def test_a_missing_file_or_manifest_is_named(tmp_path: Path, tiny_bundle: Bundle) -> None:
    path = tiny_bundle.save(tmp_path / "b")
    (path / "tail_shape.onnx").unlink()
    with pytest.raises(BundleError, match=r"tail_shape\.onnx"):
        Bundle.load(path)
    (path / MANIFEST).unlink()
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(path)
    with pytest.raises(BundleError, match="headwater train"):
        Bundle.load(tmp_path / "nowhere")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"PK not a zip")
    with pytest.raises(BundleError):
        Bundle.load(tmp_path / "b.zip")


def test_a_zip_that_is_damaged_inside_or_packed_by_another_method_is_refused(
    tmp_path: Path, tiny_bundle: Bundle
) -> None:
    data = bytearray(tiny_bundle.save(tmp_path / "b.zip").read_bytes())
    begin = data.index(b"manifest.json") + len(b"manifest.json")
    data[begin : begin + 40] = b"\xff" * 40
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot read manifest\.json"):
        Bundle.load(tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(MANIFEST, tiny_bundle.manifest_bytes)
    with pytest.raises(BundleError, match="packed by method 14; want deflate"):
        Bundle.load(tmp_path / "c.zip")


def test_a_zip_bomb_is_read_no_further_than_its_manifest_allows(tmp_path: Path, tiny_bundle: Bundle) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, tiny_bundle.manifest_bytes)
        for name in tiny_bundle.manifest.files:
            archive.writestr(name, bytes(50_000_000) if name == "decoder.onnx" else tiny_bundle.read(name))
    with pytest.raises(BundleError, match=r"decoder\.onnx is longer"):
        Bundle.load(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", ".hidden", "a/b", "", "x" * 200])
def test_file_names_that_could_leave_the_bundle_are_refused(tiny_bundle: Bundle, name: str) -> None:
    plain = json.loads(tiny_bundle.manifest_bytes)
    plain["files"][name] = {"sha256": "0" * 64, "size": 1}
    with pytest.raises(BundleError, match="names a file"):
        Manifest.from_json(json.dumps(plain).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("schema",), None),
        (("modes",), []),
        (("modes", 0, "index"), 1),
        (("modes", 0, "index"), "0"),
        (("modes", 0, "channels"), 99),
        (("modes", 0, "mean_bytes"), -1),
        (("modes", 0, "width"), 2.0),
        (("modes", 1, "gain"), 0),
        (("tasks",), []),
        (("tasks", 0, "name"), "../x"),
        (("tasks", 0, "labels"), ["only"]),
        (("latent", "channels"), 0),
        (("latent", "height"), 1 << 40),
        (("input", "mode"), "CMYK"),
        (("input", "height"), "128"),
        (("files", "decoder.onnx", "sha256"), "zz"),
        (("files", "decoder.onnx", "size"), 1.5),
        (("files",), {}),
        (("name",), 5),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    tiny_bundle: Bundle, path: tuple[str | int, ...], value: object
) -> None:
    plain = json.loads(tiny_bundle.manifest_bytes)
    *way, last = path
    place = plain
    for step in way:
        place = place[step]
    place[last] = value
    with pytest.raises(BundleError):
        Bundle(json.dumps(plain).encode(), {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files})


@given(st.binary(max_size=200))
def test_random_bytes_are_no_manifest(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_json(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_a_field_of_any_other_type_is_refused_or_read(value: object) -> None:
    plain = json.loads(tiny.bundle().manifest_bytes)
    for key in ("modes", "tasks", "latent", "files", "input"):
        changed = json.dumps({**plain, key: value}).encode()
        with pytest.raises(BundleError):
            Manifest.from_json(changed)


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400, "[" * 100 + "]" * 100])
def test_what_could_not_be_written_again_is_refused(tiny_bundle: Bundle, number: str) -> None:
    for before in (b'"mean_bytes": ', b'"recipe": {"x": '):
        plain = tiny_bundle.manifest_bytes.replace(b'"recipe": {', b'"recipe": {"x": 1, ')
        text = plain.replace(before, before + number.encode() + b', "y": ', 1)
        with pytest.raises(BundleError):
            Manifest.from_json(text) if before in text else pytest.fail("the manifest has another layout")


def test_numbers_that_json_does_not_have_are_refused(tiny_bundle: Bundle) -> None:
    text = tiny_bundle.manifest_bytes.replace(b'"mean_bytes": ', b'"mean_bytes": NaN, "x": ', 1)
    with pytest.raises(BundleError, match="NaN"):
        Manifest.from_json(text)


def test_tables_of_another_shape_are_refused(tiny_bundle: Bundle) -> None:
    manifest = dataclasses.replace(tiny_bundle.manifest, modes=tiny_bundle.manifest.modes[:4])
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files}
    with pytest.raises(BundleError, match=r"tables\.safetensors is for 16 modes"):
        _ = Bundle.build(manifest, files).tables


def test_errors_list_what_there_is(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"widths: 0\.25, 0\.5, 0\.75, 1; gains: \[0, 1, 2, 3\]"):
        tiny_bundle.mode(0.3, 0)
    with pytest.raises(BundleError, match="it has shape, bright"):
        tiny_bundle.task("colour")
    with pytest.raises(BundleError, match=r"it has decoder\.onnx"):
        tiny_bundle.read("nothing.onnx")


def test_a_file_added_gives_another_bundle(tiny_bundle: Bundle) -> None:
    other = tiny_bundle.with_file("NOTES.md", b"hello")
    assert other.id != tiny_bundle.id
    assert other.read("NOTES.md") == b"hello"
    assert issubclass(BundleError, HeadwaterError)


def test_a_task_that_gives_a_picture_and_earlier_bundles_are_kept(tmp_path: Path, tiny_bundle: Bundle) -> None:
    later = tiny.later()
    loaded = Bundle.load(later.save(tmp_path / "later.zip"))
    assert loaded.manifest == later.manifest
    assert loaded.manifest.answers_for == (tiny_bundle.id.hex(),)
    picture = loaded.task("reconstruct")
    assert (picture.kind, picture.labels, picture.output, picture.tail_file) == (
        "image",
        (),
        "image",
        "tail_reconstruct.onnx",
    )
    assert loaded.task("shape").output == "logits"


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"name": "picture", "kind": "image", "labels": ["a", "b"]}, "has 2 labels; want 2 or more, none for an image"),
        ({"name": "picture", "kind": "classify", "labels": []}, "has 0 labels"),
        ({"name": "picture", "kind": "video", "labels": []}, "is of kind 'video'; want one of classify, image"),
        ({"name": "picture", "kind": "image", "labels": []}, "the first task, picture, gives an image"),
    ],
)
def test_a_task_of_no_sense_is_refused(task: dict[str, object], text: str) -> None:
    plain = json.loads(tiny.later().manifest_bytes)
    plain["tasks"].insert(0, task)
    with pytest.raises(BundleError, match=text):
        Manifest.from_json(json.dumps(plain).encode())


def test_an_id_that_is_none_is_refused() -> None:
    plain = json.loads(tiny.later().manifest_bytes)
    plain["answers_for"] = ["../etc"]
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(plain).encode())
