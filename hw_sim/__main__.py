"""`python -m hw_sim`."""

from hw_sim.cli import main

if __name__ == "__main__":
    main()
