import tyro

from analyses.bias_variance.run import main

tyro.cli(main)
