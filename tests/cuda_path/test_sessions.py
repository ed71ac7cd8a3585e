"""Sessions: graphs are captured once, replayed after, and leave other threads and the memory alone."""

import concurrent.futures
import contextlib
import threading

import numpy as np
import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent, AgentPolicy
from planet_rssm.base.errors import PlanetError
from planet_rssm.config import PlannerSettings
from planet_rssm.control import ControlLoop
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.graphs import Graphs
from planet_rssm.planners import CEM, Objective, planner_from_settings
from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, untrained_model
from planet_rssm.world_model.latents import GaussianLatent

pytestmark = pytest.mark.gpu
A = 3
SPEC = EnvSpec(
    "gym/Test-v0", {"speed": ((3,), "float32")}, A, 1, 0.1, 100, "none", "fake 0", terminates=True
)
SMALL = [
    "env.observe=vectors",
    "rssm.deter=16",
    "rssm.hidden=16",
    "rssm.stoch=4",
    "model.reward_units=16",
]
V3 = [
    "env.observe=vectors",
    "model.size=1m",
    "rssm.deter=16",
    "rssm.hidden=16",
    "rssm.stoch=4",
    "rssm.blocks=4",
]
PRESETS = {"planet": SMALL, "planet-discrete": SMALL, "dreamer-v2": SMALL, "dreamer-v3": V3}
ROUNDS = 3


def model_of(preset: str = "planet"):
    return untrained_model(config.load(preset, PRESETS[preset]), SPEC).cuda()


def planner_of(name: str = "cem", **more: object):
    sizes = {"horizon": 4, "candidates": 30, "iterations": ROUNDS, "elites": 5} | more
    return planner_from_settings(PlannerSettings(name=name, **sizes), A)


def session_of(planner, model, precision: str = "float32"):
    return planner.prepare(ModelDynamics(model), Objective(), precision)


def decide(session, rows: int = 1, device=None, generators: int = 1) -> dict[str, int]:
    """Decide once, and return what was counted while it did."""
    rssm, cuda = session.dynamics.model.rssm, torch.device("cuda")
    state = State(
        torch.zeros(rows, rssm.deter_size, device=cuda),
        torch.zeros(rows, rssm.stoch_size, device=cuda),
    )
    first = torch.ones(rows, dtype=torch.bool, device=cuda)
    rngs = [torch.Generator(cuda).manual_seed(i) for i in range(generators)]
    initial = session.planner.initial(rows, cuda)
    with device.counted() if device else contextlib.nullcontext({}) as found:
        session.plan(state, initial, first, rngs if generators > 1 else rngs[0])
    return found


def check_replays(device, session, launches: int, rows: int = 1, generators: int = 1) -> None:
    """A decision after the first captures nothing, replays one graph, and waits for nothing."""
    decide(session, rows, generators=generators)
    found = decide(session, rows, device, generators)
    assert (found["capture"], found["graph launch"]) == (0, 1)
    assert found["wait"] == found["device wait"] == 0
    assert found["launch"] <= launches


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
@pytest.mark.parametrize("preset", PRESETS)
def test_each_planner_searches_each_latent_in_graphs(device, preset, name, precision):
    planner = planner_of(name)
    session = session_of(planner, model_of(preset), precision)
    with device.counted() as found:
        decide(session)
    assert found["capture"] <= 2  # with what keeps the stream's memory
    check_replays(device, session, launches=8 if planner.warm_start else 6)


def test_a_decision_for_several_states_is_a_graph_too(device):
    session = session_of(planner_of(), model_of())
    check_replays(device, session, launches=6, rows=16)
    check_replays(device, session, launches=5, rows=16, generators=16)


def test_generators_of_rows_go_on_after_a_graph_as_after_plain_draws(device):
    planner, model, cuda = planner_of(), model_of(), torch.device("cuda")
    session = session_of(planner, model)
    ours, theirs = ([torch.Generator(cuda).manual_seed(i) for i in range(3)] for _ in range(2))
    state = State(
        torch.zeros(3, model.rssm.deter_size, device=cuda),
        torch.zeros(3, model.rssm.stoch_size, device=cuda),
    )
    first, carry = torch.ones(3, dtype=torch.bool, device=cuda), planner.initial(3, cuda)
    for _ in range(3):
        session.plan(state, carry, first, ours)
        planner.draw(session.dynamics, state, theirs)
        assert [one.get_offset() for one in ours] == [one.get_offset() for one in theirs]
    assert len({one.get_offset() for one in ours}) == 1 and ours[0].get_offset() > 0


def test_weights_in_other_memory_are_another_capture(device):
    model = model_of()
    session = session_of(planner_of(), model)
    decide(session)
    for value in model.parameters():
        value.data.mul_(0.5)
    assert decide(session, device=device)["capture"] == 0
    model.load_state_dict(
        {key: value * 2 for key, value in model.state_dict().items()}, assign=True
    )
    assert decide(session, device=device)["capture"] == 1


def test_a_late_decision_and_one_of_fewer_rounds_are_no_new_captures(device):
    planner, model = planner_of("icem"), model_of()
    session = session_of(planner, model)
    cuda = torch.device("cuda")
    state = State(
        torch.zeros(1, model.rssm.deter_size, device=cuda),
        torch.zeros(1, model.rssm.stoch_size, device=cuda),
    )
    first, carry = torch.zeros(1, dtype=torch.bool, device=cuda), planner.initial(1, cuda)
    rng = torch.Generator(cuda)
    for rounds in (1, 2, 3):
        session.plan(state, carry, first, rng, rounds=rounds)
    with device.counted() as found:
        for executed, rounds in ((1, None), (3, 2), (7, 3), (2, 1)):
            session.plan(state, carry, first, rng, executed=executed, rounds=rounds)
    assert (found["capture"], found["graph launch"]) == (0, 4)


def test_a_planner_of_the_users_shifts_by_numbers(device):
    class Own(CEM):
        shifts_by_tensor = False

        def start(self, carry, is_first, noise, executed=1):
            assert isinstance(executed, int)
            return super().start(carry, is_first, noise, executed)

    settings = PlannerSettings(
        horizon=4, candidates=30, iterations=ROUNDS, elites=5, warm_start=True
    )
    planner, model, cuda = Own(settings, A), model_of(), torch.device("cuda")
    state = State(
        torch.zeros(1, model.rssm.deter_size, device=cuda),
        torch.zeros(1, model.rssm.stoch_size, device=cuda),
    )
    first, carry = torch.zeros(1, dtype=torch.bool, device=cuda), planner.initial(1, cuda)
    session = session_of(planner, model)
    for executed in (1, 2, 1, 2):
        session.plan(state, carry, first, torch.Generator(cuda), executed=executed)
    assert len(session._plan.graphs._captured) == 2


def test_a_generator_goes_on_after_a_graph_as_after_plain_draws(device):
    planner, model = planner_of(), model_of()
    session, cuda = session_of(planner, model), torch.device("cuda")
    state = State(
        torch.zeros(1, model.rssm.deter_size, device=cuda),
        torch.zeros(1, model.rssm.stoch_size, device=cuda),
    )
    first, carry = torch.ones(1, dtype=torch.bool, device=cuda), planner.initial(1, cuda)
    ours, theirs = (torch.Generator(cuda).manual_seed(5) for _ in range(2))
    for _ in range(3):
        session.plan(state, carry, first, ours)
        planner.draw(session.dynamics, state, theirs)
        assert torch.equal(ours.get_state(), theirs.get_state())


def test_a_wait_inside_a_capture_is_one_line_and_leaves_nothing_behind(pretended, monkeypatch):
    pick, model = GaussianLatent.pick, model_of()

    def waits(self, raw, noise):
        sample = pick(self, raw, noise)
        float(sample.vector().sum())
        return sample

    before = torch.cuda.current_stream()
    with monkeypatch.context() as patch:
        patch.setattr(GaussianLatent, "pick", waits)
        with pytest.raises(PlanetError, match="cannot be captured"), pretended.counted() as found:
            decide(session_of(planner_of(), model))
    assert (pretended.count("illegal"), pretended.count("failed capture")) != (0, 0), found
    assert torch.cuda.current_stream() == before
    check_replays(pretended, session_of(planner_of(), model), launches=8)


def test_a_tensor_on_another_device_fails(device, monkeypatch):
    """What the other tests stand on: PyTorch itself looks at where tensors are."""
    agent = agent_of()
    monkeypatch.setattr(
        "planet_rssm.agent.agent.to_device",
        lambda values, device: [torch.as_tensor(v) for v in values],
    )
    with pytest.raises(RuntimeError, match="same device"):
        AgentPolicy(agent, 1)(*seen(1))


def test_a_graph_captured_at_every_decision_is_found_out(device, monkeypatch):
    class Forgetful(Graphs):
        def __call__(self, *args):
            self._captured.clear()
            return super().__call__(*args)

    monkeypatch.setattr("planet_rssm.planners.captured.Graphs", Forgetful)
    with pytest.raises(AssertionError):
        check_replays(device, session_of(planner_of(), model_of()), launches=10**6)


def agent_of(seed: int = 0, **options: object) -> Agent:
    settings = config.load(
        "planet", [*SMALL, "planner.candidates=20", "planner.elites=5", "planner.iterations=3"]
    )
    return Agent.build(
        settings,
        SPEC,
        untrained_model(settings, SPEC).cuda(),
        device=torch.device("cuda"),
        seed=seed,
    )


def seen(rows: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    frame = {"speed": np.zeros((rows, 3), np.float32)}
    return frame, np.zeros((rows, A), np.float32), np.zeros(rows, bool)


def test_a_policys_step_waits_once(device):
    policy = AgentPolicy(agent_of(), 1)
    policy(*seen(1))
    with device.counted() as found:
        policy(*seen(1))
    assert (found["wait"], found["device wait"], found["capture"]) == (1, 0, 0)
    assert found["transfer"] == 2  # what is seen, the action


def test_rows_with_noise_of_their_own_take_few_launches(device):
    def launches(rows: int) -> int:
        policy = AgentPolicy(agent_of(), rows, episodes=range(rows))
        policy(*seen(rows))
        with device.counted() as found:
            policy(*seen(rows))
        assert (found["wait"], found["capture"]) == (1, 0)
        return found["launch"]

    assert launches(16) - launches(1) <= 16 * 6


def test_a_loops_decision_waits_once(device):
    frame = {"speed": np.zeros(3, np.float32)}
    with ControlLoop(agent_of(), delay=1) as loop:
        with device.counted() as found:
            loop.tick(frame)
            loop.close()
        assert (found["wait"], found["device wait"], found["capture"]) == (1, 0, 0)


def test_loops_are_made_beside_threads_that_act(device):
    """A wait for the whole device, or memory that is given back, would end the captures of other threads."""
    policy, stop = AgentPolicy(agent_of(9), 1), threading.Event()

    def act() -> int:
        steps = 0
        while not stop.is_set():
            policy(*seen(1))
            steps += 1
        return steps

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        acting = threads.submit(act)
        for loop in threads.map(ControlLoop, [agent_of(seed) for seed in range(3)]):
            loop.close()
        stop.set()
        assert acting.result() > 0


def test_sessions_that_come_and_go_leave_nothing_behind(device):
    planner, model = planner_of(iterations=1), model_of()

    def held() -> int:
        decide(session_of(planner, model))
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    first = held()
    assert {held() for _ in range(200)} == {first}


def test_no_other_stream_is_captured_on(device):
    """PyTorch hands out 32 streams in turn: a loop's own may not be one that sessions capture on."""
    from planet_rssm.graphs import _capture_stream

    assert _capture_stream(0).cuda_stream not in {
        torch.cuda.Stream().cuda_stream for _ in range(40)
    }


def test_a_session_remembers_a_bounded_number_of_graphs(device):
    session = session_of(planner_of(), model_of())
    for rows in range(1, 20):
        decide(session, rows)
    graphs = session._plan.graphs
    assert len(graphs._captured) == graphs.most == 8 + ROUNDS
    check_replays(device, session, launches=8, rows=19)


def test_a_capture_that_runs_out_of_memory_is_tried_again_without_what_is_kept_for_later(pretended):
    session = session_of(planner_of(candidates=3000), model_of())
    torch.cuda.empty_cache()
    kept = torch.empty(400 << 20, dtype=torch.uint8, device="cuda")
    del kept  # PyTorch keeps it
    with pretended.limited(1 << 20):
        decide(session)
    check_replays(pretended, session, launches=8)
