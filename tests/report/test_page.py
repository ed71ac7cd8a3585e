"""The page of `planet report`: what is there is shown, what is missing is named, names are text."""

import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.envs.registry import resolve
from planet_rssm.report.page.build import write_report
from planet_rssm.report.page.reading import nearest_preset, read_run
from planet_rssm.report.page.series import return_curves, t_interval
from planet_rssm.report.watching import Watched
from planet_rssm.runs.run import CONFIG, METRICS, RECORD
from planet_rssm.runs.surroundings import versions

MARKUP = "<img src=x onerror=alert(1)>&\"'{{7}}"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def settings():
    made = config.load("quickstart")
    return made.model_copy(update={"env": resolve(made.env)})


def line(phase, step, **values):
    counters = {"env_steps": step, "agent_steps": step // 8, "updates": step // 16, "episodes": 1}
    return {"format": 1, "phase": phase, **counters, "seconds": step / 100, **values}


def lines(seed=0, steps=(1000, 2000, 3000)):
    for step in steps:
        value = step / 10 + 10 * seed
        yield line("collect", step, **{"return": value, "returns": [value, value]})
        stages = {"learn": 3.0, "environment": 1.0}
        losses = {"loss/image": 1000.0 / step, "kl": 2.0, "entropy/prior": 1.0, "other": 1.0}
        yield line("train", step, memory_mib=300.0, stage_seconds=stages, **losses)
        yield line("test", step, **{"return": value, "returns": [value - 5, value + 5]})


def make(folder: Path, settings, seed=0, measured=None, **changes) -> str:
    folder.mkdir()
    config.save(settings.model_copy(update={"seed": seed, **changes}), folder / CONFIG)
    record = {"format": 1, "versions": versions(), "commit": "abc", "device": "cpu"}
    record |= {"machine": {"processor": "a processor", "cpus": 2}}
    (folder / RECORD).write_text(json.dumps(record))
    text = "".join(json.dumps(one) + "\n" for one in (measured or lines(seed)))
    (folder / METRICS).write_text(text)
    return str(folder)


def written(names, tmp_path, **options) -> tuple[str, dict]:
    result = write_report(names, tmp_path / "page.html", strips=False, **options)
    return (tmp_path / "page.html").read_text(), result["missing"]


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_a_page_has_all_that_a_run_contains(settings, tmp_path):
    name = make(tmp_path / "run", settings)
    page, missing = written([name], tmp_path)
    for words in (
        "a processor",
        "abc",
        "quickstart",
        "env.renderer",
        'title="learn: 75 %',
        "loss/image",
    ):
        assert words in page, words
    data = data_of(page)
    [returns] = [chart for chart in data["charts"] if chart["y"] == "return"]
    assert returns["title"] == "dmc/cartpole-swingup, raycast 32x32 pixels"
    [curve] = returns["curves"]
    assert curve["env_steps"] == [1000, 2000, 3000] and curve["y"] == [100, 200, 300]
    assert curve["low"][0] == pytest.approx(100 - 12.706 * 5, rel=1e-3)
    assert [line for line in missing[name] if "no checkpoint" in line]
    assert "821" in page and "1000 episodes of training" in page  # what was published
    assert f"planet train {name}/config.yaml --run-dir AGAIN" in html.unescape(page)


def test_nothing_in_a_page_leads_out_of_it(settings, tmp_path):
    page, _ = written([make(tmp_path / "run", settings)], tmp_path)
    assert not re.search(r"""(?:src|href|action|url\()\s*=?\s*["']?(?:https?:|//)""", page)
    assert "default-src 'none'" in page and "@import" not in page


def test_names_are_text(settings, tmp_path):
    folder = tmp_path / MARKUP.replace("/", "")
    name = make(folder, settings)
    page, _ = written([name, make(tmp_path / "b", settings, seed=1)], tmp_path)
    assert "<img src=x" not in page and "{{" not in data_of(page)["charts"][0]["id"]
    assert html.escape(MARKUP, quote=False).split("&amp;")[0] in page
    assert [curve["name"] for curve in data_of(page)["charts"][0]["curves"]].count(name) == 1


def test_seeds_are_a_group_with_an_interval_and_other_settings_another(settings, tmp_path):
    names = [make(tmp_path / f"s{seed}", settings, seed) for seed in range(3)]
    planner = settings.planner.model_copy(update={"candidates": 77})
    names.append(make(tmp_path / "more", settings, 0, planner=planner))
    page, _ = written(names, tmp_path)
    data = data_of(page)
    assert len(data["keys"]) == 2 and "planner.candidates=77" in data["keys"]
    curves = data["charts"][0]["curves"]
    [mean] = [curve for curve in curves if curve.get("mean")]
    assert mean["y"] == [110, 210, 310] and len(curves) == 5
    half = 4.3027 * 10 / math.sqrt(3)
    assert mean["low"][0] == pytest.approx(110 - half, rel=1e-3)
    page, _ = written(names, tmp_path, group_by="seed")
    assert data_of(page)["keys"] == ["seed=0", "seed=1", "seed=2"]


def test_seeds_that_end_at_other_steps_meet_where_all_are(settings, tmp_path):
    runs = [
        read_run(make(tmp_path / "a", settings)),
        read_run(make(tmp_path / "b", settings, 1, lines(1, (500, 1500)))),
    ]
    mean = return_curves(runs, ["g", "g"])[0]
    assert mean["env_steps"] == [1000, 1500] and mean["y"][0] == pytest.approx(105)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / METRICS).unlink(), "no curves, times or memory"),
        (lambda run: (run / RECORD).unlink(), "versions, commit and machine are not known"),
        (lambda run: (run / CONFIG).write_text("format: 99"), "this version reads up to 1"),
        (
            lambda run: (run / METRICS).write_text("not a line\n" + json.dumps(line("test", 1))),
            "line 1 is not a measurement",
        ),
        (
            lambda run: (run / RECORD).write_text(json.dumps({"versions": {"torch": "1.0"}})),
            "made with other versions: torch 1.0",
        ),
        (lambda run: (run / "diagnosis.json").write_text("[]"), "damaged or of another version"),
    ],
)
def test_the_rest_is_made_and_what_is_missing_is_said(spoil, said, settings, tmp_path):
    name = make(tmp_path / "run", settings)
    spoil(tmp_path / "run")
    page, missing = written([name], tmp_path)
    assert any(said in words for words in missing[name]), missing
    assert html.escape(said, quote=False) in page
    data_of(page)


def test_half_a_line_and_a_run_under_way(settings, tmp_path):
    name = make(tmp_path / "run", settings)
    with open(tmp_path / "run" / METRICS, "a") as file:
        file.write('{"format": 1, "phase": "te')
    page, _ = written([name], tmp_path)
    assert f"under way: 3000 of {settings.train.env_steps} env_steps" in page
    assert data_of(page)["charts"][0]["curves"][0]["y"] == [100, 200, 300]


@pytest.mark.parametrize("value", ["word", None, [1], {"a": 1}, True, "<b>"])
@pytest.mark.parametrize(
    "key", ["seconds", "updates", "memory_mib", "returns", "stage_seconds", "loss/image"]
)
def test_anything_may_stand_in_the_place_of_a_number(key, value, settings, tmp_path):
    measured = [one | {key: value} for one in lines()]
    page, _ = written([make(tmp_path / "run", settings, measured=measured)], tmp_path)
    data_of(page)
    watched = Watched.open(str(tmp_path / "run"))
    watched.read()
    assert watched.to_json()["done"] == 3000


@pytest.mark.parametrize("record", ["[]", "{}", '{"machine": 1, "renderer": [], "versions": "x"}'])
def test_a_record_of_anything(record, settings, tmp_path):
    name = make(tmp_path / "run", settings)
    (tmp_path / "run" / RECORD).write_text(record)
    written([name], tmp_path)


def test_numbers_that_are_not_finite_are_gaps(settings, tmp_path):
    measured = [*lines(), line("train", 4000, **{"loss/image": float("nan"), "kl": float("inf")})]
    page, _ = written([make(tmp_path / "run", settings, measured=measured)], tmp_path)
    [loss] = [chart for chart in data_of(page)["charts"] if chart["y"] == "loss/image"]
    assert len(loss["curves"][0]["y"]) == 3
    assert "NaN" not in json.dumps(data_of(page))


def test_baselines_stand_beside_the_returns(settings, tmp_path):
    names = [make(tmp_path / f"s{seed}", settings, seed) for seed in range(3)]
    for number, kept in enumerate(
        [{"blind": {"returns": {"random": [10, 30], "zero": [0.0]}}}, {"blind": {"returns": "x"}}]
    ):
        (tmp_path / f"s{number}" / "baselines.json").write_text(json.dumps(kept))
    page, missing = written(names, tmp_path)
    [chart] = [chart for chart in data_of(page)["charts"] if chart["y"] == "return"]
    assert chart["levels"][:2] == [{"name": "random", "value": 20}, {"name": "zero", "value": 0}]
    assert [level["name"] for level in chart["levels"][2:]] == [
        "PlaNet after 1M",
        "DreamerV3 after 100k",
    ]
    assert all(level["protocol"] for level in chart["levels"][2:])
    assert [name for name in names if any("no baselines" in one for one in missing[name])] == (
        names[1:]
    )


def test_runs_of_a_single_group_have_a_colour_each(settings, tmp_path):
    names = [make(tmp_path / f"s{seed}", settings, seed) for seed in range(2)]
    page, _ = written(names, tmp_path)
    data = data_of(page)
    assert data["keys"] == names
    assert [curve["key"] for curve in data["charts"][0]["curves"]][1:] == names


def test_offline_runs_are_drawn_over_their_updates(settings, tmp_path):
    data = settings.data.model_copy(update={"folder": "set"})
    names = []
    for seed in range(2):
        measured = [one | {"env_steps": 500} for one in lines(seed)]
        names.append(make(tmp_path / f"s{seed}", settings, seed, measured, data=data))
    page, _ = written(names, tmp_path)
    data = data_of(page)
    assert data["axis"] == "updates" and 'value="updates" checked' in page
    mean = data["charts"][0]["curves"][0]
    assert mean["mean"] and mean["updates"] == [62, 125, 187] and mean["y"] == [105, 205, 305]


def test_a_task_without_a_published_score(settings, tmp_path):
    env = settings.env.model_copy(update={"id": "gym/Pendulum-v1"})
    page, _ = written([make(tmp_path / "run", settings, env=env)], tmp_path)
    assert "no published score of gym/Pendulum-v1 is known here" in page


def test_a_folder_that_is_no_run_is_named_beside_the_others(settings, tmp_path):
    name = make(tmp_path / "run", settings)
    page, missing = written([name, str(tmp_path / "nowhere")], tmp_path)
    assert "not a run folder" in missing[str(tmp_path / "nowhere")][0] and "not a run" in page
    with pytest.raises(PlanetError, match="not a run folder"):
        written([str(tmp_path / "nowhere")], tmp_path)
    with pytest.raises(PlanetError, match="no such setting"):
        written([name], tmp_path, group_by="planner.candidate")


def test_films_are_carried_and_too_many_are_named(settings, tmp_path, monkeypatch):
    name = make(tmp_path / "run", settings)
    videos = tmp_path / "run" / "videos"
    videos.mkdir()
    (videos / "a.gif").write_bytes(b"GIF89a" + bytes(50))
    (videos / "b.mp4").write_bytes(bytes(1000))
    monkeypatch.setattr("planet_rssm.report.page.build.FILMS", 500)
    page, missing = written([name], tmp_path)
    assert "data:image/gif;base64,R0lGODlh" in page and "<video" not in page
    assert any("videos/b.mp4 is left out" in words for words in missing[name])


def test_the_preset_that_a_run_is_nearest_to(settings):
    assert nearest_preset(settings)[0] == "quickstart"
    changed = settings.model_copy(
        update={"planner": settings.planner.model_copy(update={"candidates": 77})}
    )
    assert nearest_preset(changed) == ("quickstart", {"planner.candidates": 77})


def test_an_interval_of_one_value_is_the_value():
    assert t_interval([3.0]) == (3.0, 3.0)


TRIAL = """
<script>
addEventListener("load", () => setTimeout(() => {
  const said = {};
  const report = window.planetReport || {};
  said.charts = report.charts;
  said.drawn = document.querySelectorAll(".chart svg").length;
  const table = document.querySelector("table.sortable");
  const column = (at) => [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
  const head = [...table.tHead.rows[0].cells].findIndex((th) => th.textContent === "last test");
  const button = table.tHead.rows[0].cells[head].querySelector("button");
  button.click(); said.up = column(head); button.click(); said.down = column(head);
  const chart = document.querySelector(".chart");
  chart.focus();
  said.focused = document.activeElement === chart;
  chart.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
  said.tip = document.getElementById("tip").textContent;
  said.shown = !document.getElementById("tip").hidden;
  chart.blur();
  const box = chart.querySelector("svg").getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove",
    { clientX: box.left + 0.5 * box.width, clientY: box.top + 40, bubbles: true }));
  said.pointed = document.getElementById("tip").textContent;
  document.querySelector("input[value=hours]").click();
  const legend = document.querySelector(".legend button");
  const before = chart.querySelectorAll("polyline").length;
  legend.click();
  said.lines = [before, chart.querySelectorAll("polyline").length];
  dispatchEvent(new Event("beforeprint"));
  said.printed = document.querySelectorAll(".chart svg").length;
  said.requests = performance.getEntriesByType("resource").map((one) => one.name)
    .filter((name) => !name.startsWith("data:"));
  const times = performance.getEntriesByType("navigation")[0];
  said.ms = times.domContentLoadedEventEnd;
  said.width = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  said.images = document.querySelectorAll("img").length;
  const out = document.createElement("pre");
  out.id = "said"; out.textContent = JSON.stringify(said); document.body.append(out);
}, 200));
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_forty_runs_in_a_browser(settings, tmp_path):
    steps = range(100, 12_100, 100)
    names = [
        make(tmp_path / f"{MARKUP}{seed}", settings, seed, lines(seed, steps)) for seed in range(20)
    ]
    planner = settings.planner.model_copy(update={"candidates": 77})
    names += [
        make(tmp_path / f"b{seed}", settings, seed, lines(seed, steps), planner=planner)
        for seed in range(20)
    ]
    page, _ = written(names, tmp_path)
    trial = tmp_path / "trial.html"
    trial.write_text(page.replace("</body>", TRIAL + "</body>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--window-size=420,900", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--dump-dom", trial.as_uri()], capture_output=True, text=True, timeout=100
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    said = json.loads(html.unescape(re.search(r'<pre id="said">(.*?)</pre>', done.stdout)[1]))
    assert said["charts"] == said["printed"] == len(data_of(page)["charts"])
    assert said["drawn"] < said["charts"]  # each when it comes into view
    assert said["up"] == sorted(said["up"], key=float) == said["down"][::-1]
    assert said["focused"] and said["shown"] and "env_steps 12k" in said["tip"]
    assert "mean of 20 seeds" in said["tip"] and "env_steps 5" in said["pointed"]
    assert said["lines"][1] < said["lines"][0]
    assert said["requests"] == [] and said["images"] == 0
    assert said["width"] <= 0  # nothing but tables scrolls sideways
    assert said["ms"] < 2000, said["ms"]
