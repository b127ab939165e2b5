"""`dxad sniff`: what is on this wire by itself."""

import sys
from pathlib import Path

import click

from dxad.cli.live import into_file, named
from dxad.cli.login import Account, of_account
from dxad.cli.options import MISTAKE, as_json

__all__ = ["sniff"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: dxad sniff mqtt://broker:1883/plant/# --for 20s")
@click.argument("url")
@click.option("--for", "span", metavar="DURATION", help="At most.  [default: 10s of MQTT, 60s of a port]")
@of_account
@click.option("--version", type=click.Choice(["5", "3.1.1"]), help="Of MQTT.  [default: what is spoken]")
@click.option("--ca", type=_FILE, help="Of mqtts: the authorities to trust, PEM.  [default: the system's]")
@click.option("--certificate", type=_FILE, help="Of mqtts: our own certificate, PEM.")
@click.option("--key", type=_FILE, help="Its private key.")
@click.option("--server-name", metavar="NAME", help="Whom the broker's certificate must be for.")
@click.option(
    "--topics", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Of MQTT, at most."
)
@click.option(
    "--baudrate", type=click.IntRange(50, 4_000_000), help="Of a port.  [default: one that makes sense]"
)
@named("sniffed")
@into_file
@as_json
def sniff(
    url: str,
    span: str | None,
    account: Account,
    version: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    server_name: str | None,
    topics: int,
    baudrate: int | None,
    name: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Listen to a wire, and print the configuration that reads it.

    URL is mqtt://host[:port][/topic filter], or mqtts:// over TLS: which topics there are, how often they
    come, and what is in their messages. Or it is serial:///dev/…: the baud rate and parity, where messages
    begin and end, the checksum that proves them, and what is in them.

    Nothing is ever sent but the subscription. Ctrl-C ends it, and prints what was found. A port must not be
    in use by the daemon meanwhile.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key belong together")
    if url.startswith(("mqtt://", "mqtts://")):
        from dxad.cli.sniffmqtt import sniff_mqtt

        tls = {"ca": ca, "certificate": certificate, "key": key, "server_name": server_name}
        sniff_mqtt(
            url, span or "10s", account, version=version, tls=tls, topics=topics, name=name, output=output,
            as_json=as_json,
        )  # fmt: skip
        return
    if url.startswith("serial:"):
        from dxad.cli.sniffserial import sniff_serial

        sniff_serial(url, span or "60s", baudrate=baudrate, name=name, output=output, as_json=as_json)
        return
    click.echo(f"dxad: {url!r} is not mqtt://host, mqtts://host or serial:///dev/…", err=True)
    sys.exit(MISTAKE)
