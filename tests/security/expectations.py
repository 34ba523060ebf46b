"""What Falco gives for the reference data: rule files, rule fixtures, audit events, CloudTrail records.

The codes and messages of fixtures are those of the tests upstream (security-surface.md 6.1).
"""

from __future__ import annotations

from pathlib import Path

DATA = Path("/work/shared/data")
RULES = DATA / "falco-rules"
FIXTURES = DATA / "falco-test-rules"
AUDIT = DATA / "k8s-audit"
CLOUDTRAIL = DATA / "cloudtrail"

# file -> number of rules
OFFICIAL_RULES = {
    "falco_rules.yaml": 25,
    "falco-incubating_rules.yaml": 31,
    "falco-sandbox_rules.yaml": 37,
    "k8s_audit_rules.yaml": 48,
    "aws_cloudtrail_rules.yaml": 22,
    "gcp_auditlog_rules.yaml": 39,
    "github.yaml": 15,
    "okta_rules.yaml": 21,
}

_NO_MACRO = "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists"
_NO_LIST = "List uses 'append' or 'override.items: append' but no list by that name already exists"
_NO_RULE = "Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists"
_NO_FIELD = "filter_check called with nonexistent field proc.nobody"
_LENGTHS = "Fields and values lists must have equal length"
_EXCEPTION_FIELDS = "Rule exception must have fields property with a list of fields"
_BAD = "LOAD_ERR_VALIDATE"
_SHAPE = "LOAD_ERR_YAML_VALIDATE"
_CONDITION = "LOAD_ERR_COMPILE_CONDITION"

# files (loaded in order) -> code, type and name of an item in the context, message; of the last file
ERRORS: dict[tuple[str, ...], tuple[str, str, str, str]] = {
    ("append_single_rule.yaml",): (_BAD, "rule", "open_from_cat", _NO_RULE),
    ("double_rule.yaml",): (_BAD, "rule", "exec_from_cat", "Undefined macro 'is_cat' used in filter."),
    ("rules_dir/001-double_rule.yaml",): (
        *(_BAD, "rule", "exec_from_cat"),
        "Undefined macro 'is_cat' used in filter.",
    ),
    ("engine_version_mismatch.yaml",): (
        *(_BAD, "required_engine_version", ""),
        "Rules require engine version 0.9999999.0, but engine version is 0.63.0",
    ),
    ("exceptions/append_item_fields_values_len_mismatch.yaml",): (_BAD, "exception", "ex1", _LENGTHS),
    ("exceptions/append_item_no_name.yaml",): (
        *(_SHAPE, "exception", ""),
        "Item has no mapping for key 'name'",
    ),
    ("exceptions/append_item_not_in_rule.yaml",): (_BAD, "exception", "ex2", _EXCEPTION_FIELDS),
    ("exceptions/item_comps_fields_len_mismatch.yaml",): (
        *(_BAD, "exception", "ex1"),
        "Fields and comps lists must have equal length",
    ),
    ("exceptions/item_fields_values_len_mismatch.yaml",): (_BAD, "exception", "ex1", _LENGTHS),
    ("exceptions/item_no_fields.yaml",): (
        *(_SHAPE, "exception", "ex1"),
        "Item has no mapping for key 'fields'",
    ),
    ("exceptions/item_no_name.yaml",): (_SHAPE, "exception", "", "Item has no mapping for key 'name'"),
    ("exceptions/item_unknown_comp.yaml",): (
        *(_BAD, "exception", "ex1"),
        "'no-comp' is not a supported comparison operator",
    ),
    ("exceptions/item_unknown_fields.yaml",): (
        *(_BAD, "exception", "ex1"),
        "'not.exist' is not a supported filter field",
    ),
    ("exceptions/rule_exception_new_no_field_append.yaml",): (
        *(_BAD, "exception", "proc_cmdline"),
        _EXCEPTION_FIELDS,
    ),
    ("invalid_append_macro.yaml",): (_BAD, "macro", "some macro", _NO_MACRO),
    ("invalid_base_macro.yaml", "invalid_append_macro.yaml"): (
        *(_CONDITION, "macro", "some macro"),
        "unexpected token after 'execve', expecting 'or', 'and'",
    ),
    ("invalid_append_macro_dangling.yaml",): (_BAD, "macro", "dangling append", _NO_MACRO),
    ("invalid_append_macro_multiple_docs.yaml",): (
        *(_CONDITION, "macro", "some macro"),
        "unexpected token after 'execve', expecting 'or', 'and'",
    ),
    ("invalid_append_rule.yaml",): (_BAD, "rule", "some rule", _NO_RULE),
    ("invalid_base_rule.yaml", "invalid_append_rule.yaml"): (
        *(_CONDITION, "rule", "some rule"),
        "unexpected token after 'open', expecting 'or', 'and'",
    ),
    ("invalid_append_rule_multiple_docs.yaml",): (
        *(_CONDITION, "rule", "some rule"),
        "unexpected token after 'open', expecting 'or', 'and'",
    ),
    ("invalid_append_rule_without_condition.yaml",): (
        *(_BAD, "rule", "no condition rule"),
        "Appended rule must have exceptions or condition property",
    ),
    ("invalid_array_item_not_object.yaml",): (
        *(_SHAPE, "rules content item", ""),
        "Unexpected element type. Each element should be a yaml associative array.",
    ),
    ("invalid_condition_not_rule.yaml",): (
        *(_SHAPE, "rule", "condition not rule"),
        "Mapping for key 'condition' is empty",
    ),
    ("invalid_engine_version_not_number.yaml",): (
        *(_SHAPE, "required_engine_version", ""),
        "Unable to parse engine version 'not-a-number' as a semver string. Expected \"x.y.z\" semver format.",
    ),
    ("invalid_list_loop.yaml",): (_CONDITION, "rule", "sample rule", "unknown event type list_a"),
    ("invalid_list_without_items.yaml",): (_SHAPE, "list", "bad_list", "Item has no mapping for key 'items'"),
    ("invalid_macro_comple_error.yaml",): (
        *(_BAD, "macro", "macro with comp error"),
        "Undefined macro 'gak' used in filter.",
    ),
    ("invalid_macro_loop.yaml",): (_BAD, "macro", "macro_a", "reference loop in macro 'macro_b'"),
    ("invalid_macro_without_condition.yaml",): (
        *(_SHAPE, "macro", "bad_macro"),
        "Item has no mapping for key 'condition'",
    ),
    ("invalid_missing_list_name.yaml",): (_SHAPE, "list", "", "Mapping for key 'list' is empty"),
    ("invalid_missing_macro_name.yaml",): (_SHAPE, "macro", "", "Mapping for key 'macro' is empty"),
    ("invalid_missing_rule_name.yaml",): (_SHAPE, "rule", "", "Mapping for key 'rule' is empty"),
    ("invalid_not_array.yaml",): (_SHAPE, "rules content", "", "Rules content is not yaml array of objects"),
    ("invalid_not_yaml.yaml",): (_SHAPE, "rules content", "", "Rules content is not yaml"),
    ("invalid_overwrite_macro.yaml",): (_BAD, "macro", "some macro", "Undefined macro 'foo' used in filter."),
    ("invalid_base_macro.yaml", "invalid_overwrite_macro.yaml"): (
        *(_BAD, "macro", "some macro"),
        "Undefined macro 'foo' used in filter.",
    ),
    ("invalid_overwrite_macro_multiple_docs.yaml",): (
        *(_BAD, "macro", "some macro"),
        "Undefined macro 'foo' used in filter.",
    ),
    ("invalid_overwrite_rule.yaml",): (_BAD, "rule", "some rule", "Undefined macro 'bar' used in filter."),
    ("invalid_base_rule.yaml", "invalid_overwrite_rule.yaml"): (
        *(_BAD, "rule", "some rule"),
        "Undefined macro 'bar' used in filter.",
    ),
    ("invalid_overwrite_rule_multiple_docs.yaml",): (
        *(_BAD, "rule", "some rule"),
        "Undefined macro 'bar' used in filter.",
    ),
    ("invalid_rule_output.yaml",): (
        *("LOAD_ERR_COMPILE_OUTPUT", "rule", "rule_with_invalid_output"),
        "invalid formatting token not_a_real_field",
    ),
    ("invalid_rule_without_output.yaml",): (
        *(_SHAPE, "rule", "no output rule"),
        "Item has no mapping for key 'output'",
    ),
    ("invalid_yaml_parse_error.yaml",): (
        *("LOAD_ERR_YAML_PARSE", "rules content", ""),
        "yaml-cpp: error at line 1, column 11: illegal map value",
    ),
    ("k8s_audit/allow_namespace_foo.yaml",): (_BAD, "list", "allowed_namespaces", _NO_LIST),
    ("k8s_audit/allow_user_some-user.yaml",): (_BAD, "list", "allowed_k8s_users", _NO_LIST),
    ("k8s_audit/trust_nginx_container.yaml",): (_BAD, "list", "falco_sensitive_mount_images", _NO_LIST),
    # Written for an old engine: lists take only in, intersects and exists now.
    ("k8s_audit/engine_v4_k8s_audit_rules.yaml",): (
        *(_CONDITION, "rule", "ClusterRole With Pod Exec Created"),
        "'contains' operator not supported for list filters",
    ),
    ("list_append_failure.yaml",): (_BAD, "list", "my_list", _NO_LIST),
    ("plugins/cloudtrail_create_instances_exceptions.yaml",): (
        *(_BAD, "exception", "user_secreid"),
        "'aws.user' is not a supported filter field",
    ),
    ("rule_append_failure.yaml",): (_BAD, "rule", "my_rule", _NO_RULE),
    ("skip_unknown_error.yaml",): (
        *(_CONDITION, "rule", "Contains Unknown Event And Not Skipping"),
        _NO_FIELD,
    ),
    ("skip_unknown_unspec.yaml",): (
        *(_CONDITION, "rule", "Contains Unknown Event And Unspecified"),
        _NO_FIELD,
    ),
}

# file -> code, type and name of an item in the context, message
WARNINGS: list[tuple[str, str, str, str, str]] = [
    (
        *("skip_unknown_evt.yaml", "LOAD_UNKNOWN_FILTER", "rule"),
        *("Contains Unknown Event And Skipping", _NO_FIELD),
    ),
    (
        *("invalid_base_macro.yaml", "LOAD_UNUSED_MACRO", "macro", "some macro"),
        "Macro not referred to by any other rule/macro",
    ),
    (
        *("list_substring.yaml", "LOAD_UNUSED_LIST", "list", "my_list"),
        "List not referred to by any other rule/macro",
    ),
    *(
        (
            *("falco_rules_warnings.yaml", "LOAD_NO_EVTTYPE", "rule", name),
            "Rule matches too many evt.type values. This has a significant performance penalty.",
        )
        for name in (
            *("no_evttype", "evttype_not_equals", "leading_not", "not_equals_at_end", "not_at_end"),
            *("not_equals_and_not", "leading_in_not_equals_at_evttype", "not_with_evttypes"),
            "not_with_evttypes_addl",
        )
    ),
]
# Loads, but the plugin it requires is too new.
PLUGIN_REQUIREMENTS = {
    "plugins/cloudtrail_incompat_plugin_version.yaml": (
        "Plugin requirement not satisfied, must load one of: cloudtrail (>= 100000.0.0)"
    ),
}


def fixture_files() -> list[str]:
    """Every rules file of the fixtures, by its path below FIXTURES."""
    return sorted(str(path.relative_to(FIXTURES)) for path in FIXTURES.rglob("*.yaml"))


_CREATED = "K8s {} Created"
_DELETED = "K8s {} Deleted"
_CONFIGMAP = "Create/Modify Configmap With Private Credentials"

# audit file, rule fixtures loaded after the official rules -> rules that fire, in order of the events
AUDIT_RULES: list[tuple[str, tuple[str, ...], list[str]]] = [
    ("anonymous_creates_namespace_foo", (), ["Anonymous Request Allowed"]),
    ("attach_cluster_admin_role", (), ["Attach to cluster-admin Role"]),
    ("attach_pod", (), ["Attach/Exec Pod"]),
    ("create_cluster_role_pod_exec", (), ["ClusterRole With Pod Exec Created"]),
    ("create_cluster_role_wildcard_resources", (), ["ClusterRole With Wildcard Created"]),
    ("create_cluster_role_wildcard_verbs", (), ["ClusterRole With Wildcard Created"]),
    ("create_cluster_role_write_privileges", (), ["ClusterRole With Write Privileges Created"]),
    ("create_clusterrole", (), [_CREATED.format("ClusterRole")]),
    ("create_clusterrolebinding", (), [_CREATED.format("ClusterRoleBinding")]),
    ("create_configmap", (), [_CREATED.format("ConfigMap")]),
    ("create_configmap_no_sensitive_values", (), [_CREATED.format("ConfigMap")]),
    ("create_configmap_no_sensitive_values", ("k8s_audit/disallow_kactivity.yaml",), []),
    ("create_configmap_sensitive_values", (), [_CONFIGMAP] * 6),
    ("create_configmap_sensitive_values", ("k8s_audit/disallow_kactivity.yaml",), [_CONFIGMAP] * 6),
    ("create_deployment", (), [_CREATED.format("Deployment")]),
    ("create_kube_system_secret", (), []),
    ("create_nginx_pod_hostnetwork", (), ["Create HostNetwork Pod"]),
    ("create_nginx_pod_no_secctx_1st_container_privileged_2nd_container", (), ["Create Privileged Pod"]),
    ("create_nginx_pod_nohostnetwork", (), []),
    ("create_nginx_pod_privileged", (), ["Create Privileged Pod"]),
    ("create_nginx_pod_privileged_2nd_container", (), ["Create Privileged Pod"]),
    ("create_nginx_pod_sensitive_mount", (), ["Create Sensitive Mount Pod"]),
    ("create_nginx_pod_sensitive_mount_2nd_container", (), ["Create Sensitive Mount Pod"]),
    ("create_nginx_pod_unprivileged", (), []),
    ("create_nginx_pod_unprivileged", ("k8s_audit/allow_nginx_container.yaml",), []),
    (
        *("create_nginx_pod_unprivileged", ("k8s_audit/allow_only_apache_container.yaml",)),
        ["Create Disallowed Pod"],
    ),
    (
        *("create_nginx_pod_unprivileged", ("k8s_audit/single_rule_with_json_pointer.yaml",)),
        ["json_pointer_example"],
    ),
    ("create_nginx_pod_unsensitive_mount", (), []),
    ("create_nginx_service_nodeport", (), ["Create NodePort Service"]),
    ("create_nginx_service_nodeport", ("k8s_audit/disallow_kactivity.yaml",), ["Create NodePort Service"]),
    ("create_nginx_service_nonodeport", (), [_CREATED.format("Service")]),
    ("create_nginx_service_nonodeport", ("k8s_audit/disallow_kactivity.yaml",), []),
    ("create_pod_kube_public_namespace", (), ["Pod Created in Kube Namespace"]),
    ("create_pod_kube_system_namespace", (), ["Pod Created in Kube Namespace"]),
    ("create_secret", (), [_CREATED.format("Secret")]),
    ("create_service", (), [_CREATED.format("Service")]),
    ("create_service_account_token_secret", (), []),
    ("create_serviceaccount", (), [_CREATED.format("Serviceaccount")]),
    ("create_serviceaccount_kube_public_namespace", (), ["Service Account Created in Kube Namespace"]),
    ("create_serviceaccount_kube_system_namespace", (), ["Service Account Created in Kube Namespace"]),
    ("delete_cluster_role_kube_aggregator", (), ["System ClusterRole Modified/Deleted"]),
    ("delete_clusterrole", (), [_DELETED.format("ClusterRole")]),
    ("delete_clusterrolebinding", (), [_DELETED.format("ClusterRoleBinding")]),
    ("delete_configmap", (), [_DELETED.format("ConfigMap")]),
    ("delete_deployment", (), [_DELETED.format("Deployment")]),
    ("delete_namespace_foo", (), [_DELETED.format("Namespace")]),
    ("delete_secret", (), [_DELETED.format("Secret")]),
    ("delete_service", (), [_DELETED.format("Service")]),
    ("delete_serviceaccount", (), [_DELETED.format("Serviceaccount")]),
    ("exec_pod", (), ["Attach/Exec Pod"]),
    ("minikube_creates_namespace_foo", (), ["Create Disallowed Namespace"]),
    (
        "minikube_creates_namespace_foo",
        ("k8s_audit/allow_namespace_foo.yaml", "k8s_audit/disallow_kactivity.yaml"),
        [],
    ),
    ("modify_cluster_role_node_problem_detector", (), ["System ClusterRole Modified/Deleted"]),
    ("some-user_creates_namespace_foo", (), ["Disallowed K8s User"]),
    (
        *("some-user_creates_namespace_foo", ("k8s_audit/allow_user_some-user.yaml",)),
        ["Create Disallowed Namespace"],
    ),
    (
        *("some-user_creates_namespace_foo", ("k8s_audit/allow_namespace_foo.yaml",)),
        ["Disallowed K8s User"],
    ),
    (
        "some-user_creates_namespace_foo",
        ("k8s_audit/allow_namespace_foo.yaml", "k8s_audit/allow_user_some-user.yaml"),
        [_CREATED.format("Namespace")],
    ),
    (
        "some-user_creates_namespace_foo",
        (
            *("k8s_audit/allow_namespace_foo.yaml", "k8s_audit/allow_user_some-user.yaml"),
            "k8s_audit/disallow_kactivity.yaml",
        ),
        [],
    ),
]
# Refused with this text.
NOT_AUDIT = {"fal_01_003": "data not recognized as a k8s audit event"}

_NO_MFA = "Console Login Without MFA"
_ROOT = "Console Root Login Without MFA"
_MATCH_ALL = "all"

# file, rule fixture loaded after the official rules, rule_matching -> (position of the record, rule)
CLOUDTRAIL_RULES: list[tuple[str, tuple[str, ...], str, list[tuple[int, str]]]] = [
    (
        "awsdocs_samples.json",
        (),
        "first",
        [(7, _NO_MFA), (12, _NO_MFA), (20, "Create AWS user"), (23, _NO_MFA)],
    ),
    (
        *("awsdocs_samples.json", (), _MATCH_ALL),
        [(7, _NO_MFA), (12, _NO_MFA), (12, _ROOT), (20, "Create AWS user"), (23, _NO_MFA)],
    ),
    ("alice_start_instances.json", (), "first", []),
    ("alice_start_instances_bigevent.json", (), "first", []),
    (
        *("alice_start_instances.json", ("plugins/cloudtrail_create_instances.yaml",), "first"),
        [(0, "Cloudtrail Create Instance")],
    ),
    (
        *("alice_start_instances_bigevent.json", ("plugins/cloudtrail_create_instances.yaml",), "first"),
        [(0, "Cloudtrail Create Instance")],
    ),
]
