"""Learning curves of runs, from their metrics.jsonl."""

import contextlib
import importlib.util
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.runs.run import CONFIG, METRICS, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def _axes(xlabel: str, ylabel: str, title: str) -> "Axes":
    require_matplotlib("learning curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it keeps global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(textwrap.fill(title, TITLE), loc="left", fontsize="medium")
    return axes


def _save(axes: "Axes", out: Path) -> None:
    axes.grid(alpha=0.3)
    figure: Any = axes.figure  # the one that `_axes` made
    figure.legend(loc="outside right upper", fontsize="small")
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
