"""How a refusal is told: problem details for HTTP APIs, RFC 9457."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from dxad.errors import DxadError
from dxad.types import Document

__all__ = ["CONTENT_TYPE", "Refusal"]

CONTENT_TYPE: Final = "application/problem+json"


class Refusal(DxadError):  # noqa: N818 - an instruction: answer this
    """The request is not answered as asked; the text says why, and what would do."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        self.status = HTTPStatus(status)
        self.headers = dict(headers or {})
        super().__init__(detail)

    def document(self) -> Document:
        """As a JSON object; with no `type` of its own a problem is titled as its status (RFC 9457, 4.2.1)."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": str(self),
        }
