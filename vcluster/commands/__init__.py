"""The table of commands: what there is, in a line each, and which module does it.

This page imports nothing, so that ``vcluster --help`` can be printed from it before click is loaded.
"""

from __future__ import annotations

PROGRAM = "vcluster"
COMPLETION_VARIABLE = "_VCLUSTER_COMPLETE"
TAGLINE = "One YAML file, one command, a working cluster on cloud VMs; and it takes it all away again."

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "A cluster's life": {
        "up": ("lifecycle", "Bring a cluster up, or mend it, until a job ran on every worker."),
        "plan": ("lifecycle", "Show what `up` would do; exit 0 for nothing, 10 for changes."),
        "status": ("look", "Show every machine with its state, address and UUID."),
        "list": ("fleet", "List the clusters on a cloud: whose, how old, what they cost."),
        "stop": ("lifecycle", "Shut a cluster's machines down and keep their disks."),
        "start": ("lifecycle", "Boot a stopped cluster again."),
        "shelve": ("lifecycle", "Keep the servers' disks on the shelf and let the workers go."),
        "unshelve": ("lifecycle", "Take a shelved cluster back into use."),
        "extend": ("fleet", "Let a cluster live longer."),
        "down": ("lifecycle", "Delete a cluster, after showing what goes."),
    },
    "A project's order": {
        "reap": ("fleet", "Shelve the clusters whose time is up, and later delete them."),
        "sweep": ("fleet", "Delete what is left of clusters whose head is gone."),
    },
    "Its workers": {
        "scale": ("lifecycle", "Change how many workers a group has; drains first."),
        "replace": ("lifecycle", "Make one machine anew; drains first."),
    },
    "Working on it": {
        "ssh": ("reach", "Log in, or run a command and return its exit status."),
        "cp": ("reach", "Copy files to or from its machines."),
        "forward": ("reach", "Reach a port of the head from this computer."),
        "ssh-config": ("reach", "Print what ~/.ssh/config needs for ssh, scp and VS Code."),
        "logs": ("look", "Print the end of a machine's serial console."),
    },
    "Its JupyterHub": {
        "users": ("people", "Add, remove and list people; show or change the passwords."),
        "rehearse": ("rehearse", "Send a class of made-up users through the front door; tell how it went."),
    },
    "Its Kubernetes": {
        "kubeconfig": ("kubernetes", "Print what kubectl needs, or merge it into one's own file."),
        "backup": ("kubernetes", "Write all that Kubernetes knows into a file."),
        "restore": ("kubernetes", "Bring Kubernetes back to a backup; what came since is lost."),
        "upgrade": ("kubernetes", "Change k3s' version, one machine after the other."),
    },
    "Before it runs": {
        "doctor": ("local", "Tell whether this computer can run the local cloud, and what is missing."),
        "image": ("local", "Build, list and remove the local cloud's base images."),
        "render": ("look", "Write what every machine would be configured with into a folder."),
        "schema": ("look", "Print the JSON Schema of the spec."),
        "completion": ("completion", "Print the shell's completion script."),
    },
}
"""Section to command to (module of this package, summary)."""

OPTIONS = {
    "--version": "Print the version.",
    "-h, --help": "Print this page, or with a command that command's.",
}


def module_of(command: str) -> str | None:
    """The module of this package that holds a command, or None for an unknown one."""
    return next((commands[command][0] for commands in SECTIONS.values() if command in commands), None)


def summary_of(command: str) -> str:
    """A command's line in the table."""
    return next(commands[command][1] for commands in SECTIONS.values() if command in commands)


def names() -> list[str]:
    """All commands, in the order of the help page."""
    return [name for commands in SECTIONS.values() for name in commands]


def help_page() -> str:
    """The page that ``vcluster --help`` prints."""
    width = max(map(len, [*names(), *OPTIONS])) + 2
    lines = [f"Usage: {PROGRAM} COMMAND [ARGUMENTS] [OPTIONS]", "", f"  {TAGLINE}"]
    for section, commands in SECTIONS.items():
        lines += ["", f"{section}:"]
        lines += [f"  {name:{width}}{summary}" for name, (_, summary) in commands.items()]
    lines += ["", "Options:", *(f"  {name:{width}}{text}" for name, text in OPTIONS.items())]
    lines += ["", f"`{PROGRAM} COMMAND --help` tells more. A first cluster: {PROGRAM} up examples/local-slurm.yaml"]
    return "\n".join(lines) + "\n"
