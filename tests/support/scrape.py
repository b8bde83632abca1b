"""What a metrics page says."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import PATIENCE, PREFIX, Server

_NAMESPACE = "aibridge_"


@dataclass(frozen=True)
class Page:
    text: str

    def types(self) -> dict[str, str]:
        """Names as they stand in queries, without what belongs to histograms."""
        found = {one.name: one.type for one in text_string_to_metric_families(self.text)}
        ends = {"counter": "_total"}
        return {name.removeprefix(_NAMESPACE) + ends.get(type, ""): type for name, type in found.items()}

    def samples(self, name: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        return [
            (one.labels, one.value)
            for family in text_string_to_metric_families(self.text)
            for one in family.samples
            if one.name == _NAMESPACE + name and labels.items() <= one.labels.items()
        ]

    def sum(self, name: str, /, **labels: str) -> float:
        """Of all that has these labels; 0 where there is none."""
        return sum(value for _, value in self.samples(name, **labels))

    def only(self, name: str, /, **labels: str) -> float:
        """Of the one sample, whose labels are these and no others."""
        ((found, value),) = self.samples(name)
        assert found == labels
        return value

    def by(self, name: str, label: str, /, **labels: str) -> dict[str, float]:
        return {found[label]: value for found, value in self.samples(name, **labels)}


def page_of(app: Flask) -> Page:
    response = app.test_client().get(f"{PREFIX}/metrics")
    assert response.status_code == 200
    return Page(response.get_data(as_text=True))


def scrape(server: Server) -> Page:
    """On a connection of its own: any worker may answer."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=PATIENCE) as answer:
        return Page(answer.read().decode())
