"""Measure how fast files are read, and whole jobs: ``python -m benchmarks.jobs``.

The files are made first: a PDF of 20 pages of text, and CSV of six columns with
100,000 and 1,000,000 rows.  Starting the child is part of what is measured.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from benchmarks.job_runs import measure_jobs
from services.processor.extract.findings import MIB, Limits
from services.processor.extract.sandbox import extract
from shared.events import FileKind
from tests.support.made_files import pdf_of

TRIES = 3
PAGES = 20
ROWS = (100_000, 1_000_000)
_VOCABULARY = ["chat", "reply", "log", "fact", "run", "claim", "attempt", "delta", "feed", "cursor"]
_CITIES = ["Aarhus", "Berlin", "Copenhagen", "Delft", "Espoo"]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        pdf = Path(directory) / "pages.pdf"
        pdf.write_bytes(a_pdf(PAGES))
        await _measure(f"PDF, {PAGES} pages", pdf, "pdf", PAGES, "pages")
        for rows in ROWS:
            table = Path(directory) / f"{rows}.csv"
            with table.open("w") as file:
                file.writelines(a_csv(rows))
            await _measure(f"CSV, {rows:,} rows", table, "csv", rows, "rows")
        await measure_jobs(pdf, Path(directory) / f"{ROWS[0]}.csv")


async def _measure(what: str, path: Path, kind: FileKind, count: int, unit: str) -> None:
    taken: list[float] = []
    peak = 0
    for _ in range(TRIES):
        start = time.perf_counter()
        with await extract(path, kind, Limits(), lambda _: None) as extracted:
            taken.append(time.perf_counter() - start)
            peak = max(peak, extracted.peak_memory)
    best = min(taken)
    size = path.stat().st_size / MIB  # noqa: ASYNC240  nothing else is going on
    print(
        f"{what:<20} {size:>6.1f} MiB {best:>7.2f} s (best of {TRIES}) "
        f"{count / best:>10,.0f} {unit}/s  {peak / MIB:>5.0f} MiB"
    )


# -- what is read -------------------------------------------------------------


def a_csv(rows: int) -> Iterator[str]:
    chance = random.Random(4)
    yield "id,day,city,amount,share,remark\n"
    for n in range(rows):
        day = date(2020, 1, 1) + timedelta(days=n % 2000)
        share = "" if n % 50 == 0 else f"{chance.random():.4f}"
        yield (
            f"{n},{day},{_CITIES[n % 5]},{chance.randrange(100_000) / 100},{share},"
            f'"remark {chance.randrange(1_000_000)}, {_VOCABULARY[n % 10]}"\n'
        )


def a_pdf(pages: int) -> bytes:
    return pdf_of(*map(_page, range(pages)))


def _page(page: int) -> bytes:
    lines = "".join(f"({_line(page, n)}) Tj T*\n" for n in range(50))
    return f"BT /F1 3 Tf 3.5 TL 20 190 Td\n{lines}ET".encode()


def _line(page: int, line: int) -> str:
    chance = random.Random(page * 100 + line)
    return " ".join(chance.choices(_VOCABULARY, k=14))


if __name__ == "__main__":
    asyncio.run(main())
