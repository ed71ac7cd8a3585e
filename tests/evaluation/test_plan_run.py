"""What `planet plan` returns, also of a folder that is read-only, damaged or from elsewhere."""

import dataclasses
import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.plan import _print
from planet_rssm.envs.pool import EnvPool
from planet_rssm.evaluation import baselines
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.evaluation.film import VIDEO_SIZE
from planet_rssm.evaluation.plan_run import plan_run
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.world_model import untrained_model

TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=10
    env.time_limit=100
    model.depth=2 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.reward_units=8
    planner.candidates=4 planner.iterations=1 planner.elites=2
    planner.horizon=2
""".split()


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    torch.set_num_threads(1)
    settings = config.load("planet", TINY)
    with EnvPool(settings.env, 1) as pool:
        spec = pool.spec
    return Checkpoint(
        settings, spec, {"env_steps": 7}, untrained_model(settings, spec).state_dict(), {}
    )


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory) -> tuple[Path, dict]:
    """Return a run and the result of planning in it; the baselines are kept in it from then on."""
    run = written(trained, tmp_path_factory.mktemp("run"))
    return run, planned(run, 1, device="cpu")


@pytest.fixture
def run(measured, tmp_path) -> Path:
    return shutil.copytree(measured[0], tmp_path / "run")


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Measure no baseline in earnest; return the list of those asked for."""
    asked = []

    def simple(*_):
        asked.append("simple")
        return {name: [0.0] for name in baselines.PARTS["blind"]}

    monkeypatch.setattr(baselines, "simple_baselines", simple)
    monkeypatch.setattr(baselines, "untrained", lambda *_: [1.0])
    return asked


def planned(run: Path, episodes: int, **options) -> dict:
    return plan_run(run, episodes, **options).to_json()


def written(trained: Checkpoint, folder: Path) -> Path:
    (folder / location.FOLDER).mkdir()
    for name in (7, location.BEST):
        checkpoints.save(trained, location.path_of(folder, name))
    return folder


def test_an_episode_meets_the_same_noise_in_plan_and_eval_whatever_is_played_beside_it(
    trained, tmp_path, quick
):
    drawn = dataclasses.replace(
        trained, settings=config.override(trained.settings, ["rssm.filter_by=sample"])
    )
    run = written(drawn, tmp_path)
    (alone,) = planned(run, 1, device="cpu")["episodes"]
    many = planned(run, 5, device="cpu")["episodes"]
    (evaluated,) = evaluate([str(run)], seeds=[1000, 1004], device="cpu").to_json()["results"]
    assert many[0] == pytest.approx(alone, rel=1e-3)
    assert evaluated["episodes"][0]["return"] == pytest.approx(many[0]["return"], rel=1e-3)
    assert evaluated["episodes"][1]["return"] == pytest.approx(many[4]["return"], rel=1e-3)


def test_the_result_names_what_was_measured(measured, trained):
    result = measured[1]
    assert set(result) >= {
        "task",
        "planner",
        "episodes",
        "return",
        "baselines",
        "latency_ms",
        "video",
    }
    pixels = {"observe": "pixels", "renderer": "raycast", "size": 32}
    assert result["observation"] == {**pixels, "simulator": trained.spec.simulator}
    assert (result["checkpoint"], result["env_steps"], result["video"]) == ("last", 7, None)
    json.dumps(result)


@pytest.mark.parametrize(("asked", "named"), [("best", "best"), ("7", 7)])
def test_the_best_checkpoint_is_labelled_as_selected(run, asked, named, capsys):
    result = planned(run, 1, checkpoint=asked, device="cpu")
    assert (result["checkpoint"], result["env_steps"]) == (named, 7)
    _print(result, Console(width=200))
    label = "best checkpoint (selected on test episodes)"
    assert (label in " ".join(capsys.readouterr().out.split())) == (named == "best")


def test_a_folder_that_cannot_be_written_costs_two_warnings(run, quick, caplog):
    (run / baselines.CACHE).unlink()
    (run / baselines.CACHE).mkdir()  # in the way: permissions would not stop root

    def film(frames, fps):
        assert frames[0].shape == (VIDEO_SIZE, VIDEO_SIZE, 3)
        assert fps == pytest.approx(10)
        raise OSError(errno.EROFS, "Read-only file system", "plan.mp4")

    result = planned(run, 1, device="cpu", film=film)
    assert result["video"] is None
    assert set(result["baselines"]) == {"random", "zero", "constant", "untrained"}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0].startswith("baselines not kept in")
    assert said[1] == "video not written ([Errno 30] Read-only file system: 'plan.mp4')"
    assert all("\n" not in line for line in said)


def test_baselines_are_measured_once_and_again_after_damage(measured, run, trained, quick):
    def again() -> baselines.Returns:
        return baselines.baselines(run, trained.settings, trained.spec, 1, torch.device("cpu"))

    assert {name: returns[0] for name, returns in again().items()} == measured[1]["baselines"]
    assert not quick
    assert baselines.kept_baselines(run) == again()
    assert baselines.kept_baselines(run / "missing") == {}
    cache = run / baselines.CACHE
    partial = json.loads(cache.read_text())
    del partial["blind"]["returns"]["constant"]
    changed = cache.read_text().replace('"random": [', '"random": [1').encode()  # a digit more
    deep = b"[" * 100_000
    all_damage = [b"", b"[1]", b'{"key"', b"\xff\xfe", json.dumps(partial).encode(), changed, deep]
    for number, damage in enumerate(all_damage, start=1):
        cache.write_bytes(damage)
        assert again() == again()
        assert len(quick) == number, damage


def test_another_planner_measures_only_the_untrained_again(measured, run, trained, quick):
    other = trained.acting(["planner.candidates=5", "planner.elites=2"])
    compared = baselines.baselines(run, other.settings, trained.spec, 1, torch.device("cpu"))
    assert not quick and compared["untrained"] == [1.0]
    assert compared["random"][0] == measured[1]["baselines"]["random"]


def test_another_mujoco_is_a_warning_and_measures_the_baselines_again(run, trained, quick, caplog):
    cache = run / baselines.CACHE
    old = json.loads(cache.read_text())
    old["blind"]["key"]["simulator"] = "mujoco 1.0"
    del old["crc32"]  # as files were before there was one
    cache.write_text(json.dumps(old))
    elder = dataclasses.replace(
        trained, spec=dataclasses.replace(trained.spec, simulator="mujoco 1.0")
    )
    checkpoints.save(elder, location.path_of(run, 7))
    result = planned(run, 1, device="cpu")
    assert quick == ["simple"]
    assert result["observation"]["simulator"] == trained.spec.simulator
    [warning] = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert warning.startswith(f"trained with mujoco 1.0, planning with {trained.spec.simulator}: ")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"renderer": "egl"}, "renderer = egl, here it is raycast"),
        ({"action_repeat": 8}, "action_repeat = 8, here it is 10"),
        (
            {"observation": {"image": ((64, 64, 3), "uint8")}},
            "observation = .*64.*, here it is .*32",
        ),
    ],
)
def test_another_environment_is_refused_in_one_line(trained, tmp_path, change, line):
    other = dataclasses.replace(trained, spec=dataclasses.replace(trained.spec, **change))
    with pytest.raises(
        PlanetError, match=f"^dmc/cartpole-swingup: the run was trained with {line}"
    ) as caught:
        planned(written(other, tmp_path), 1, device="cpu")
    assert "\n" not in str(caught.value)
