"""Counter-based random streams: every draw is named by (run seed, stream, index).

So no random state is ever stored. The index is the episode, update or decision that the draw
belongs to. A run that resumes therefore repeats the same draws, whatever happened to the process
that made them first.
"""

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a random stream is used for; the numbers never change, or runs would not repeat."""

    INIT = 0  # initial weights, index = none for the model, 1 for behaviour
    RANDOM_ACTIONS = 1  # seed episodes, index = episode
    COLLECT = 2  # seed of the agent that collects, index = round
    RESET = 3  # environment resets of training episodes, index = episode
    BATCH = 4  # chunks drawn from the replay, index = update
    UPDATE = 5  # noise inside the loss, index = update
    TEST = 6  # seed of the agent that is tested, index = round
    TEST_RESET = 7  # environment resets of test episodes, index = episode of the test
    PLAN = 8  # an agent's own draws, index = (observation, 0) to filter, (observation, 1) to decide
    DATA_RESET = 9  # environment resets of `planet collect`, index = episode of the set
    DATA_ACTIONS = 10  # seed of the policy that `planet collect` acts with
    DREAM = 11  # noise of imagined trajectories (run seed 0), index = batch of starts
    # candidates and noise of `planet diagnose` (run seed 0 scored, 1 judged), index = observation
    DIAGNOSE = 12
    # an evaluated agent's draws (run seed 0), index = (episode seed, observation, 0 filter or 1
    # decide)
    EVALUATE = 13
    BEHAVIOR = 14  # noise of the imagination that behaviour learns in, index = update
    EXPLAIN = 15  # the actor's draws that an explained decision shows (run seed 0), no index


def stream_seed(run_seed: int, stream: Stream, *index: int) -> int:
    """Return the 63-bit seed of one draw, for `default_rng` or `torch.Generator.manual_seed`."""
    sequence = np.random.SeedSequence(run_seed, spawn_key=(int(stream), *index))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
