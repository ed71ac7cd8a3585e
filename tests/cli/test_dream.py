"""`planet dream`: what it prints, films and refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.cli.main import main
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location

TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=50 model.depth=2
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16 model.vector_units=8
    planner.candidates=4 planner.iterations=1 planner.elites=2 planner.horizon=2 device=cpu
""".split()
ROWS = ("error", "copy_last", "mean_frame", "shuffled_actions")


def call(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*map(str, words)])
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("dream") / "run", "planet", *TINY)


@pytest.fixture(scope="module")
def sets(run, tmp_path_factory) -> Path:
    """Folders of episodes: some that fit the run, and some that do not."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    spec = checkpoints.load(location.find(run)).spec
    other = EnvSpec.from_json(spec.to_json() | {"id": "dmc/walker-walk"})
    large = EnvSpec.from_json(spec.to_json() | {"observation": {"image": ((64, 64, 3), "uint8")}})
    for name, kind, count, steps in (
        ("good", spec, 4, 20),
        ("short", spec, 2, 3),
        ("one", spec, 1, 20),
        ("other", other, 2, 20),
        ("large", large, 2, 20),
    ):
        replay = Replay(folder / name, 10_000)
        for index in range(count):
            replay.add(random_episode(kind, steps, rng), index)
        replay.commit()
    (folder / "empty").mkdir()
    return folder


def random_episode(spec: EnvSpec, steps: int, rng: np.random.Generator) -> Episode:
    image = rng.integers(0, 256, (steps + 1, *spec.observation["image"][0]), np.uint8)
    action = rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
    info = {"env": spec.to_json(), "seed": 0, "env_steps": 50 * steps}
    return Episode.from_transitions({"image": image}, action, action[:, 0] ** 2, False, True, info)


def test_episodes_are_played_where_no_data_is_given(run, capsys, caplog):
    words = ["dream", run, "--episodes", "3", "--json", "--video"]
    assert call(*words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["horizons"] == [1, 5, 15]  # 21 frames of an episode, 5 of them context
    assert (
        "horizon 45 is left out: with 5 frames of context no episode is longer than 21 frames"
        in caplog.text
    )
    for name in (*(f"image_{row}" for row in ROWS), "reward_error", "reward_mean", "starts"):
        assert len(result[name]) == 3
    assert result["vector_error"] is None
    assert result["source"].startswith(
        "2 episodes by the run's agent and 1 of random actions, played now"
    )
    assert (result["held_out"], result["episodes"], result["frames"]) == (True, 3, 63)
    assert (result["task"], result["checkpoint"], result["context"]) == (
        "dmc/cartpole-swingup",
        "last",
        5,
    )
    film = Path(result["video"])
    assert film.parent == run / "videos" and film.stat().st_size > 0
    assert call(*words[:-1]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == result | {"video": None}


def test_a_folder_of_episodes_and_the_runs_own_are_told_apart(run, sets, tmp_path, capsys, caplog):
    assert (
        call("dream", run, "--data", sets / "good", "--horizon", 3, "--context", 2, "--json") == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert not caplog.text
    assert (result["horizons"], result["context"], result["held_out"]) == ([3], 2, True)
    assert result["source"] == f"4 of 4 episodes in {sets / 'good'}"
    own = shutil.copytree(run, tmp_path / "run")
    shutil.copytree(sets / "good", own / "episodes")
    assert (
        call("dream", own, "--data", own / "episodes", "--episodes", 2, "--horizon", 3, "--json")
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert (result["held_out"], result["episodes"]) == (False, 2)
    assert "the run has learned from these episodes" in caplog.text


def test_people_get_a_table(run, sets, capsys):
    assert (
        call("dream", run, "--data", sets / "good", "--horizon", 1, "--horizon", 2, "--samples", 2)
        == 0
    )
    shown = capsys.readouterr().out
    for word in (
        "the mean frame",
        "the last observed frame",
        "other actions",
        "the mean reward",
        "4 of 4 episodes",
    ):
        assert word in shown


def test_a_run_of_vectors_is_measured_but_not_filmed(untrained_run, tmp_path, capsys):
    run = untrained_run(
        tmp_path / "run",
        "planet",
        *TINY,
        "env.id=gym/Pendulum-v1",
        "env.observe=vectors",
        "env.action_repeat=10",
        "env.renderer=auto",
    )
    assert call("dream", run, "--episodes", "2", "--horizon", "4", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["image_error"] is None
    assert all(len(result[f"vector_{row}"]) == 1 for row in ROWS)
    assert call("dream", run, "--video") == 1
    assert "--video: the run in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["missing"], "missing: not a run folder"),
        (["RUN", "--checkpoint", "12"], "no checkpoint '12'; it has 1"),
        (["RUN", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (["RUN", "--data", "missing"], "--data missing: no such folder"),
        (["RUN", "--data", "empty"], "holds no episode; give a folder that `planet collect` wrote"),
        (
            ["RUN", "--data", "other"],
            "its id is dmc/walker-walk, the run was trained with dmc/cartpole-swingup",
        ),
        (
            ["RUN", "--data", "large"],
            "its observation is {'image': ((64, 64, 3), 'uint8')}, the run was trained with",
        ),
        (
            ["RUN", "--data", "short"],
            "episodes of at most 4 frames: too short for a context of 5 and a horizon of 1",
        ),
        (["RUN", "--data", "one"], "1 episode(s): at least 2 are needed"),
        (["RUN", "--horizon", "0"], "'--horizon': 0 is not in the range x>=1"),
        (["RUN", "--episodes", "1"], "'--episodes': 1 is not in the range x>=2"),
    ],
)
def test_a_mistake_is_one_line(run, sets, words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"RUN": run} | {path.name: path for path in sets.iterdir()}
    assert call("dream", *(known.get(word, word) for word in words)) != 0
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.startswith("planet: ")
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_is_one_line(run, tmp_path, capsys):
    damaged = shutil.copytree(run, tmp_path / "run")
    path = location.path_of(damaged, 1)
    path.write_bytes(path.read_bytes()[:1000])
    assert call("dream", damaged) == 1
    said = capsys.readouterr().err
    assert "damaged or not a checkpoint" in said and len(said.strip().splitlines()) == 1
