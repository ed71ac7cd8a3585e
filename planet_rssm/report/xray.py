"""The x-ray film: each decision of an episode beside what it was chosen from, 1280×720."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from planet_rssm.agent import Decision
from planet_rssm.report.canvas import LOOK, Axes, Box, Canvas, Colour, mixed, nice_ticks, short

WIDTH, HEIGHT = 1280, 720
LEFT = 24  # of the real frame
MAIN = 392  # left of what was imagined
RIGHT = WIDTH - 24
FRAME = 320  # pixels a side of the real frame
CHART_TOP, CHART_BOTTOM = 446, 676
MOST_ACTIONS = 4  # numbers of an action that have a chart each
MOST_VECTORS = 6  # entries of decoded vectors that are drawn
MOST_ROUNDS = 20  # columns of the chart of returns
NEAR = 8  # decisions before and after one whose returns its axes show too
BINS = 48  # of returns in a column
COLOURS = (LOOK.orange, LOOK.blue, LOOK.green, LOOK.purple, LOOK.yellow, LOOK.text)


class Scales(NamedTuple):
    """Ends of the axes at one decision, and what is the same in all frames of a film."""

    returns: tuple[float, float]
    worth: tuple[float, float]
    spread: float  # of a pixel, 0 to 1
    reward: tuple[float, float]  # of one decision
    vectors: tuple[float, float]


def xray_frames(
    title: str,
    interval: float,
    frames: Sequence[np.ndarray],
    decisions: Sequence[Decision],
    rewards: Sequence[float],
) -> Iterator[np.ndarray]:
    """Yield a picture, uint8 [HEIGHT, WIDTH, 3], a decision.

    Args:
        title: what acts where.
        interval: seconds from one decision to the next.
        frames: real ones, uint8 [size, size, 3], in which the decisions were made.
        decisions: of an episode.
        rewards: what each decision brought.
    """
    for step, (decision, scales) in enumerate(
        zip(decisions, _scales(decisions, rewards), strict=True)
    ):
        canvas = Canvas(WIDTH, HEIGHT)
        so_far = sum(rewards[:step])
        canvas.text((LEFT, 38), title, 21)
        words = f"decision {step + 1} of {len(decisions)}, {step * interval:.2f} s"
        canvas.text((RIGHT, 38), f"{words}, reward so far {so_far:.1f}", 18, LOOK.muted, "rs")
        _real(canvas, frames[step], decision)
        _timeline(canvas, rewards, step, scales)
        _futures(canvas, decision, scales)
        _returns(canvas, decision, scales)
        _actions(canvas, decision)
        _worth(canvas, decision, scales)
        yield canvas.pixels()


def _scales(decisions: Sequence[Decision], rewards: Sequence[float]) -> list[Scales]:
    """Return the scales of each decision; those that follow it change slowly, to be read."""
    spreads = [
        float(np.percentile(one.spread, 99.8)) for one in decisions if one.spread is not None
    ]
    vectors = [one.vectors[:, :MOST_VECTORS] for one in decisions if one.vectors is not None]
    common = Scales(
        returns=(0.0, 1.0),
        worth=(0.0, 1.0),
        spread=max([*spreads, 0.02]),
        reward=(min([*rewards, 0.0]), max([*rewards, 1e-3])),
        vectors=(
            min((float(np.percentile(one, 1)) for one in vectors), default=0.0),
            max((float(np.percentile(one, 99)) for one in vectors), default=1.0),
        ),
    )
    returns = [_ends_of_returns(one) for one in decisions]
    worth = [_ends_of_worth(one) for one in decisions]
    return [
        common._replace(returns=_around(returns, step), worth=_around(worth, step))
        for step in range(len(decisions))
    ]


def _around(ends: Sequence[tuple[float, float]], step: int) -> tuple[float, float]:
    """Return the ends over the decisions near one."""
    near = ends[max(step - NEAR, 0) : step + NEAR + 1]
    return min(low for low, _ in near), max(high for _, high in near)


def _ends_of_returns(decision: Decision) -> tuple[float, float]:
    finite = [one[np.isfinite(one)] for one in decision.returns]
    finite = [one for one in finite if len(one)]
    if not finite:
        return decision.value, decision.value
    low = min(float(np.percentile(one, 2)) for one in finite)
    return low, max(float(one.max()) for one in finite)


def _ends_of_worth(decision: Decision) -> tuple[float, float]:
    total = decision.reward.cumsum()
    ends = [0.0, float(total.min()), float(total.max())]
    if len(decision.elite_reward):
        futures = decision.elite_reward.cumsum(1)
        ends += [float(futures.min()), float(futures.max())]
    if decision.critic is not None:
        ends.append(float(total[-1] + decision.critic[-1]))
    return min(ends), max(ends)


def _real(canvas: Canvas, frame: np.ndarray, decision: Decision) -> None:
    """Draw the real frame, and what the belief decodes to."""
    canvas.text((LEFT, 74), "the real frame", 16, LOOK.muted)
    canvas.picture((LEFT, 84, LEFT + FRAME, 84 + FRAME), frame)
    top, side = 446, 104
    canvas.text((LEFT, top - 10), "what the model believes now", 16, LOOK.muted)
    if decision.belief is None:
        canvas.box((LEFT, top, LEFT + side, top + side), LOOK.panel)
        canvas.text((LEFT + side / 2, top + side / 2), "vectors", 14, LOOK.muted, "mm")
    else:
        canvas.picture((LEFT, top, LEFT + side, top + side), decision.belief)
    chosen = " ".join(f"{value:+.2f}" for value in decision.sequence[0][:MOST_ACTIONS])
    more = " …" if len(decision.sequence[0]) > MOST_ACTIONS else ""
    rows = [("action", chosen + more, LOOK.orange)]
    rows.append(("plan is worth", short(decision.value), LOOK.text))
    if decision.critic is not None:
        rows.append(("critic, now", short(float(decision.critic[0])), LOOK.yellow))
    for place, (name, words, colour) in enumerate(rows):
        y = top + 12 + 37 * place
        canvas.text((LEFT + side + 14, y), name, 14, LOOK.muted)
        canvas.text((LEFT + side + 14, y + 18), words, 16, colour)


def _timeline(canvas: Canvas, rewards: Sequence[float], step: int, scales: Scales) -> None:
    """Draw the rewards of the episode up to the present decision."""
    canvas.text((LEFT, 584), "reward by decision", 16, LOOK.muted)
    axes = Axes(
        canvas,
        (LEFT + 34, 596, LEFT + FRAME, CHART_BOTTOM),
        (0, max(len(rewards) - 1, 1)),
        scales.reward,
    )
    axes.ticks_y(nice_ticks(*scales.reward, most=3))
    canvas.line(axes.points(range(step), rewards[:step]), LOOK.green, 1.5)
    x, _ = axes.at(step, 0)
    canvas.line([(x, 596), (x, CHART_BOTTOM)], LOOK.text, 1)


def _futures(canvas: Canvas, decision: Decision, scales: Scales) -> None:
    """Draw what the model imagines of the chosen plan, and where the best plans differ."""
    canvas.text((MAIN, 74), "imagined future of the chosen plan", 16, LOOK.orange)
    count = min(len(decision.elites), 16)
    words = f"where the futures of the best {count} plans differ"
    if count < 2:
        words = "no other plans are known of this planner"
    elif not decision.returns:
        words = f"where {count} futures drawn from the actor differ"
    canvas.text((MAIN, 248), words, 16, LOOK.blue)
    if decision.imagined is None:
        _vectors(canvas, decision, scales)
        return
    canvas.text(
        (RIGHT, 74), "below: steps ahead, and predicted reward until then", 14, LOOK.muted, "rs"
    )
    side, gap = 103, 5.6
    for place, ahead in enumerate(decision.steps.tolist()):
        left = MAIN + place * (side + gap)
        canvas.picture((left, 84, left + side, 84 + side), decision.imagined[place])
        reward = decision.reward[:ahead].sum()
        canvas.text((left, 205), f"+{ahead}", 15)
        canvas.text(
            (left + side, 205),
            f"{reward:.2g}" if abs(reward) < 10 else f"{reward:.0f}",
            14,
            LOOK.muted,
            "rs",
        )
        if decision.spread is not None:
            heat = _heat(decision.imagined[place], decision.spread[place], scales.spread)
            canvas.picture((left, 258, left + side, 258 + side), heat)
            most = float(decision.spread[place].max())
            canvas.text((left + side, 379), f"std to {most:.2f}", 14, LOOK.muted, "rs")


def _heat(picture: np.ndarray, spread: np.ndarray, most: float) -> np.ndarray:
    """Return a picture in grey, with orange where futures differ."""
    grey = 0.3 * picture.astype(np.float32).mean(-1, keepdims=True)
    share = np.clip(spread.astype(np.float32) / most, 0, 1)[..., None] ** 0.6
    hot = np.array([255, 150, 20], np.float32)
    return np.round(grey + share * (hot - grey)).astype(np.uint8)


def _vectors(canvas: Canvas, decision: Decision, scales: Scales) -> None:
    """Draw the decoded vectors along the plan, and the spread of the best plans' around them."""
    assert decision.vectors is not None
    shown = decision.vectors[:, :MOST_VECTORS]
    box = (MAIN + 40, 84, RIGHT, 214)
    axes = Axes(canvas, box, (0, len(shown) - 1), scales.vectors)
    axes.ticks_y(nice_ticks(*scales.vectors))
    ahead = list(range(len(shown)))
    for entry, colour in zip(shown.T.tolist(), COLOURS, strict=False):
        canvas.line(axes.points(ahead, entry), colour, 2)
    more = decision.vectors.shape[1] - shown.shape[1]
    words = f"the first {shown.shape[1]} of {decision.vectors.shape[1]} entries" if more else ""
    canvas.text((RIGHT, 74), words, 14, LOOK.muted, "rs")
    if decision.vector_spread is None:
        return
    spread = decision.vector_spread[:, :MOST_VECTORS]
    most = max(float(spread.max()), 1e-6)
    below = Axes(canvas, (MAIN + 40, 258, RIGHT, 388), (0, len(shown) - 1), (0, most))
    below.ticks_y(nice_ticks(0, most))
    for entry, colour in zip(spread.T.tolist(), COLOURS, strict=False):
        canvas.line(below.points(ahead[1:], entry), colour, 2)


def _chart(place: int, left: int = 40) -> Box:
    """Return the box of one of the three charts below."""
    width = (RIGHT - MAIN) / 3
    return MAIN + place * width + left, CHART_TOP, MAIN + (place + 1) * width - 10, CHART_BOTTOM


def _heading(canvas: Canvas, box: Box, words: str, colour: Colour = LOOK.text) -> None:
    canvas.text((box[0] - 34, CHART_TOP - 10), words, 16, colour)


def _nothing(canvas: Canvas, box: Box, *lines: str) -> None:
    """Say in a chart's place why there is none."""
    canvas.box(box, LOOK.panel)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - 11 * (len(lines) - 1)
    for place, line in enumerate(lines):
        canvas.text((middle[0], middle[1] + 22 * place), line, 15, LOOK.muted, "mm")


def _returns(canvas: Canvas, decision: Decision, scales: Scales) -> None:
    """Draw the distribution of the candidates' returns, a column a round."""
    box = _chart(0)
    rounds = decision.returns
    _heading(canvas, box, "returns tried, by round")
    if not rounds:
        lines = ("no candidates: one pass", "of the actor's network")
        if decision.actor is None or len(decision.elites) < 2:
            lines = ("this planner asked the", "model for no rollouts")
        _nothing(canvas, box, *lines)
        return
    if len(rounds) > MOST_ROUNDS:
        shown = np.linspace(0, len(rounds) - 1, MOST_ROUNDS).round().astype(int).tolist()
    else:
        shown = list(range(len(rounds)))
    axes = Axes(canvas, box, (-0.5, len(shown) - 0.5), scales.returns)
    axes.ticks_y(nice_ticks(*scales.returns))
    labelled = [place for place in range(len(shown)) if len(shown) <= 6 or place % 3 == 0]
    axes.ticks_x(labelled, [str(shown[place] + 1) for place in labelled])
    elites = len(decision.elites)
    for place, number in enumerate(shown):
        _column(axes, place, rounds[number], elites, decision.proposals, scales.returns)
    x, y = axes.at(len(shown) - 0.5, decision.value)
    canvas.dashes([(box[0], y), (x, y)], LOOK.orange, 1.5)
    canvas.text((box[2], box[3] + 22), "best", 13, LOOK.green, "ra")
    canvas.text((box[2] - 34, box[3] + 22), "all", 13, LOOK.blue, "ra")
    canvas.text((box[2] - 58, box[3] + 22), "chosen", 13, LOOK.orange, "ra")
    if decision.proposals:
        canvas.text((box[2] - 110, box[3] + 22), "actor's", 13, LOOK.purple, "ra")


def _column(
    axes: Axes,
    place: int,
    returns: np.ndarray,
    elites: int,
    proposals: int,
    ends: tuple[float, float],
) -> None:
    """Draw the returns of one round as a column of bars, the best ones in another colour."""
    finite = np.sort(returns[np.isfinite(returns)])
    if not len(finite):
        return
    bins = np.linspace(*ends, BINS + 1) if ends[1] > ends[0] else np.linspace(-1, 1, BINS + 1)
    every = np.histogram(np.clip(finite, bins[0], bins[-1]), bins)[0]
    best = np.histogram(np.clip(finite[-elites:], bins[0], bins[-1]), bins)[0]
    widest = max(every.max(), 1)
    for low, high, all_of, best_of in zip(bins[:-1], bins[1:], every, best, strict=True):
        for count, colour in ((all_of, mixed(LOOK.panel, LOOK.blue, 0.75)), (best_of, LOOK.green)):
            if count:
                half = 0.42 * (count / widest) ** 0.5
                left, top = axes.at(place - half, high)
                right, bottom = axes.at(place + half, low)
                axes.canvas.box((left, top, right, bottom), colour)
    for value in returns[len(returns) - proposals :][: 40 if proposals else 0]:
        if np.isfinite(value):
            x, y = axes.at(place - 0.44, float(value))
            axes.canvas.dot((x, y), 2, LOOK.purple)


def _actions(canvas: Canvas, decision: Decision) -> None:
    """Draw the chosen plan with the spread of the best ones, a strip for each number."""
    box = _chart(1, left=44)
    horizon, size = decision.sequence.shape
    shown = min(size, MOST_ACTIONS)
    more = f", {shown} of {size}" if shown < size else ""
    _heading(canvas, box, f"plan and its spread{more}")
    left, top, right, bottom = box
    gap = 6
    choices = all(np.isin(part, (0, 1)).all() for part in (decision.sequence, decision.elites))
    high = (bottom - top - gap * (shown - 1)) / shown
    ahead = list(range(1, horizon + 1))
    edge = (0.7, horizon + 0.3)
    for entry in range(shown):
        begin = top + entry * (high + gap)
        low = 0 if choices else -1
        axes = Axes(canvas, (left, begin, right, begin + high), edge, (low - 0.08, 1.08))
        axes.ticks_y(sorted({low, 0, 1}) if high > 60 or choices else (0,))
        if len(decision.elites) > 1:
            values = decision.elites[:, :, entry]
            mean, std = values.mean(0), values.std(0)
            band = axes.points(ahead, (mean + std).tolist())
            band += axes.points(ahead[::-1], (mean - std)[::-1].tolist())
            if horizon > 1:
                canvas.area(band, mixed(LOOK.panel, LOOK.green, 0.45))
        if decision.actor is not None and len(decision.actor) == horizon > 1:
            canvas.dashes(axes.points(ahead, decision.actor[:, entry].tolist()), LOOK.purple, 1.5)
        points = axes.points(ahead, decision.sequence[:, entry].tolist())
        canvas.line(points, LOOK.orange, 2.5)
        canvas.dot(points[0], 4.5, LOOK.orange)
    marks = [at for at in ahead if at == 1 or at == horizon or (at % 5 == 0 and horizon - at > 1)]
    axes.ticks_x(marks, [f"+{at}" for at in marks])
    canvas.text((right, bottom + 22), "chosen", 13, LOOK.orange, "ra")
    if len(decision.elites) > 1:
        words = "best ±std" if decision.returns else "drawn ±std"
        canvas.text((right - 50, bottom + 22), words, 13, LOOK.green, "ra")
    if decision.actor is not None and decision.returns:
        canvas.text((right - 118, bottom + 22), "actor's", 13, LOOK.purple, "ra")


def _worth(canvas: Canvas, decision: Decision, scales: Scales) -> None:
    """Draw the predicted rewards summed along the plan, and what the critic adds at its end."""
    box = _chart(2)
    _heading(canvas, box, "predicted reward, summed")
    horizon = len(decision.reward)
    critic = decision.critic
    axes = Axes(canvas, box, (0, horizon + (1.6 if critic is not None else 0.2)), scales.worth)
    axes.ticks_y(nice_ticks(*scales.worth))
    ahead = list(range(horizon + 1))
    if len(decision.elite_reward) > 1 and decision.elite_reward.shape[1] == horizon:
        sums = np.concatenate([np.zeros((len(decision.elite_reward), 1)), decision.elite_reward], 1)
        sums = sums.cumsum(1)
        band = axes.points(ahead, sums.max(0).tolist())
        band += axes.points(ahead[::-1], sums.min(0)[::-1].tolist())
        canvas.area(band, mixed(LOOK.panel, LOOK.green, 0.45))
    total = np.r_[0.0, decision.reward.cumsum()]
    canvas.line(axes.points(ahead, total.tolist()), LOOK.orange, 2.5)
    marks = [at for at in ahead if at in (1, horizon) or (at % 5 == 0 and 1 < at < horizon - 1)]
    axes.ticks_x(marks, [f"+{at}" for at in marks])
    if critic is None:
        canvas.text((box[2], box[3] + 22), "no critic", 13, LOOK.muted, "ra")
        return
    worth = float(critic[-1])
    left, bottom = axes.at(horizon + 0.3, float(total[-1]))
    right, top = axes.at(horizon + 1.3, float(total[-1]) + worth)
    bar = (left, min(top, bottom), right, max(top, bottom))
    canvas.box(bar, LOOK.yellow if decision.counts_critic else None, LOOK.yellow)
    counted = ", not counted" if decision.returns and not decision.counts_critic else ""
    canvas.text((box[2], box[3] + 22), f"+ critic {short(worth)}{counted}", 13, LOOK.yellow, "ra")
