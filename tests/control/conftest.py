"""A robot's agent of vectors alone: small enough that a decision takes a millisecond."""

import dataclasses
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from planet_rssm import config
from planet_rssm.agent import Agent
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.serve import Service
from planet_rssm.world_model import untrained_model

SPEC = EnvSpec(
    "gym/Arm-v0",
    {"joints": ((3,), "float32")},
    2,
    1,
    0.05,
    100,
    "none",
    "fake 0",
    interval_from="dt",
)  # 20 Hz
TINY = """
    rssm.deter=8 rssm.stoch=4 rssm.hidden=8 model.vector_units=8 model.reward_units=8 model.depth=2
    env.size=32
    planner.candidates=8 planner.elites=2 planner.iterations=3 planner.horizon=4
""".split()


@pytest.fixture
def make_agent() -> Callable[..., Agent]:
    """Settings and changes of the spec in, an untrained agent out."""

    def make(*overrides: str, device: str = "cpu", seed: int = 0, **changes: object) -> Agent:
        settings = config.load("planet", [*TINY, *overrides])
        spec = dataclasses.replace(SPEC, **changes)
        where = torch.device(device)
        return Agent.build(
            settings, spec, untrained_model(settings, spec).to(where), device=where, seed=seed
        )

    return make


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


@pytest.fixture
def held(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """What says that a decision has begun, and what lets it go on."""
    under_way, go_on = threading.Event(), threading.Event()
    decide = agent.decide

    def slow(*arguments: object, **options: object) -> object:
        under_way.set()
        assert go_on.wait(10)
        return decide(*arguments, **options)

    monkeypatch.setattr(agent, "decide", slow)
    return under_way, go_on


@pytest.fixture
def serve(agent: Agent) -> Iterator[Callable[..., str]]:
    """serve(batch=…) begins a service of the tiny agent and returns its address."""
    for name in ("uvicorn", "httptools"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'planet-rssm[serve]'")
    from planet_rssm.serve.server import WebServer

    begun: list[tuple[Service, WebServer, threading.Thread]] = []

    def begin(
        token: str | None = None,
        patience_s: float = 5.0,
        connections: int = 512,
        host: str = "127.0.0.1",
        **options: object,
    ) -> str:
        service = Service(agent, **options)
        limits = {"token": token, "patience_s": patience_s, "connections": connections}
        server = WebServer(service, host, 0, **limits)
        thread = threading.Thread(target=server.run)
        thread.start()
        begun.append((service, server, thread))
        begin.service, begin.server = service, server
        return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"

    yield begin
    for service, server, thread in begun:
        server.end()
        thread.join()
        service.close()
