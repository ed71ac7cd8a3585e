"""A run that learns behaviour: its actor collects, it resumes bit for bit from its checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from planet_rssm import Agent, config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.cli.main import main
from planet_rssm.config import PlannerSettings
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.registry import resolve
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.metrics import repeatable_lines as lines
from planet_rssm.training.start import train
from planet_rssm.training.trainer import Trainer

# 2 rounds of 1 episode after 2 random ones; 10 agent steps an episode
TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.action_repeat=10
    env.time_limit=100
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16
    model.vector_units=16 model.reward_units=16 behavior=v3 behavior.units=16 behavior.horizon=3
    behavior.critic_outscale=1
    planner.name=actor planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
    train.env_steps=400 train.seed_episodes=2 train.updates=3 train.batch_size=4
    train.batch_length=4 train.exploration_noise=0 train.test_every=2 device=cpu
""".split()


def new_run(folder: Path, *overrides: str) -> Run:
    settings = config.load("planet", [*TINY, *overrides])
    return Run.create(folder, settings.model_copy(update={"env": resolve(settings.env)}), "cpu")


class StopAfter(Display):
    """Asks the trainer to stop after so many updates of a round."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.left = updates

    def advance(self, **metrics: object) -> None:
        self.left -= "loss" in metrics
        if self.left == 0:
            self.trainer.guard.asked = True


@pytest.fixture(scope="module")
def finished(at_hand: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(new_run(folder), Display())
    return folder


def test_metrics_report_what_behaviour_does(finished: Path) -> None:
    learned = [line for line in lines(finished) if line["phase"] == "train"][-1]
    names = (
        "return_imagined return_replayed value value_error advantage_scale entropy clipped_actions"
    ).split()
    assert {f"behavior/{name}" for name in names} <= learned.keys()
    assert {
        "loss/actor",
        "loss/critic",
        "loss/replay_value",
        "grad_norm/actor",
        "grad_norm/critic",
    } <= learned.keys()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(finished: Path, tmp_path: Path) -> None:
    display = StopAfter(5)
    with pytest.raises(Interrupted), Trainer.open(new_run(tmp_path), display) as trainer:
        display.trainer = trainer
        trainer.run()
    assert len(lines(tmp_path)) < len(lines(finished))
    train(Run.open(tmp_path), Display())
    assert lines(tmp_path) == lines(finished)
    ours, theirs = (checkpoints.load(location.find(folder)) for folder in (tmp_path, finished))
    for group in ("model", "optimizer", "behavior"):
        tensors = getattr(theirs, group)
        assert tensors and all(
            torch.equal(getattr(ours, group)[key], tensor) for key, tensor in tensors.items()
        )
    assert any(key.startswith("behavior.actor.") for key in theirs.optimizer)
    assert {"bounds", "critic.slow.0.weight"} <= theirs.behavior.keys()


def test_one_argument_swaps_actor_and_planners(finished: Path) -> None:
    blank = {
        key: torch.zeros(1, *shape)
        for key, (shape, _) in checkpoints.load(location.find(finished)).spec.observation.items()
    }
    small = {"candidates": 8, "iterations": 1, "elites": 2, "horizon": 3}
    for planner in (
        None,
        PlannerSettings(name="cem", **small),
        PlannerSettings(name="cem", proposals="actor", **small),
    ):
        agent = Agent.load(finished, device="cpu", planner=planner)
        plan, _ = agent.act(
            agent.initial(1), blank, torch.zeros(1, 1), torch.ones(1, dtype=torch.bool)
        )
        assert plan.sequence.shape == (1, 1 if planner is None else 3, 1)


def test_plan_takes_the_actor_and_the_mix(
    finished: Path, capfd: pytest.CaptureFixture, monkeypatch
) -> None:
    monkeypatch.setattr("planet_rssm.evaluation.plan_run.baselines", lambda *_: {})
    mixed = [
        "--planner",
        "cem",
        "-s",
        "planner.proposals=actor",
        "-s",
        "planner.terminal_value=critic",
    ]
    for options, name in ((["--planner", "actor"], "actor"), (mixed, "cem+actor+critic")):
        main(["plan", str(finished), "--episodes", "1", "--json", *options])
        result = json.loads(capfd.readouterr().out)
        assert result["planner"] == name
        assert result["planner_settings"]["proposals"] == ("none" if name == "actor" else "actor")


def test_a_run_without_an_actor_is_refused_one(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    run = new_run(tmp_path, "behavior=none", "planner.name=cem", "train.env_steps=100")
    train(run, Display())
    assert not checkpoints.load(location.find(tmp_path)).behavior
    capfd.readouterr()
    with pytest.raises(SystemExit):
        main(["plan", str(tmp_path), "--planner", "actor"])
    printed = capfd.readouterr().err
    assert (
        printed.count("\n") == 1
        and "this run learns no actor and critic; train one that does: planet train" in printed
    )
    with pytest.raises(PlanetError, match="planner.name = 'actor': this run learns no actor"):
        Agent.load(tmp_path, device="cpu", planner=PlannerSettings(name="actor"))
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                str(tmp_path / "config.yaml"),
                "--resume",
                "--run-dir",
                str(tmp_path),
                "-s",
                "behavior=v3",
            ]
        )
    printed = capfd.readouterr().err
    assert (
        printed.count("\n") == 1
        and f"behavior.name = v3: the run in {tmp_path} has none; a resumed run may" in printed
    )
    assert printed.endswith("; to have v3: another --run-dir, without --resume\n")


def test_the_dynamics_gradient_is_refused_for_choices_before_a_run_is_made(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "cartpole-vectors", "-s", "behavior=v1", "--run-dir", str(tmp_path / "run")])
    assert "which have no gradient; train with -s behavior=v3" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_is_refused_for_episodes_of_choices_too(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    spec = EnvSpec(
        "gym/CartPole-v1",
        {"vector": ((4,), "float32")},
        2,
        1,
        0.02,
        500,
        "none",
        "fake 0",
        discrete=True,
    )
    info = {"env": spec.to_json(), "seed": 0, "env_steps": 4}
    action = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    reward = np.ones(4, np.float32)
    replay = Replay(tmp_path / "set", 100)
    replay.add(
        Episode.from_transitions(
            {"vector": np.zeros((5, 4), np.float32)}, action, reward, False, True, info
        ),
        0,
    )
    replay.commit()
    words = [
        "--offline",
        "--data",
        str(tmp_path / "set"),
        "-s",
        "train.batch_length=2",
        "-s",
        "behavior=v1",
    ]
    with pytest.raises(SystemExit):
        main(["train", "cartpole-vectors", *words, "--run-dir", str(tmp_path / "run")])
    assert "which have no gradient; train with -s behavior=v3" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
