"""Ways to decide that take the same time: how wide and how long each search may be.

The times are measured on this machine, by number of rounds, as a control loop measures its own (see
`Agent.warmup`). What was chosen is fixed before anything is played, so no return depends on how
busy the machine is afterwards.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from planet_rssm import config
from planet_rssm.agent import RoundTimes
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.json_types import Json
from planet_rssm.config import Settings, no_actor

ACTOR = "actor"
_ALONE = {"proposals": "none", "terminal_value": "none"}
# by the name in tables, see PlannerSettings.label: the settings that make it so
WAYS: dict[str, dict[str, str]] = {
    ACTOR: {"name": "actor", **_ALONE},
    "cem": {"name": "cem", **_ALONE},
    "icem": {"name": "icem", **_ALONE},
    "mppi": {"name": "mppi", **_ALONE},
    "cem+actor+critic": {"name": "cem", "proposals": "actor", "terminal_value": "critic"},
}
# settings of the planner that are chosen here
CHOSEN = ("name", "candidates", "iterations", "elites", "proposals", "terminal_value")
# A search grows in both directions alike: `n` rounds of `n` times the smallest population.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
FEWEST = 4  # candidates: half of them are elites at most

# measures so many candidates, by rounds up to so many
Measure = Callable[[int, int], RoundTimes]


@dataclass(frozen=True)
class Search:
    """How much a decision searches; an actor: 0 candidates in 1 round."""

    candidates: int  # of the first round
    rounds: int
    ms: float  # of a decision, from observation to action, as it was measured beforehand
    precision: str = "auto"  # see PlannerSettings: what it was measured in
    latency_ms: dict[str, float] | None = None  # of decisions in an episode: p50 and p95

    @property
    def size(self) -> tuple[int, int, str]:
        """What decides the returns."""
        return self.candidates, self.rounds, self.precision

    def to_json(self) -> Json:
        """Return the values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """What fits into each time: `searches` by milliseconds; None: not even the `least` does."""

    searches: dict[float, Search | None]
    least: Search

    def to_json(self) -> Json:
        """Return what `from_json` reads."""
        searches = [[ms, search and search.to_json()] for ms, search in self.searches.items()]
        return {"searches": searches, "least": self.least.to_json()}

    @classmethod
    def from_json(cls, record: Json) -> "Timing":
        """Read it; KeyError, TypeError or ValueError if it is none."""
        searches = {ms: search and Search(**search) for ms, search in record["searches"]}
        return cls(searches, Search(**record["least"]))


def climb(measure: Measure, unit: int, most_ms: float) -> dict[int, RoundTimes]:
    """Measure searches from the smallest one up to those that take `most_ms`.

    Args:
        measure: measures them.
        unit: candidates of the smallest population.
        most_ms: milliseconds of the longest decision that is asked for.

    Returns:
        The times by number of candidates.
    """
    times: dict[int, RoundTimes] = {}
    fit = most = 1
    for step in STEPS:
        # where the last population had no time for all its rounds, this one has for no more
        most = step if fit == most else fit
        measured = times[step * unit] = measure(step * unit, most)
        fit = sum(ms <= most_ms for ms in measured.ms)
        # wide for so few rounds, and wider ones are more so; one round is never too wide
        if not fit or 1 < fit < step / 2:
            break
    return times


def choose(times: Mapping[int, RoundTimes], unit: int, budgets: Iterable[float]) -> Timing:
    """Choose the largest search for each of `budgets`, in milliseconds.

    That is the one that is the most times `unit` wide and the most rounds long, whichever is less;
    of those that are alike in it, the one with the most sequences.
    """
    first = min(times)
    return Timing(
        {budget: _largest(times, unit, budget) for budget in budgets},
        least=Search(first, 1, times[first].ms[0]),
    )


def _largest(times: Mapping[int, RoundTimes], unit: int, budget_ms: float) -> Search | None:
    fitting = []
    for candidates, measured in times.items():
        if measured.ms[0] <= budget_ms:
            rounds = measured.within(budget_ms)
            fitting.append(Search(candidates, rounds, measured.ms[rounds - 1]))

    def size(search: Search) -> tuple[float, int]:
        both = min(search.candidates / unit, search.rounds)
        return both, search.candidates * search.rounds

    return max(fitting, key=size, default=None)


def unit_of(settings: Settings) -> int:
    """Return the candidates of the smallest population: as many as the run has for each round."""
    planner = settings.planner
    return max(FEWEST, planner.candidates // planner.iterations)


def ways_of(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Return in which ways a run can decide; the others, and why it cannot."""
    if settings.behavior.name != "none":
        return list(WAYS), {}
    possible = [way for way in WAYS if ACTOR not in way]
    reason = no_actor("planner.name = 'actor'")
    return possible, {way: reason for way in WAYS if way not in possible}


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse settings that are chosen here.

    Raises:
        PlanetError: one of CHOSEN is among them.
    """
    for key, value in config.parse_overrides(overrides).items():
        section, _, name = key.partition(".")
        if section == "planner" and name in CHOSEN:
            raise PlanetError(
                f"-s {key}={value}: compare chooses it for each way to decide, by the time; "
                "leave it out"
            )


def settings_for(
    settings: Settings,
    way: str,
    candidates: int = 0,
    rounds: int = 1,
    overrides: Sequence[str] = (),
) -> Settings:
    """Return the settings by which a run decides in a `way`, with so large a search.

    The share of elites is the run's own. Of the `overrides` those count that this way reads. An
    actor has neither candidates nor rounds.

    Raises:
        PlanetError: an override is refused.
    """
    values: Json = dict(WAYS[way])
    if way != ACTOR:
        share = settings.planner.elites / settings.planner.candidates
        elites = min(max(2, round(share * candidates)), candidates // 2)
        values |= {"candidates": candidates, "iterations": rounds, "elites": elites}
    flat = config.flatten(settings)
    changed = config.resolve(flat | {f"planner.{key}": value for key, value in values.items()})
    return config.with_planner(changed, [text for text in overrides if _is_read(text, changed)])


def _is_read(override: str, settings: Settings) -> bool:
    """Return whether the planner of `settings` reads an override; others are none of its own."""
    section, _, name = override.partition("=")[0].strip().partition(".")
    fields = type(settings.planner).model_fields
    return section != "planner" or name not in fields or name in settings.planner.read
