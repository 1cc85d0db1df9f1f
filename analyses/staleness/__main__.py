import tyro

from analyses.staleness.verdict import main

tyro.cli(main)
