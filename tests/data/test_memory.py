"""Sampling reads only what it hands out: a replay's memory does not grow with its frames."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planet_rssm.data.episode import Episode

EPISODES, LENGTH, SIZE = 1000, 1000, 64
SAMPLER = """
import json, sys
from pathlib import Path
import numpy as np
from planet_rssm.data.replay import Replay

def resident():  # KiB
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[key].split()[0]) for key in ("RssAnon", "RssShmem"))

replay = Replay(Path(sys.argv[1]), 1_000_000)
rng, peak = np.random.default_rng(0), resident()
for _ in range(40):
    chunks = replay.sample(rng, 50, 50)
    peak = max(peak, resident())
shape = chunks.observation["image"].shape
print(json.dumps({"frames": replay.frames, "shape": shape, "KiB": peak}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="memory is read from /proc/self/status"
)
def test_a_million_frames_are_sampled_in_under_4_gib(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (LENGTH, SIZE, SIZE, 3), np.uint8)
    steps = LENGTH - 1
    action, reward = np.zeros((steps, 6), np.float32), np.zeros(steps, np.float32)
    info = {"env": {"id": "test"}, "seed": 0, "env_steps": steps}
    first = tmp_path / "000000.safetensors"
    first.write_bytes(
        Episode.from_transitions({"image": frames}, action, reward, False, True, info).to_bytes()
    )
    for index in range(1, EPISODES):
        os.link(first, tmp_path / f"{index:06d}.safetensors")  # 12 MB on disk instead of 12 GB
    done = subprocess.run(
        [sys.executable, "-c", SAMPLER, str(tmp_path)], capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert measured["frames"] == 1_000_000
    assert measured["shape"] == [50, 50, SIZE, SIZE, 3]
    assert measured["KiB"] < 4 * 1024**2
    print(f"RssAnon + RssShmem {measured['KiB'] / 1024:.0f} MiB")
