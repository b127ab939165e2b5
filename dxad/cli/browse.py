"""`dxad browse`: what does this OPC-UA server offer, and to whom."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dxad.cli.live import Shown, hand_over, into_file, named, seconds, watch
from dxad.cli.login import Account, of_account
from dxad.cli.options import MISTAKE, REFUSED, UNREACHABLE, as_json

if TYPE_CHECKING:
    from rich.table import Table

    from dxad.commissioning import Patience
    from dxad.commissioning.opcuabrowse import Tree
    from dxad.commissioning.opcuaserver import Endpoint, Login

__all__ = ["browse"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_POLICIES: Final = ("none", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
_SHOWN: Final = 200
"""Variables in the table."""


@click.command(epilog="Example: dxad browse opc.tcp://192.168.1.30:4840 --under Drive --match '*Temp*'")
@click.argument("url")
@click.option("--under", metavar="PATH", help="Begin there: names with / between, or a node id.")
@click.option(
    "--match", metavar="PATTERN", help="Variables whose path has this in it, or matches it: *Temp*."
)
@click.option("--depth", type=click.IntRange(1, 50), default=10, show_default=True, help="Levels.")
@click.option("--nodes", type=click.IntRange(1, 1_000_000), default=5000, show_default=True, help="At most.")
@click.option("--for", "span", default="30s", show_default=True, metavar="DURATION", help="At most.")
@of_account
@click.option(
    "--security", type=click.Choice(_POLICIES), default="none", show_default=True, help="The policy."
)
@click.option(
    "--security-mode", type=click.Choice(["sign_and_encrypt", "sign"]), default="sign_and_encrypt",
    show_default=True, help="With a policy.",
)  # fmt: skip
@click.option("--certificate", type=_FILE, help="Our own, PEM or DER.  [default: one made for the moment]")
@click.option("--key", type=_FILE, help="Its private key, PEM.")
@click.option("--plain-password", is_flag=True, help="Let the password cross the wire for anybody to read.")
@named("drive")
@into_file
@as_json
def browse(
    url: str,
    under: str | None,
    match: str | None,
    depth: int,
    nodes: int,
    span: str,
    account: Account,
    security: str,
    security_mode: str,
    certificate: Path | None,
    key: Path | None,
    plain_password: bool,
    name: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show what an OPC-UA server offers, and print the configuration that reads it.

    URL is opc.tcp://host:port/path. First its endpoints, with their policies, modes and logins; then the tree
    of its variables with type, value, unit and the fastest sampling, as far as there is time.

    Nothing is ever written or called. Ctrl-C ends it, and prints what was found.
    """
    from dxad.commissioning.opcuafindings import opcua_fragment, server_document
    from dxad.commissioning.opcuaserver import Login, address
    from dxad.errors import ConfigError

    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key belong together")
    try:
        address(url)
        within_s = seconds(span, "--for")
    except ConfigError as error:
        click.echo(f"dxad: {error}", err=True)
        sys.exit(MISTAKE)
    login = Login(
        account.user,
        account.password,
        security,
        security_mode,
        certificate,
        key,
        plain_password=plain_password,
    )
    work = _Work(url, login, under=under, match=match, depth=depth, nodes=nodes)
    endpoints, tree, trouble = watch(work.run, within_s)
    document = server_document(url, endpoints, tree)
    if not as_json:
        _print(endpoints, tree)
    text = "" if tree is None else opcua_fragment(name, url, tree, _keys(account, login))
    if as_json or text:
        hand_over(text, output, silent=as_json, **document, error=trouble)
    if tree is None:
        click.echo(f"dxad: {trouble}", err=True)
        sys.exit(UNREACHABLE)
    if not tree.variables:
        sys.exit(REFUSED)


def _keys(account: Account, login: "Login") -> dict[str, object]:
    """What a configuration says of the login."""
    keys: dict[str, object] = {}
    if login.policy != "none":
        keys["security"] = login.policy
        if login.mode != "sign_and_encrypt":
            keys["security_mode"] = login.mode
    if login.certificate is not None and login.policy != "none":
        keys |= {"certificate": str(login.certificate), "key": str(login.key)}
    keys |= account.keys
    if login.plain_password:
        keys["plain_password"] = True
    return keys


class _Work:
    def __init__(
        self, url: str, login: "Login", *, under: str | None, match: str | None, depth: int, nodes: int
    ) -> None:
        self._url = url
        self._login = login
        self._under = under
        self._match = match
        self._depth = depth
        self._nodes = nodes

    async def run(self, patience: "Patience", shown: Shown) -> "tuple[Sequence[Endpoint], Tree | None, str]":
        """Endpoints, the tree if we were let in, and why not if not."""
        from dxad.commissioning.opcuabrowse import Browser
        from dxad.commissioning.opcuaserver import endpoints_of, session
        from dxad.errors import NotConnected

        endpoints = await endpoints_of(self._url)
        for each in endpoints:
            shown.seen(f"{each.policy} {each.mode}: {', '.join(each.logins)}")
        try:
            async with session(self._url, self._login, endpoints) as client:
                browser = Browser(
                    client, under=self._under, match=self._match, depth=self._depth, nodes_most=self._nodes,
                    patience=patience, watcher=shown,
                )  # fmt: skip
                tree = await browser.run()
        except NotConnected as error:
            return endpoints, None, str(error)
        return endpoints, tree, ""


def _print(endpoints: "Sequence[Endpoint]", tree: "Tree | None") -> None:
    from rich.console import Console

    from dxad.cli.cells import DIM, count, table, text

    console = Console()
    ways = table("POLICY", "MODE", "LOGINS", ">LEVEL", "")
    for each in endpoints:
        remark = "a password would cross the wire as it is" if each.plain_password else ""
        ways.add_row(each.policy, each.mode, ", ".join(each.logins), str(each.level), text(remark, DIM))
    console.print(ways)
    if tree is None:
        return
    console.print()
    console.print(_variables(tree))
    left = len(tree.variables) - _SHOWN
    if left > 0:
        console.print(text(f"and {count(left, 'more variable')}; --json tells them all", DIM))
    if tree.cut:
        console.print(text(f"not all: {tree.cut}", DIM))


def _variables(tree: "Tree") -> "Table":
    from dxad.cli.cells import DIM, table, text

    made = table("VARIABLE", "NODE", "TYPE", ">VALUE", "UNIT", ">SAMPLING", "")
    for each in tree.variables[:_SHOWN]:
        remarks = [each.status] if each.status else []
        remarks += [] if each.readable else ["may not be read"]
        remarks += ["history"] if each.history else []
        value = f"{each.value:.6g}" if isinstance(each.value, float) else str(each.value)
        value = "" if each.value is None else value
        sampling = "" if each.sampling_ms is None else f"{each.sampling_ms:g} ms"
        made.add_row(
            text("/".join(each.path)), text(f"{each.namespace};{each.identifier}"),
            text(each.type + ("[]" if each.array else "")), text(value), text(each.unit), sampling,
            text(", ".join(remarks), DIM),
        )  # fmt: skip
    return made
