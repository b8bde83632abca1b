"""Headers, queries and paths: no text gets past what looks at it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from aibridge_flask import headers
from aibridge_flask.model import Actor
from aibridge_flask.providers.provider import decode_path, is_plain_path
from aibridge_flask.reading import search
from aibridge_flask.reading.errors import BadQuestion
from tests.support.fuzz.profile import examples

TOKEN = "aib_" + "Ab1-_" * 9


# Tokens

DRESSES: list[Callable[[str], str]] = [
    str,
    "Bearer {}".format,
    "bEaReR  {}".format,
    '"{}"'.format,
    "a, {}; b".format,
    "x{}y".format,
    "key=%22{}%22".format,
    lambda token: "".join(f"%{byte:02x}" for byte in token.encode()),
    lambda token: "Basic " + b64encode(f"u:{token}".encode()).decode(),
    lambda token: "bAsIc \t" + b64encode(f"{token}:".encode()).decode().rstrip("="),
    lambda token: f'{{"token":"{token}"}}',
]
HEADER_NAMES = st.one_of(
    st.sampled_from(
        [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "user-agent",
            "x-aibridge-token",
            "connection",
            "cookie",
            "x",
        ]
    ),
    st.from_regex(r"[a-z][a-z-]{0,12}", fullmatch=True),
)


@given(
    st.dictionaries(HEADER_NAMES, st.sampled_from(DRESSES), min_size=1, max_size=4),
    st.booleans(),
    st.text(max_size=5),
)
@examples(300)
def test_a_token_goes_to_no_provider(
    dressed: dict[str, Callable[[str], str]], is_central: bool, other: str
) -> None:
    values = {name: dress(TOKEN) for name, dress in dressed.items()}
    sent = headers.to_upstream({**values, "accept": other}, with_central_key=is_central)
    assert sent == ([] if "accept" in values.get("connection", "").split(", ") else [("Accept", other)])


# Queries and paths


@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.tuples(st.sampled_from([*search.KEYS, "x"]), st.text(max_size=30)), max_size=4).map(
            lambda terms: " ".join(f'{key}:"{value}"' for key, value in terms)
        ),
    )
)
@examples(400)
def test_a_search_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = search.parse(text)
        parsed.conditions(Actor("me"), "sqlite")
    except BadQuestion:
        return
    assert all(key in search.KEYS for key, _ in parsed.terms)
    assert all(value in text for _, value in parsed.terms)


@given(
    st.lists(
        st.sampled_from(
            [
                "resp_1",
                "/",
                ".",
                "..",
                "%2e",
                "%2F",
                "%252e",
                "%",
                ";",
                "%00",
                "%c0%ae",
                "%ef%bc%8f",
                "%e2%80%a5",
                "a b",
                "\\",
                "?",
                "#",
                "%5F1",
                "é",
            ]
        ),
        max_size=6,
    )
)
@examples(400)
def test_a_path_that_is_plain_means_the_same_to_every_decoder(parts: list[str]) -> None:
    path = "/v1/responses/" + "".join(parts)
    if not is_plain_path(path):
        return
    decoded = decode_path(path)
    assert decoded.startswith("/v1/responses/")
    assert decode_path(quote(decoded, safe="/")) == decoded
    assert not {"..", "."} & set(decoded.split("/"))
    assert unquote_to_bytes(decoded) == decoded.encode()
