"""The tree of errors. The branch says whose fault an error is; formats turn it into the API's own JSON.

BridgeError
+-- ClientError              the request cannot be served as it came
|   +-- InvalidBody, InvalidHost, BodyTooLarge, AbsurdRatio, RequestTimeout
|   +-- UnsupportedEncoding, BackgroundNotSupported
|   +-- MissingCredential, ByokDisabled, NotLocal, UntrustedProxy, Unauthorized, TokenInUrl
|   +-- UnknownRoute, UnknownProvider, UpgradeRequired
|   +-- ObjectNotFound, AdminsOnly
|   +-- ClientDisconnected   nobody is left to answer
+-- LimitError               a limit or a rule refuses the request
|   +-- LimitReached, SessionStopped, TooManyRequests, LimitsUnavailable
|   +-- ModelNotAllowed, ModelForbidden, ModelNotBilled  one answer for each kind of client
+-- UpstreamError            the provider failed
|   +-- UpstreamUnreachable, UpstreamConnectionFailed, UpstreamTimeout
|   +-- UpstreamCut          its response was truncated
|   +-- CredentialsUnavailable  there are no credentials to sign the request with
|   +-- FollowUpFailed, TooManyRounds  it went wrong after tools were run
|   +-- CircuitOpen, AllKeysRateLimited, AllKeysRefused
|   +-- ToolError            an MCP server failed or refused; the error goes to the model
+-- GatewayError             the bridge failed
    +-- ProviderDisabled, RecordingFailed, IdentityUnavailable
    +-- ConfigError          the bridge does not start
"""

from .base import BridgeError
from .client import (
    AbsurdRatio,
    AdminsOnly,
    BackgroundNotSupported,
    BodyTooLarge,
    ByokDisabled,
    ClientDisconnected,
    ClientError,
    InvalidBody,
    InvalidHost,
    MissingCredential,
    NotLocal,
    ObjectNotFound,
    RequestTimeout,
    TokenInUrl,
    Unauthorized,
    UnknownProvider,
    UnknownRoute,
    UnsupportedEncoding,
    UntrustedProxy,
    UpgradeRequired,
)
from .gateway import (
    ConfigError,
    GatewayError,
    IdentityUnavailable,
    ProviderDisabled,
    RecordingFailed,
)
from .limits import (
    LimitError,
    LimitReached,
    LimitsUnavailable,
    ModelForbidden,
    ModelNotAllowed,
    ModelNotBilled,
    SessionStopped,
    TooManyRequests,
)
from .upstream import (
    AllKeysRateLimited,
    AllKeysRefused,
    CircuitOpen,
    CredentialsUnavailable,
    FollowUpFailed,
    ToolError,
    TooManyRounds,
    UpstreamConnectionFailed,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)

__all__ = [
    "AbsurdRatio",
    "AdminsOnly",
    "AllKeysRateLimited",
    "AllKeysRefused",
    "BackgroundNotSupported",
    "BodyTooLarge",
    "BridgeError",
    "ByokDisabled",
    "CircuitOpen",
    "ClientDisconnected",
    "ClientError",
    "ConfigError",
    "CredentialsUnavailable",
    "FollowUpFailed",
    "GatewayError",
    "IdentityUnavailable",
    "InvalidBody",
    "InvalidHost",
    "LimitError",
    "LimitReached",
    "LimitsUnavailable",
    "MissingCredential",
    "ModelForbidden",
    "ModelNotAllowed",
    "ModelNotBilled",
    "NotLocal",
    "ObjectNotFound",
    "ProviderDisabled",
    "RecordingFailed",
    "RequestTimeout",
    "SessionStopped",
    "TokenInUrl",
    "TooManyRequests",
    "TooManyRounds",
    "ToolError",
    "Unauthorized",
    "UnknownProvider",
    "UnknownRoute",
    "UnsupportedEncoding",
    "UntrustedProxy",
    "UpgradeRequired",
    "UpstreamConnectionFailed",
    "UpstreamCut",
    "UpstreamError",
    "UpstreamTimeout",
    "UpstreamUnreachable",
]
