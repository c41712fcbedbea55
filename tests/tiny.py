"""A small, real bundle for tests: made in well under a second with numpy and onnx, answering what can be seen.

An image is grey, 32x32: a dark or light ground (task ``bright``) with a bar at the left, middle or right (task
``shape``). The head averages 4x4 patches with a few seeded filters, the decoder mixes channels and knows the mode, the
tails look at the columns. Every image gives scores of its own, so a mix-up of frames shows. The local exit answers
``shape`` from the columns as well; the losses in its calibration are made up, and differ from mode to mode.

Legend: B batch, C latent channels (6), H W latent sides (8), F features (12), M modes (16), K classes of a task.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.coder import Coder
from headwater.compression.exits import SCORES, ExitTables, score_of
from headwater.compression.frame import Frame
from headwater.compression.image import InputSpec
from headwater.compression.manifest import Exit, LatentSpec, Manifest, Mode, Task, head_file
from headwater.compression.tables import PriorTables

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, CHANNELS, CELLS, FEATURES = 32, 6, 8, 12
WIDTHS = {0.25: 2, 0.5: 4, 0.75: 5, 1.0: 6}  # width -> latent channels
GAINS = (0.5, 1.0, 2.0, 4.0)
GROUP_ENDS = (2, 4, 6)
TASKS = (Task("shape", ("left", "middle", "right")), Task("bright", ("dark", "light")))
EXIT_TEMPERATURES = (0.8, 0.9, 1.0, 1.1)  # by width
PAIRS = [(width, gain) for width in WIDTHS for gain in range(len(GAINS))]


def image(seed: int) -> NDArray[np.uint8]:
    """Draw the image of a seed, uint8 [1, 32, 32]; its labels are ``labels(seed)``."""
    rng = np.random.default_rng(seed)
    place, light = labels(seed)
    pixels = rng.normal((70, 150)[light] + rng.uniform(-15, 15), 6.0, (SIDE, SIDE))
    left = (4, 13, 22)[place] + int(rng.integers(-1, 2))
    pixels[:, left : left + 6] += 70
    return np.clip(pixels, 0, 255).astype(np.uint8)[np.newaxis]


def labels(seed: int) -> tuple[int, int]:
    """True class of each task for the image of a seed."""
    return seed % 3, seed // 3 % 2


@cache
def bundle(name: str = "tiny", seed: int = 0) -> Bundle:
    """Build the bundle; another seed gives other weights, so another id and other answers."""
    filters = _filters(seed)
    files = {head_file(width): _head(filters[:channels]) for width, channels in WIDTHS.items()}
    files |= {"decoder.onnx": _decoder(filters), "local.onnx": _local(filters)}
    files |= {task.tail_file: _tail(_tail_weights(task.name)) for task in TASKS}
    tables = _tables(files)
    files["tables.safetensors"] = to_safetensors(tables.arrays())
    files["exit.onnx"] = _exit()
    files["exit.safetensors"] = to_safetensors(_exit_tables(files).arrays())
    return Bundle.build(_manifest(name, _measure(files, tables)), files)


LATER = Task("column", tuple(f"column{index}" for index in range(CELLS)))
PICTURE = Task("reconstruct", (), "image")


@cache
def later() -> Bundle:
    """The bundle with two more tasks on the same head, tables and decoder: ``column`` and ``reconstruct``."""
    source = bundle()
    files = {name: source.read(name) for name in source.manifest.files}
    files |= {LATER.tail_file: _tail(_column_weights()), PICTURE.tail_file: _picture_tail()}
    made = dataclasses.replace(
        source.manifest,
        created="2026-02-01T00:00:00+00:00",
        parent=source.id.hex(),
        answers_for=(source.id.hex(),),
        tasks=(*TASKS, LATER, PICTURE),
    )
    return Bundle.build(made, files)


def frame(source: Bundle, seed: int, mode: int, groups: int | None = None) -> Frame:
    """Code the image of a seed as a device would; ``groups`` cuts it after that many channel groups."""
    encoded = source.coder().encode(symbols(source, seed, mode), mode)
    groups = len(encoded.group_ends) if groups is None else groups
    return Frame(mode, groups, encoded.payload[: encoded.group_ends[groups - 1]])


def symbols(source: Bundle, seed: int, mode: int) -> NDArray[np.int16]:
    """Quantised latent of the image of a seed, int16 [C_w, 8, 8]."""
    spec = source.manifest.modes[mode]
    (latent,) = _session(source.read(spec.head_file)).run(["latent"], {"image": image(seed)[np.newaxis]})
    return _quantise(latent[0], source.tables.gain[mode])


def answer(source: Bundle, seed: int, mode: int, groups: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Class probabilities of each task with labels, computed with onnxruntime alone: the oracle for a server."""
    features = _features(source, seed, mode, groups)
    results = {}
    for task in source.manifest.tasks:
        if task.labels:
            (logits,) = _session(source.read(task.tail_file)).run(["logits"], {"features": features})
            weights = np.exp(logits[0] - logits[0].max())
            results[task.name] = weights / weights.sum()
    return results


def picture(source: Bundle, seed: int, mode: int) -> NDArray[np.uint8]:
    """What ``reconstruct`` gives, uint8 [1, 32, 32], computed with onnxruntime alone."""
    session = _session(source.read(PICTURE.tail_file))
    (images,) = session.run(["image"], {"features": _features(source, seed, mode, None)})
    return np.rint(np.clip(images[0], 0, 255)).astype(np.uint8)


def _features(source: Bundle, seed: int, mode: int, groups: int | None) -> NDArray[np.float32]:
    latent = np.zeros((1, CHANNELS, CELLS, CELLS), np.float32)
    quantised = symbols(source, seed, mode)
    sent = source.tables.channels_of(mode, groups or len(GROUP_ENDS))
    latent[0, :sent] = quantised[:sent] * source.tables.step[mode, :sent, np.newaxis, np.newaxis]
    feed = {"latent": latent, "mode": np.array([mode], np.int64)}
    (features,) = _session(source.read("decoder.onnx")).run(["features"], feed)
    array: NDArray[np.float32] = features
    return array


def exit_logits(source: Bundle, seed: int, mode: int) -> NDArray[np.float32]:
    """What the local exit says of the image of a seed, [3]: the oracle for a device."""
    spec = source.manifest.modes[mode]
    (latent,) = _session(source.read(spec.head_file)).run(["latent"], {"image": image(seed)[np.newaxis]})
    return _exit_run(source.read("exit.onnx"), latent[0], source.manifest.widths.index(spec.width))


# ---------------------------------------------------------------- weights


def _filters(seed: int) -> NDArray[np.float32]:
    """Patch filters [C, 1, 4, 4]: the first is the mean, what the tails read; the others are texture."""
    filters = np.random.default_rng(seed).normal(0, 1, (CHANNELS, 1, 4, 4)).astype(np.float32)
    filters[1:] -= filters[1:].mean(axis=(1, 2, 3), keepdims=True)
    filters[0] = 1.0
    return filters * np.float32(8.0 / 16.0)


def _tail_weights(task: str) -> NDArray[np.float32]:
    """[F * 8 * 8, K]: the first feature's columns for ``shape``, its mean for ``bright``; a little of all others."""
    classes = {"shape": 3, "bright": 2}[task]
    weights = np.random.default_rng(classes).normal(0, 0.002, (FEATURES, CELLS, CELLS, classes))
    if task == "shape":
        for place, columns in enumerate((slice(1, 3), slice(3, 5), slice(5, 8))):
            weights[0, :, columns, place] += 0.4 / (columns.stop - columns.start)
    else:
        weights[0, :, :, 1] += 0.015
        weights[0, :, :, 0] -= 0.015
    return weights.reshape(-1, classes).astype(np.float32)


def _column_weights() -> NDArray[np.float32]:
    """[F * 8 * 8, 8]: which column of the first feature is the brightest."""
    weights = np.zeros((FEATURES, CELLS, CELLS, CELLS), np.float32)
    for column in range(CELLS):
        weights[0, :, column, column] = 0.2
    return weights.reshape(-1, CELLS)


# ---------------------------------------------------------------- graphs


def _head(filters: NDArray[np.float32]) -> bytes:
    return _model(
        _head_nodes(), {"half": np.float32(127.5), "filters": filters}, _IMAGE, _latent("latent", len(filters), 1)
    )


def _decoder(filters: NDArray[np.float32]) -> bytes:
    latent, mode = _latent("latent", CHANNELS, "B"), helper.make_tensor_value_info("mode", TensorProto.INT64, ["B"])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURES, CELLS, CELLS])
    return _model(_decoder_nodes(), _decoder_weights(filters), [latent, mode], features)


def _tail(weights: NDArray[np.float32]) -> bytes:
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURES, CELLS, CELLS])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", weights.shape[1]])
    return _model(_tail_nodes(), {"tail": weights}, [features], logits)


def _picture_tail() -> bytes:
    """The first feature of each cell, in 16 slightly different shades, as its 4x4 pixels."""
    shades = np.zeros((16, FEATURES, 1, 1), np.float32)
    shades[:, 0] = np.linspace(14, 18, 16, dtype=np.float32)[:, np.newaxis, np.newaxis]
    nodes = [
        helper.make_node("Conv", ["features", "shades", "grey"], ["cells"]),
        helper.make_node("DepthToSpace", ["cells"], ["image"], blocksize=4),
    ]
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURES, CELLS, CELLS])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 1, SIDE, SIDE])
    return _model(nodes, {"shades": shades, "grey": np.full(16, 122.0, np.float32)}, [features], image)


def _exit() -> bytes:
    """Logits [1, 3] from the columns of the latent's mean channel, divided by a temperature a width."""
    weights = np.zeros((CHANNELS, CELLS, CELLS, 3), np.float32)
    weights[0] = _tail_weights("shape").reshape(FEATURES, CELLS, CELLS, 3)[0] / 4
    nodes = [
        helper.make_node("Flatten", ["latent"], ["flat"]),
        helper.make_node("MatMul", ["flat", "columns"], ["raw"]),
        helper.make_node("Gather", ["certainty", "width"], ["factor"]),
        helper.make_node("Mul", ["raw", "factor"], ["logits"]),
    ]
    certainty = 1 / np.array(EXIT_TEMPERATURES, np.float32)[:, np.newaxis]
    inputs = [_latent("latent", CHANNELS, 1), helper.make_tensor_value_info("width", TensorProto.INT64, [1])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    return _model(nodes, {"columns": weights.reshape(-1, 3), "certainty": certainty}, inputs, output)


def _exit_run(graph: bytes, latent: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    full = np.zeros((1, CHANNELS, CELLS, CELLS), np.float32)
    full[0, : len(latent)] = latent
    (logits,) = _session(graph).run(["logits"], {"latent": full, "width": np.array([width], np.int64)})
    return np.asarray(logits[0])


def _local(filters: NDArray[np.float32]) -> bytes:
    """The whole model without a bottleneck: its mode is the last one."""
    nodes = [*_head_nodes(), *_decoder_nodes(), *_tail_nodes()]
    weights = {
        "half": np.float32(127.5),
        "filters": filters,
        "tail": _tail_weights("shape"),
        **_decoder_weights(filters),
    }
    weights["mode"] = np.array([len(PAIRS) - 1], np.int64)
    return _model(nodes, weights, _IMAGE, helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3]))


def _head_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "half"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "filters"], ["latent"], strides=[4, 4]),
    ]


def _decoder_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["latent", "mix"], ["mixed"]),
        helper.make_node("Gather", ["offset", "mode"], ["shift"]),
        helper.make_node("Add", ["mixed", "shift"], ["shifted"]),
        helper.make_node("LeakyRelu", ["shifted"], ["features"], alpha=0.3),
    ]


def _tail_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("MatMul", ["flat", "tail"], ["logits"]),
    ]


def _decoder_weights(filters: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The mix [F, C, 1, 1] passes the mean on and scrambles the rest; each mode [M] has a small offset of its own."""
    rng = np.random.default_rng(int(abs(filters).sum() * 1000))
    mix = rng.normal(0, 0.5, (FEATURES, CHANNELS, 1, 1)).astype(np.float32)
    mix[0] = 0.0
    mix[0, 0] = 1.0
    offset = np.linspace(-0.1, 0.1, len(PAIRS), dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, FEATURES, 1, 1))
    offset[:, 0] -= 7.7  # the mean patch lies between dark and light
    return {"mix": mix, "offset": offset.astype(np.float32)}


_IMAGE = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, SIDE, SIDE])]


def _latent(name: str, channels: int, batch: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, CELLS, CELLS])


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.generic] | np.generic],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
) -> bytes:
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@cache
def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------- tables and manifest


def _quantise(latent: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.int16]:
    scaled = np.rint(latent * gain[: len(latent), np.newaxis, np.newaxis])
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _tables(files: dict[str, bytes]) -> PriorTables:
    """Tables of what 36 images give, each symbol's count raised by a little."""
    gains = np.array([[GAINS[gain]] * CHANNELS for _, gain in PAIRS], np.float32)
    counts, low = [], []
    for index, (width, _) in enumerate(PAIRS):
        latents = np.stack([_quantise(latent, gains[index]) for latent in _latents(files[head_file(width)])])
        lows = [int(latents[:, c].min()) - 1 for c in range(latents.shape[1])]
        spans = [int(latents[:, c].max()) - lows[c] + 2 for c in range(latents.shape[1])]
        seen = [np.bincount((latents[:, c] - lows[c]).ravel(), minlength=spans[c]) for c in range(latents.shape[1])]
        counts.append([np.append(count + 0.5, 0.1) for count in seen])
        low.append(lows)
    return PriorTables.from_counts(counts, low, gains, 1 / gains, GROUP_ENDS, plane=CELLS * CELLS)


def _latents(head: bytes) -> list[NDArray[np.float32]]:
    return [_session(head).run(["latent"], {"image": image(seed)[np.newaxis]})[0][0] for seed in range(36)]


def _measure(files: dict[str, bytes], tables: PriorTables) -> list[float]:
    """Mean payload bytes of each mode over 12 images."""
    coder = Coder(tables, CELLS, CELLS)
    means = []
    for index, (width, _) in enumerate(PAIRS):
        latents = _latents(files[head_file(width)])[:12]
        sizes = [len(coder.encode(_quantise(latent, tables.gain[index]), index).payload) for latent in latents]
        means.append(float(np.mean(sizes)))
    return means


@cache
def opinionated() -> Bundle:
    """The bundle with four opinions on ``shape``: none, and each of its labels."""
    source = bundle()
    said = np.vstack([np.zeros((1, 3)), 3 * np.eye(3) - 1]).astype(np.float32)
    tables = dataclasses.replace(source.exits, opinions=said)
    return source.with_file(ExitTables.FILE, to_safetensors(tables.arrays()))


def _exit_tables(files: dict[str, bytes]) -> ExitTables:
    """Thresholds at the scores of 36 images; the losses fall evenly to 0, from more points the higher the mode."""
    logits = [
        np.stack([_exit_run(files["exit.onnx"], latent, index) for latent in _latents(files[head_file(width)])])
        for index, width in enumerate(WIDTHS)
    ]
    T = len(logits[0])
    even = np.arange(T, 0, -1) / T
    return ExitTables(
        temperature=np.array(EXIT_TEMPERATURES, np.float32),
        threshold=np.array([[np.sort(score_of(each, score)) for each in logits] for score in SCORES]),
        share=np.array([[even] * len(WIDTHS)] * len(SCORES), np.float32),
        drop=np.array([[even * (4 + mode / 4) for mode in range(len(PAIRS))]] * len(SCORES), np.float32),
        calibration_error=np.array([[0.08] * len(WIDTHS), [0.03] * len(WIDTHS)], np.float32),
        width_of=np.array([list(WIDTHS).index(width) for width, _ in PAIRS], np.uint8),
        images=np.array([10_000], np.uint32),
        opinions=np.zeros((0, 3), np.float32),
    )


def _manifest(name: str, payloads: list[float]) -> Manifest:
    # Made up, rising with the mode, so that choosing one by accuracy has something to choose by.
    figures = [{task.name: round(0.9 + 0.006 * index, 3) for task in TASKS} for index in range(len(PAIRS))]
    modes = tuple(
        Mode(
            index=index,
            width=width,
            gain=gain,
            channels=WIDTHS[width],
            mean_bytes=payload + 3,
            p95_bytes=payload + 8,
            accuracy=figures[index],
            balanced_accuracy=figures[index],
            auroc=figures[index],
            head_macs=SIDE * SIDE * WIDTHS[width],
            head_parameters=16 * WIDTHS[width],
        )
        for index, ((width, gain), payload) in enumerate(zip(PAIRS, payloads, strict=True))
    )
    return Manifest(
        name=name,
        created="2026-01-01T00:00:00+00:00",
        input=InputSpec("L", SIDE, SIDE),
        latent=LatentSpec(CHANNELS, CELLS, CELLS),
        modes=modes,
        tasks=TASKS,
        exit=Exit("shape", macs=CHANNELS * CELLS * CELLS * 3),
    )
