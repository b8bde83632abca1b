"""What tokens cost: pure functions of counts and prices, and the price lists. See docs/cost.md."""

from .billed import Billed
from .cost import UNPRICED, Cost
from .price_list import PriceList

__all__ = ["UNPRICED", "Billed", "Cost", "PriceList"]
