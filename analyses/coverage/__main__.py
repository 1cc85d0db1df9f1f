import tyro

from analyses.coverage.campaign import main

tyro.cli(main)
