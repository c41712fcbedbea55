"""The head's times on this machine."""

from headwater.compression.bundle import Bundle
from headwater.device.profile import profile


def test_every_width_and_the_whole_model(tiny_bundle: Bundle) -> None:
    rows, whole_ms = profile(tiny_bundle, rounds=5)
    assert [row.width for row in rows] == [0.25, 0.5, 0.75, 1.0]
    assert all(0 < row.head_ms <= row.head_p95_ms and row.code_ms > 0 for row in rows)
    assert whole_ms is not None
    assert whole_ms > 0


def test_a_bundle_without_the_whole_model(tiny_bundle: Bundle) -> None:
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.manifest.files if name != "local.onnx"}
    _, whole_ms = profile(Bundle.build(tiny_bundle.manifest, files), rounds=2)
    assert whole_ms is None
