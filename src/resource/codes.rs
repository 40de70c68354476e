//! Which codes can a finding have? One table: the code, its severity, and what it means in general.
//!
//! `IST` codes are those of `istioctl analyze`; `LIM` codes are ours. A code never changes its meaning.

use super::finding::Severity;

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// Stable, such as `IST0101`.
    pub id: &'static str,
    pub severity: Severity,
    /// One clause for the documentation.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($name:ident = $id:literal $severity:ident $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub(crate) const $name: Code = Code { id: $id, severity: Severity::$severity, meaning: $meaning };
        )*

        /// Every code, in order.
        #[cfg(test)]
        const ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    DEPRECATED = "IST0002" Warning "a field or kind is deprecated";
    REFERENCE_MISSING = "IST0101" Error "a gateway, host, subset, workload or secret that is named does not exist";
    SCHEMA = "IST0106" Error "the object breaks a rule of its kind and is not in force";
    MESH_HOST_CONFLICT = "IST0109" Error "several VirtualServices of the mesh rule one host";
    SIDECAR_OVERLAP = "IST0110" Error "several Sidecars choose the same workload";
    SIDECAR_TWICE = "IST0111" Error "a namespace has several Sidecars without a selector";
    SERVICE_PORT_NEEDED = "IST0112" Error "the destination has several ports and the route names none";
    PORT_NAME = "IST0118" Info "the name of a Service's port says no protocol";
    NO_WORKLOAD = "IST0127" Warning "a policy chooses no workload";
    NO_AUTHORITY = "IST0128" Warning "a DestinationRule names no authority by which servers are verified";
    NO_AUTHORITY_FOR_PORT = "IST0129" Warning "a port of a DestinationRule names no authority by which servers are verified";
    UNREACHABLE_RULE = "IST0130" Warning "a rule can never be reached";
    INEFFECTIVE_MATCH = "IST0131" Info "a match repeats an earlier one of the same object";
    HOST_NOT_IN_GATEWAY = "IST0132" Warning "no server of the gateway serves a host of the VirtualService";
    SCHEMA_WARNING = "IST0133" Warning "the object is accepted, with a warning of Istio's validation";
    ADDRESSES_NEEDED = "IST0134" Warning "a TCP port of a ServiceEntry without addresses takes the traffic of every address";
    ANNOTATION_ALPHA = "IST0136" Info "an annotation of Istio may change";
    SHARED_CERTIFICATE = "IST0138" Warning "several Gateways show one certificate";
    MESH_RULES_NOT_OBEYED = "IST0140" Warning "rules of a VirtualService of the mesh do not rule requests of a gateway";
    SIDECAR_USER = "IST0144" Warning "an application runs as the user of Istio's sidecar";
    GATEWAY_CONFLICT = "IST0145" Error "several Gateways have one host on one port";
    CLAIMS_WITHOUT_AUTHENTICATION = "IST0149" Error "routes look at claims of tokens that nobody verifies";
    EXTERNAL_PORT_NAME = "IST0150" Warning "the name of a port of an ExternalName Service says no protocol";
    PATCH_ORDER = "IST0151" Warning "a relative patch of an EnvoyFilter depends on the order of EnvoyFilters";
    PATCH_REPLACE = "IST0152" Error "REPLACE of an EnvoyFilter is for filters alone";
    PATCH_ADD = "IST0153" Error "ADD of an EnvoyFilter is ignored for routes";
    PATCH_REMOVE = "IST0154" Error "REMOVE of an EnvoyFilter is ignored for routes";
    PATCH_ORDER_AND_VERSION = "IST0155" Warning "a relative patch of an EnvoyFilter depends on the order of EnvoyFilters and on versions";
    NO_LOG_PROVIDER = "IST0157" Warning "an access log of a Telemetry has no provider";
    TELEMETRY_OVERLAP = "IST0159" Error "several Telemetries choose the same workload";
    TELEMETRY_TWICE = "IST0160" Error "a namespace has several Telemetries without a selector";
    GATEWAY_CREDENTIAL = "IST0161" Error "the secret of a server has no usable certificate and key";
    PORT_NOT_ON_SERVICE = "IST0162" Warning "the Service of the gateway does not have the port of a server";
    INTERNAL_GATEWAY = "IST0165" Warning "a VirtualService names what Istio makes of a Gateway of the Gateway API";
    SELECTOR_WITHOUT_EFFECT = "IST0166" Warning "a selector has no effect on gateways of the Gateway API";
    POLICY_WITHOUT_EFFECT = "IST0167" Warning "a policy has no effect on the workloads it chooses";
    NEGATIVE_CONDITION = "IST0171" Warning "the status of an object says that something is wrong";
    SUBSET_WITHOUT_PODS = "IST0173" Error "a subset chooses no Pod";
    UNKNOWN_RULE_HOST = "IST0174" Warning "a DestinationRule is for a host that does not exist";
    KEYS_FROM_ANYWHERE = "IST0175" Warning "istiod fetches keys of tokens from any address";
    GATEWAY_API_TOO_OLD = "IST0176" Warning "a kind of the Gateway API is too old";
    PROTOCOL_CONFLICT = "IST0177" Warning "ServiceEntries give one port of one host several protocols";

    SETTINGS = "LIM0001" Error "the settings file cannot be read or holds a wrong value";
    SETTINGS_UNKNOWN = "LIM0002" Warning "the settings file holds a key that does not exist";
    SETTINGS_KEPT = "LIM0003" Error "the settings are wrong; the last good ones stay in force";
    SYNTAX = "LIM0010" Error "a document is not YAML or JSON";
    UNREADABLE = "LIM0011" Error "a file or folder cannot be read";
    WRONG_TYPE = "LIM0012" Error "a value has the wrong type, or a field that is needed is missing";
    UNKNOWN_FIELD = "LIM0013" Warning "a field does not exist in its kind";
    UNDEFINED_VARIABLE = "LIM0014" Error "`${NAME}` is not among the variables of the settings";
    KEPT_LAST_GOOD = "LIM0015" Warning "the last good version of an object stays in force";
    UNKNOWN_KIND = "LIM0016" Warning "the kind of an object is not known";
    KIND_NOT_IN_FORCE = "LIM0017" Warning "the kind is known, but it does nothing yet";
    KIND_IGNORED = "LIM0018" Info "the kind means nothing to a gateway";
    DUPLICATE_OBJECT = "LIM0019" Error "two objects have one kind, namespace and name; the first is in force";
    SECRET_VALUE = "LIM0020" Error "a value of a Secret cannot be decoded";
    CERTIFICATE_FILE = "LIM0021" Error "a certificate, key or CA file cannot be read";
    FIELD_NOT_IN_FORCE = "LIM0022" Warning "the field is known, but it does nothing yet";
    MESH_NOT_IN_FORCE = "LIM0023" Info "a mesh setting that does nothing here";
    DUPLICATE_HOST = "LIM0024" Warning "two servers of one port have the same host; the first is in force";

    RULE_SPOILED = "LIM0030" Error "a rule cannot do what it asks for and answers 500, or its match cannot be read and is left out";
    SERVER_SKIPPED = "LIM0031" Error "a server cannot share its port with an earlier one and is left out";
    SERVER_NOT_IN_FORCE = "LIM0032" Error "connections to a server are closed, because its kind is not in force yet";
    CERTIFICATE_DATE = "LIM0033" Warning "a certificate has expired or is not valid yet; it is served nevertheless";
    CLIENT_CREDENTIAL = "LIM0034" Error "the credential for TLS to a destination is missing or unusable; requests to it fail";
    DELEGATE_MISSING = "LIM0035" Error "a delegate cannot be used; the rule that names it is left out";
    ENDPOINT_ADDRESS = "LIM0036" Error "an endpoint has no usable address and is left out";
    OPERATOR_WITHOUT_VALUE = "LIM0037" Warning "a header value holds an operator that has no value yet";
    SUBSET_WITHOUT_ENDPOINTS = "LIM0038" Warning "no endpoint has the labels of a subset; requests to it fail";
    SERVER_WITHOUT_ROUTE = "LIM0039" Warning "no route is for a server that is not HTTP; it takes no connections";
    LOG_FORMAT = "LIM0041" Error "the format of an access log cannot be read; Istio's default is written";
    LOG_FILTER = "LIM0042" Error "the filter of an access log cannot be read; every line is written";
    LOG_PROVIDER = "LIM0043" Warning "a provider of access logs does not exist or is not served";
    SERVER_TLS = "LIM0045" Error "the TLS settings of a server cannot work; its connections are closed";

    HOST_NOT_SERVED = "LIM0060" Warning "no server serves one of the hosts of a VirtualService";
    SHADOWED_RULE = "LIM0061" Warning "a rule can never be reached: an older VirtualService of the host takes its requests";
    PASSTHROUGH_COVERED = "LIM0062" Warning "one port passes a host through and ends TLS for a wildcard that covers it, or the reverse";
    CERTIFICATE_CONFLICT = "LIM0063" Warning "one host has different certificates on one port";
    COALESCED_POLICY = "LIM0064" Warning "browsers may reuse a connection for a host with other rules for clients' certificates";

    NOT_BOUND = "LIM0090" Error "an address cannot be bound; its listener is not in force";
    INTERNAL = "LIM0091" Error "a fault of the gateway itself stopped a reload";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_once_and_in_order() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
