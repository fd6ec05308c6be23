"""A progress bar as a widget of a notebook."""

from typing import Any

from IPython.display import display
from tqdm.notebook import tqdm


class WidgetBar(tqdm):
    """tqdm's bar for notebooks, for work that may be stopped. The arguments are tqdm's.

    One that ends early is no error, so it is not red. A stored notebook has no widgets, but the text in their
    place: it is the bar's end, not its beginning.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(display=False, **options)
        self._output = display(self.container, display_id=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.disable:  # it is closed already
            return
        super().close()
        if self.n < self.total:
            self.display(bar_style="info", check_delay=False)
        self._output.update(self.container)
