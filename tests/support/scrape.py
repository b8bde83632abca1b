"""The metrics page, parsed."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import PREFIX, TIMEOUT_SECONDS, Server

_NAMESPACE = "aibridge_"


@dataclass(frozen=True)
class Page:
    text: str

    def types(self) -> dict[str, str]:
        """The types of metrics by their names in queries; the samples of histograms are left out."""
        types = {family.name: family.type for family in text_string_to_metric_families(self.text)}
        suffixes = {"counter": "_total"}
        return {name.removeprefix(_NAMESPACE) + suffixes.get(type, ""): type for name, type in types.items()}

    def samples(self, name: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == _NAMESPACE + name and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, /, **labels: str) -> float:
        """The sum of the samples with these labels; 0 without any."""
        return sum(value for _, value in self.samples(name, **labels))

    def value(self, name: str, /, **labels: str) -> float:
        """The value of the only sample, which has these labels and no others."""
        ((sample_labels, value),) = self.samples(name)
        assert sample_labels == labels
        return value

    def by_label(self, name: str, label: str, /, **labels: str) -> dict[str, float]:
        return {sample[label]: value for sample, value in self.samples(name, **labels)}


def scrape_app(app: Flask) -> Page:
    response = app.test_client().get(f"{PREFIX}/metrics")
    assert response.status_code == 200
    return Page(response.get_data(as_text=True))


def scrape(server: Server) -> Page:
    """Uses a connection of its own: any worker may answer."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=TIMEOUT_SECONDS) as response:
        return Page(response.read().decode())
