"""The table of all commands, and the help of the program as a whole. Imports nothing: `fsqdo --help` is this and a print."""

from __future__ import annotations

# Section -> command -> (module of fsqdo.cli that has it, first line of its help; a test compares that with the command's own).
SECTIONS = {
    "Tasks": {
        "add": ("add", "Add one task and print its id."),
        "load": ("add", "Add a task for each line of a file and print their ids."),
        "list": ("queues", "List the queues, with their tasks counted by state."),
        "status": ("queues", "Show one queue, with its tasks counted by state."),
        "tasks": ("tasks", "List tasks, a line each."),
        "show": ("tasks", "Show all that is known of one task."),
        "explain": ("tasks", "Say why a task is where it is, and what it waits for."),
        "log": ("tasks", "Print the output of one task."),
    },
    "Work": {
        "launch": ("launch", "Start N workers, as batch jobs or on this machine."),
        "jobs": ("launch", "List the batch jobs launched for a queue."),
        "cancel-jobs": ("launch", "Cancel batch jobs of a queue."),
        "autoscale": ("autoscale", "Launch what a queue lacks, in jobs of the most efficient shape."),
        "do": ("workers", "Work: run tasks of a queue until there are no more."),
        "workers": ("workers", "List the workers of a queue."),
        "drain": ("workers", "Have workers finish what they run and claim no more."),
    },
    "Once something went wrong": {
        "retry": ("bulk", "Put failed tasks back to pending."),
        "rerun": ("bulk", "Put all tasks that have ended back to pending."),
        "recover": ("workers", "Put tasks left running by dead workers back to pending."),
        "promote": ("workers", "Put waiting tasks whose requirements are met to pending."),
        "kill": ("bulk", "Take tasks out; stop those that run."),
        "reprioritize": ("bulk", "Give waiting and pending tasks another priority."),
    },
    "Queues": {
        "create": ("queues", "Create an empty queue."),
        "pause": ("queues", "Have workers claim no more tasks of a queue."),
        "resume": ("queues", "Let workers claim tasks of a paused queue again."),
        "pack": ("pack", "Make one file of each thousand tasks that succeeded."),
        "unpack": ("pack", "Make files of packed tasks again, one each, for ls, cat and mv."),
        "tidy": ("pack", "Remove litter, and put together what ended workers left."),
        "delete": ("queues", "Delete a queue with all its tasks."),
        "bench": ("bench", "Measure a file system, and say what queues can do on it."),
        "config": ("config", "Show the configuration, and where each value comes from."),
    },
}
COMMANDS = {name: known for section in SECTIONS.values() for name, known in section.items()}

_HEAD = """\
Usage: fsqdo [OPTIONS] COMMAND [ARGS]...

  A queue of many small tasks that is nothing but files.

  Tasks are commands or JSON objects; workers, started one by one or as batch
  jobs, claim and run them. `fsqdo COMMAND --help` says more of each command.

Options:
  -v, --verbose  Say on stderr what is done; twice: everything.
  --version      Show the version and exit.
  -h, --help     Show this message and exit.
"""
_TAIL = """
  Queues are directories under $FSQDO_DIR, else `dir:` of the configuration
  file, else ~/.fsqdo/queues. Options may be written with - or _ and stand
  before or after the names. For completion in bash, put this into ~/.bashrc
  (zsh and fish: the same with their names):

    eval "$(_FSQDO_COMPLETE=bash_source fsqdo)"

  Example:
    fsqdo load Blat commands.txt
    fsqdo launch Blat 24
    fsqdo status Blat"""


def help_text() -> str:
    """The help of the program: its commands by what they are for."""
    width = max(map(len, COMMANDS))
    text = _HEAD
    for title, commands in SECTIONS.items():
        text += f"\n{title}:\n"
        for name, (_, line) in commands.items():
            text += f"  {name:<{width}}  {line}\n"
    return text + _TAIL
