"""Ways to decide in equal time: what is chosen by a clock of our own, and what is played then."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy, RoundTimes, parts_of, timing
from planet_rssm.base.errors import PlanetError
from planet_rssm.behavior import untrained_behavior
from planet_rssm.envs.registry import resolve
from planet_rssm.evaluation import equal_time, timed_ways
from planet_rssm.evaluation.compare import compare
from planet_rssm.evaluation.equal_time import (
    STEPS,
    WAYS,
    Search,
    check_overrides,
    choose,
    climb,
    settings_for,
    unit_of,
)
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.evaluation.opened_run import Pools
from planet_rssm.evaluation.protocol import play
from planet_rssm.evaluation.timed_ways import TimedWays
from planet_rssm.planners import SearchPlanner
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.simulator.local import LocalPool
from planet_rssm.world_model import untrained_model

TINY = """
    env.id=dmc/cartpole-swingup env.observe=vectors env.renderer=none env.action_repeat=4
    env.time_limit=20 rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.vector_units=8
    model.reward_units=8 behavior=v3 behavior.units=8 planner.name=actor planner.candidates=12
    planner.iterations=3 planner.elites=3 planner.horizon=2 device=cpu
""".split()
UNIT = 4
SEEDS = [1000, 1001, 1002]


def measured(fixed: float, of_round: float, of_candidate: float):
    """Return a machine that takes so many ms: always, for each round, for each candidate in it."""

    def measure(candidates: int, rounds: int) -> RoundTimes:
        each = of_round + of_candidate * candidates
        return RoundTimes(tuple(fixed + each * count for count in range(1, rounds + 1)))

    return measure


def fitting(budget: float, measure, unit: int = 33) -> Search | None:
    return choose(climb(measure, unit, budget), unit, [budget]).searches[budget]


def test_a_search_grows_in_both_directions_alike():
    found = fitting(50.0, measured(1, 1, 0.01))
    # 6 rounds of 6 × 33 take 19 ms, 8 of 8 × 33 take 30, 12 of 12 × 33 take 60
    assert (found.candidates, found.rounds) == (12 * 33, 9)
    assert found.ms == pytest.approx(1 + 9 * (1 + 0.01 * 12 * 33))


def test_one_round_that_fits_has_as_many_candidates_as_fit():
    found = fitting(5.0, measured(1, 2.5, 0.01))
    assert (found.candidates, found.rounds) == (4 * 33, 1)  # 6 × 33 take 5.5 ms


def test_where_the_smallest_does_not_fit_its_time_is_told():
    timing_of = choose(climb(measured(1, 2, 0.1), 33, 6.0), 33, [1.0, 6.0])
    assert timing_of.searches == {1.0: None, 6.0: None}
    assert timing_of.least.ms == pytest.approx(1 + 2 + 3.3)


@pytest.mark.parametrize("machine", [(0.5, 1, 0.01), (2, 0.1, 0.2), (0, 0.01, 0.0001)])
def test_more_time_never_searches_less_and_what_is_chosen_fits(machine):
    budgets = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0]
    times = climb(measured(*machine), 33, max(budgets))
    chosen = choose(times, 33, budgets).searches
    sizes = [min(s.candidates / 33, s.rounds) if s else 0 for s in chosen.values()]
    assert sizes == sorted(sizes)
    assert all(s is None or s.ms <= budget for budget, s in chosen.items())
    assert max(times) <= STEPS[-1] * 33


def test_no_search_is_measured_that_takes_much_longer_than_the_longest_time():
    made = []

    def measure(candidates: int, rounds: int) -> RoundTimes:
        times = measured(1, 1, 0.05)(candidates, rounds)
        made.append(times.ms[-1])
        return times

    climb(measure, 33, 100.0)
    assert max(made) < 2 * 100


@pytest.mark.parametrize("way", WAYS)
def test_the_settings_of_a_way(way):
    own = config.load("planet", TINY)
    settings = settings_for(own, way, 32, 2, ["planner.colour=0.5", "rssm.plan_by=mode"])
    planner = settings.planner
    assert planner.label == way and settings.rssm.plan_by == "mode"
    if way != "actor":
        assert (planner.candidates, planner.iterations, planner.elites) == (32, 2, 8)
    assert planner.colour == (0.5 if way == "icem" else own.planner.colour)
    assert unit_of(own) == UNIT


def test_helpers_of_the_runs_own_search_are_left_to_the_way_that_has_them():
    own = config.load("planet", [*TINY, "planner.name=cem", "planner.proposals=actor"])
    assert settings_for(own, "actor").planner.label == "actor"
    assert settings_for(own, "mppi", 8, 1).planner.label == "mppi"


def test_what_is_chosen_by_the_time_is_not_given():
    with pytest.raises(PlanetError, match=r"-s planner\.candidates=5: compare chooses it"):
        check_overrides(["planner.candidates=5"])
    with pytest.raises(PlanetError, match=r"-s rssm\.deter=9: only"):
        settings_for(config.load("planet", TINY), "cem", 8, 1, ["rssm.deter=9"])


def untrained(folder: Path, words: list[str]) -> Path:
    """Make a run folder whose checkpoint has learned nothing."""
    settings = config.load("planet", words)
    settings = settings.model_copy(update={"env": resolve(settings.env)})
    spec = LocalPool(settings.env).spec
    model = untrained_model(settings, spec)
    behavior = untrained_behavior(settings, model)
    learned = dict(behavior.state_dict()) if behavior else {}
    return written(
        Checkpoint(settings, spec, {"env_steps": 1}, dict(model.state_dict()), {}, learned), folder
    )


def written(checkpoint: Checkpoint, folder: Path) -> Path:
    (folder / location.FOLDER).mkdir(parents=True)
    checkpoints.save(checkpoint, location.path_of(folder, 1))
    return folder


@pytest.fixture(scope="module")
def run(at_hand, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return untrained(tmp_path_factory.mktemp("equal") / "run", TINY)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a decision moves: 1 ms, 1 for a round and 0.1 for each candidate in it."""
    now = SimpleNamespace(seconds=0.0, decisions=0)
    decide = Agent.decide

    def timed(agent, carry, *, rounds=None, **options):
        planner = agent.planner
        sizes = planner.populations[:rounds] if isinstance(planner, SearchPlanner) else ()
        now.seconds += (1 + sum(1 + 0.1 * size for size in sizes)) / 1000
        now.decisions += 1
        return decide(agent, carry, rounds=rounds, **options)

    monkeypatch.setattr(timed_ways, "REPEATS", 1)  # this clock is exact
    monkeypatch.setattr(equal_time, "STEPS", (1, 2, 3, 4, 6))
    monkeypatch.setattr(Agent, "decide", timed)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def compared(*args, **options) -> dict:
    return compare(*args, **options).to_json()


def test_each_way_gets_what_fits_and_plays_the_seeds_of_eval(run, clock):
    result = compared([str(run)], [0.5, 6.0, 12.0], SEEDS)
    (group,) = result["groups"]
    assert result["errors"] == [] and group["left_out"] == {}
    cells = {(cell["way"], cell["ms"]): cell for cell in group["cells"]}
    assert list(dict.fromkeys(way for way, _ in cells)) == list(WAYS)
    assert all(cells[way, 0.5]["mean"] is None for way in WAYS)
    assert cells["actor", 0.5]["least_ms"] == 1.0 and cells["cem", 0.5]["least_ms"] == 2.4
    # 1 + 2 (1 + 1.2) ms; 1 + 4 (1 + 1.6) ms
    for ms, size in ((6.0, (12, 2)), (12.0, (16, 4))):
        for way in ("cem", "mppi", "cem+actor+critic"):
            cell = cells[way, ms]
            assert (cell["candidates"], cell["rounds"]) == size and cell["fitted_ms"] <= ms
    played = cells["cem", 12.0]["episodes"][str(run)]
    assert [episode["seed"] for episode in played] == SEEDS
    assert cells["actor", 6.0]["episodes"] == cells["actor", 12.0]["episodes"]
    assert set(cells["icem", 6.0]["latency_ms"]) == {"p50", "p95"}
    json.dumps(result)

    # the same as eval's, which finds the episodes kept
    words = ["planner.name=cem", "planner.candidates=16", "planner.iterations=4"]
    words += ["planner.elites=4"]
    before = clock.decisions
    kept = evaluate([str(run)], SEEDS, overrides=words, device="cpu").to_json()
    assert kept["results"][0]["episodes"] == played and clock.decisions == before


def test_what_was_interrupted_goes_on_with_the_same_choice(run, clock, monkeypatch, tmp_path):
    folder = written(checkpoints.load(location.path_of(run, 1)), tmp_path / "again")
    first = compared([str(folder)], [3.0, 9.0], SEEDS[:2])
    decisions = clock.decisions
    monkeypatch.setattr(Agent, "warmup", lambda *_, **__: pytest.fail("measured again"))
    again = compared([str(folder)], [3.0, 9.0], SEEDS)  # one episode more
    assert clock.decisions > decisions
    for before, after in zip(first["groups"][0]["cells"], again["groups"][0]["cells"], strict=True):
        for key in ("way", "ms", "candidates", "rounds", "fitted_ms", "latency_ms"):
            assert before[key] == after[key]
        for name, episodes in before["episodes"].items():
            assert after["episodes"][name][:2] == episodes
    (times,) = (folder / "eval").glob("times-*.json")
    times.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="measured again"):  # damaged, and said so
        compared([str(folder)], [3.0, 9.0], SEEDS)


def test_seeds_of_a_run_are_one_group_that_is_timed_once(run, clock, tmp_path):
    kept = checkpoints.load(location.path_of(run, 1))
    folders = [tmp_path / name for name in ("a", "b", "other")]
    for folder, words in zip(folders, ([], ["seed=1"], ["rssm.plan_by=mode"]), strict=True):
        settings = config.override(kept.settings, words)
        written(dataclasses.replace(kept, settings=settings), folder)
    names = [str(folder) for folder in folders]
    result = compared([*names, str(tmp_path / "missing"), names[0]], [3.0], SEEDS[:2])
    both, other = result["groups"]
    assert both["runs"] == names[:2] and other["runs"] == names[2:]
    assert (both["group"], other["group"]) == ("rssm.plan_by=sample", "rssm.plan_by=mode")
    cell = both["cells"][0]
    assert list(cell["episodes"]) == names[:2] and "ci95" in cell
    assert "episode_ci95" in other["cells"][0]
    assert not (folders[1] / "eval").exists() or not list((folders[1] / "eval").glob("times-*"))
    missing, twice = (error["error"] for error in result["errors"])
    assert "not a run folder" in missing and "the same as" in twice


def test_what_has_no_model_or_no_actor_is_said(at_hand, tmp_path, clock):
    words = [word for word in TINY if not word.startswith(("behavior", "planner.name"))]
    searcher = untrained(tmp_path / "run", words)
    result = compared([str(searcher), "simulator:cartpole-swingup"], [3.0], SEEDS[:1])
    (group,) = result["groups"]
    assert {cell["way"] for cell in group["cells"]} == {"cem", "icem", "mppi"}
    assert set(group["left_out"]) == {"actor", "cem+actor+critic"}
    assert "learns no actor" in group["left_out"]["actor"]
    (error,) = result["errors"]
    assert "has no learned model to search in" in error["error"]


@pytest.mark.parametrize("way", WAYS)
def test_a_decision_is_the_same_whatever_is_played_beside_it(run, way):
    opened = checkpoints.open_run(run, device="cpu")
    settings = settings_for(opened.checkpoint.settings, way, 8, 2)
    model, behavior = parts_of(opened.checkpoint, opened.device)
    agent = Agent.build(settings, opened.checkpoint.spec, model, behavior, device=opened.device)

    class Side:
        """As many environments as there are seeds, in this process."""

        def __init__(self, count):
            self.rows = [LocalPool(settings.env) for _ in range(count)]
            self.spec, self.count = self.rows[0].spec, count

        def reset(self, seeds):
            return {row: self.rows[row].reset({0: seed})[0] for row, seed in seeds.items()}

        def step(self, actions):
            return {row: self.rows[row].step({0: action})[0] for row, action in actions.items()}

    def returns(seeds: list[int], width: int) -> list[float]:
        policy = AgentPolicy.of_episodes(agent, seeds, width)
        return [result.episode_return for result in play(Side(width), policy, seeds)]

    alone = [returns([seed], 1)[0] for seed in SEEDS]
    assert returns(SEEDS, 3) == pytest.approx(alone, rel=1e-3)
    assert returns(SEEDS[:2], 4) == pytest.approx(alone[:2], rel=1e-3)


def test_a_folder_that_cannot_be_written_is_a_warning(run, clock, tmp_path, caplog):
    opened = checkpoints.open_run(run, device="cpu")
    (tmp_path / "eval").touch()  # a file in the folder's place
    ways = TimedWays("run", opened, {}, tmp_path)
    ways.timings = {"actor": None}
    with Pools() as pools:
        ways.measure([3.0], 1000, pools)
    assert "times not kept" in caplog.text and ways.timings["actor"] is not None
