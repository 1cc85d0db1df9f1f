"""What tests of figures look for on axes."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D


def line(ax: Axes, label: str) -> Line2D:
    (found,) = [each for each in ax.lines if str(each.get_label()).startswith(label)]
    return found


def texts(ax: Axes) -> str:
    # Notes are drawn from the plot upwards.
    return " ".join(" ".join(text.get_text().split()) for text in reversed(ax.texts))


def check_texts(ax: Axes) -> None:
    """No text covers another, none is cut off, and the legend stands beside the axes."""
    figure = ax.figure
    figure.canvas.draw()
    legend, page = ax.get_legend(), figure.bbox
    assert legend is not None
    assert not legend.get_window_extent().overlaps(ax.get_window_extent())
    parts = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *legend.get_texts()]
    shown = [part for part in (*parts, *ax.texts) if part.get_text()]
    boxes = [part.get_window_extent() for part in shown]
    for part, box in zip(shown, boxes, strict=True):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, part.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, part.get_text()
    for i, box in enumerate(boxes):
        for j in range(i):
            assert not box.overlaps(boxes[j]), (shown[i].get_text(), shown[j].get_text())
