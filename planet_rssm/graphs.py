"""Functions of tensors run as CUDA graphs: a launch where there were hundreds."""

import contextlib
import functools
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.base.device import Keys
from planet_rssm.base.errors import PlanetError
from planet_rssm.types import Rng

T = TypeVar("T")  # a pytree
# runs before a capture, in which libraries choose their kernels and take their workspaces
WARMUPS = 2
_capturing = threading.Lock()  # all captures of a device are made on one stream
_shared: "dict[tuple[int, int], _Shared]" = {}  # by device and stream


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]  # the memory that it reads
    generators: list[torch.Generator]  # and that it draws from
    keys: Keys | None  # and that it draws by in their place
    result: "_Packed"  # and that it writes


class _Packed(NamedTuple):
    """A pytree of tensors in one memory."""

    flat: Tensor  # uint8
    kinds: list[tuple[torch.Size, torch.dtype]]  # of the leaves
    form: pytree.TreeSpec

    @classmethod
    def of(cls, tree: object) -> "_Packed":
        leaves, form = pytree.tree_flatten(tree)
        flat = [leaves[i].contiguous().flatten().view(torch.uint8) for i in _largest_first(leaves)]
        return cls(torch.cat(flat), [(leaf.shape, leaf.dtype) for leaf in leaves], form)

    def copied(self) -> Any:  # noqa: ANN401 (the pytree)
        leaves = [torch.empty(0, dtype=dtype) for _, dtype in self.kinds]
        order = _largest_first(leaves)
        sizes = [self.kinds[i][0].numel() * leaves[i].element_size() for i in order]
        parts = self.flat.clone().split(sizes)
        for i, part in zip(order, parts, strict=True):
            shape, dtype = self.kinds[i]
            leaves[i] = part.view(dtype).view(shape)
        return pytree.tree_unflatten(leaves, self.form)


def _largest_first(leaves: Sequence[Tensor]) -> list[int]:
    """Return the places of the largest elements first: one after another each is aligned."""
    return sorted(range(len(leaves)), key=lambda i: -leaves[i].element_size())


class _Shared(NamedTuple):
    """What all graphs that are replayed on one stream have in common.

    They can share memory: none of a graph's results lies there any longer when the next one runs,
    for they are copied.
    """

    pool: Any  # torch's own
    # an almost empty graph: a pool that no graph is left in cannot be used again
    keeper: torch.cuda.CUDAGraph
    # from copying in until the results are copied out, against other threads on this stream
    lock: threading.Lock


class Graphs:
    """Runs functions of tensors as CUDA graphs, one captured for each sort of call.

    A graph reads and writes memory of its own: inputs are copied in, results are copies. The graphs
    of one object are for one thread at a time; what they share with those of others is kept apart
    here.
    """

    def __init__(self, most: int) -> None:
        """Keep `most` graphs; of more, the one that was not run for longest is dropped."""
        self.most = most
        self._captured: OrderedDict[Any, _Captured] = OrderedDict()

    def __call__(
        self,
        one: functools.partial[T],
        tensors: tuple[object, ...],
        rng: Rng = None,
        places: tuple[int, ...] = (),
    ) -> T:
        """Return `one(*tensors, rng)`.

        Args:
            one: computes by its keywords and the shapes alone.
            tensors: pytrees of tensors, numbers and None; a number is a tensor [] for `one`.
            rng: what `one` draws from: it gets other generators, in the same state, or their
                `Keys`; these are afterwards in the state in which it left them.
            places: where in memory other tensors lie that it reads.
        """
        leaves, form = pytree.tree_flatten(tensors)
        given = [leaf for leaf in leaves if leaf is not None]
        kinds = tuple(
            (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves
        )
        rngs = _generators(rng)
        device = next(leaf.device for leaf in given if isinstance(leaf, Tensor))
        with torch.cuda.device(device):
            current = torch.cuda.current_stream()
            shared = _shared_by(current.device_index, current.cuda_stream)
            words = tuple(one.keywords.items())
            key = (words, kinds, str(form), _sort_of(rng), places, current.cuda_stream)
            if key not in self._captured:
                while len(self._captured) >= self.most:
                    self._captured.popitem(last=False)
                self._captured[key] = _capture(one, leaves, form, rng, device, shared.pool)
            self._captured.move_to_end(key)
            captured = self._captured[key]
            with shared.lock:
                if captured.keys is not None:
                    captured.keys.fill(rngs)
                for own, theirs in zip(captured.generators, rngs, strict=False):
                    own.set_state(theirs.get_state())
                _fill(captured.inputs, given)
                captured.graph.replay()
                if captured.keys is not None:
                    captured.keys.advance(rngs)
                for own, theirs in zip(captured.generators, rngs, strict=False):
                    theirs.set_state(own.get_state())
                result: T = captured.result.copied()
                return result


def _fill(inputs: Sequence[Tensor], given: Sequence[Tensor | int]) -> None:
    """Copy what is given, with a launch for each type of tensors and for each number."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for own, value in zip(inputs, given, strict=True):
        if not isinstance(value, Tensor):
            own.fill_(value)
        elif value.numel():
            to, of = by_dtype.setdefault(value.dtype, ([], []))
            to.append(own)
            of.append(value)
    for to, of in by_dtype.values():
        torch._foreach_copy_(to, of)


class CaptureError(Exception):
    """A function cannot be captured; the message is CUDA's or PyTorch's."""


class RepeatedGraph:
    """A function that changes tensors in place and is run again and again, as one CUDA graph.

    The first run is a plain one, in which libraries choose their kernels and state is made; the
    next is captured and replayed, and so are all that follow. What the function reads anew each
    time lies in the same memory each time.
    """

    def __init__(
        self,
        function: Callable[[], Tensor],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """Take the function, and the generators that it draws from, which may be seeded anew."""
        self._function = function
        self._device = device
        self._generators = generators
        self._warm = False  # whether there was a plain run
        self._stream = 0  # that it was captured for
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def __call__(self) -> Tensor:
        """Run the function and return its result on the CPU: one transfer, and one wait.

        Raises:
            CaptureError: it cannot be captured; nothing was run then.
        """
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            if not self._warm:
                self._warm = True
                stream = _capture_stream(current.device_index)
                with _capturing:
                    stream.wait_stream(current)
                    with torch.cuda.stream(stream):
                        result = self._function()
                    current.wait_stream(stream)
                return result.cpu()
            shared = _shared_by(current.device_index, current.cuda_stream)
            if self._captured is None or self._stream != current.cuda_stream:
                self._captured = self._capture(shared.pool)
                self._stream = current.cuda_stream
            graph, result = self._captured
            with shared.lock:
                graph.replay()
                return result.cpu()

    def _capture(self, pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:  # noqa: ANN401
        record = functools.partial(_recorded, self._function, pool, 0, self._generators)
        try:
            with _capturing:
                return _with_all_memory(record)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # CUDA's own and PyTorch's
            raise CaptureError(str(error).splitlines()[0]) from error


def _shared_by(device: int, stream: int) -> _Shared:
    """Return what the graphs of a stream share: there are few, of some 60 streams a device.

    Memory that each prepared planner had for itself would stay behind when it ends.
    """
    shared = _shared.get((device, stream))
    if shared is None:
        with _capturing:
            shared = _shared.get((device, stream)) or _new(device)
            _shared[device, stream] = shared
    return shared


def _new(device: int) -> _Shared:
    keeper = torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle()
    with (
        torch.inference_mode(False),
        torch.cuda.stream(_capture_stream(device)),
        _captured_by(keeper, pool),
    ):
        torch.zeros(1, device="cuda")
    return _Shared(pool, keeper, threading.Lock())


@functools.cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """Return the stream that all graphs of a device are captured on, and nothing else runs on.

    PyTorch hands its streams out in turn, 32 of each priority. One of the common priority would
    come to be somebody else's too, a control loop's say, whose work a capture would then take in.
    The products' workspace belongs to the stream: there is one, however many prepared planners come
    and go.
    """
    return torch.cuda.Stream(device, priority=-1)


def _capture(
    one: Callable[..., object],
    leaves: Sequence[Tensor | int | None],
    form: pytree.TreeSpec,
    rng: Rng,
    device: torch.device,
    pool: Any,  # noqa: ANN401
) -> _Captured:
    """Return a graph of `one`, which has generators as `rng` has; its memory comes from `pool`."""
    # with inference on, the memory could not be written to outside it
    with _capturing, torch.inference_mode(False), torch.no_grad(), _capturable():
        own = [_own(leaf, device) for leaf in leaves]
        tensors = pytree.tree_unflatten(own, form)
        many = isinstance(rng, Sequence)
        keys = Keys.of(rng, device) if isinstance(rng, Sequence) and Keys.drawn_on(device) else None
        generators = [] if keys else [torch.Generator(device) for _ in _generators(rng)]
        draws: Rng = keys or (generators if many else generators[0] if generators else None)

        def packed() -> _Packed:
            if keys is not None:
                keys.used = 0
            return _Packed.of(one(*tensors, draws))

        record = functools.partial(_recorded, packed, pool, generators=generators)
        graph, result = _with_all_memory(record)
    inputs = [leaf for leaf in own if leaf is not None]
    return _Captured(graph, inputs, generators, keys, result)


def _generators(rng: Rng) -> Sequence[torch.Generator]:
    if isinstance(rng, Keys):
        raise TypeError("a graph inside a graph: nothing is captured while another is")
    return [] if rng is None else rng if isinstance(rng, Sequence) else [rng]


def _sort_of(rng: Rng) -> tuple[bool, int]:
    return isinstance(rng, Sequence), len(_generators(rng))


def _own(leaf: Tensor | int | None, device: torch.device) -> Tensor | None:
    """Return memory like a leaf's, with the same in it."""
    if leaf is None:
        return None
    return leaf.clone() if isinstance(leaf, Tensor) else torch.full((), leaf, device=device)


def _with_all_memory(record: Callable[[], T]) -> T:
    """Capture, and where memory runs out once more without what PyTorch keeps for later.

    Inside a capture it gives back none of that.
    """
    try:
        return record()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return record()


def _recorded(
    one: Callable[[], T],
    pool: Any,  # noqa: ANN401
    warmups: int = WARMUPS,
    generators: Sequence[torch.Generator] = (),
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Return a graph of `one()`, and the result that it writes."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    current = torch.cuda.current_stream()
    stream = _capture_stream(torch.cuda.current_device())
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(warmups):
            one()
        with _captured_by(graph, pool):
            result = one()
    current.wait_stream(stream)
    return graph, result


@contextlib.contextmanager
def _captured_by(
    graph: torch.cuda.CUDAGraph,
    pool: Any,  # noqa: ANN401 (torch's own)
) -> Iterator[None]:
    """Capture what is done inside on the current stream.

    `torch.cuda.graph` would first wait for all of the device and give all unused memory back, which
    other threads pay for, and would leave its stream the current one where the capture fails.
    """
    collects = gc.isenabled()
    gc.disable()  # a dead graph that is collected inside would end the capture
    try:
        # thread_local: what other threads do with the device meanwhile is no concern of this
        # capture
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            yield
        except BaseException:
            with contextlib.suppress(RuntimeError):  # says only that the capture failed
                graph.capture_end()
            raise
        graph.capture_end()
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def _capturable() -> Iterator[None]:
    """Turn a wait for the device, as of a user's latent, into a line that says what to do.

    Raises:
        PlanetError: the model cannot be captured; what CUDA says is its cause.
    """
    try:
        yield
    except RuntimeError as error:  # torch.AcceleratorError is one
        # CUDA's own errors of a capture and PyTorch's all have this in them
        if "captur" not in str(error).lower():
            raise
        raise PlanetError(
            "the search cannot be captured as a CUDA graph: something in the model waits for the "
            "device, .item() or a branch on a tensor; set planner.fast=false, or take that out"
        ) from error
