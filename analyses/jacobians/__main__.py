import tyro

from analyses.jacobians.errors import main

tyro.cli(main)
