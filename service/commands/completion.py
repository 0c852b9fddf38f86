"""`ebseg completion`: what makes a shell complete commands and options.

The shell asks `ebseg` itself, through the library argcomplete, so a new option is known at once.
"""

import argparse

from model.command import add_command

SHELLS = ("bash", "zsh", "fish")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "completion",
        run,
        "print a script that makes a shell complete commands, options and files",
        """
  source <(ebseg completion bash)
  ebseg completion bash >> ~/.bashrc
  ebseg completion zsh > "${fpath[1]}/_ebseg"
  ebseg completion fish > ~/.config/fish/completions/ebseg.fish
""",
    )
    parser.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """`ebseg completion`."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["ebseg"], shell=args.shell), end="")
    return 0
