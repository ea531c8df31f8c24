"""`scripts/kafka`: clusters of Apache Kafka on this machine from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from tests.brokers.cluster import Cluster
from tests.brokers.install import HOME, install
from tests.brokers.running import run_with
from tests.brokers.waiting import BrokerError

_EXAMPLES = """
\b
Examples:
  scripts/kafka install                    Java, Maven and Kafka's jars, where missing
  scripts/kafka start                      one broker; its URL is the last line
  scripts/kafka start --brokers 3 --name three
  scripts/kafka start --tls --sasl --name secure
  scripts/kafka kill 2 --name three        SIGKILL of broker 2
  scripts/kafka restart 2 --name three     and until it is in sync again
  scripts/kafka run --brokers 3 -- make test   while brokers run; POSTLINE_URL says where
  scripts/kafka status --json
  scripts/kafka stop --remove --name three
"""

Command = TypeVar("Command", bound=Callable[..., None])


class _Refusals(click.Group):
    """What can't be done ends with its reason and exit code 1, not with a traceback."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except BrokerError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Refusals, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Start, stop and disturb clusters of Apache Kafka on this machine (loopback only, data in .kafka/)."""


def named(command: Command) -> Command:
    """Give a command the option that says which cluster."""
    return click.option("--name", default="trial", show_default=True, help="Which cluster.")(command)


@main.command("install")
@click.option("--quiet", is_flag=True, help="Say only what fails.")
@click.option("--no-system", is_flag=True, help="Only the jars; leave Java, Maven and kcat to you.")
def install_command(quiet: bool, no_system: bool) -> None:
    """Install what brokers need: Java, Maven and kcat by apt-get where that is allowed, and Kafka's jars."""
    install((lambda _: None) if quiet else _say, system=not no_system)


@main.command()
@named
@click.option("--brokers", type=click.Choice(["1", "3"]), help="How many brokers.  [default: 1]")
@click.option("--tls", is_flag=True, help="Clients talk TLS.")
@click.option("--sasl", is_flag=True, help="Clients give a name (admin or shop), and ACLs decide.")
@click.option("--tests", is_flag=True, help="Short time limits, so that faults show in a second or two.")
def start(name: str, brokers: str | None, tls: bool, sasl: bool, tests: bool) -> None:
    """Start a cluster, wait until it answers, and print its URL.

    A cluster of that name that exists keeps its data, its ports and its options.
    """
    install(_say, system=False)
    found = Cluster.found(HOME / name) if brokers is None and not (tls or sasl or tests) else None
    cluster = found or Cluster(HOME / name, int(brokers or 1), tls=tls, sasl=sasl, tests=tests)
    _say(f"starting {cluster.layout.brokers} broker(s), data in {cluster.directory}")
    cluster.start()
    click.echo(cluster.url)


@main.command(context_settings={"ignore_unknown_options": True})
@named
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="How many brokers.")
@click.option("--tests", is_flag=True, help="Short time limits, so that faults show in a second or two.")
@click.option("--kill-brokers", is_flag=True, help="SIGKILL and restart one broker after the other meanwhile.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, brokers: str, tests: bool, kill_brokers: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND while a cluster runs that is started for it, and stop that afterwards.

    POSTLINE_URL says where it is. A cluster of that name that runs already is left running.
    """
    install(_say, system=False)
    cluster = Cluster(HOME / name, int(brokers), tests=tests)
    sys.exit(run_with(cluster, command, kill_brokers=kill_brokers, say=_say))


@main.command()
@named
@click.option("--remove", is_flag=True, help="Remove its data, too.")
def stop(name: str, remove: bool) -> None:
    """Stop a cluster; nothing to do is no error."""
    if (cluster := Cluster.found(HOME / name)) is None:
        _say(f"there is no cluster {name!r}")
    else:
        cluster.stop(remove=remove)


def _on_one_broker(name: str, text: str, act: Callable[[Cluster, int], None]) -> None:
    """Add a command that does something to one broker."""

    @main.command(name, help=text)
    @click.argument("number", type=int)
    @named
    def command(number: int, name: str) -> None:
        cluster = _existing(name)
        act(cluster, number)
        _say(f"broker {number} is {cluster.state(number)}")


_on_one_broker("kill", "SIGKILL broker NUMBER (from 1).", Cluster.kill)
_on_one_broker("pause", "SIGSTOP broker NUMBER: it hangs with its connections open.", Cluster.pause)
_on_one_broker("resume", "SIGCONT broker NUMBER.", Cluster.resume)
_on_one_broker("restart", "Start broker NUMBER again, and wait until it is in sync.", Cluster.restart)


@main.command()
@click.option("--name", help="Only this cluster.")
@click.option("--json", "as_json", is_flag=True, help="JSON, as always when stdout is no terminal.")
def status(name: str | None, as_json: bool) -> None:
    """Show the clusters and their brokers."""
    names = [name] if name else sorted(path.parent.name for path in HOME.glob("*/cluster.json"))
    clusters = [described(_existing(each)) for each in names]
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(clusters, indent=1))
        return
    for cluster in clusters:
        click.echo(f"{cluster['name']}  {cluster['state']}  {cluster['url']}")
        for broker in cluster["brokers"]:
            click.echo("  broker {number}  {state:8} pid {pid}  port {port}  {log}".format(**broker))


def described(cluster: Cluster) -> dict:
    """A cluster as `status --json` shows it."""
    brokers = [
        {
            "number": number,
            "state": cluster.state(number),
            "pid": cluster.broker(number).pid,
            "port": cluster.layout.ports[number - 1].client,
            "log": str(cluster.broker(number).log),
        }
        for number in cluster.numbers
    ]
    states = {broker["state"] for broker in brokers}
    return {
        "name": cluster.directory.name,
        "state": states.pop() if len(states) == 1 else "partly running",
        "url": cluster.url,
        "brokers": brokers,
    }


def _existing(name: str) -> Cluster:
    if (cluster := Cluster.found(HOME / name)) is None:
        raise BrokerError(f"there is no cluster {name!r}; `scripts/kafka start --name {name}` makes one")
    return cluster


def _say(words: str) -> None:
    click.echo(f"kafka: {words}", err=True)


if __name__ == "__main__":
    main(prog_name="scripts/kafka")
