"""`python -m t0train`: the command line, for launchers that start a module and where no `t0train` is on the PATH."""

from t0train.cli.main import main

if __name__ == "__main__":
    main()
