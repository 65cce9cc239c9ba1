"""``longvila data``: data sets for other trainers, and from other sources."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Data sets: build, export, index, verify.")
WorkspaceOption = Annotated[str, typer.Option(help="folder with the data sets")]
StorageOption = Annotated[str, typer.Option(help="local, or s3://bucket/prefix")]
JsonOption = Annotated[bool, typer.Option("--json", help="progress and result as JSON lines")]


@app.command()
def build(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="recipe name, a name in datasets/, or the path of a YAML file")
    ],
    workspace: Annotated[str, typer.Option(help="folder to work in")] = "workspace/demo",
    storage: Annotated[
        str, typer.Option(help="local, s3 (started on loopback), or s3://bucket/prefix")
    ] = "local",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="change a field of the recipe")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a recipe's data sets: the same as flow run build-dataset."""
    from flows.cli.running import run_flow
    from flows.params import BuildParams
    from flows.registry import find_flow

    params = BuildParams(recipe=recipe, workspace=workspace, storage=storage, overrides=tuple(changes or ()))
    run_flow(find_flow("build_dataset"), params, debug=context.obj["debug"], json_lines=as_json)


@app.command()
def export(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="name of a data set in the workspace")],
    view: Annotated[str, typer.Argument(help="llava, swift, vila, energon or parquet")],
    split: Annotated[str, typer.Option(help="train or heldout")] = "train",
    media: Annotated[str, typer.Option(help="auto, mp4 or frames (JPEG files)")] = "auto",
    crf: Annotated[int, typer.Option(help="quality of MP4s: smaller is better and larger")] = 16,
    out: Annotated[
        str, typer.Option(help="folder or s3:// prefix; empty: views/DATASET/VIEW-SPLIT in the workspace")
    ] = "",
    workspace: WorkspaceOption = "workspace/demo",
    storage: StorageOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Write a data set in another trainer's layout."""
    place = {"root": workspace, "storage": storage}
    values = {"workspace": place, "name": dataset, "view": view, "split": split, "media": media}
    _run("export_view", {**values, "crf": crf, "out": out}, context, as_json=as_json)


@app.command()
def index(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="folder or s3:// prefix with the tars")],
    name: Annotated[str, typer.Option(help="what to call the data set")],
    fps: Annotated[float, typer.Option(help="frames per second taken of a video")] = 2.0,
    max_frames: Annotated[
        int, typer.Option(help="of one video; of a longer one they are spread evenly")
    ] = 256,
    as_json: JsonOption = False,
) -> None:
    """Make foreign WebDataset tars (KEY.mp4 or a picture, KEY.json or KEY.txt) a data set, where they lie."""
    values = {"url": url, "name": name, "fps": fps, "max_frames": max_frames}
    _run("index_tars", values, context, as_json=as_json)


@app.command()
def verify(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="name of a data set in the workspace")],
    decode: Annotated[bool, typer.Option(help="decode every frame as well")] = True,
    workspace: WorkspaceOption = "workspace/demo",
    storage: StorageOption = "local",
    as_json: JsonOption = False,
) -> None:
    """Read a data set back and check every byte against its index."""
    place = {"root": workspace, "storage": storage}
    _run("verify_shards", {"workspace": place, "name": dataset, "decode": decode}, context, as_json=as_json)


def _run(name: str, values: dict[str, Any], context: typer.Context, *, as_json: bool) -> None:
    """Run one task in this process, without any server."""
    from flows.cli.display import progress_display
    from flows.cli.running import print_result, stop_on_interrupt
    from flows.cli.runtime import prepare_environment, set_up_logging
    from longvila.config.load import validate
    from tasks.registry import find_task

    set_up_logging(debug=context.obj["debug"], json_lines=as_json)
    prepare_environment()
    entry = find_task(name)
    given = validate(entry.parameters(), values, origin=f"longvila data {context.info_name}")
    with stop_on_interrupt(), progress_display(json_lines=as_json):
        result = entry.call(given)
    print_result(result, json_lines=as_json)
