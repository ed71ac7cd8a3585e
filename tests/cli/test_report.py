"""`planet report` over a run with a checkpoint: its scores, its strip, its own mistakes."""

import json
import shutil

import numpy as np
import pytest

from planet_rssm import config
from planet_rssm.cli.main import main
from planet_rssm.data.episode import Episode
from planet_rssm.evaluation.episode_cache import EpisodeCache
from planet_rssm.evaluation.opened_run import open_subject
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.run import CONFIG

TINY = (
    "env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=50 "
    "model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16"
).split()


@pytest.fixture(scope="module")
def run(untrained_run, tmp_path_factory):
    """A run with a checkpoint, an episode and two evaluations, one of another checkpoint."""
    folder = untrained_run(tmp_path_factory.mktemp("runs") / "run", "planet", *TINY)
    opened = checkpoints.open_run(folder).checkpoint
    config.save(opened.settings, folder / CONFIG)
    length, rng = 20, np.random.default_rng(0)
    images = rng.integers(0, 256, (length, 32, 32, 3), dtype=np.uint8)
    episode = Episode.from_transitions(
        {"image": images},
        rng.uniform(-1, 1, (length - 1, 1)).astype(np.float32),
        np.ones(length - 1, np.float32),
        False,
        True,
        {"env": opened.spec.to_json(), "seed": 0, "env_steps": 950},
    )
    (folder / "episodes").mkdir()
    episode.save(folder / "episodes" / "000003.safetensors")
    conditions = open_subject(str(folder), "last", [], "cpu").conditions
    played = [EpisodeResult(1000, 10.0, 1000), EpisodeResult(1001, 30.0, 1000)]
    EpisodeCache(folder, "last-cem", conditions).add(played)
    EpisodeCache(folder, "last-cem", conditions | {"checkpoint_crc32": "00000000"}).add(played)
    (folder / "eval" / "torn.json").write_text("{")
    return folder


def call(*words) -> int:
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        return end.code or 0
    return 0


def test_scores_and_strip_come_from_what_the_run_keeps(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert call("report", run, "--out", out, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["file"] == str(out)
    page = out.read_text()
    assert "<td>20</td>" in page and "821 (PlaNet, 1M)" in page
    assert 'class="strip"' in page and "of episode 000003" in page
    lines = result["missing"][str(run)]
    assert any("eval/torn.json: damaged" in line for line in lines)
    assert not any("not evaluated" in line or "strip" in line for line in lines)


def test_a_checkpoint_that_has_changed_leaves_its_scores_out(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    path = next((copy / "checkpoints").glob("[0-9]*"))
    path.rename(path.with_name("0000000009.safetensors"))
    (copy / "checkpoints" / path.name).write_bytes(b"torn")
    later = copy / "checkpoints" / "0000000010.safetensors"
    later.write_bytes(b"torn")
    assert call("report", copy, "--out", tmp_path / "page.html", "--json") == 0
    lines = json.loads(capsys.readouterr().out)["missing"][str(copy)]
    assert any("2 files are of other checkpoints" in line for line in lines), lines
    assert any(line.startswith("no open-loop strip") for line in lines)


def test_a_model_of_the_package(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("report", "pretrained:cartpole-swingup", "--out", "page.html") == 0
    assert "no metrics.jsonl: no curves" in capsys.readouterr().out
    assert "All settings are those of" in (tmp_path / "page.html").read_text() or (
        "Nearest preset" in (tmp_path / "page.html").read_text()
    )


def test_mistakes_are_one_line(run, tmp_path, capsys):
    assert call("report", tmp_path / "nowhere") == 1
    assert "not a run folder" in capsys.readouterr().err
    assert call("report", run, "--out", tmp_path / "no" / "page.html") == 1
    assert "there is no folder" in capsys.readouterr().err
