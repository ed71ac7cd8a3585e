"""The site builds without a warning, and its links lead somewhere."""

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
NEEDS = ("sphinx", "furo", "myst_parser")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}, extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    words = [*command, "-d", str(folder / "read"), str(ROOT / "docs"), str(folder / "html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_page_is_there_and_every_link_leads_to_something(site):
    pages = {path.relative_to(site) for path in site.rglob("*.html")}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").with_suffix(".html") in pages
    for path in site.rglob("*.html"):
        text = path.read_text()
        for link in re.findall(r'(?:href|src)="([^"#]+)', text):
            link = unquote(html.unescape(link)).partition("?")[0]
            if not re.match(r"[a-z]+:", link):
                assert (path.parent / link).exists(), f"{path.relative_to(site)}: {link}"


def test_the_reference_has_every_public_name(site):
    import planet_rssm

    text = (site / "reference.html").read_text()
    for name in planet_rssm.__all__:
        assert f'id="planet_rssm.{name}"' in text or f'id="planet_rssm.{name}' in text, name


def test_a_page_loads_nothing_from_elsewhere(site):
    """No page loads a script, a style or a picture from another machine."""
    for path in site.rglob("*.html"):
        text = path.read_text()
        loaded = re.findall(r'<(?:script|img)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', text)
        assert not [name for name in loaded if "//" in name], path
