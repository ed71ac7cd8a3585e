"""Ways to decide as a picture: return by milliseconds of one decision."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from planet_rssm.base.files import write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.report.curves import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
# a colour and a marker each, so that lines that lie on one another stay apart
STYLES = {"actor": "k*", "cem": "C0o", "icem": "C1s", "mppi": "C2^", "cem+actor+critic": "C3D"}


def plot_compared(result: Json, out: Path) -> None:
    """Draw what `planet compare --json` prints as a PNG, an axis for each group.

    Raises:
        PlanetError: matplotlib is not installed.
    """
    require_matplotlib("compare.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it keeps global state
    from matplotlib.figure import Figure

    groups = result["groups"]
    columns = min(COLUMNS, len(groups))
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(4.6 * columns + 1.8, 3.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=_same_task(groups)).flat)
    for ax, group in zip(axes, groups, strict=False):
        _draw(ax, group, result["ms"])
    for ax in axes:  # once all are drawn: they may share their y-axis
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    for ax in axes[len(groups) :]:
        ax.set_visible(False)
    figure.suptitle(
        f"{len(result['seeds'])} episodes a run; {result['processor']}, "
        f"{result['threads']} {'thread' if result['threads'] == 1 else 'threads'}",
        fontsize="small",
    )
    named: Json = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    order = [way for way in STYLES if way in named]
    figure.legend([named[way] for way in order], order, loc="outside right upper")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomic(out, [data.getbuffer()])


def _same_task(groups: list[Json]) -> bool:
    return len({group["task"] for group in groups}) == 1


def _draw(ax: "Axes", group: Json, budgets: list[float]) -> None:
    runs = group["runs"]
    name = Path(runs[0]).name if len(runs) == 1 else f"{len(runs)} seeds, {group['group']}"
    title = f"{group['task']}, {group['observation']}\n{name.removesuffix(', ')}"
    ax.set_title(title, fontsize="small")
    # the same in each axis, whatever fits there
    limits = (budgets[0] / 1.5, budgets[-1] * 1.5)
    ax.set(xlabel="ms of one decision", ylabel="return", xscale="log", xlim=limits)
    ax.set_xticks(budgets, [f"{ms:g}" for ms in budgets])
    ax.minorticks_off()
    ways = dict.fromkeys(cell["way"] for cell in group["cells"])
    for number, way in enumerate(ways):
        cells = [cell for cell in group["cells"] if cell["way"] == way and cell["mean"] is not None]
        if not cells:
            continue
        # beside one another, so that intervals can be read
        shift = 1.05 ** (number - (len(ways) - 1) / 2)
        ends = [cell.get("ci95") or cell["episode_ci95"] for cell in cells]
        means = [cell["mean"] for cell in cells]
        ax.errorbar(
            [cell["ms"] * shift for cell in cells],
            means,
            yerr=[
                [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
                [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
            ],
            label=way,
            color=STYLES[way][:-1],
            marker=STYLES[way][-1],
            markersize=5,
            capsize=3,
            linewidth=1.3,
        )
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
