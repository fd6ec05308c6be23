"""Looking into networks at work: where two of them, or two devices, begin to differ.

`compare` runs two networks side by side. `Shadow` watches one at work, and does each of its operations again
on another device, from the same inputs.
"""

from .compare import TOLERANCE, Difference, compare, measure
from .shadow import Shadow, ShadowError

__all__ = ["TOLERANCE", "Difference", "Shadow", "ShadowError", "compare", "measure"]
