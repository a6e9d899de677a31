"""The columns of FOCUS 1.2's dataset Cost and Usage, their types, and the values it allows where we choose one."""

from __future__ import annotations

from typing import Final

TEXT: Final = "text"
DECIMAL: Final = "decimal"
TIME: Final = "time"

FOCUS_COLUMNS: Final[dict[str, str]] = {
    "AvailabilityZone": TEXT,
    "BilledCost": DECIMAL,
    "BillingAccountId": TEXT,
    "BillingAccountName": TEXT,
    "BillingAccountType": TEXT,
    "BillingCurrency": TEXT,
    "BillingPeriodEnd": TIME,
    "BillingPeriodStart": TIME,
    "CapacityReservationId": TEXT,
    "CapacityReservationStatus": TEXT,
    "ChargeCategory": TEXT,
    "ChargeClass": TEXT,
    "ChargeDescription": TEXT,
    "ChargeFrequency": TEXT,
    "ChargePeriodEnd": TIME,
    "ChargePeriodStart": TIME,
    "CommitmentDiscountCategory": TEXT,
    "CommitmentDiscountId": TEXT,
    "CommitmentDiscountName": TEXT,
    "CommitmentDiscountQuantity": DECIMAL,
    "CommitmentDiscountStatus": TEXT,
    "CommitmentDiscountType": TEXT,
    "CommitmentDiscountUnit": TEXT,
    "ConsumedQuantity": DECIMAL,
    "ConsumedUnit": TEXT,
    "ContractedCost": DECIMAL,
    "ContractedUnitPrice": DECIMAL,
    "EffectiveCost": DECIMAL,
    "InvoiceId": TEXT,
    "InvoiceIssuerName": TEXT,
    "ListCost": DECIMAL,
    "ListUnitPrice": DECIMAL,
    "PricingCategory": TEXT,
    "PricingCurrency": TEXT,
    "PricingCurrencyContractedUnitPrice": DECIMAL,
    "PricingCurrencyEffectiveCost": DECIMAL,
    "PricingCurrencyListUnitPrice": DECIMAL,
    "PricingQuantity": DECIMAL,
    "PricingUnit": TEXT,
    "ProviderName": TEXT,
    "PublisherName": TEXT,
    "RegionId": TEXT,
    "RegionName": TEXT,
    "ResourceId": TEXT,
    "ResourceName": TEXT,
    "ResourceType": TEXT,
    "ServiceCategory": TEXT,
    "ServiceName": TEXT,
    "ServiceSubcategory": TEXT,
    "SkuId": TEXT,
    "SkuMeter": TEXT,
    "SkuPriceDetails": TEXT,
    "SkuPriceId": TEXT,
    "SubAccountId": TEXT,
    "SubAccountName": TEXT,
    "SubAccountType": TEXT,
    "Tags": TEXT,
}
"""Every column of version 1.2, in text order. Columns that nothing of ours fills are there and null.

InvoiceId is one of them: the invoicing system gives invoices their ids. `x_BillId` says which lines belong together.
"""

CHARGE_CATEGORIES: Final[dict[str, tuple[str, str]]] = {
    "usage": ("Usage", "Usage-Based"),
    "flat": ("Usage", "Recurring"),
    "true_up": ("Usage", "Recurring"),
    "discount": ("Credit", "One-Time"),
    "credit": ("Credit", "One-Time"),
    "carried_forward": ("Adjustment", "One-Time"),
    "brought_forward": ("Adjustment", "One-Time"),
}
"""ChargeCategory and ChargeFrequency of each kind of line. No fee is a Purchase: that is, in FOCUS, what is paid ahead
for later rows to use up, so that its EffectiveCost has to be zero and stand in those rows instead."""

SERVICE_CATEGORIES: Final = (
    "AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools",
    "Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media", "Migration",
    "Mobile", "Networking", "Security", "Storage", "Web", "Other",
)  # fmt: skip
