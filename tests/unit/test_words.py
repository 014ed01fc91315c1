"""Names are the glossary's and the field's: docs/architecture.md, *Words*.

A word that means something here only has to be learnt by everybody who reads on.  These
were such words once; each line says what the thing is called instead.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ["services", "shared", "benchmarks", "examples", "tests"]

INSTEAD_OF = {
    "cursor": {"place", "places"},
    "client event": {"moment", "moments", "news"},
    "job feed, job hub": {"board", "boards"},
    "typing listener": {"typist", "typists"},
    "token event": {"tick", "ticks"},
    "timed event": {"happening", "happenings"},
    "wire, text": {"words"},
    "query, body, args, request": {"asked", "asks", "asking"},
    "text, notes, response, describe": {"told", "tell", "tells", "telling", "said", "say", "says"},
    "chain state, ownership": {"standing", "holding"},
    "breaker store, resource kind": {"shelf"},
    "export, import": {"carry", "carries", "carried", "carrying"},
    "dead letter": {"bury", "buried", "epitaph"},
    "transient": {"passing"},
    "timeout": {"patience"},
    "next cursor": {"further"},
}
NAME_FOR = {word: name for name, private in INSTEAD_OF.items() for word in private}
ALLOWED = {
    "_TICKS",  # backticks, in shared/templates.py
    "CREATE_WORDS",  # makes the table that is called words, in services/store/schema.py
    "0007_what_was_said",  # a migration's name is in every database
    "test_words",  # this module
}


def names_in(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module gives to something, with its line."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not name.startswith("test_"):  # those are sentences
                    yield name, node.lineno
            case (
                ast.ClassDef(name=name)
                | ast.ExceptHandler(name=str(name))
                | ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.alias(asname=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield name, node.lineno
            case _:
                pass


def parts(name: str) -> set[str]:
    """The words of a name: ``AnyTokenEvent`` is any, token and event."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


FOREIGN = {"shelf", "shelves", "typist", "typists", "epitaph", "tick", "ticks"}
"""Words that are no others' either: they stand in no docstring and in no comment."""
FOREIGN_ALLOWED = {"clock tick"}


def prose_in(path: Path) -> Iterator[tuple[str, int]]:
    """Every docstring, other bare text and comment of a module, with its line."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text, node.lineno
            case _:
                pass
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_and_comments_have_no_words_of_their_own(folder: str):
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {word}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if path.stem not in ALLOWED
        for text, line in prose_in(path)
        if not any(phrase in text for phrase in FOREIGN_ALLOWED)
        for word in sorted(set(re.findall(r"[a-z]+", text.lower())) & FOREIGN)
    ]

    assert found == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_are_words_that_others_know(folder: str):
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name} ({NAME_FOR[word]})"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for name, line in [(path.stem, 1), *names_in(ast.parse(path.read_text()))]
        if name not in ALLOWED
        for word in sorted(parts(name) & NAME_FOR.keys())
    ]

    assert found == []
