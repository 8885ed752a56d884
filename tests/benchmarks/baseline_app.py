"""The service most people would write by hand: FastAPI, pandas and shap.TreeExplainer.

One `def` endpoint, so FastAPI runs it in its thread pool; one uvicorn worker on uvloop and
httptools, no access log. All of it is built once at start. BASELINE_MODEL and BASELINE_BACKGROUND
name the model file and the background rows (.npy); BASELINE_PERTURBATION is `interventional` (the
meaning of this project's values) or `tree_path_dependent` (cheaper, another meaning: no
background). With BASELINE_DATABASE every answer is committed to SQLite first, a row of its own.
"""

import json
import os
import socket
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import shap
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from xgboost import XGBClassifier


class Row(BaseModel):
    c00: float
    c01: float
    c02: float
    c03: float
    c04: float
    c05: float
    c06: float
    c07: float
    c08: float
    c09: float
    c10: float
    c11: float
    c12: float
    c13: float
    c14: float
    c15: float
    c16: float
    c17: float
    c18: float
    c19: float
    c20: float
    c21: float
    c22: float
    c23: float
    c24: float
    c25: float
    c26: float
    c27: float
    c28: float
    c29: float


@dataclass
class Decisions:
    """A table of answers. One connection behind a lock: SQLite has one writer at a time anyway,
    and waiting for a lock is cheaper than SQLite's own retries.
    """

    path: str
    lock: Lock = field(default_factory=Lock)
    connection: sqlite3.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = sqlite3.connect(self.path, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS decisions "
            "(id TEXT PRIMARY KEY, input TEXT, probability REAL, attributions TEXT)"
        )

    def add(self, row: dict[str, float], probability: float, attributions: object) -> None:
        values = (str(uuid4()), json.dumps(row), probability, json.dumps(attributions))
        with self.lock, self.connection:
            self.connection.execute("INSERT INTO decisions VALUES (?, ?, ?, ?)", values)


def explainer_of(model: XGBClassifier, perturbation: str, background: Path) -> Any:
    if perturbation == "tree_path_dependent":
        return shap.TreeExplainer(model, feature_perturbation=perturbation)
    rows = pd.DataFrame(np.load(background), columns=list(Row.model_fields))
    return shap.TreeExplainer(model, rows, feature_perturbation=perturbation)


def create_app() -> FastAPI:
    model = XGBClassifier(n_jobs=1)
    model.load_model(os.environ["BASELINE_MODEL"])
    model.set_params(n_jobs=1)
    perturbation = os.environ.get("BASELINE_PERTURBATION", "interventional")
    explainer = explainer_of(model, perturbation, Path(os.environ["BASELINE_BACKGROUND"]))
    database = os.environ.get("BASELINE_DATABASE")
    decisions = Decisions(database) if database else None
    app = FastAPI()

    @app.post("/predict")
    def predict(row: Row, *, explain: bool = False) -> dict[str, Any]:
        inputs = row.model_dump()
        frame = pd.DataFrame([inputs])
        answer: dict[str, Any] = {"probability": float(model.predict_proba(frame)[0, 1])}
        if explain:
            values = explainer.shap_values(frame)[0]
            answer["attributions"] = dict(zip(inputs, values.tolist(), strict=True))
            answer["base_value"] = float(explainer.expected_value)
        if decisions is not None:
            decisions.add(inputs, answer["probability"], answer.get("attributions"))
        return answer

    return app


def main() -> None:
    app = create_app()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr)
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", access_log=False, log_level="warning"
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
