#!/bin/bash
# A number out of a MuJoCo model equals the enum member from one side only. `model.jnt_type[0] ==
# mujoco.mjtJoint.mjJNT_HINGE` is True, the two sides exchanged is False, and so is membership in a
# tuple of members, which Python asks from the member's side. Code like
#     assert joint_type in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
# therefore fails silently: Fetch, HandReach and FrankaKitchen of gymnasium-robotics 1.4.2
# (mujoco_utils.py; it asks for mujoco>=2.2.0, so pip is content) and gym-xarm, which imports that.
# A plain int of the same value is in the tuple: int(model.jnt_type[0]).
#
# Output, numpy 2.2.6 (number == member, member == number, number in (member,), int in (member,)):
#   mujoco 3.17.0: True False False True
#   mujoco 3.3.0:  True True True True
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
for version in 3.17.0 3.3.0; do
    "$python" -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet numpy==2.2.6 "mujoco==$version"
    "$folder/$version/bin/python" - "$version" <<'END'
import sys

import mujoco

model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><body><joint type='hinge'/><geom size='.1'/></body></worldbody></mujoco>"
)
number, member = model.jnt_type[0], mujoco.mjtJoint.mjJNT_HINGE
found = number == member, member == number, number in (member,), int(number) in (member,)
print(f"mujoco {mujoco.__version__}:", *map(bool, found))
expected = {"3.17.0": (True, False, False, True), "3.3.0": (True, True, True, True)}[sys.argv[1]]
assert found == expected, f"changed: was {expected}"
END
done
