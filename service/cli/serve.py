"""`explaind serve`."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import (
    DatabaseUrl,
    DataDir,
    Encryption,
    JobNiceness,
    JobTimeLimitSeconds,
    KeyEncryptionKeyFile,
    KeysDatabaseUrl,
    LeaseSeconds,
    PolicyPath,
    RedisUrl,
    RegistryDir,
    SecretFile,
    say,
)

ExplainQuota = Annotated[
    int | None, typer.Option(help="Instances a key may have explained a minute.")
]
PredictQuota = Annotated[
    int | None, typer.Option(help="Instances a key may have predicted a minute.")
]
RecourseQuota = Annotated[int | None, typer.Option(help="Counterfactuals a key may have a minute.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")]
Drain = Annotated[
    float | None, typer.Option(help="How long after SIGTERM requests are still taken.")
]
Model = Annotated[str | None, typer.Option(help="Model of /predict.")]
ApiKeysFile = Annotated[Path | None, typer.Option(help="API-keys file.")]
EmbeddedWorkers = Annotated[
    int | None, typer.Option(help="Workers to start when no --redis-url is given.")
]
InlineBudget = Annotated[float | None, typer.Option(help="Largest cost of an inline explanation.")]
Wait = Annotated[
    float | None, typer.Option(help="How long an answer waits for a queued explanation.")
]
Deadline = Annotated[
    float | None, typer.Option(help="After how long a pending explanation counts as late.")
]
MaxQueue = Annotated[int | None, typer.Option(help="Most unfinished explanations.")]
QualityShare = Annotated[
    float | None, typer.Option(help="Share of explanations whose quality is measured.")
]
QualityPerMinute = Annotated[int | None, typer.Option(help="Most measured a minute.")]
MaxBodyBytes = Annotated[int | None, typer.Option(help="Largest request body.")]
MaxInstances = Annotated[int | None, typer.Option(help="Most instances a request.")]
MaxAtOnce = Annotated[int | None, typer.Option(help="Most requests answered at a time.")]
SpoolMaxBytes = Annotated[
    int | None, typer.Option(help="Most bytes of records spooled while the store is away.")
]
RetentionDays = Annotated[int | None, typer.Option(help="How long records are kept.")]
DriftWindowHours = Annotated[
    float | None, typer.Option(help="How far back the gauges of drift look.")
]
DriftMinRows = Annotated[int | None, typer.Option(help="Fewer say nothing about drift.")]
DriftFalseAlarmRate = Annotated[
    float | None, typer.Option(help="How often chance may raise a drift alarm.")
]
DriftRetentionDays = Annotated[int | None, typer.Option(help="How long drift windows are kept.")]
PerformanceWindowDays = Annotated[
    float | None, typer.Option(help="How far back labelled predictions are measured.")
]
PerformanceMinLabels = Annotated[int | None, typer.Option(help="Fewer labels say nothing.")]
RetrainWebhookUrl = Annotated[
    str | None, typer.Option(help="Told that a model should be trained again.")
]
KAnonymity = Annotated[
    int | None, typer.Option(help="People a day must have for its mean importances.")
]
KeyBackupDays = Annotated[
    int | None, typer.Option(help="How long copies of the key store are kept.")
]


def serve(
    host: Host = None,
    port: Port = None,
    drain_seconds: Drain = None,
    model: Model = None,
    api_keys_file: ApiKeysFile = None,
    explain_quota_per_minute: ExplainQuota = None,
    predict_quota_per_minute: PredictQuota = None,
    recourse_quota_per_minute: RecourseQuota = None,
    data_dir: DataDir = None,
    registry: RegistryDir = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    embedded_workers: EmbeddedWorkers = None,
    secret_file: SecretFile = None,
    encryption: Encryption = None,
    keys_database_url: KeysDatabaseUrl = None,
    key_encryption_key_file: KeyEncryptionKeyFile = None,
    policy_file: PolicyPath = None,
    inline_budget_seconds: InlineBudget = None,
    wait_seconds: Wait = None,
    explanation_deadline_seconds: Deadline = None,
    lease_seconds: LeaseSeconds = None,
    job_time_limit_seconds: JobTimeLimitSeconds = None,
    job_niceness: JobNiceness = None,
    max_queue: MaxQueue = None,
    quality_share: QualityShare = None,
    quality_per_minute: QualityPerMinute = None,
    max_body_bytes: MaxBodyBytes = None,
    max_instances: MaxInstances = None,
    max_at_once: MaxAtOnce = None,
    spool_max_bytes: SpoolMaxBytes = None,
    retention_days: RetentionDays = None,
    k_anonymity: KAnonymity = None,
    key_backup_days: KeyBackupDays = None,
    drift_window_hours: DriftWindowHours = None,
    drift_min_rows: DriftMinRows = None,
    drift_false_alarm_rate: DriftFalseAlarmRate = None,
    drift_retention_days: DriftRetentionDays = None,
    performance_window_days: PerformanceWindowDays = None,
    performance_min_labels: PerformanceMinLabels = None,
    retrain_webhook_url: RetrainWebhookUrl = None,
) -> None:
    """Serve every registered model until SIGTERM or Ctrl-C."""
    flags = dict(locals())  # options are named as the settings are
    from service.server import run_server
    from service.settings import Settings

    run_server(Settings.load(**flags), on_ready=lambda ready: say(f"serving on {ready.url}"))
