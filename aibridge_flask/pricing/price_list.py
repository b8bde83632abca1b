"""The prices of one application: the settings' first, then those of a file, then the library's."""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import lru_cache

from ..config.settings import Price, Settings
from .billed import Billed
from .catalog import Catalog, read_fees
from .cost import UNPRICED, Cost
from .fees import DEFAULT_FEES
from .own_prices import OwnPrices, exact, own_fees, token_prices
from .quantities import quantities_of
from .rates import NO_RATES, Rates, make_rates
from .sources import read_catalogs
from .terms import Terms, terms_of

_MAX_CACHED = 1024
_MAX_CACHED_LENGTH = 1024  # characters of terms: names come from upstreams
_log = logging.getLogger("aibridge")


class PriceList:
    """Prices token usages. `load` may be called in advance, from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._own = OwnPrices(settings.prices)
        self._factors = {each.name: exact(each.price_factor) for each in settings.providers}
        self._file = settings.prices_file
        self._catalogs: tuple[Catalog, ...] = ()
        self._cached_rates = lru_cache(_MAX_CACHED)(self._rates)

    def load(self) -> None:
        """Imports the library, which takes 14 MB and a sixth of a second, and reads the file."""
        self._catalogs = self._catalogs or read_catalogs(self._file)

    def cost(self, billed: Billed) -> Cost:
        """Returns the cost, UNPRICED if there is no price for all of it. Raises nothing."""
        terms = terms_of(billed)
        rates = self._cached_rates(terms) if terms.length <= _MAX_CACHED_LENGTH else self._rates(terms)
        return rates.cost_of(quantities_of(billed.usage)) if rates.source else UNPRICED

    def _rates(self, terms: Terms) -> Rates:
        self.load()
        try:
            own = self._own.find(terms.names)
            return self._own_rates(own[0], terms) if own else self._list_rates(terms)
        except Exception as error:  # noqa: BLE001 - a file's data may hold anything
            _log.warning("the price of %r cannot be read: %s", terms.model, error)
            return NO_RATES

    def _own_rates(self, price: Price, terms: Terms) -> Rates:
        """Fees that the settings do not name are list prices."""
        fees = {kind: fee * self._factor(terms) for kind, fee in self._list_fees(terms).items()}
        fees.update(own_fees(price))
        return make_rates({-1: token_prices(price)}, fees, "settings")

    def _list_fees(self, terms: Terms) -> dict[str, Fraction]:
        for catalog in self._catalogs:
            for entry in catalog.find(terms):
                return read_fees(entry.lister, entry.model.get_prices(terms.at))
        return DEFAULT_FEES

    def _list_rates(self, terms: Terms) -> Rates:
        for catalog in self._catalogs:
            for entry in catalog.find(terms):
                return catalog.rates(entry, terms, self._factor(terms))
        return NO_RATES

    def _factor(self, terms: Terms) -> Fraction:
        return self._factors.get(terms.provider_name, Fraction(1))
