import tyro

from analyses.third_party.trials import main

tyro.cli(main)
