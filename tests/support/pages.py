"""What tests read of the pages."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
WORDS_OF_A_SHELL = {"|", "&&", ">"}


def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^    .*$", "", CODE.sub("", page.read_text()), flags=re.MULTILINE)


def commands_of(page: Path) -> list[list[str]]:
    """The words after `planet` of every command on a page, in its blocks of code and its lines."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(?:\./scripts/)?planet (\w.*)$", text, re.MULTILINE)
    lines += re.findall(r"`planet ([a-z]+ [^`…]*)`", re.sub(r"\s+", " ", prose_of(page)))
    commands = []
    for line in lines:
        words = shlex.split(line, comments=True)
        end = next((i for i, word in enumerate(words) if word in WORDS_OF_A_SHELL), len(words))
        commands.append(words[:end])
    return commands
