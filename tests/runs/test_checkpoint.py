import pytest
import torch

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint, DamagedCheckpointError

SPEC = EnvSpec(
    "dmc/cartpole-swingup",
    {"image": ((64, 64, 3), "uint8")},
    1,
    8,
    0.08,
    1000,
    "raycast",
    "mujoco 3.17.0",
)


def small(scale: float = 1.0, env_steps: int = 1000) -> Checkpoint:
    model = {"a.weight": scale * torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3)}
    return Checkpoint(
        config.load("planet"),
        SPEC,
        {"env_steps": env_steps},
        model,
        {"a.bias/step": torch.tensor(5.0)},
    )


@pytest.fixture
def run(tmp_path):
    (tmp_path / location.FOLDER).mkdir()
    checkpoints.save(small(), location.path_of(tmp_path, 1000))
    checkpoints.save(small(2.0, 20_000), location.path_of(tmp_path, 20_000))
    checkpoints.save(small(3.0), location.path_of(tmp_path, location.BEST))
    return tmp_path


def test_what_is_loaded_is_what_was_saved(run):
    kept, original = checkpoints.load(location.find(run, "1000")), small()
    assert (kept.settings, kept.spec, kept.progress) == (
        original.settings,
        original.spec,
        original.progress,
    )
    assert torch.equal(kept.model["a.weight"], original.model["a.weight"])
    assert torch.equal(kept.optimizer["a.bias/step"], original.optimizer["a.bias/step"])


def test_equal_checkpoints_are_equal_files(run, tmp_path):
    checkpoints.save(small(), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == location.find(run, "1000").read_bytes()


def test_last_best_and_a_number_are_found(run):
    scales = {
        name: checkpoints.load(location.find(run, name)).model["a.weight"][0, 1]
        for name in ("last", "best", "1000")
    }
    assert scales == {"last": 2.0, "best": 3.0, "1000": 1.0}
    with pytest.raises(PlanetError, match="no checkpoint '7'; it has 1000, 20000, best"):
        location.find(run, "7")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(PlanetError, match="not a run folder.*give the --run-dir"):
        location.find(tmp_path)


def test_every_truncation_and_every_flipped_byte_is_noticed(run):
    path = location.find(run)
    data = path.read_bytes()
    for end in range(0, len(data), 64):
        path.write_bytes(data[:end])
        with pytest.raises(PlanetError, match="damaged.*use --checkpoint 0000001000 or best"):
            checkpoints.load(path)
    for place in [
        *range(8, len(data) - 100, 16),
        *range(len(data) - 60, len(data)),
    ]:  # header, tensors
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        with pytest.raises(DamagedCheckpointError, match="damaged"):
            checkpoints.load(path)


def test_a_newer_format_is_refused_in_one_line(run, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    checkpoints.save(small(), location.path_of(run, 30_000))
    monkeypatch.undo()
    with pytest.raises(PlanetError, match="format 2, this version reads up to 1; upgrade"):
        checkpoints.load(location.find(run))
