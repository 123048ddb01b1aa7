"""The program: `beattrack`, or `python -m beattrack_runtime`."""

import signal


def main() -> None:
    """Run the command line."""
    # Until there is something to write, Ctrl-C just ends the program, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from beattrack_runtime.cli import main as run

    run()


if __name__ == "__main__":
    main()
