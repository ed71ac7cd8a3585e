"""`planet push` and `hf:OWNER/NAME`, with a server on loopback that speaks the Hub's API."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from loopback_hub import Hub, Model

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.base.errors import PlanetError
from planet_rssm.cli.main import main
from planet_rssm.evaluation.episode_cache import EpisodeCache
from planet_rssm.evaluation.opened_run import open_subject
from planet_rssm.evaluation.protocol import EpisodeResult
from planet_rssm.report.page.reading import read_run
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import hub as runs_hub
from planet_rssm.runs import location
from planet_rssm.runs.run import CONFIG

# huggingface_hub 2.4 sends bytes to httpx2 in a way that is deprecated there
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra `hub`")

TINY = (
    "env.id=dmc/cartpole-swingup env.size=32 env.renderer=raycast env.action_repeat=50 "
    "model.depth=2 rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.reward_units=16"
).split()
NAME = "me/tiny"
RUN = f"hf:{NAME}"
WEIGHTS = "checkpoints/0000000001.safetensors"


@pytest.fixture(scope="module")
def made(untrained_run, tmp_path_factory):
    """A run with a checkpoint, an evaluation of it, a film and no record."""
    folder = untrained_run(tmp_path_factory.mktemp("runs") / "run", "planet", *TINY)
    config.save(checkpoints.open_run(folder).checkpoint.settings, folder / CONFIG)
    conditions = open_subject(str(folder), "last", [], "cpu").conditions
    played = [EpisodeResult(seed, 10.0 * seed, 1000) for seed in (1000, 1001, 1003)]
    EpisodeCache(folder, "last-cem", conditions).add(played)
    (folder / "videos").mkdir()
    (folder / "videos" / "plan.mp4").write_bytes(b"film")
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The Hub, which this process asks from now on; its cache is empty."""
    server = Hub()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server has plain LFS alone
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    runs_hub.fetched.cache_clear()
    yield server
    server.close()


def call(*words) -> int:
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        return end.code or 0
    return 0


def line_of(name=RUN) -> str:
    """The line that says why a run of the Hub is not taken."""
    runs_hub.fetched.cache_clear()
    with pytest.raises(PlanetError) as error:
        checkpoints.open_run(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pushed_run_is_a_run(run, server, capsys):
    assert call("push", run, NAME, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    files = server.models[NAME].files
    assert result["files"] == {name: len(data) for name, data in files.items()}
    assert set(files) == {"README.md", CONFIG, WEIGHTS, "eval.json", "replay.mp4"}
    assert result["url"].startswith(f"{server.url}/{NAME}/commit/")
    ours, theirs = (checkpoints.open_run(name).checkpoint for name in (run, RUN))
    assert theirs.settings == ours.settings and theirs.spec == ours.spec
    assert all(torch.equal(theirs.model[key], value) for key, value in ours.model.items())
    assert Agent.load(RUN, device="cpu").spec == ours.spec
    assert read_run(RUN).checkpoint == 1
    assert open_subject(RUN, "last", [], "cpu").folder == Path("runs/hf-me-tiny")
    asked = len(server.asked)
    location.find(Path(RUN))
    assert len(server.asked) == asked  # once a process
    runs_hub.fetched.cache_clear()
    sha = server.models[NAME].shas[-1]
    assert location.find(Path(f"{RUN}@{sha}")).name == Path(WEIGHTS).name
    assert not any(line.startswith("GET") and "resolve" in line for line in server.asked[asked:])


def test_the_card_says_where_it_comes_from(run, server):
    assert call("push", run, NAME) == 0
    text = server.models[NAME].files["README.md"].decode()
    _, front, body = text.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["library_name"] == "planet_rssm"
    [result] = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 10013.3
    for words in (
        "reset seeds 1000-1001, 1003, no exploration noise",
        "raycast 32x32 pixels",
        "| env_steps | 1 |",
        "| seed | 0 |",
        "mujoco",
        "planet train config.yaml --run-dir AGAIN",
        f"planet plan {RUN}",
        "no readable run.json",
        f"planet plan {RUN} --episodes 20",
    ):
        assert words in body, words
    everything = b"".join(server.models[NAME].files.values())
    assert str(run).encode() not in everything and run.parent.name.encode() not in everything


def test_a_second_push_replaces_the_first(run, server):
    server.models[NAME] = Model(private=False)
    server.models[NAME].commit({"notes.txt": b"mine", "checkpoints/best.safetensors": b"old"})
    (run / "videos" / "plan.mp4").unlink()
    assert call("push", run, NAME, "--float16") == 0
    files = server.models[NAME].files
    assert set(files) == {"README.md", CONFIG, WEIGHTS, "eval.json", "notes.txt"}
    assert len(files[WEIGHTS]) < 0.7 * (run / WEIGHTS).stat().st_size
    ours, theirs = (checkpoints.open_run(name).checkpoint for name in (run, RUN))
    for key, value in ours.model.items():
        assert torch.equal(theirs.model[key], value.half().float())
    assert b"before the weights were rounded to float16" in files["README.md"]


def test_what_is_not_there_is_named(run, server, capsys):
    shutil.rmtree(run / "eval")
    shutil.rmtree(run / "videos")
    shutil.copy(run / WEIGHTS, run / "checkpoints" / "best.safetensors")
    assert call("push", run, NAME, "--checkpoint", "best", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["files"]) == ["README.md", CONFIG, "checkpoints/best.safetensors"]
    assert any(line.startswith("no film: planet plan") for line in result["missing"])
    assert any(line.startswith("no table: ") for line in result["missing"])
    assert checkpoints.open_run(RUN, "best").checkpoint.progress["env_steps"] == 1


def test_a_dry_run_asks_nobody(run, server, capsys):
    assert call("push", run, NAME, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would be sent to hf:me/tiny" in out and WEIGHTS in out and "README.md" in out
    assert server.asked == []


def test_where_the_episodes_were_is_not_sent(run, server):
    opened = checkpoints.open_run(run).checkpoint
    data = opened.settings.data.model_copy(update={"folder": str(run / "sets" / "walker")})
    offline = checkpoints.replace(
        opened,
        settings=opened.settings.model_copy(update={"data": data}),
        progress={"env_steps": 1, "updates": 1},
    )
    checkpoints.save(offline, run / WEIGHTS)
    assert call("push", run, NAME) == 0
    files = server.models[NAME].files
    assert str(run).encode() not in b"".join(files.values())
    assert checkpoints.open_run(RUN).checkpoint.settings.data.folder == "walker"


def test_a_public_model_takes_nothing_private(run, server, capsys):
    server.models[NAME] = Model(private=False)
    assert call("push", run, NAME, "--private") == 1
    assert "--private, and it is there and public; nothing sent" in capsys.readouterr().err
    assert server.models[NAME].files == {}
    assert call("push", run, "me/other", "--private") == 0
    assert server.models["me/other"].private


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, ""), "no valid token"),
        ((403, ""), "give another OWNER/NAME"),
        ((404, "RepoNotFound"), "not logged in"),
        ((503, ""), "refuses (503)"),
    ],
)
def test_a_push_that_is_refused_is_one_line(run, server, capsys, refusal, words):
    server.refusal = refusal
    assert call("push", run, NAME) == 1
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1


def test_without_a_network(run, server, capsys, monkeypatch, caplog):
    assert call("push", run, NAME) == 0
    ours = checkpoints.open_run(RUN).path.read_bytes()
    server.refusal = 503, ""
    runs_hub.fetched.cache_clear()
    assert checkpoints.open_run(RUN).path.read_bytes() == ours
    assert "the Hub cannot be reached, takes the copy here" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    runs_hub.fetched.cache_clear()
    assert checkpoints.open_run(RUN).path.read_bytes() == ours
    assert "there is no copy here; try again with a network" in line_of("hf:me/unknown")
    capsys.readouterr()
    assert call("push", run, NAME) == 1
    line = capsys.readouterr().err
    assert "the Hub cannot be reached (OfflineModeIsEnabled)" in line and line.count("\n") == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "cannot be reached (ConnectError)" in line_of("hf:me/unknown")


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "GatedRepo"), "ask for access"),
        ((403, "GatedRepo"), "ask for access"),
        ((404, "RepoNotFound"), "no such model, or it is private"),
        ((404, "RevisionNotFound"), "no such revision"),
        ((429, ""), "does not give it (429)"),
        ((500, ""), "it says 500"),
    ],
)
def test_a_run_that_is_not_given_is_one_line(server, refusal, words):
    server.refusal = refusal
    assert words in line_of()


def pushed(server, files) -> None:
    server.models[NAME] = Model(private=False)
    server.models[NAME].commit(files)


def test_only_files_of_a_run_are_brought_here(made, server, tmp_path):
    weights = (made / WEIGHTS).read_bytes()
    others = {
        "model.pkl": b"x",
        "../out.txt": b"x",
        "mine.py": b"x",
        "checkpoints/a.safetensors": b"x",
    }
    pushed(server, {WEIGHTS: weights, **others})
    assert checkpoints.open_run(RUN).path.read_bytes() == weights
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not {"model.pkl", "out.txt", "mine.py", "a.safetensors"} & set(kept)
    assert [line for line in server.asked if "resolve" in line and WEIGHTS not in line] == []
    pushed(server, others)
    assert "none of its 4 files is a checkpoint" in line_of()
    pushed(server, {f"checkpoints/{number:010}.safetensors": b"x" for number in range(65)})
    assert "65 files, at most 64" in line_of()


@pytest.mark.parametrize("size", [1 << 40, -1, None, "7", True])
def test_a_size_that_no_run_has_is_refused(server, size):
    pushed(server, {WEIGHTS: b"x"})
    server.sizes[WEIGHTS] = size
    assert f"{WEIGHTS} has {size if size != '7' else 7} bytes" in line_of()


def test_a_cut_or_damaged_file_is_refused_and_brought_again(made, server):
    weights = (made / WEIGHTS).read_bytes()
    pushed(server, {WEIGHTS: weights})
    server.bodies[WEIGHTS] = weights[:-100]
    assert "try again" in line_of()
    server.bodies[WEIGHTS] = weights[:-1] + bytes([weights[-1] ^ 1])
    assert "not as the Hub has it, cut or damaged" in line_of()
    server.bodies.clear()
    runs_hub.fetched.cache_clear()
    assert checkpoints.open_run(RUN).path.read_bytes() == weights


def test_code_is_not_sent_and_the_line_says_what_to_bring(made, server, tmp_path, capsys):
    opened = checkpoints.open_run(made).checkpoint
    rssm = opened.settings.rssm.model_copy(update={"latent": "theirs:Latent"})
    settings = opened.settings.model_copy(update={"rssm": rssm})
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoints.save(checkpoints.replace(opened, settings=settings), run / WEIGHTS)
    assert call("push", run, NAME, "--allow-code", "--json") == 0
    assert json.loads(capsys.readouterr().out)["code"] == {"rssm.latent": "theirs:Latent"}
    files = server.models[NAME].files
    assert "theirs.py" not in files
    assert (
        b"## Code that you must bring\n\n- `rssm.latent` is `theirs:Latent`" in files["README.md"]
    )
    line = line_of()
    assert "rssm.latent = 'theirs:Latent' (not here: bring theirs.py)" in line


@pytest.mark.parametrize(
    "name", ["me", "me/", "/tiny", "me/tiny/more", "../tiny", "me/..", "me/a b", "-me/tiny", "a/b@"]
)
def test_names_that_are_none(server, name):
    assert "must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION" in line_of(f"hf:{name}")
    assert server.asked == []


def test_names_that_no_model_can_have(run, server, capsys):
    for name in ("tiny", "me/tiny@v1", "me/a..b", "me/--force"):
        assert call("push", run, name) in (1, 2)
    assert "must be OWNER/NAME" in capsys.readouterr().err
    assert server.asked == []


def test_a_run_of_the_hub_cannot_be_watched(server, capsys):
    assert call("watch", RUN) == 1
    assert "the Hub has no record of its training" in capsys.readouterr().err
