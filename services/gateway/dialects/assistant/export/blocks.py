"""Markdown as blocks and runs of text, for a template that knows nothing of Markdown."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

Node = dict[str, Any]

_LINKS = ("http", "https", "mailto")
_ENDLESS = re.compile(r"\S{60}")
_parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def blocks_of(text: str) -> list[Node]:
    """The blocks of a Markdown text, in order."""
    return _blocks(SyntaxTreeNode(_parser.parse(text)).children)


def _blocks(nodes: Sequence[SyntaxTreeNode]) -> list[Node]:
    return [block for node in nodes for block in _block(node)]


def _block(node: SyntaxTreeNode) -> list[Node]:
    match node.type:
        case "paragraph" | "inline":
            return [{"t": "p", "c": _inlines(node)}]
        case "heading":
            return [{"t": "h", "level": int(node.tag[1:]), "c": _inlines(node)}]
        case "fence" | "code_block":
            language = node.info.split()[0] if node.info.split() else ""
            return [{"t": "code", "lang": language, "s": broken(node.content.rstrip("\n"))}]
        case "blockquote":
            return [{"t": "quote", "b": _blocks(node.children)}]
        case "bullet_list" | "ordered_list":
            items = [_blocks(item.children) for item in node.children]
            start = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else 0
            return [{"t": "list", "start": start, "ordered": node.type[0] == "o", "items": items}]
        case "table":
            rows = [_cells(row) for part in node.children for row in part.children]
            return [{"t": "table", "columns": len(rows[0]), "rows": rows}]
        case "hr":
            return [{"t": "hr"}]
        case "html_block":
            return [{"t": "code", "lang": "html", "s": broken(node.content.rstrip("\n"))}]
        case _:
            return _blocks(node.children)


def _cells(row: SyntaxTreeNode) -> list[list[Node]]:
    return [_inlines(cell) for cell in row.children]


def _inlines(node: SyntaxTreeNode) -> list[Node]:
    return [run for child in node.children for run in _inline(child)]


def _inline(node: SyntaxTreeNode) -> list[Node]:
    match node.type:
        case "inline":
            return _inlines(node)
        case "text" | "html_inline" | "text_special":
            return [{"t": "text", "s": broken(node.content)}] if node.content else []
        case "softbreak" | "hardbreak":  # whoever writes messages means the end of a line
            return [{"t": "br"}]
        case "code_inline":
            return [{"t": "code", "s": broken(node.content)}]
        case "strong" | "em" | "s":
            return [{"t": node.type, "c": _inlines(node)}]
        case "link":
            href = str(node.attrs.get("href", ""))
            kind = "link" if urlsplit(href).scheme in _LINKS else "span"
            return [{"t": kind, "href": href, "c": _inlines(node)}]
        case "image":
            return [{"t": "em", "c": [{"t": "text", "s": broken(node.content or "image")}]}]
        case _:
            return _inlines(node)


def broken(text: str) -> str:
    """Places to break a line in words that would not fit on any."""
    return _ENDLESS.sub(lambda found: f"{found[0]}\u200b", text)
