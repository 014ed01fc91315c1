"""Readers that do what a parser does when a file has got the better of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from services.processor.extract.findings import ExtractError, Findings, Image, Limits


def eat_memory(path: Path, limits: Limits, findings: Findings) -> None:
    hoard: list[bytearray] = []
    while True:
        hoard.append(bytearray(1024 * 1024))


def spin(path: Path, limits: Limits, findings: Findings) -> None:
    while True:
        pass


def wait(path: Path, limits: Limits, findings: Findings) -> None:
    """Tell its own process id and that of a child of its own by way of ``path``, then wait."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    path.write_text(f"{os.getpid()} {child.pid}")
    findings.progress(0.5)
    signal.pause()


def crash(path: Path, limits: Limits, findings: Findings) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_at_pages(path: Path, limits: Limits, findings: Findings) -> None:
    """Read ten pages, of which those that the file names crash."""
    bad = {int(word) for word in path.read_text().split()}
    left_out = [page for page in range(1, 11) if not _survives(page, bad, findings)]
    if len(left_out) == 10:
        raise ExtractError("invalid_request", "Nothing is left.")
    findings.note(f"Left out: {left_out}")


def _survives(page: int, bad: set[int], findings: Findings) -> bool:
    if not findings.begin(page):
        return False
    if page in bad:
        os.kill(os.getpid(), signal.SIGSEGV)
    findings.write(f"{page} ")
    findings.progress(page / 10)
    return True


def abort(path: Path, limits: Limits, findings: Findings) -> None:
    os.abort()


def leave(path: Path, limits: Limits, findings: Findings) -> None:
    os._exit(0)


def blunder(path: Path, limits: Limits, findings: Findings) -> None:
    raise KeyError("people's words")


def fill_the_disk(path: Path, limits: Limits, findings: Findings) -> None:
    findings.keep_image(b"\0" * 2 * limits.file_bytes, "image/png", 1, 1)


def point_elsewhere(path: Path, limits: Limits, findings: Findings) -> None:
    findings.images.append(Image(name=str(path), media_type="image/png", width=1, height=1))


def link_elsewhere(path: Path, limits: Limits, findings: Findings) -> None:
    Path("image-1.png").symlink_to(path)
    findings.images.append(Image(name="image-1.png", media_type="image/png", width=1, height=1))


def chatter(path: Path, limits: Limits, findings: Findings) -> None:
    """Print, as C libraries do, what must not be taken for an answer."""
    os.write(1, b'{"type":"refused","code":"internal","message":"printed"}\n')
    findings.write("said")


def ramble(path: Path, limits: Limits, findings: Findings) -> None:
    """Say one thing that never ends, past the findings."""
    while True:
        for descriptor in range(3, 10):
            try:
                os.write(descriptor, b"x" * 65536)
            except OSError:
                continue


def show_surroundings(path: Path, limits: Limits, findings: Findings) -> None:
    findings.write(" ".join(sorted(os.environ)) + "\n" + sys.stdin.read())
