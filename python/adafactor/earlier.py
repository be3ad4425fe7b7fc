"""Where pickles of earlier versions look for classes that lie elsewhere now."""

import sys

from adafactor.engine import leaves, rates
from adafactor.optimizer import variables
from adafactor.trees import tree

sys.modules.update(
    {
        "adafactor.plan": leaves,
        "adafactor.row_rates": rates,
        "adafactor.tree": tree,
        "adafactor.variables": variables,
    }
)
