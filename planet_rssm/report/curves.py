"""Learning curves of runs, from their metrics.jsonl."""

import contextlib
import importlib.util
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.evaluation.baselines import kept_baselines
from planet_rssm.evaluation.published import published_by
from planet_rssm.runs.run import CONFIG, METRICS, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 64  # letters in a line of the title, which ends before the legend
LINE_STYLES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))  # of the baselines


def plot_curves(
    runs: Sequence[Path], out: Path, baselines: Mapping[str, float] | None = None
) -> None:
    """Draw train and test returns over env_steps as a PNG.

    Each run has a colour, each baseline a horizontal line.

    Raises:
        PlanetError: matplotlib is not installed, or a run has no readable metrics; see
            `read_metrics`.
    """
    axes = _axes(
        "env_steps (control steps, action repeats included)", "episode return", _title(runs)
    )
    for number, run in enumerate(runs):
        _draw_run(axes, run, f"C{number % 10}")
    for number, (name, value) in enumerate((baselines or {}).items()):
        style = LINE_STYLES[number % len(LINE_STYLES)]
        axes.axhline(
            value, color="0.35", linestyle=style, linewidth=1.2, label=f"{name} ({value:.0f})"
        )
    _save(axes, out)


def plot_tasks(runs: Sequence[Path], out: Path) -> None:
    """Draw train and test returns over env_steps as a PNG, a panel for each task of the runs.

    Beside the runs, each of which has a colour in its panel, stand the highest baseline that was
    measured, dashed, and the published score of PlaNet, dotted.

    Raises:
        PlanetError: as `plot_curves`, or a run has no readable settings.
    """
    tasks: dict[str, list[Path]] = {}
    for run in runs:
        tasks.setdefault(config.load(run / CONFIG).env.id, []).append(run)
    columns = min(3, len(tasks))
    figure = _figure((4 * columns, 3.1 * -(-len(tasks) // columns)))
    figure.suptitle(_title(runs), fontsize="medium")
    figure.supxlabel("env_steps (control steps, action repeats included)", fontsize="small")
    figure.supylabel("episode return", fontsize="small")
    for number, (task, own) in enumerate(tasks.items(), 1):
        axes: Any = figure.add_subplot(-(-len(tasks) // columns), columns, number)
        axes.set_title(task, loc="left", fontsize="small")
        for colour, run in enumerate(own):
            _draw_run(axes, run, f"C{colour % 10}")
        kept = [returns for run in own if (returns := kept_baselines(run))]
        means = {
            name: float(np.mean([np.mean(one[name]) for one in kept if name in one]))
            for name in dict.fromkeys(name for one in kept for name in one)
        }
        if means:
            name = max(means, key=lambda name: means[name])
            _level(axes, f"{name} {means[name]:.0f}", means[name], "--")
        trained = max((line["env_steps"] for run in own for line in read_metrics(run)), default=0)
        if (score := published_by(task, _observed(own[0]), trained, "PlaNet")) is not None:
            _level(axes, f"{score.method} {score.score:g} after {score.steps:,}", score.score, ":")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0, top=max(1000.0, axes.get_ylim()[1]))
        axes.tick_params(labelsize="small")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
        axes.grid(alpha=0.3)
    _write(figure, out)


def plot_key(runs: Sequence[Path], out: Path, key: str) -> None:
    """Draw one number of the metrics over the updates as a PNG, one colour a run.

    Raises:
        PlanetError: as `plot_curves`, or a run has no line with that number.
    """
    axes = _axes("updates", key, _title(runs))
    for run in runs:
        points = [
            (line["updates"], line[key])
            for line in read_metrics(run)
            if isinstance(line.get(key), int | float)
        ]
        if not points:
            raise PlanetError(
                f"{run / METRICS}: no number {key!r} in it; "
                "give another of its keys, say memory_mib"
            )
        axes.plot([step for step, _ in points], [value for _, value in points], label=run.name)
    # from 0, which shows its growth beside its size
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _save(axes, out)


def require_matplotlib(what: str) -> None:
    """Refuse to draw `what` where matplotlib is not installed.

    Raises:
        PlanetError: it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise PlanetError(f"{what}: matplotlib is not installed; pip install 'planet-rssm[report]'")


def _title(runs: Sequence[Path]) -> str:
    """Return what the runs learn and observe, as far as their settings say it."""
    titles: dict[str, list[str]] = {}  # tasks by what is observed
    for run in runs:
        with contextlib.suppress(PlanetError):
            if (run / CONFIG).is_file():
                env = config.load(run / CONFIG).env
                pixels = f"{env.renderer} {env.size}x{env.size} pixels"
                both = f"{pixels} and vectors"
                words = {"pixels": pixels, "vectors": "vectors", "both": both}
                titles.setdefault(words[env.observe], []).append(env.id)
    parts = (f"{', '.join(dict.fromkeys(tasks))}, {observed}" for observed, tasks in titles.items())
    return "; ".join(parts)


def _observed(run: Path) -> str:
    return "state" if config.load(run / CONFIG).env.observe == "vectors" else "pixels"


def _level(axes: "Axes", name: str, value: float, style: str) -> None:
    axes.axhline(value, color="0.35", linestyle=style, linewidth=1)
    along: Any = axes.get_yaxis_transform()
    axes.text(
        0.02, value, name, fontsize="x-small", color="0.35", verticalalignment="bottom"
    ).set_transform(along)


def _axes(xlabel: str, ylabel: str, title: str) -> "Axes":
    axes: Any = _figure((9, 5)).add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(textwrap.fill(title, TITLE), loc="left", fontsize="medium")
    return axes


def _figure(size: tuple[float, float]) -> "Figure":
    require_matplotlib("learning curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it keeps global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(axes: "Axes", out: Path) -> None:
    axes.grid(alpha=0.3)
    figure: Any = axes.figure  # the one that `_axes` made
    figure.legend(loc="outside right upper", fontsize="small")
    _write(figure, out)


def _write(figure: "Figure", out: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_atomic(out, [data.getbuffer()])


def _draw_run(axes: "Axes", run: Path, colour: str) -> None:
    measured = read_metrics(run)
    for phase, name, style in (
        ("collect", "train", {"linewidth": 1, "alpha": 0.45}),
        ("test", "test", {"linewidth": 2, "marker": "o", "markersize": 4}),
    ):
        points = [
            (line["env_steps"], line["return"]) for line in measured if line["phase"] == phase
        ]
        if points:
            axes.plot(
                [step for step, _ in points],
                [value for _, value in points],
                color=colour,
                label=f"{run.name} {name}",
                **style,
            )
