"""Sets that the formats' own packages wrote; see scripts/make_dataset_samples.

At frame n the action (n / 32, -n / 32) was chosen, and it gave the reward n / 4.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numbered import loaded, number_of

from planet_rssm.datasets.foreign.detect import open_source
from planet_rssm.datasets.foreign.importing import survey, write
from planet_rssm.datasets.foreign.wish import Wish

SAMPLES = Path(__file__).parent / "samples"
FRAMES = ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15])


def imported(name, folder, size=32, **wish):
    looked = survey(open_source(str(SAMPLES / name)), Wish(size=size, **wish))
    write(looked, folder)
    return loaded(folder)


def check(episode, frames, camera, top=1.0):
    """Frame i is frame i, and so are the action and the reward that led to it."""
    led = np.array(frames[:-1], np.float32)
    assert [number_of(frame) for frame in episode.observation[camera]] == frames
    steps = episode.to_transitions()
    assert np.allclose(steps.action, np.stack([led, -led], 1) / 32 * top, atol=1e-6)
    return steps, led


def needs(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}, extra `data`")


@needs("pyarrow", "av")
@pytest.mark.parametrize("version", ["2.1", "3.0"])
def test_lerobot(tmp_path, version):
    spec, episodes = imported(f"lerobot-{version}", tmp_path, drop=("observation.images.wrist",))
    assert spec.observation == {
        "images.top": ((32, 32, 3), "uint8"),
        "state": ((2,), "float32"),
    }
    assert spec.control_interval == pytest.approx(0.1)
    for episode, frames in zip(episodes, FRAMES, strict=True):
        steps, led = check(episode, frames, "images.top")
        assert np.array_equal(steps.reward, led / 4)
        assert np.array_equal(steps.observation["state"][:, 0], frames)
        assert (steps.terminated, steps.truncated) == (False, True)


@needs("pyarrow", "av")
def test_lerobots_last_action_is_kept_when_asked(tmp_path):
    _, episodes = imported("lerobot-3.0", tmp_path, end="repeat", terminal="next.done")
    for episode, frames in zip(episodes, FRAMES, strict=True):
        steps, led = check(episode, [*frames, frames[-1]], "images.top")
        assert np.array_equal(steps.reward, led / 4)
        assert steps.terminated


@needs("pyarrow")
def test_pictures_in_lerobots_rows(tmp_path):
    _, episodes = imported("lerobot-3.0", tmp_path, size=48, keys=("observation.images.wrist",))
    for episode, frames in zip(episodes, FRAMES, strict=True):
        there = episode.observation["images.wrist"]
        # 32x48 pixels became 48x48: its blocks are 12 high and 8 wide
        assert [number_of(frame[::3, ::2][:, :16]) for frame in there] == frames


@needs("h5py")
def test_stable_worldmodel(tmp_path):
    """It keeps no frame of a reset, so each episode begins at its second frame.

    In an episode's last row it has the episode's first action.
    """
    _, episodes = imported("swm", tmp_path)
    for episode, frames in zip(episodes, FRAMES, strict=True):
        steps, led = check(episode, frames, "pixels")
        assert np.array_equal(steps.reward, led / 4)
        assert set(episode.observation) == {"pixels", "observation"}
        assert steps.terminated


def test_dreamerv3(tmp_path):
    """One of its chunks was saved twice, with rows that do not count."""
    source = open_source(str(SAMPLES / "dreamerv3"))
    assert source.notes == ("1 chunks are not used: a longer copy of each is there",)
    _, episodes = imported("dreamerv3", tmp_path)
    for episode, frames in zip(episodes, FRAMES, strict=True):
        steps, led = check(episode, frames, "image")
        assert np.array_equal(steps.reward, led / 4)
        assert steps.terminated == (frames[-1] == 4)


@needs("zarr")
def test_diffusion_policys_zarr(tmp_path):
    _, episodes = imported("diffusion.zarr", tmp_path, reward="none", scale_actions=True)
    for episode, frames in zip(episodes, FRAMES, strict=True):
        assert [number_of(frame) for frame in episode.observation["img"]] == frames
        assert episode.observation["keypoint"][:, 0].tolist() == frames
        # 0 to 14 became -1 to 1: the last episode's last action is not used
        led = np.array(frames[:-1], np.float32) / 14 * 2 - 1
        assert np.allclose(episode.to_transitions().action, np.stack([led, -led], 1), atol=1e-5)
