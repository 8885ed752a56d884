"""Every setting of the service: from EXPLAIND_* environment variables, overridden by flags."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from service.errors import UsageError

PREFIX = "EXPLAIND_"
NO_SETTINGS = frozenset(
    {
        "EXPLAIND_TEST_DATA",
        "EXPLAIND_TEST_TOOLS",
        "EXPLAIND_DRILL_SCALE",
        "EXPLAIND_GIT_REVISION",
    }
)
"""Variables of the tests, and the one an image is built with."""

KEY_ENCRYPTION_KEY = PREFIX + "KEY_ENCRYPTION_KEY"
"""The key-encryption key itself, instead of its file. It is read where it is used and is no
setting: settings are flags, handed on and shown.
"""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def sqlite_url(file: Path) -> str:
    """The SQLAlchemy URL of a database file, whatever characters its path has."""
    return f"sqlite:///{quote(str(file))}"


Seconds = Annotated[float, Field(le=366 * 86_400, allow_inf_nan=False)]
"""No longer than a year, so that it can be added to any time."""


def _callable_url(url: str) -> str:
    """Raises ValueError for a host or port that cannot be connected to."""
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:
        raise ValueError("names no host, or port 0")
    parts.hostname.encode("idna")
    return url


class Settings(BaseModel):
    """Defaults serve one person on one machine; production sets URLs, keys and a host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        Path("explaind-data"), description="Where evidence, registry and secret live."
    )
    registry_dir: Path | None = Field(
        None, alias="registry", description="Registered models (default: DATA_DIR/registry)."
    )
    model: str | None = Field(
        None, description="Model of /predict (default: the only one registered)."
    )
    database_url_or_none: str | None = Field(
        None, alias="database_url", description="Evidence database (default: SQLite in DATA_DIR)."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; others need an API-keys file."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    drain_seconds: Seconds = Field(
        0.0,
        ge=0,
        description="How long after SIGTERM requests are still taken while /readyz answers 503, so "
        "that balancers turn away first (docs/deployment.md).",
    )
    inline_budget_seconds: Seconds = Field(
        0.1,
        gt=0,
        description="Calibrated cost up to which an explanation is computed before the answer; "
        "costlier ones are queued.",
    )
    max_body_bytes: int = Field(1024 * 1024, gt=0, description="Largest request body, counted.")
    max_instances: int = Field(1000, gt=0, description="Most instances in one request.")
    max_at_once: int = Field(
        256,
        gt=0,
        description="Most requests answered at a time; more are refused with 503 from their heads "
        "alone (docs/load.md).",
    )
    api_keys_file: Path | None = Field(
        None, description="API keys (see `explaind keys`); unset: loopback only, no keys."
    )
    explain_quota_per_minute: int = Field(
        600,
        ge=0,
        le=10**9,
        description="Instances an API key may have explained a minute, where the key itself does "
        "not say; 0: no limit.",
    )
    predict_quota_per_minute: int = Field(
        0,
        ge=0,
        le=10**9,
        description="Instances an API key may have predicted a minute, likewise; 0: no limit.",
    )
    recourse_quota_per_minute: int = Field(
        60,
        ge=0,
        le=10**9,
        description="Counterfactuals an API key may have a minute, likewise; 0: no limit.",
    )
    secret_file_or_none: Path | None = Field(
        None,
        alias="secret_file",
        description="32 random bytes, the same on every replica (default: DATA_DIR/secret, made at "
        "first start).",
    )
    encryption: bool = Field(
        default=True,
        description="Encrypt stored payloads, each under a key of its own (docs/evidence.md).",
    )
    keys_database_url_or_none: str | None = Field(
        None,
        alias="keys_database_url",
        description="Key store (default: SQLite in DATA_DIR; a schema of its own in DATABASE_URL "
        "where that is PostgreSQL).",
    )
    key_encryption_key_file_or_none: Path | None = Field(
        None,
        alias="key_encryption_key_file",
        description="32 random bytes that wrap the keys of the key store (default: "
        "DATA_DIR/key-encryption-key, made at first start). Without it no payload can be read.",
    )
    retention_days: int = Field(183, gt=0, description="How long a record is kept at least.")
    key_backup_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="How long copies of the key store are kept: until then an erased record is "
        "`erasing`.",
    )
    k_anonymity: int = Field(
        20, ge=2, description="People a day must have for its mean importances to be shown."
    )
    spool_max_bytes: int = Field(
        256 * 1024 * 1024,
        gt=0,
        description="Most bytes of records in DATA_DIR/spool, for models of best effort while the "
        "evidence store is away (docs/policy.md).",
    )
    policy_file: Path | None = Field(
        None, description="Which predictions are explained unasked or never (docs/policy.md)."
    )
    redis_url: str | None = Field(
        None,
        description="Redis or Valkey, 7 or newer, of the queue (default: `serve` starts its own).",
    )
    embedded_workers: int = Field(
        1, ge=0, description="Workers `serve` starts when it starts its own queue; 0 for none."
    )
    drift_window_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 366,
        description="How far back the gauges of drift look (docs/drift.md).",
    )
    drift_min_rows: int = Field(
        1000, ge=100, description="Fewer rows in that time say nothing about drift."
    )
    drift_false_alarm_rate: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="How often chance may raise a drift alarm, a look and kind (inputs, "
        "predictions, attributions).",
    )
    drift_retention_days: int = Field(
        35,
        gt=0,
        validate_default=True,
        description="How long drift windows are kept, at least EXPLAIND_DRIFT_WINDOW_HOURS.",
    )
    performance_window_days: float = Field(
        7.0,
        ge=1,
        le=366,
        description="How far back, by the time of the prediction, labelled predictions are "
        "measured (docs/drift.md); longer than labels take to come.",
    )
    performance_min_labels: int = Field(
        200, ge=50, description="Fewer labelled instances in that time say nothing."
    )
    retrain_webhook_url: Annotated[str, AfterValidator(_callable_url)] | None = Field(
        None,
        pattern=r"^https?://[^\s/]",
        description="Told by HTTP POST that a model should be trained again, and that a person "
        "approved it (docs/drift.md).",
    )
    quality_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of explanations whose stability and faithfulness workers measure; 0 for "
        "none.",
    )
    quality_per_minute: int = Field(
        6, ge=0, le=1000, description="Most explanations a process has measured a minute."
    )
    max_queue: int = Field(10_000, gt=0, description="Most unfinished explanations in the queue.")
    wait_seconds: Seconds = Field(
        0.15, ge=0, description="How long an answer waits for a queued explanation."
    )
    lease_seconds: Seconds = Field(
        15.0, gt=0, description="After how long without a sign of its worker a job is run again."
    )
    job_time_limit_seconds: Seconds = Field(
        30.0, gt=0, description="How long a job may run without progress before it is killed."
    )
    job_niceness: int = Field(
        10,
        ge=0,
        le=19,
        description="By how much computing jobs give way to the rest of the machine; 0 where "
        "workers have it to themselves.",
    )
    explanation_deadline_seconds: Seconds = Field(
        300.0, gt=0, description="After how long a pending explanation counts as late."
    )

    @property
    def registry(self) -> Path:
        """The directory of registered models."""
        return self.registry_dir or self.data_dir / "registry"

    @property
    def secret_file(self) -> Path:
        """The file the keyed hashes derive from."""
        return self.secret_file_or_none or self.data_dir / "secret"

    @property
    def database_url(self) -> str:
        """The evidence database as an SQLAlchemy URL."""
        return self.database_url_or_none or sqlite_url(self.data_dir.absolute() / "evidence.db")

    @property
    def spool(self) -> Path:
        """The directory of records that wait for the evidence store."""
        return self.data_dir / "spool"

    @property
    def keys_database_url(self) -> str:
        """The key store as an SQLAlchemy URL."""
        if self.keys_database_url_or_none is not None:
            return self.keys_database_url_or_none
        if self.keeps_keys_beside_evidence:
            return self.database_url
        return sqlite_url(self.data_dir.absolute() / "keys.db")

    @field_validator("drift_retention_days")
    @classmethod
    def _keeps_the_drift_window(cls, days: int, info: ValidationInfo) -> int:
        hours = info.data.get("drift_window_hours", 0.0)
        if hours > 24 * days:
            raise ValueError(f"is shorter than EXPLAIND_DRIFT_WINDOW_HOURS, {hours:g} hours")
        return days

    @property
    def keeps_keys_beside_evidence(self) -> bool:
        """Both are in one database of PostgreSQL's, and so in one backup."""
        is_postgresql = self.database_url.startswith("postgresql")
        return self.keys_database_url_or_none is None and is_postgresql

    @property
    def key_encryption_key_file(self) -> Path:
        """The file of the key-encryption key."""
        return self.key_encryption_key_file_or_none or self.data_dir / "key-encryption-key"

    @property
    def binds_loopback(self) -> bool:
        """Only this machine can connect."""
        return self.host in LOOPBACK

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **flags: object) -> Self:
        """Environment first, then every flag that is not None; UsageError names a bad value."""
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {
            name: environ[PREFIX + name.upper()]
            for name in cls.names()
            if environ.get(PREFIX + name.upper())
        }
        values.update({name: value for name, value in flags.items() if value is not None})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = PREFIX + str(first["loc"][0]).upper()
            raise UsageError(f"{name}: {first['msg']}") from None

    def environment(self) -> dict[str, str]:
        """Every setting that was given, as the variables a process started from here reads."""
        values = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {PREFIX + name.upper(): str(value) for name, value in values.items()}

    @classmethod
    def unknown_variables(cls, environ: Mapping[str, str] | None = None) -> list[str]:
        """EXPLAIND_* variables that are no setting: most likely misspelt."""
        environ = os.environ if environ is None else environ
        known = {PREFIX + name.upper() for name in cls.names()}
        known |= {KEY_ENCRYPTION_KEY} | NO_SETTINGS
        return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)

    @classmethod
    def names(cls) -> dict[str, str]:
        """Setting name (lower case, without prefix) to its description."""
        return {
            field.alias or name: field.description or "" for name, field in cls.model_fields.items()
        }
