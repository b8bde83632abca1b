"""Claude on Amazon Bedrock: Anthropic requests -> InvokeModel, its answers -> Anthropic's.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec.structs import replace

from ...config.settings import AwsSettings, ProviderSettings
from ...formats import body
from ...headers import mask_secret
from ...model import UpstreamRequest, UpstreamResponse
from .credentials import Credentials
from .request import COUNTED, invocation
from .response import decode
from .signature import Signer


class Bedrock:
    """What makes a provider one of Bedrock: each attempt is rewritten and signed, each answer
    translated. botocore is loaded here, so only where such a provider stands."""

    def __init__(self, settings: ProviderSettings, aws: AwsSettings, base_url: str) -> None:
        self._aws, self._base_url = aws, base_url
        self._host = urlsplit(base_url).netloc
        self._credentials = Credentials(settings, aws)
        self._signer = Signer(aws.region)

    def prepare(self, outgoing: UpstreamRequest) -> UpstreamRequest:
        """Raises UpstreamError where there are no credentials, ClientError where the body is none."""
        keys = self._credentials.current()
        made = invocation(outgoing, self._aws, self._base_url)
        return self._signer.sign(replace(made, headers=(("Host", self._host), *made.headers)), keys)

    def decode(self, outgoing: UpstreamRequest, answer: UpstreamResponse) -> UpstreamResponse:
        return decode(answer, counted=outgoing.url.endswith(COUNTED))


def default_base_url(aws: AwsSettings) -> str:
    return f"https://bedrock-runtime.{aws.region}.amazonaws.com"


def hint(aws: AwsSettings) -> str:
    """The record's `credential_hint`: keys that change by themselves have none to know them by."""
    return "..." if aws.role_arn or not aws.access_key else mask_secret(aws.access_key.value)


def models(aws: AwsSettings) -> bytes:
    """The answer to `GET /v1/models`: the configured ones."""
    ids = list(dict.fromkeys((aws.model, aws.small_fast_model)))
    found = [
        {"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"} for id in ids
    ]
    return body.dumps({"data": found, "has_more": False, "first_id": ids[0], "last_id": ids[-1]})


__all__ = ["Bedrock", "default_base_url", "hint", "models"]
