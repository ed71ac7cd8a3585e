"""Devices: their memory and speed, precision on them, moving tensors, and seeded generators."""

import contextlib
import importlib.util
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json

M = TypeVar("M", bound=torch.nn.Module)
KINDS = ("cpu", "cuda", "mps", "xpu")
GEMM_SECONDS = 0.3
GEMM_SIDE = {"cpu": 1024}  # rows and columns; 8192 on other devices
# What the CPU's allocator says: it has no exception class.
_CPU_FULL = ("not enough memory", "can't allocate memory")
PHILOX = 4  # numbers of 32 bits that a call of Philox gives
ALIGNED = 64  # bytes to which what is moved together is aligned
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
T = TypeVar("T")


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is cuda where there is one, else cpu.

    Raises:
        PlanetError: the name is no device, or there is none of that kind here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # torch knows more, most of which hold no numbers or need a plug-in
    if name.partition(":")[0] not in KINDS:
        raise PlanetError(f"device {name!r}: not one of {', '.join(KINDS)}; use auto or cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise PlanetError(f"device {name!r}: not usable here ({reason}); use auto or cpu") from None
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return a context for products and convolutions in `precision`; parameters stay float32."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def exact_float32(device: torch.device) -> None:
    """Let float32 be float32 on a CUDA device, in products and convolutions, in this process.

    PyTorch's convolutions there have TF32's 10 bits of a number's 23 unless this is said. Who wants
    speed has bfloat16, twice as fast as that.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


@contextlib.contextmanager
def within_memory(device: torch.device, part: str, fix: str) -> Iterator[None]:
    """Turn an error for lack of memory on `device` into a line about `part`, with the `fix`.

    Raises:
        PlanetError: it ran out inside.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(words in str(error) for words in _CPU_FULL):
            raise
        raise PlanetError(f"device {device}: too little free memory for {part}; {fix}") from None


def require_memory(device: torch.device, needed: float, what: str, fix: str) -> None:
    """Refuse sizes that cannot fit into an empty device, before anything is made.

    Args:
        device: where it would be.
        needed: the least bytes that it takes.
        what: names it with its value, as `planner.candidates = 2000000000`.
        fix: what to do instead.

    Raises:
        PlanetError: the device has less memory in all.
    """
    has = total_memory(device)
    if has is not None and needed > has:
        size = (
            f"{needed / 2**30:,.0f} GiB"
            if math.isfinite(needed)
            else "more bytes than can be counted"
        )
        raise PlanetError(
            f"{what}: takes at least {size}, {device} has {has / 2**30:.0f} GiB in all; {fix}"
        )


def require_triton(device: torch.device) -> None:
    """Refuse `planner.rollout=triton` where its kernel cannot run.

    It runs on a CUDA device, and with TRITON_INTERPRET=1 in the environment anywhere, slowly.

    Raises:
        PlanetError: there is no such device, or no Triton.
    """
    lacks = None
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        lacks = f"needs a CUDA device, this is {device}"
    elif importlib.util.find_spec("triton") is None:
        lacks = "needs the package triton, which torch's CUDA build for Linux brings along"
    if lacks:
        raise PlanetError(f"planner.rollout = 'triton': {lacks}; set planner.rollout=torch")


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory that a device has in all, free or not; None if not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if device.type == "cpu"
            else None
        )
    except (OSError, ValueError):  # a system that does not say
        return None


def affordable(
    make: Callable[[], M], device: torch.device, part: str, *, foreign: bool = False
) -> M:
    """Return what `make` builds, once its tensors are known to fit into the memory of `device`.

    It is first built without any memory. That is left out with `foreign` code in it, which may not
    work so.

    Raises:
        PlanetError: they do not fit.
    """
    fix = "lower rssm.deter, rssm.hidden, model.depth or other widths"
    if not foreign:
        try:
            with torch.device("meta"):
                size: float = sum(tensor.nbytes for tensor in make().state_dict().values())
        except (RuntimeError, OverflowError) as error:
            if "overflow" not in str(error) and not isinstance(error, OverflowError):
                raise
            size = math.inf  # more elements than an integer counts
        require_memory(device, size, part, fix)
    with within_memory(device, part, fix):
        return make()


def generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a generator on `device` that starts from `seed`, see seeding.stream_seed."""
    return torch.Generator(device).manual_seed(seed)


class Keys:
    """Seeds and places of R generators in a CUDA device's memory; row r draws by generator r alone.

    A generator that is part of a captured graph takes two launches at each replay, these take one
    transfer in all. The numbers are PyTorch's Philox of seed and place, others than `torch.randn`'s
    of the same generator.
    """

    def __init__(self, pairs: Tensor) -> None:
        """Take int64 [R, 2] on the device, each a seed and a place."""
        self.pairs = pairs
        self.used = 0  # places that each has drawn from here

    def __len__(self) -> int:
        """Return R."""
        return len(self.pairs)

    @staticmethod
    def drawn_on(device: torch.device) -> bool:
        """Return whether this version of PyTorch draws so on a device."""
        return device.type == "cuda" and hasattr(torch.ops.aten, "_philox_normal_")

    @classmethod
    def of(cls, rngs: Sequence[torch.Generator], device: torch.device) -> "Keys":
        """Return what generators of a CUDA device would go on with."""
        return cls(torch.empty(len(rngs), 2, dtype=torch.int64, device=device)).fill(rngs)

    def fill(self, rngs: Sequence[torch.Generator]) -> "Keys":
        """Take over seeds and places, in one transfer that is not waited for; return itself."""
        pairs = [(rng.initial_seed(), rng.get_offset()) for rng in rngs]
        host = torch.from_numpy(np.array(pairs, np.uint64).view(np.int64))
        self.pairs.copy_(host.pin_memory(), non_blocking=True)
        return self

    def advance(self, rngs: Sequence[torch.Generator]) -> None:
        """Let generators go on behind what was drawn here."""
        for rng in rngs:
            rng.set_offset(rng.get_offset() + self.used)

    def normals(self, count: int, dtype: torch.dtype) -> Tensor:
        """Draw standard normal numbers [R, count]; the next call goes on behind them."""
        seeds, places = self.pairs.unbind(1)
        keys = torch.stack([seeds, places + self.used], 1) if self.used else self.pairs
        words = count * (2 if dtype == torch.float64 else 1)
        self.used += -(-words // PHILOX) * PHILOX
        made = torch.empty(len(self), count, dtype=dtype, device=keys.device)
        drawn: Tensor = torch.ops.aten._philox_normal_(made, keys.view(torch.uint64)[:, None])
        return drawn


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that this thread gave it on its current stream; a CPU has.

    To wait for all of the device would end a capture that is under way in another thread.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def to_device(values: Sequence[np.ndarray | Tensor], device: torch.device) -> list[Tensor]:
    """Return arrays and tensors as tensors on `device`.

    On a CUDA device all arrays go in one transfer from pinned memory, which is not waited for: each
    by itself from ordinary memory would be.
    """
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    moved = iter(
        _together(arrays, device)
        if device.type == "cuda" and arrays
        else map(torch.from_numpy, arrays)
    )
    return [
        (next(moved) if isinstance(value, np.ndarray) else value).to(device) for value in values
    ]


class Inputs:
    """Tensors on a device, which one transfer fills anew from arrays of the same shapes.

    They are what a captured graph reads.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device) -> None:
        """Take memory for such arrays; the numbers come with `fill`."""
        self._spans = _spans(arrays)
        self._flat = torch.empty(self._spans[-1].stop, dtype=torch.uint8, device=device)
        self.tensors = _pieces(self._flat, arrays, self._spans)

    def fill(self, staged: Tensor) -> None:
        """Copy what `stage` returned into the tensors; a CUDA device is not waited for."""
        self._flat.copy_(staged, non_blocking=True)


def stage(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return the bytes of all arrays, for `Inputs.fill`; for a CUDA device in pinned memory."""
    return _staged(arrays, _spans(arrays), device.type == "cuda")


def _together(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    spans = _spans(arrays)
    there = _staged(arrays, spans, True).to(device, non_blocking=True)
    return _pieces(there, arrays, spans)


def _spans(arrays: Sequence[np.ndarray]) -> list[slice]:
    """Return where each array's bytes lie in a memory of them all."""
    spans = []
    end = 0
    for array in arrays:
        spans.append(slice(end, end + array.nbytes))
        end += -(-array.nbytes // ALIGNED) * ALIGNED
    return spans


def _staged(arrays: Sequence[np.ndarray], spans: Sequence[slice], pinned: bool) -> Tensor:
    """Return the bytes of all arrays; PyTorch keeps pinned memory until it was read."""
    staged = torch.empty(spans[-1].stop, dtype=torch.uint8, pin_memory=pinned)
    for array, span in zip(arrays, spans, strict=True):
        staged.numpy()[span].view(array.dtype).reshape(array.shape)[...] = array
    return staged


def _pieces(flat: Tensor, arrays: Sequence[np.ndarray], spans: Sequence[slice]) -> list[Tensor]:
    """Return the parts of `flat` as tensors of the arrays' types and shapes."""
    dtypes = [torch.from_numpy(np.empty(0, array.dtype)).dtype for array in arrays]
    parts = zip(arrays, spans, dtypes, strict=True)
    return [flat[span].view(dtype).view(array.shape) for array, span, dtype in parts]


def to_host(tree: T) -> T:
    """Return a pytree of tensors on the CPU; from a CUDA device in one transfer, with one wait."""
    leaves, form = pytree.tree_flatten(tree)
    if not all(leaf.is_cuda for leaf in leaves):
        return pytree.tree_unflatten([leaf.cpu() for leaf in leaves], form)
    # the largest elements first, so that each is aligned
    order = sorted(range(len(leaves)), key=lambda i: -leaves[i].element_size())
    flat = [leaves[i].contiguous().flatten().view(torch.uint8) for i in order]
    parts = torch.cat(flat).cpu().split([len(part) for part in flat])
    for i, part in zip(order, parts, strict=True):
        leaves[i] = part.view(leaves[i].dtype).view(leaves[i].shape)
    return pytree.tree_unflatten(leaves, form)


def gemm_rate(precision: str, device: torch.device) -> float:
    """Return the GFLOP/s of large square matrix products, the fastest within GEMM_SECONDS."""
    side = GEMM_SIDE.get(device.type, 8192)
    matrix = torch.rand(side, side, device=device, generator=generator(0, device)).to(
        DTYPES[precision]
    )
    fastest = float("inf")
    end = time.perf_counter() + GEMM_SECONDS
    while time.perf_counter() < end or fastest == float("inf"):
        begin = time.perf_counter()
        matrix @ matrix
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * side**3 / fastest / 1e9


def take_rates(rates: dict[str, float], device: torch.device) -> None:
    """Measure the rate of each precision in `rates` and keep the fastest so far."""
    for name, rate in rates.items():
        rates[name] = max(rate, gemm_rate(name, device))


def processor() -> str:
    """Return the processor's name and the vector instructions that torch uses: `AMD EPYC, AVX2`."""
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                return f"{name}, {torch.backends.cpu.get_cpu_capability()}"
    return (
        f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    )


def describe(device: torch.device, rates: Mapping[str, float]) -> Json:
    """Return the machine as the JSON of a bench has it; `rates` are GFLOP/s by precision."""
    return {
        "gemm_gflops": {name: round(rate, 1) for name, rate in rates.items()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
    }
