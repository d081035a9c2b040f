"""Make the report in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mlff_exp.report.content import PROMISES, Content, filled_columns
from mlff_exp.report.text import markdown_cell, markdown_table


def markdown(name: str, found: Content, images: Mapping[str, str] = MappingProxyType({})) -> str:
    """Make the report in Markdown, with the addresses of its figures by title."""
    parts = [f"# {markdown_cell(name)}"]
    said = [f"- **{question}**: {markdown_cell(answer)}" for question, answer in found.decision.items()]
    parts += ["\n".join(said)] * bool(said)
    parts += [
        "\n".join([f"> {warning.summary}", ">", *(f"> - {markdown_cell(of)}" for of in warning.details)])
        for warning in found.warnings
    ]
    for title, lines in found.promises.items():
        parts += [f"## {title}", markdown_table(PROMISES, [line.cells for line in lines])]
    columns, rows = filled_columns(found.columns, found.rows)
    parts += ["## Runs", *[found.took] * bool(found.took), markdown_table(columns, [row.cells for row in rows])]
    parts += [f"## {title}\n\n![{title}]({address})" for title, address in images.items()]
    if found.facts:
        parts += ["## Where it ran", markdown_table(("", ""), [fact.cells for fact in found.facts])]
    return "\n\n".join(parts) + "\n"
