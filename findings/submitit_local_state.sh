#!/bin/bash
# A job of submitit's local executor that is looked up from another process counts as ended while it
# runs. There LocalJob knows no process of its own, and `done()` takes that for the job's end:
# `state` is "NO PROCESS AND NO RESULT" and `done()` is True. SlurmJob, of the same interface, is
# made for being looked up again by its folder and number. So a tool that submits, leaves and asks
# later cannot be tried out with the local executor unless it looks at the process itself.
#
# Output, submitit 1.5.4:
#   here: RUNNING, done False
#   in another process: NO PROCESS AND NO RESULT, done True
#   here again: RUNNING, done False
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet submitit==1.5.4
cd "$folder"
cat > other.py <<'END'
import sys

from submitit import LocalJob

job = LocalJob(folder="jobs", job_id=sys.argv[1])
print(f"in another process: {job.state}, done {job.done()}", flush=True)
END
"$folder/venv/bin/python" - <<'END'
import subprocess
import sys
import time

import submitit

executor = submitit.LocalExecutor("jobs")
executor.update_parameters(timeout_min=1)
job = executor.submit(time.sleep, 20)
time.sleep(3)
before = f"{job.state}, done {job.done()}"
print(f"here: {before}", flush=True)
other = subprocess.run(
    [sys.executable, "other.py", job.job_id], check=True, capture_output=True, text=True
).stdout
print(other, end="")
print(f"here again: {job.state}, done {job.done()}")
assert before == "RUNNING, done False", "changed"
assert other.endswith("NO PROCESS AND NO RESULT, done True\n"), "changed"
job.cancel()
END
