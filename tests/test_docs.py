"""The pages: links lead somewhere, commands and options exist, the README is short."""

import re
import shlex
from pathlib import Path

import click
import pytest

from planet_rssm import config
from planet_rssm.cli.main import VERBS, planet

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
CLI = ROOT / "docs" / "cli.md"
MOST_WORDS = 1000  # of the README, code and tables included, as `wc -w` counts
WIDTH = 100
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
KEYS = {*config.flatten(config.Settings()), "behavior"}
WORDS_OF_A_SHELL = {"|", "&&", ">", "#"}

names = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^    .*$", "", CODE.sub("", page.read_text()), flags=re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    anchors: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        count = anchors[anchor] = anchors.get(anchor, -1) + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


@names
def test_links_lead_to_something(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors_of(target), f"{link}: no such heading"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def test_the_index_names_every_page_once():
    index = ROOT / "docs" / "README.md"
    linked = [
        (index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", index.read_text())
    ]
    results = ROOT / "docs" / "results"
    ours = [
        page
        for page in PAGES[2:]
        if page != index and (page.parent != results or page.name == "README.md")
    ]
    assert sorted(linked) == sorted([ROOT / "README.md", *ours])


def test_the_index_of_results_names_every_page():
    index = ROOT / "docs" / "results" / "README.md"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", index.read_text()))
    assert linked == {page.name for page in index.parent.glob("*.md")} - {index.name}


@names
def test_lines_of_prose_are_narrow(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("not a page of this documentation")
    wide = [
        line
        for line in page.read_text().splitlines()
        if len(line) > WIDTH and not line.startswith("|")
    ]
    assert wide == []


def commands_of(page: Path) -> list[list[str]]:
    """The words after `planet` of every command on a page, in the order they stand there."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(?:\./scripts/)?planet (\w.*)$", text, re.MULTILINE)
    lines += re.findall(r"`planet ([a-z]+ [^`…]*)`", re.sub(r"\s+", " ", prose_of(page)))
    lines += [part[2] for part in re.finditer(r"(&&|;) planet (\w[^&;`\n]*)", text)]
    return [_until_the_shell(shlex.split(line, comments=True)) for line in lines]


def _until_the_shell(words: list[str]) -> list[str]:
    places = [place for place, word in enumerate(words) if word in WORDS_OF_A_SHELL]
    return words[: min(places)] if places else words


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The verb that words name and the words after it."""
    command: click.Command = planet
    with click.Context(planet) as context:
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            inner = command.get_command(context, words[0])
            assert inner is not None, f"no verb {words[0]}"
            command, words = inner, words[1:]
    return command, words


@names
def test_commands_and_their_options_exist(page):
    if page.name == "CHANGELOG.md":
        pytest.skip("says what was true then")
    for words in commands_of(page):
        command, rest = command_of(words)
        if words[0] in ("train", "config") and words[1].islower() and "." not in words[1]:
            assert words[1] in config.presets(), f"no preset {words[1]}"
        options = {
            name for option in command.params for name in [*option.opts, *option.secondary_opts]
        }
        for before, word in zip(["", *rest], rest, strict=False):
            if word.startswith("-") and not word.lstrip("-").isdecimal():
                assert word.partition("=")[0] in options | {"--help"}, (
                    f"planet {' '.join(words)}: no option {word}"
                )
            if before == "-s":
                key = word.partition("=")[0]
                assert key in KEYS or key.startswith("env.kwargs.") or "…" in key, (
                    f"no setting {key}"
                )


def commands() -> dict[str, click.Command]:
    """Every verb by its name; those of groups as `bench plan`."""
    found = {}
    with click.Context(planet) as context:
        for verb in VERBS:
            command = planet.get_command(context, verb)
            inner = command.commands if isinstance(command, click.Group) else {}
            found |= {f"{verb} {name}": each for name, each in inner.items()} or {verb: command}
    return found


def test_the_page_of_verbs_names_every_verb_and_option():
    page = CLI.read_text()
    shared = page.partition("\n## train")[0]
    for name, command in commands().items():
        verb = name.split()[0]
        section = re.search(rf"^## {verb}$.*?(?=^## )", page, re.MULTILINE | re.DOTALL)
        assert section, f"no section for {verb}"
        for option in command.params:
            longest = max(option.opts, key=len)
            if isinstance(option, click.Option):
                assert f"{longest}" in section[0] + shared, (
                    f"planet {name} {longest} is not on the page"
                )


def test_the_page_of_verbs_names_every_preset():
    page = CLI.read_text()
    named = {name for name in config.presets() if not name.startswith("systems/")}
    assert {name for name in named if f"`{name}`" not in page} == set()
