"""Imported first by Python scripts here that need the package: without it they go on in .venv.

The set-up makes .venv where there is none, as for ./scripts/planet.
"""

import importlib.util
import os
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
BECOME = 'scripts=$1; shift; . "$scripts/_run.sh"; become python "$@"'

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("planet_rssm") is None:
    if Path(sys.prefix) == SCRIPTS.parent / ".venv":
        sys.exit(f"{sys.prefix} has no planet_rssm: delete it, then run this again")
    os.execv("/bin/sh", ["sh", "-c", BECOME, "sh", str(SCRIPTS), *sys.argv])
