"""Imported first by the Python scripts here: a Python without torch gives way to that of .venv."""

import importlib.util
import os
import sys
from pathlib import Path

PYTHON = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "python"

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("planet_rssm") is None:
    if Path(sys.prefix) == PYTHON.parent.parent or not PYTHON.exists():
        sys.exit(
            "this Python has no planet_rssm: run ./scripts/planet --help once, which sets up .venv"
        )
    os.execv(PYTHON, [str(PYTHON), *sys.argv])
