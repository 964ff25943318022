"""Lets `python -m jahp_pl` run the command `jahp`."""

from jahp_pl.cli.main import main

if __name__ == "__main__":
    main()
