"""The jobs as commands: ``caslie caption …`` is the same as ``python jobs/caption.py …``.

This module defines each command once: its description, its options, and its function. It imports nothing heavy, so
that ``caslie --help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from caslie_ray import __doc__ as about
from caslie_ray import __version__
from caslie_ray.tolerant_output import tolerant_output

if TYPE_CHECKING:
    from caslie_ray.cli import Arguments

__all__ = ["COMMANDS", "Command", "caslie", "command_parser", "run_command"]

_WRONG_ARGUMENTS = 2


class Command(NamedTuple):
    """A job on the command line. Its function is ``<name>_job`` in its module.

    Attributes:
        description: shown by ``--help``; the first line is its line in ``caslie --help``.
        source: whether it takes ``--source``.
        status: whether it takes ``--status``.
        run_required: whether ``--run`` must be given.
        reads_only: whether it only reads the run, and so works beside other jobs on it.
        options: the module whose `add_options` adds options of its own.
        module: the module of its function.
    """

    description: str
    source: bool = False
    status: bool = False
    run_required: bool = True
    reads_only: bool = False
    options: str | None = None
    module: str = "caslie_ray.jobs"


COMMANDS = {
    "ingest": Command(
        """\
Read a data set in the MMECInstruct format, or a shop's catalogue: its texts, its images, and the views to caption.

Run as:
    caslie ingest --run runs/demo                                 # draws the miniature world
    caslie ingest --run runs/shop --source products.csv           # a catalogue: CSV, JSON, Parquet, an XML feed
    caslie ingest --run runs/shop --source products.csv --plan --show-prompts 3
    caslie ingest --profile caslie-m --run s3://shop/run --source s3://shop/products/

Writes the tables samples or products, images, views and rejects, and summary/ingest.json.
""",
        source=True,
        options="caslie_ray.dataset.options",
    ),
    "caption": Command(
        """\
Caption each product image for its context, and let the voters decide which captions help (EC³ and CQE).

Run as:
    caslie caption --profile mini --run runs/demo
    caslie caption --profile mini --run runs/demo --plan
    caslie caption --run runs/demo --status
    caslie caption --profile caslie-m --run s3://shop/run --set votes.schedule=full

Reads the tables images and views; writes captions and summary/caption.json.
""",
        status=True,
    ),
    "fuse": Command(
        """\
Write the instructions that uniM³ is trained on: text plus the captions that won, and two ablations.

Run as:
    caslie fuse --run runs/demo

Reads samples and captions; writes instructions (variants caslie, uia and text) and summary/fuse.json.
"""
    ),
    "train": Command(
        """\
Fine-tune uniM³ with LoRA on the instructions of the split train, on the workers that the cluster has.

Run as:
    caslie train --profile mini --run runs/demo
    caslie train --profile mini --run runs/demo --set training.variants=[caslie,uia,text]
    caslie train --profile mini --run runs/demo --plan

Reads instructions; writes models/NAME-KEY/ (the adapters best and last, curves, training.json) and summary/train.json.
A finished model is not trained again. An unfinished one resumes from its last checkpoint, which is kept in
models/checkpoints-KEY/ until all models are finished.
"""
    ),
    "predict": Command(
        """\
Let the fine-tuned models answer the instructions of the test splits.

Run as:
    caslie predict --profile mini --run runs/demo
    caslie predict --profile mini --run runs/demo --set prediction.splits=[validation] prediction.base=true
    caslie predict --profile mini --run runs/demo --plan

Reads instructions and models; writes predictions and summary/predict.json. All adapters answer in one pass, on one
copy of the base. What is answered already is not asked again.
"""
    ),
    "evaluate": Command(
        """\
Measure captions, votes, verdicts and answers, and write the tables and the page that show them.

Run as:
    caslie evaluate --profile mini --run runs/demo
    caslie evaluate --profile mini --run runs/demo --plan
    caslie evaluate --profile measure --run runs/measure --set evaluation.context_free=false

Reads samples, images, views, captions and, where there are any, predictions. Writes report/index.html, to be opened in
a browser, report/metrics.json, report/tables.md and .tex (the paper's Tables 4 to 6, A3, A4, A7 to A13), and
summary/evaluate.json. Captions and verdicts are compared with the truth where it is known, as for the miniature world;
for other runs the agreement of the voters is measured.
"""
    ),
    "pipeline": Command(
        """\
Run all jobs in order: ingest, caption, fuse, train, predict, evaluate.

Run as:
    caslie pipeline --profile mini --run runs/demo
    caslie pipeline --profile mini --run runs/shop --source path/to/dataset.json
    caslie pipeline --profile mini --run runs/demo --plan

Each job computes only what the run lacks, so the command can be repeated at any time.
""",
        source=True,
    ),
    "export": Command(
        """\
Write the captions by the shop's own product ids: CSV, JSON Lines, Parquet, a data set, or a shop's feed.

Run as:
    caslie export --run runs/shop --to captions.csv
    caslie export --run runs/shop --to captions.parquet --all
    caslie export --run runs/shop --to feed.tsv --format merchant_center --context product
    caslie export --run runs/shop --to alt_texts.csv --format shopify
    caslie export --run s3://shop/run --to s3://shop/captions/ --format dataset --plan

Reads products and captions; writes the file or folder, and summary/export.json. Only runs whose source is a catalogue
have products. A row is one image of a product in one context: id, context, image, place, caption, verdict, yes_share,
probabilities and error. The exit code is 3 if some views are not captioned yet; the others are written all the same.
""",
        options="caslie_ray.export.options",
        module="caslie_ray.export.job",
    ),
    "serve": Command(
        """\
Serve the models over HTTP: captions, votes, answers, an OpenAI-compatible API, and a page to try them.

Run as:
    caslie serve --profile mini                                   # the bare base of the lineup
    caslie serve --profile mini --run runs/demo                   # with the adapters that train wrote
    caslie serve --profile mini --run runs/demo --set serving.port=8080 serving.voters=together
    CASLIE_TOKEN=… caslie serve --profile caslie-m --run s3://shop/run --set serving.host=0.0.0.0

Starts the models on this cluster with Ray Serve and runs until it is stopped. The page is at http://127.0.0.1:8000/,
and /docs describes the API. The run is only read.
""",
        run_required=False,
        reads_only=True,
        module="caslie_ray.serving.job",
    ),
    "benchmark": Command(
        """\
Measure the jobs against what one would use instead, on the same views and checkpoints, and print the ratios.

Run as:
    caslie benchmark --profile mini --quick
    caslie benchmark --profile mini --json benchmark.json --plot benchmark.svg
    caslie benchmark --profile smol --views 200
    caslie benchmark --profile mini --only captioning voting \\
        --set lineup.captioner.engine=vllm lineup.voters.phi.engine=vllm
    caslie benchmark --profile caslie-s --run s3://shop/run

Captioning, voting, the chain of both, prediction and training are each compared with: the published loop (one request
at a time, 16 generated tokens per vote), the bare engine (the same requests without Ray, one process per core or GPU),
ray.data.llm where the models run on vLLM, and for training a plain PyTorch loop. The sides take turns, in another order
in each round. Ratios are of the steady state; start-up is listed separately. Votes read from the published loop's texts
are compared with the engines' where both sides wrote the same caption; the others are counted as unmatched.

Without --run, or on a run without views, the miniature world is drawn. A run's own tables are only read.
Not measured: ingest, downloads, and adapters in prediction, where the base answers alone.
""",
        run_required=False,
        options="caslie_ray.benchmark.options",
        module="caslie_ray.benchmark.job",
    ),
}
"""The commands by name, in the order in which the jobs run."""


def caslie(argv: Sequence[str] | None = None) -> int:
    """Run the command ``caslie`` and return its exit code.

    Args:
        argv: the arguments; those of the process where None.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:])
    with tolerant_output():
        parser = _parser()
        if not arguments:
            parser.print_help(sys.stderr)
            return _WRONG_ARGUMENTS
        if not arguments[0].startswith("-"):
            close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
            meant = f"did you mean {close[0]}?" if close else f"choose from {', '.join(COMMANDS)}"
            parser.error(f"unknown job {arguments[0]!r}: {meant}")
        parser.parse_args(arguments[:1])
        return _WRONG_ARGUMENTS  # not reached: the parser exits on every option


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a job and return its exit code.

    Args:
        name: of the command.
        argv: its arguments. None in a script of ``jobs/``: the arguments are those of the process, and the help shows
            the script.
    """
    from caslie_ray.cli import main

    def job(arguments: Arguments) -> int:
        function: Callable[[Arguments], int] = getattr(importlib.import_module(command.module), f"{name}_job")
        return function(arguments)  # imported after the arguments are parsed: wrong ones fail at once

    command = COMMANDS[name]
    return main(
        _description(name, script=argv is None),
        job,
        source=command.source,
        status=command.status,
        run_required=command.run_required,
        reads_only=command.reads_only,
        add_options=_add_options(command),
        argv=argv,
        prog=None if argv is None else f"caslie {name}",
    )


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command's arguments."""
    from caslie_ray.cli import job_parser

    command = COMMANDS[name]
    return job_parser(
        _description(name, script=False),
        source=command.source,
        status=command.status,
        run_required=command.run_required,
        add_options=_add_options(command),
        prog=f"caslie {name}",
    )


def _add_options(command: Command) -> Callable[[argparse.ArgumentParser], object] | None:
    if command.options is None:
        return None
    add: Callable[[argparse.ArgumentParser], object] = importlib.import_module(command.options).add_options
    return add


def _description(name: str, *, script: bool) -> str:
    text = COMMANDS[name].description
    return re.sub(r"(?m)^    caslie (\w+)", r"    python jobs/\1.py", text) if script else text


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    jobs = "\n".join(f"  {name:{width}}  {one.description.splitlines()[0]}" for name, one in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="caslie",
        usage="caslie JOB --run URI [option …]",
        description=about,
        epilog=f"jobs:\n{jobs}\n\n`caslie JOB --help` explains a job and lists its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"caslie_ray {__version__}")
    return parser
