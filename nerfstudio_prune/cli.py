"""The command `ns-prune`."""

import tyro

from nerfstudio_prune.demo import Demo


def entrypoint() -> None:
    """Entry point of the console script."""
    tyro.extras.set_accent_color("bright_yellow")
    tyro.extras.subcommand_cli_from_dict({"demo": Demo}, description="Tools of nerfstudio-prune.").main()


if __name__ == "__main__":
    entrypoint()
