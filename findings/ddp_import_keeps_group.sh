#!/bin/bash
# The first DistributedDataParallel of a process imports torch.distributed.nn.functional, and the
# functions there have the default process group of that moment as the default of an argument. So
# that group is never given back: after destroy_process_group() its threads of gloo go on to the end
# of the process, also where DistributedDataParallel has a group of its own. Where the module was
# imported before init_process_group(), the default is None and the threads end.
#
# Output, torch 2.13.0, two processes with gloo:
#   imported by DistributedDataParallel: threads of gloo 2, after all is destroyed 2
#   imported before: threads of gloo 2, after all is destroyed 0
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat > "$folder/group.py" <<'END'
import gc
import sys
import time
from pathlib import Path

if sys.argv[1] == "before":
    import torch.distributed.nn.functional
import torch
import torch.distributed as dist


def threads():
    time.sleep(2)  # they name themselves when they first run, and end a little later
    return sum("pt_gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def main(rank, file):
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{file}")
    first = threads()
    net = torch.nn.parallel.DistributedDataParallel(
        torch.nn.Linear(2, 2), process_group=dist.new_group()
    )
    dist.barrier()
    dist.destroy_process_group()
    del net
    gc.collect()
    last = threads()
    if rank == 0:
        how = {"before": "imported before", "lazily": "imported by DistributedDataParallel"}[sys.argv[1]]
        print(f"{how}: threads of gloo {first}, after all is destroyed {last}")
        assert (first, last) == (2, 0 if sys.argv[1] == "before" else 2), "changed"


main(int(sys.argv[2]), sys.argv[3])
END
for how in lazily before; do
    "$folder/venv/bin/python" "$folder/group.py" $how 1 "$folder/$how" &
    "$folder/venv/bin/python" "$folder/group.py" $how 0 "$folder/$how"
    wait
done
