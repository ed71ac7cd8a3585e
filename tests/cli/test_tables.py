"""What a verb prints as text: names as they are."""

from planet_rssm.cli.tables import output, print_table, print_text


def test_a_name_between_colons_is_no_picture(capsys):
    print_text(output(), "ring:Ring: left out")
    print_table(output(), "mine:Car: two", ["mine:Dog: a"], [["mine:Cat: b"]])
    printed = capsys.readouterr().out
    for text in ("ring:Ring: left out", "mine:Car: two", "mine:Dog: a", "mine:Cat: b"):
        assert text in printed
