"""The command line as a user meets it: help without torch, one line a mistake, JSON on stdout."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.cli import main as main_module
from planet_rssm.cli import train as train_module
from planet_rssm.cli import train_checks
from planet_rssm.cli.main import main
from planet_rssm.cli.train import default_folder
from planet_rssm.runs import location

TINY = """
    env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast
    env.action_repeat=5 env.time_limit=100 model.depth=2
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16 planner.candidates=8
    planner.iterations=1 planner.elites=2 planner.horizon=3 train.env_steps=300
    train.seed_episodes=2 train.updates=3 train.batch_size=4 train.batch_length=8 device=cpu
""".split()

STIFF = """
import gymnasium
import numpy as np


class Arm(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    observation_space = gymnasium.spaces.Box(-1, 1, (3,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        raise RuntimeError("stuck")
"""


def options(*overrides: str) -> list[str]:
    return [word for override in (*TINY, *overrides) for word in ("-s", override)]


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
        raise SystemExit(0)
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert (
        call("train", "planet", *options(), "--run-dir", str(folder), "--plan-episodes", "0") == 0
    )
    return folder


def test_help_and_config_are_quick():
    """They load neither torch nor mujoco nor matplotlib."""
    lines = """
        --help, config planet, train --help, plan --help, collect --help, eval --help, dream --help,
        diagnose --help, bench train --help, doctor --help, envs
    """
    code = f"""
import sys
from planet_rssm.cli.main import main
from planet_rssm.cli.train import default_folder
for line in {[line.split() for line in lines.split(",")]}:
    print("$", *line, flush=True)
    try:
        main(line)
    except SystemExit as end:
        assert not end.code, line
    assert not {{"torch", "mujoco", "matplotlib"}} & set(sys.modules), line
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = re.split(r"^\$ (.*)$", done.stdout, flags=re.MULTILINE)[1:]
    assert shown[::2] == [" ".join(line.split()) for line in lines.split(",")]
    assert all(text.strip() for text in shown[1::2])


def test_config_prints_settings_that_train_reads(capsys, tmp_path):
    assert call("config", "quickstart", "-s", "seed=7") == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert config.load(path) == config.load("quickstart", ["seed=7"])


def test_every_verb_takes_json():
    """`planet train` for its dry run."""
    group = main_module.planet
    verbs = {name: group.get_command(click.Context(group), name) for name in main_module.VERBS}
    for name in [name for name, verb in verbs.items() if isinstance(verb, click.Group)]:
        verbs |= {f"{name} {part}": verb for part, verb in verbs.pop(name).commands.items()}
    # data has three, minari two, sweep three, bench five
    assert len(verbs) == len(main_module.VERBS) + 9
    for name, verb in verbs.items():
        assert any("--json" in option.opts for option in verb.params), name


def test_config_summary_counts_parameters(capsys):
    assert call("config", "planet", "--summary") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["preset"] == "planet"
    assert summary["parameters"]["total"] == 5_130_220


def test_config_prints_json(capsys):
    assert call("config", "quickstart", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["preset"] == "quickstart" and config.resolve(printed["settings"]) == config.load(
        "quickstart"
    )
    assert call("config", "planet", "--summary", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"preset", "parameters"}


def test_plan_prints_one_json_object_and_films(run, capsys):
    assert call("plan", str(run), "--episodes", "3", "--json", "--video", "--planner", "icem") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == "dmc/cartpole-swingup"
    assert result["planner"] == "icem"
    assert [episode["seed"] for episode in result["episodes"]] == [1000, 1001, 1002]
    assert all(episode["env_steps"] == 100 for episode in result["episodes"])
    low, high = result["return"]["episode_ci95"]
    assert low <= result["return"]["mean"] <= high
    assert set(result["baselines"]) == {"random", "zero", "constant", "untrained"}
    assert result["baselines"]["zero"] < 1
    assert (
        0
        < result["latency_ms"]["p50"]
        <= result["latency_ms"]["p95"]
        <= result["latency_ms"]["p99"]
    )
    assert Path(result["video"]).stat().st_size > 1000


def test_plan_films_and_traces_why_it_chose(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("planet_rssm.evaluation.plan_run.baselines", lambda *_: {})
    common = ("plan", str(run), "--episodes", "2", "--json")
    assert call(*common) == 0
    plain = json.loads(capsys.readouterr().out)
    trace = tmp_path / "decisions.npz"
    assert call(*common, "--xray", "--trace", str(trace)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["episodes"] == plain["episodes"]
    assert Path(result["xray"]).stat().st_size > 1000 and result["trace"] == str(trace)
    with np.load(trace, allow_pickle=False) as arrays:
        assert arrays["brought"].sum() == pytest.approx(result["episodes"][0]["return"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulator:cartpole-swingup", "--xray"], "no learned model to look into"),
        (["{run}", "--trace", "nowhere/a.npz"], "must be a file .npz in a folder that exists"),
        (["{run}", "--trace", "a.txt"], "must be a file .npz"),
    ],
)
def test_plan_refuses_an_x_ray_in_one_line(run, words, said, capsys):
    assert call("plan", *(word.format(run=run) for word in words)) == 1
    assert said in capsys.readouterr().err


def test_plan_takes_the_settings_of_another_planner(run, capsys, monkeypatch):
    monkeypatch.setattr("planet_rssm.evaluation.plan_run.baselines", lambda *_: {})
    words = "--planner mppi -s planner.weigh=elites -s planner.act_by=draw".split()
    words += ["-s", "planner.particles=2"]
    assert call("plan", str(run), "--episodes", "1", "--json", *words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["planner"] == "mppi" and 0 <= result["return"]["mean"] <= 1000


def test_plan_is_the_same_twice(run, capsys):
    results = []
    for _ in range(2):
        assert call("plan", str(run), "--episodes", "2", "--json") == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["episodes"] == results[1]["episodes"]
    assert results[0]["baselines"] == results[1]["baselines"]


def test_plan_prints_a_table(run, capsys):
    assert call("plan", str(run), "--episodes", "2") == 0
    shown = capsys.readouterr().out
    for word in ("cem", "random", "zero", "constant", "untrained", "p95"):
        assert word in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "plante"], "planet: unknown preset 'plante'; did you mean 'planet'?"),
        (
            ["train", "planet", "-s", "planer.name=cem"],
            "planet: unknown setting 'planer.name'; did you mean 'planner.name'?",
        ),
        (
            ["train", "planet", "-s", "env.id=walker-wlak"],
            "there is no such task; did you mean 'dmc/walker-walk'?",
        ),
        (
            ["train", "planet", "-s", "planner.name=cme"],
            f"planet: planner.name = 'cme': must be {', '.join(config.PLANNERS)} or module:Class",
        ),
        (
            ["train", "planet", "-s", "planner.elites=2000"],
            "planner.elites = 2000: at most planner.candidates = 1000",
        ),
        (["train", "planet", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (["plan", "."], "not a run folder"),
        (["plan", "missing"], "missing: not a run folder, there is none of that name; give the"),
        (["train", "planet", "-s", "train.staleness=2"], "train.staleness = 2: must be 0 or 1"),
        (
            ["plan", "RUN", "--planner", "mcts"],
            f"planner.name = 'mcts': must be {', '.join(config.PLANNERS)} or module:Class",
        ),
        (["plan", "RUN", "-s", "planner.name=mcts"], "planner.name = 'mcts': must be cem, icem, "),
        (
            ["plan", "RUN", "-s", "planner.horizon=0"],
            "planner.horizon = 0: must be at least 1",
        ),
        (
            ["plan", "RUN", "-s", "planner.colour=-1"],
            "planner.colour = -1: must be at least 0",
        ),
        (
            ["plan", "RUN", "-s", "planner.elites=9"],
            "planner.elites = 9: at most planner.candidates = 8",
        ),
        (["plan", "RUN", "-s", "rssm.deter=9"], "rssm.deter=9: only planner.…, rssm.filter_by"),
        (["plan", "RUN", "--checkpoint", "12"], "no checkpoint '12'; it has 200, 300, best"),
        (["plan", "RUN", "--device", "cuda:77"], "device 'cuda:77': not usable here"),
        (
            ["train", "planet", "--run-dir", "RUN"],
            "already a run, it holds config.yaml; add --resume",
        ),
        (
            ["train", "planet", "--resume", "--run-dir", "missing"],
            "missing: not a run folder, there is none of that name; give the --run-dir of a "
            "`planet train`; without --resume one begins there",
        ),
        (
            ["train", "planet", "--resume", "--run-dir", "RUN", "-s", "env.size=64"],
            "a resumed run may change only",
        ),
        (["trian"], "planet: no verb 'trian'; did you mean 'train'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    run, words, line, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert call(*(str(run) if word == "RUN" else word for word in words)) != 0
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.startswith("planet: ")
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_there_is_told_with_those_written_alike(capsys, tmp_path):
    for name in ("walker-seed0", "walker-seed1", "cartpole-seed0"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    assert call("plan", str(tmp_path / "walkr-seed0")) == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    near = f"did you mean {tmp_path / 'walker-seed0'} or {tmp_path / 'walker-seed1'}"
    assert "walkr-seed0: not a run folder, there is none of that name" in line
    assert near in line


@pytest.mark.parametrize(
    "left", ["checkpoints/0000000010.safetensors", "episodes/000000.safetensors"]
)
def test_what_is_left_of_a_run_gets_one_answer_with_and_without_resume(left, capsys, tmp_path):
    (tmp_path / "run" / left).parent.mkdir(parents=True)
    (tmp_path / "run" / left).write_bytes(b"")
    said = []
    for more in ([], ["--resume"]):
        assert call("train", "planet", *options(), "--run-dir", str(tmp_path / "run"), *more) == 1
        said += capsys.readouterr().err.strip().splitlines()[-1:]
    assert said[0] == said[1]
    assert f"holds {left} but no config.yaml" in said[0]


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/0000000010.safetensors"])
def test_a_pipe_in_a_runs_place_is_named_before_anything_is_loaded(name, tmp_path):
    config.save(config.load("planet"), tmp_path / "config.yaml")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    code = f"""
import sys
from planet_rssm.cli.main import main
try:
    main(["train", "planet", "--resume", "--run-dir", {str(tmp_path)!r}])
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert f"{tmp_path / name}: a FIFO, not a regular file; take it away" in line


def test_a_folder_that_cannot_be_written_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert call("train", "planet", *options(), "--run-dir", str(tmp_path / "file" / "run")) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be written" in said
    assert "give another --run-dir" in said


def test_a_truncated_checkpoint_is_one_line_that_names_the_others(run, capsys):
    best = location.path_of(run, "best")
    intact = best.read_bytes()
    best.write_bytes(intact[: len(intact) // 2])
    try:
        assert call("plan", str(run), "--checkpoint", "best") == 1
    finally:
        best.write_bytes(intact)
    said = capsys.readouterr().err
    assert "damaged" in said
    assert "use --checkpoint 0000000200 or 0000000300" in said


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="unknown preset"):
        main(["--debug", "config", "nothing"])


def test_what_would_stop_the_first_round_leaves_no_run_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stiff.py").write_text(STIFF)
    small = ["-s", "train.batch_length=5", "--run-dir", "run"]
    arm = [
        "train",
        "quickstart",
        "-s",
        "env.id=stiff:Arm",
        "-s",
        "env.renderer=auto",
        "-s",
        "env.observe=vectors",
    ]
    assert call(*arm, *small) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        "planet: env.id = 'stiff:Arm': its worker failed 3 times in a row, at last in step 1"
    )
    assert said.endswith("RuntimeError: stuck (stiff.py, line 14)")
    large = ["-s", "planner.candidates=40000000", "-s", "planner.horizon=12"]
    assert call("train", "cartpole-vectors", *large, *small) == 1
    assert (
        "40000000: with horizon 12 and 2 choices a round takes 3.6 GiB" in capsys.readouterr().err
    )
    assert call("train", "cartpole-vectors", "-s", "train.exploration_noise=2", *small) == 1
    assert (
        "train.exploration_noise = 2: in gym/CartPole-v1 it is the chance"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_a_budget_that_the_random_episodes_use_up_is_said(monkeypatch, capsys):
    train_checks._say_if_random_alone(config.load("quickstart-search"), 1000)
    assert not capsys.readouterr().err
    train_checks._say_if_random_alone(
        config.load("quickstart-search", ["train.env_steps=20000"]), 1000
    )
    said = capsys.readouterr().err
    assert said.startswith(
        "train.env_steps = 20000: the 80 random episodes that a run begins with are 80000 env_steps"
    )


def test_what_an_extra_adds_is_said_where_it_is_missing(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
    )
    train_module._say_what_an_extra_adds()
    said = capsys.readouterr().err
    assert "pip install 'planet-rssm[report]' adds TensorBoard events" in said


def test_a_run_that_has_ended_is_not_planned_again_unless_asked(run, monkeypatch, capsys):
    planned = []
    monkeypatch.setattr(
        "planet_rssm.cli.train._plan", lambda run, episodes: planned.append(episodes)
    )
    again = ["train", "planet", *options(), "--run-dir", str(run), "--resume"]
    assert call(*again) == 0
    assert (
        f"nothing was left to learn; to plan with it: planet plan {run}" in capsys.readouterr().err
    )
    assert not planned
    assert call(*again, "--plan-episodes", "3") == 0
    assert planned == [3]


@pytest.mark.parametrize(
    ("signal", "code"), [(KeyboardInterrupt, 130), (main_module._TerminatedError, 143)]
)
def test_a_stop_while_planning_says_what_state_the_run_is_in(
    signal, code, run, monkeypatch, capsys
):
    def stopped(*_, **__):
        raise signal

    monkeypatch.setattr("planet_rssm.cli.plan.plan_and_print", stopped)
    assert (
        call(
            "train", "planet", *options(), "--run-dir", str(run), "--resume", "--plan-episodes", "3"
        )
        == code
    )
    said = capsys.readouterr().err
    assert "the training is complete; now 3 episodes are planned" in said
    assert (
        f"stopped while planning: the training is complete and kept in {run}; "
        "to plan with it: planet plan" in said
    )


@pytest.mark.parametrize(
    ("preset", "overrides", "name"),
    [
        ("quickstart", ["seed=3"], "quickstart-cartpole-swingup-seed3"),
        ("quickstart", ["env.id=walker_run"], "quickstart-walker-run-seed0"),
        (
            "systems/dreamer-v3-pytorch",
            ["env.id=gym/ale_py:ALE/Pong-v5"],
            "dreamer-v3-pytorch-ale_py-ALE-Pong-v5-seed0",
        ),
        ("quickstart", ["env.id=mine:Arm"], "quickstart-mine-Arm-seed0"),
    ],
)
def test_the_run_folder_is_named_by_preset_task_and_seed(preset, overrides, name):
    assert default_folder(preset, config.load(preset, overrides)) == Path("runs") / name
