"""Kill -9 of a process that writes a replay, at random moments."""

import logging
import random
import subprocess
import sys
import time

import numpy as np

from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay

WRITER = """
import sys
import numpy as np
from planet_rssm.data.episode import Episode
from planet_rssm.data.replay import Replay

replay = Replay(sys.argv[1], capacity=600)
replay.truncate(int(sys.argv[2]))
print("open", flush=True)
image = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), np.uint8)
zeros = np.zeros(99, np.float32)
for index in range(int(sys.argv[2]), 10_000):
    info = {"env": {}, "seed": index, "env_steps": 99}
    episode = Episode.from_transitions({"image": image}, zeros[:, None], zeros, False, True, info)
    replay.add(episode, index)
    if index % 3 == 2:
        replay.commit()
        print(index + 1, flush=True)
"""


def write_until_killed(folder, count, delay):
    """Let a writer continue from `count` episodes, kill it after `delay` s; return its count."""
    command = [sys.executable, "-c", WRITER, str(folder), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        time.sleep(delay)
        process.kill()
        lines = process.stdout.read().split()
    return int(lines[-1]) if lines else count


def test_a_killed_writer_leaves_no_corrupt_committed_file(tmp_path, caplog):
    caplog.set_level(logging.INFO, "planet_rssm")
    chance = random.Random(0)
    committed = kills = 0
    while kills < 8 or (
        committed <= 6 and kills < 100
    ):  # on a busy machine a writer gets less far before its kill
        kills += 1
        committed = write_until_killed(tmp_path, committed, chance.uniform(0, 0.15))
        caplog.clear()
        replay = Replay(tmp_path, 600)
        assert not [record for record in caplog.records if "took in" not in record.getMessage()]
        assert not list(tmp_path.glob("*.damaged"))
        for path in tmp_path.glob("*.safetensors"):
            Episode.load(path)
        indices = [entry.index for entry in replay.episodes]
        assert indices == list(range(max(indices, default=-1) + 1))[-6:]
        assert max(indices, default=-1) >= committed - 1
        if indices:
            replay.sample(np.random.default_rng(0), 4, 10)
    assert committed > 6
