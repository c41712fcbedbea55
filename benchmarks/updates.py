"""Updates of a model in bytes: ours against their entropy, against Flower's messages, zstandard, ZipNN and DeepCABAC.

Three updates of some 3.5 million coordinates:

    trained    EfficientNet-Lite0 with two classes after 24 steps of SGD on pictures of solar cells, 149 arrays
    adam       the same by Adam, whose steps are about as large in every coordinate
    noise      normal deviates, in which there is nothing to be found: no context may make them worse

"Entropy" of sparse ternary is that of positions and signs, n H(k / n) + k bits, no scale and no header counted; of int8
that of each array's histogram, for nothing, as no real coder has it. DeepCABAC codes the very integers that ours codes.
What each decodes is compared. "Arrives" is the share of the update's energy, less that of the difference to what is
decoded. Times are the best of three where one is claimed, else of a single run.

--quick takes a product of vectors plus noise for the trained one, and few coordinates.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import claims, update_peers
from headwater.compression.datasets import open_dataset
from headwater.compression.errors import DataError
from headwater.compression.updates import Layout, Scheme, decode, encode, flat
from headwater.compression.updates.codecs import Codec, SchemeCodec
from headwater.compression.updates.quantise import largest, quantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.flat import Arrays

TIMED = False  # bytes; its two times have no peer, and beside others, on a core of their own, are longer if anything
SECONDS = 30
BASE = bytes(16)
SPARSE = Scheme("ternary", 1 / 400)
FACTORS = Scheme("factors", 1 / 20)
RATE, MOMENTUM, ADAM_RATE = 0.01, 0.9, 1e-4
TURNS = 3
"""Of what times are claimed for; all else is timed once."""
_Result = TypeVar("_Result")


class Sample(NamedTuple):
    """An update to code."""

    name: str
    layout: Layout
    delta: Arrays


# ------------------------------------------------------------------------------------------------------------ samples


def noise(rows: int, columns: int) -> Sample:
    """Normal deviates."""
    array = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    return Sample("noise", Layout({"noise": array.shape}), {"noise": array})


def products(*, signs: bool = False) -> Sample:
    """What a gradient looks like: few rows and columns are large; or with the signs alone what Adam makes of it."""
    rng, arrays = np.random.default_rng(0), {}
    for i, (rows, columns) in enumerate(((64, 27), (128, 576), (64, 128), (10, 64))):
        large = np.outer(rng.normal(size=rows) ** 3, np.abs(rng.normal(size=columns)) ** 3)
        arrays[f"{i}.weight"] = (large + rng.normal(0, 0.01, large.shape)).astype(np.float32)
        arrays[f"{i}.bias"] = (rng.normal(size=rows) ** 3).astype(np.float32)
    if signs:
        arrays = {name: np.sign(array) for name, array in arrays.items()}
    return Sample(
        "signs" if signs else "products", Layout({name: array.shape for name, array in arrays.items()}), arrays
    )


def trained(optimizer: Literal["sgd", "adam"], steps: int = 24, side: int = 128, batch: int = 8) -> Sample:
    """Fine-tune Lite0 for a few steps.

    Raises ImportError without torch or the pretrained weights, DataError without the pictures.
    """
    import torch

    from headwater.server.training.lite import Lite0, load_pretrained

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Lite0(3, [2], 3)
    load_pretrained(model)
    model.eval()  # statistics stay as they are
    dataset = open_dataset("solar")
    chosen = [dataset.items[index] for index in np.random.default_rng(0).permutation(len(dataset))[: steps * batch]]
    images = torch.from_numpy(np.stack([np.asarray(item.load()) for item in chosen])).float()
    x = torch.nn.functional.interpolate(images[:, None], side).repeat(1, 3, 1, 1)
    y = torch.tensor([item.labels["defect"] for item in chosen])
    before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    weights = list(model.parameters())
    by_sgd = torch.optim.SGD(weights, RATE, MOMENTUM)
    stepping = by_sgd if optimizer == "sgd" else torch.optim.Adam(weights, ADAM_RATE)
    for pictures, labels in zip(x.split(batch), y.split(batch), strict=True):
        stepping.zero_grad()
        torch.nn.functional.cross_entropy(model((pictures - 127) / 128)[0], labels).backward()
        stepping.step()
    arrays = {name: (weights.detach() - before[name]).numpy() for name, weights in model.named_parameters()}
    name = "trained" if optimizer == "sgd" else "adam"
    return Sample(name, Layout({name: array.shape for name, array in arrays.items()}), arrays)


# ------------------------------------------------------------------------------------------------------------ entropy


def sparse_entropy(coordinates: int, sent: int) -> float:
    """Bytes of the positions and signs of `sent` among `coordinates`."""
    share = sent / coordinates
    return (-coordinates * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) + sent) / 8


def histogram_entropy(parts: Sequence[NDArray[np.int8]]) -> float:
    """Bytes of integers if each array's histogram were known."""
    bits = 0.0
    for part in parts:
        counts = np.unique(part, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / part.size)).sum())
    return bits / 8


def integers_of(sample: Sample, scheme: Scheme) -> list[NDArray[np.int8]]:
    """What `encode` would code."""
    values = flat.join(sample.delta, sample.layout)
    if scheme.keep < 1:
        values[~largest(values, round(scheme.keep * values.size))] = 0
    return quantise(flat.cut(values, sample.layout), scheme.values)[2]


# ------------------------------------------------------------------------------------------------------------- timing


def best_ms(call: Callable[[], _Result], turns: int) -> tuple[float, _Result]:
    """Shortest time of a few, and the result."""
    times = []
    for _ in range(turns):
        begin = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times), result


class Measured(NamedTuple):
    """One way to code one sample."""

    sample: str
    name: str
    bytes: int
    arrives: float
    """Share of the energy."""
    encode_ms: float
    decode_ms: float


def measure(sample: Sample, name: str, codec: Codec, turns: int) -> Measured:
    """Code a sample, check what arrives, time it."""
    encode_ms, made = best_ms(lambda: codec.encode(sample.delta, sample.layout, base=BASE), turns)
    decode_ms, update = best_ms(lambda: codec.decode(made.data, sample.layout), turns)
    wanted = sample.delta if codec.exact else made.decoded
    assert all(np.array_equal(update.arrays[each], wanted[each]) for each in wanted), name
    return Measured(sample.name, name, len(made.data), arriving(sample.delta, made.decoded), encode_ms, decode_ms)


def arriving(delta: Arrays, decoded: Arrays) -> float:
    """The share of the energy of what was to be sent, less that of its difference to what arrived."""
    lost = sum(float(np.square(delta[name] - decoded[name], dtype=np.float64).sum()) for name in delta)
    sent = sum(float(np.square(each, dtype=np.float64).sum()) for each in delta.values())
    return 1 - lost / sent


def measure_deepcabac(sample: Sample, scheme: Scheme) -> Measured:
    """The same integers, without their scales and header; raises ImportError."""
    update_peers.deepcabac()
    shapes = [(rows, columns) for rows, columns, _ in flat.sides(sample.layout, 0).tolist()]
    parts = integers_of(sample, scheme)
    arrays = [part.astype(np.int32).reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    encode_ms, data = best_ms(lambda: update_peers.deepcabac_encode(arrays), 1)
    decode_ms, found = best_ms(lambda: update_peers.deepcabac_decode(data, shapes), 1)
    assert all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True))
    arrives = arriving(sample.delta, encode(sample.delta, sample.layout, scheme, base=BASE).decoded)
    return Measured(sample.name, f"DeepCABAC, {_words(scheme)}", len(data), arrives, encode_ms, decode_ms)


def _words(scheme: Scheme) -> str:
    return scheme.values if scheme.keep == 1 else f"{scheme.values}, 1/{1 / scheme.keep:.0f}"


SCHEMES = [
    Scheme(),
    Scheme("float16"),
    Scheme("int8"),
    Scheme("sign"),
    Scheme("int8", 1 / 100),
    Scheme("ternary", 1 / 20),
    Scheme("ternary", 1 / 100),
    SPARSE,
    FACTORS,
    Scheme("factors", 1 / 100),
]


def measure_all(sample: Sample, turns: int) -> tuple[dict[str, Measured], str]:
    """Every way that there is, that of the claims so many times, and why DeepCABAC is not among them."""
    claimed = {SPARSE: turns}
    found = [measure(sample, _words(each), SchemeCodec(each), claimed.get(each, 1)) for each in SCHEMES]
    found += [measure(sample, name, peer, 1) for name, peer in update_peers.installed().items()]
    lacking = ""
    try:
        found += [measure_deepcabac(sample, scheme) for scheme in (SPARSE, Scheme("int8"))]
    except ImportError as error:
        lacking = f"DeepCABAC: {error}"
    return {each.name: each for each in found}, lacking


# ------------------------------------------------------------------------------------------------------------- claims


def entropy_claims(sample: Sample, found: dict[str, Measured], within: tuple[float, float]) -> list[claims.Claim]:
    """Bytes over entropy, of sparse ternary and of dense int8."""
    sparse = sparse_entropy(sample.layout.size, round(SPARSE.keep * sample.layout.size))
    dense = histogram_entropy(integers_of(sample, Scheme("int8")))
    rows: list[tuple[Scheme, float, float, str]] = [
        (SPARSE, sparse, within[0], "entropy of positions and signs"),
        (Scheme("int8"), dense, within[1], "entropy of each array's histogram"),
    ]
    return [
        claims.at_most(
            "updates",
            f"{sample.name}: bytes of {_words(scheme)}",
            found[_words(scheme)].bytes / entropy,
            unit="x",
            target=target,
            peer=f"{peer}, {entropy:,.0f} bytes",
        )
        for scheme, entropy, target, peer in rows
    ]


def peer_claims(found: dict[str, Measured], lacking: str) -> list[claims.Claim]:
    """On the trained update: exact ones against exact ones, DeepCABAC on the same integers, Flower against sparse."""
    result = []
    for name in ("planes", "zipnn", "zstd"):
        value = found["float32"].bytes / found[name].bytes if name in found else None
        peer = _peer(name)
        result.append(
            claims.at_most("updates", f"exact float32, bytes against {name}", value, unit="x", target=1, peer=peer)
        )
    version = "" if lacking else importlib.metadata.version("nncodec")
    for words in (_words(SPARSE), "int8"):
        there = found.get(f"DeepCABAC, {words}")
        value = found[words].bytes / there.bytes if there else None
        peer = lacking or f"DeepCABAC of nncodec {version}, same integers; NNCodec itself was not run"
        result.append(
            claims.at_most("updates", f"{words}, bytes against DeepCABAC", value, unit="x", target=1, peer=peer)
        )
    value = found["flower"].bytes / found[_words(SPARSE)].bytes if "flower" in found else None
    what = f"{_words(SPARSE)}, times fewer bytes than Flower's message"
    return [*result, claims.at_least("updates", what, value, unit="x", target=1000, peer=_peer("flower"))]


def _peer(name: str) -> str:
    peer = update_peers.installed().get(name)
    return getattr(peer, "name", "") or update_peers.missing()[name]


def time_claims(sample: Sample, found: dict[str, Measured]) -> list[claims.Claim]:
    """Of the scheme that devices use by default."""
    sparse, size = found[_words(SPARSE)], f"{sample.layout.size / 1e6:.1f} million coordinates"
    pairs = (("encode", sparse.encode_ms, 500), ("decode", sparse.decode_ms, 250))
    return [
        claims.at_most("updates", f"{what} {_words(SPARSE)}, {size}", ms, unit="ms", target=target, peer="none")
        for what, ms, target in pairs
    ]


def bit_claims(sample: Sample) -> list[claims.Claim]:
    """A sign mask of noise, whole and with half of it known to both ends to be zero: bits a live weight."""
    signs = {name: np.where(array < 0, np.float32(-1), np.float32(1)) for name, array in sample.delta.items()}
    half = {name: np.random.default_rng(1).random(array.shape) < 0.5 for name, array in signs.items()}
    result = []
    for what, mask in (("sign mask", None), ("sign mask, half pruned,", half)):
        made = encode(signs, sample.layout, Scheme("sign"), base=BASE, mask=mask)
        arrays = decode(made.data, sample.layout, mask=mask).arrays
        alive = {name: mask[name] if mask else np.ones(array.shape, np.bool_) for name, array in signs.items()}
        assert all(np.array_equal(arrays[name], signs[name] * alive[name]) for name in signs)
        bits = 8 * len(made.data) / sum(each.sum() for each in alive.values())
        result.append(
            claims.at_most("updates", f"{what} of noise", bits, unit="bits a live weight", target=1.01, peer="1 bit")
        )
    return result


def details(found: Sequence[Measured], samples: Sequence[Sample]) -> Table:
    """Every way's bytes and times."""
    table = Table(title="Updates", title_justify="left")
    for name in ("update", "way", "bytes", "times fewer", "arrives", "encode ms", "decode ms"):
        table.add_column(name, justify="left" if name in {"update", "way"} else "right")
    raw = {sample.name: 4 * sample.layout.size for sample in samples}
    for each in found:
        fewer = f"{raw[each.sample] / each.bytes:,.1f}"
        times = (f"{each.encode_ms:.1f}", f"{each.decode_ms:.1f}")
        table.add_row(each.sample, each.name, f"{each.bytes:,}", fewer, f"{100 * each.arrives:.1f} %", *times)
    return table


def factor_claims(sample: Sample, found: dict[str, Measured]) -> list[claims.Claim]:
    """Of an update whose coordinates are all about as large."""
    ternary, ours = found[_words(Scheme("ternary", FACTORS.keep))], found[_words(FACTORS)]
    what = f"{sample.name}: what arrives of {ours.name}, {ours.bytes:,} bytes, over {ternary.name}"
    peer = f"{ternary.name}, {ternary.bytes:,} bytes, of which {100 * ternary.arrives:.0f} % arrives"
    return [claims.at_least("updates", what, ours.arrives / ternary.arrives, unit="x", target=1.5, peer=peer)]


def samples_of(*, quick: bool) -> tuple[list[Sample], str]:
    """What is coded, and why no trained update is: noise, one of few large coordinates, one of equal ones."""
    if quick:
        return [noise(250, 400), products(), products(signs=True)], ""
    try:
        return [noise(1000, 3500), trained("sgd"), trained("adam")], ""
    except (ImportError, DataError) as error:
        lacking = f"no trained updates, products of vectors in their place: {error}"
        return [noise(1000, 3500), products(), products(signs=True)], lacking


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = claims.options(__doc__, arguments)
    samples, lacking = samples_of(quick=options.quick)
    plain, real, even = samples
    of_noise, _ = measure_all(plain, 1)
    of_real, no_deepcabac = measure_all(real, 1 if options.quick else TURNS)
    of_even, _ = measure_all(even, 1)
    Console().print(details([*of_noise.values(), *of_real.values(), *of_even.values()], samples))
    for reason in (lacking, no_deepcabac, *update_peers.missing().values()):
        if reason:
            print(reason)
    found = [*entropy_claims(plain, of_noise, (1.05, 1.01)), *entropy_claims(real, of_real, (1.05, 1.01))]
    found += [*peer_claims(of_real, no_deepcabac), *factor_claims(even, of_even)]
    found += [*time_claims(real, of_real), *bit_claims(plain)]
    return claims.report("Updates", found, options)


if __name__ == "__main__":
    sys.exit(main())
