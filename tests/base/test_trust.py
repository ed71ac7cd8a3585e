"""Code that somebody else's run or episodes name is not imported unasked; a user's own is."""

import importlib
import json
import shutil
import sys

import pytest

from planet_rssm import Agent, PlanetError, config
from planet_rssm.base import trust
from planet_rssm.cli.main import main
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.runs.run import Run

SPEC = EnvSpec("theirs:Env", {"vector": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0")
PLACES = {"env.id": "theirs:Env", "model.terms": ["theirs:Term"], "rssm.latent": "theirs:Latent"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with somebody's module, which leaves a mark when imported."""
    (tmp_path / "theirs.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_here", set())
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("theirs", None)


def theirs(folder, settings):
    """Write the folder of somebody's run, whose settings name his module."""
    known = Checkpoint(config.resolve(settings), SPEC, {"env_steps": 8, "updates": 8}, {}, {})
    (folder / location.FOLDER).mkdir(parents=True)
    checkpoints.save(known, location.path_of(folder, 8))
    config.save(known.settings, folder / "config.yaml")
    return folder


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize(
    "words",
    ["plan run", "eval run", "dream run", "diagnose run", "bench loop run",
     "collect theirs:Env --policy run --episodes 1 --out set",
     "train run/config.yaml --resume --run-dir run", "train run/config.yaml --run-dir new",
     "train run/config.yaml --dry-run", "config run/config.yaml --summary"],
)  # fmt: skip
def test_no_verb_imports_what_a_run_names(here, key, words, capsys, caplog):
    theirs(here / "run", {key: PLACES[key], "env.observe": "vectors"})
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 1
    line = (
        capsys.readouterr().err or caplog.messages[-1] + "\n"
    )  # `eval` logs it, and does the other runs
    assert (
        "would import and run code that you have not named yourself" in line
        and "--allow-code" in line
    )
    assert f"{key}[0] = 'theirs:Term'" in line or f"{key} = 'theirs:" in line
    assert str(here / "theirs.py") in line and line.count("\n") == 1
    assert not (here / "imported").exists()


def test_it_is_imported_when_it_is_allowed_and_named_first(here, caplog):
    run = theirs(here / "run", {"rssm.latent": "theirs:Latent"})
    with pytest.raises(PlanetError, match="not named yourself"):
        Agent.load(run, device="cpu")
    assert not (here / "imported").exists()
    with pytest.raises(
        PlanetError, match="rssm.latent = 'theirs:Latent': .*has no attribute 'Latent'"
    ):
        Agent.load(run, device="cpu", allow_code=True)
    assert (here / "imported").exists()
    assert (
        "runs code that it names, as allowed: rssm.latent = 'theirs:Latent'" in caplog.messages[-1]
    )
    with pytest.raises(PlanetError, match="not named yourself"):  # only that once
        Agent.load(run, device="cpu")


def test_what_the_user_has_named_is_his_as_long_as_it_is_the_same_file(here, monkeypatch):
    settings = config.resolve({"rssm.latent": "theirs:Latent"})
    Run.create(here / "mine", settings, "cpu")
    monkeypatch.setattr(trust, "_here", set())  # another process, later
    assert Run.open(here / "mine").settings == settings
    trust.require({"rssm.latent": "theirs:Latent"}, "a copy of it")
    with pytest.raises(PlanetError, match="theirs:Other"):
        trust.require({"rssm.latent": "theirs:Other"}, "another")
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(here / "theirs.py", elsewhere)
    monkeypatch.chdir(elsewhere)
    importlib.invalidate_caches()
    with pytest.raises(PlanetError, match="elsewhere/theirs.py"):
        trust.require(
            {"rssm.latent": "theirs:Latent"}, "a run with a module of that name beside it"
        )


def test_what_cannot_be_remembered_is_told_and_a_damaged_memory_only_asks_again(here, caplog):
    caplog.set_level("INFO")
    values = {"rssm.latent": "theirs:Latent"}
    (here / "state").write_text("a file where a folder should be")
    trust.own(values)
    assert "not remembered" in caplog.messages[-1]
    trust.require(values, "the same process")
    (here / "state").unlink()
    trust._here.clear()
    trust.own(values)
    path = here / "state" / trust.FILE
    path.write_bytes(b'{"a": 1}\n[1]\n\xff\n' + path.read_bytes() + b'["half')
    trust._here.clear()
    trust.require(values, "a later process")
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(PlanetError, match="not named"):
        trust.require(values, "a later process")


def test_settings_that_name_no_code_need_nothing():
    for preset in config.presets():
        assert not trust.code_in(config.flatten(config.load(preset)))
    assert not trust.code_in({"env.id": "gym/CartPole-v1", "device": "cuda:0"})
    assert not trust.code_in({"env.id": "gym/ALE/Pong-v5"})
    assert trust.code_in({"env.id": "gym/os:Pong-v5", "model.terms": ("a:B", "c.d:E")}) == {
        "env.id": "gym/os:Pong-v5", "model.terms[0]": "a:B", "model.terms[1]": "c.d:E"
    }  # fmt: skip


def test_an_offline_run_imports_no_environment_and_needs_no_leave_for_it(here):
    theirs(here / "run", {"env.id": "theirs:Env", "data.folder": str(here)})
    assert config.load(here / "run" / "config.yaml").env.id == "theirs:Env"
    with pytest.raises(PlanetError, match="env.id = 'theirs:Env'"):
        checkpoints.load(location.find(here / "run"))


def test_the_memory_is_one_line_a_name_and_nobody_elses_to_read(here):
    trust.own({"model.terms": ["theirs:A", "theirs:B"]})
    path = here / "state" / trust.FILE
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        ["theirs:A", str(here / "theirs.py")], ["theirs:B", str(here / "theirs.py")]
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
