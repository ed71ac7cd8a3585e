"""The control loop on a clock that only the loop and the tests move."""

import dataclasses
import threading

import numpy as np
import pytest
import torch

from planet_rssm.agent import Agent, RoundTimes
from planet_rssm.base.errors import PlanetError
from planet_rssm.control import ControlLoop, SimulatedTime
from planet_rssm.control.inputs import fit_action
from planet_rssm.control.loop import BACKLOG

JOINTS = np.array([0.1, -0.2, 0.3], np.float32)


def frame_at(tick: int) -> dict[str, np.ndarray]:
    return {"joints": np.float32(0.1 * tick) + JOINTS}


def play(loop: ControlLoop, ticks: int) -> tuple[str, list[np.ndarray]]:
    """The first letters of the sources, and the actions."""
    commands = []
    for tick in range(ticks):
        commands.append(loop.tick(frame_at(tick)))
        loop.sleep()
    return "".join(command.source[0] for command in commands), [
        command.action for command in commands
    ]


class Recorder:
    """What an agent was asked, and what it answered; its times are given."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decided: list[dict] = []
        self.observed: list[tuple] = []
        self.plans: list[np.ndarray] = []
        decide = agent.decide
        observe = agent.observe
        monkeypatch.setattr(agent, "warmup", lambda *_, **__: RoundTimes((10.0, 20.0, 30.0)))

        def deciding(carry, **asked):
            plan, carry = decide(carry, **asked)
            self.decided.append(asked)
            self.plans.append(plan.sequence[0].numpy())
            return plan, carry

        def observing(carry, observation, executed, first):
            self.observed.append((observation, executed[0].tolist(), bool(first[0])))
            return observe(carry, observation, executed, first)

        monkeypatch.setattr(agent, "decide", deciding)
        monkeypatch.setattr(agent, "observe", observing)


@pytest.fixture
def asked(agent, monkeypatch):
    return Recorder(agent, monkeypatch)


def test_in_time_it_acts_as_the_agent_does(agent):
    with ControlLoop(agent, clock=SimulatedTime(0.03)) as loop:
        sources, actions = play(loop, 4)
    assert sources == "pppp" and loop.missed == 0
    assert list(loop.latency_ms) == pytest.approx([30.0] * 4)
    carry = agent.initial()
    executed = np.zeros((1, 2), np.float32)
    for tick in range(4):
        frame = {key: value[None] for key, value in frame_at(tick).items()}
        plan, carry = agent.act(carry, frame, executed, np.array([tick == 0]))
        executed = plan.action.numpy()
        np.testing.assert_array_equal(executed[0], actions[tick])


@pytest.mark.parametrize(
    ("decision_s", "options", "sources"),
    [
        (0.01, {}, "pppppppp"),
        (0.07, {}, "fttttttt"),  # every second tick waits for the rest of the plan before
        (0.07, {"delay": 1}, "sftttttt"),
        (0.07, {"delay": 2, "execute": 2}, "sspppppp"),
        (0.03, {"delay": 2}, "sspppppp"),
        (0.03, {"execute": 4}, "pppppppp"),
        (0.07, {"execute": 3}, "fpptpptp"),
        (1.0, {"delay": 1}, "sfffffff"),
    ],
)
def test_what_comes_of_late_plans(agent, decision_s, options, sources):
    with ControlLoop(agent, clock=SimulatedTime(decision_s), **options) as loop:
        assert play(loop, len(sources))[0] == sources
    counts = {name[0]: count for name, count in loop.counts.items() if count}
    assert counts == {letter: sources.count(letter) for letter in set(sources)}
    assert loop.missed == sources.count("t") + sources.count("f")


@pytest.mark.parametrize("fallback", ["hold", "zero"])
def test_a_missed_deadline_goes_on_with_the_old_plan_and_then_falls_back(agent, fallback):
    clock = SimulatedTime(0.01)
    with ControlLoop(agent, clock=clock, fallback=fallback) as loop:
        play(loop, 1)
        sequence = loop.plan.sequence[0].numpy()
        clock.decision_s = 0.48
        sources, actions = play(loop, 6)
        assert sources == "tttfff"
        np.testing.assert_array_equal(actions[:3], sequence[1:])
        np.testing.assert_array_equal(
            actions[3:], [sequence[-1] if fallback == "hold" else [0, 0]] * 3
        )
        clock.decision_s = 0.01
        assert (
            play(loop, 8)[0] == "ffffpppp"
        )  # the late plan comes when it is over, the next one in time


def test_a_late_plan_is_used_from_where_it_then_stands(agent, asked):
    with ControlLoop(agent, delay=1, clock=SimulatedTime(0.12)) as loop:
        _, actions = play(loop, 5)
    np.testing.assert_array_equal(
        actions[3], asked.plans[0][2]
    )  # meant for tick 1, came in during tick 2
    np.testing.assert_array_equal(actions[4], asked.plans[0][3])


def test_doing_nothing_is_the_first_choice_where_actions_are_choices(make_agent):
    with ControlLoop(
        make_agent(discrete=True), clock=SimulatedTime(1.0), fallback="zero", delay=1
    ) as loop:
        sources, actions = play(loop, 3)
    assert sources == "sff"
    np.testing.assert_array_equal(actions, [[1, 0]] * 3)


def test_doing_nothing_is_the_first_choice_of_every_group(make_agent):
    agent = make_agent(discrete=True, groups=(1, 1))
    with ControlLoop(agent, clock=SimulatedTime(1.0), fallback="zero", delay=1) as loop:
        _, actions = play(loop, 3)
    np.testing.assert_array_equal(actions, [[1, 1]] * 3)
    np.testing.assert_array_equal(fit_action(np.array([1, 1]), agent.spec), [1, 1])
    line = (
        r"^executed_action: \[1.0, 0.0\]; must be one-hot in each of the groups of \[1, 1\], 1 for"
    )
    with pytest.raises(PlanetError, match=line):
        fit_action(np.array([1, 0]), agent.spec)


def test_the_plan_begins_after_the_actions_that_are_committed(agent, asked):
    with ControlLoop(agent, delay=2, execute=2, clock=SimulatedTime(0.07)) as loop:
        _, actions = play(loop, 8)
    assert [call["executed"] for call in asked.decided] == [1, 2, 2, 2]
    for index, call in enumerate(asked.decided):  # of ticks 0, 2, 4, 6
        np.testing.assert_array_equal(call["committed"][0], actions[2 * index : 2 * index + 2])
    for index, plan in enumerate(asked.plans[:3]):
        np.testing.assert_array_equal(actions[2 * index + 2 : 2 * index + 4], plan[:2])


def test_the_carry_shifts_by_the_ticks_that_passed_however_late_the_plan_was(agent, asked):
    clock = SimulatedTime(0.01)
    with ControlLoop(agent, delay=1, clock=clock) as loop:
        play(loop, 2)
        clock.decision_s = 0.12
        play(loop, 1)
        clock.decision_s = 0.01
        play(loop, 4)
    assert [call["executed"] for call in asked.decided] == [1, 1, 1, 3, 1]
    np.testing.assert_array_equal(
        [frame["joints"][0] for frame, *_ in asked.observed],
        [
            frame_at(tick)["joints"] for tick in (0, 1, 0, 0, 1, 2, 3)
        ],  # all of them, those during the long decision too
    )


def test_the_belief_is_told_what_was_done(agent, asked):
    with ControlLoop(agent, clock=SimulatedTime()) as loop:
        first = loop.tick(frame_at(0))
        loop.tick(None)
        loop.tick(frame_at(2), executed_action=np.array([0.5, -0.5]))
    assert [frame is None for frame, *_ in asked.observed] == [False, True, False]
    assert [done for _, done, _ in asked.observed] == [[0, 0], first.action.tolist(), [0.5, -0.5]]
    assert [begins for *_, begins in asked.observed] == [True, False, False]


def test_what_is_returned_may_be_written_to(agent, asked):
    with ControlLoop(agent, clock=SimulatedTime()) as loop:
        loop.tick(frame_at(0)).action[:] = 9
        loop.tick(frame_at(1))
    assert asked.observed[1][1] == asked.plans[0][0].tolist()


def test_a_caller_that_is_late_skips_ticks(agent, asked):
    clock = SimulatedTime()
    with ControlLoop(agent, clock=clock) as loop:
        before = loop.tick(frame_at(0)).action.tolist()
        clock.sleep_until(0.18)  # 0.05 and 0.1 are over, 0.15 can still be served
        loop.sleep()
        assert clock.now() == pytest.approx(0.18)
        assert loop.tick(frame_at(3)).source == "plan"
        loop.sleep()
        assert clock.now() == pytest.approx(0.2)
    assert loop.counts["skipped"] == loop.missed == 2
    assert [(frame is None, done) for frame, done, _ in asked.observed[1:]] == [
        (True, before)
    ] * 2 + [(False, before)]
    assert asked.decided[1]["executed"] == 3


def test_a_pause_of_minutes_costs_the_belief_no_more_than_a_backlog(agent, asked):
    clock = SimulatedTime()
    with ControlLoop(agent, clock=clock) as loop:
        before = loop.tick(frame_at(0)).action.tolist()
        clock.sleep_until(600)
        loop.sleep()
        loop.tick(frame_at(1))
    skipped = round(600 / 0.05) - 1
    assert loop.counts["skipped"] == pytest.approx(skipped, abs=1)
    assert loop.dropped == loop.counts["skipped"] + 1 - BACKLOG
    assert [(frame is None, done) for frame, done, _ in asked.observed[1:]] == [(True, before)] * (
        BACKLOG - 1
    ) + [(False, before)]


def test_a_belief_that_cannot_keep_up_stays_on_the_newest_frames(agent, asked):
    """A decision as long as many ticks: of the frames meanwhile the last are taken in, in order."""
    clock = SimulatedTime(0.05 * (BACKLOG + 8))
    with ControlLoop(agent, delay=1, clock=clock) as loop:
        play(loop, 1 + BACKLOG + 8)
        assert loop.dropped == 8
    newest = [frame["joints"][0] for frame, *_ in asked.observed[1 : 1 + BACKLOG]]
    np.testing.assert_allclose(newest, [frame_at(tick)["joints"] for tick in range(9, 9 + BACKLOG)])


def test_an_episode_that_begins_drops_the_plan_under_way(agent, asked):
    clock = SimulatedTime(0.01)
    with ControlLoop(agent, delay=1, clock=clock) as loop:
        play(loop, 3)
        clock.decision_s = 0.3
        loop.tick(frame_at(3))
        command = loop.tick(frame_at(0), is_first=True)
        assert clock.now() == pytest.approx(0.15 + 0.3)  # it was waited for: there is one thread
        assert command.source == "start" and not command.action.any()
        assert asked.observed[-1][1:] == ([0, 0], True)
        assert asked.decided[-1]["executed"] == 1 and not asked.decided[-1]["committed"].any()


def test_pictures_of_any_size_are_brought_to_the_models(make_agent, monkeypatch):
    agent = make_agent(observation={"image": ((32, 32, 3), "uint8")})
    asked = Recorder(agent, monkeypatch)
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = 200
    with ControlLoop(agent, clock=SimulatedTime()) as loop:
        loop.tick({"image": picture, "battery": np.zeros(1)})
        with pytest.raises(
            PlanetError,
            match=r"^observation 'image': float64 \[48, 64, 3\]; must be uint8 \[H, W, 3\]$",
        ):
            loop.tick({"image": picture / 255})
    (taken,) = asked.observed[0][0].values()
    assert taken.shape == (1, 32, 32, 3)
    assert taken[0, :, :15].max() == 0 and taken[0, :, 17:].min() == 200


@pytest.mark.parametrize(
    ("budget_ms", "rounds"), [(None, 3), (30.0, 3), (29.0, 2), (12.0, 1), (5.0, 1)]
)
def test_the_budget_decides_how_many_rounds_are_searched(agent, asked, budget_ms, rounds, caplog):
    with ControlLoop(agent, budget_ms=budget_ms, clock=SimulatedTime()) as loop:
        play(loop, 3)
    assert loop.plan.diagnostics["rounds_done"].tolist() == [rounds]
    assert loop.plan.diagnostics["returns_max"].shape == (1, rounds)
    said = [
        "budget_ms 5: one round takes 10.0 ms here and is done all the same; lower "
        "planner.candidates"
    ]
    assert caplog.messages == (said if budget_ms == 5 else [])


def test_a_rate_that_an_earlier_version_read_from_render_fps_is_told(make_agent, caplog):
    old = make_agent(interval_from="")
    for options in ({}, {"hz": 20}):
        ControlLoop(old, clock=SimulatedTime(), **options).close()
    [line] = caplog.messages
    assert line.startswith("hz: 20 is what render_fps said when this model was trained; give hz if")


def test_another_rate_than_the_training_is_told(agent, caplog):
    ControlLoop(agent, hz=40, clock=SimulatedTime()).close()
    assert caplog.messages == ["hz 40: the model was trained at 20 Hz, steps of 50 ms"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hz": 0}, "hz 0: must be more than 0, in ticks a second; 20 for example"),
        ({"hz": float("nan")}, "hz nan: must be more than 0, in ticks a second; 20 for example"),
        ({"delay": -1}, "delay -1: must be at least 0 ticks"),
        ({"execute": 0}, "execute 0: must be 1 to planner.horizon = 4 ticks"),
        ({"execute": 5}, "execute 5: must be 1 to planner.horizon = 4 ticks"),
        ({"fallback": "stop"}, "fallback 'stop': must be hold or zero"),
        (
            {"budget_ms": 0},
            "budget_ms 0: must be more than 0 and at most 50, what a plan has at 20 Hz with delay "
            "0 and execute 1",
        ),
        (
            {"budget_ms": 101, "delay": 2, "execute": 3},
            "budget_ms 101: must be more than 0 and at most 100, what a plan has at 20 Hz with "
            "delay 2 and execute 3",
        ),
    ],
)
def test_what_cannot_be_is_one_line(agent, options, line):
    with pytest.raises(PlanetError) as caught:
        ControlLoop(agent, clock=SimulatedTime(), **options)
    assert str(caught.value) == line


def test_observations_that_do_not_fit_are_one_line(agent):
    with ControlLoop(agent, clock=SimulatedTime()) as loop:
        for given, done, line in (
            (
                {"image": JOINTS},
                None,
                "observation: no 'joints' among ['image']; the model was trained on it",
            ),
            (JOINTS, None, "observation: ndarray; must be a dict with ['joints']"),
            ({"joints": JOINTS[:2]}, None, "observation 'joints': shape [2]; must be [3]"),
            (frame_at(0), np.zeros((1, 2)), "executed_action: shape [1, 2]; must be [2]"),
            (
                {"joints": JOINTS * np.nan},
                None,
                "observation 'joints': has NaN or infinity in it; give None as the "
                "observation of a dropped frame",
            ),
            (
                frame_at(0),
                np.array([np.inf, 0]),
                "executed_action: has NaN or infinity in it; leave it out if it is not known",
            ),
        ):
            with pytest.raises(PlanetError) as caught:
                loop.tick(given, done)
            assert str(caught.value) == line
        assert loop.tick(frame_at(0)).source == "plan"
    for given, line in (
        (
            [0.5, -2],
            "executed_action: [0.5, -2.0]; must be in [-1, 1], the units of Command.action",
        ),
        (
            [0.5, 0.5],
            "executed_action: [0.5, 0.5]; must be one-hot, 1 for the choice and 0 elsewhere",
        ),
    ):
        with pytest.raises(PlanetError) as caught:
            fit_action(np.array(given), dataclasses.replace(agent.spec, discrete="one-hot" in line))
        assert str(caught.value) == line
    np.testing.assert_array_equal(fit_action(np.array([1.0005, -0.5]), agent.spec), [1, -0.5])
    with pytest.raises(PlanetError, match="no tick to follow"):
        ControlLoop(agent, clock=SimulatedTime()).sleep()


@pytest.mark.parametrize("is_first", [False, True])
def test_after_an_error_in_a_decision_an_episode_begins(agent, asked, monkeypatch, is_first):
    """The frames of the decision are lost, that an episode began with one of them too."""
    with ControlLoop(agent, clock=SimulatedTime(0.01)) as loop:
        play(loop, 2)
        with monkeypatch.context() as broken:
            broken.setattr(agent, "decide", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                loop.tick(frame_at(0), is_first=is_first)
            loop.sleep()
        assert loop.tick(frame_at(1)).source == "plan"
        loop.tick(frame_at(2))
    assert [begins for *_, begins in asked.observed[-2:]] == [True, False]
    assert asked.decided[2]["executed"] == 1


def test_two_agents_in_two_threads_act_as_they_do_alone(make_agent):
    icem = ("planner.name=icem", "planner.candidates=12")
    agents = [make_agent(*icem, seed=seed) for seed in (0, 1)]

    def run(seed: int, out: dict[int, list[np.ndarray]]) -> None:
        loop = ControlLoop(agents[seed], delay=seed, clock=SimulatedTime())
        out[seed] = play(loop, 12)[1]

    alone: dict[int, list[np.ndarray]] = {}
    before = torch.get_num_threads(), torch.get_rng_state(), torch.get_default_dtype()
    for seed in (0, 1):
        run(seed, alone)
    after = torch.get_num_threads(), torch.get_rng_state(), torch.get_default_dtype()
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2] == after[2]
    together: dict[int, list[np.ndarray]] = {}
    threads = [threading.Thread(target=run, args=(seed, together)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([together[0], together[1]], [alone[0], alone[1]])
    assert not np.array_equal(alone[0], alone[1])
