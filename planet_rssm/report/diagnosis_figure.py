"""A diagnosis as a picture: how the model ranks and values candidates, and what each part gains."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from planet_rssm.base.files import write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.report.curves import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"random": "C0", "planned": "C1"}


def plot_diagnosis(result: Json, out: Path) -> None:
    """Draw what `planet diagnose --json` prints as a PNG.

    Raises:
        PlanetError: matplotlib is not installed.
    """
    require_matplotlib("diagnosis.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it keeps global state
    from matplotlib.figure import Figure

    scored = bool(result["horizons"])
    figure = Figure(figsize=(16 if scored else 5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 4 if scored else 1, squeeze=False)[0]
    figure.suptitle(f"{result['task']}: {result['limit']}")
    _gains(axes[0], result)
    if scored:
        _correlation(axes[1], result)
        _optimism(axes[2], result)
        _calibration(axes[3], result["reward_calibration"])
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    write_atomic(out, [data.getbuffer()])


def _gains(ax: "Axes", result: Json) -> None:
    ax.set(title="mean return by part exchanged")
    for index, (name, returns) in enumerate(result["returns"].items()):
        low, high = returns["episode_ci95"]
        spread = [[returns["mean"] - low], [high - returns["mean"]]]
        ax.bar(
            index,
            returns["mean"],
            yerr=spread,
            capsize=4,
            color="0.6" if name == "as is" else f"C{index + 1}",
        )
    ax.set_xticks(range(len(result["returns"])), list(result["returns"]))


def _correlation(ax: "Axes", result: Json) -> None:
    ax.set(title="rank correlation, model and simulator", xlabel="agent steps", ylim=(-1.02, 1.02))
    for kind, colour in COLOURS.items():
        for name, style in (("one", ":"), ("mean", "-")):
            _line(
                ax,
                result["horizons"],
                result["rank_correlation"][kind][name],
                f"{kind}, {name} future",
                colour,
                style,
            )
    ax.legend(fontsize="small")


def _optimism(ax: "Axes", result: Json) -> None:
    ax.set(
        title="optimism of the chosen plan", xlabel="agent steps", ylabel="imagined − real return"
    )
    ax.axhline(0, color="0.4", linewidth=1)
    _line(ax, result["horizons"], result["optimism"], "the model", "C3", "-")
    if claimed := result["claimed"]:
        ax.plot(result["horizons"][-1], claimed["mean"], "kx", label="the planner's own value")
    ax.legend(fontsize="small")


def _calibration(ax: "Axes", bins: list[dict[str, float]]) -> None:
    ax.set(title="reward of a step, by tenths", xlabel="predicted", ylabel="real")
    ends = [value for part in bins for value in (part["predicted"], part["real"])]
    ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.4", linewidth=1)
    ax.plot(
        [part["predicted"] for part in bins],
        [part["real"] for part in bins],
        marker="o",
        color="C3",
    )


def _line(
    ax: "Axes",
    horizons: list[int],
    cells: list[Json | None],
    label: str,
    colour: str,
    style: str,
) -> None:
    known = [
        (at, cell["mean"], *cell["episode_ci95"])
        for at, cell in zip(horizons, cells, strict=True)
        if cell
    ]
    if known:
        at, mean, low, high = zip(*known, strict=True)
        ax.plot(at, mean, label=label, color=colour, linestyle=style, marker="o", markersize=4)
        ax.fill_between(at, low, high, color=colour, alpha=0.15)
