"""Settings of the actor and the critic, and the recipes that their name stands for."""

from typing import Annotated, Any, Literal

from pydantic import Field

from planet_rssm.config.values import (
    Count,
    Layers,
    NonNegative,
    Number,
    Positive,
    Section,
    Share,
    Switch,
)

# What each recipe changes in BehaviorSettings' own defaults, which are DreamerV3's.
RECIPES: dict[str, dict[str, Any]] = {
    "none": {},
    "v1": {
        "objective": "dynamics",
        "action": "tanh_normal",
        "unimix": 0.0,
        "discount": 0.99,
        "entropy": 0.0,
        "normalise": "none",
        "critic": "gaussian",
        "slow": "none",
        "replay_value": 0.0,
        "actor_layers": 4,
        "units": 400,
        "actor_outscale": 1.0,
        "critic_outscale": 1.0,
        "lr": 8e-5,
        "eps": 1e-7,
    },
    "v2": {
        "objective": "auto",
        "action": "trunc_normal",
        "unimix": 0.0,
        "discount": 0.99,
        "entropy": 1e-4,
        "normalise": "none",
        "critic": "gaussian",
        "slow": "target",
        "slow_every": 100,
        "slow_share": 1.0,
        "replay_value": 0.0,
        "actor_layers": 4,
        "critic_layers": 4,
        "units": 400,
        "actor_outscale": 1.0,
        "critic_outscale": 1.0,
        "lr": 8e-5,
        "eps": 1e-5,
    },
    "v3": {},
}


class BehaviorSettings(Section):
    """An actor and a critic that learn in imagination.

    Dreamer (arXiv 1912.01603), DreamerV2 (2010.02193), DreamerV3 (2301.04104). `name` alone stands
    for all the rest, see RECIPES; what is given beside it wins. `behavior=v3` is short for it.
    """

    name: Literal["none", "v1", "v2", "v3"] = "none"
    # auto: reinforce for choices, dynamics for numbers
    objective: Literal["auto", "dynamics", "reinforce", "mix"] = "reinforce"
    mix: Share = 0.1  # mix: the share of the dynamics' gradient
    horizon: Count = 15  # agent steps imagined
    starts: Share = 1.0  # of a batch's states, how many imaginations begin there
    discount: Share = 0.997  # of one agent step; 1 - 1 / 333
    trace: Annotated[Number, Field(ge=0, le=1)] = 0.95  # the lambda of lambda-returns
    action: Literal["normal", "trunc_normal", "tanh_normal"] = "normal"  # how numbers are drawn
    # of choices: share of the uniform distribution
    unimix: Annotated[float, Field(ge=0, lt=1)] = 0.01
    entropy: NonNegative = 3e-4  # weight of the actor's entropy
    weigh_entropy: Switch = True  # at each step by how likely it is to be reached
    # of imagined steps: see behavior.learning, _weights
    weights: Literal["reached", "head", "late"] = "reached"
    # dynamics: take the critic's value, gradient and all, off the return
    subtract_value: Switch = False
    # what returns are divided by: 1, or the range of theirs
    normalise: Literal["none", "percentiles"] = "percentiles"
    critic: Literal["gaussian", "twohot", "symlog_twohot"] = "twohot"
    # what the critic's slow copy is for
    slow: Literal["none", "target", "regulariser"] = "regulariser"
    slow_every: Count = 1  # updates between two steps of the slow copy
    slow_share: Share = 0.02  # of the way that a step goes
    # weight of the critic's loss on the batch itself, which trains the model too
    replay_value: NonNegative = 0.3
    actor_layers: Layers = 3
    critic_layers: Layers = 3
    units: Count = 256
    actor_outscale: NonNegative = 0.01  # of the last layer's first weights
    critic_outscale: NonNegative = 0.0
    lr: Positive | None = 4e-5  # None: the model's, as for the next two
    eps: Positive | None = 1e-8
    clip: Positive | None = 100.0  # of the actor's norm and of the critic's
