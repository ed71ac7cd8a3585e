#!/bin/bash
# colorednoise says that its series have unit variance. Short ones have more: the mean over time
# (frequency 0) is drawn with the power of the lowest other frequency, but left out of the sum that
# it scales by. iCEM (Pinneri et al. 2020) draws its actions with it, so a planner's init_std of 0.5
# is 0.59 with version 2.2.0 at horizon 12 and exponent 2.5, and 0.55 with 1.1.1, the version of the
# paper's time, which drew the mean with half the power.
#
# Output, standard deviation over all steps of 200 000 series:
#   colorednoise 2.2.0: horizon 12: exponent 0 1.069, 0.25 1.077, 2.5 1.179; horizon 30: 2.5 1.174
#   colorednoise 1.1.1: horizon 12: exponent 0 1.023, 0.25 1.029, 2.5 1.092; horizon 30: 2.5 1.090
# Exits non-zero where that has changed.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$folder/venv"
for version in 2.2.0 1.1.1; do
    "$folder/venv/bin/pip" install --quiet numpy==2.2.6 "colorednoise==$version"
    "$folder/venv/bin/python" - "$version" <<'END'
import sys

import colorednoise
import numpy as np

seen = {
    "2.2.0": {(0, 12): 1.069, (0.25, 12): 1.077, (2.5, 12): 1.179, (2.5, 30): 1.174},
    "1.1.1": {(0, 12): 1.023, (0.25, 12): 1.029, (2.5, 12): 1.092, (2.5, 30): 1.090},
}[sys.argv[1]]
np.random.seed(0)
for (exponent, horizon), expected in seen.items():
    found = colorednoise.powerlaw_psd_gaussian(exponent, (200_000, horizon)).std()
    print(f"colorednoise {sys.argv[1]}: exponent {exponent}, horizon {horizon}: {found:.3f}, not 1")
    assert abs(found - expected) < 0.01, f"changed: was {expected}"
END
done
