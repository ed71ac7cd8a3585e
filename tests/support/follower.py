"""The second process of test_team: it learns together with the test, one learner after another."""

import sys

import torch

from planet_rssm.training.follow import take_steps
from planet_rssm.training.team import Team

if __name__ == "__main__":
    torch.set_num_threads(1)
    with Team.joined() as team:
        for _ in range(int(sys.argv[1])):
            take_steps(team)
