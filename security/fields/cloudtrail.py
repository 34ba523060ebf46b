"""Fields of CloudTrail records (security-surface.md 7.4)."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_CLOUDTRAIL = """
ct.id CHARBUF | id of the record
ct.error CHARBUF | error code
ct.errormessage CHARBUF | error message
ct.time CHARBUF | time of the record
ct.src CHARBUF | service
ct.shortsrc CHARBUF | service without its domain
ct.name CHARBUF | name of the call
ct.user CHARBUF | user, by the type of identity
ct.originaluser CHARBUF | user behind an assumed role
ct.user.accountid CHARBUF | account of the user
ct.user.identitytype CHARBUF | type of identity
ct.user.principalid CHARBUF | principal
ct.user.arn CHARBUF | resource name of the user
ct.region CHARBUF | region
ct.srcip CHARBUF | address of the caller
ct.useragent CHARBUF | user agent
ct.info CHARBUF | one-line summary
ct.managementevent CHARBUF | true for a management event
ct.readonly CHARBUF | true for a call that only reads
ct.requestid CHARBUF | id of the request
ct.eventtype CHARBUF | type of the record
ct.apiversion CHARBUF | version of the API
ct.resources CHARBUF | resources as JSON
ct.recipientaccountid CHARBUF | account that received the record
ct.serviceeventdetails CHARBUF | details of a service event as JSON
ct.sharedeventid CHARBUF | id shared between accounts
ct.vpcendpointid CHARBUF | end point the request came through
ct.eventcategory CHARBUF | category of the record
ct.addendum.reason CHARBUF | why the record came late
ct.addendum.updatedfields CHARBUF | fields that were updated
ct.addendum.originalrequestid CHARBUF | id of the original request
ct.addendum.originaleventid CHARBUF | id of the original record
ct.sessioncredentialfromconsole CHARBUF | true for a session of the console
ct.edgedevicedetails CHARBUF | details of an edge device as JSON
ct.tlsdetails.tlsversion CHARBUF | version of TLS
ct.tlsdetails.ciphersuite CHARBUF | cipher suite
ct.tlsdetails.clientprovidedhostheader CHARBUF | host the client asked for
ct.additionaleventdata CHARBUF | additional data as JSON
ct.request CHARBUF | parameters of the request as JSON
ct.request.availabilityzone CHARBUF | availability zone
ct.request.cluster CHARBUF | cluster
ct.request.functionname CHARBUF | function
ct.request.groupname CHARBUF | group
ct.request.host CHARBUF | host
ct.request.name CHARBUF | name
ct.request.policy CHARBUF | policy
ct.request.reason CHARBUF | reason
ct.request.serialnumber CHARBUF | serial number
ct.request.servicename CHARBUF | service
ct.request.subnetid CHARBUF | subnet
ct.request.target CHARBUF | target
ct.request.taskdefinition CHARBUF | task definition
ct.request.username CHARBUF | user
ct.request.documentname CHARBUF | document
ct.response CHARBUF | elements of the answer as JSON
ct.response.subnetid CHARBUF | subnet
ct.response.reservationid CHARBUF | reservation
s3.bucket CHARBUF | bucket
s3.key CHARBUF | key
s3.uri CHARBUF | s3://bucket/key
s3.bytes UINT64 | bytes read and written
s3.bytes.in UINT64 | bytes written
s3.bytes.out UINT64 | bytes read
s3.cnt.get UINT64 | 1 for a read
s3.cnt.put UINT64 | 1 for a write
s3.cnt.other UINT64 | 1 for any other call
ec2.name CHARBUF | Name tag of the instances
ec2.imageid CHARBUF | image of the first instance
ec2.imageids CHARBUF Lai | images of the instances
ecr.repository CHARBUF | repository
ecr.imagetag CHARBUF | tag of the image
iam.role CHARBUF | role
iam.policy CHARBUF | policy
"""


def fields() -> list[FieldInfo]:
    """Fields of CloudTrail records."""
    return rows("ct", ("aws_cloudtrail",), _CLOUDTRAIL)
