"""Control a robot at a fixed rate with what `planet train` learned.

    python docs/examples/control_loop.py runs/my-robot     # or no run: an untrained model, to see the loop turn

`Arm` stands for your robot: what it sees and how it is told to move. All else is what you would
write. Read docs/control.md for what the loop promises, and measure yours first: planet bench loop
runs/my-robot --hz 20
"""

import sys

import numpy as np
import torch

from planet_rssm import Agent, ControlLoop, config
from planet_rssm.control import Clock
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.world_model import untrained_model


class Arm:
    """A joint with a motor that is slower than the planner wishes: it moves at most 0.2 of its range a tick."""

    def __init__(self) -> None:
        self.motor = np.zeros(1, np.float32)  # what it really does, in [-1, 1]
        self.angle = self.speed = 0.0

    def observe(self) -> dict[str, np.ndarray]:
        """Return what the robot sees, by the names that its model was trained with."""
        return {"joint": np.array([np.cos(self.angle), np.sin(self.angle), self.speed], np.float32)}

    def move(self, action: np.ndarray) -> None:
        """Have the motor do its best towards `action` [1] for a tick."""
        self.motor = self.motor + np.clip(action - self.motor, -0.2, 0.2)
        self.speed += 0.05 * (9.8 * np.sin(self.angle) + 5.0 * float(self.motor[0]))
        self.angle += 0.05 * self.speed


def control(robot: Arm, agent: Agent, seconds: float, clock: Clock | None = None) -> ControlLoop:
    """Act for a while; return the loop, which has counted what became of each tick."""
    loop = ControlLoop(
        agent,
        hz=20,
        budget_ms=40,  # of the 50 ms that a tick lasts: as many rounds of search as fit
        # act at once on what was planned from the last frame; its plan foresaw the action between
        delay=1,
        fallback="zero",  # when not even an old plan is left
        clock=clock,
    )
    with loop:
        for tick in range(round(seconds * loop.hz)):
            # the second argument is what the motors did, which is not quite what they were told to
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
    """Control the arm and tell how it went."""
    agent = untrained() if run is None else Agent.load(run)
    loop = control(Arm(), agent, seconds, clock)
    print(
        f"ticks: {loop.counts}, missed: {loop.missed}; rounds of search: {loop.rounds} of {len(loop.times.ms)}"
    )
    if loop.latency_ms:  # a decision has ended
        print(
            f"from frame to plan: {np.median(loop.latency_ms):.1f} ms, at worst {max(loop.latency_ms):.1f} ms"
        )


if __name__ == "__main__":
    main(*sys.argv[1:2])
