"""The Parquet file that comes out: one line a row of the input, and where it all comes from."""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from service.errors import InvalidInputError, UnavailableError
from service.evidence import Record
from service.provenance import provenance_of
from service.registry import RegisteredModel
from service.registry.naming import class_text

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"explaind"
ERASED = "What the record says of this row has been erased."
Line = dict[str, object]


@dataclass(frozen=True, slots=True)
class Explained:
    """Rows of the input, by number, and the record that explains them."""

    numbers: Sequence[int]
    record: Record


@dataclass(frozen=True, slots=True)
class Failed:
    """Rows that got no record: status `refused` (by the schema), `erased` or `failed`, and why."""

    numbers: Sequence[int]
    status: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What the lines of one model version hold.

    row (from 1), request_id, status, reason; the prediction; per output base_value and output;
    per column of the model, and output where there are several, its contribution, and its
    standard_error where contributions are estimates. reasons, where policy asks for them: the codes
    of an adverse decision, none where they are withheld.
    """

    model: RegisteredModel
    has_reasons: bool = False

    @property
    def outputs(self) -> list[str]:
        """What follows a name for each explained output."""
        names = self.model.manifest.explainer.output_names
        return [""] if len(names) == 1 else [f":{name}" for name in names]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays with a number for each column and output."""
        return ("contribution",) if self.model.is_exact else ("contribution", "standard_error")

    def schema(self, facts: Mapping[str, object]) -> "pa.Schema":
        """Names and types; the facts stand in the file's metadata as JSON."""
        import pyarrow as pa

        fields = [("row", pa.int64()), ("request_id", pa.string())]
        fields += [("status", pa.string()), ("reason", pa.string())]
        fields += [*self._prediction()]
        fields += [(f"base_value{c}", pa.float64()) for c in self.outputs]
        fields += [(f"output{c}", pa.float64()) for c in self.outputs]
        for array in self.arrays:
            for name in self.model.schema.names:
                fields += [(f"{array}:{name}{c}", pa.float64()) for c in self.outputs]
        fields += [("reasons", pa.list_(pa.string()))] * self.has_reasons
        names = [name for name, _ in fields]
        if len(set(names)) < len(names):
            raise InvalidInputError("columns of the model have names that are alike in the output")
        return pa.schema(fields, metadata={METADATA_KEY: orjson.dumps(facts)})

    def _prediction(self) -> Iterator[tuple[str, "pa.DataType"]]:
        import pyarrow as pa

        classes = self.model.manifest.classes
        if classes is None:
            yield "value", pa.float64()
            return
        kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        yield "label", kinds[type(classes[0])]
        for label in classes:
            yield f"probability:{class_text(label)}", pa.float64()
        yield "decision", pa.string()

    def lines(self, found: Explained | Failed) -> Iterator[Line]:
        """One for each of the rows; null where there is nothing to say."""
        if isinstance(found, Failed):
            for number in found.numbers:
                yield {"row": number, "status": found.status, "reason": found.reason}
            return
        record = found.record
        predictions = orjson.loads(record.part("predictions"))
        explanation = orjson.loads(record.part("explanation"))
        for i, number in enumerate(found.numbers):
            line: Line = {"row": number, "request_id": record.decision.request_id}
            if predictions[i] is None:
                yield line | {"status": "erased", "reason": ERASED}
                continue
            line |= {"status": explanation["status"], "reason": explanation["reason"]}
            line |= _predicted(predictions[i])
            if explanation["status"] == "complete":
                line |= self._explained(explanation, i)
            reasons = explanation.get("reasons") if self.has_reasons else None
            if reasons is not None and reasons[i] is not None:
                line["reasons"] = [item["code"] for item in reasons[i]["items"]]
            yield line

    def _explained(self, explanation: Mapping[str, Any], i: int) -> Line:
        line: Line = {}
        for name, key in (("base_value", "base_values"), ("output", "outputs")):
            numbers = explanation[key][i]
            line |= {f"{name}{c}": n for c, n in zip(self.outputs, numbers, strict=True)}
        for array, key in (("contribution", "values"), ("standard_error", "standard_errors")):
            if array not in self.arrays or explanation[key] is None:
                continue
            for name, numbers in zip(self.model.schema.names, explanation[key][i], strict=True):
                cells = zip(self.outputs, numbers, strict=True)
                line |= {f"{array}:{name}{c}": number for c, number in cells}
        return line


def _predicted(prediction: Mapping[str, Any]) -> Line:
    others = {name: value for name, value in prediction.items() if name != "probabilities"}
    chances: Mapping[str, float] = prediction.get("probabilities", {})
    return others | {f"probability:{name}": chance for name, chance in chances.items()}


def facts_of(model: RegisteredModel) -> dict[str, object]:
    """Where the numbers come from: the version, its parts by digest, and how it is explained."""
    explainer = model.manifest.explainer
    return {
        "model": {"name": model.name, "version": model.version, "digest": model.digest},
        "method": explainer.method,
        "engine": model.engine,
        "exact": model.is_exact,
        "output_space": explainer.output_space,
        "link": explainer.link,
        "output_names": explainer.output_names,
        "feature_names": model.schema.names,
        **{name: fact for name, fact in provenance_of(model).items() if name != "worker"},
    }


class Output:
    """A Parquet file that is there as a whole or not at all; batches are row groups."""

    def __init__(self, draft: Path, schema: "pa.Schema") -> None:
        import pyarrow.parquet as pq

        self._schema = schema
        self._writer = pq.ParquetWriter(draft, schema, compression="zstd")

    def write(self, lines: Sequence[Line]) -> None:
        """Append these lines."""
        import pyarrow as pa

        columns = {name: [line.get(name) for line in lines] for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Write what makes it a Parquet file."""
        self._writer.close()


@contextmanager
def output(path: Path, schema: "pa.Schema") -> Iterator[Output]:
    """A new file at `path` once the block ends, none if it raises.

    Raises UnavailableError where it cannot be written, or another run is writing it.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        with draft.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                made = Output(draft, schema)
                yield made
                made.close()
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
    except BlockingIOError:
        raise UnavailableError(f"{path}: another run is writing it") from None
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or error}") from error
