"""What all figures of a report share: colours, and the bytes of a PNG."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, GOOD, BAD = "#1f2933", "#9aa5b1", "#2f7d5b", "#c0392b"
SERIES = ("#2f6f9f", "#d98c2b", "#2f7d5b", "#8e4585", "#c0392b", "#6b7785")


def render(figure: Figure) -> bytes:
    """Return the figure as PNG bytes, the same for the same figure."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None}
    )
    return buffer.getvalue()
