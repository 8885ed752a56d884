"""The `explaind` command. Bodies import what they need, so that --help stays fast."""

import typer

from service.cli import (
    accesses,
    bundles,
    card,
    checkpoint,
    cost,
    demo,
    disposal,
    drift,
    explain,
    gate,
    keys,
    models,
    records,
    register,
    replay,
    retrain,
    review,
    rollout,
    serve,
    worker,
)

app = typer.Typer(
    name="explaind",
    help="Predictions with exact explanations, stored and fetched by request ID.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("register")(register.register)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("demo")(demo.demo)
app.command("explain")(explain.explain)
app.command("gate")(gate.gate)
app.command("card")(card.card)
app.command("get")(records.get)
app.command("export")(bundles.export)
app.command("verify")(bundles.verify)
app.command("replay")(replay.replay)
app.command("review")(review.review)
app.command("drift")(drift.drift)
app.command("erase")(disposal.erase)
app.command("hold")(disposal.hold)
app.command("release")(disposal.release)
app.command("holds")(disposal.holds)
app.command("quarantine")(disposal.quarantine)
app.command("purge")(disposal.purge)
app.command("cost")(cost.cost)
app.command("accesses")(accesses.accesses)
app.command("checkpoint")(checkpoint.checkpoint)
app.add_typer(retrain.app, name="retrain")
app.add_typer(models.app, name="models")
app.add_typer(rollout.app, name="rollout")
app.add_typer(keys.app, name="keys")
