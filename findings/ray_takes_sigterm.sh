#!/bin/bash
# A program that has used Ray does not hear SIGTERM any more. ray.init takes the signal from whom it
# was: its handler is sys.exit, so what the program does when a scheduler ends it (commit, say, and be
# queued again) is not done. A handler that is set after ray.init works, until ray.shutdown: that
# resets the signal below Python. Python's signal.getsignal still names the handler, and SIGTERM kills
# the process without calling it. Set it again after ray.shutdown.
#
# Output, ray 2.60.0:
#   handler set before ray.init: there after it False, after ray.shutdown False, then killed
#   handler set after ray.init: there after it True, after ray.shutdown True, then killed
#   handler set after ray.shutdown: there after it True, after ray.shutdown True, then called
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d /tmp/ray-XXXX)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cat > "$folder/program.py" <<'END'
import os
import signal
import sys
import time

import ray

when = sys.argv[1]


def mine(number, frame):
    print("called")
    sys.stdout.flush()
    os._exit(0)


def at(place):
    if place == when:
        signal.signal(signal.SIGTERM, mine)
    return signal.getsignal(signal.SIGTERM) is mine


at("before ray.init")
options = {"include_dashboard": False, "_temp_dir": os.environ["HOME"] + "/tmp"}
ray.init("local", num_cpus=1, log_to_driver=False, configure_logging=False, **options)
inside = at("after ray.init") or when == "after ray.shutdown"
ray.shutdown()
after = at("after ray.shutdown")
print(f"handler set {when}: there after it {inside}, after ray.shutdown {after}, then", end=" ")
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
END
cd "$folder"
export HOME=$folder RAY_USAGE_STATS_ENABLED=0
for when in "before ray.init" "after ray.init" "after ray.shutdown"; do
    { "$folder/venv/bin/python" program.py "$when" || echo killed; } 2> /dev/null | tee -a said
done
grep -q "before ray.init: there after it False, after ray.shutdown False, then killed" said
grep -q "after ray.init: there after it True, after ray.shutdown True, then killed" said
grep -q "after ray.shutdown: there after it True, after ray.shutdown True, then called" said
