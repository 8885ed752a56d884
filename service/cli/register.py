"""`explaind register`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, DataDir, RegistryDir, print_json, print_text, say

if TYPE_CHECKING:
    from service.registry import Registration
    from service.registry.work import Options


ModelFile = Annotated[
    Path | None,
    typer.Option(
        help="XGBoost .ubj/.json, LightGBM .txt, CatBoost .cbm, scikit-learn .skops, "
        "ONNX .onnx or PyTorch .pt2."
    ),
]
Mlflow = Annotated[
    str | None,
    typer.Option(help="Instead of --model: models:/name@alias, runs:/id/path or a directory."),
]
Classes = Annotated[
    str | None, typer.Option(help="Classes in output order, comma-separated: good,bad.")
]
Categories = Annotated[
    Path | None, typer.Option(help='JSON: {"column": ["level of code 0", ...]}.')
]
Schema = Annotated[
    Path | None, typer.Option(help="Edited input schema instead of the inferred one.")
]
AllowColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="Text column to take although it holds personal data or over 256 levels; repeatable."
    ),
]
Source = Annotated[
    list[str] | None,
    typer.Option(help="COLUMN=WHERE IT COMES FROM, which reports of drift name; repeatable."),
]
Table = Annotated[
    Path,
    typer.Option(
        help="CSV or Parquet like what the model was trained on, best of rows it was not "
        "fitted on: against others predictions alarm without drift."
    ),
]


def register(
    name: Annotated[str, typer.Argument(help="Name the model is called under.")],
    data: Table,
    target: Annotated[str, typer.Option(help="Column of the data the model predicts.")],
    model: ModelFile = None,
    mlflow: Mlflow = None,
    classes: Classes = None,
    categories: Categories = None,
    schema: Schema = None,
    background: Annotated[int, typer.Option(min=1, help="Rows of the background.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the background's draw.")] = 0,
    allow_column: AllowColumn = None,
    source: Source = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an immutable version: infer the schema, freeze the background, prove the explainer."""
    if (model is None) == (mlflow is None):
        raise typer.BadParameter("give either --model or --mlflow")
    from service.compiling import choose_kernel_cache
    from service.settings import Settings

    settings = Settings.load(data_dir=data_dir, registry=registry)
    choose_kernel_cache(settings.data_dir)
    from service.registry import Registry

    chosen = replace(_options(classes, categories, schema), background_rows=background, seed=seed)
    allowed, sources = tuple(allow_column or ()), _sources(source or [])
    options = replace(chosen, allow_columns=allowed, sources=sources)
    into = Registry(settings.registry)
    if model is not None:
        made = into.register_file(name, model, data, target, options=options, on_progress=say)
    else:
        assert mlflow is not None
        made = into.register_mlflow(name, mlflow, data, target, options=options, on_progress=say)
    if as_json:
        print_json(made.model.manifest.model_dump(mode="json"))
    else:
        _print_summary(made, serving=into.layout.serving(name))


def _print_summary(made: "Registration", *, serving: int | None) -> None:
    from service.registry.card import summary

    print_text(summary(made.model.manifest, made.report, made.model.schema))
    if serving != made.model.version:
        say(f"version {serving} keeps serving; `explaind models promote` changes that")


def _options(classes: str | None, categories: Path | None, schema: Path | None) -> "Options":
    import orjson

    from schemas import ModelSchema, SchemaError
    from service.errors import InvalidInputError
    from service.registry.work import Options

    try:
        edited = ModelSchema.from_json(schema.read_bytes()) if schema else None
        levels = orjson.loads(categories.read_bytes()) if categories else {}
    except SchemaError as error:
        raise InvalidInputError(f"{schema}: {error}") from error
    except OSError as error:
        raise InvalidInputError(f"{error.filename}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{categories}: {error}") from error
    if not _are_level_lists(levels):
        raise InvalidInputError(f"{categories} must hold an object of lists of text or numbers")
    return Options(
        classes=[name.strip() for name in classes.split(",")] if classes else None,
        categories={column: tuple(values) for column, values in levels.items()},
        schema=edited,
    )


def _sources(named: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in named]
    if not all(column and source for column, _, source in pairs):
        raise typer.BadParameter("--source takes COLUMN=TEXT")
    return {column: source for column, _, source in pairs}


def _are_level_lists(document: object) -> bool:
    return isinstance(document, dict) and all(
        isinstance(levels, list) and all(isinstance(level, str | int | float) for level in levels)
        for levels in document.values()
    )
