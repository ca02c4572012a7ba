"""The options that several commands have, and what is given to them.

Rules of this file: what cannot be meant raises ValueError with a sentence that names the option; nothing is imported
before it is needed, so that --help is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inkturns.report import Price

__all__ = [
    "Cluster",
    "HtmlOption",
    "JsonOption",
    "LatencyOption",
    "PathsArgument",
    "PricesOption",
    "latency_of",
    "prices_of",
    "refuse_target",
]

PathsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PATHS",
        help="Recordings: files, directories, patterns in quotes, - for standard input, URLs (s3://…); gzip or not.",
        show_default=False,
    ),
]
LatencyOption = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS", help="Where no model was measured: assume its first item so late; or a file of samples."
    ),
]
PricesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help='Fill in costs that were not told: {"model": {"input": 2.5, "output": 10}}, money for a million tokens.',
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL", help="Calls with the same value of it (one customer's) count as one for the intervals."
    ),
]
HtmlOption = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Write one page, and the worst calls' timelines beside it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def latency_of(given: str) -> tuple[float, ...]:
    """Seconds, or the samples of a file, one a line. Raises ValueError with a sentence."""
    try:
        values: tuple[float, ...] = (float(given),)
    except ValueError:
        try:
            values = tuple(float(line) for line in Path(given).read_text("utf-8").split())
        except OSError as error:
            raise ValueError(f"--latency {given}: neither a number nor a file ({error.strerror})") from None
        except ValueError as error:
            raise ValueError(f"--latency {given}: a line must be a number of seconds ({error})") from None
    if not values or not all(0 <= value <= 3600 for value in values):
        raise ValueError(f"--latency {given}: seconds must be 0 to 3600, and at least one")
    return values


def prices_of(path: str) -> "dict[str, Price]":
    """The prices in a file, by model. Raises ValueError with a sentence."""
    import msgspec

    from inkturns.report import Price

    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Price])
    except OSError as error:
        raise ValueError(f"--prices {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(
            f'--prices {path}: it must hold {{"model": {{"input": 2.5, "output": 10}}}} ({error})'
        ) from None


def refuse_target(option: str, target: str | None, paths: list[str]) -> None:
    """Raises ValueError with a sentence where this is no place for a file, or one of the recordings, which would be
    lost."""
    import errno
    import os

    from inkturns.report.paths import find

    if target is None:
        return
    path = Path(target)
    if not path.name or "\0" in target or path.is_dir():
        raise ValueError(f"{option} {target}: it must be a file's name")
    if not path.parent.is_dir():
        reason = errno.ENOTDIR if any(one.is_file() for one in path.parents) else errno.ENOENT
        raise ValueError(f"{option} {target}: {os.strerror(reason)}")
    recordings = find(name for name in paths if name != "-" and "://" not in name).names if path.is_file() else []
    if os.path.realpath(path) in map(os.path.realpath, recordings):
        raise ValueError(f"{option} {target}: this is one of the recordings; name another file")
