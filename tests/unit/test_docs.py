"""The documents are held against the code: what they name is there, what they show works."""

import ast
import importlib
import json
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from services.cli.command_table import RECORDER
from services.cli.main import parser
from services.cli.stories.story import describe_fact
from services.gateway.app import make_app
from services.gateway.dialects.assistant import socket_wire as assistant_socket
from services.gateway.dialects.assistant import wire as assistant
from services.gateway.dialects.channels import socket as channels_socket
from services.gateway.dialects.channels import wire as channels
from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import wire as documents
from services.gateway.http import websocket as sockets
from shared import errors, events, streams
from shared.log_entry import LogEntry
from shared.records import Message, RunStatus
from shared.settings import VARIABLES, Settings
from tests.support.case_provider import read_cases

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
EXAMPLES = REPOSITORY / "examples"
DOCUMENTS = sorted(
    path
    for path in (*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *EXAMPLES.glob("*.md"))
    if path.is_file()
)
EVENTS = [*get_args(events.AnyFact), *get_args(events.AnyTokenEvent)]
"""Every event, in the order of ``shared/events.py``."""

FRONT_ENDS = ["interview", "assistant", "documents", "content", "channels"]

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY))
)


# -- reading Markdown ---------------------------------------------------------------


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def rows(text: str, *, head: str) -> list[list[str]]:
    """The rows of all tables whose first column has that head."""
    found: list[list[str]] = []
    inside = False
    for line in prose(text).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif inside and not set(cells[0]) <= set("-:"):
            found.append(cells)
        elif cells[0] == head:
            inside = True
    return found


def code(cell: str) -> str:
    """What stands in the first backticks of a cell."""
    found = re.search(r"`([^`]+)`", cell)
    return found[1] if found else ""


def anchors(text: str) -> set[str]:
    """The headings of a document, as links name them."""
    heads = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()) for head in heads]
    return {head.replace(" ", "-") for head in plain}


# -- all documents ------------------------------------------------------------------


@every_document
def test_every_link_leads_somewhere(document: Path):
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
        name, _, anchor = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (document.parent / name).resolve() if name else document
        there = path.exists() and path.is_relative_to(REPOSITORY)
        if not there or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)

    assert broken == []


@every_document
def test_every_path_that_is_named_exists(document: Path):
    tops = r"(?:services|shared|tests|docs|deploy|benchmarks|examples|\.ci)"
    named = re.findall(rf"`({tops}/[\w./-]*)(?=[`:])", prose(document.read_text()))

    missing = [path for path in named if not (REPOSITORY / path).exists()]

    assert missing == []


@every_document
def test_a_document_speaks_of_no_machine_and_of_nothing_outside(document: Path):
    text = document.read_text()

    assert re.findall(r"/(?:root|home|work|Users|tmp)/\S*", text) == []
    assert re.findall(r"\b(?:DESIGN|CONTRACTS|PROTOCOLS|STYLE)\b", text) == []


@every_document
def test_every_python_example_is_python(document: Path):
    for block in blocks(document.read_text(), "python"):
        ast.parse(block)


@every_document
def test_every_json_example_is_json(document: Path):
    for block in blocks(document.read_text(), "json"):
        decoder, rest = json.JSONDecoder(), block.strip()
        while rest:
            _, end = decoder.raw_decode(rest)
            rest = rest[end:].lstrip()


# -- architecture -------------------------------------------------------------------


def test_the_tree_names_every_folder():
    text = (DOCS / "architecture.md").read_text()
    tops = ("services", "shared", "tests", "benchmarks", "examples", "docs", "deploy")
    folders = {
        file.parent.relative_to(REPOSITORY).as_posix()
        for top in tops
        for file in (REPOSITORY / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    below = ("tests/unit/", "tests/integration/", "tests/support/", "benchmarks/results")

    missing = [folder for folder in sorted(folders) if f"`{folder}/" not in text]
    assert [folder for folder in missing if not folder.startswith(below)] == []


def test_the_streams_are_those_of_the_code():
    table = rows((DOCS / "architecture.md").read_text(), head="stream")

    documented = {code(row[0]): re.findall(r"`([^`]+)`", row[1]) for row in table}

    assert documented == {name: config["subjects"] for name, config in streams.STREAMS.items()}


def test_the_states_of_a_run_are_those_of_the_code():
    (diagram,) = [
        block
        for block in blocks((DOCS / "architecture.md").read_text(), "mermaid")
        if block.startswith("stateDiagram")
    ]

    documented = set(re.findall(r"^  (\w+) -->|--> (\w+)", diagram, re.MULTILINE))

    states = {state for pair in documented for state in pair if state}
    assert states == set(get_args(RunStatus))


# -- walkthrough --------------------------------------------------------------------


def definitions(path: Path) -> set[str]:
    """The functions and classes of a module, methods as ``Class.method``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{child.name}"
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def test_every_station_of_the_walkthrough_is_in_the_code():
    text = prose((DOCS / "walkthrough.md").read_text())
    stations = re.findall(r"`([\w/]+\.py): ([\w.]+)`", re.sub(r"\s*\n\s+", " ", text))
    modules = {REPOSITORY / path for path, _ in stations}
    known = set[str]().union(*(definitions(module) for module in modules))

    missing = [(p, name) for p, name in stations if name not in definitions(REPOSITORY / p)]
    short = re.findall(r"`([A-Z]\w+\.\w+)`", text)

    assert len(stations) > 20
    assert missing == []
    assert [name for name in short if name not in known] == []


def test_the_log_of_the_walkthrough_is_one_whole_run():
    shown = [
        json.loads(block)
        for block in blocks((DOCS / "walkthrough.md").read_text(), "json")
        if '"at"' in block
    ]
    todo, claim, final = (events.decode_fact(json.dumps(fact).encode()) for fact in shown)
    deltas = [
        events.decode_token_event(line.encode())
        for line in (DOCS / "walkthrough.md").read_text().splitlines()
        if line.startswith('{"type": "delta"')
    ]

    assert isinstance(todo, events.TodoChat)
    assert isinstance(claim, events.RunClaimed)
    assert isinstance(final, events.RunEnded)
    assert claim.prev == claim.todo
    assert final.prev == final.attempt
    assert "".join(d.text for d in deltas if isinstance(d, events.Delta)) == final.text
    assert [d.attempt for d in deltas] == [final.attempt] * len(deltas)
    assert [length for _, length in final.timeline][-1] == final.length


# -- events -------------------------------------------------------------------------


def tag(event: type[msgspec.Struct]) -> str:
    name = event.__struct_config__.tag
    assert isinstance(name, str)
    return name


def examples(text: str) -> dict[str, str]:
    """The JSON of each section ``### `tag` ``."""
    sections = re.split(r"^### `([^`]+)`$", text, flags=re.MULTILINE)[1:]
    return {
        name: blocks(section, "json")[0]
        for name, section in zip(sections[::2], sections[1::2], strict=True)
    }


def test_the_table_of_events_is_in_the_order_of_the_code():
    table = rows((DOCS / "events.md").read_text(), head="type")[: len(EVENTS)]

    documented = [(code(row[0]), code(row[1]), row[3]) for row in table]

    assert documented == [(tag(event), event.__name__, from_to(event)) for event in EVENTS]


HANDLERS = sorted(REPOSITORY.glob("services/*/handlers.py"))


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.parent.name)
def test_who_reads_a_fact_is_told_as_the_services_tables_have_it(path: Path):
    service = path.parent.name
    tables = vars(importlib.import_module(f"services.{service}.handlers")).values()
    facts = get_args(events.AnyFact)

    read = {kind for table in tables if isinstance(table, dict) for kind in table if kind in facts}

    assert read == {
        fact for fact in facts if service in re.split(r"\W+", from_to(fact).partition("→")[2])
    }


def from_to(event: type[msgspec.Struct]) -> str:
    """“store → gateway” at the end of a docstring's first line."""
    sentence = (event.__doc__ or "").partition("\n")[0]
    return re.split(r"\.  ?", sentence)[-1].strip()


@pytest.mark.parametrize("event", EVENTS, ids=tag)
def test_an_example_has_every_field_and_no_other(event: type[msgspec.Struct]):
    example = examples((DOCS / "events.md").read_text())[tag(event)]
    is_token_event = event in get_args(events.AnyTokenEvent)

    decoded = (events.decode_token_event if is_token_event else events.decode_fact)(
        example.encode()
    )

    assert type(decoded) is event
    assert json.loads(events.encode(decoded)) == json.loads(example)


@pytest.mark.parametrize("fact", get_args(events.RunFact), ids=tag)
def test_every_fact_of_a_run_has_its_sentence_in_a_story(fact: type[events.Fact]):
    example = examples((DOCS / "events.md").read_text())[tag(fact)]

    text = describe_fact(LogEntry.of(1, "evt.u.s.r.x", events.decode_fact(example.encode())))

    assert text != fact.__name__


def test_fields_that_may_be_absent_are_all_named():
    text = (DOCS / "events.md").read_text()
    section = text.partition("### `session.updated`")[2].partition("###")[0]
    own = set(events.SessionUpdated.__struct_fields__) - set(events.Fact.__struct_fields__)

    assert [field for field in sorted(own) if f"`{field}`" not in section] == []


# -- settings -----------------------------------------------------------------------


def as_documented(value: object) -> str:
    match value:
        case None | ():
            return "unset"
        case bool():
            return f"`{str(value).lower()}`"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"


def test_the_table_of_settings_is_the_codes():
    defaults = Settings()
    table = rows((DOCS / "settings.md").read_text(), head="variable")

    documented = [(code(row[0]), row[1]) for row in table]

    real = [
        (name, as_documented(getattr(defaults, field))) for name, (field, _) in VARIABLES.items()
    ]
    assert documented == real
    assert all(row[2] for row in table)


# -- failures -----------------------------------------------------------------------


def test_every_test_that_is_named_exists():
    named = [
        name
        for document in DOCUMENTS
        for name in re.findall(r"`(tests/[\w/]+\.py::\w+)`", document.read_text())
    ]

    missing = [
        name
        for name in named
        if name.partition("::")[2] not in definitions(REPOSITORY / name.partition("::")[0])
    ]

    assert named
    assert missing == []


def test_every_close_code_is_explained():
    table = rows((DOCS / "failures.md").read_text(), head="code")

    documented = {int(row[0]) for row in table}

    ours = {value for name, value in vars(sockets).items() if name.isupper() and is_code(value)}
    assert documented == ours | {1009}  # aiohttp's own, for a frame over the limit


def is_code(value: object) -> bool:
    return isinstance(value, int) and 1000 <= value < 5000


def test_every_error_of_the_family_is_explained_and_no_other():
    family = {(e.status, e.code) for e in errors.NatterlogError.__subclasses__()}
    documented: set[tuple[int, str]] = set()
    for row in rows((DOCS / "failures.md").read_text(), head="status"):
        statuses = [int(status) for status in re.findall(r"\d+", row[0])]
        codes = re.findall(r"`(\w+)`", row[1])
        if len(statuses) < len(codes):
            statuses *= len(codes)
        documented |= set(zip(statuses, codes, strict=True))

    assert documented == family


def test_every_log_line_that_is_explained_is_logged():
    text = (DOCS / "failures.md").read_text()
    documented = {
        line for row in rows(text, head="line") for line in re.findall(r"`([a-z_.]+)`", row[0])
    }
    modules = [m for top in ("services", "shared") for m in (REPOSITORY / top).rglob("*.py")]
    source = "".join(module.read_text() for module in modules)

    assert documented
    assert [line for line in sorted(documented) if f'"{line}"' not in source] == []


# -- the API ------------------------------------------------------------------------


@pytest.fixture
def app() -> web.Application:
    gateway: Any = types.SimpleNamespace(settings=Settings())
    health = [web.get(path, refuse) for path in ("/livez", "/readyz", "/metrics")]
    return make_app(gateway, health)


async def refuse(_: web.Request) -> web.StreamResponse:
    raise AssertionError


def paths(app: web.Application) -> set[tuple[str, str]]:
    """(method, path) of every route, without trailing slashes, HEAD and OPTIONS."""
    return {
        (route.method, route.resource.canonical.rstrip("/") or "/")
        for route in app.router.routes()
        if route.resource is not None and route.method not in ("HEAD", "OPTIONS")
    }


def test_every_route_is_described_and_no_other(app: web.Application):
    text = prose((DOCS / "api.md").read_text())

    documented = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s]*)`", text)

    assert {(method, path.rstrip("/") or "/") for method, path in documented} == paths(app)


@pytest.mark.parametrize(
    "family",
    [
        assistant.Event,
        channels.Frame,
        documents.Frame,
        content.Frame,
        *get_args(assistant_socket.ClientMessage),
        *get_args(channels_socket.ClientMessage),
        *get_args(documents.ClientMessage),
        assistant_socket.Subscribed,
        assistant_socket.Resync,
        assistant_socket.UserTyping,
        assistant_socket.Pong,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_message_of_a_socket_is_described(family: type[msgspec.Struct]):
    text = (DOCS / "api.md").read_text()
    kinds = family.__subclasses__() or [family]

    assert [tag(kind) for kind in kinds if f"`{tag(kind)}`" not in text] == []


def test_the_contents_of_the_api_are_its_headings_in_their_order_of_kind():
    text = (DOCS / "api.md").read_text()
    contents = re.search(r"^\*\*Contents\.\*\*.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert contents is not None

    listed = re.findall(r"\[([^\]]+)\]\(#", contents[0])

    assert sorted(listed) == sorted(re.findall(r"^## (.+)$", text, re.MULTILINE))


def example_of(heading: str) -> dict[str, Any]:
    """The first JSON object below a heading of the API's document."""
    section = (DOCS / "api.md").read_text().split(f"\n## {heading}\n")[1]
    return json.loads(blocks(section, "json")[0])


def test_the_message_and_the_run_that_are_shown_have_every_field():
    assert set(example_of("Messages")) == set(Message.__struct_encode_fields__) - {"error"}
    assert set(example_of("Runs")) == set(assistant.RunStateView.__struct_encode_fields__)


def curls(document: Path) -> Iterator[tuple[str, str]]:
    """(method, path) of every curl in a document's shell examples."""
    shell = "\n".join(blocks(document.read_text(), "sh")).replace("\\\n", " ")
    names = dict(re.findall(r"^(\w+)=(http://\S+)$", shell, re.MULTILINE))
    for name, url in names.items():
        shell = re.sub(rf"\${name}\b", url, shell)
    for line in re.findall(r"curl\b[^\n|]*", shell):
        method = re.search(r"-X (\w+)", line)
        default = "POST" if re.search(r"\s-[dF]\b", line) else "GET"
        for path in re.findall(r"(?:127\.0\.0\.1|localhost):8000(/[^\s\"'?)]*)", line):
            yield method[1] if method else default, re.sub(r"\$\w+", "x", path)


FAMILIES = ("runs", "sessions", "dead", "user", "token")
"""Commands that do nothing without another word."""


def commands(document: Path) -> Iterator[list[str]]:
    """The words of every call of natterlog's command line: in shell examples, and in the text."""
    text = document.read_text()
    shell = "\n".join(blocks(text, "sh")).replace("\\\n", " ")
    called = re.findall(
        r"(?:^|[;|&(]|\$\()\s*(?:\.venv/bin/)?natterlog ([^\n|;&)>]+)", shell, re.MULTILINE
    )
    named = re.findall(r"`natterlog ([^`|…]+)`", prose(text))
    for arguments in (*called, *named):
        yield ["1" if word == "N" else word for word in shlex.split(arguments, comments=True)]


@every_document
def test_every_command_that_is_shown_is_understood(
    document: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "better.txt").write_text("A prompt of the reader's own.")
    monkeypatch.chdir(tmp_path)
    for arguments in commands(document):
        if arguments in ([family] for family in FAMILIES):  # named, not called
            continue
        try:
            parser(chosen=arguments[0]).parse_args(arguments)
        except SystemExit:
            pytest.fail(f"natterlog {' '.join(arguments)}: {capsys.readouterr().err}")


def test_every_command_of_the_recorder_is_shown():
    shown = {arguments[0] for document in DOCUMENTS for arguments in commands(document)}

    assert set(RECORDER) <= shown


@every_document
async def test_every_curl_asks_for_a_route_that_exists(document: Path, app: web.Application):
    unknown: list[tuple[str, str]] = []
    for method, path in curls(document):
        found = await app.router.resolve(make_mocked_request(method, path))
        if found.http_exception is not None:
            unknown.append((method, path))

    assert unknown == []


def test_the_readme_shows_a_whole_conversation():
    shown = {path for _, path in curls(REPOSITORY / "README.md")}

    assert {"/api/v1/chat/sessions", "/api/v1/chat/messages", "/api/v1/chat/runs/x/stream"} <= shown


# -- the front ends' contracts --------------------------------------------------------


def test_every_line_of_a_contract_is_shown_by_a_test_of_its_front_end():
    text = (DOCS / "contracts.md").read_text()
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    families = dict(zip(sections[::2], sections[1::2], strict=True))
    table = [row for section in families.values() for row in rows(section, head="what")]

    unshown = [row[0] for row in table if not re.findall(r"`tests/[\w/]+\.py::\w+`", row[2])]
    unplaced = [row[0] for row in table if not re.findall(r"`[^`]+`", row[1])]

    assert [name for name in families if name.split()[0] in FRONT_ENDS] == FRONT_ENDS
    assert len(table) > 60
    assert (unshown, unplaced) == ([], [])


def test_the_tests_of_a_front_end_are_all_named_in_its_contract():
    text = (DOCS / "contracts.md").read_text()
    tests = {
        f"tests/e2e/{path.name}::{name}"
        for path in (REPOSITORY / "tests/e2e").glob("test_front_end*.py")
        for name in definitions(path)
        if name.startswith("test_")
    }

    assert [name for name in sorted(tests) if f"`{name}`" not in text] == []


def test_every_example_has_its_command_in_their_table():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}

    named = re.findall(r"python examples/(\w+)\.py", (EXAMPLES / "README.md").read_text())

    assert set(named) == scripts
    assert [
        name
        for name in sorted(scripts)
        if f"python examples/{name}.py" not in (EXAMPLES / f"{name}.py").read_text()
    ] == []


# -- providers ------------------------------------------------------------------------


def test_every_recorded_answer_of_a_provider_is_in_one_row_of_their_table():
    table = rows((DOCS / "providers.md").read_text(), head="what comes")

    named = [case for row in table for case in re.findall(r"`([^`]+)`", row[2])]

    assert sorted(named) == sorted(case.id for case in read_cases())
    assert all(row[0] and row[1] for row in table)


def test_the_stop_reasons_are_those_of_the_code():
    table = rows((DOCS / "providers.md").read_text(), head="stop reason")

    assert [code(row[0]) for row in table] == [*get_args(events.StopReason)]


# -- decisions ----------------------------------------------------------------------


def test_decisions_are_numbered_and_have_their_three_parts():
    decisions = sorted((DOCS / "adr").glob("*.md"))

    for number, path in enumerate(decisions, start=1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == [
            "Context",
            "Decision",
            "Consequence",
        ]
