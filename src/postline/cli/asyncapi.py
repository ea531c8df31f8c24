"""`postline contracts asyncapi`: an AsyncAPI 3 document of an app, or of several as one system."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from postline.app import App
from postline.cli.failures import OK
from postline.cli.loading import load_apps
from postline.commands import Serving
from postline.contracts.asyncapi import Commanded, Receiving, Service, document

__all__ = ["asyncapi"]


@click.command("asyncapi")
@click.argument("targets", metavar="APP...", nargs=-1, required=True)
@click.option("--title", default="", help="What the document calls it; the apps' names, if it is left out.")
@click.option("--version", "api_version", default="1.0.0", show_default=True, help="The document's version.")
@click.option("--server", "url", default="", help="The log's URL; secrets in it are left out.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there, not to the screen.")
def asyncapi(targets: tuple[str, ...], title: str, api_version: str, url: str, output: Path | None) -> int:
    """Write an AsyncAPI 3.0.0 document, as JSON, of these apps.

    \b
    Examples:
      postline contracts asyncapi shop:app -o asyncapi.json
      postline contracts asyncapi shop:app billing:app --title "The whole shop" --server kafka://broker:9092
    """
    services = [_service(app) for app in load_apps(targets)]
    made = document(services, title=title, version=api_version, url=url)
    text = msgspec.json.format(msgspec.json.encode(made), indent=2)
    if output is None:
        click.echo(text)
    else:
        output.write_bytes(text + b"\n")
        click.echo(
            f"written  {output}: {len(made['channels'])} channels, {len(made['operations'])} operations", err=True
        )
    return OK


def _service(app: App) -> Service:
    served = {each.commands.name for each in app.subscriptions.values() if isinstance(each, Serving)}
    commands = [Commanded(topic, topic.name in served) for topic in app.command_topics]
    of_commands = {topic for each in commands for topic in each.topic.topics}
    # What goes over the topic of its schedules is nobody else's.
    inner = None if app.schedules is None else app.schedules.topic
    topics = [topic for topic in dict.fromkeys((*app.owns, *app.publishes_to)) if topic is not inner]
    sends = [topic for topic in topics if topic not in of_commands]
    others = [each for each in app.subscriptions.values() if not isinstance(each, Serving) and each.topic is not inner]
    return Service(app.name, sends, [Receiving(each.name, each.topic, each.types) for each in others], commands)
