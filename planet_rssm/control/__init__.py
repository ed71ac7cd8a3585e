"""Acting at a fixed rate, as a robot has to: the loop, its clocks, and late plans."""

from planet_rssm.control.clock import Clock, RealTime, SimulatedTime
from planet_rssm.control.loop import ControlLoop
from planet_rssm.control.remote import RemoteAgent
from planet_rssm.control.schedule import Command

__all__ = ["Clock", "Command", "ControlLoop", "RealTime", "RemoteAgent", "SimulatedTime"]
