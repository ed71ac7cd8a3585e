"""A run that fails before its first commit can continue, or begin anew with other settings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.data.replay import Replay
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs.run import Run
from planet_rssm.training.display import Display
from planet_rssm.training.learner import Learner
from planet_rssm.training.start import train


@pytest.fixture
def begin(local_pool: None, tiny: list[str]) -> Callable[..., None]:
    """begin(folder, "key=value", ...) begins a run, as `planet train` without --resume."""

    def begin(folder: Path, *overrides: str) -> None:
        train(Run.create(folder, config.load("planet", [*tiny, *overrides]), "cpu"), Display())

    return begin


def fail_in_collection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replay, "add", lambda *_: refuse("an episode"))


def fail_in_learning(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Learner, "update", lambda *_: refuse("an update"))


def fail_in_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoints, "save", lambda *_: refuse("a checkpoint"))


def refuse(what: str) -> None:
    raise PlanetError(f"{what}: fails")


@pytest.mark.parametrize("fail", [fail_in_collection, fail_in_learning, fail_in_commit])
def test_a_first_round_that_fails_binds_nothing(
    fail: Callable[[pytest.MonkeyPatch], None],
    begin: Callable[..., None],
    tmp_path: Path,
    same,
    peace: Path,
) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        fail(patch)
        with pytest.raises(PlanetError, match="fails"):
            begin(folder, "seed=7", "rssm.deter=16")
    assert Run(folder, config.load("planet")).is_uncommitted()
    begin(folder)
    same(folder, peace)
    assert not Run(folder, config.load("planet")).is_uncommitted()
    with pytest.raises(PlanetError, match="already a run, it holds"):
        begin(folder)


def test_episodes_whose_run_is_not_known_are_never_taken_for_a_failed_start(
    begin: Callable[..., None], peace: Path, tmp_path: Path
) -> None:
    for name in ("000000.safetensors", "000001.safetensors"):
        (tmp_path / "episodes").mkdir(exist_ok=True)
        (tmp_path / "episodes" / name).write_bytes((peace / "episodes" / name).read_bytes())
    (tmp_path / "config.yaml").write_bytes((peace / "config.yaml").read_bytes())
    with pytest.raises(PlanetError, match="already a run"):
        begin(tmp_path)
    (tmp_path / "run.json").write_bytes(
        (peace / "run.json").read_bytes()
    )  # a copy without checkpoints
    with pytest.raises(PlanetError, match="already a run"):
        begin(tmp_path)
    assert len(list((tmp_path / "episodes").iterdir())) == 2


def test_resume_takes_any_settings_while_nothing_binds_them(
    tmp_path: Path, tiny: list[str], capsys
) -> None:
    from planet_rssm.cli.train import _open

    settings = config.load("planet", tiny)
    Run.create(tmp_path / "run", settings, "cpu")
    other = config.override(settings, ["rssm.deter=16"])
    assert _open(tmp_path / "run", other).settings.rssm.deter == 16
    assert "nothing was committed in it" in capsys.readouterr().err


def test_a_second_resume_goes_on_with_what_the_first_has_begun(
    begin: Callable[..., None], tmp_path: Path, tiny: list[str], capsys, monkeypatch
) -> None:
    from planet_rssm.cli import train as verb

    settings = config.load("planet", tiny)
    run = Run.create(tmp_path / "run", settings, "cpu")
    with run.lock(), pytest.raises(PlanetError, match="another process is training in it"):
        verb._open(tmp_path / "run", settings)
    assert capsys.readouterr().err == ""

    def checked(asked, **_):  # takes seconds, in which another process makes its first round
        begin(tmp_path / "run")
        return asked, "cpu"

    monkeypatch.setattr(verb, "checked", checked)
    assert not verb._open(tmp_path / "run", settings).is_uncommitted()
