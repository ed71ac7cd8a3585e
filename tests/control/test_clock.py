"""The machine's own clock and thread."""

import concurrent.futures
import os
import threading

import numpy as np
import pytest
import torch

from planet_rssm.control import ControlLoop, RealTime

FRAME = {"joints": np.zeros(3, np.float32)}


def test_a_tick_returns_in_time_whatever_the_planner_does(agent, monkeypatch):
    hurry = threading.Event()
    decide = agent.decide

    def slowly(carry, **asked):
        assert threading.current_thread() is not threading.main_thread()
        assert hurry.wait(30)
        return decide(carry, **asked)

    with ControlLoop(agent, hz=20) as loop:
        monkeypatch.setattr(agent, "decide", slowly)
        assert loop.tick(FRAME).source == "fallback"
        hurry.set()
        for _ in range(200):  # on a busy machine the plan takes some ticks to come
            loop.sleep()
            if loop.tick(FRAME).source in ("plan", "tail"):
                break
        assert loop.latency_ms[0] > 50
        assert loop.plan is not None


def test_what_fails_beside_the_loop_fails_in_it(agent, monkeypatch):
    with ControlLoop(agent, hz=20, delay=1) as loop:
        with monkeypatch.context() as broken:
            broken.setattr(agent, "decide", lambda *_, **__: 1 / 0)
            loop.tick(FRAME)
            with pytest.raises(ZeroDivisionError):
                for _ in range(200):
                    loop.sleep()
                    loop.tick(FRAME)
        assert loop.tick(FRAME).source == "start"  # and it begins anew


@pytest.mark.parametrize("is_first", [False, True])
def test_what_fails_in_the_last_decision_is_not_lost(agent, monkeypatch, is_first):
    loop = ControlLoop(agent, hz=20, delay=1)
    with monkeypatch.context() as broken:
        broken.setattr(agent, "decide", lambda *_, **__: 1 / 0)
        loop.tick(FRAME)
        with pytest.raises(ZeroDivisionError):
            loop.tick(FRAME, is_first=True) if is_first else loop.close()
    loop.close()


def test_an_error_of_the_callers_own_is_the_one_that_is_raised(agent, monkeypatch):
    loop = ControlLoop(agent, hz=20, delay=1)
    monkeypatch.setattr(agent, "decide", lambda *_, **__: 1 / 0)
    with pytest.raises(KeyError, match="camera"), loop:
        loop.tick(FRAME)
        raise KeyError("camera")


def test_a_job_that_is_not_done_is_told_from_one_that_timed_out():
    clock = RealTime()

    def timed_out() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        clock.result(clock.start(timed_out, decides=True), clock.now() + 30)
    gate = threading.Event()
    handle = clock.start(gate.wait, decides=True)
    assert clock.result(handle, clock.now() - 1) is None
    assert clock.result(handle, clock.now() + 0.01) is None
    gate.set()
    assert clock.result(handle, float("inf"))[0] is True
    clock.close()


@pytest.mark.gpu
def test_loops_may_be_made_in_several_threads_at_once(make_agent):
    """Each captures its graphs then."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    agents = [make_agent(device="cuda", seed=seed) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for loop in threads.map(ControlLoop, agents):
            loop.tick(FRAME)
            loop.close()


@pytest.mark.gpu
def test_a_loop_on_cuda_decides_on_a_stream_of_its_own(make_agent, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    agent = make_agent(device="cuda")
    streams = []
    alone, _ = agent.act(
        agent.initial(),
        {"joints": np.zeros((1, 3), np.float32)},
        np.zeros((1, 2)),
        np.ones(1, bool),
    )
    decide = agent.decide

    def deciding(carry, **asked):
        streams.append(torch.cuda.current_stream().cuda_stream)
        return decide(carry, **asked)

    monkeypatch.setattr(agent, "decide", deciding)
    with ControlLoop(agent) as loop:
        done = loop.tick(FRAME)
        while loop.plan is None:
            loop.sleep()
            loop.tick(FRAME)
    assert set(streams).isdisjoint({torch.cuda.default_stream().cuda_stream})
    if (
        done.source == "plan" and "PLANET_PRETENDED_CUDA" not in os.environ
    ):  # which computes nothing
        np.testing.assert_allclose(done.action, alone.action[0].cpu().numpy(), atol=1e-5)
