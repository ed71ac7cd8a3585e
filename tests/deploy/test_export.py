"""One decision as a graph: in each form it decides as the agent does, on the same noise."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import untrained_behavior
from planet_rssm.cli.main import main
from planet_rssm.deploy import FORMATS, DecisionGraph, export_agent
from planet_rssm.deploy.checking import compare
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import untrained_model

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "decide.cpp"
PLANNERS = ("cem", "icem", "mppi", "shooting", "actor")
LATENTS = ("gaussian", "categorical")
ACTIONS = {"numbers": (), "choices": (2, 3)}  # groups of choices
CLOSE = 1e-4
# planner, latent, actions: each planner in each format, between them with all of the others
PYTORCH = [
    ("cem", "gaussian", "numbers"),
    ("icem", "categorical", "numbers"),
    ("mppi", "gaussian", "choices"),
    ("actor", "categorical", "choices"),
]
ONNX = [
    ("cem", "categorical", "choices"),
    ("icem", "gaussian", "choices"),
    ("mppi", "categorical", "numbers"),
    ("actor", "gaussian", "numbers"),
]
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime, extra `onnx`",
)


def spec_of(groups=()):
    return EnvSpec(
        "gym/x-v0",
        {"image": ((32, 32, 3), "uint8"), "pose": ((3,), "float32")},
        sum(groups) or 2,
        1,
        0.1,
        50,
        "own",
        "test 1",
        discrete=bool(groups),
        groups=groups,
        terminates=True,
    )


def agent_of(planner, latent="gaussian", *more, rounds=2, horizon=2, groups=()):
    """An untrained agent of few numbers."""
    own = {
        "actor": ["behavior=v2"],
        "shooting": ["planner.candidates=16"],
        "mppi": ["planner.candidates=16", f"planner.iterations={rounds}"],
    }
    search = ["planner.candidates=16", f"planner.iterations={rounds}", "planner.elites=4"]
    settings = config.load(
        "quickstart",
        [
            f"planner.name={planner}",
            f"rssm.latent={latent}",
            "rssm.deter=16",
            "rssm.stoch=4",
            f"planner.horizon={horizon}",
            "env.observe=both",
            "env.size=32",
            *own.get(planner, search),
            *(["behavior=v2"] if groups else []),  # choices have no gradient
            *more,
        ],
    )
    spec = spec_of(groups)
    model = untrained_model(settings, spec)
    behavior = untrained_behavior(settings, model)
    device = torch.device("cpu")
    return Agent.build(settings, spec, model, behavior, device=device, precision="float32")


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("planner", PLANNERS)
def test_the_graph_itself_decides_as_the_agent(planner, latent, actions, tmp_path, monkeypatch):
    agent = agent_of(planner, latent, groups=ACTIONS[actions])
    graph = DecisionGraph(agent)

    def plain(path, graph, kind):
        def run(inputs):
            with torch.no_grad():
                outputs = graph(*inputs.values())
            return dict(zip(graph.output_names, (part.numpy() for part in outputs), strict=True))

        return run

    monkeypatch.setattr("planet_rssm.deploy.checking.runner", plain)
    worst = compare(tmp_path, "none", graph, agent)
    assert worst["action"] < CLOSE
    assert worst["belief"] < CLOSE


def exported(path, planner, latent, actions, horizon=1):
    """Write the smallest search of its kind; return the graph, and how far its decisions are."""
    agent = agent_of(planner, latent, rounds=1, horizon=horizon, groups=ACTIONS[actions])
    kind = path.suffix[1:]
    graph = export_agent(agent, path, kind)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return graph, max(compare(path, kind, graph, agent).values())


@pytest.mark.parametrize(("planner", "latent", "actions"), PYTORCH)
def test_pytorchs_program_decides_as_the_agent(planner, latent, actions, tmp_path):
    _, worst = exported(tmp_path / "out.pt2", planner, latent, actions)
    assert worst < CLOSE


@needs_onnx
@pytest.mark.parametrize(("planner", "latent", "actions"), ONNX)
def test_onnx_runtime_decides_as_the_agent_and_its_file_says_what_goes_in(
    planner, latent, actions, tmp_path
):
    import onnxruntime

    path = tmp_path / "out.onnx"
    horizon = 2 if planner == "icem" else 1  # whose noise is of several steps
    graph, worst = exported(path, planner, latent, actions, horizon)
    assert worst < CLOSE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["planet_rssm"])
    assert list(described["inputs"]) == graph.input_names
    assert described["control_interval"] == spec_of().control_interval
    assert described["action_groups"] == list(ACTIONS[actions])


def test_a_warm_start_is_in_the_carry():
    warm = DecisionGraph(agent_of("icem"))
    assert warm.input_names[4:9] == ["deter", "stoch", "mean", "elites", "known"]
    assert warm.output_names[-3:] == ["next_mean", "next_elites", "next_known"]
    assert "mean" not in DecisionGraph(agent_of("cem")).input_names


def test_a_search_that_the_actor_proposes_to_is_refused():
    agent = agent_of("cem", "gaussian", "behavior=v2", "planner.proposals=actor")
    with pytest.raises(PlanetError, match="planner.proposals = 'actor': is not exported"):
        DecisionGraph(agent)


@needs_onnx
def test_an_operator_that_onnx_lacks_is_one_plain_line(tmp_path):
    agent = agent_of("actor", "gaussian", "planner.act_by=draw")
    with pytest.raises(PlanetError, match="ndtri.*; give --to pt2, .*act_by=mean") as error:
        export_agent(agent, tmp_path / "out.onnx", "onnx")
    assert str(error.value).isprintable()
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_the_command_compares_and_times(tmp_path, capsys):
    out = tmp_path / "actor.onnx"
    run = "pretrained:cartpole-swingup"
    main(["export", run, str(out), "--to", "onnx", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] == out.stat().st_size
    assert result["difference"]["action"] < CLOSE
    assert result["latency_ms"]["onnx"] > 0


@needs_onnx
def test_the_example_in_cpp_decides(tmp_path):
    """Where there is a compiler, ONNX Runtime's headers ($ORT_INCLUDE) and its library."""
    import os

    import onnxruntime

    compiler = shutil.which("g++") or shutil.which("clang++")
    headers = [
        Path(os.environ.get("ORT_INCLUDE", "/usr/include/onnxruntime")),
        Path("/usr/include"),
    ]
    include = next((at for at in headers if (at / "onnxruntime_c_api.h").is_file()), None)
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next(iter(sorted(folder.glob("libonnxruntime.so*"))), None)
    if not compiler or include is None or library is None:
        pytest.skip(f"needs a compiler ({compiler}), headers ({include}) and library ({library})")
    program = tmp_path / "decide"
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)  # the wheel has it by another name
    subprocess.run(
        [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", EXAMPLE, "-I", include]
        + [library, f"-Wl,-rpath,{tmp_path}", "-o", program],
        check=True,
    )
    export_agent(agent_of("actor"), tmp_path / "out.onnx", "onnx")
    command = [program, tmp_path / "out.onnx", "3"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert (np.abs([[float(word) for word in line[3:]] for line in lines]) <= 1).all()


def test_the_example_in_cpp_is_short():
    assert len(EXAMPLE.read_text().splitlines()) < 150


def test_the_command_knows_every_format():
    from planet_rssm.cli import export

    assert set(export.FORMATS) == set(FORMATS)
