"""The pages: links lead somewhere, commands and settings exist, lines and README are short."""

import re
from pathlib import Path

import click
import pytest
from pages import DOCS, README, ROOT, commands_of, prose_of

from planet_rssm import config
from planet_rssm.cli.main import VERBS, planet

CHANGELOG = ROOT / "CHANGELOG.md"
RESULTS, CLI = DOCS / "results", DOCS / "cli.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
MOST_WORDS = 1000  # of the README, code and tables included, as `wc -w` counts
WIDTH = 100  # of all lines but tables
KEYS = {*config.flatten(config.Settings()), "behavior"}
SECTIONS = "|".join(sorted({key.partition(".")[0] for key in KEYS if "." in key}))
SETTING = re.compile(rf"`(?:-s )?((?:{SECTIONS})\.[a-z_]+)(?:[=:][^`]*)?`")


def each(pages: list[Path]) -> pytest.MarkDecorator:
    names = [str(page.relative_to(ROOT)) for page in pages]
    return pytest.mark.parametrize("page", pages, ids=names)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchors[anchor] = anchors.get(anchor, -1) + 1
    return {f"{name}-{i}" if i else name for name, last in anchors.items() for i in range(last + 1)}


def links_of(page: Path) -> list[str]:
    """Where a page's links lead, as written there; those to other sites are left out."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    return [link for link in links if not re.match(r"\w+:", link)]


def values_of(option: str, words: list[str]) -> list[str]:
    """What stands after an option, each time it stands there."""
    return [word for before, word in zip(words, words[1:], strict=False) if before == option]


def command_of(words: list[str]) -> click.Command:
    """The verb that words begin with."""
    command: click.Command = planet
    with click.Context(planet) as context:
        for word in words:
            if not isinstance(command, click.Group) or word.startswith("-"):
                break
            inner = command.get_command(context, word)
            assert inner is not None, f"no verb {word}"
            command = inner
    return command


def all_commands() -> dict[str, click.Command]:
    """Every verb by its name; those of groups as `bench plan`."""
    commands = {}
    for verb in VERBS:
        command = command_of([verb])
        inner = command.commands if isinstance(command, click.Group) else {}
        commands |= {f"{verb} {name}": part for name, part in inner.items()} or {verb: command}
    return commands


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= MOST_WORDS


@each([*PAGES, CHANGELOG])
def test_links_lead_to_something(page):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors_of(target), f"{link}: no such heading"


@each(PAGES)
def test_lines_are_narrow(page):
    lines = page.read_text().splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


@each(PAGES)
def test_commands_and_their_options_exist(page):
    for words in commands_of(page):
        options = {
            name
            for option in command_of(words).params
            for name in [*option.opts, *option.secondary_opts]
        }
        named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert named <= options | {"--help"}, f"planet {' '.join(words)}"
        for key in (setting.partition("=")[0] for setting in values_of("-s", words)):
            assert key in KEYS or key.startswith("env.kwargs.") or "…" in key, f"no setting {key}"


@each(PAGES)
def test_presets_of_commands_exist_and_take_their_settings(page):
    for words in commands_of(page):
        preset = "quickstart"  # of a run that is acted with
        if words[0] == "train" and re.fullmatch(r"[a-z][a-z0-9/-]*", words[1]):
            preset = words[1]
        settings = values_of("-s", words)
        settings += [f"planner.name={name}" for name in values_of("--planner", words)]
        own = [text for text in settings if not text.startswith("env.kwargs.") and "…" not in text]
        if words[0] in ("train", "plan") and not any(":" in name for name in own):
            config.load(preset, own)


@each(PAGES)
def test_settings_that_a_page_names_exist(page):
    assert set(SETTING.findall(page.read_text())) <= KEYS | {"env.kwargs"}


def test_the_index_names_every_page_once():
    index = DOCS / "README.md"
    topics = {page for page in RESULTS.glob("*.md") if page.name != "README.md"}
    linked = [(DOCS / link).resolve() for link in links_of(index)]
    assert sorted(linked) == sorted(set(PAGES) - topics - {index})


def test_the_index_of_results_names_every_page():
    linked = {link for link in links_of(RESULTS / "README.md") if link.endswith(".md")}
    assert linked == {page.name for page in RESULTS.glob("*.md")} - {"README.md"}


def test_the_page_of_verbs_names_every_verb_and_option():
    page = CLI.read_text()
    shared = page.partition("\n## train")[0]
    for name, command in all_commands().items():
        section = re.search(rf"^## {name.split()[0]}$.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
        assert section, f"no section for {name}"
        for option in command.params:
            longest = max(option.opts, key=len)
            if isinstance(option, click.Option):
                assert longest in section[0] + shared, f"planet {name} {longest}"


def test_the_page_of_settings_says_what_each_is():
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "settings.md").read_text(), re.MULTILINE)
    named = [key for row in rows for key in re.findall(r"`([^`]+)`", row)]
    assert sorted(named) == sorted(KEYS - {"behavior"})


def test_the_page_of_verbs_names_every_preset():
    page = CLI.read_text()
    named = {name for name in config.presets() if not name.startswith("systems/")}
    assert {name for name in named if f"`{name}`" not in page} == set()
