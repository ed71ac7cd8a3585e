"""`planet bench plan` at tiny sizes: what is measured, not how fast this machine is."""

import dataclasses
import json

import pytest
import torch
from rich.console import Console

from planet_rssm.base.device import describe
from planet_rssm.bench import plan as bench
from planet_rssm.bench import plan_value
from planet_rssm.cli import bench_plan
from planet_rssm.cli.main import main
from planet_rssm.config import PlannerSettings
from planet_rssm.precision import summary
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint

TINY = ["rssm.deter=16", "rssm.stoch=4", "rssm.classes=4", "rssm.hidden=8", "model.reward_units=8"]
CEM = PlannerSettings(candidates=20, elites=5, iterations=2, horizon=3)
ICEM = PlannerSettings(name="icem", candidates=60, elites=5, iterations=2, horizon=3)
WAYS = (
    (CEM, "gaussian", 1),
    (CEM, "categorical", 1),
    (ICEM, "gaussian", 4),
    (bench.ACTOR, "gaussian", 4),
)
CASES = tuple(bench.Case(*case) for case in WAYS)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SECONDS", 0.0)
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SIDE", {"cpu": 128})
    monkeypatch.setattr("planet_rssm.precision.relative_time", lambda *_: 0.5)
    monkeypatch.setattr(plan_value, "STATES", 3)
    monkeypatch.setattr(plan_value, "DRAWS", 2)
    monkeypatch.setattr(plan_value, "STEPS", 3)


def test_every_case_is_reported_with_its_rivals_and_its_value(tmp_path):
    (tmp_path / location.FOLDER).mkdir()
    model = bench._untrained("gaussian", TINY)
    settings = bench.config.load("planet", ["env.observe=vectors", *TINY])
    checkpoint = Checkpoint(settings, model.spec, {"env_steps": 5}, dict(model.state_dict()), {})
    checkpoints.save(checkpoint, location.path_of(tmp_path, 5))
    asked = []
    result = bench.bench_plan(
        CASES, runs=[tmp_path], repeats=1, overrides=TINY, device="cpu",
        rivals={"other": lambda model, settings: lambda state: asked.append(settings)},
    )  # fmt: skip
    assert {settings.name for settings in asked} == {"cem"}
    assert set(result.machine["gemm_gflops"]) == {"float32", "bfloat16"}
    keys = [(case.planner, case.latent, case.batch, case.precision) for case in result.cases]
    names = [
        ("cem-20x3x2", "gaussian", 1),
        ("cem-20x3x2", "categorical", 1),
        ("icem-108", "gaussian", 4),
    ]
    names.append(("actor", "gaussian", 4))
    assert keys == [(*name, precision) for name in names for precision in ("float32", "bfloat16")]
    for case in result.cases:
        assert set(case.peers_ms) == ({"plain", "other"} if case.batch == 1 else {"plain"})
        assert case.gflop > 0 or case.ours_ms > 0
        untrained = case.latent == "categorical" or case.planner == "actor"
        assert (case.value_gap is None) == untrained
        if case.precision == "float32" and case.value_gap is not None:
            assert case.value_gap == pytest.approx(0, abs=0.02)


def test_the_plain_loop_finds_what_cem_finds(monkeypatch):
    """Written another way, with noise of its own: it comes to a plan of the same worth."""
    model = bench._untrained("gaussian", [*TINY, "model.reward_outscale=1"])
    settings = PlannerSettings(candidates=200, elites=20, iterations=5, horizon=3)
    state = plan_value.states_of(model, 1)
    ours = plan_value.decider(model, settings, "float32", 1)(state)[0]
    plain = bench.plain_cem(model, settings)(state)
    assert plain.shape == (1, 6)
    assert (plain - ours.action).abs().mean() < 0.5


def test_flops_are_those_of_the_products():
    model = bench._untrained("gaussian", TINY)
    few, many = (
        bench._flops(model, bench.Case(CEM, "gaussian", batch), "float32") for batch in (1, 2)
    )
    assert many == 2 * few
    rssm = model.rssm
    dense = sum(
        p.numel()
        for part in (rssm.core, rssm.prior_net, model.reward)
        for p in part.parameters()
        if p.dim() > 1
    )
    per_step = few / (2 * 20 * 3)  # rounds, candidates, steps
    assert 0.75 * 2 * dense < per_step <= 2 * dense  # the first step's common part is done once


def test_the_gap_of_many_models_is_their_mean():
    timed, rates = {"float32": 1.0, "plain": 2.0}, {"float32": 1.0}
    gaps = [{"float32": 0.1}, {"float32": 0.3}]
    timing = bench._timing(CASES[0], "float32", timed, gaps, rates, 1)
    assert timing.value_gap == pytest.approx(0.2)


def test_without_a_gap_the_reason_is_reported(monkeypatch, capsys):
    """A model whose rewards are all alike, choices, and no model at all."""
    alike, (cem, _, _, actor) = (
        bench._untrained("gaussian", [*TINY, "model.reward_outscale=0"]),
        CASES,
    )
    for parameter in alike.reward.parameters():
        parameter.data.zero_()
    choices = bench._untrained("gaussian", TINY)
    choices.spec = dataclasses.replace(choices.spec, discrete=True)
    assert "no more than random" in bench._gaps([alike], cem, ["float32"])
    assert bench._gaps([choices], actor, ["float32"]) == "the actor that is timed is untrained"
    (gap,) = bench._gaps([choices], cem, ["float32"])
    assert gap["float32"] == pytest.approx(0, abs=0.05)
    timed, gaps = {"float32": 1.0, "plain": 2.0}, bench._gaps([], cem, ["float32"])
    timing = bench._timing(cem, "float32", timed, gaps, {"float32": 1.0}, 1)
    assert timing.value_gap is None
    cpu = torch.device("cpu")
    bench_plan.print_plan(
        bench.BenchResult(describe(cpu, {}) | summary(cpu), [timing]).to_json(), Console(width=120)
    )
    shown = capsys.readouterr().out
    assert (
        " – " in shown.replace("\n", " \n") and "no gap: no run of this latent, see --run" in shown
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--run", "nowhere"], "nowhere: not a run folder"),
        (["--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (["-s", "rssm.detre=3"], "unknown setting 'rssm.detre'; did you mean 'rssm.deter'?"),
        (["--precision", "float8"], "'float8' is not one of"),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "plan", *words])
    assert caught.value.code
    said = capsys.readouterr()
    assert line in said.err and len(said.err.strip().splitlines()) == 1 and not said.out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_people_get_a_table_and_programs_an_object(options, capsys, monkeypatch):
    monkeypatch.setattr(
        bench.bench_plan, "__defaults__", (CASES[:1], *bench.bench_plan.__defaults__[1:])
    )
    words = [word for setting in TINY for word in ("-s", setting)]
    main(["bench", "plan", "--repeats", "1", "--device", "cpu", *words, *options])
    shown = capsys.readouterr().out
    if options:
        assert len(json.loads(shown)["cases"]) == 2
    else:
        assert "cem-20x3x2" in shown and "plain" in shown and "matrix products" in shown
