"""What `precision: auto` stands for: by time, kept by a run, free for whoever plans."""

import logging

import pytest
import torch

from planet_rssm import config, precision
from planet_rssm.base.errors import PlanetError
from planet_rssm.precision import (
    Product,
    collecting_precision,
    planning_precision,
    relative_time,
    training_precision,
)
from planet_rssm.runs.run import Run

CPU = torch.device("cpu")


@pytest.fixture
def bfloat16_takes(monkeypatch):
    """Pretend that bfloat16 takes so many times as long; returns the products asked for."""

    def pretend(times: float) -> list[Product]:
        asked = []
        monkeypatch.setattr(
            precision, "relative_time", lambda name, device, product: asked.append(product) or times
        )
        precision._warn.cache_clear()
        return asked

    return pretend


@pytest.mark.parametrize(
    ("times", "chosen"), [(0.4, "bfloat16"), (0.95, "float32"), (9.0, "float32")]
)
def test_auto_is_bfloat16_only_where_it_is_clearly_faster(times, chosen, bfloat16_takes):
    bfloat16_takes(times)
    settings = config.load("quickstart")
    assert settings.train.precision == settings.planner.precision == "auto"
    assert training_precision(settings, CPU) == chosen
    assert planning_precision(settings, CPU) == chosen


def test_the_product_is_of_the_models_own_size(bfloat16_takes):
    asked = bfloat16_takes(1.0)
    settings = config.load("quickstart")
    training_precision(settings, CPU), planning_precision(settings, CPU)
    assert asked == [Product(32 * 16, 200, 600), Product(100, 200, 600)]


def test_every_preset_leaves_the_choice_to_the_machine():
    for name in config.presets():
        settings = config.load(name)
        assert (settings.train.precision, settings.planner.precision) == ("auto", "auto"), name


def test_a_run_collects_in_the_precision_that_it_learns_in(bfloat16_takes):
    bfloat16_takes(0.4)
    settings = config.load("quickstart", ["train.precision=float32"])
    assert collecting_precision(settings, CPU) == "float32"
    assert planning_precision(settings, CPU) == "bfloat16"
    settings = config.load("quickstart", ["train.precision=float32", "planner.precision=bfloat16"])
    assert collecting_precision(settings, CPU) == "bfloat16"


def test_a_slow_precision_that_was_asked_for_is_kept_with_one_warning(bfloat16_takes, caplog):
    bfloat16_takes(9.04)
    settings = config.load("quickstart", ["train.precision=bfloat16", "planner.precision=bfloat16"])
    with caplog.at_level(logging.WARNING, "planet_rssm"):
        assert [training_precision(settings, CPU) for _ in range(2)] == ["bfloat16"] * 2
        assert planning_precision(settings, CPU) == "bfloat16"
    assert [record.getMessage() for record in caplog.records] == [
        f"{key} = bfloat16: its products take 9.0 times as long as float32's on this machine; "
        f"set {key}=auto"
        for key in ("train.precision", "planner.precision")
    ]


def test_the_time_is_measured_and_kept(monkeypatch):
    product = Product(64, 64, 64)
    times = relative_time("bfloat16", CPU, product)
    assert 0 < times < 1000
    monkeypatch.setattr(precision, "_seconds", lambda *_: pytest.fail("timed again"))
    assert relative_time("bfloat16", CPU, product) == times


def test_a_race_that_is_not_close_ends_early(monkeypatch):
    calls = []

    def seconds(device, pair):
        calls.append(pair[0].dtype)
        return 0.001 if pair[0].dtype == torch.float32 else 0.5

    monkeypatch.setattr(precision, "_seconds", seconds)
    relative_time.cache_clear()
    assert relative_time("bfloat16", CPU, Product(8, 8, 8)) == 500
    assert calls.count(torch.bfloat16) == 1 + precision.TRIALS
    relative_time.cache_clear()


@pytest.mark.parametrize("slow", [1, precision.TRIALS])
def test_calls_while_another_program_has_the_core_say_nothing(monkeypatch, slow):
    calls = []

    def seconds(device, pair):
        calls.append(pair[0].dtype)
        if pair[0].dtype == torch.float32:
            return 0.001
        return 0.05 if calls.count(torch.bfloat16) <= slow else 0.0005

    monkeypatch.setattr(precision, "_seconds", seconds)
    relative_time.cache_clear()
    assert relative_time("bfloat16", CPU, Product(8, 8, 8)) == 0.5
    relative_time.cache_clear()


def test_a_run_keeps_what_it_chose(tmp_path):
    settings = config.load("quickstart", ["env.action_repeat=8"])
    chosen = settings.train.model_copy(update={"precision": "bfloat16"})
    run = Run.create(tmp_path / "run", settings.model_copy(update={"train": chosen}), "cpu")
    assert Run.open(run.folder, settings).settings.train.precision == "bfloat16"
    other = config.override(settings, ["train.precision=float32"])
    with pytest.raises(PlanetError, match="train.precision = float32: the run in .* has bfloat16"):
        Run.open(run.folder, other)


def test_a_trained_model_says_which_precision_may_change():
    settings = config.load("quickstart")
    with pytest.raises(PlanetError, match="-s train.precision=float32: .*; set planner.precision"):
        config.with_planner(settings, ["train.precision=float32"])
    assert (
        config.with_planner(settings, ["planner.precision=float32"]).planner.precision == "float32"
    )


def test_devices_of_other_kinds_stay_with_float32():
    assert relative_time("bfloat16", torch.device("meta"), Product(8, 8, 8)) == float("inf")
