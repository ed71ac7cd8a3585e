from planet_rssm.base.text import LONGEST, escape_controls, one_line


def test_control_characters_become_numbers():
    assert escape_controls("a\x1b[2J\x07\x9b\tb\nc é") == "a\\x1b[2J\\x07\\x9b\tb\nc é"


def test_what_is_long_keeps_its_ends():
    assert one_line("a\n  b") == "a b"
    line = one_line("begin " + "x" * 10_000 + " end")
    assert line.startswith("begin x") and line.endswith("x end") and " ... " in line
    assert LONGEST - 5 < len(line) <= LONGEST
