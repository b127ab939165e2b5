"""Who may have a session on the server, and what goes over it, counted."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import PublishRequestData
from asyncua.server.user_managers import UserManager
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hw_sim.opcua.gate import Line
from hw_sim.opcua.section import Settings

__all__ = ["Doors", "Sessions"]

_SUBSCRIPTIONS: Final = 1000


@dataclass(slots=True)
class Doors:
    """What is shut to newcomers."""

    sessions: bool = False
    logins: bool = False
    subscriptions: bool = False


class _Users(UserManager):
    """Knows the passwords; whether one may come without, or by certificate, is settled before."""

    def __init__(self, settings: Settings) -> None:
        self._passwords = settings.users

    def get_user(
        self,
        iserver: InternalServer,  # noqa: ARG002 - asyncua's signature
        username: str | None = None,
        password: str | None = None,
        certificate: object = None,  # noqa: ARG002
    ) -> User | None:
        if username is None:
            return User(role=UserRole.User)
        known = self._passwords.get(username)
        if known is None or not hmac.compare_digest(known.encode(), (password or "").encode()):
            return None
        return User(role=UserRole.User, name=username)


class Sessions(InternalServer):
    """asyncua's inner server, which lets in whom the settings name, as long as the doors are open."""

    def __init__(
        self,
        settings: Settings,
        doors: Doors,
        trusted: Callable[[], frozenset[bytes]],
        line: Line,
    ) -> None:
        super().__init__(user_manager=_Users(settings))
        self.doors = doors
        self.counts = line.counts
        self.line = line
        self.disabled_clock = True  # the plant's time is told instead of this machine's
        self.only_secure = "None" not in settings.security
        self._trusted = trusted
        tokens = {
            ua.AnonymousIdentityToken: settings.by_nothing,
            ua.UserNameIdentityToken: bool(settings.users),
            ua.X509IdentityToken: settings.by_certificate,
        }
        self.supported_tokens = tuple(  # type: ignore[assignment] # asyncua infers: all three
            token for token, wanted in tokens.items() if wanted
        )
        if settings.trusted is not None:
            self.certificate_validator = self._validate

    async def _validate(self, certificate: x509.Certificate, _about: ua.ApplicationDescription) -> None:
        if certificate.public_bytes(Encoding.DER) not in self._trusted():
            self.counts["refused"] += 1
            raise ServiceError(StatusCodes.BadCertificateUntrusted)

    def verify_x509_token(
        self, isession: Any, token: ua.X509IdentityToken, signature: ua.SignatureData
    ) -> bytes:
        """The certificate that a user logs in by, once it is found signed and trusted."""
        certificate = super().verify_x509_token(isession, token, signature)
        if certificate not in self._trusted():
            raise ServiceError(StatusCodes.BadIdentityTokenRejected)
        return certificate

    def create_session(
        self,
        name: str,
        user: User | None = None,
        external: bool = False,  # noqa: FBT001, FBT002 - asyncua's
    ) -> InternalSession:
        """A session of a client."""
        if self.doors.sessions:
            self.counts["refused"] += 1
            raise ServiceError(StatusCodes.BadTooManySessions)
        user = user or User(role=UserRole.Anonymous)
        return _Session(self, self.aspace, self.subscription_service, name, user=user, external=external)

    async def end_subscriptions(self) -> None:
        """Have no subscription any more."""
        await self.subscription_service.delete_subscriptions(list(self.subscription_service.subscriptions))

    async def end_sessions(self) -> None:
        """Have no session any more; asyncua keeps one with subscriptions for its client to come back to."""
        for session in tuple(self._external_sessions.values()):
            await session.close_session(delete_subs=True)
        await self.end_subscriptions()

    async def shut(self, doors: Doors) -> None:
        """Have these doors shut, and the others open."""
        self.doors = doors
        self.max_subscriptions = 0 if doors.subscriptions else _SUBSCRIPTIONS
        if doors.subscriptions:
            await self.end_subscriptions()


class _Session(InternalSession):
    """Counts what it serves."""

    iserver: Sessions

    def activate_session(
        self, params: ua.ActivateSessionParameters, peer_certificate: bytes | None
    ) -> ua.ActivateSessionResult:
        try:
            self._let_in(peer_certificate)
            result = super().activate_session(params, peer_certificate)
        except ServiceError:
            self.iserver.counts["refused"] += 1
            raise
        self.iserver.counts["sessions"] += 1
        return result

    def _let_in(self, peer_certificate: bytes | None) -> None:
        if self.iserver.only_secure and not peer_certificate:
            # asyncua serves any client without security, since such a one may ask for the endpoints.
            raise ServiceError(StatusCodes.BadSecurityModeRejected)
        if self.iserver.doors.logins:
            raise ServiceError(StatusCodes.BadUserAccessDenied)

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        counts = self.iserver.counts
        counts["read"] += len(params.NodesToRead)
        counts["polled"] += sum(
            each.AttributeId == AttributeIds.Value and each.NodeId.NamespaceIndex != 0
            for each in params.NodesToRead
        )
        return await super().read(params)

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        async def counted(result: ua.PublishResult, request: PublishRequestData) -> None:
            values = 0
            for notification in result.NotificationMessage.NotificationData or ():
                if isinstance(notification, ua.DataChangeNotification):
                    values += len(notification.MonitoredItems)
            self.iserver.counts["notified"] += values
            self.iserver.line.carrying = values
            try:
                await callback(result, request)  # which does not wait
            finally:
                self.iserver.line.carrying = 0

        return await super().create_subscription(params, counted, request_callback)
