#!/bin/bash
# DreamerV3 1.5 saves the chunk that is being filled at every checkpoint: one .npz each time, of the
# same id and another length in its name. Each has all the rows that the chunk shall have; those
# beyond the length were never written. A reader that takes every file, or every row of a file, gets
# steps twice and steps that never were. (Its own loader takes every file, rows by the name.)
#
# Output, dreamerv3 1.5.0, chunks of 4 steps, saved after 2 steps and after 3:
#   files of length 2 3, chunks 1, rows 4 4
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "numpy<2" cloudpickle rich ruamel.yaml msgpack pyzmq psutil
"$folder/venv/bin/pip" install --quiet --no-deps dreamerv3==1.5.0
"$folder/venv/bin/python" - "$folder" <<'END'
import importlib.util
import pathlib
import sys

import numpy as np

# the package itself imports jax; its replay needs none
sys.path += importlib.util.find_spec("dreamerv3").submodule_search_locations
from embodied.replay.saver import Saver

chunks = pathlib.Path(sys.argv[1]) / "chunks"
saver = Saver(chunks, chunks=4)
for step in range(3):
    saver.add({"reward": np.float32(step)}, worker=0)
    if step >= 1:
        saver.save(wait=True)
files = sorted(chunks.glob("*.npz"), key=lambda path: path.stem.split("-")[3])
lengths = [int(path.stem.split("-")[3]) for path in files]
ids = {path.stem.split("-")[1] for path in files}
rows = [len(np.load(path)["reward"]) for path in files]
print("files of length", *lengths, "chunks", len(ids), "rows", *rows)
assert (lengths, len(ids), rows) == ([2, 3], 1, [4, 4]), "changed"
END
