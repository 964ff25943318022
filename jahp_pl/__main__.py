"""`python -m jahp_pl` is `jahp`."""

from jahp_pl.cli.main import main

if __name__ == "__main__":
    main()
