"""A decision's graph as a file: ONNX, or PyTorch's exported program."""

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import check_writable, scratch_folder, sync_file, sync_folder
from planet_rssm.base.json_types import Json
from planet_rssm.base.text import one_line
from planet_rssm.deploy.graph import DecisionGraph
from planet_rssm.world_model.plain import plainly

DESCRIPTION = "planet_rssm"  # name of the JSON in the file that says what goes in and comes out
_BESIDE = ".planet-export-"  # begins the name of a folder with a file that is not complete yet


def export_agent(agent: Agent[Any], path: Path, kind: str) -> DecisionGraph:
    """Write an agent's decision as one file; return the graph that is in it.

    Args:
        agent: on the CPU.
        path: the file, which is replaced.
        kind: one of `FORMATS`.

    Raises:
        PlanetError: a package is missing, the planner cannot be exported, the file's name does not
            end in the format's, or it cannot be written.
    """
    if path.suffix != f".{kind}":
        raise PlanetError(f"{path}: must end in .{kind}, by which other programs know it")
    graph = DecisionGraph(agent).eval()
    example = tuple(example_inputs(graph, agent).values())
    described = json.dumps(description(graph, agent, example))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
        with scratch_folder(path.parent, _BESIDE) as beside:
            made = beside / path.name
            # What is exported where gradients are off records nothing about them; the plain path
            # has no operator of one processor's.
            with warnings.catch_warnings(), torch.no_grad(), plainly():
                warnings.simplefilter("ignore")  # of the exporters, about themselves
                FORMATS[kind](graph, example, made, described)
            sync_file(made)
            os.replace(made, path)
        sync_folder(path.parent)
    except OSError as error:
        raise PlanetError(f"{path}: {error.strerror or error}; give another place") from None
    return graph


def example_inputs(graph: DecisionGraph, agent: Agent[Any]) -> dict[str, Tensor]:
    """Return inputs of a first decision on a blank observation."""
    shapes = agent.spec.observation
    blank = {
        key: torch.zeros((1, *shape), dtype=_dtype(dtype)) for key, (shape, dtype) in shapes.items()
    }
    still = torch.zeros(1, agent.spec.action_size)
    return graph.inputs(agent, agent.initial(1), blank, still, torch.ones(1, dtype=torch.bool))


def description(graph: DecisionGraph, agent: Agent[Any], example: tuple[Tensor, ...]) -> Json:
    """Return what a program that runs the graph has to know."""
    spec = agent.spec
    named = zip(graph.input_names, example, strict=True)
    return {
        "format": 1,
        "task": spec.id,
        "planner": type(agent.planner).__name__,
        "control_interval": spec.control_interval,
        "action_repeat": spec.action_repeat,
        "action_groups": list(spec.groups),
        "inputs": {
            name: {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in named
        },
        "outputs": graph.output_names,
    }


def _onnx(graph: DecisionGraph, example: tuple[Tensor, ...], path: Path, described: str) -> None:
    try:
        import onnx  # noqa: F401 (the exporter needs both, and says so late)
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise PlanetError(
            f"{error.name} is not installed; pip install 'planet-rssm[onnx]'"
        ) from None
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # a line for each constant
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=graph.input_names,
            output_names=graph.output_names,
            custom_translation_table={
                torch.ops.aten.sort.stable: _sorted,
                torch.ops.aten.cumprod.default: _multiplied,
            },
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the others are the exporter's advice, in colours
            cause = cause.__cause__
        raise PlanetError(
            f"cannot be exported to ONNX: {one_line(str(cause))}; give --to pt2, which has every "
            "operator of PyTorch's, or another --planner, or -s planner.act_by=mean where it draws"
        ) from error
    assert program is not None
    _rename_inner(program.model.graph, {*graph.input_names, *graph.output_names})
    program.model.metadata_props[DESCRIPTION] = described
    program.save(str(path), external_data=False)


def _rename_inner(nodes: Any, taken: set[str]) -> None:  # noqa: ANN401 (onnx_ir's graph)
    """Give inner values other names than `taken`: the exporter calls one of a mean "mean"."""
    for node in nodes:
        for value in node.outputs:
            if value.name in taken and not any(value is output for output in nodes.outputs):
                value.name = f"inner_{value.name}"


def _sorted(
    values: Any,  # noqa: ANN401 (a value of a graph under way)
    *,
    stable: bool | None = None,
    dim: int = -1,
    descending: bool = False,
) -> Any:  # noqa: ANN401
    """Sort in ONNX: of equal values its TopK gives the one that stands first, so it is stable."""
    from onnxscript import opset18

    op: Any = opset18  # its types are those of values at run time
    count = op.Reshape(op.Gather(op.Shape(values), dim, axis=0), op.Constant(value_ints=[1]))
    return op.TopK(values, count, axis=dim, largest=descending, sorted=True)


def _multiplied(values: Any, dim: int, dtype: object = None) -> Any:  # noqa: ANN401
    """Multiply up along an axis of known length in ONNX, which has no operator for it."""
    from onnxscript import opset18

    op: Any = opset18
    places = (op.Constant(value_ints=[place]) for place in range(values.shape[dim]))
    products: list[Any] = []
    for place in places:
        part = op.Gather(values, place, axis=dim)
        products.append(op.Mul(products[-1], part) if products else part)
    return op.Concat(*products, axis=dim)


def _pt2(graph: DecisionGraph, example: tuple[Tensor, ...], path: Path, described: str) -> None:
    program = torch.export.export(graph, example, strict=False)
    torch.export.save(program, str(path), extra_files={f"{DESCRIPTION}.json": described})


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


Runner = Callable[[dict[str, Tensor]], dict[str, np.ndarray]]


def runner(path: Path, graph: DecisionGraph, kind: str) -> Runner:
    """Return a function that runs the file: by ONNX Runtime, or by PyTorch.

    Raises:
        PlanetError: ONNX Runtime is not installed.
    """
    if kind == "pt2":
        module = torch.export.load(str(path)).module()

        def run(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
            with torch.no_grad():
                outputs = module(*inputs.values())
            return {
                name: value.numpy() for name, value in zip(graph.output_names, outputs, strict=True)
            }

        return run
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise PlanetError("onnxruntime is not installed; pip install 'planet-rssm[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run_onnx(inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
        given = {name: value.numpy() for name, value in inputs.items()}
        outputs = session.run(graph.output_names, given)
        return dict(zip(graph.output_names, outputs, strict=True))

    return run_onnx


FORMATS: dict[str, Callable[[DecisionGraph, tuple[Tensor, ...], Path, str], None]] = {
    "onnx": _onnx,
    "pt2": _pt2,
}
