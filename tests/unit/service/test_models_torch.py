"""PyTorch programs from torch.export.save, and files that must not be run."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is no locked package; .ci/run installs it")

from explainers.base import UnsupportedModelError  # noqa: E402
from service.models.errors import ModelLoadError  # noqa: E402
from service.models.formats import Artifact, artifact_of_model, load_model  # noqa: E402
from service.models.torch import TorchModel  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(30, 4))


class Plain(torch.nn.Module):
    """A network with `width` outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(width)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Dropout(), torch.nn.Linear(8, width)
        )

    def forward(self, rows: Any) -> Any:
        return self.layers(rows)


class Varied(torch.nn.Module):
    """Buffers, an embedding, norms, sizes, and results that are several."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch = torch.nn.BatchNorm1d(4)
        self.codes = torch.nn.Embedding(5, 3)
        self.linear = torch.nn.Linear(6, 3)
        self.layer = torch.nn.LayerNorm(3)
        self.register_buffer("scale", torch.arange(1.0, 5.0))

    def forward(self, rows: Any) -> Any:
        normed = self.batch(rows.new_zeros(rows.shape[0], 4) + rows * self.scale)
        coded = self.codes(rows[:, 3].long().clamp(0, 4))
        hidden = self.layer(self.linear(torch.cat([normed[:, :3], coded], 1)))
        first, second, third = hidden.split(1, 1)
        parts = [first * 2, second.reshape(-1, 1), third.view(rows.shape[0], 1)]
        return torch.softmax(torch.cat(parts, 1), 1)


def saved(module: Any, *, dynamic: bool = True, like: Any = None, **facts: Any) -> bytes:
    rows = torch.zeros(2 if dynamic else 1, 4) if like is None else like
    shapes = ({0: torch.export.Dim("rows")},) if dynamic else None
    program = torch.export.export(module.eval(), (rows,), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    extra = {"explaind.json": json.dumps(facts)} if facts else None
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def adapter(data: bytes, **options: Any) -> TorchModel:
    native = load_model(Artifact(data, "pt2"), **options)
    assert isinstance(native, TorchModel)
    return native


def library(module: Any, rows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.vstack([module(torch.tensor(r[None, :]).float()).double().numpy() for r in rows])


@pytest.mark.parametrize("make", [lambda: Plain(1), Varied])
def test_programs_are_run_as_the_module_runs(make: Callable[[], Any]) -> None:
    module = make()
    native = adapter(saved(module))
    served = native.predict(ROWS)
    np.testing.assert_array_equal(served.scores, library(module, ROWS))
    np.testing.assert_allclose(native.evaluate(ROWS), served.outputs, rtol=1e-5, atol=1e-6)
    assert native.is_float32
    with pytest.raises(UnsupportedModelError):
        native.form()


def test_the_library_reads_the_same_program() -> None:
    data = saved(Varied())
    program = torch.export.load(io.BytesIO(data)).module()
    np.testing.assert_array_equal(adapter(data).predict(ROWS).scores, library(program, ROWS))


@pytest.mark.parametrize(
    ("width", "link", "space", "task", "n_outputs"),
    [
        (1, "identity", "raw", "regression", 1),
        (1, "log", "log", "regression", 1),
        (1, "logit", "log_odds", "binary", 1),
        (2, "softmax", "log_odds", "binary", 1),
        (3, "softmax", "margin", "multiclass", 3),
    ],
)
def test_outputs_are_what_the_file_declares(
    width: int, link: str, space: str, task: str, n_outputs: int
) -> None:
    module = Plain(width)
    native = adapter(
        saved(module, link=link, columns=list("abcd"), classes=["x", "y", "z"][:width])
    )
    served, given = native.predict(ROWS), library(module, ROWS)
    assert (native.output_space, native.task) == (space, task)
    assert native.columns.raw.names == tuple("abcd")
    assert served.outputs.shape == (len(ROWS), n_outputs)
    if task == "regression":
        assert native.classes is None
        np.testing.assert_allclose(served.scores, np.exp(given) if link == "log" else given)
        return
    np.testing.assert_allclose(served.scores.sum(axis=1), 1.0)
    shares = torch.softmax(torch.tensor(given), 1) if link == "softmax" else None
    if shares is not None:
        np.testing.assert_allclose(served.scores, shares.numpy())
    else:
        np.testing.assert_allclose(served.scores[:, 1], 1 / (1 + np.exp(-given[:, 0])))


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("link", ["softmax", "identity"])
def test_gradients_are_the_outputs_slopes(link: str, *, dynamic: bool) -> None:
    module = Plain(2 if link == "softmax" else 1)
    like = torch.zeros(2 if dynamic else 1, 4, dtype=torch.float64)
    native = adapter(saved(module.double(), link=link, dynamic=dynamic, like=like))
    found = native.gradient(ROWS[:3])
    assert found.shape == (3, 4, 1)
    for column in range(4):
        step = np.zeros((1, 4))
        step[0, column] = 1e-6
        rise = native.evaluate(ROWS[:3] + step) - native.evaluate(ROWS[:3] - step)
        np.testing.assert_allclose(found[:, column], rise / 2e-6, rtol=1e-5, atol=1e-8)


class Squeezed(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return (rows.square() * torch.arange(1.0, 5.0)).sum(1, keepdim=True).squeeze()


def test_one_rows_result_may_be_squeezed() -> None:
    native = adapter(saved(Squeezed(), like=torch.zeros(2, 4)))
    expected = ROWS.astype(np.float32).astype(np.float64) ** 2 @ np.arange(1.0, 5.0)
    np.testing.assert_allclose(native.predict(ROWS).outputs[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(native.evaluate(ROWS)[:, 0], expected, rtol=1e-6)
    for rows in (ROWS[:1], ROWS[:3]):
        slopes = 2 * rows * np.arange(1.0, 5.0)
        np.testing.assert_allclose(native.gradient(rows)[:, :, 0], slopes, rtol=1e-5)


class Stepped(torch.nn.Module):
    """Whole numbers, which no gradient passes; `rows` may have a part beside them."""

    def __init__(self, share: float | None) -> None:
        super().__init__()
        self.share = share

    def forward(self, rows: Any) -> Any:
        steps = (rows > 0).float().sum(1, keepdim=True)
        return steps if self.share is None else steps + self.share * rows[:, :1]


def test_a_program_without_a_gradient_says_so() -> None:
    native = adapter(saved(Stepped(None)))
    with pytest.raises(UnsupportedModelError, match="no gradient by its columns"):
        native.gradient(ROWS[:3])
    partly = adapter(saved(Stepped(0.5))).gradient(ROWS[:3])
    np.testing.assert_array_equal(partly[:, :, 0], np.tile([0.5, 0.0, 0.0, 0.0], (3, 1)))
    with pytest.raises(ValueError, match="PyTorch"):
        adapter(saved(Plain(1))).gradient(ROWS[:3, :2])


def test_names_come_from_the_data_where_the_file_has_none() -> None:
    native = adapter(saved(Plain(1)), names=tuple("pqrs"), categories={"q": ("no", "yes")})
    assert native.columns.raw.names == tuple("pqrs")
    assert native.columns.names_are_given
    assert native.columns.raw.levels[1] == ("no", "yes")
    assert native.columns.accepts_missing == (False,) * 4


def edited(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as copy:
        for entry in source.namelist():
            content = source.read(entry)
            copy.writestr(entry, change(content) if entry.endswith(name) else content)
    return target.getvalue()


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old.encode(), new.encode())


class Bomb:
    """Unpickled, it would end this process."""

    def __reduce__(self) -> Any:
        return (eval, ("__import__('os')._exit(3)",))


def test_what_the_library_would_unpickle_or_evaluate_is_never_touched() -> None:
    data = saved(Varied())
    bomb = pickle.dumps(Bomb())
    armed = edited(data, "sample_inputs/model.pt", lambda _: bomb)
    symbol = "Symbol('s"
    armed = edited(armed, "model.json", replaced(symbol, f"__import__('os')._exit(4) or {symbol}"))
    expected = adapter(data).predict(ROWS).scores
    np.testing.assert_array_equal(adapter(armed).predict(ROWS).scores, expected)


WEIGHTS = "model_weights_config.json"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.json", replaced("aten.tanh.default", "aten.rand.default"), "not among those"),
        ("model.json", replaced("torch.ops.aten.tanh.default", "torch.load"), "not among those"),
        ("model.json", replaced("torch.ops.aten.tanh.default", "os.system"), "not among those"),
        ("model.json", replaced("aten.tanh.default", "aten.tanh.nothing"), "PyTorch has no"),
        ("model.json", replaced('"as_bool": false', '"as_bool": true'), "at random"),
        ("model.json", replaced('"major": 8', '"major": 9'), "schema"),
        ("model.json", lambda content: content[:-20], "broken"),
        ("model.json", lambda _: b"{}", "broken"),
        (WEIGHTS, replaced('"use_pickle": false', '"use_pickle": true'), "pickled tensor"),
        (WEIGHTS, replaced('"as_int": 8', '"as_int": 800'), "beyond its file"),
        (WEIGHTS, replaced('"as_int": 8', '"as_int": -8'), "laid out backwards"),
        ("weight_0", lambda content: content[:-4], "beyond its file"),
        ("explaind.json", replaced("identity", "probit"), "link"),
        ("explaind.json", replaced("identity", "softmax"), "does not fit"),
        ("explaind.json", lambda _: b'{"columns": ["a"]}', "4 names"),
    ],
)
def test_files_that_cannot_be_trusted_are_refused(
    name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    data = saved(Plain(1), link="identity")
    with pytest.raises(ModelLoadError, match=message):
        adapter(edited(data, name, change))


class Drawn(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows.sum(1, keepdim=True) + torch.rand_like(rows[:, :1])


class Attending(torch.nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, rows: Any) -> Any:
        heads = rows.reshape(-1, 1, 2, 2)
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(heads, heads, heads, dropout_p=self.dropout).flatten(1)[:, :1]


def test_attention_without_dropout_is_served() -> None:
    module = Attending(0.0)
    found = adapter(saved(module)).predict(ROWS).scores
    np.testing.assert_array_equal(found, library(module, ROWS))


class Two(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows[:, :1], rows[:, 1:2]


class Turned(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows[:, :2].permute(1, 0)


class Empty(torch.nn.Module):
    def forward(self, rows: Any) -> Any:
        return rows[:, :0]


class Cast(torch.nn.Module):
    """The rows through another dtype, and as `asked` of a device."""

    def __init__(self, *asked: Any, **named: Any) -> None:
        super().__init__()
        self.asked, self.named = asked, named

    def forward(self, rows: Any) -> Any:
        return rows.to(*self.asked, **self.named).float().sum(1, keepdim=True)


@pytest.mark.parametrize(
    "module",
    [
        Cast("cpu", torch.float64),
        Cast(torch.float64),
        Cast("cpu", torch.int32, memory_format=torch.contiguous_format),
        Cast(device="cpu", dtype=torch.int64, copy=True),
    ],
)
def test_arguments_keep_their_places_beside_a_device(module: Any) -> None:
    np.testing.assert_array_equal(
        adapter(saved(module)).predict(ROWS).scores, library(module, ROWS)
    )


def output_renamed(content: bytes) -> bytes:
    document = json.loads(content)
    (output,) = document["graph_module"]["signature"]["output_specs"]
    output["user_output"]["arg"]["as_tensor"]["name"] = "nobody"
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: saved(Cast(torch.float16)), "float16 numbers.*float32"),
        (lambda: saved(Cast(torch.bfloat16)), "bfloat16 numbers.*float32"),
        (lambda: saved(Cast(torch.complex64)), "dtype 10 numbers.*float32"),
        (
            lambda: edited(saved(Plain(1)), WEIGHTS, replaced('"dtype": 7', '"dtype": 6')),
            "float16 numbers.*float32",
        ),
        (
            lambda: edited(
                saved(Cast("cpu", torch.float64)),
                "model.json",
                replaced('"as_device": {"type": "cpu"', '"as_device": {"type": "cuda"'),
            ),
            "places tensors on cuda",
        ),
        (lambda: edited(saved(Plain(1)), "model.json", output_renamed), "nobody"),
    ],
)
def test_what_is_not_computed_here_is_named(data: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        adapter(data())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: saved(Turned()), r"gives \(2, 1\) for 1 rows"),
        (lambda: saved(Empty()), r"gives \(1, 0\) for 1 rows"),
        (lambda: saved(Drawn()), "rand_like"),
        (lambda: saved(Attending(0.1)), "attention draws at random"),
        (lambda: saved(Two()), "outputs are"),
        (lambda: saved(Plain(3)), "sum to one"),
        (lambda: saved(Plain(1), dynamic=False, like=torch.zeros(5, 4)), "5 rows at a time"),
        (lambda: saved(torch.nn.Flatten(), like=torch.zeros(2, 4, 4)), "no .rows, columns. matrix"),
        (lambda: b"PK not a zip", "broken"),
        (lambda: pickle.dumps(Bomb()), "broken"),
    ],
)
def test_programs_of_another_shape_are_refused(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        adapter(make())


def test_a_program_at_hand_is_saved_and_read() -> None:
    module = Plain(1).eval()
    native = load_model(artifact_of_model(torch.export.export(module, (torch.zeros(1, 4),))))
    np.testing.assert_array_equal(native.predict(ROWS).outputs, library(module, ROWS))
    with pytest.raises(ModelLoadError, match=r"torch\.export\.export"):
        artifact_of_model(module.layers)
