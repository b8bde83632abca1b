"""The cost of a token usage."""

from __future__ import annotations

from msgspec import Struct


class Cost(Struct, frozen=True):
    """Money in micro-dollars (US$ 1e-6).

    `source` is `settings`, `prices_file` or `genai-prices`; "" if there is no price, and `micros` means
    nothing then. `version` is that of the library or the file. `saved_micros` is what the cache saved; it is
    negative if writing cost more than reading saved. The parts of `micros` are those of output, of cached
    input that was read or written, and of fees per use; the rest is that of other input.
    """

    micros: int
    source: str = ""
    version: str = ""
    saved_micros: int = 0
    output_micros: int = 0
    cache_read_micros: int = 0
    cache_write_micros: int = 0
    fees_micros: int = 0

    @property
    def is_priced(self) -> bool:
        return bool(self.source)


UNPRICED = Cost(0)
