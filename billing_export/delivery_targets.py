"""Every delivery target by its name on the command line, made from settings and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from billing_export.delivery import Target
from billing_export.delivery_aws import AwsMarketplace, AwsOptions
from billing_export.delivery_kafka import KafkaTopic
from billing_export.delivery_meter_events import StripeMeterEvents
from billing_export.delivery_retry import RetryPolicy
from billing_export.delivery_stripe import StripeInvoiceItems, StripeOptions
from billing_export.delivery_webhook import Webhook, WebhookOptions
from billing_export.run import Run
from metering.clock import Clock
from metering.config import Settings


class TargetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line says beyond the settings. `mapping` is by meter; `name` tells receivers of a kind apart."""

    name: str = ""
    mapping: Mapping[str, str] = msgspec.field(default_factory=dict)
    aws_rounding: str = "refuse"
    lines_per_request: int = 1


def open_target(kind: str, run: Run, settings: Settings, options: TargetOptions, *, clock: Clock) -> Target:
    """The target of this kind, one of TARGETS. Raises RequestError when settings for it are missing."""
    return TARGETS[kind](f"{kind}:{options.name}" if options.name else kind, run, settings, options, clock)


_Maker = Callable[[str, Run, Settings, TargetOptions, Clock], Target]


def _stripe(name: str, _: Run, settings: Settings, __: TargetOptions, clock: Clock) -> Target:
    return StripeInvoiceItems(_stripe_options(name, settings), clock=clock, policy=_policy(settings))


def _meter_events(name: str, _: Run, settings: Settings, options: TargetOptions, clock: Clock) -> Target:
    return StripeMeterEvents(
        _stripe_options(name, settings), event_names=options.mapping, clock=clock, policy=_policy(settings)
    )


def _aws(name: str, _: Run, settings: Settings, options: TargetOptions, clock: Clock) -> Target:
    aws = AwsOptions(
        product_code=settings.aws_product_code,
        region=settings.aws_region,
        dimensions=options.mapping,
        rounding=options.aws_rounding,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=settings.aws_secret_access_key,
        url=settings.aws_url,
        name=name,
    )
    return AwsMarketplace(aws, clock=clock, policy=_policy(settings))


def _kafka(name: str, run: Run, settings: Settings, _: TargetOptions, __: Clock) -> Target:
    return KafkaTopic(settings, run=run.id, name=name)


def _webhook(name: str, _: Run, settings: Settings, options: TargetOptions, clock: Clock) -> Target:
    webhook = WebhookOptions(
        url=settings.webhook_url, secret=settings.webhook_secret, lines_max=options.lines_per_request, name=name
    )
    return Webhook(webhook, clock=clock, policy=_policy(settings))


TARGETS: Final[dict[str, _Maker]] = {
    "stripe": _stripe,
    "stripe-meter-events": _meter_events,
    "aws-marketplace": _aws,
    "kafka": _kafka,
    "webhook": _webhook,
}


def _stripe_options(name: str, settings: Settings) -> StripeOptions:
    return StripeOptions(api_key=settings.stripe_api_key, url=settings.stripe_url, name=name)


def _policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        timeout_s=settings.delivery_timeout_s,
        attempts_max=settings.delivery_attempts_max,
        pause_s=settings.delivery_pause_s,
    )
