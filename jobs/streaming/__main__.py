"""`python -m jobs.streaming`: submit, run, list, cancel, savepoint, drain, backfill, explain. See README.md."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from connectors.endpoints import Endpoints, endpoints
from connectors.flink.rest import Deployment, FlinkRest
from connectors.logs import configure_logging
from jobs.streaming import attribution, deploy, plans
from jobs.streaming.application import ALL_JOBS, JOBS, Application, deployment_name, jobs_of
from jobs.streaming.progress import drain
from jobs.streaming.settings import Settings
from schemas.catalog_text import load_catalog
from schemas.errors import ConfigError, ConnectorError, Refused, Unavailable

EXIT_FAILED, EXIT_CONFIG, EXIT_UNAVAILABLE = 1, 2, 3

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit codes: 0 done, 1 refused, 2 wrong settings or usage, 3 Flink can't be reached."""
    arguments = _parser().parse_args(argv)
    configure_logging("streaming")
    try:
        return int(arguments.run(arguments))
    except (ConfigError, ValidationError) as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_CONFIG
    except Unavailable as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except ConnectorError as e:
        print(f"error: {e}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.streaming", description=__doc__)
    parser.set_defaults(
        run=_submit,
        jobs=list(JOBS),
        parallelism=None,
        start="group-offsets",
        fresh=False,
        savepoint=None,
        allow_lost_state=False,
    )
    commands = parser.add_subparsers(title="commands")

    def command(name: str, run: object, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        added.add_argument(
            "--jobs",
            type=lambda text: text.split(","),
            default=list(JOBS),
            metavar="a,b",
            help=f"jobs of the deployment (default: all, deployed as {ALL_JOBS!r}): {', '.join(JOBS)}",
        )
        return added

    for name, run, about in (
        (
            "submit",
            _submit,
            "run the jobs as one application on the session cluster, unless they run already",
        ),
        ("run", _run, "run the jobs where the client's own Flink settings say (flink run, application mode)"),
    ):
        added = command(name, run, about)
        added.add_argument("--parallelism", type=int, help="subtasks of each operator")
        added.add_argument(
            "--start",
            choices=("group-offsets", "earliest-offset"),
            default="group-offsets",
            help="where to read from without a checkpoint; earliest-offset rebuilds counters, and repeats deltas",
        )
        if name == "submit":
            begin = added.add_mutually_exclusive_group()
            begin.add_argument("--fresh", action="store_true", help="begin without state, though there is or was some")
            begin.add_argument(
                "--from", dest="savepoint", metavar="PATH", help="begin from this savepoint, which stays"
            )
            added.add_argument(
                "--allow-lost-state", action="store_true", help="with --from: leave out state that no operator claims"
            )
    command("list", _list, "show what runs")
    command("cancel", _cancel, "stop the deployment; its latest checkpoint stays")
    added = command("savepoint", _savepoint, "write a savepoint")
    added.add_argument("--stop", action="store_true", help="end the deployment with it")
    added = command("drain", _drain, "wait until all that is published now is in the outputs, sessions closed")
    added.add_argument("--timeout", type=float, default=120.0, metavar="S", help="give up after this (exit code 1)")
    added = command(
        "backfill", _backfill, "run the jobs over all that their source holds now, into topics of their own"
    )
    added.add_argument("--into", required=True, metavar="NAME", help="the topics are named <topic>-NAME")
    added.add_argument("--parallelism", type=int, help="subtasks of each operator")
    added.add_argument("--timeout", type=float, default=3_600.0, metavar="S", help="give up after this (exit code 1)")
    added = command("plans", _plans, "compare what the state looks like with jobs/streaming/plans, or write it there")
    added.add_argument("--write", action="store_true", help="the change is meant: running jobs need a way over")
    command("explain", _explain, "print Flink's plan")
    return parser


def _application(arguments: argparse.Namespace, cluster: str) -> Application:
    settings = Settings() if arguments.parallelism is None else Settings(parallelism=arguments.parallelism)
    settings = _with_lookbacks(settings, endpoints().catalog_path)
    log.info("settings", extra=settings.model_dump())
    return Application.of(arguments.jobs, settings, endpoints(), arguments.start, cluster)


def _with_lookbacks(settings: Settings, catalog: Path) -> Settings:
    """The settings with the catalogue's look-backs, unless they say their own. Errors: ConfigError."""
    if "attribution_lookbacks_s" in settings.model_fields_set or not catalog.is_file():
        return settings
    own = attribution.of_catalog(load_catalog(catalog.read_text()), settings)
    return settings.model_copy(update={"attribution_lookbacks_s": own})


def _deployed(arguments: argparse.Namespace) -> Application:
    """What the session cluster runs under the name of the given jobs."""
    where = endpoints()
    return Application.of(arguments.jobs, Settings(), where, cluster=where.flink_rest_url)


def _submit(arguments: argparse.Namespace) -> int:
    application = _application(arguments, endpoints().flink_rest_url)
    with FlinkRest() as rest:
        job_id = deploy.submit(
            application,
            rest,
            restore=not arguments.fresh,
            savepoint=arguments.savepoint,
            allow_lost_state=arguments.allow_lost_state,
        )
    print(f"{application.name} runs as {job_id}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    print(deploy.run(_application(arguments, cluster="")))
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    with FlinkRest() as rest:
        for deployment in rest.deployments():
            if jobs_of(deployment.name):
                restarts = f"{rest.restarts(deployment.job_id)} restarts" if deployment.live else ""
                print(f"{deployment.name}\t{deployment.state}\t{deployment.job_id}\t{restarts}")
    return 0


def _find(rest: FlinkRest, name: str) -> Deployment:
    for deployment in rest.live():
        if deployment.name == name:
            return deployment
    raise Refused(f"deployment {name} does not run")


def _cancel(arguments: argparse.Namespace) -> int:
    with FlinkRest() as rest:
        application = _deployed(arguments)
        deployment = _find(rest, application.name)
        deploy.cancel(deployment, rest, application)
    print(f"{deployment.name} is cancelled")
    return 0


def _savepoint(arguments: argparse.Namespace) -> int:
    application = _deployed(arguments)
    with FlinkRest() as rest:
        deployment = _find(rest, application.name)
        if arguments.stop:
            print(deploy.stop(deployment, rest, application))
        else:
            print(rest.savepoint(deployment.job_id, application.savepoints))
    return 0


def _drain(arguments: argparse.Namespace) -> int:
    name = deployment_name(arguments.jobs)
    with FlinkRest() as rest:
        drain(rest, _find(rest, name).job_id, name, Settings().session_gap_s, arguments.timeout)
    return 0


def _backfill(arguments: argparse.Namespace) -> int:
    if re.fullmatch(r"[a-z0-9-]+", arguments.into) is None:
        raise ConfigError(f"--into {arguments.into}: small letters, digits and hyphens")
    live = _application(arguments, endpoints().flink_rest_url)
    name = f"backfill-{arguments.into}-{live.name.replace('+', '-')}"  # no name that `jobs_of` takes for a deployment
    application = dataclasses.replace(live, name=name, bounded=True, suffix=f"-{arguments.into}")
    with FlinkRest() as rest:
        deploy.backfill(application, rest, arguments.timeout)
    for topic in application.output_topics:
        print(topic.name)
    return 0


def _plans(arguments: argparse.Namespace) -> int:
    """Exit code 1 when a savepoint of what git has would not fit what the code makes."""
    application = Application.of(arguments.jobs, Settings(), Endpoints())
    found = plans.text_of(application)
    if arguments.write:
        plans.write(application.name, found)
        return 0
    changed = plans.differences(plans.kept(application.name), found)
    print("\n".join([*changed, plans.WAY_OVER]) if changed else "savepoints fit")
    return EXIT_FAILED if changed else 0


def _explain(arguments: argparse.Namespace) -> int:
    print(Application.of(arguments.jobs, Settings(), endpoints()).explain())
    return 0


if __name__ == "__main__":
    sys.exit(main())
