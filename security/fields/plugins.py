"""Fields of the other event sources whose official rule files must load: Google Cloud, GitHub and Okta."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_GCP = """
gcp.user CHARBUF | principal
gcp.callerIP CHARBUF | address of the caller
gcp.userAgent CHARBUF | user agent
gcp.authorizationInfo CHARBUF | authorizations as JSON
gcp.serviceName CHARBUF | service
gcp.methodName CHARBUF | method
gcp.request CHARBUF | request as JSON
gcp.policyDelta CHARBUF | change of a policy as JSON
gcp.projectId CHARBUF | project
gcp.resourceName CHARBUF | resource
gcp.resourceType CHARBUF | type of the resource
gcp.resourceLabels CHARBUF | labels of the resource
gcp.location CHARBUF | location
gcp.orgId CHARBUF | organisation
gcp.storage.bucket CHARBUF | bucket
gcp.cloudfunctions.function CHARBUF | function
gcp.cloudsql.databaseId CHARBUF | database
gcp.compute.instanceId CHARBUF | instance
gcp.compute.networkId CHARBUF | network
gcp.compute.subnetwork CHARBUF | subnet
gcp.compute.subnetworkId CHARBUF | id of the subnet
gcp.dns.zone CHARBUF | zone
gcp.iam.serviceAccount CHARBUF | service account
gcp.iam.serviceAccountId CHARBUF | id of the service account
gcp.logging.sink CHARBUF | log sink
gcp.time CHARBUF | time of the entry
"""
_GITHUB = """
github.type CHARBUF | type of the message
github.action CHARBUF | action
github.user CHARBUF | user
github.repo CHARBUF | repository
github.repo.name CHARBUF | name of the repository
github.repo.url CHARBUF | URL of the repository
github.repo.public CHARBUF | whether the repository is public
github.org CHARBUF | organisation
github.owner CHARBUF | owner
github.collaborator.name CHARBUF | collaborator
github.collaborator.role CHARBUF | role of the collaborator
github.webhook.id CHARBUF | id of a hook
github.webhook.type CHARBUF | type of a hook
github.commit.modified CHARBUF | files a commit modifies
github.diff.has_secrets CHARBUF | whether a change has secrets
github.diff.committed_secrets.desc CHARBUF | kinds of secrets
github.diff.committed_secrets.files CHARBUF | files with secrets
github.diff.committed_secrets.lines CHARBUF | lines with secrets
github.diff.committed_secrets.links CHARBUF | links to secrets
github.workflow.has_miners CHARBUF | whether a workflow mines
github.workflow.filename CHARBUF | file of the workflow
github.workflow.miners.type CHARBUF | kind of miner
"""
_OKTA = """
okta.app CHARBUF | application
okta.evt.type CHARBUF | type of the event
okta.evt.legacytype CHARBUF | older type of the event
okta.severity CHARBUF | severity
okta.message CHARBUF | message
okta.published CHARBUF | time of the event
okta.actor.id CHARBUF | id of the actor
okta.actor.Type CHARBUF | type of the actor
okta.actor.alternateid CHARBUF | other id of the actor
okta.actor.name CHARBUF | name of the actor
okta.client.zone CHARBUF | zone of the client
okta.client.ip CHARBUF | address of the client
okta.client.device CHARBUF | device of the client
okta.client.id CHARBUF | id of the client
okta.client.geo.city CHARBUF | city of the client
okta.client.geo.state CHARBUF | state of the client
okta.client.geo.country CHARBUF | country of the client
okta.client.geo.postalcode CHARBUF | postal code of the client
okta.client.geo.lat CHARBUF | latitude of the client
okta.client.geo.lon CHARBUF | longitude of the client
okta.useragent.os CHARBUF | operating system
okta.useragent.browser CHARBUF | browser
okta.useragent.raw CHARBUF | user agent
okta.result CHARBUF | result
okta.reason CHARBUF | its reason
okta.transaction.id CHARBUF | id of the transaction
okta.transaction.type CHARBUF | type of the transaction
okta.requesturi CHARBUF | URI of the request
okta.principal.id CHARBUF | id of the principal
okta.principal.alternateid CHARBUF | other id of the principal
okta.principal.type CHARBUF | type of the principal
okta.principal.name CHARBUF | name of the principal
okta.authentication.step CHARBUF | step of the login
okta.authentication.sessionid CHARBUF | session
okta.security.asnumber UINT64 | number of the autonomous system
okta.security.asorg CHARBUF | its organisation
okta.security.isp CHARBUF | provider
okta.security.domain CHARBUF | domain
okta.target.user.id CHARBUF | id of the user acted on
okta.target.user.alternateid CHARBUF | other id of that user
okta.target.user.name CHARBUF | name of that user
okta.target.group.id CHARBUF | id of the group acted on
okta.target.group.alternateid CHARBUF | other id of that group
okta.target.group.name CHARBUF | name of that group
okta.target.app.id CHARBUF | id of the application acted on
okta.target.app.alternateid CHARBUF | other id of that application
okta.target.app.name CHARBUF | name of that application
okta.mfa.failure.countlast UINT64 Ai | failed second factors in the last seconds
okta.mfa.deny.countlast UINT64 Ai | denied second factors in the last seconds
okta.mfa.failure.countlastwithip UINT64 Ai | failed second factors of an address in the last seconds
okta.mfa.deny.countlastwithip UINT64 Ai | denied second factors of an address in the last seconds
"""


def fields() -> list[FieldInfo]:
    """Fields of the three sources."""
    return (
        rows("gcp", ("gcp_auditlog",), _GCP)
        + rows("github", ("github",), _GITHUB)
        + rows("okta", ("okta",), _OKTA)
    )
