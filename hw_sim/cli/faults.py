"""`python -m hw_sim faults`: the catalogue."""

import json

import click

from hw_sim.catalogue import FAULTS
from hw_sim.cli.options import JSON
from hw_sim.fault import Kind, Parameter

__all__ = ["list_faults", "markdown"]


@click.command("faults")
@click.option("--markdown", "as_markdown", is_flag=True, help="As the table in README.md.")
@JSON
def list_faults(as_json: bool, as_markdown: bool) -> None:
    """List the faults there are: of plants, of sensors, of devices, and of each wire."""
    if as_markdown:
        click.echo(markdown(), nl=False)
    elif as_json:
        click.echo(json.dumps([_document(kind) for kind in FAULTS.values()], indent=2))
    else:
        for kind in FAULTS.values():
            click.echo(f"{kind.name:24} {kind.does}")
            for key, parameter in kind.parameters.items():
                click.echo(f"{'':24}   {key + '=' + parameter.default:22} {_means(parameter)}")


def _document(kind: Kind) -> dict[str, object]:
    return {
        "fault": kind.name,
        "where": kind.wire or kind.where,
        "does": kind.does,
        "parameters": {
            key: {
                "means": each.means,
                "default": each.default,
                "kind": each.kind,
                **({"choices": list(each.choices)} if each.choices else {}),
            }
            for key, each in kind.parameters.items()
        },
    }


def _means(parameter: Parameter) -> str:
    return parameter.means + (f": {', '.join(parameter.choices)}" if parameter.choices else "")


def markdown() -> str:
    """The catalogue as a table: what a fault is called, where it works, what it does, and its parameters."""
    rows = ["| fault | of | what it does | parameters |", "|---|---|---|---|"]
    for kind in FAULTS.values():
        chosen = [f"{key}={each.default}" if each.default else key for key, each in kind.parameters.items()]
        given = " ".join(f"`{each}`" for each in chosen)
        rows.append(f"| `{kind.name}` | {kind.wire or kind.where} | {kind.does} | {given} |")
    return "\n".join(rows) + "\n"
