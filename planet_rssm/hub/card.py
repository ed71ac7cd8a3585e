"""The model card of a pushed run: protocol, seeds, renderer, versions, and how to make it again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import yaml

from planet_rssm.base.json_types import Json
from planet_rssm.evaluation.results import describe_observation
from planet_rssm.hub.parcel import EVAL, FILM, Parcel
from planet_rssm.report import tables
from planet_rssm.report.page.reading import again
from planet_rssm.runs.hub import PREFIX
from planet_rssm.runs.run import CONFIG
from planet_rssm.runs.surroundings import versions


def card(parcel: Parcel) -> str:
    """Return the card as Markdown, with the Hub's front matter."""
    parts = [
        _opening(parcel),
        _use(parcel),
        _scores(parcel),
        _baselines(parcel),
        _origin(parcel),
        _again(parcel),
        _code(parcel),
        _missing(parcel),
    ]
    front = yaml.safe_dump(_front_matter(parcel), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(parcel: Parcel) -> Json:
    task = parcel.settings.env.id
    front: Json = {
        "library_name": "planet_rssm",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "world-model", "rssm", "planning", task],
    }
    results = [
        {
            "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
            "dataset": {"name": task, "type": task},
            "metrics": [
                {
                    "type": "mean_reward",
                    "name": f"mean return, {group['planner']}",
                    "value": round(group["mean"], 1),
                    "verified": False,
                }
            ],
        }
        for group in (parcel.scores or {}).get("groups", [])
    ]
    if results:
        front["model-index"] = [{"name": parcel.repo.partition("/")[2], "results": results}]
    return front


def _opening(parcel: Parcel) -> str:
    settings = parcel.settings
    learns = (
        f"A recurrent state-space model of `{settings.env.id}`, learned by planet_rssm from "
        f"{describe_observation(settings.env.model_dump())}. It acts by `{settings.planner.label}`."
    )
    film = next((name for name in parcel.files if name.startswith(FILM)), None)
    shown = f"\n\nAn episode: [{film}]({film})." if film else ""
    return f"# {parcel.repo.partition('/')[2]}\n\n{learns}{shown}"


def _use(parcel: Parcel) -> str:
    run = f"{PREFIX}{parcel.repo}"
    return _fenced(
        "pip install 'planet-rssm[hub]'",
        f"planet plan {run} --episodes 4",
        f"planet eval {run}",
    ) + (
        "\n\nNothing here is a pickle or code. Weights are "
        + ("float16, acting is not: they were rounded once." if parcel.float16 else "float32.")
        + " The optimiser's state is left out, so it does not go on learning."
    )


def _scores(parcel: Parcel) -> str:
    if parcel.scores is None:
        return ""
    groups, results = parcel.scores["groups"], parcel.scores["results"]
    seeds = sorted({episode["seed"] for result in results for episode in result["episodes"]})
    planners = ", ".join(f"`{result['planner']}` in {result['precision']}" for result in results)
    words = (
        f"`planet eval`: the last checkpoint, reset seeds {_ranges(seeds)}, no exploration noise, "
        f"every episode counted; planned by {planners}; intervals are of 95 %."
    )
    if parcel.float16:
        words += " Measured before the weights were rounded to float16."
    rows = [
        [*row[:2], group["planner"], *row[3:]]
        for row, group in zip(tables.rows(groups), groups, strict=True)
    ]
    header = [*tables.COLUMNS[:2], "planner", *tables.COLUMNS[3:]]
    return f"## Returns\n\n{_table(header, rows)}\n\n{words} Each episode is in `{EVAL}`."


def _baselines(parcel: Parcel) -> str:
    if not parcel.baselines:
        return ""
    rows = [
        [name, f"{mean:.1f}", str(episodes)] for name, (mean, episodes) in parcel.baselines.items()
    ]
    return "Beside it, of the same task:\n\n" + _table(["policy", "mean return", "episodes"], rows)


def _origin(parcel: Parcel) -> str:
    settings, progress = parcel.settings, parcel.checkpoint.progress
    record, spec = parcel.run.record, parcel.checkpoint.spec
    machine = record.get("machine")
    renderer = record.get("renderer")
    gl = renderer.get("gl") if isinstance(renderer, dict) else None
    then = record.get("versions")
    facts = {
        "task": settings.env.id,
        "observed": describe_observation(settings.env.model_dump()),
        "renderer": spec.renderer + (f" ({gl})" if gl else ""),
        "simulator": spec.simulator,
        "action repeat": spec.action_repeat,
        "seconds a decision": f"{spec.control_interval:g}",
        "checkpoint": parcel.which + (" (selected)" if parcel.which == "best" else ""),
        "env_steps": progress["env_steps"],
        "updates": progress.get("updates"),
        "seed": settings.seed,
        "state": parcel.run.state(),
        "precision": settings.train.precision,
        "commit": record.get("commit"),
        "processor": machine.get("processor") if isinstance(machine, dict) else None,
        "device": record.get("device"),
        "made with": _versions(then) if isinstance(then, dict) else None,
        "sent with": _versions(versions()),
    }
    if settings.data.folder is not None:
        facts["offline"] = f"learned from the episodes in `{settings.data.folder}` alone"
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    return "## Where it comes from\n\n" + _table(["", ""], rows)


def _again(parcel: Parcel) -> str:
    nearest = again(replace(parcel.run, settings=parcel.settings))[-1:]
    return (
        "## To make it again\n\n"
        + _fenced(f"planet train {CONFIG} --run-dir AGAIN", *nearest)
        + f"\n\nThe first with the `{CONFIG}` beside this page; the second is the nearest preset. "
        "On the same kind of machine, with the same versions and numbers of threads, it is the "
        "same run."
    )


def _code(parcel: Parcel) -> str:
    if not parcel.code:
        return ""
    lines = "\n".join(f"- `{key}` is `{name}`" for key, name in parcel.code.items())
    return (
        f"## Code that you must bring\n\n{lines}\n\n"
        "It is not here, and none is loaded from here. Get the file from its author, look at it, "
        "put it where Python finds it, and add `--allow-code`."
    )


def _missing(parcel: Parcel) -> str:
    theirs = f"{PREFIX}{parcel.repo}"  # what to call, for who reads it there
    lines = "\n".join(f"- {line.replace(parcel.run.word, theirs)}" for line in parcel.run.missing)
    return f"## What is not here\n\n{lines}" if lines else ""


def _fenced(*commands: str) -> str:
    return "\n".join(f"    {command}" for command in commands)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def _versions(numbers: Json) -> str:
    return ", ".join(f"{package} {number}" for package, number in numbers.items())


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in order as `1000-1009, 1020`."""
    return ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in _runs(numbers)
    )


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = 0
    for at, number in enumerate(numbers):
        if at + 1 == len(numbers) or numbers[at + 1] != number + 1:
            yield numbers[first], number
            first = at + 1
