"""Fonts of PDF figures are cut down once, and the texts keep their own afterwards."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.text import Text

from gradlab.reporting.fonts import cut_down


def test_small_fonts_are_embedded_as_truetype_and_given_back(tmp_path: Path) -> None:
    figure = Figure()
    figure.add_subplot().set_title("λ per step, 10⁻³ …")
    figure.draw_without_rendering()
    shown = [each for each in figure.findobj(Text) if each.get_text()]
    found = {}
    for name in ("whole", "cut"):
        with matplotlib.rc_context({"pdf.fonttype": 42, "pdf.compression": 0}):
            if name == "cut":
                with cut_down([figure], tmp_path):
                    used = {Path(str(findfont(each.get_fontproperties()))) for each in shown}
                    figure.savefig(tmp_path / "cut.pdf")
            else:
                figure.savefig(tmp_path / "whole.pdf")
        found[name] = (tmp_path / f"{name}.pdf").read_bytes()
    assert b"/CIDFontType2" in found["cut"] and b"/Type3" not in found["cut"]
    assert found["cut"].count(b"/FontFile2") == found["whole"].count(b"/FontFile2") >= 1
    assert {each.parent for each in used} == {tmp_path}
    assert all(each.get_fontproperties().get_file() is None for each in figure.findobj(Text))
    assert {path.suffix for path in tmp_path.iterdir()} == {".ttf", ".pdf"}
