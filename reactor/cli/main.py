"""The ``reactor`` command and its sub-commands' options. What they do is imported when one is called."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from reactor.errors import ReactorError

if TYPE_CHECKING:
    from reactor.server.settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(
    help="A reactive backend in Python: documents in schema.py, functions in app_functions/, clients that stay current.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.  [default: 3210]", show_default=False)]
SitePort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="A second port, for HTTP actions alone; 0 for any.  [default: none]", show_default=False),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]", show_default=False)]
Database = Annotated[
    str | None,
    typer.Option(metavar="FILE|URL", help="The database: a file, or postgres://….  [default: .reactor/reactor.db]", show_default=False),
]
ReadDatabase = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A hot standby of the database, for the reads (Postgres).  [default: none]", show_default=False),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Node processes on the port (Postgres).  [default: 1]", show_default=False)]
Rollback = Annotated[bool | None, typer.Option("--rollback", help="Go back to a schema that a later one has replaced.", show_default=False)]
Static = Annotated[
    Path | None,
    typer.Option(help="Folder of a page to serve at /.  [default: dist or public, if it has an index.html]", show_default=False),
]


def _settings(**options: Any) -> Settings:
    from reactor.cli.settings import settings

    return settings(**options)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(metadata.version("reactor"))
        raise typer.Exit


@app.callback()
def _reactor(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def dev(
    port: Port = None,
    site_port: SitePort = None,
    host: Host = None,
    db: Database = None,
    static: Static = None,
    once: Annotated[bool, typer.Option("--once", help="Check and push the app once, without serving it.")] = False,
    reload: Annotated[bool, typer.Option(help="Take up files as they are saved.")] = True,
) -> None:
    """Serve the app in this folder, and take up its files as they are saved."""
    from reactor.cli import serving

    # Code goes forth and back while it is developed.
    settings = _settings(host=host, port=port, site_port=site_port, db=db, static=static, rollback=True)
    if once:
        serving.push_once(settings)
    else:
        serving.dev(settings, reload=reload)


@app.command()
def start(
    port: Port = None,
    site_port: SitePort = None,
    host: Host = None,
    db: Database = None,
    read_db: ReadDatabase = None,
    static: Static = None,
    workers: Workers = None,
    rollback: Rollback = None,
) -> None:
    """Serve the app in this folder in production: errors are opaque to clients, and a stop finishes what runs."""
    from reactor.cli import starting

    starting.start(
        _settings(host=host, port=port, site_port=site_port, db=db, read_db=read_db, static=static, workers=workers, rollback=rollback)
    )


@app.command()
def run(
    path: Annotated[str, typer.Argument(help="The function, such as messages:list. Internal ones too.", show_default=False)],
    args: Annotated[str, typer.Argument(help="Its arguments: a JSON object.")] = "{}",
    db: Database = None,
) -> None:
    """Call a function of the app in this folder and print its result: on its server if one runs, else on the database."""
    from reactor.cli import calling

    calling.run(path, args, _settings(db=db))


keys = typer.Typer(help="Admin keys beside the server's own, such as one for each person or tool.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What it is told by.", show_default=False)],
    db: Database = None,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    from reactor.cli import keys

    keys.create(name, _settings(db=db))


@keys.command("list")
def keys_list(db: Database = None) -> None:
    """Print the name of each key and when it was made."""
    from reactor.cli import keys

    keys.show(_settings(db=db))


@keys.command("revoke")
def keys_revoke(
    name: Annotated[str, typer.Argument(help="The name of the key.", show_default=False)],
    db: Database = None,
) -> None:
    """Make a key useless, at once, also for those who are connected with it."""
    from reactor.cli import keys

    keys.revoke(name, _settings(db=db))


env = typer.Typer(help="Environment variables of the deployment, which functions read as ctx.env.", no_args_is_help=True)
app.add_typer(env, name="env")

Name = Annotated[str, typer.Argument(help="The variable's name.", show_default=False)]


@env.command("list")
def env_list(db: Database = None) -> None:
    """Print all variables as lines of NAME=value."""
    from reactor.cli import environment

    environment.show_all(_settings(db=db))


@env.command("get")
def env_get(name: Name, db: Database = None) -> None:
    """Print a variable's value."""
    from reactor.cli import environment

    environment.show(name, _settings(db=db))


@env.command("set")
def env_set(
    name: Annotated[str | None, typer.Argument(help="The variable's name, or NAME=value.", show_default=False)] = None,
    value: Annotated[str | None, typer.Argument(help="Its value; from standard input if left out.", show_default=False)] = None,
    from_file: Annotated[Path | None, typer.Option(help="Set what a file of lines NAME=value says.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="With --from-file: also where another value is set already.")] = False,
    db: Database = None,
) -> None:
    """Set a variable, or those of a file. Queries that read it run again at once."""
    from reactor.cli import environment

    settings = _settings(db=db)
    if (name is None) == (from_file is None):
        raise typer.BadParameter("give NAME VALUE, or --from-file FILE")
    if from_file is not None:
        environment.load(from_file, settings, force=force)
        return
    assert name is not None
    if value is None and "=" in name:
        name, _, value = name.partition("=")
    environment.change({name: environment.read_value() if value is None else value}, settings)


@env.command("remove")
def env_remove(name: Name, db: Database = None) -> None:
    """Remove a variable. One that is not set may be removed."""
    from reactor.cli import environment

    environment.change({name: None}, _settings(db=db))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to: a new folder, or an empty one.", show_default=False)],
) -> None:
    """Make a small app that runs as it is."""
    from reactor.cli import making

    making.init(folder)


def main() -> NoReturn:
    """Run the command line. A failure is told in one message on stderr, with exit status 1."""
    try:
        app()
    except ReactorError as error:
        print(error.message, file=sys.stderr)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1)
