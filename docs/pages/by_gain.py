"""The figure of the finding on choosing by gain: `python -m docs.pages.by_gain`, committed."""

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent.parent
TABLE = ROOT / "reports/choice/by-gain.csv"


def main() -> None:
    """A row for each kind of step: what choosing by gain adds over choosing by error."""
    table = pd.read_csv(TABLE).query("criterion == 'gain'").iloc[::-1]
    figure, axes = plt.subplots(figsize=(7.6, 3.4), layout="constrained")
    middle = 100 * table["difference"]
    ends = [middle - 100 * table["low"], 100 * table["high"] - middle]
    labels = table["chosen"] + ", " + table["step"]
    axes.errorbar(middle, labels, xerr=ends, fmt="o", color="#0b5fa5", capsize=3)
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_xlabel("by error is better ← points of the best step, 95% → by gain is better")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs/pictures/by-gain.png", dpi=130)


if __name__ == "__main__":
    main()
