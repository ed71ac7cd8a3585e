"""What a set of episodes holds: numbers for `planet data info`, frames for its contact sheet."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.data import episode_set
from planet_rssm.data.episode import Episode
from planet_rssm.datasets.exporting import opened
from planet_rssm.datasets.foreign.ranges import Range
from planet_rssm.datasets.writing import Progress

ROWS, COLUMNS = 8, 10  # episodes and frames of a sheet, at most
_EDGE = 12  # pixels for the words above each frame
_LARGEST = 128  # pixels a side of a frame on the sheet


def contents(folder: Path, progress: Progress = lambda done, total: None) -> Json:
    """Return what a set holds; every byte of it is read and checked.

    Raises:
        PlanetError: it holds no episode, or one of them is damaged.
    """
    replay, spec = opened(folder)
    vectors = [key for key, (shape, _) in spec.observation.items() if len(shape) == 1]
    ranges = {key: Range() for key in [*vectors, "action", "reward"]}
    terminated = 0
    for done, entry in enumerate(replay.episodes):
        progress(done, len(replay))
        episode = Episode.load(folder / entry.file)
        for key in vectors:
            ranges[key].add(episode.observation[key])
        ranges["action"].add(episode.action[1:])
        ranges["reward"].add(episode.reward[1:])
        terminated += bool(episode.is_terminal[-1])
    lengths = np.array([entry.frames for entry in replay.episodes])
    returns = np.array([entry.episode_return for entry in replay.episodes])
    return {
        "folder": str(folder),
        "task": spec.id,
        "episodes": len(replay),
        "frames": replay.frames,
        "env_steps": sum(entry.env_steps for entry in replay.episodes),
        "bytes": sum(entry.size for entry in replay.episodes),
        "frames_of_an_episode": [int(lengths.min()), int(np.median(lengths)), int(lengths.max())],
        "return": {
            "mean": float(returns.mean()),
            "min": float(returns.min()),
            "max": float(returns.max()),
        },
        "terminated": terminated,
        "truncated": len(replay) - terminated,
        "observation": {key: list(shape) for key, (shape, _) in spec.observation.items()},
        "action": {"size": spec.action_size, "groups": list(spec.groups)},
        "ranges": {key: one.words() for key, one in ranges.items()},
        "action_repeat": spec.action_repeat,
        "control_interval": spec.control_interval,
        "renderer": spec.renderer,
        "simulator": spec.simulator,
        "unfinished": episode_set.shortfall(replay),
    }


def write_sheet(folder: Path, path: Path, key: str | None = None) -> Path:
    """Write a PNG with frames of some episodes, a row each, evenly spread; return its path.

    Args:
        folder: of the set.
        path: the picture.
        key: the camera; None: the first.

    Raises:
        PlanetError: there is no such camera.
        OSError: it cannot be written.
    """
    replay, spec = opened(folder)
    cameras = [name for name, (shape, _) in spec.observation.items() if len(shape) == 3]
    if not cameras or (key or cameras[0]) not in cameras:
        have = f"its cameras are {', '.join(cameras)}" if cameras else "it has no images"
        raise PlanetError(f"{folder}: no camera {key or ''}: {have}; leave --sheet out or name one")
    key = key or cameras[0]
    chosen = np.unique(np.linspace(0, len(replay) - 1, ROWS).round().astype(int))
    side = min(spec.observation[key][0][0], _LARGEST)
    sheet = Image.new("RGB", (COLUMNS * side, len(chosen) * (side + _EDGE)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, number in enumerate(chosen.tolist()):
        entry = replay.episodes[number]
        frames = Episode.load(folder / entry.file).observation[key]
        times = np.unique(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)).tolist()
        for column, time in enumerate(times):
            left, top = column * side, row * (side + _EDGE)
            words = f"{entry.index}: {time}" if column == 0 else str(time)
            draw.text((left + 1, top), words, fill="black")
            picture = Image.fromarray(np.broadcast_to(frames[time], (*frames.shape[1:3], 3)).copy())
            sheet.paste(picture.resize((side, side)), (left, top + _EDGE))
    data = io.BytesIO()
    sheet.save(data, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [data.getbuffer()])
    return path
