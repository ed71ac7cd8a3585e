"""Numbered frames and loaded sets, for the tests of imports and exports."""

import numpy as np

from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay
from planet_rssm.envs.spec import EnvSpec

SIZE = 16


def images(frames, size=SIZE, first=0):
    """Images whose blocks encode the index in binary, which survives a codec and a resize."""
    image = np.zeros((frames, size, size, 3), np.uint8)
    for t in range(frames):
        for bit in range(8):
            row, column = divmod(bit, 4)
            if (first + t) >> bit & 1:
                block = size // 4
                image[t, row * block : (row + 1) * block, column * block : (column + 1) * block] = (
                    255
                )
    return image


def number_of(frame):
    """The index that a frame encodes."""
    block = frame.shape[0] // 4
    centres = [
        frame[row * block + block // 2, column * block + block // 2].mean() > 127
        for row in range(2)
        for column in range(4)
    ]
    return sum(1 << bit for bit, on in enumerate(centres) if on)


def steps(frames, seed=0, actions=2):
    """Frames, actions a_t taken at frame t, rewards r_t of them."""
    rng = np.random.default_rng(seed)
    return (
        images(frames),
        rng.uniform(-1, 1, (frames - 1, actions)).astype(np.float32),
        rng.normal(size=frames - 1).astype(np.float32),
    )


def before(values):
    """Rows that begin with zeros: what led to each frame."""
    return np.concatenate([np.zeros_like(values[:1]), values])


def after(values):
    """Rows that end with zeros: what follows each frame."""
    return np.concatenate([values, np.zeros_like(values[:1])])


def loaded(folder):
    replay = Replay(folder, 2**40)
    return EnvSpec.from_json(replay.env), [
        Episode.load(folder / entry.file) for entry in replay.episodes
    ]
