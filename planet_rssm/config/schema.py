"""What can be set: typed, frozen and validated sections, each field with its default and what it means."""

import math
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from planet_rssm.base.plugins import FORM

FORMAT = 1

PlannerName = Literal["cem", "icem", "mppi", "shooting", "actor"]
PLANNERS: tuple[str, ...] = get_args(PlannerName)
SMALLEST, LARGEST = 16, 512  # pixels a side of an image
V3_SIDE, V3_LAYERS = (
    4,
    5,
)  # DreamerV3's convolutions halve an image down to this side or more, at most so often


def _whole(value: Any) -> Any:  # noqa: ANN401 (whatever a file holds)
    """Return 1e6, which YAML reads as text, as the whole number that it is; anything else as it came."""
    try:
        number = float(value) if isinstance(value, str) and "e" in value.lower() else 0.5
    except ValueError:
        return value
    return int(number) if number.is_integer() else value


def _number(value: Any) -> Any:  # noqa: ANN401
    """Refuse yes and no, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "must be a number, not a yes or no")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_whole), BeforeValidator(_number)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Switch = Annotated[bool, Field(strict=True)]  # true or false, not what Python takes for one
Count = Annotated[Whole, Field(ge=1, le=2**53)]  # a whole number that no tool rounds
Share = Annotated[Number, Field(gt=0, le=1)]
Layers = Annotated[
    Whole, Field(ge=0, le=1000)
]  # beyond that it is a mistake that would take hours to build


def _names(value: Any) -> Any:  # noqa: ANN401
    """Return a list of the names that are written as one text, `a,b`; numbers are those of a Tuple's parts."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    return [
        str(part) if isinstance(part, int) and not isinstance(part, bool) else part
        for part in parts
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value of YAML as it is, but 1e-3, which YAML reads as text, as the number that it is.

    Raises:
        ValueError: something that JSON has no word for.
    """
    if isinstance(value, str):
        return float(value) if _EXPONENT.fullmatch(value) else value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    if (
        value is None
        or isinstance(value, bool | int)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise ValueError(
        f"{value!r} is no number, text, list or mapping of such; quote it to have a text"
    )


def _arguments(value: Any) -> Any:  # noqa: ANN401
    """Return the arguments of an environment, checked as far as can be without it."""
    if not isinstance(value, dict):
        return value  # refused as no mapping
    for name, part in value.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise PydanticCustomError("name", "must name arguments, env.kwargs.NAME=value")
        if name in _OURS:
            raise PydanticCustomError("ours", f"must not have {name}, which {_OURS[name]} decides")
        try:
            _plain(part)
        except ValueError as error:
            raise PydanticCustomError("value", "must have plain values, but {name}: {error}",
                                      {"name": name, "error": str(error)}) from None  # fmt: skip
    return _plain(value)


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_OURS = {
    "render_mode": "env.observe",
    "max_episode_steps": "env.time_limit",
    "disable_env_checker": "planet",
    "id": "env.id",
}
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_names)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments)]


Activation = Literal["relu", "elu", "silu"]
Norm = Literal["none", "layer", "rms"]


# DreamerV3's sizes: deter, hidden, classes, depth, units
SIZES = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}
Size = Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m"]

# of matrix products and convolutions; auto: bfloat16 where this machine is faster in it, else
# float32
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnvSettings(_Section):
    """What is acted in and how it is seen."""

    id: str = "dmc/cheetah-run"
    observe: Literal["pixels", "vectors", "both"] = "pixels"
    size: Annotated[Whole, Field(ge=SMALLEST, le=LARGEST)] = 64  # pixels a side
    renderer: Literal["auto", "egl", "osmesa", "glfw", "raycast", "own", "none"] = "auto"
    time_limit: Count | None = (
        None  # control steps until an episode is truncated; None: the environment's own
    )
    action_repeat: Count | None = None  # None: the domain's own, see envs.registry
    step_timeout: Positive = (
        60.0  # seconds before a silent worker is replaced; to start it has twice that, at least 30
    )
    drop: Names = ()  # observations that are left out, by name: a,b or [a, b]
    keys: Names = ()  # all that are seen, by name; (): every one
    kwargs: Arguments = {}  # of what makes the environment, each written as env.kwargs.NAME


FirstAction = Literal["zeros", "kept"]


class DataSettings(_Section):
    """The replay."""

    capacity: Count = 1_000_000  # frames; the oldest episodes leave first
    first_action: FirstAction = (
        "zeros"  # what led to a chunk's first frame: forgotten, or kept (PlaNet's code)
    )
    folder: Annotated[str, Field(min_length=1)] | None = (
        None  # offline: learn from the episodes in this folder alone; None: collect
    )


Head = Literal["image", "vector", "reward", "continue"]
HEADS: tuple[Head, ...] = get_args(Head)
LATENTS = ("gaussian", "categorical")


class RSSMSettings(_Section):
    """The recurrent state-space model (PlaNet, arXiv 1811.04551, appendix A; DreamerV2 2010.02193; V3 2301.04104)."""

    kind: Literal["rssm", "ssm", "rnn"] = "rssm"  # ssm: stochastic only, rnn: deterministic only
    latent: str = (
        "gaussian"  # or categorical, or a Latent of your own as module:Class, see docs/extend.md
    )
    deter: Count = 200
    stoch: Count = 30  # dimensions of a Gaussian latent, variables of a categorical one
    classes: Annotated[Whole, Field(ge=2)] = 32  # of each categorical variable
    hidden: Count = 200
    cell: Literal["gru", "norm_gru", "tf_gru"] = (
        "gru"  # tf_gru: TensorFlow's GRUBlockCell, as PlaNet's code has it
    )
    blocks: Annotated[Whole, Field(ge=0)] = (
        0  # of DreamerV3's block-diagonal GRU; 0: the plain `cell`
    )
    recurrent_depth: Annotated[Layers, Field(ge=1)] = 1  # times that the cell is applied a step
    input_layers: Layers = 1  # dense layers before the cell
    prior_layers: Layers = 1
    posterior_layers: Layers = 1
    act: Activation = "relu"
    norm: Norm = "none"
    mean: Literal["none", "tanh5"] = (
        "none"  # Gaussian: what the mean goes through, nothing or 5 tanh(x / 5)
    )
    std: Literal["softplus", "sigmoid2"] = (
        "softplus"  # Gaussian: how the standard deviation is made positive
    )
    min_std: NonNegative = 0.1
    unimix: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # categorical: share of the uniform distribution
    )
    initial: Literal["zeros", "learned"] = "zeros"
    filter_by: Literal["sample", "mode"] = (
        "sample"  # how an agent's belief is taken from the posterior
    )
    plan_by: Literal["sample", "mode"] = "sample"  # how planned states are taken from the prior

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.latent not in LATENTS and not FORM.fullmatch(self.latent):
            raise ValueError(
                f"rssm.latent = {self.latent!r}: must be {', '.join(LATENTS)} or module:Class"
            )
        if self.blocks and self.deter % self.blocks:
            raise ValueError(
                f"rssm.blocks = {self.blocks}: must divide rssm.deter = {self.deter}; change one of them"
            )
        if self.blocks and self.cell != "gru":
            raise ValueError(
                f"rssm.cell = {self.cell!r}: has no blocks; set rssm.blocks=0, or leave rssm.cell=gru"
            )
        if self.kind == "ssm" and not self.input_layers:
            raise ValueError("rssm.input_layers = 0: an ssm needs at least 1; set it")
        return self


class KLSettings(_Section):
    """How far posterior and prior may be apart, and who moves."""

    form: Literal["plain", "balanced"] = "plain"
    free: Literal["step", "mean"] = (
        "step"  # what free_nats are compared with: each step's KL, or the batch's mean
    )
    free_nats: NonNegative = 3.0  # with "balanced" for each of its two terms
    dyn: NonNegative = 1.0  # balanced: weight of KL(sg posterior || prior)
    rep: NonNegative = 0.1  # balanced: weight of KL(posterior || sg prior)
    scale: NonNegative = 1.0
    overshooting: Annotated[Whole, Field(ge=0, le=10_000)] = (
        0  # steps ahead of latent overshooting, 0 or 1 for none
    )
    overshooting_scale: NonNegative = 1.0


class ModelSettings(_Section):
    """Encoder, decoder and heads."""

    size: Size | None = None  # DreamerV3's: stands for widths here and in rssm, see SIZES
    conv: Literal["planet", "dreamer-v3"] = "planet"
    conv_act: Activation = "relu"  # of planet's convolutions; dreamer-v3's have `act` and `norm`
    depth: Count = 32  # channels of the first convolution
    pixels: Literal["quantised", "scaled"] = (
        "quantised"  # 5 bits and noise (PlaNet), or divided by 255 (Dreamer)
    )
    vector_layers: Annotated[Layers, Field(ge=1)] = 2  # of the vectors' encoder and decoder
    vector_units: Count = 200
    act: Activation = "relu"  # of vectors' networks and heads
    norm: Norm = "none"
    init: Literal["torch", "trunc_normal"] = "torch"  # of weights; the second is DreamerV3's
    reward: Literal["gaussian", "twohot", "symlog_twohot"] = (
        "gaussian"  # two-hot: over the values, or their symlog
    )
    reward_layers: Layers = 2
    reward_units: Count = 200
    reward_outscale: NonNegative = (
        1.0  # of the last layer's first weights; 0: an untrained head says 0
    )
    continue_layers: Layers = 2
    continue_units: Count = 200
    continue_discount: Share = (
        1.0  # the continue head's target where an episode goes on (DreamerV3: 1 - 1 / 333)
    )
    decode_fraction: Share = (
        1.0  # share of the frames of a batch that is decoded for the image loss
    )
    image_scale: NonNegative = 1.0
    vector_scale: NonNegative = 1.0
    reward_scale: NonNegative = 10.0
    continue_scale: NonNegative = 1.0  # where the environment ends episodes by itself
    grad_heads: tuple[Head, ...] = HEADS  # heads whose losses also train what they read
    terms: tuple[str, ...] = ()  # loss terms of your own, each module:Class, see docs/extend.md

    @model_validator(mode="after")
    def _check(self) -> Self:
        for term in self.terms:
            if not FORM.fullmatch(term):
                raise ValueError(f"model.terms names {term!r}: each must be module:Class")
        return self


class OptimizerSettings(_Section):
    """Gradient clipping and the step."""

    name: Literal["adam", "adamw", "laprop"] = "adam"  # laprop: DreamerV3's, with adaptive clipping
    lr: Positive = 1e-3
    eps: Positive = 1e-4
    clip: Positive = 1000.0  # of the global norm
    agc: Positive = 0.3  # laprop: a tensor's gradient is clipped to this share of its weights' norm
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: NonNegative = 0.0
    warmup: Annotated[Whole, Field(ge=0)] = 0  # updates over which lr grows from 0


# What the recipes of behaviour differ in from the third, which is BehaviorSettings' own.
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


class BehaviorSettings(_Section):
    """An actor and a critic that learn in imagination (Dreamer, arXiv 1912.01603; V2 2010.02193; V3 2301.04104).

    `name` alone stands for all the rest, see RECIPES; what is given beside it wins. `behavior=v3`
    is short for it.
    """

    name: Literal["none", "v1", "v2", "v3"] = "none"
    objective: Literal["auto", "dynamics", "reinforce", "mix"] = (
        "reinforce"  # auto: reinforce for choices
    )
    mix: Share = 0.1  # mix: the share of the dynamics' gradient
    horizon: Count = 15  # agent steps imagined
    discount: Share = 0.997  # of one agent step; 1 - 1 / 333
    trace: Annotated[Number, Field(ge=0, le=1)] = 0.95  # the lambda of lambda-returns
    action: Literal["normal", "trunc_normal", "tanh_normal"] = "normal"  # how numbers are drawn
    unimix: Annotated[float, Field(ge=0, lt=1)] = (
        0.01  # of choices: share of the uniform distribution
    )
    entropy: NonNegative = 3e-4  # weight of the actor's entropy
    weigh_entropy: Switch = True  # at each step by how likely it is to be reached
    weights: Literal["reached", "head", "late"] = (
        "reached"  # of imagined steps: see behavior.learning, _weights
    )
    subtract_value: Switch = (
        False  # dynamics: take the critic's value, gradient and all, off the return
    )
    normalise: Literal["none", "percentiles"] = (
        "percentiles"  # what returns are divided by: 1, or the range of theirs
    )
    critic: Literal["gaussian", "twohot", "symlog_twohot"] = "twohot"
    slow: Literal["none", "target", "regulariser"] = (
        "regulariser"  # what the critic's slow copy is for
    )
    slow_every: Count = 1  # updates between two steps of the slow copy
    slow_share: Share = 0.02  # of the way that a step goes
    replay_value: NonNegative = (
        0.3  # weight of the critic's loss on the batch itself, which trains the model too
    )
    actor_layers: Layers = 3
    critic_layers: Layers = 3
    units: Count = 256
    actor_outscale: NonNegative = 0.01  # of the last layer's first weights
    critic_outscale: NonNegative = 0.0
    lr: Positive | None = 4e-5  # None: the model's, as for the next two
    eps: Positive | None = 1e-8
    clip: Positive | None = 100.0  # of the actor's norm and of the critic's


# The settings of the planner that each planner reads; of the actor's search nothing is read, it has
# none.
_SEARCH = frozenset("horizon candidates iterations warm_start discount precision fast particles risk proposals "
                    "proposal_share terminal_value".split())  # fmt: skip
_FITTED = _SEARCH | {"elites", "init_std", "min_std", "max_std", "momentum"}
READS: dict[str, frozenset[str]] = {
    "cem": _FITTED,
    "icem": _FITTED | {"colour", "decay", "reuse"},
    "mppi": _FITTED | {"temperature", "weigh", "act_by"},
    "shooting": _SEARCH,
    "actor": frozenset({"act_by", "precision"}),
}
_BY_ELITES = {"elites", "min_std", "max_std"}  # mppi reads them only where it weighs elites


class PlannerSettings(_Section):
    """How actions are searched for. Spreads are in halves of an action's range; None is the planner's own default."""

    # who decides: one of PLANNERS, or a SearchPlanner as module:Class; the actor needs `behavior`
    name: str = "cem"
    horizon: Count = 12  # agent steps
    candidates: Count = 1000
    iterations: Count = 10
    elites: Count = 100
    init_std: Positive | None = None  # icem and mppi 0.5, else 1
    min_std: NonNegative | None = None  # mppi by elites 0.05, else 0
    max_std: Positive | None = None  # mppi by elites 2, else no bound
    momentum: Annotated[Number, Field(ge=0, lt=1)] | None = (
        None  # share of the old distribution kept; icem 0.1, else 0
    )
    warm_start: Switch | None = (
        None  # begin with the last plan, shifted; icem and mppi do, cem and shooting do not
    )
    discount: Share = 1.0  # of one agent step
    precision: Precision = (
        "auto"  # auto: while training train.precision, else what is fast on this machine
    )
    # prepared weights, and captured graphs on a CUDA device; false: the plain path, a check of it
    fast: Switch = True
    particles: Count = 1  # times that a stochastic model follows each candidate
    risk: Literal["mean", "worst"] | Share = (
        "mean"  # of particles: mean, worst, or mean of this worst share (CVaR)
    )
    colour: NonNegative = 2.5  # icem: exponent of the noise spectrum, 0 = white
    decay: Annotated[Number, Field(ge=1)] = (
        1.25  # icem: the population shrinks by this factor a round
    )
    reuse: Annotated[Number, Field(ge=0, le=1)] = (
        0.3  # icem: share of the elites kept for the next round and decision
    )
    temperature: Positive | None = (
        None  # mppi: in units of the return; None: the spread of a round's returns
    )
    weigh: Literal["all", "elites"] = (
        "all"  # mppi: candidates that count; elites (TD-MPC2) also refit the spread
    )
    act_by: Literal["mean", "draw"] = (
        "mean"  # mppi by elites: the mean, or one drawn by its weight; actor: a sample
    )
    proposals: Literal["none", "actor"] = (
        "none"  # whose sequences take the place of some candidates
    )
    proposal_share: Share = 0.1  # of a round's candidates
    terminal_value: Literal["none", "critic"] = "none"  # what counts beyond the horizon

    @property
    def label(self) -> str:
        """The name in tables: with what helps the planner, as `cem+actor+critic`."""
        return "+".join(
            [self.name]
            + [helper for helper in (self.proposals, self.terminal_value) if helper != "none"]
        )

    @property
    def read(self) -> frozenset[str]:
        """The settings of this section that the chosen planner reads, beside `name`."""
        unread = _BY_ELITES if self.name == "mppi" and self.weigh == "all" else set()
        return READS.get(self.name, frozenset(type(self).model_fields)) - unread

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in PLANNERS and not FORM.fullmatch(name):
            names = ", ".join(PLANNERS)
            raise ValueError(f"planner.name = {name!r}: must be {names} or module:Class")
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "elites" in self.read and self.elites > self.candidates:
            raise ValueError(
                f"planner.elites = {self.elites}: at most planner.candidates = {self.candidates}; "
                "lower the first or raise the second"
            )
        if self.name == "icem" and 2 * self.elites > self.candidates:
            raise ValueError(
                f"planner.elites = {self.elites}: icem takes at most half of planner.candidates = {self.candidates}; "
                "lower the first or raise the second"
            )
        helped = [key for key in ("proposals", "terminal_value") if getattr(self, key) != "none"]
        if self.name == "actor" and helped:
            key, mend = helped[0], " and ".join(f"planner.{key}=none" for key in helped)
            raise ValueError(
                f"planner.{key} = {getattr(self, key)!r}: planner.name = 'actor' decides without a search; set {mend}, "
                "or planner.name=cem"
            )
        if self.name == "mppi" and self.act_by == "draw" and self.weigh != "elites":
            raise ValueError(
                f"planner.act_by = 'draw': not with planner.weigh = {self.weigh!r}; set it to elites"
            )
        if "min_std" in self.read and self.min_std and self.max_std and self.min_std > self.max_std:
            raise ValueError(
                f"planner.min_std = {self.min_std}: at most planner.max_std = {self.max_std}; change one of them"
            )
        return self


class TrainSettings(_Section):
    """The loop: collect a round of episodes, learn, test, checkpoint."""

    env_steps: Count = 1_000_000  # budget in simulator control steps, action repeats included
    offline_updates: Count = (
        10_000  # the budget instead where data.folder is set, in optimiser steps
    )
    seed_episodes: Count = 5  # random, before the first update
    envs: Count = 1  # episodes collected side by side, one round of collection
    updates: Count = 100  # optimiser steps a round
    batch_size: Count = 50
    batch_length: Annotated[Count, Field(ge=2)] = 50  # agent steps a chunk
    exploration_noise: NonNegative = (
        0.3  # std added to the planned action; of choices, the chance of a random one
    )
    test_every: Count = 10  # rounds between tests without noise
    test_episodes: Count = 1
    precision: Precision = "auto"  # a run keeps what auto chose when it began, see device.py
    keep: Count = 2  # newest checkpoints kept beside the best
    max_skipped: Count = 20  # updates in a row with a non-finite loss before the run stops


class Settings(_Section):
    """Everything that decides a run."""

    format: Annotated[Literal[1], BeforeValidator(_number)] = 1
    seed: Annotated[Whole, Field(ge=0, lt=2**64)] = 0
    device: Annotated[str, Field(min_length=1)] = "auto"
    env: EnvSettings = EnvSettings()
    data: DataSettings = DataSettings()
    rssm: RSSMSettings = RSSMSettings()
    kl: KLSettings = KLSettings()
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    behavior: BehaviorSettings = BehaviorSettings()
    planner: PlannerSettings = PlannerSettings()
    train: TrainSettings = TrainSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.behavior.name == "none" and (asked := learned_parts(self.planner)):
            raise ValueError(no_actor(asked))
        if (
            self.model.conv == "dreamer-v3"
            and self.env.observe != "vectors"
            and not v3_takes(self.env.size)
        ):
            raise ValueError(_other_sizes(self.env.size))
        batch = self.train.batch_size * self.train.batch_length
        if self.data.capacity < self.train.batch_length:
            raise ValueError(
                f"data.capacity = {self.data.capacity}: at least one chunk of train.batch_length = "
                f"{self.train.batch_length} frames; raise it"
            )
        if round(self.model.decode_fraction * batch) < 1:
            share = self.model.decode_fraction
            raise ValueError(
                f"model.decode_fraction = {share}: decodes none of a batch's {batch} frames; raise it"
            )
        return self


def v3_layers(size: int) -> int:
    """Return how often DreamerV3's convolutions halve an image of `size` pixels a side."""
    return min(int(math.log2(size / V3_SIDE)), V3_LAYERS)


def v3_takes(size: int) -> bool:
    """Return whether DreamerV3's convolutions halve such an image without a rest, and so can draw it again."""
    return size % 2 ** v3_layers(size) == 0


def _other_sizes(size: int) -> str:
    """Return the error line for a size that DreamerV3's convolutions cannot take, with the nearest that they can."""
    working = [other for other in range(SMALLEST, LARGEST + 1) if v3_takes(other)]
    below, above = (
        max(other for other in working if other < size),
        min(other for other in working if other > size),
    )
    return (
        f"env.size = {size}: model.conv = 'dreamer-v3' halves an image {v3_layers(size)} times, which leaves a rest; "
        f"use {below} or {above}, or model.conv=planet, which takes any"
    )


def learned_parts(settings: PlannerSettings) -> str | None:
    """Return a setting, as `key = value`, that needs an actor or a critic; None if none does."""
    needs = {"name": "actor", "proposals": "actor", "terminal_value": "critic"}
    return next(
        (
            f"planner.{key} = {value!r}"
            for key, value in needs.items()
            if getattr(settings, key) == value
        ),
        None,
    )


def no_actor(asked: str) -> str:
    """Return the error line where `asked`, see `learned_parts`, meets a run that has learned neither."""
    return f"{asked}: this run learns no actor and critic; train one that does: planet train PRESET -s behavior=v3"
