"""`planet bench train` at tiny sizes: what is measured, not how fast this machine is."""

import json

import pytest
import torch

from planet_rssm import config
from planet_rssm.bench import train
from planet_rssm.cli.main import main
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.training.random_chunks import random_chunks

TINY = """
    env.id=dmc/cartpole-swingup env.size=32 model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16
    model.reward_units=16 model.vector_units=16 train.batch_size=2 train.batch_length=4
""".split()
OPTIONS = [word for setting in TINY for word in ("-s", setting)]
SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((32, 32, 3), "uint8")},
    1,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)
CPU = torch.device("cpu")
PRESETS = [("planet", ()), ("dreamer-v3", ("rssm.classes=4", "rssm.blocks=2"))]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SECONDS", 0.0)
    monkeypatch.setattr("planet_rssm.base.device.GEMM_SIDE", {"cpu": 128})
    monkeypatch.setattr("planet_rssm.precision.relative_time", lambda *_: 0.5)


def test_both_presets_in_both_precisions_by_default(capsys):
    wide = [*OPTIONS, "-s", "rssm.classes=4", "--repeats", "1", "--device", "cpu"]
    assert call("bench", "train", *wide, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["machine"]["gemm_gflops"]) == {"float32", "bfloat16"}
    named = [(case["preset"], case["precision"]) for case in result["cases"]]
    assert named == [
        (preset, name) for preset in ("planet", "dreamer-v3") for name in ("float32", "bfloat16")
    ]
    for case in result["cases"]:
        assert case["batch"] == [2, 4]
        assert case["speedup"] == pytest.approx(case["reference_ms"] / case["ms"], rel=0.02)
        assert case["images_per_s"] == pytest.approx(8000 / case["ms"], rel=0.02)
        rate = result["machine"]["gemm_gflops"][case["precision"]]
        assert case["gemm_share"] == pytest.approx(
            case["gflop"] / rate / case["ms"] * 1000, rel=0.1, abs=1e-3
        )
        assert case["peak_mib"] is None or case["peak_mib"] >= 0
    for first, second in (result["cases"][:2], result["cases"][2:]):
        assert first["gflop"] == second["gflop"]
        assert first["reference_ms"] == second["reference_ms"]


def test_a_precision_that_is_slow_here_is_timed_only_if_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("planet_rssm.precision.relative_time", lambda *_: 8.0)
    words = [
        "bench",
        "train",
        "quickstart",
        *OPTIONS,
        "--repeats",
        "1",
        "--device",
        "cpu",
        "--json",
    ]
    assert call(*words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [case["precision"] for case in result["cases"]] == ["float32"]
    assert result["machine"]["auto_precision"] == "float32"
    assert result["machine"]["bfloat16_time"] == 8.0
    assert call(*words, "--precision", "bfloat16") == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["precision"] == "bfloat16"


def test_people_get_a_table_of_the_preset_that_they_name(capsys):
    assert (
        call("bench", "train", "quickstart", *OPTIONS, "--repeats", "2", "--precision", "bfloat16")
        == 0
    )
    shown = capsys.readouterr().out
    assert (
        "quickstart" in shown
        and "2x4" in shown
        and "bfloat16" in shown
        and "matrix products" in shown
    )
    assert "planet " not in shown


@pytest.mark.parametrize(("preset", "overrides"), PRESETS)
def test_the_reference_learns_what_ours_learns(preset, overrides):
    """Only layout and optimiser code differ: after two updates the weights are equal, rounded."""
    settings = config.load(preset, [*TINY, *overrides])
    chunks = random_chunks(SPEC, 2, 4)
    ours, plain = train._ours(settings, SPEC, CPU), train._plain(settings, SPEC, CPU)
    for index in range(2):
        a, b = (learner.update(chunks, index) for learner in (ours, plain))
        assert a["loss/total"] == pytest.approx(b["loss/total"], rel=1e-4)
    assert any(p.dim() == 4 and not p.is_contiguous() for p in ours.model.parameters())
    assert all(p.is_contiguous() for p in plain.model.parameters())
    assert not any(group.get("fused") for group in plain.optimizer.param_groups)


def test_flops_are_those_of_the_dense_layers_and_convolutions():
    """Forward, and backward to weights and inputs: three times the forward, less first inputs."""
    settings = config.load("planet", [*TINY, "model.decode_fraction=0.5"])
    few, many = (
        train._flops(train._ours(settings, SPEC, CPU), random_chunks(SPEC, batch, 4))
        for batch in (1, 2)
    )
    assert many == 2 * few
    model = train._ours(settings, SPEC, CPU).model
    dense = sum(
        p.numel() for p in (*model.rssm.parameters(), *model.reward.parameters()) if p.dim() == 2
    )
    assert few > 2 * 3 * 0.9 * 4 * dense  # and more: the convolutions


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "plante"], "planet: unknown preset 'plante'; did you mean 'planet'?"),
        (
            ["train", "planet", "-s", "env.size=13"],
            "planet: env.size = 13: must be at least",
        ),
        (
            ["train", "planet", "--precision", "float8"],
            "'float8' is not one of 'float32', 'bfloat16', 'float16'",
        ),
        (["train", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_a_mistake_is_one_line(words, line, capsys):
    assert call("bench", *words) != 0
    said = capsys.readouterr()
    assert line in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out


def test_bench_alone_says_what_there_is(capsys):
    assert call("bench") == 0
    assert "Updates of the world model" in capsys.readouterr().out
