"""A planner made ready for one model: prepared weights, and on a CUDA device rounds that are captured graphs."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from planet_rssm.errors import PlanetError
from planet_rssm.planners.base import Rng, SearchPlanner
from planet_rssm.planners.objective import Objective
from planet_rssm.types import C, Dynamics, Plan, Rollout, S

_capturing = threading.Lock()  # a capture begins by waiting for the device, which another one under way forbids
WARMUPS = 2  # runs before a capture, in which libraries choose their kernels and take their workspaces


class Session(Generic[S, C]):
    """A planner bound to a dynamics and an objective; decides as the planner's `plan` does, but faster.

    It follows a model that goes on learning. `planner.fast=false` makes it the plain path. Not for two threads at once.
    """

    def __init__(
        self,
        planner: SearchPlanner[C, Any],
        dynamics: Dynamics[S],
        objective: Callable[[Rollout], Tensor],
        precision: str = "float32",
    ) -> None:
        """Prepare `dynamics`; `precision` is that of its products, see device.DTYPES."""
        self.planner, self.objective = planner, objective
        self.dynamics = dynamics.prepare(precision) if planner.settings.fast else dynamics
        own = type(objective) is Objective and objective.cost is None and objective.terminal_value is None
        # A user's functions may wait for the device, which no graph can.
        self._run = Graphs() if self.dynamics.capturable and own else None

    def plan(
        self,
        state: S,
        carry: C,
        is_first: Tensor,
        generator: Rng = None,
        *,
        executed: int = 1,
        rounds: int | None = None,
        proposals: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> tuple[Plan, C]:
        """Decide; see `SearchPlanner.plan`."""
        self.refresh()
        noise = self.planner.draw(self.dynamics, state, generator, rounds)
        return self.planner.solve(
            self.dynamics, self.objective, state, carry, is_first, noise, executed, proposals=proposals,
            previous=previous, run=self._run,
        )  # fmt: skip

    def refresh(self) -> None:
        """Follow weights that have changed since this session was made or last refreshed; `plan` does so itself."""
        self.dynamics.refresh()


class Graphs:
    """Runs functions of tensors as CUDA graphs, one captured for each sort of call: a launch where there were hundreds.

    A graph reads and writes memory of its own: inputs are copied in, results are copies.
    """

    def __init__(self) -> None:
        self._captured: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor], pytree.TreeSpec]] = {}

    def __call__(self, one: Any, tensors: tuple[Any, ...]) -> Any:  # noqa: ANN401 (a partial, and a pytree)
        """Return `one(*tensors)`; `one` is a `functools.partial` that computes by its keywords and shapes alone."""
        leaves, form = pytree.tree_flatten(tensors)
        given = [leaf for leaf in leaves if leaf is not None]
        shapes = tuple((leaf.shape, leaf.dtype) if leaf is not None else None for leaf in leaves)
        key = (tuple(one.keywords.items()), shapes, str(form))
        with torch.cuda.device(given[0].device):
            if key not in self._captured:
                # with inference on, the memory could not be written to outside it
                with _capturing, torch.inference_mode(False), torch.no_grad(), _capturable():
                    self._captured[key] = _capture(one, leaves, form, *self._place)
            graph, inputs, outputs, result = self._captured[key]
            torch._foreach_copy_(inputs, given)
            graph.replay()
        return pytree.tree_unflatten([leaf.clone() for leaf in outputs], result)

    @functools.cached_property
    def _place(self) -> tuple[torch.cuda.Stream, torch.cuda.Stream, Any]:
        """Streams to warm up and to capture on, and the memory that all graphs share.

        Torch's own stream for captures is on the device that the process first captured on, which may be another. They
        can share memory since no graph's results lie there any longer when the next one runs: they are copied.
        """
        return torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.graph_pool_handle()


@contextlib.contextmanager
def _capturable() -> Iterator[None]:
    """Say in one line what to do where something that is run waits for the device, as a latent of the user's may.

    Raises:
        PlanetError: the model cannot be captured; what CUDA says is its cause.
    """
    try:
        yield
    except RuntimeError as error:  # torch.AcceleratorError is one
        if "captur" not in str(error).lower():  # as CUDA's own errors of a capture and PyTorch's all say
            raise
        raise PlanetError(
            "the search cannot be captured as a CUDA graph: something in the model waits for the device, .item() or "
            "a branch on a tensor; set planner.fast=false, or take that out"
        ) from error


def _capture(
    one: Callable[..., Any],
    leaves: list[Tensor | None],
    form: pytree.TreeSpec,
    aside: torch.cuda.Stream,
    stream: torch.cuda.Stream,
    pool: Any,  # noqa: ANN401 (torch's own)
) -> tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor], pytree.TreeSpec]:
    """Return a graph of `one`, the memory it reads, the memory it writes, and the form of its result."""
    held = [None if leaf is None else leaf.clone() for leaf in leaves]
    tensors = pytree.tree_unflatten(held, form)
    current = torch.cuda.current_stream()
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        for _ in range(WARMUPS):
            one(*tensors)
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # thread_local: what other threads do with the device meanwhile is no concern of this capture
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = one(*tensors)
    outputs, form = pytree.tree_flatten(result)
    return graph, [leaf for leaf in held if leaf is not None], outputs, form
