"""Running commands, saying what goes on, failing with a word of help."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

STARTED = time.monotonic()


class Failure(Exception):
    """What happened, what to do about it, and the exit code (sysexits.h)."""

    def __init__(self, message, help_text="", code=70):
        super().__init__(message)
        self.help, self.code = help_text, code


def say(text):
    """A line of progress, with the time since the start."""
    seconds = int(time.monotonic() - STARTED)
    print(f"[{seconds // 60:02}:{seconds % 60:02}] {text}", flush=True)


def run(argv, timeout=120, check=True, env=None, show=False):
    """Runs a command to its end; with `check` its failure is ours, with `show` people see what it
    says on stderr."""
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, timeout=timeout, env=env, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=None if show else subprocess.PIPE)
    except subprocess.TimeoutExpired:
        if not check:
            return subprocess.CompletedProcess(argv, 124, "", f"no end within {timeout} s")
        raise Failure(f"{' '.join(argv[:6])}: no end within {timeout} s") from None
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not installed", f"install {argv[0]}", 69) from None
    if check and done.returncode != 0:
        said = ((done.stderr or "").strip() or done.stdout.strip())[-2000:]
        raise Failure(f"{' '.join(argv[:6])} ended with {done.returncode}: {said}")
    return done


def wait_for(what, within_s, done, every_s=0.3):
    """Asks until `done` gives something; seconds it took and what it gave."""
    started = time.monotonic()
    while True:
        value = done()
        took = time.monotonic() - started
        if value:
            return took, value
        if took > within_s:
            raise Failure(f"waited {within_s} s for {what}")
        time.sleep(every_s)


def static_binary():
    """The path of the static binary, built where anything changed."""
    say("building the static binary (five minutes at first)")
    build = Path(__file__).resolve().parent.parent / "build"
    return Path(run([build], timeout=3600, show=True).stdout.split()[-1])


def has(program):
    """Whether a program can be run."""
    return shutil.which(program) is not None


def ended(main):
    """Runs `main`, tells its failure, exits."""
    try:
        sys.exit(main())
    except Failure as failure:
        name = sys.argv[0].rsplit("/", 1)[-1]
        print(f"deploy/{name}: error: {failure}", file=sys.stderr)
        if failure.help:
            print(f"  help: {failure.help}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(130)
