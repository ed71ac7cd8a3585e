"""Settings of the planner, and which planner reads which of them."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from planet_rssm.base.plugins import FORM
from planet_rssm.config.values import (
    Count,
    NonNegative,
    Number,
    Positive,
    Precision,
    Section,
    Share,
    Switch,
)

# The settings of the planner that each planner reads. The actor does not search: it reads none of a
# search's.
_SEARCH = frozenset(
    "horizon candidates iterations warm_start discount precision fast rollout particles risk "
    "proposals proposal_share terminal_value".split()
)
_FITTED = _SEARCH | {"elites", "init_std", "min_std", "max_std", "momentum"}
READS: dict[str, frozenset[str]] = {
    "cem": _FITTED,
    "icem": _FITTED | {"colour", "decay", "reuse"},
    "mppi": _FITTED | {"temperature", "weigh", "act_by"},
    "shooting": _SEARCH,
    "actor": frozenset({"act_by", "precision"}),
}
PLANNERS = tuple(READS)
_BY_ELITES = {"elites", "min_std", "max_std"}  # mppi reads them only where it weighs elites


class PlannerSettings(Section):
    """How actions are searched for.

    Spreads are in halves of an action's range; None is the planner's own default.
    """

    # who decides: one of PLANNERS, or a Planner as module:Class; the actor needs `behavior`
    name: str = "cem"
    horizon: Count = 12  # agent steps
    candidates: Count = 1000
    iterations: Count = 10
    elites: Count = 100
    init_std: Positive | None = None  # icem and mppi 0.5, else 1
    min_std: NonNegative | None = None  # mppi by elites 0.05, else 0
    max_std: Positive | None = None  # mppi by elites 2, else no bound
    # share of the old distribution that is kept; icem 0.1, else 0
    momentum: Annotated[Number, Field(ge=0, lt=1)] | None = None
    # begin with the last plan, shifted; icem and mppi do, cem and shooting do not
    warm_start: Switch | None = None
    discount: Share = 1.0  # of one agent step
    # auto: while training train.precision, else what is fast on this machine
    precision: Precision = "auto"
    # prepared weights, and captured graphs on a CUDA device; false: the plain path, a check of it
    fast: Switch = True
    # triton: all steps of a learned model in one kernel, on a CUDA device; no GPU has timed it yet
    rollout: Literal["torch", "triton"] = "torch"
    particles: Count = 1  # times that a stochastic model follows each candidate
    # of particles: mean, worst, or mean of this worst share (CVaR)
    risk: Literal["mean", "worst"] | Share = "mean"
    colour: NonNegative = 2.5  # icem: exponent of the noise spectrum, 0 = white
    # icem: the population shrinks by this factor a round
    decay: Annotated[Number, Field(ge=1)] = 1.25
    # icem: share of the elites kept for the next round and decision
    reuse: Annotated[Number, Field(ge=0, le=1)] = 0.3
    # mppi: in units of the return; None: the spread of a round's returns
    temperature: Positive | None = None
    # mppi: candidates that count; elites (TD-MPC2) also refit the spread
    weigh: Literal["all", "elites"] = "all"
    # mppi by elites: the mean, or one drawn by its weight; actor: a sample
    act_by: Literal["mean", "draw"] = "mean"
    # whose sequences take the place of some candidates
    proposals: Literal["none", "actor"] = "none"
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
        self._check_elites()
        if self.rollout == "triton" and not self.fast:
            raise ValueError(
                "planner.rollout = 'triton': not with planner.fast = false, the plain path; "
                "set one of them back"
            )
        helped = [key for key in ("proposals", "terminal_value") if getattr(self, key) != "none"]
        if self.name == "actor" and helped:
            fix = " and ".join(f"planner.{key}=none" for key in helped)
            raise ValueError(
                f"planner.{helped[0]} = {getattr(self, helped[0])!r}: planner.name = 'actor' "
                f"decides without a search; set {fix}, or planner.name=cem"
            )
        if self.name == "mppi" and self.act_by == "draw" and self.weigh != "elites":
            raise ValueError(
                f"planner.act_by = 'draw': not with planner.weigh = {self.weigh!r}; "
                "set it to elites"
            )
        if "min_std" in self.read and self.min_std and self.max_std and self.min_std > self.max_std:
            raise ValueError(
                f"planner.min_std = {self.min_std}: at most planner.max_std = {self.max_std}; "
                "change one of them"
            )
        return self

    def _check_elites(self) -> None:
        line = f"planner.elites = {self.elites}: {{}} planner.candidates = {self.candidates}; "
        line += "lower the first or raise the second"
        if "elites" in self.read and self.elites > self.candidates:
            raise ValueError(line.format("at most"))
        if self.name == "icem" and 2 * self.elites > self.candidates:
            raise ValueError(line.format("icem takes at most half of"))


def unused(settings: PlannerSettings, keys: Iterable[str]) -> str | None:
    """Return the error line for the first of `keys` that the chosen planner does not read.

    Args:
        settings: the planner's.
        keys: dotted keys that somebody has given, of any section.
    """
    for key in keys:
        section, _, name = key.partition(".")
        known = section == "planner" and name in type(settings).model_fields and name != "name"
        if known and name not in settings.read:
            by = [planner for planner, read in READS.items() if name in read]
            if name in _BY_ELITES:
                by = [
                    f"{planner} with planner.weigh=elites" if planner == "mppi" else planner
                    for planner in by
                ]
            return (
                f"{key} = {getattr(settings, name)!r}: planner.name = {settings.name!r} does not "
                f"use it, only {', '.join(by)}; leave it out, or choose another planner.name"
            )
    return None


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
    """Return the error line where `asked`, see `learned_parts`, meets a run without such parts."""
    return (
        f"{asked}: this run learns no actor and critic; "
        "train one that does: planet train PRESET -s behavior=v3"
    )
