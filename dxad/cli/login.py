"""A user's name and password on a command line, where a password never stands."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dxad.errors import ConfigError

__all__ = ["Account", "of_account"]


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in."""

    user: str | None = None
    password: str | None = None
    reference: dict[str, str] | None = None
    """Where a configuration finds the password."""

    @property
    def keys(self) -> dict[str, Any]:
        """What a configuration says of it."""
        if self.user is None:
            return {}
        return {"username": self.user, "password": self.reference or {"credential": "password"}}


def of_account(command: Callable[..., None]) -> Callable[..., None]:
    """For a command that may have to log in: it gets `account`."""

    @click.option("--user", metavar="NAME", help="Log in; the password is asked for, unless one is named.")
    @click.option("--password-env", metavar="VARIABLE", help="The environment has the password.")
    @click.option(
        "--password-file", type=click.Path(path_type=Path, dir_okay=False), help="A file has the password."
    )
    @functools.wraps(command)
    def asking(
        *args: Any, user: str | None, password_env: str | None, password_file: Path | None, **others: Any
    ) -> None:
        try:
            account = _account(user, password_env, password_file)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        command(*args, account=account, **others)

    return asking


def _account(user: str | None, variable: str | None, file: Path | None) -> Account:
    from dxad.fields import Secret

    if user is None:
        if variable or file:
            raise ConfigError("a password without --user")
        return Account()
    if file is not None:
        return Account(user, Secret(file=file).read(), {"file": str(file)})
    if variable is not None:
        return Account(user, Secret(env=variable).read(), {"env": variable})
    if not sys.stdin.isatty():
        raise ConfigError("name the password: --password-env or --password-file")
    password: str = click.prompt("Password", hide_input=True, err=True)
    return Account(user, password)
