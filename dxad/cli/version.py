"""`dxad version`: what a bug report should begin with."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

__all__ = ["version"]


@click.command(epilog="Example: dxad version")
def version() -> None:
    """Print the versions of dxad and what it runs on."""
    click.echo(f"dxad {_installed('dxad')}")
    click.echo(f"Python {platform.python_version()} on {platform.platform()}")
    runtimes = [each for each in ("ai-edge-litert", "tflite-runtime") if _installed(each) != "not installed"]
    for name in ("numpy", *(runtimes or ["tflite-runtime"])):
        click.echo(f"{name} {_installed(name)}")


def _installed(name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "not installed"
