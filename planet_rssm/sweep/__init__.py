"""Sweeps: a product of presets, tasks, seeds and settings, as runs that are begun where missing."""

from planet_rssm.sweep.local import run_here
from planet_rssm.sweep.plan import Sweep, SweepRun
from planet_rssm.sweep.state import State, state_of, states_of

__all__ = ["State", "Sweep", "SweepRun", "run_here", "state_of", "states_of"]
