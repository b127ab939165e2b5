"""What a configuration says of an SQL source."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from dxad.fields import ChannelSection, Duration, Identifier, Secret, SourceSection
from dxad.types import NS_PER_S

__all__ = ["Config", "SqlChannel"]

_COLUMN: Final = r"^[^\"%\x00]+$"
_POSTGRES: Final = ("postgresql", "postgres")


class SqlChannel(ChannelSection):
    """One column of the query's rows."""

    column: str | None = Field(None, description="of the query; default: the channel's name")


class Config(SourceSection):
    """`type = "sql"`, `url = "sqlite:///var/lib/lims.db"`, `query = "SELECT id, ph FROM samples"`."""

    stamped = True
    keeps_state = True

    type: Literal["sql"]
    url: str = Field(description="sqlite:///path of the file, or postgresql://user@host:5432/database")
    password: Secret | None = Field(None, description="of PostgreSQL's user")
    query: str = Field(min_length=1, description="one SELECT, without a limit and an order of its own")
    cursor: str = Field(pattern=_COLUMN, description="the query's column that only grows, each value once")
    time: str | None = Field(
        None, pattern=_COLUMN, description='the column with the time of each row, for clock = "device"'
    )
    start: Literal["end", "begin"] = Field(
        "end", description="whether the very first query skips the rows that are there already"
    )
    rows: int = Field(1_000, gt=0, le=100_000, description="that one query fetches at most")
    overlap: Duration | None = Field(
        None,
        gt=0,
        le=3600 * NS_PER_S,
        description="for so long a row may be committed after others whose cursor is greater: each query "
        "asks again for what came within it, and drops what it knows; without it, such rows are never seen",
    )
    timeout: Duration = Field(
        5 * NS_PER_S, gt=0, description="how long a query may take, or wait for a writer's lock"
    )
    channels: dict[Identifier, SqlChannel] = Field(min_length=1, description="by name")

    @field_validator("query")
    @classmethod
    def _alone(cls, query: str) -> str:
        return query.rstrip("; \t\r\n")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme in _POSTGRES:
            if split.password is not None:
                raise ValueError('a password has no place in it; say password = { file = "..." }')
            if find_spec("psycopg") is None:
                raise ValueError("PostgreSQL needs the Python package psycopg: pip install 'dxad[postgres]'")
        elif split.scheme != "sqlite" or split.netloc or len(split.path) < len("/x"):
            raise ValueError(f"{url!r} is neither sqlite:///path nor postgresql://user@host/database")
        return url

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.clock == "device" and self.time is None:
            raise ValueError('clock: "device" wants to know by `time` which column has it')
        if self.password is not None and not self.on_server:
            raise ValueError("password: a SQLite file has none")
        return self

    @property
    def on_server(self) -> bool:
        """Whether it is PostgreSQL."""
        return urlsplit(self.url).scheme in _POSTGRES

    @property
    def file(self) -> str:
        """The path of the SQLite file."""
        path = unquote(urlsplit(self.url).path)
        return "/" + path.lstrip("/")  # some write sqlite:////path

    @property
    def where(self) -> str:
        """How an error tells which database it is."""
        return urlsplit(self.url).netloc.rpartition("@")[2] if self.on_server else self.file

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels
