"""The child that typesets one conversation: a paper as JSON on its input, the PDF on its output.

Its one argument is the process that started it, with which it ends.  The one module
that imports Typst.  What people wrote reaches the template as data, never as markup,
so nothing in it is carried out.
"""

import importlib.resources
import re
import sys
from pathlib import Path

import msgspec
import typst

from services.gateway.dialects.assistant.export.blocks import blocks_of
from services.gateway.dialects.assistant.export.text import Paper
from shared.confinement import ResourceLimits, confine

LIMITS = ResourceLimits(memory=2 * 1024**3, cpu_seconds=60, file_bytes=0)
TEMPLATE = Path(__file__).with_name("paper.typ")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]")


def main() -> None:
    """Typeset what comes in."""
    confine(LIMITS, parent=int(sys.argv[1]))
    paper = msgspec.json.decode(sys.stdin.buffer.read(), type=Paper)
    sys.stdout.buffer.write(typeset(paper))


def typeset(paper: Paper) -> bytes:
    """The PDF of a paper."""
    inputs = {
        "title": _UNPRINTABLE.sub("", " ".join(paper.title.split())),
        "about": paper.about,
        "messages": [
            {
                "who": message.who,
                "when": message.when,
                "mine": message.who == "You",
                "files": [_UNPRINTABLE.sub("", name) for name in message.files],
                "note": message.note or "",
                "blocks": blocks_of(_UNPRINTABLE.sub("", message.text)),
            }
            for message in paper.messages
        ],
    }
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(d) for d in _font_paths()])
    compiler = typst.Compiler(TEMPLATE, root=TEMPLATE.parent, font_paths=fonts)
    made = compiler.compile(sys_inputs={"paper": msgspec.json.encode(inputs).decode()})
    assert isinstance(made, bytes)  # noqa: S101  (a PDF is one file)
    return made


def _font_paths() -> list[Path]:
    """Where the fonts lie that come as packages: nearly every script, and emoji."""
    packages = ("weblate_fonts", "manimgx_fonts")
    return [Path(str(importlib.resources.files(package))) for package in packages]


if __name__ == "__main__":
    main()
