"""The page of `planet report`, built from what the run folders contain."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular, write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.base.stopwatch import duration
from planet_rssm.evaluation import groups as grouping
from planet_rssm.report.page import series
from planet_rssm.report.page.imagined import data_uri, strip_of
from planet_rssm.report.page.reading import RunFiles, again, nearest_preset, read_run
from planet_rssm.report.page.score_tables import (
    baseline_rows,
    levels_of,
    published_levels,
    score_tables,
)
from planet_rssm.report.page.scores import baseline_means, kept_scores
from planet_rssm.report.page.series import rounded
from planet_rssm.runs.run import VIDEOS
from planet_rssm.runs.surroundings import versions

FILMS = 24 << 20  # bytes of films in a page, all runs together
KINDS = {".mp4": "video/mp4", ".gif": "image/gif"}
DIAGNOSES = ("diagnosis.json", "diagnosis/diagnosis.json")
SECTIONS = (  # of the charts: title, and how their keys begin
    ("Losses", ("loss/",)),
    ("KL and entropies", ("kl", "entropy")),
    ("Reward and behaviour", ("reward/", "continue/", "behavior/")),
    ("Memory", ("memory_mib",)),
)
OTHERS = "Other numbers"
HERE = Path(__file__).parent


def write_report(
    names: Sequence[str],
    out: Path,
    *,
    group_by: str | None = None,
    strips: bool = True,
    on_run: Callable[[str], object] = lambda name: None,
) -> Json:
    """Write the page of runs, and return which file it is and what is missing in it, by run.

    Args:
        names: run folders or `pretrained:NAME`.
        out: the HTML file.
        group_by: the dotted setting by which runs are grouped; None: as `planet eval` does.
        strips: let each run's model imagine an episode.
        on_run: given each run's name as it is read.

    Raises:
        PlanetError: one is no run, an unknown key, or the file cannot be written.
    """
    grouping.check_key(group_by)
    runs, unread = [], {}
    for name in dict.fromkeys(names):
        on_run(name)
        try:
            runs.append(read_run(name))
        except PlanetError as error:
            if len(names) == 1:
                raise
            unread[name] = [str(error)]
    if not runs:
        raise PlanetError(next(iter(unread.values()))[0])
    context = _context(runs, group_by, strips)
    context["missing"] += unread.items()
    try:
        write_atomic(out, [_rendered(context).encode(errors="backslashreplace")])
    except OSError as error:
        raise PlanetError(f"--out {out}: not written ({error.strerror})") from None
    return {"file": str(out), "missing": {run.name: run.missing for run in runs} | unread}


def _context(runs: Sequence[RunFiles], group_by: str | None, strips: bool) -> Json:
    """Return all that the page shows."""
    groups = _groups(runs, group_by)
    scores = kept_scores(runs, groups, group_by)
    levels = {run.name: baseline_means(run) for run in runs}
    strip = {run.name: strip_of(run) if strips else None for run in runs}
    films = _films(runs)
    charts: list[Json] = []
    places = dict.fromkeys((run.task, run.observation) for run in runs)
    for task, observation in places:
        here = [
            at for at, run in enumerate(runs) if (run.task, run.observation) == (task, observation)
        ]
        curves = series.return_curves([runs[at] for at in here], [groups[at] for at in here])
        beside = levels_of([levels[runs[at].name] for at in here])
        beside += published_levels([runs[at] for at in here])
        title = f"{task}, {observation}"
        charts.append({"title": title, "y": "return", "curves": curves, "levels": beside})
    sections = _sections(series.metric_curves(runs, groups))
    everything = charts + [chart for _, part in sections for chart in part]
    axis = "updates" if all(run.axis == "updates" for run in runs) else "env_steps"
    # colours are the groups'; where there is one group alone, its runs'
    by = "group" if len(set(groups)) > 1 else "name"
    keys = list(dict.fromkeys(groups if by == "group" else [run.name for run in runs]))
    for curve in [curve for chart in everything for curve in chart["curves"]]:
        curve["key"] = curve[by]
    for number, chart in enumerate(everything):
        chart["id"] = f"c{number}"
    return {
        "title": runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": versions()["planet_rssm"],
        "overview": [_overview(run, group) for run, group in zip(runs, groups, strict=True)],
        "returns": charts,
        "sections": sections,
        "data": {"charts": everything, "keys": keys, "axis": axis},
        "axes": [(name, name == axis) for name in series.AXES],
        "scores": score_tables(scores, runs),
        "baselines": baseline_rows(levels),
        "stages": _shares(series.stage_shares(runs)),
        "runs": [
            _details(run, group, strip[run.name], films.get(run.name, []))
            for run, group in zip(runs, groups, strict=True)
        ],
        "missing": [(run.name, run.missing) for run in runs if run.missing],
    }


def _groups(runs: Sequence[RunFiles], key: str | None) -> list[str]:
    """Return the group of each run, as `planet eval` calls it."""
    known = [run.settings for run in runs if run.settings is not None]
    labels = iter(grouping.labels_of(known, key))
    return ["not known" if run.settings is None else next(labels) for run in runs]


def _overview(run: RunFiles, group: str) -> list[Any]:
    """Return a run's row of the first table: cells, numbers as they are."""
    tests = [line["return"] for line in run.of("test") if "return" in line]
    played = [line.get("returns") for line in run.of("test")]
    trained = run.of("train")
    memory = [line["memory_mib"] for line in trained if "memory_mib" in line]
    return [
        run.name,
        run.task,
        rounded(tests[-1], 4) if tests else None,
        rounded(max(tests), 4) if tests else None,
        len(played[-1]) if played and isinstance(played[-1], list) else None,
        run.last.get("env_steps"),
        run.last.get("updates"),
        rounded(run.last["seconds"] / 3600, 3) if run.last.get("seconds") else None,
        rounded(max(memory), 4) if memory else None,
        run.state(),
        run.seed,
        group,
        run.observation,
    ]


OVERVIEW = (  # what is looked at first is seen first, on a narrow screen too
    "run",
    "task",
    "last test",
    "best test",
    "episodes",
    "env_steps",
    "updates",
    "hours",
    "MiB",
    "state",
    "seed",
    "group",
    "observation",
)


def _sections(curves: dict[str, list[Json]]) -> list[tuple[str, list[Json]]]:
    """Return the charts of the metrics, by section."""
    left = dict(curves)
    sections = []
    for title, beginnings in SECTIONS:
        keys = [key for key in left if key.startswith(beginnings)]
        charts = [{"title": key, "y": key, "curves": left.pop(key)} for key in keys]
        if charts:
            sections.append((title, charts))
    if left:
        charts = [{"title": key, "y": key, "curves": own} for key, own in left.items()]
        sections.append((OTHERS, charts))
    return sections


def _shares(measured: Sequence[tuple[str, dict[str, float]]]) -> Json:
    """Return the bars of all runs, in which a stage has one colour, that of its place in names."""
    rows = []
    for name, seconds in measured:
        total = sum(seconds.values()) or 1.0
        parts = [(stage, spent / total, duration(spent)) for stage, spent in seconds.items()]
        parts = [part for part in parts if part[1] >= 0.005]
        rows.append({"name": name, "total": duration(total), "parts": parts})
    return {"rows": rows, "names": list(dict.fromkeys(p[0] for row in rows for p in row["parts"]))}


def _details(run: RunFiles, group: str, strip: Any, films: list[Json]) -> Json:  # noqa: ANN401
    preset, differing = nearest_preset(run.settings) if run.settings else ("", {})
    record = run.record
    machine, renderer, then = (_part(record, key) for key in ("machine", "renderer", "versions"))
    facts = {
        "folder": str(run.folder),
        "group": group,
        "state": run.state(),
        "commit": record.get("commit"),
        "device": record.get("device"),
        "processor": machine.get("processor"),
        "system": machine.get("system"),
        "processors": machine.get("cpus"),
        "renderer": " ".join(str(value) for value in renderer.values() if value),
        "versions": ", ".join(f"{package} {number}" for package, number in then.items()),
        "last checkpoint": run.checkpoint,
    }
    return {
        "name": run.name,
        "facts": [(name, str(value)) for name, value in facts.items() if value not in (None, "")],
        "preset": preset,
        "differing": [(key, _value(value)) for key, value in differing.items()],
        "again": again(run),
        "settings": config.dump(run.settings) if run.settings else "",
        "strip": strip,
        "films": films,
        "diagnosis": _diagnosis(run),
        "missing": run.missing,
    }


def _part(record: Json, key: str) -> Json:
    """Return an object within one; nothing where it is of another kind."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _diagnosis(run: RunFiles) -> Json | None:
    """Return what `planet diagnose --out` wrote, if it is in the run's folder."""
    for name in DIAGNOSES:
        path = run.outputs / name
        if not path.is_file():
            continue
        try:
            read = json.loads(read_regular(path))
            rows = [
                (
                    part,
                    f"{returns['mean']:.1f}",
                    "{:.1f} to {:.1f}".format(*returns["episode_ci95"]),
                    f"{read['gain'][part]['mean']:+.1f}" if part in read["gain"] else "",
                )
                for part, returns in read["returns"].items()
            ]
            return {"limit": str(read["limit"]), "rows": rows}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            run.missing.append(f"{name}: damaged or of another version")
            return None
    run.missing.append(
        f"no diagnosis: planet diagnose {run.word} --out "
        + shlex.quote(str(run.outputs / "diagnosis"))
    )
    return None


def _films(runs: Sequence[RunFiles]) -> dict[str, list[Json]]:
    """Return the films of runs as data, as many as a page carries; the others are named."""
    left = FILMS
    films: dict[str, list[Json]] = {}
    for run in runs:
        paths = sorted(
            path for path in (run.outputs / VIDEOS).glob("*") if path.suffix.lower() in KINDS
        )
        if not paths:
            run.missing.append(f"no films: planet plan {run.word} --video --xray")
        for path in paths:
            try:
                data = read_regular(path, left)
            except OSError as error:
                run.missing.append(f"{VIDEOS}/{path.name} is left out: {error.strerror}")
                continue
            left -= len(data)
            kind = KINDS[path.suffix.lower()]
            films.setdefault(run.name, []).append(
                {"name": path.name, "kind": kind, "data": data_uri(kind, data)}
            )
    return films


def _rendered(context: Json) -> str:
    """Return the page; every name in it is text, whatever signs it has."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html")
    return template.render(**context, overview_columns=OVERVIEW)
