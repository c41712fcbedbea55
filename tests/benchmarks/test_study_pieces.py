"""Every kind of piece, on a handful of images: it runs, its figures are what they say, it resumes."""

import dataclasses
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from benchmarks import rate_accuracy
from benchmarks.entropic_student import GDN1, encoder_macs, maps, parted
from benchmarks.study import bottleneck, cuts, image_codecs, local_exit, ours, runner
from benchmarks.study.figures import Figures
from benchmarks.study.pieces import all_pieces, chosen
from benchmarks.study.plan import TINY
from benchmarks.study.results import Results
from benchmarks.study.study import Study
from headwater.compression.bundle import Bundle
from headwater.compression.image import InputSpec
from headwater.server.training.calibration import cross_fitted
from headwater.server.training.lite import Lite0
from headwater.server.training.measure import Bench
from headwater.simulations.codecs import Setting, encode
from tests import tiny

PLAN = dataclasses.replace(TINY, tuned_epochs=2)


def finish(study: Study, *names: str) -> list[runner.Piece]:
    with Progress(disable=True) as progress:
        return runner.run(chosen(study.plan, names, [0]), study, Console(file=io.StringIO()), progress)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose bundle of split 0 is trained."""
    study = Study(PLAN, tmp_path_factory.mktemp("study"))
    assert finish(study, "teacher", "ours") == []
    return study


@pytest.mark.slow
def test_a_stopped_piece_goes_on_from_its_last_epoch(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = image_codecs._Tuning.step

    def counted(self: image_codecs._Tuning, indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        steps.append(len(indices))
        if len(steps) == 3:  # the second epoch's first
            raise KeyboardInterrupt
        return real(self, indices)

    monkeypatch.setattr(image_codecs._Tuning, "step", counted)
    with pytest.raises(KeyboardInterrupt):
        finish(study, "tuned-webp-16")
    assert study.record("tuned-webp-16", 0) is None
    assert finish(study, "tuned-webp-16") == []
    assert len(steps) == 5, "two steps of the first epoch, one that was stopped, two of the second"
    assert finish(study, "tuned-webp-16") == []
    assert len(steps) == 5
    result = study.record("tuned-webp-16", 0)
    assert result is not None
    assert [row["setting"] for row in result["result"]["rows"]] == ["WebP 16x16 q20", "WebP 16x16 q60"]


def test_our_piece_has_every_mode_and_cut_of_the_bundle_on_the_disk(study: Study) -> None:
    record, bundle = study.record("ours", 0), study.bundle(0)
    assert record is not None
    assert record["result"]["bundle"] == bundle.id.hex()
    for mode, found in zip(bundle.manifest.modes, record["result"]["modes"], strict=True):
        figures = Figures.from_json(found["figures"])
        assert figures.mean_bytes == pytest.approx(mode.mean_bytes, abs=0.01)
        assert figures.accuracy == pytest.approx(mode.accuracy["defect"], abs=1e-4)
        cuts = [cut["bytes"] for cut in found["cuts"]]
        assert cuts == sorted(cuts)
        assert len(cuts) == PLAN.recipe.groups - 1


def test_the_teacher_of_the_peers_is_the_bundle_s_unsplit_network(study: Study) -> None:
    prepared, record = study.prepared(0), study.record("ours", 0)
    assert record is not None
    with torch.no_grad():
        images = (prepared.test.images.float() - 114.5) / 57.6
        logits = study.teacher(0)(images)[0]
    labels = prepared.test.labels["defect"]
    local = Figures.from_json(record["result"]["local"])
    # The bundle keeps large weights in 8 bits, so that an answer on the edge may turn.
    assert (local.correct == (logits.argmax(dim=1) == labels).numpy()).mean() > 0.9


@pytest.mark.slow
def test_the_whole_study_runs_and_writes_its_results(tmp_path: Path) -> None:
    out, bench = tmp_path / "study", tmp_path / "bench.json"
    arguments = ["--full", "--quick", "--threads", "1", "--out", str(out), "--json", str(bench)]
    assert rate_accuracy.main(arguments) == 0
    results = Results.load(tmp_path / "study-quick" / "results.json")
    assert len(results.records) == len(all_pieces(TINY))
    stated = json.loads(bench.read_text(encoding="utf-8"))
    unmeasured = [claim["claim"] for claim in stated if claim["value"] is None]
    # Models of one width may happen to send more or fewer bytes than any gain of ours: then nothing is compared.
    assert all("trained for one width" in claim for claim in unmeasured)
    assert rate_accuracy.main(["--full", "--quick", "--threads", "1", "--out", str(out)]) == 0, "nothing is left to do"


# ---------------------------------------------------------------- codecs


def pictures(count: int) -> np.ndarray:
    return np.stack([tiny.image(seed) for seed in range(count)])


def test_pictures_through_a_codec_are_what_its_file_decodes_to() -> None:
    spec, settings = InputSpec("L", 32, 32), [Setting("WebP", 32, 32, 90), Setting("JPEG", 16, 16, 10)]
    with ThreadPoolExecutor(2) as pool:
        coded = image_codecs.through(pictures(2), settings, spec, pool)
    data, size = encode(Image.fromarray(pictures(2)[0, 0]), settings[0])
    assert (coded.sizes[0], coded.file_sizes[0]) == (size, len(data))
    with Image.open(io.BytesIO(data)) as decoded:
        assert (coded.images[0, 0] == np.asarray(decoded.convert("L"))).all()
    assert coded.images.shape == (2, 1, 32, 32)


def test_rows_of_an_untouched_teacher(tiny_bundle: Bundle) -> None:
    labels = np.array([tiny.labels(seed)[0] for seed in range(6)])
    settings = [Setting("WebP", 32, 32, quality) for quality in (10, 90)]
    with Progress(disable=True) as progress:
        rows = image_codecs.untouched(tiny_bundle, pictures(6), labels, settings, 1, progress)["rows"]
    poor, good = (Figures.from_json(row["figures"]) for row in rows)
    assert poor.mean_bytes < good.mean_bytes < good.mean_file_bytes
    assert good.accuracy == 1


def test_a_codec_that_pillow_lacks_is_said_to_be_missing(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_codecs.features, "check", lambda name: name != "avif")
    with Progress(disable=True) as progress:
        labels = np.zeros(1, np.int64)
        found = image_codecs.untouched(tiny_bundle, pictures(1), labels, [Setting("AVIF", 32, 32, 50)], 1, progress)
    assert found == {"missing": "this Pillow was built without AVIF"}


# ---------------------------------------------------------------- zstd and Entropic Student


def test_zstd_s_frames_have_our_header_and_no_other() -> None:
    empty, noise = np.zeros((1, 4, 8, 8), np.int8), np.random.default_rng(0).integers(-127, 128, (1, 4, 8, 8), np.int8)
    assert bottleneck.sizes_of(empty)[0] < 20
    assert 256 < bottleneck.sizes_of(noise)[0] < 256 + 3 + 8


def test_eight_bits_fit_each_channel() -> None:
    values = np.random.default_rng(0).normal(0, [[[[1.0]], [[50.0]]]], (9, 2, 4, 4)).astype(np.float32)
    scaled = values * bottleneck.eight_bits(values)[:, np.newaxis, np.newaxis]
    assert np.abs(scaled).max(axis=(0, 2, 3)) == pytest.approx([127, 127], rel=1e-5)


def test_the_encoder_costs_what_its_paper_says() -> None:
    colour = encoder_macs(3, 224)
    assert (colour.convolutions + colour.normalisation) / 1e6 == pytest.approx(588, abs=1)
    assert encoder_macs(1, 128).convolutions / 1e6 == pytest.approx(132, abs=1)


def test_normalisation_divides_and_its_inverse_multiplies() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    norm = 1 + 0.1 * x.abs()
    assert torch.allclose(GDN1(3)(x), x / norm, atol=1e-5)
    assert torch.allclose(GDN1(3, inverse=True)(x), x * norm, atol=1e-5)


def test_a_network_that_is_cut_elsewhere_answers_the_same() -> None:
    torch.manual_seed(0)
    early, late = Lite0(1, [2], 3).eval(), Lite0(1, [2], 9).eval()
    late.load_state_dict(cuts.recut(early.state_dict(), late))
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(late(x)[0], early(x)[0])


def test_the_teacher_in_two_parts_answers_as_a_whole() -> None:
    torch.manual_seed(0)
    teacher = Lite0(1, [2], 6).eval()
    front, tail = parted(teacher)
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        features = teacher.stem(x)
        for block in front:
            features = block(features)
        found = maps(tail.eval(), features)
        assert torch.allclose(tail(features), teacher(x)[0], atol=1e-5)
    assert [tuple(one.shape[1:]) for one in found] == [(24, 8, 8), (40, 4, 4), (112, 2, 2), (320, 1, 1)]


def test_the_exit_is_judged_in_every_mode(tiny_bundle: Bundle) -> None:
    labels = np.array([tiny.labels(seed)[0] for seed in range(24)])
    found = local_exit.measure(ours.bench_of(tiny_bundle, pictures(24)), labels)["modes"]
    assert len(found) == len(tiny_bundle.manifest.modes)
    mode = tiny_bundle.manifest.modes[-1]
    exits = np.concatenate([tiny.exit_logits(tiny_bundle, seed, mode.index).reshape(1, -1) for seed in range(24)])
    run = Bench(tiny_bundle, pictures(24), tiny_bundle.manifest.tasks[:1]).run(mode)
    wanted = cross_fitted(exits, run.logits["shape"], labels, 0.5)
    assert found[-1]["share"] == pytest.approx(wanted.share, abs=1e-5)
    assert found[-1]["drop"] == pytest.approx(wanted.drop, abs=1e-5)
