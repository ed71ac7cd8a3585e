"""Control a robot at a fixed rate with what `planet train` learned.

    python docs/examples/control_loop.py runs/my-robot     # without a run: an untrained model

`Arm` stands for your robot, its camera and its motors. The rest is what you would write yourself.
docs/control.md says what the loop promises. Measure yours first:

    planet bench loop runs/my-robot --hz 20
"""

import sys

import numpy as np
import torch

from planet_rssm import Agent, ControlLoop, config
from planet_rssm.control import Clock
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import untrained_model


class Arm:
    """A joint whose motor is slower than the plan: at most 0.2 of its range a tick."""

    def __init__(self) -> None:
        self.motor = np.zeros(1, np.float32)  # what it really does, in [-1, 1]
        self.angle = self.speed = 0.0

    def observe(self) -> dict[str, np.ndarray]:
        """Return an observation, under the names of the training."""
        return {"joint": np.array([np.cos(self.angle), np.sin(self.angle), self.speed], np.float32)}

    def move(self, action: np.ndarray) -> None:
        """Move the motor towards `action` [1] for a tick."""
        self.motor = self.motor + np.clip(action - self.motor, -0.2, 0.2)
        self.speed += 0.05 * (9.8 * np.sin(self.angle) + 5.0 * float(self.motor[0]))
        self.angle += 0.05 * self.speed


def control(robot: Arm, agent: Agent, seconds: float, clock: Clock | None = None) -> ControlLoop:
    """Act for a while; return the loop, which has counted the ticks by kind."""
    loop = ControlLoop(
        agent,
        hz=20,
        budget_ms=40,  # of the 50 ms that a tick lasts: as many rounds of search as fit
        # act at once on the plan from the last frame, which includes the action between
        delay=1,
        fallback="zero",  # once the old plan is used up
        clock=clock,
    )
    with loop:
        for tick in range(round(seconds * loop.hz)):
            # the second argument is what the motors did, which differs a little from the command
            command = loop.tick(robot.observe(), robot.motor, is_first=tick == 0)
            robot.move(command.action)
            loop.sleep()  # until the next tick is due
    return loop


def untrained() -> Agent:
    """An agent that has learned nothing, for `Arm`."""
    spec = EnvSpec("mine:Arm", {"joint": ((3,), "float32")}, 1, 1, 0.05, 200, "none", "arm 1")
    settings = config.load(
        "cartpole-vectors", ["planner.candidates=50", "planner.elites=10", "planner.iterations=3"]
    )
    return Agent.build(settings, spec, untrained_model(settings, spec), device=torch.device("cpu"))


def main(run: str | None = None, seconds: float = 5.0, clock: Clock | None = None) -> None:
    """Control the arm and print how it went."""
    agent = untrained() if run is None else Agent.load(run)
    loop = control(Arm(), agent, seconds, clock)
    rounds = f"{loop.rounds} of {len(loop.times.ms)}"
    print(f"ticks: {loop.counts}, missed: {loop.missed}; rounds of search: {rounds}")
    if loop.latency_ms:  # a decision has ended
        middle, worst = np.median(loop.latency_ms), max(loop.latency_ms)
        print(f"from frame to plan: {middle:.1f} ms, at worst {worst:.1f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:2])
