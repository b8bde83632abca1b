"""AWS Signature Version 4, as botocore makes it.

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
    """What a request is signed with, at one moment."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


class Signer:
    """Signs for one service of one region."""

    def __init__(self, region: str, service: str = "bedrock") -> None:
        import botocore.auth
        import botocore.awsrequest

        self._auth, self._request = botocore.auth.SigV4Auth, botocore.awsrequest.AWSRequest
        self._scope = (service, region)
        logger = logging.getLogger("botocore")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)  # its debug lines hold what a role is given, and what is signed

    def sign(self, outgoing: UpstreamRequest, keys: AwsKeys) -> UpstreamRequest:
        """With the headers that carry the signature. Only what no proxy on the way changes is signed: the
        host, the media type, and AWS's own."""
        signed = {"Host": find(outgoing.headers, "host")}
        if kind := find(outgoing.headers, "content-type"):
            signed["Content-Type"] = kind
        request = self._request(outgoing.method, outgoing.url, signed, outgoing.body)
        self._auth(keys, *self._scope).add_auth(request)
        made = [(name, value) for name, value in request.headers.items() if name not in signed]
        return replace(outgoing, headers=(*outgoing.headers, *made))
