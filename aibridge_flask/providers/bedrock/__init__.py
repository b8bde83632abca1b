"""Claude on Amazon Bedrock: converts Anthropic requests to InvokeModel, and its responses to Anthropic's.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from msgspec.structs import replace

from ...config.settings import AwsSettings, ProviderSettings
from ...formats import body
from ...headers import mask_secret
from ...model import UpstreamRequest
from ...protocols import UpstreamResponse
from ...waiting import run_if_large
from .credentials import Credentials
from .request import COUNT_TOKENS_SUFFIX, bedrock_request, configured_id
from .response import decode
from .signature import Signer


class Bedrock:
    """Rewrites and signs each attempt of a request, and translates each response.

    Its constructor loads botocore, so that only a gateway with such a provider does.
    """

    def __init__(self, settings: ProviderSettings, aws: AwsSettings, base_url: str) -> None:
        self._aws, self._base_url = aws, base_url
        self._host = urlsplit(base_url).netloc
        self._credentials = Credentials(settings, aws)
        self._signer = Signer(aws.region)

    def prepare(self, request: UpstreamRequest) -> UpstreamRequest:
        """Returns the signed request to Bedrock.

        Raises UpstreamError if there are no credentials, ClientError if the body is invalid.
        """
        keys = self._credentials.current()
        convert = partial(bedrock_request, request, self._aws, self._base_url)
        unsigned = run_if_large(len(request.body), convert)
        return self._signer.sign(replace(unsigned, headers=(("Host", self._host), *unsigned.headers)), keys)

    def decode(self, request: UpstreamRequest, response: UpstreamResponse) -> UpstreamResponse:
        return decode(response, is_count=request.url.endswith(COUNT_TOKENS_SUFFIX))


def default_base_url(aws: AwsSettings) -> str:
    return f"https://bedrock-runtime.{aws.region}.amazonaws.com"


def credential_hint(aws: AwsSettings) -> str:
    """Returns the record's `credential_hint`. Temporary keys change, so a part of them identifies nothing."""
    return "..." if aws.role_arn or not aws.access_key else mask_secret(aws.access_key.value)


def models_body(aws: AwsSettings) -> bytes:
    """Returns the response body of `GET /v1/models`: the configured models."""
    ids = list(dict.fromkeys((aws.model, aws.small_fast_model)))
    models = [
        {"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"} for id in ids
    ]
    return body.dumps({"data": models, "has_more": False, "first_id": ids[0], "last_id": ids[-1]})


__all__ = ["Bedrock", "configured_id", "credential_hint", "default_base_url", "models_body"]
