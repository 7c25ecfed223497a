"""The page of the documentation that lists the options."""

from pathlib import Path

from shoal.options import OPTIONS, markdown

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_committed_page_is_current():
    """scripts/options-page writes it."""
    assert PAGE.read_text() == markdown()


def test_every_option_has_a_row():
    rows = {line.split("|")[1].strip(): line for line in markdown().splitlines() if line.startswith("| `--")}
    for option in OPTIONS:
        row = next(line for flags, line in rows.items() if f"`--{option.name}`" in flags.split(", "))
        assert f"| `{option.variable}` | `{option.name}` |" in row
        assert row.count("|") - row.count(r"\|") == 6


def test_options_are_described_in_sentences():
    for option in OPTIONS:
        assert option.help[0].isupper(), option.name
        assert option.help.endswith("."), option.name
