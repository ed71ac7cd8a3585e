"""How long a decision takes, beside planners written the usual way and the machine's products.

Everything runs in one process over the same weights, in turns, so that a busy machine slows all
alike. The reference `plain` is written as the planner of Kaixhin/PlaNet is: float32, eager, one
`imagine_step` after another with its noise drawn there, the rewards of all steps in one product;
for other planners it is our search over the model as it was learned (`planner.fast=false`), in
float32. More rivals can be given; scripts/bench_peers has those of other libraries.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from planet_rssm import config
from planet_rssm.agent import model_of
from planet_rssm.bench.plan_value import decider, planner_for, states_of, value_gaps
from planet_rssm.bench.turns import BenchResult, Machine, Say, in_turns, titled
from planet_rssm.config import PlannerSettings
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.planners import Objective, SearchPlanner, planner_from_settings
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, WorldModel, untrained_model

# Models whose decisions are timed.
PRESETS = {"gaussian": "planet", "categorical": "planet-discrete"}
PAPER = PlannerSettings()  # PlaNet's: 1000 sequences of 12 steps, ten times
# Its authors' 40 + 32 + 25 = 97.
ICEM = PlannerSettings(name="icem", candidates=40, iterations=3, elites=10)
ACTOR = PlannerSettings(name="actor")  # DreamerV3's, on PlaNet's model

Rival = Callable[[State], object]  # decides once for a state of one row
MakeRival = Callable[[WorldModel, PlannerSettings], Rival]


class Case(NamedTuple):
    """What is timed in each precision."""

    planner: PlannerSettings
    latent: str
    batch: int


@dataclass(frozen=True)
class PlanTiming:
    """Decisions of a case in one precision, beside others'."""

    planner: str
    latent: str
    batch: int
    precision: str
    ours_ms: float
    peers_ms: dict[str, float]  # by name, all float32
    ratio_to_fastest: float
    plans_per_s: float
    gflop: float  # of a decision
    gemm_share: float  # of the time that the products alone would take
    value_gap: float | None  # see `value_gaps`
    no_value_gap: str | None  # why there is none


CASES = (
    Case(PAPER, "gaussian", 1),
    Case(PAPER, "categorical", 1),
    Case(ICEM, "gaussian", 1),
    Case(ICEM, "gaussian", 16),
    Case(ACTOR, "gaussian", 1),
    Case(ACTOR, "gaussian", 16),
)


def bench_plan(
    cases: Sequence[Case] = CASES,
    precisions: Sequence[str] | None = None,
    runs: Sequence[Path] = (),
    *,
    repeats: int = 30,
    device: str = "auto",
    overrides: Sequence[str] = (),
    rivals: Mapping[str, MakeRival] | None = None,
    say: Say = lambda text: None,
) -> BenchResult[PlanTiming]:
    """Time decisions.

    Args:
        cases: what is planned.
        precisions: each is a case; None: float32, and bfloat16 unless it is slow here.
        runs: trained models; a case of the same latent reports what value its precision costs
            there, on average.
        repeats: decisions of each, taken in turns; fewer on a slow machine.
        device: where everything runs.
        overrides: `key=value` texts for the untrained models that are timed.
        rivals: planners of others by name, for CEM at batch 1.
        say: called with what is measured next.

    Raises:
        PlanetError: no such run, setting or device.
    """
    machine = Machine(device, precisions or (), say)
    where = machine.device
    trained = [_trained(run, where) for run in runs]
    models = {
        latent: _untrained(latent, overrides).to(where)
        for latent in dict.fromkeys(case.latent for case in cases)
    }
    timings = []
    for case in cases:
        model = models[case.latent]
        title = f"{name_of(case.planner)}, {case.latent}, batch {case.batch}"
        timed = _time(model, case, machine.precisions, repeats, rivals or {}, titled(say, title))
        say(f"{title}: value")
        of_latent = [model for model in trained if _latent(model) == case.latent]
        gaps = _gaps(of_latent, case, machine.precisions)
        machine.look()
        timings += [
            _timing(case, name, timed, gaps, machine.rates, _flops(model, case, name))
            for name in machine.precisions
        ]
    return machine.result(timings)


def name_of(settings: PlannerSettings) -> str:
    """Return the planner's name with its sequences, steps and rounds; an actor has none."""
    if settings.name == "actor":
        return settings.name
    planner = planner_from_settings(settings, 1)
    if not isinstance(planner, SearchPlanner):
        return settings.name
    counts = planner.populations
    shown = (
        f"{counts[0]}x{settings.horizon}x{len(counts)}"
        if len(set(counts)) == 1
        else str(sum(counts))
    )
    return f"{settings.name}-{shown}"


def plain_cem(model: WorldModel, settings: PlannerSettings) -> Rival:
    """Return the reference: CEM with the structure of Kaixhin/PlaNet's planner.

    See the head of this file.
    """
    size = model.spec.action_size
    count, horizon = settings.candidates, settings.horizon

    @torch.no_grad()
    def decide(state: State) -> Tensor:
        mean, std = torch.zeros(2, horizon, 1, size, device=state.deter.device)
        std = std + 1.0
        start = State(*(leaf.expand(count, -1) for leaf in state))
        for _ in range(settings.iterations):
            actions = (mean + std * torch.randn(horizon, count, size, device=mean.device)).clamp(
                -1, 1
            )
            reached, here = [], start
            for action in actions:
                noise = torch.randn(count, model.rssm.noise_size, device=mean.device)
                here = model.rssm.imagine_step(here, action, noise)
                reached.append(here)
            states = State(*(torch.cat(leaves) for leaves in zip(*reached, strict=True)))
            returns = model.predict_reward(states).view(horizon, count).sum(0)
            best = actions[:, returns.topk(settings.elites).indices]
            mean, std = best.mean(1, keepdim=True), best.std(1, unbiased=False, keepdim=True)
        return mean[0]

    return decide


def _time(
    model: WorldModel,
    case: Case,
    precisions: Sequence[str],
    repeats: int,
    rivals: Mapping[str, MakeRival],
    say: Say,
) -> dict[str, float]:
    """Return the median seconds of a decision in each precision and of each rival, in turns."""
    state = states_of(model, case.batch)
    deciders: dict[str, Rival] = {}
    for name in precisions:
        deciders[name] = decider(model, case.planner, name, case.batch)
    if case.planner.name == "cem" and case.batch == 1:
        deciders |= {
            name: make(model, case.planner) for name, make in {"plain": plain_cem, **rivals}.items()
        }
    else:
        slow = case.planner.model_copy(update={"fast": False})
        deciders["plain"] = decider(model, slow, "float32", case.batch)
    for name, decide in deciders.items():
        say(f"{name}, first")
        decide(state)
    return in_turns(
        {name: partial(decide, state) for name, decide in deciders.items()},
        repeats,
        state.deter.device,
        say,
    )


def _timing(
    case: Case,
    precision: str,
    timed: Mapping[str, float],
    gaps: Sequence[Mapping[str, float]] | str,
    rates: Mapping[str, float],
    flops: int,
) -> PlanTiming:
    ours = timed[precision]
    peers = {name: seconds for name, seconds in timed.items() if name not in rates}
    gap = None
    if not isinstance(gaps, str):
        gap = round(statistics.mean(one[precision] for one in gaps), 5)
    return PlanTiming(
        planner=name_of(case.planner),
        latent=case.latent,
        batch=case.batch,
        precision=precision,
        ours_ms=round(1000 * ours, 3),
        peers_ms={name: round(1000 * seconds, 3) for name, seconds in peers.items()},
        ratio_to_fastest=round(ours / min(peers.values()), 4),
        plans_per_s=round(case.batch / ours, 2),
        gflop=round(flops / 1e9, 3),
        gemm_share=round(flops / 1e9 / rates[precision] / ours, 4),
        value_gap=gap,
        no_value_gap=gaps if isinstance(gaps, str) else None,
    )


def _gaps(
    models: Sequence[WorldModel], case: Case, precisions: Sequence[str]
) -> list[dict[str, float]] | str:
    """Return what the precisions cost on each model, or why there is no such figure."""
    if case.planner.name == "actor":
        return "the actor that is timed is untrained"
    every = [value_gaps(model, case.planner, precisions) for model in models]
    if known := [gaps for gaps in every if gaps is not None]:
        return known
    if not models:
        return "no run of this latent, see --run"
    return "there float32 plans are worth no more than random ones"


def _flops(model: WorldModel, case: Case, precision: str) -> int:
    """Count the multiplications and additions of the products that one decision does."""
    settings = case.planner.model_copy(update={"iterations": 1})
    state = states_of(model, 1)
    planner = planner_for(model, settings)
    dynamics = ModelDynamics(model).prepare(precision) if settings.fast else ModelDynamics(model)
    first = torch.ones(1, dtype=torch.bool, device=state.deter.device)
    mapping = {}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        mapping[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    # It counts no product of a captured graph.
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        planner.plan(dynamics, Objective(), state, planner.initial(1, first.device), first)
    full = planner_for(model, case.planner)
    counts = full.populations if isinstance(full, SearchPlanner) else (1,)
    return round(counter.get_total_flops() / counts[0] * sum(counts)) * case.batch


def _linear_flops(
    x: torch.Size,
    weight: torch.Size,
    *rest: Any,  # noqa: ANN401
    out_shape: Any = None,  # noqa: ANN401
    **others: Any,  # noqa: ANN401
) -> int:
    return 2 * x.numel() * weight[0]


def _untrained(latent: str, overrides: Sequence[str]) -> WorldModel:
    """Return PlaNet's model for 6 actions; it observes a vector, which planning does not read."""
    settings = config.load(PRESETS[latent], ["env.observe=vectors", *overrides])
    return untrained_model(
        settings, EnvSpec("bench", {"vector": ((8,), "float32")}, 6, 1, 0.05, 1000, "none", "none")
    )


def _trained(run: Path, device: torch.device) -> WorldModel:
    return model_of(checkpoints.open_run(run, device=device).checkpoint).to(device)


def _latent(model: WorldModel) -> str:
    return model.rssm.settings.latent
