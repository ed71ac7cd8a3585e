"""Sets written by the programs that own the formats, each installed in a folder of its own.

`written` is for scripts here. This file is then run by the other program's Python, which has that
program, numpy and nothing of ours.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TORCH = "torch-2.13.0", ["torch==2.13.0", "torchvision==0.28.0"]  # once, for all that need it
_LEROBOT = (
    "huggingface-hub>=0.34.2,<0.36 jsonlines packaging<26 einops<0.9 deepdiff<9 termcolor "
    "draccus==0.10.0 pillow pandas opencv-python-headless<4.13 av>=15,<16"
).split()
_SWM = (
    "h5py hdf5plugin loguru tabulate gymnasium einops tqdm typer rich pillow pyarrow numpy "
    "lancedb>=0.30 pylance>=4 opencv-python-headless imageio matplotlib scipy"
).split()
_ROBOMIMIC = "h5py tqdm termcolor six matplotlib psutil".split()
_MINARI = "gymnasium numpy h5py portion pillow packaging typing_extensions".split()
# set: the package that writes it, without what it asks for, and what it needs of that
PACKAGES = {
    "lerobot-3.0": ("lerobot==0.4.4", [*_LEROBOT, "datasets>=4,<5", "accelerate"]),
    "lerobot-2.1": ("lerobot==0.3.3", [*_LEROBOT, "datasets>=2.19,<=3.6.0"]),
    "swm": ("stable-worldmodel==0.1.1", _SWM),
    "dreamerv3": (
        "dreamerv3==1.5.0",
        ["numpy<2", "cloudpickle", "rich", "ruamel.yaml", "msgpack", "pyzmq", "psutil"],
    ),
    "dreamerv2": ("dreamerv2==2.2.0", ["numpy<2"]),
    "robomimic": ("robomimic==0.3.0", _ROBOMIMIC),
    "minari": ("minari==0.5.4", _MINARI),
    "diffusion.zarr": ("zarr==2.18.3", ["numcodecs<0.14", "numpy<2.3", "asciitree", "fasteners"]),
}
# set: a program that no registry has, to be put beside the packages by hand
CHECKOUTS = {
    "diffusion.zarr": (
        "https://github.com/real-stanford/diffusion_policy",
        "5ba07ac6661db573af695b419a7947ecb704690f",
    ),
}
NEED_TORCH = ("lerobot-3.0", "lerobot-2.1", "swm", "robomimic")
Episodes = list[dict[str, np.ndarray]]  # columns [T, …]


def _let_torchvision_load() -> None:
    """Name the operators without which it is not imported, where torch has no CUDA and it has."""
    import torch

    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )


def write_by_lerobot(target: Path, episodes: Episodes, fps: int, films: list[str]) -> None:
    """Columns as LeRobot names them; images that are no film are kept in the rows."""
    import inspect

    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    features = {}
    for key, value in episodes[0].items():
        image = value.ndim == 4
        features[key] = {
            "dtype": ("video" if key in films else "image") if image else str(value.dtype),
            "shape": value.shape[1:] or (1,),
            "names": ["height", "width", "channels"] if image else None,
        }
    dataset = LeRobotDataset.create("us/numbered", fps=fps, features=features, root=target)
    apart = "task" in inspect.signature(dataset.add_frame).parameters  # until 0.3
    for episode in episodes:
        for row in range(len(episode["action"])):
            frame = {
                key: value[row].reshape(features[key]["shape"]) for key, value in episode.items()
            }
            if apart:
                dataset.add_frame(frame, task="count")
            else:
                dataset.add_frame({**frame, "task": "count"})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    shutil.rmtree(target / "images", ignore_errors=True)


def write_by_swm(target: Path, episodes: Episodes) -> None:
    """`image`, `observation`, `action` chosen there, `reward` that came, `terminal`.

    An environment that shows them, recorded by `World.collect`, which keeps no frame of a reset: an
    empty one comes before each episode.
    """
    import gymnasium
    import stable_worldmodel

    side = episodes[0]["image"].shape[1]
    shown = iter([*episodes, episodes[-1]])  # it is reset after the last one too
    now = {}  # the episode and the row that are shown

    class Show(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, episodes[0]["observation"].shape[1:], np.float32
        )
        action_space = gymnasium.spaces.Box(-1, 1, episodes[0]["action"].shape[1:], np.float32)

        def __init__(self, render_mode=None):
            self.render_mode = render_mode

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            now.update(episode=next(shown), row=-1)
            return np.zeros_like(now["episode"]["observation"][0]), {}

        def step(self, action):
            now["row"] += 1
            episode, row = now["episode"], now["row"]
            terminal, last = bool(episode["terminal"][row]), row + 1 == len(episode["action"])
            reward = float(episode["reward"][row])
            return episode["observation"][row], reward, terminal, last and not terminal, {}

        def render(self):
            return now["episode"]["image"][max(now["row"], 0)]

    class Policy:
        def set_env(self, env):
            pass

        def get_action(self, info, **_):
            return now["episode"]["action"][now["row"]][None]

    gymnasium.register("Show-v0", Show)
    longest = max(len(episode["action"]) for episode in episodes)
    world = stable_worldmodel.World(
        "Show-v0", 1, (side, side), longest + 2, goal_conditioned=False, render_mode="rgb_array"
    )
    world.set_policy(Policy())
    target.mkdir()
    world.collect(target / "set.h5", episodes=len(episodes), seed=0, format="hdf5", progress=False)


def write_by_dreamerv3(target: Path, episodes: Episodes, chunks: int, saved_at: int) -> None:
    """Columns as DreamerV3 names them, in chunks of so many rows; saved once before a row, too."""
    import importlib.util

    # its agent would import jax
    sys.path += importlib.util.find_spec("dreamerv3").submodule_search_locations
    from embodied.replay.saver import Saver

    target.mkdir()
    saver = Saver(target, chunks=chunks)
    rows = [
        {key: value[row] for key, value in episode.items()}
        for episode in episodes
        for row in range(len(episode["action"]))
    ]
    for number, row in enumerate(rows):
        if number == saved_at:
            saver.save(wait=True)
        saver.add(row, worker=0)
    saver.save(wait=True)


def write_by_dreamerv2(target: Path, episodes: Episodes) -> None:
    """Columns as Dreamer V2 names them."""
    import importlib.util
    import types

    # its package would import the agent, and the file TensorFlow, which writing does not use
    [package] = importlib.util.find_spec("dreamerv2").submodule_search_locations
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    file = Path(package) / "common" / "replay.py"
    spec = importlib.util.spec_from_file_location("replay", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    replay = module.Replay(target)
    for episode in episodes:
        replay.add_episode(episode)


def write_by_robomimic(target: Path, episodes: Episodes) -> None:
    """`image`, `action` chosen there, `reward` that it gave.

    Its own script turns the states of a simulator into observations; here a state says which row is
    shown.
    """
    import argparse

    import h5py
    import robomimic.envs.env_base
    import robomimic.scripts.dataset_states_to_obs as script

    class Show(robomimic.envs.env_base.EnvBase):
        def __init__(self):
            self.episode, self.row = 0, 0

        def reset(self):
            pass

        def reset_to(self, state):
            self.episode, self.row = (int(number) for number in state["states"])
            return self.get_observation()

        def step(self, action):
            self.row += 1  # the last action is none: its picture is the last one again
            return self.get_observation(), 0.0, False, {}

        def get_observation(self):
            image = episodes[self.episode]["image"]
            return {"agentview_image": image[min(self.row, len(image) - 1)]}

        def get_reward(self):
            return episodes[self.episode]["reward"][self.row - 1]

        def is_success(self):
            return {"task": False}

        def serialize(self):
            return {"env_name": "Show", "type": 2, "env_kwargs": {}}

    Show.__abstractmethods__ = frozenset()
    script.EnvUtils.create_env_for_data_processing = lambda **_: Show()
    target.mkdir()
    states = target.with_name(f"{target.name}-states.hdf5")
    with h5py.File(states, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(Show().serialize())
        for number, episode in enumerate(episodes):
            rows = np.arange(len(episode["action"]))
            data[f"demo_{number}/states"] = np.stack([np.full_like(rows, number), rows], 1) * 1.0
            data[f"demo_{number}/actions"] = episode["action"]
    asked = {"dataset": str(states), "output_name": f"{target.name}/image.hdf5", "n": None}
    asked |= {"camera_names": ["agentview"], "camera_height": 0, "camera_width": 0}
    asked |= {"shaped": True, "done_mode": 1, "copy_rewards": False, "copy_dones": False}
    asked |= {"compress": True, "exclude_next_obs": False}
    script.dataset_states_to_obs(argparse.Namespace(**asked))


def write_by_minari(target: Path, episodes: Episodes) -> None:
    """`image`, `action` chosen there, `reward` that it gave, `terminal`; in `target`/us/set-v0.

    Images are kept as they are: left to itself it takes JPEG, which loses.
    """
    os.environ["MINARI_DATASETS_PATH"] = str(target)
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    def buffer(episode):
        count = len(episode["action"]) - 1
        ends = np.arange(count) + 1 == count
        terminal = ends & episode["terminal"][-1]
        return EpisodeBuffer(
            observations={"image": episode["image"]},
            actions=episode["action"][:-1],
            rewards=episode["reward"][:-1],
            terminations=terminal,
            truncations=ends & ~terminal,
            infos={},
        )

    shape = episodes[0]["image"].shape[1:]
    minari.create_dataset_from_buffers(
        "us/set-v0",
        [buffer(episode) for episode in episodes],
        observation_space=gymnasium.spaces.Dict(
            image=gymnasium.spaces.Box(0, 255, shape, np.uint8)
        ),
        action_space=gymnasium.spaces.Box(-1, 1, episodes[0]["action"].shape[1:], np.float32),
        jpeg_encoding=False,
    )


def write_by_diffusion_policy(target: Path, episodes: Episodes, rows: int | None) -> None:
    """Columns as its tasks name them; `rows` in a chunk, or as many as it takes."""
    from diffusion_policy.common.replay_buffer import ReplayBuffer

    buffer = ReplayBuffer.create_empty_numpy()
    for episode in episodes:
        buffer.add_episode(episode)
    chunks = {key: (rows, *value.shape[1:]) for key, value in episodes[0].items()} if rows else {}
    buffer.save_to_path(str(target), chunks=chunks, compressors="disk")


WRITERS = {
    "lerobot-3.0": write_by_lerobot,
    "lerobot-2.1": write_by_lerobot,
    "swm": write_by_swm,
    "dreamerv3": write_by_dreamerv3,
    "dreamerv2": write_by_dreamerv2,
    "robomimic": write_by_robomimic,
    "minari": write_by_minari,
    "diffusion.zarr": write_by_diffusion_policy,
}


def installed(name: str, folder: Path) -> Path:
    """Return a Python that has what writes a set, installed below `folder` if it is not there."""
    package, needs = PACKAGES[name]
    shared = [_venv(folder / TORCH[0], TORCH[1])] if name in NEED_TORCH else []
    return _venv(folder / package.replace("==", "-"), needs, package, shared)


def _venv(home: Path, needs: list[str], package: str = "", shared: Sequence[Path] = ()) -> Path:
    """Return a Python with `needs`, `package` without what that asks for, and what is shared."""
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        for other in shared:
            [there] = other.parent.parent.glob("lib/python*/site-packages")
            [here] = home.glob("lib/python*/site-packages")
            (here / "shared.pth").write_text(f"{there.absolute()}\n")
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *needs], check=True)
        if package:
            subprocess.run([*pip, "--no-deps", package], check=True)
        ready.touch()
    return python


def checkout(name: str, folder: Path) -> str:
    """Return the folder of a program that no registry has, or nothing if none is needed."""
    if name not in CHECKOUTS:
        return ""
    address, commit = CHECKOUTS[name]
    there = folder / address.rpartition("/")[2]
    if not there.is_dir():
        sys.exit(f"{name}: git clone {address} {there} && git -C {there} checkout {commit}")
    return str(there)


def written(name: str, folder: Path, target: Path, episodes: Episodes, **options) -> None:
    """Write `target` by the program that owns the format, installed below `folder`."""
    python = installed(name, folder)
    more = {"SVT_LOG": "1", "PYTHONPATH": checkout(name, folder)}
    with tempfile.TemporaryDirectory() as beside:
        columns = Path(beside) / "columns.npz"
        flat = {
            f"{at}/{key}": value for at, one in enumerate(episodes) for key, value in one.items()
        }
        np.savez(columns, **flat)
        words = [python, __file__, name, target.absolute(), columns, json.dumps(options)]
        subprocess.run([str(word) for word in words], check=True, env=os.environ | more, stdout=2)


def main(name: str, target: str, columns: str, options: str) -> None:
    if name in NEED_TORCH:
        _let_torchvision_load()
    episodes: Episodes = []
    with np.load(columns) as file:
        for place in file:
            at, _, key = place.partition("/")
            if int(at) == len(episodes):
                episodes.append({})
            episodes[int(at)][key] = file[place]
    WRITERS[name](Path(target), episodes, **json.loads(options))


if __name__ == "__main__":
    main(*sys.argv[1:])
