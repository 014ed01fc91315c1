"""CSV: a summary that says of each column what a model needs to know."""

from pathlib import Path

import pytest

from services.processor.extract.findings import MIB, ExtractError, Limits
from services.processor.extract.sandbox import Extracted, extract


async def read(path: Path, data: str | bytes, limits: Limits | None = None) -> Extracted:
    file = path / "file.csv"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return await extract(file, "csv", limits or Limits(), lambda _: None)


def columns(found: Extracted) -> dict[str, list[str]]:
    """The table of the columns, by name."""
    table = found.text.split("## Columns\n\n")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    return {name: cells for name, *cells in rows}


async def test_a_small_table_is_described_and_given_whole(tmp_path: Path):
    with await read(tmp_path, "name,age\nAda,36\nAlan,41\nGrace,\n") as found:
        assert found.text == (
            "# A table of 3 rows and 2 columns\n\nAs CSV, delimited by comma.\n\n## Columns\n\n"
            "| column | type | missing | different | range | most frequent |\n"
            "|---|---|---|---|---|---|\n"
            "| name | text | 0 | 3 | 3 to 5 characters |  |\n"
            "| age | integer | 1 (33.3%) | 2 | 36 to 41, mean 38.5 |  |\n"
            "\n## All rows\n\n"
            "| name | age |\n|---|---|\n| Ada | 36 |\n| Alan | 41 |\n| Grace |  |\n"
        )
        assert (found.rows, found.notes) == (3, [])


async def test_types_are_told_also_where_some_cells_differ(tmp_path: Path):
    lines = ["whole;broken;day;moment;flag;city;mixed"]
    for n in range(40):
        mixed = "unknown" if n == 7 else str(n)
        lines.append(
            f"{n};1.234,5;2024-01-{n % 28 + 1:02};2024-01-01T00:00:{n:02}Z;yes;Aarhus;{mixed}"
        )
    lines.append("41;2.000,5;2024-02-01;2024-01-02;no;Berlin;NA")

    with await read(tmp_path, "\r\n".join(lines)) as found:
        table = columns(found)
        assert {name: cells[0] for name, cells in table.items()} == {
            "whole": "integer",
            "broken": "decimal",
            "day": "date",
            "moment": "date and time",
            "flag": "boolean",
            "city": "text",
            "mixed": "decimal, but 1 others",
        }
        assert table["broken"][3] == "1,234.5 to 2,000.5, mean 1,253.18"
        assert table["day"][3] == "2024-01-01 to 2024-02-01"
        assert table["city"][4] == "Aarhus (40), Berlin (1)"
        assert table["mixed"][1] == "1 (2.4%)"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a,b\n1,2\n", "comma"),
        ("a;b\n1,5;2,5\n", "semicolon"),
        ("a\tb\n1\t2\n", "tab"),
        ("a|b\n1|2\n", "bar"),
        ('a,b\n"x;y",2\n"x;z",2\n', "comma"),
    ],
)
async def test_the_delimiter_is_found(text: str, named: str, tmp_path: Path):
    with await read(tmp_path, text) as found:
        assert f"delimited by {named}" in found.text
        assert list(columns(found)) == ["a", "b"]


async def test_a_long_table_is_sampled_and_that_is_told(tmp_path: Path):
    text = "n,remark\n" + "".join(f'{n},"line {n},\nnext"\n' for n in range(20_000))

    with await read(tmp_path, text) as found:
        assert found.rows == 20_000
        assert columns(found)["n"] == [
            "integer",
            "0",
            "over 10,000",
            "0 to 19,999, mean 9,999.5",
            "",
        ]
        assert "| 19 | line 19, next |\n" in found.text
        assert "| 20 | line 20, next |\n" not in found.text
        assert found.text.endswith("| 19999 | line 19999, next |\n")
        assert found.notes == [
            "All 20,000 rows were read, but only a summary of them and 25 rows are given."
        ]


async def test_rows_that_do_not_fit_and_names_that_are_not_there_are_told(tmp_path: Path):
    with await read(tmp_path, "1,2\n3\n4,5,6\n\n7,8\n") as found:
        assert found.rows == 4
        assert list(columns(found)) == ["column 1", "column 2"]
        assert found.notes == [
            "The first row looks like data, so the columns are numbered.",
            "2 rows have more or fewer cells than the first: "
            "missing cells are taken as empty, surplus ones are left out.",
        ]


async def test_other_encodings_are_read(tmp_path: Path):
    text = "Straße;Größe\nÄußere Ölmühle;für Grüße\n"

    with await read(tmp_path, text.encode("cp1252")) as found:
        assert "| Äußere Ölmühle | für Grüße |" in found.text
    with await read(tmp_path, text.encode("utf-16")) as found:
        assert list(columns(found)) == ["Straße", "Größe"]


async def test_a_cell_cannot_break_the_table_that_it_is_shown_in(tmp_path: Path):
    with await read(tmp_path, 'a,b\n"x | y\n\n# Title",2\n') as found:
        assert "| x \\| y # Title | 2 |\n" in found.text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a,b\n" + "x" * 5000,
            "Line 2 is longer than 1,000 characters: "
            "the file is no table, or its lines do not end.",
        ),
        (
            'a,b\n"' + "never closed\n" * 500,
            "A cell that ends in line 78 has more than 1,000 characters: "
            "perhaps a quotation mark is not closed.",
        ),
    ],
    ids=["endless line", "endless cell"],
)
async def test_what_never_ends_is_refused(text: str, sentence: str, tmp_path: Path):
    with pytest.raises(ExtractError) as failed:
        await read(tmp_path, text, Limits(line=1000))

    assert (failed.value.code, failed.value.message) == ("too_large", sentence)


async def test_a_table_of_very_many_columns_is_described_in_part(tmp_path: Path):
    names = ",".join(f"c{n}" for n in range(20_000))

    with await read(tmp_path, f"{names}\n" * 50, Limits(memory=256 * MIB)) as found:
        assert len(columns(found)) == 200
        assert found.notes[0] == "Only the first 200 of 20,000 columns are described."


async def test_values_that_are_long_and_all_different_take_no_memory(tmp_path: Path):
    text = "a\n" + "".join(f"{n}{'x' * 900}\n" for n in range(40_000))

    with await read(tmp_path, text) as found:
        assert found.rows == 40_000
        assert found.peak_memory < 100 * MIB


async def test_numbers_that_no_machine_can_add_up_are_still_described(tmp_path: Path):
    with await read(tmp_path, f"a,b\n{'9' * 400},inf\n{'9' * 4999},nan\n") as found:
        assert list(columns(found)) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "\n\n", "only,names\n", '"'])
async def test_a_table_without_rows_is_described_as_such(text: str, tmp_path: Path):
    with await read(tmp_path, text) as found:
        assert found.rows == 0


async def test_progress_is_told_by_the_bytes_that_were_read(tmp_path: Path):
    file = tmp_path / "file.csv"
    file.write_text("a,b\n" + "1,2\n" * 50_000)
    fractions: list[float] = []

    with await extract(file, "csv", Limits(), fractions.append):
        assert len(fractions) == 10
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
