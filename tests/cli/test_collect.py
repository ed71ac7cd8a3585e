"""`planet collect`: what lies in the folder; equal seeds, equal files; one line for a mistake."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.interrupt import Interrupted
from planet_rssm.base.seeding import Stream, stream_seed
from planet_rssm.cli.main import main
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.training.player import _constant_action, simple_player
from planet_rssm.training.record import write_episodes

TASK = "dmc/cartpole-swingup"
ENV = ["env.size=32", "env.renderer=raycast", "env.action_repeat=5", "env.time_limit=100"]
TINY = f"""
    env.id={TASK} model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3 device=cpu
""".split()
PIXELS = [word for setting in ENV for word in ("-s", setting)]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


def collect(*words: str | Path) -> int:
    return call("collect", *map(str, words))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("collect") / "run", "planet", *TINY, *ENV)


def test_random_episodes_are_a_replay_and_follow_from_the_seed_alone(tmp_path, capsys):
    words = [TASK, "--policy", "random", "--episodes", "3", "--seed", "7", *PIXELS]
    assert collect(*words, "--out", tmp_path / "a", "--envs", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    seeds = [stream_seed(7, Stream.DATA_RESET, index) for index in range(3)]
    assert [episode["seed"] for episode in result["episodes"]] == seeds
    assert result["env_steps"] == 300
    assert result["task"] == TASK
    replay = Replay(tmp_path / "a", 10_000)
    assert [(entry.index, entry.frames) for entry in replay.episodes] == [(0, 21), (1, 21), (2, 21)]
    assert [entry.episode_return for entry in replay.episodes] == [
        e["return"] for e in result["episodes"]
    ]
    assert sorted(contents(tmp_path / "a")) == [
        *(f"{i:06d}.safetensors" for i in range(3)),
        "manifest.json",
    ]
    assert collect(*words, "--out", tmp_path / "b", "--envs", "1") == 0
    shown = capsys.readouterr()
    assert (
        shown.out == f"3 episodes, 300 env_steps, mean return {result['return']['mean']:.1f}, "
        f"in {tmp_path / 'b'}\n"
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_constant_of_choices_names_one_a_group():
    spec = EnvSpec(
        "gym/X-v0",
        {"vector": ((2,), "float32")},
        5,
        1,
        0.1,
        100,
        "none",
        "x",
        discrete=True,
        groups=(3, 2),
    )
    assert _constant_action(spec, [2, 0]).tolist() == [0, 0, 1, 1, 0]
    for numbers, said in (([3, 0], "3,0"), ([1], "1"), ([0.5, 0], "0.5,0")):
        with pytest.raises(
            PlanetError,
            match=f"--policy constant:{said}: in gym/X-v0 it must be 2 choices, .* to 2,1$",
        ):
            _constant_action(spec, numbers)
    with pytest.raises(
        PlanetError, match="--policy constant:7: in gym/X-v0 it must be a choice, 0 to 4"
    ):
        _constant_action(replace(spec, groups=()), [7])


def test_a_constant_holds_every_joint(tmp_path):
    assert (
        collect(
            TASK, "--policy", "constant:-0.5", "--episodes", "1", "--out", tmp_path / "set", *PIXELS
        )
        == 0
    )
    action = Episode.load(tmp_path / "set" / "000000.safetensors").action
    np.testing.assert_array_equal(action[1:], np.full_like(action[1:], -0.5))


def test_a_run_acts_in_its_own_environment_with_noise_on_top(run, tmp_path):
    words = ["cartpole_swingup", "--policy", run, "--episodes", "2", "--device", "cpu"]
    assert collect(*words, "--out", tmp_path / "a", "--noise", "0.3") == 0
    assert collect(*words, "--out", tmp_path / "b", "--noise", "0.3") == 0
    assert collect(*words, "--out", tmp_path / "plain") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    noisy, plain = (Episode.load(tmp_path / name / "000000.safetensors") for name in ("a", "plain"))
    assert EnvSpec.from_json(noisy.info["env"]) == checkpoints.load(location.find(run)).spec
    assert noisy.seed == plain.seed
    assert not np.array_equal(noisy.action, plain.action)


def test_episodes_are_added_to_those_of_another_policy(tmp_path, capsys):
    words = [TASK, *PIXELS, "--out", tmp_path / "set"]
    assert collect(*words, "--policy", "random", "--episodes", "2") == 0
    before = contents(tmp_path / "set")
    assert collect(*words, "--policy", "constant:0.5", "--episodes", "1", "--add") == 0
    after = contents(tmp_path / "set")
    assert sorted(after.keys() - before.keys()) == ["000002.safetensors"]
    assert all(after[name] == data for name, data in before.items() if name != "manifest.json")
    added = Episode.load(tmp_path / "set" / "000002.safetensors")
    assert added.action[1:].tolist() == [[0.5]] * (len(added.action) - 1)
    assert (
        len({Episode.load(tmp_path / "set" / name).seed for name in after if name[0] == "0"}) == 3
    )
    capsys.readouterr()
    assert (
        collect(*words, "-s", "env.size=64", "--policy", "random", "--episodes", "1", "--add") == 1
    )
    line = capsys.readouterr().err
    assert "its episodes have observation" in line and "give another folder" in line
    assert contents(tmp_path / "set") == after


def test_what_had_ended_before_a_signal_is_kept(tmp_path, capsys):
    actor = simple_player(TASK, ENV, "random", 0)
    with pytest.raises(Interrupted):
        write_episodes(
            tmp_path / "set", actor, 9, 0, 1, lambda _: os.kill(os.getpid(), signal.SIGTERM)
        )
    assert [entry.index for entry in Replay(tmp_path / "set", 10_000).episodes] == [0]
    assert sorted(contents(tmp_path / "set")) == ["000000.safetensors", "manifest.json"]


def test_a_full_disk_is_one_line_and_keeps_what_was_written(tmp_path, monkeypatch):
    written = Replay.add

    def full(replay, episode, index):
        if index == 1:
            raise OSError(28, "No space left on device")
        written(replay, episode, index)

    monkeypatch.setattr(Replay, "add", full)
    with pytest.raises(PlanetError, match="No space left on device; 1 episodes are kept"):
        write_episodes(tmp_path / "set", simple_player(TASK, ENV, "random", 0), 3, 0, 1)
    assert len(Replay(tmp_path / "set", 10_000)) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--policy", "radnom"],
            "--policy radnom: neither random, constant:VALUE with VALUE in [-1, 1] or the",
        ),
        (
            ["--policy", "constant:2"],
            "--policy constant:2: in dmc/cartpole-swingup it must be in [-1, 1]",
        ),
        (["--policy", "constant:nan"], "--policy constant:nan: neither random"),
        (
            ["--policy", "random", "--noise", "0.3"],
            "--noise 0.3: only with a run folder as --policy",
        ),
        (
            ["--policy", "random", "--size", "13"],
            "env.size = 13: must be at least 16",
        ),
        (
            ["--policy", "random", "--renderer", "none"],
            "env.renderer = 'none': the episodes would show nothing",
        ),
        (
            ["--policy", "random", "-s", "rssm.deter=9"],
            "rssm.deter=9: `planet collect` changes only env.… settings",
        ),
        (
            ["--policy", "random", "-s", "env.sice=9"],
            "unknown setting 'env.sice'; did you mean 'env.size'?",
        ),
        (
            ["--policy", "random", "--out", "FULL"],
            "holds 000000.safetensors already; give a folder without episodes",
        ),
        (["--policy", "random", "--out", "FILE/set"], "cannot be written; give another folder"),
        (["--policy", "RUN", "--size", "64"], "env.size = 64: the run in"),
        (["--policy", "RUN", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (["--policy", "RUN", "--checkpoint", "best"], "no checkpoint 'best'; it has 1"),
        (["--policy", "FULL"], "not a run folder"),
        (["walker-walk", "--policy", "RUN"], "TASK walker-walk: the run in"),
        (
            ["walker-wlak", "--policy", "random"],
            "there is no such task; did you mean 'dmc/walker-walk'?",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run, words, line, tmp_path, capsys):
    full, file, out = tmp_path / "full", tmp_path / "file", tmp_path / "out"
    full.mkdir()
    (full / "000000.safetensors").touch()
    file.touch()
    known = {"RUN": str(run), "FULL": str(full), "FILE/set": str(file / "set")}
    task = [] if words[0].startswith("walker") else [TASK]
    shown = PIXELS if "RUN" not in words and "none" not in words else []
    assert (
        collect(
            "--episodes",
            "1",
            "--out",
            out,
            *shown,
            *task,
            *(known.get(word, word) for word in words),
        )
        == 1
    )
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.startswith("planet: ")
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.parametrize(
    ("task", "value"),
    [("cartpole-swingup", "5"), ("gym/CartPole-v1", "0.5"), ("gym/CartPole-v1", "2")],
)
def test_a_constant_that_is_no_action_is_refused_before_the_set_is_begun(
    task, value, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(
        "planet_rssm.training.record.write_episodes", lambda *_, **__: pytest.fail("begun")
    )
    words = [
        "collect",
        task,
        "--policy",
        f"constant:{value}",
        "--episodes",
        "1",
        "--out",
        str(tmp_path / "set"),
    ]
    assert call(*words, "-s", "env.observe=vectors") == 1
    assert f"--policy constant:{value}: in " in capsys.readouterr().err


KILLED = """
import os, signal, sys
from planet_rssm.cli.main import main
from planet_rssm.data.replay import Replay

keep = Replay.add
def add(replay, episode, index):
    keep(replay, episode, index)
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Replay.add = add
main(sys.argv[1:])
"""


def test_the_same_command_goes_on_after_a_kill_and_makes_what_it_would_have_made(tmp_path, capsys):
    words = [
        "collect",
        TASK,
        "--policy",
        "random",
        "--episodes",
        "5",
        "--envs",
        "2",
        *PIXELS,
        "--out",
    ]
    command = [sys.executable, "-c", KILLED, *words, str(tmp_path / "half")]
    assert subprocess.run(command, stderr=subprocess.PIPE).returncode == -signal.SIGKILL
    assert 1 <= len(Replay(tmp_path / "half", 10_000)) < 5
    other = [*words[:5], "6", *words[6:]]
    assert call(*other, str(tmp_path / "half")) == 1
    assert (
        "holds 000000.safetensors already, begun by verb collect, env dmc/cartpole"
        in capsys.readouterr().err
    )
    assert call(*words, str(tmp_path / "half"), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["episodes"]) == 5
    assert call(*words, str(tmp_path / "complete")) == 0
    assert contents(tmp_path / "half") == contents(tmp_path / "complete")
    assert call(*words, str(tmp_path / "half")) == 1
    assert "holds 5 episodes already; add --add for others beside them" in capsys.readouterr().err


def test_episodes_that_are_added_act_otherwise_than_the_first(tmp_path):
    words = [TASK, "--policy", "random", *PIXELS, "--out", tmp_path / "set", "--envs", "1"]
    assert collect(*words, "--episodes", "2") == 0
    first = contents(tmp_path / "set")
    assert collect(*words, "--episodes", "1", "--add") == 0
    actions = [
        Episode.load(tmp_path / "set" / f"{index:06d}.safetensors").action.tobytes()
        for index in range(3)
    ]
    assert len(set(actions)) == 3
    assert {
        name: contents(tmp_path / "set")[name] for name in first if name[0] == "0"
    }.items() <= first.items()


def test_a_run_keeps_its_episodes_to_itself(run, tmp_path, capsys):
    assert (
        collect(
            TASK,
            "--policy",
            "random",
            "--episodes",
            "1",
            "--add",
            "--out",
            run / "episodes",
            *PIXELS,
        )
        == 1
    )
    assert "holds the episodes of the run in" in capsys.readouterr().err
