"""`explaind register`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, DataDir, RegistryDir, print_json, print_text, say

if TYPE_CHECKING:
    from service.registry.work import Options


def register(
    name: Annotated[str, typer.Argument(help="Name the model is called under.")],
    model: Annotated[
        Path, typer.Option(help="XGBoost .ubj/.json, LightGBM .txt or scikit-learn .skops.")
    ],
    data: Annotated[Path, typer.Option(help="CSV or Parquet the model was trained on.")],
    target: Annotated[str, typer.Option(help="Column of the data the model predicts.")],
    classes: Annotated[
        str | None, typer.Option(help="Classes in output order, comma-separated: good,bad.")
    ] = None,
    categories: Annotated[
        Path | None, typer.Option(help='JSON: {"column": ["level of code 0", ...]}.')
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Edited input schema instead of the inferred one.")
    ] = None,
    background: Annotated[int, typer.Option(min=1, help="Rows of the background.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the background's draw.")] = 0,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an immutable version: infer the schema, freeze the background, prove the explainer."""
    from service.compiling import choose_kernel_cache
    from service.settings import Settings

    settings = Settings.load(data_dir=data_dir, registry=registry)
    choose_kernel_cache(settings.data_dir)
    from service.registry import Registry
    from service.registry.card import summary

    options = _options(classes, categories, schema, background, seed)
    made = Registry(settings.registry).register_file(
        name, model, data, target, options=options, on_progress=say
    )
    manifest = made.model.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        print_text(summary(manifest, made.report, made.model.schema))
        serving = Registry(settings.registry).layout.serving(name)
        if serving != manifest.version:
            say(f"version {serving} keeps serving; `explaind models promote` changes that")


def _options(
    classes: str | None,
    categories: Path | None,
    schema: Path | None,
    background: int,
    seed: int,
) -> "Options":
    import orjson

    from schemas import ModelSchema, SchemaError
    from service.errors import InvalidInputError
    from service.registry.work import Options

    try:
        levels = orjson.loads(categories.read_bytes()) if categories else {}
        edited = ModelSchema.from_json(schema.read_bytes()) if schema else None
    except (OSError, orjson.JSONDecodeError, SchemaError) as error:
        raise InvalidInputError(str(error)) from error
    if not isinstance(levels, dict) or not all(isinstance(v, list) for v in levels.values()):
        raise InvalidInputError(f"{categories} must hold an object of lists")
    return Options(
        classes=classes.split(",") if classes else None,
        categories={column: tuple(values) for column, values in levels.items()},
        schema=edited,
        background_rows=background,
        seed=seed,
    )
