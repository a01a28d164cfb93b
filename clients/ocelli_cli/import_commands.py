"""`ocelli import`: a classifier from a folder, a list of files, COCO or Azure Custom Vision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ocelli_cli.arguments import FolderArgument, NameArgument, NegativesOption, SuspendOption, WaitOption
from ocelli_cli.command import command
from ocelli_cli.exit_codes import UsageError
from ocelli_cli.listed_import import ImportRequest, Source, import_listing
from ocelli_cli.session import Session
from ocelli_client.folders import list_folder
from ocelli_import.coco import read_coco
from ocelli_import.custom_vision import check_counts, fetch_original, read_project
from ocelli_import.custom_vision_api import TrainingApi, TrainingKey
from ocelli_import.downloads import Fetcher, open_client
from ocelli_import.listing import ClassRules, Listing, RemoteImage, list_files
from ocelli_import.tables import TableOptions, read_csv, read_json_lines

PANEL = "Build"
CLASSES_PANEL = "Classes"
KEY_VARIABLE = "VISION_TRAINING_KEY"
ENDPOINT_VARIABLE = "VISION_TRAINING_ENDPOINT"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """The options of every import."""

    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Rename a class; may be repeated.", rich_help_panel=CLASSES_PANEL),
    ] = None
    skip_class: Annotated[
        list[str] | None,
        typer.Option(
            "--skip-class", metavar="CLASS", help="Leave a class out; may be repeated.", rich_help_panel=CLASSES_PANEL
        ),
    ] = None
    negative_class: Annotated[
        list[str] | None,
        typer.Option(
            "--negative-class",
            metavar="CLASS",
            help="The images of this class are negative examples; may be repeated.",
            rich_help_panel=CLASSES_PANEL,
        ),
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be created; download and send nothing.")] = False
    wait: WaitOption = False
    suspend: SuspendOption = False

    def build_request(self, name: str) -> ImportRequest:
        """What is asked for.

        Raises:
            UsageError: a new name of a class is missing.
        """
        renames = {}
        for text in self.rename or ():
            old, equals, new = text.partition("=")
            if not equals or not old or not new:
                raise UsageError(f'"--rename {text}" has no new name; write --rename OLD=NEW')
            renames[old] = new
        rules = ClassRules(
            renames=renames, skipped=frozenset(self.skip_class or ()), negatives=frozenset(self.negative_class or ())
        )
        return ImportRequest(name=name, rules=rules, dry_run=self.dry_run, wait=self.wait, suspend=self.suspend)


@dataclass(frozen=True, kw_only=True)
class RemoteImportOptions(ImportOptions):
    """The options of imports that may download images."""

    skip_missing: Annotated[
        bool,
        typer.Option("--skip-missing", help="Leave out images that are not found or not received, instead of failing."),
    ] = False
    downloads: Annotated[
        Path | None,
        typer.Option("--downloads", metavar="FOLDER", help="Where downloads are kept; by default below ./ocelli-downloads."),
    ] = None

    def build_request(self, name: str) -> ImportRequest:
        """The same, with what may be downloaded."""
        return replace(super().build_request(name), skip_missing=self.skip_missing, downloads=self.downloads)


ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="FOLDER", help="The folder that paths are relative to; by default the folder of the file."
    ),
]


@dataclass(frozen=True, kw_only=True)
class TableImportOptions(RemoteImportOptions):
    """The options of imports from a table."""

    images: ImagesOption = None
    path_column: Annotated[
        str | None,
        typer.Option(
            "--path-column",
            metavar="NAME",
            help="The column with paths or addresses; by default one with a usual name, such as path, file or url.",
        ),
    ] = None
    class_column: Annotated[
        str | None,
        typer.Option(
            "--class-column",
            metavar="NAME",
            help="The column with classes; by default one with a usual name, such as class or label.",
        ),
    ] = None

    def build_table_options(self) -> TableOptions:
        """How the table is read."""
        return TableOptions(path_column=self.path_column, class_column=self.class_column, images=self.images)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    imports = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
    command(imports, "folder")(import_folder)
    command(imports, "csv")(import_csv)
    command(imports, "jsonl")(import_json_lines)
    command(imports, "coco")(import_coco)
    command(imports, "custom-vision")(import_custom_vision)
    app.add_typer(
        imports,
        name="import",
        help="Create a classifier from a list of files, COCO or Azure Custom Vision.",
        rich_help_panel=PANEL,
    )


def import_folder(
    session: Session,
    name: NameArgument,
    folder: FolderArgument,
    options: ImportOptions,
    negatives: NegativesOption = None,
) -> None:
    """Create a classifier from a folder, with classes renamed or left out.

    If the folders already have the right names, use `ocelli create`.

    Example: ocelli import folder pets photos --rename Katze=cat --skip-class trash
    """
    request = options.build_request(name)
    examples, notices = list_folder(folder, negatives=negatives)
    import_listing(session, list_files(examples, notices), request)


def import_csv(
    session: Session,
    name: NameArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A CSV file with a path or address, and a class, in each line.", show_default=False
        ),
    ],
    options: TableImportOptions,
) -> None:
    """Create a classifier from a CSV file of paths and classes.

    A path may be an http or https address. The first line has the names of the columns,
    unless there are just two: path and class.

    Example: ocelli import csv pets list.csv --images photos --dry-run
    """
    request = options.build_request(name)
    _import_file(session, file, read_csv(file, options.build_table_options()), request)


def import_json_lines(
    session: Session,
    name: NameArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help='A file with lines such as {"path": "a.jpg", "class": "cat"}.', show_default=False),
    ],
    options: TableImportOptions,
) -> None:
    """Create a classifier from JSON lines of paths and classes.

    Each line is an object. A path may be an http or https address.
    """
    request = options.build_request(name)
    _import_file(session, file, read_json_lines(file, options.build_table_options()), request)


def import_coco(
    session: Session,
    name: NameArgument,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A JSON file with images, categories and annotations.", show_default=False)
    ],
    options: RemoteImportOptions,
    images: ImagesOption = None,
) -> None:
    """Create a classifier from a COCO file.

    The category of an image's annotations is its class. Images with several categories
    are left out. Regions are not cropped: whole images are imported.
    """
    request = options.build_request(name)
    _import_file(session, file, read_coco(file, images), request)


def import_custom_vision(
    session: Session,
    name: NameArgument,
    project: Annotated[
        str, typer.Argument(metavar="PROJECT", help="The project's name or id at Custom Vision.", show_default=False)
    ],
    options: RemoteImportOptions,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="The endpoint of the training resource, such as https://NAME.cognitiveservices.azure.com."
            f" By default the variable {ENDPOINT_VARIABLE}.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--training-key-file",
            metavar="FILE",
            help=f"A file with the training key. By default the variable {KEY_VARIABLE}, or else the command asks.",
        ),
    ] = None,
) -> None:
    """Create a classifier from a project of Azure Custom Vision.

    Tags become classes; images with the Negative tag become negative examples. To resume an
    interrupted import, repeat the command.
    """
    request = options.build_request(name)
    address = endpoint or session.environment.get(ENDPOINT_VARIABLE)
    if not address:
        raise UsageError(f"The endpoint of the training resource is not known; give --endpoint URL, or set {ENDPOINT_VARIABLE}")
    with TrainingApi(address, _read_key(session, key_file)) as api, open_client() as client:
        read = read_project(api, project)
        fetcher = Fetcher(client=client)

        def fetch(image: RemoteImage) -> bytes:
            return fetch_original(read, fetcher, api, image)

        source = Source(
            key=read.project.project_id,
            title=f"Custom Vision project {read.project.project_id}",
            fetch=fetch,
            check=lambda: check_counts(api, read),
        )
        import_listing(session, read.listing, request, source)


def _read_key(session: Session, key_file: Path | None) -> TrainingKey:
    if key_file is not None:
        try:
            return TrainingKey(key_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{key_file} cannot be read; give a file with the training key") from error
    key = session.environment.get(KEY_VARIABLE)
    if key:
        return TrainingKey(key)
    if not session.can_ask():
        raise UsageError(f"The training key is not known; set {KEY_VARIABLE}, or give --training-key-file FILE")
    return TrainingKey(typer.prompt("Training key", hide_input=True, err=True))


def _import_file(session: Session, file: Path, listing: Listing, request: ImportRequest) -> None:
    with open_client() as client:
        path = file.resolve()
        source = Source(key=path.stem, title=str(path), fetch=Fetcher(client=client).fetch)
        import_listing(session, listing, request, source)
