"""CloudTrail records: files, POSTed bodies and EventBridge envelopes (security-surface.md 7.1, 7.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from security.sources.json_events import (
    BODY_BYTES_LIMIT,
    InvalidEventError,
    JsonEvent,
    as_text,
    decode,
    decompress,
    parse_time,
    text_at,
)

RECORDS_LIMIT = 1 << 20
_NOT_CLOUDTRAIL = "data not recognized as CloudTrail records"

Record = dict[str, Any]

_PLAIN: dict[str, tuple[str, ...]] = {
    "ct.id": ("eventID",),
    "ct.time": ("eventTime",),
    "ct.src": ("eventSource",),
    "ct.name": ("eventName",),
    "ct.region": ("awsRegion",),
    "ct.srcip": ("sourceIPAddress",),
    "ct.useragent": ("userAgent",),
    "ct.error": ("errorCode",),
    "ct.errormessage": ("errorMessage",),
    "ct.requestid": ("requestID",),
    "ct.eventtype": ("eventType",),
    "ct.apiversion": ("apiVersion",),
    "ct.recipientaccountid": ("recipientAccountId",),
    "ct.sharedeventid": ("sharedEventID",),
    "ct.vpcendpointid": ("vpcEndpointId",),
    "ct.eventcategory": ("eventCategory",),
    "ct.user.identitytype": ("userIdentity", "type"),
    "ct.user.principalid": ("userIdentity", "principalId"),
    "ct.user.arn": ("userIdentity", "arn"),
    "ct.readonly": ("readOnly",),
    "ct.managementevent": ("managementEvent",),
    "ct.sessioncredentialfromconsole": ("sessionCredentialFromConsole",),
    "ct.request": ("requestParameters",),
    "ct.response": ("responseElements",),
    "ct.additionaleventdata": ("additionalEventData",),
    "ct.resources": ("resources",),
    "ct.serviceeventdetails": ("serviceEventDetails",),
    "ct.edgedevicedetails": ("edgeDeviceDetails",),
    "ct.addendum.reason": ("addendum", "reason"),
    "ct.addendum.updatedfields": ("addendum", "updatedFields"),
    "ct.addendum.originalrequestid": ("addendum", "originalRequestID"),
    "ct.addendum.originaleventid": ("addendum", "originalEventID"),
    "ct.tlsdetails.tlsversion": ("tlsDetails", "tlsVersion"),
    "ct.tlsdetails.ciphersuite": ("tlsDetails", "cipherSuite"),
    "ct.tlsdetails.clientprovidedhostheader": ("tlsDetails", "clientProvidedHostHeader"),
    "ct.response.subnetid": ("responseElements", "subnetId"),
    "ct.response.reservationid": ("responseElements", "reservationId"),
    "s3.bucket": ("requestParameters", "bucketName"),
    "s3.key": ("requestParameters", "key"),
    "ecr.repository": ("requestParameters", "repositoryName"),
    "ecr.imagetag": ("requestParameters", "imageTag"),
    "iam.role": ("requestParameters", "roleName"),
    "iam.policy": ("requestParameters", "policyName"),
    **{
        f"ct.request.{key.lower()}": ("requestParameters", key)
        for key in (
            *("availabilityZone", "cluster", "functionName", "groupName", "name", "policy", "reason"),
            *("serialNumber", "serviceName", "subnetId", "target", "taskDefinition", "userName"),
        )
    },
    "ct.request.host": ("requestParameters", "Host"),
}
_S3_READS = ("GetObject", "HeadObject")
_S3_WRITES = ("PutObject",)


class CloudTrail:
    """The source `aws_cloudtrail`."""

    name = "aws_cloudtrail"
    plugin = "cloudtrail"

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def events(self, body: bytes, now_ns: int) -> Iterator[JsonEvent]:
        """Records of a body, which may be compressed with gzip: {"Records": [...]}, one record, or an
        EventBridge event with the record in `detail`. Raises InvalidEventError."""
        document = decode(decompress(body, BODY_BYTES_LIMIT), _NOT_CLOUDTRAIL)
        if isinstance(document, dict) and isinstance(document.get("Records"), list):
            records = document["Records"]
        elif isinstance(document, dict) and isinstance(document.get("detail"), dict):
            records = [document["detail"]]
        else:
            records = [document]
        if len(records) > RECORDS_LIMIT:
            raise InvalidEventError(f"{len(records)} records are more than {RECORDS_LIMIT}")
        for record in records:
            if not isinstance(record, dict) or not isinstance(record.get("eventName"), str):
                raise InvalidEventError(_NOT_CLOUDTRAIL)
            time_ns = parse_time(record.get("eventTime"))
            yield JsonEvent(record, now_ns if time_ns is None else time_ns)

    def extract(self, document: Record, name: str, argument: str | None) -> Any:
        """One field of a record."""
        path = _PLAIN.get(name)
        if path is not None:
            return text_at(document, *path)
        if name.startswith("ct."):
            return _ct(document, name)
        if name.startswith("s3."):
            return _s3(document, name)
        if name.startswith("ec2."):
            return _ec2(document, name, argument)
        return _info(document) if name == "evt.plugininfo" else None


def user(record: Record) -> str | None:
    """The user of a record by the type of its identity, None when it names none."""
    kind = text_at(record, "userIdentity", "type")
    if kind in ("Root", "IAMUser"):
        return text_at(record, "userIdentity", "userName")
    if kind == "AWSService":
        return text_at(record, "userIdentity", "invokedBy")
    if kind == "AssumedRole":
        issuer = text_at(record, "userIdentity", "sessionContext", "sessionIssuer", "userName")
        return issuer or "AssumedRole"
    return kind if kind in ("AWSAccount", "FederatedUser") else None


def _original_user(record: Record) -> str | None:
    if text_at(record, "userIdentity", "type") != "AssumedRole":
        return text_at(record, "userIdentity", "userName")
    arn = text_at(record, "userIdentity", "arn") or ""
    if arn.count("/") >= 2:
        return arn.rpartition("/")[2]
    principal = text_at(record, "userIdentity", "principalId") or ""
    return principal.partition(":")[2] or None


def _ct(record: Record, name: str) -> str | None:
    if name == "ct.shortsrc":
        source = text_at(record, "eventSource")
        return None if source is None else source.removesuffix(".amazonaws.com")
    if name == "ct.user":
        return user(record)
    if name == "ct.originaluser":
        return _original_user(record)
    if name == "ct.user.accountid":
        return text_at(record, "userIdentity", "accountId") or text_at(record, "recipientAccountId")
    # ct.request.documentname is in the catalogue upstream, but a wrong case keeps it from ever being there.
    return _info(record) if name == "ct.info" else None


def _info(record: Record) -> str:
    failed = "!" if text_at(record, "errorCode") else ""
    arrow = "←" if text_at(record, "readOnly") == "true" else "→"
    parts = [user(record) or "", "via", text_at(record, "sourceIPAddress") or "", failed + arrow]
    parts.append(text_at(record, "eventName") or "")
    bucket, key = (
        text_at(record, "requestParameters", "bucketName"),
        text_at(record, "requestParameters", "key"),
    )
    if bucket:
        parts.append(f"{bucket}/{key}" if key else bucket)
    return " ".join(part for part in parts if part)


def _number(record: Record, key: str) -> int | None:
    data = record.get("additionalEventData")
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        return None
    return int(value)


def _s3(record: Record, name: str) -> Any:
    if name == "s3.uri":
        bucket, key = (
            text_at(record, "requestParameters", "bucketName"),
            text_at(record, "requestParameters", "key"),
        )
        return f"s3://{bucket}/{key}" if bucket and key else None
    if name.startswith("s3.bytes"):
        incoming, outgoing = _number(record, "bytesTransferredIn"), _number(record, "bytesTransferredOut")
        if name == "s3.bytes":
            return None if incoming is None and outgoing is None else (incoming or 0) + (outgoing or 0)
        return incoming if name.endswith("in") else outgoing
    call = text_at(record, "eventName") or ""
    kind = "get" if call in _S3_READS else "put" if call in _S3_WRITES else "other"
    return 1 if name == f"s3.cnt.{kind}" else None


def _ec2(record: Record, name: str, argument: str | None) -> Any:
    if name == "ec2.name":
        for group in _objects(_at(record, "requestParameters", "tagSpecificationSet", "items")):
            for tag in _objects(group.get("tags")):
                if tag.get("key") == "Name":
                    return as_text(tag.get("value"))
        return None
    instances = _at(record, "responseElements", "instancesSet", "items")
    if not isinstance(instances, list):
        return None
    images = tuple(image for item in _objects(instances) if (image := text_at(item, "imageId")) is not None)
    if name == "ec2.imageids" and argument is None:
        return images
    index = int(argument or 0)
    return images[index] if index < len(images) else None


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _objects(value: Any) -> list[Record]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
