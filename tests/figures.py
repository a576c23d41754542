"""Figures of the tests as images."""

from __future__ import annotations

import io

from matplotlib.image import imread


def drawn(figure):
    """The figure as an image, (h, w, 4) in 0..1; drawing it must not warn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return imread(buffer)
