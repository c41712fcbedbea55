"""onnxruntime as both ends use it, and what stands between the head's latent and the coder's symbols."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from headwater.compression.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SYMBOLS = np.iinfo(np.int16)
_AS_ASKED_FOR = 1
_FIRST_BYTES, _SMALLEST_HOLE_BYTES = 1 << 20, 16 << 20


@cache
def _one_arena() -> None:
    """Have all sessions of the process take their memory from one place that grows by what is asked for.

    By default each session has an arena of its own, and each doubles when it is too small: two graphs that ran batches
    of all sizes side by side came to hold twice the memory that they need, at moments that nobody could foretell.
    """
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    any_size = 0
    ort.create_and_register_allocator(
        memory, ort.OrtArenaCfg(any_size, _AS_ASKED_FOR, _FIRST_BYTES, _SMALLEST_HOLE_BYTES)
    )


def session(
    graph: bytes, threads: int = 1, *, name: str = "a graph of the bundle", batches: bool = False
) -> ort.InferenceSession:
    """Load a graph to be run on the CPU by threads that never spin; raises :class:`BundleError` if it does not load.

    Args:
        graph: in ONNX.
        threads: that one run uses; 0 for as many as there are cores.
        name: for the error.
        batches: sizes vary from run to run; onnxruntime would keep a plan of the memory for each that it ever saw.
    """
    _one_arena()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = not batches
    options.log_severity_level = 3  # errors; the warnings are about the machine, not about the graph
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    # onnxruntime's exceptions derive from Exception only, a class for each of its status codes.
    except Exception as error:
        raise BundleError(f"onnxruntime cannot load {name}: {error}") from error


def quantise(latent: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.int16]:
    """Scale a latent [C, H, W] by the gain of each channel [C] and round it: symbols int16 [C, H, W]."""
    scaled = latent * gain[:, np.newaxis, np.newaxis]
    np.rint(scaled, out=scaled)
    return np.clip(scaled, _SYMBOLS.min, _SYMBOLS.max, out=scaled).astype(np.int16)
