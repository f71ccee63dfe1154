"""Commands of batch systems that are not here: what they print, as documented. See README.md."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("FAKE_STATE", ""))
MODE = os.environ.get("FAKE_MODE", "")
BANNER = "*** Welcome to the cluster 2026! Jobs must be accounted for. ***"
GARBAGE = "Segmentation fault\n\x1b[31m{{\x00 <html> 1|2|3 Job Id:\n    job_state =\n5."


def load() -> dict[str, dict[str, Any]]:
    return dict(json.loads(STATE.read_text())) if STATE.exists() else {}


def save(jobs: dict[str, dict[str, Any]]) -> None:
    STATE.write_text(json.dumps(jobs))


def submit(state: str, size: int = 1) -> str:
    jobs = load()
    number = str(len(jobs) + 5)
    save({**jobs, number: {"state": state, "size": size}})
    return number


def end(number: str, state: str) -> bool:
    jobs = load()
    if number not in jobs or jobs[number]["state"] == state:
        return False
    jobs[number]["state"] = state
    save(jobs)
    return True


def complain(*lines: str, code: int = 1) -> int:
    for text in lines:
        print(text, file=sys.stderr)
    return code if lines else 0


def match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None


def split_ids(words: list[str], pattern: str) -> list[str]:
    return [word for word in words if re.fullmatch(pattern, word)]


# ---------------------------------------------------------------- Slurm
def sbatch(words: list[str]) -> int:
    script = Path(words[-1]).read_text()
    print(submit("PENDING", int(match(r"^#SBATCH --array=0-([0-9]+)$", script) or 0) + 1))
    return 0


def squeue(words: list[str]) -> int:
    ids = words[words.index("-j") + 1].split(",")
    if len(ids) == 1 and ids[0] not in load():
        return complain("slurm_load_jobs error: Invalid job id specified")
    for number, job in load().items():
        if number in ids and job["state"] not in ("FORGOTTEN", "ARCHIVED"):
            print("\n".join([f"{number}|{job['state']}"] * job["size"]))
    return 0


def sacct(words: list[str]) -> int:
    if os.environ.get("FAKE_ACCOUNTING") != "yes":
        return complain("Slurm accounting storage is disabled")
    for number in words[words.index("-j") + 1].split(","):
        if load().get(number, {}).get("state") == "ARCHIVED":
            print(f"{number}_0|CANCELLED by 1000\n{number}_1|COMPLETED")
    return 0


def scontrol(words: list[str]) -> int:
    print("Configuration data as of 2026-01-01T00:00:00")
    print(f"ClusterName             = fake\nPrivateData             = {os.environ.get('FAKE_PRIVATE', 'none')}")
    return 0


def scancel(words: list[str]) -> int:
    for number in split_ids(words, "[0-9]+"):
        end(number, "CANCELLED")
    return 0


# ---------------------------------------------------------------- PBS
def pbs_qsub(words: list[str]) -> int:
    last = match(r"^#PBS -[Jt] 0-([0-9]+)$", Path(words[-1]).read_text())
    print(f"{submit('Q', int(last or 0) + 1)}{'[]' if last else ''}.server.example")
    return 0


def pbs_qstat(words: list[str]) -> int:
    unknown = []
    for batch_id in words[words.index("-f") + 1 :]:
        job = load().get(batch_id.split(".")[0].removesuffix("[]"))
        if job is None:
            unknown.append(f"qstat: Unknown Job Id {batch_id}")
            continue
        print(f"Job Id: {batch_id}\n    Job_Name = x\n    job_state = {job['state']}\n    queue = workq")
        print("    Variable_List = PBS_O_HOME=/home/u,A=it's {\"},\n\tB=2\n")
    return complain(*unknown, code=153)


def pbs_qdel(words: list[str]) -> int:
    gone = [f"qdel: Job has finished {word}" for word in words if not end(word.split(".")[0].removesuffix("[]"), "F")]
    return complain(*gone, code=35)


# ---------------------------------------------------------------- Grid Engine
def sge_qsub(words: list[str]) -> int:
    size = match(r"^#\$ -t 1-([0-9]+)$", Path(words[-1]).read_text())
    number = submit("qw", int(size or 1))
    print(f"{number}.1-{size}:1" if size else number)
    return 0


def sge_qstat(words: list[str]) -> int:
    shown = {number: job for number, job in load().items() if job["state"] != "gone"}
    if shown:
        print("job-ID  prior   name       user         state submit/start at     queue                    slots ja-task-ID ")
        print("-" * 115)
    for number, job in shown.items():
        date = "11/22/2026 23:52:59"
        print(f"{number:>7} 0.55500 a job r qw someone      {job['state']:5} {date} {'all.q@n1':30} 1 1-{job['size']}:1")
    return 0


def sge_qdel(words: list[str]) -> int:
    gone = []
    for number in words:
        if end(number, "gone"):
            print(f"someone has registered the job {number} for deletion")
        else:
            gone.append(f'denied: job "{number}" does not exist')
    return complain(*gone)


# ---------------------------------------------------------------- LSF
def bsub(words: list[str]) -> int:
    script = sys.stdin.read()
    if not script.startswith("#!"):
        return complain("Empty job. Job not submitted.", code=255)
    number = submit("PEND", int(match(r'^#BSUB -J "[^"]*\[1-([0-9]+)\]"$', script) or 1))
    print(f"Job <{number}> is submitted to default queue <normal>.")
    return 0


def bjobs(words: list[str]) -> int:
    unknown = []
    for number in split_ids(words, "[0-9]+"):
        job = load().get(number)
        if job is None:
            unknown.append(f"Job <{number}> is not found")
        else:
            print("\n".join([f"{number}|{job['state']}"] * job["size"]))
    return complain(*unknown, code=255)


def bkill(words: list[str]) -> int:
    gone = []
    for number in words:
        if end(number, "EXIT"):
            print(f"Job <{number}> is being terminated")
        else:
            gone.append(f"Job <{number}>: Job has already finished")
    return complain(*gone, code=255)


# ---------------------------------------------------------------- HTCondor
def condor_submit(words: list[str]) -> int:
    size = match(r"^queue ([0-9]+)$", sys.stdin.read())
    if size is None:
        return complain("ERROR: no queue statement")
    number = submit("1", int(size))
    print(f"{number}.0 - {number}.{int(size) - 1}")
    return 0


def condor_jobs(words: list[str], states: str) -> int:
    for number in split_ids(words, "[0-9]+"):
        job = load().get(number)
        if job is not None and job["state"] in states:
            print("\n".join([f"{number} {job['state']}"] * job["size"]))
    return 0


def condor_rm(words: list[str]) -> int:
    gone = [f"Job {number}.* not found" for number in split_ids(words, "[0-9]+") if not end(number, "3")]
    return complain(*gone)


# ---------------------------------------------------------------- Flux
def flux(words: list[str]) -> int:
    if words[0] == "batch":
        print(f"ƒ{submit('SCHED')}")
        return 0
    ids = [word.removeprefix("ƒ") for word in words[1:] if word.startswith("ƒ")]
    known = load()
    if words[0] == "jobs":
        for number in ids:
            if number in known:
                print(f"ƒ{number} {known[number]['state']}")
        return complain(*(f"flux-jobs: ERROR: JobID ƒ{number} unknown" for number in ids if number not in known))
    return complain(*(f"flux-cancel: ERROR: ƒ{number}: job is inactive" for number in ids if not end(number, "INACTIVE")))


COMMANDS = {
    "slurm": {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scontrol": scontrol, "scancel": scancel},
    "pbs": {"qsub": pbs_qsub, "qstat": pbs_qstat, "qdel": pbs_qdel},
    "torque": {"qsub": pbs_qsub, "qstat": pbs_qstat, "qdel": pbs_qdel},
    "sge": {"qsub": sge_qsub, "qstat": sge_qstat, "qdel": sge_qdel},
    "lsf": {"bsub": bsub, "bjobs": bjobs, "bkill": bkill},
    "htcondor": {
        "condor_submit": condor_submit,
        "condor_q": lambda words: condor_jobs(words, "12567"),
        "condor_history": lambda words: condor_jobs(words, "34"),
        "condor_rm": condor_rm,
    },
    "flux": {"flux": flux},
}


def main() -> int:
    system, command, *words = sys.argv[1:]
    if MODE == "hang":
        threading.Event().wait()
    if MODE == "fail":
        return complain(f"{command}: cannot connect to the server (errno=15010)", code=2)
    if MODE in ("garbage", "empty"):
        print(GARBAGE if MODE == "garbage" else "", end="")
        return 0
    if MODE == "banner":
        print(BANNER, file=sys.stderr)
        print(BANNER + "\n")
    return COMMANDS[system][command](words)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.exit(main())
