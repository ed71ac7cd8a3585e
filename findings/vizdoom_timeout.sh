#!/bin/bash
# At its time limit ViZDoom's Gymnasium environment says terminated and truncated at once. Gymnasium
# means one of them: truncated, where a limit outside the task ended the episode. Code that learns
# whether an episode goes on from `terminated` alone (a continue head, a bootstrapped value) takes
# every timeout for an end of the task. Here a real end of the task is `terminated` alone; elsewhere
# both at once may be an end in the very step of the limit, so that no rule holds for all.
#
# Output, vizdoom 1.3.2, VizdoomBasic-v1, no button pressed:
#   step 300: terminated True truncated True
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet vizdoom==1.3.2 gymnasium==1.2.3
cd "$folder"
"$folder/venv/bin/python" - <<'END'
import gymnasium
import vizdoom.gymnasium_wrapper  # registers the environments

env = gymnasium.make("VizdoomBasic-v1", max_buttons_pressed=1)
env.reset(seed=0)
terminated = truncated = False
step = 0
while not (terminated or truncated):
    _, _, terminated, truncated, _ = env.step(0)  # no button
    step += 1
print(f"step {step}: terminated {terminated} truncated {truncated}")
env.close()
assert (terminated, truncated) == (True, True), "changed"
END
