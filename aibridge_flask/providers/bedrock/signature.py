"""AWS Signature Version 4, computed by botocore.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from msgspec.structs import replace

from ...headers import find
from ...model import UpstreamRequest


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The keys that sign a request. Temporary keys include a session token."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


class Signer:
    """Signs requests to one service in one region."""

    def __init__(self, region: str, service: str = "bedrock") -> None:
        import botocore.auth
        import botocore.awsrequest

        self._auth, self._request_type = botocore.auth.SigV4Auth, botocore.awsrequest.AWSRequest
        self._scope = (service, region)
        logger = logging.getLogger("botocore")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)  # its debug lines contain a role's keys, and what is signed

    def sign(self, request: UpstreamRequest, keys: AwsKeys) -> UpstreamRequest:
        """Adds the headers with the signature.

        Only headers that no proxy on the path changes are signed: the host, the media type and AWS's own.
        """
        to_sign = {"Host": find(request.headers, "host")}
        if content_type := find(request.headers, "content-type"):
            to_sign["Content-Type"] = content_type
        aws_request = self._request_type(request.method, request.url, to_sign, request.body)
        self._auth(keys, *self._scope).add_auth(aws_request)
        added = [(name, value) for name, value in aws_request.headers.items() if name not in to_sign]
        return replace(request, headers=(*request.headers, *added))
