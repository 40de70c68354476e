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
    /// What to do about it; empty where the finding itself says all there is to do.
    pub help: &'static str,
}

macro_rules! codes {
    ($($name:ident = $id:literal $severity:ident $meaning:literal $($help:literal)?;)*) => {
        $(
            #[doc = $meaning]
            pub(crate) const $name: Code =
                Code { id: $id, severity: Severity::$severity, meaning: $meaning, help: concat!($($help)?) };
        )*

        /// Every code, in order.
        pub(crate) const ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    DEPRECATED = "IST0002" Warning "a field or kind is deprecated"
        "Use what the message names in its place.";
    REFERENCE_MISSING = "IST0101" Error "a gateway, host, subset, workload or secret that is named does not exist"
        "Correct the name, or add what it names to the manifests.";
    SCHEMA = "IST0106" Error "the object breaks a rule of its kind and is not in force"
        "Correct the field; until then the last good version of the object stays in force.";
    MESH_HOST_CONFLICT = "IST0109" Error "several VirtualServices of the mesh rule one host"
        "Put the rules into one VirtualService, or bind them to different gateways.";
    SIDECAR_OVERLAP = "IST0110" Error "several Sidecars choose the same workload"
        "Make the selectors of the Sidecars differ.";
    SIDECAR_TWICE = "IST0111" Error "a namespace has several Sidecars without a selector"
        "Keep one, or give the others a selector.";
    SERVICE_PORT_NEEDED = "IST0112" Error "the destination has several ports and the route names none"
        "Name the port in the destination.";
    PORT_NAME = "IST0118" Info "the name of a Service's port says no protocol"
        "Begin the name with http, http2, grpc, https, tls or tcp, or set appProtocol.";
    NO_WORKLOAD = "IST0127" Warning "a policy chooses no workload"
        "Compare the selector with the labels of the Pods.";
    NO_AUTHORITY = "IST0128" Warning "a DestinationRule names no authority by which servers are verified"
        "Name caCertificates; without them the authorities of the system decide.";
    NO_AUTHORITY_FOR_PORT = "IST0129" Warning "a port of a DestinationRule names no authority by which servers are verified"
        "Name caCertificates; without them the authorities of the system decide.";
    UNREACHABLE_RULE = "IST0130" Warning "a rule can never be reached"
        "Move the rule before the wider one, or remove it.";
    INEFFECTIVE_MATCH = "IST0131" Info "a match repeats an earlier one of the same object"
        "Remove the match, or narrow the earlier one.";
    HOST_NOT_IN_GATEWAY = "IST0132" Warning "no server of the gateway serves a host of the VirtualService"
        "Add the host to a server of the Gateway, or bind the VirtualService to another.";
    SCHEMA_WARNING = "IST0133" Warning "the object is accepted, with a warning of Istio's validation"
        "It does no harm now; Istio may refuse it one day.";
    ADDRESSES_NEEDED = "IST0134" Warning "a TCP port of a ServiceEntry without addresses takes the traffic of every address"
        "Add addresses to the ServiceEntry.";
    ANNOTATION_ALPHA = "IST0136" Info "an annotation of Istio may change"
        "Expect that it changes with a release of Istio.";
    SHARED_CERTIFICATE = "IST0138" Warning "several Gateways show one certificate"
        "Put the servers into one Gateway, or give each its own certificate.";
    MESH_RULES_NOT_OBEYED = "IST0140" Warning "rules of a VirtualService of the mesh do not rule requests of a gateway"
        "Name the subset in the rules of the gateway, too, or delegate.";
    SIDECAR_USER = "IST0144" Warning "an application runs as the user of Istio's sidecar"
        "Run the application as another user.";
    GATEWAY_CONFLICT = "IST0145" Error "several Gateways have one host on one port"
        "Give each host of a port to one Gateway.";
    CLAIMS_WITHOUT_AUTHENTICATION = "IST0149" Error "routes look at claims of tokens that nobody verifies"
        "Add a RequestAuthentication for the gateway.";
    EXTERNAL_PORT_NAME = "IST0150" Warning "the name of a port of an ExternalName Service says no protocol"
        "Begin the name with a protocol other than plain tcp.";
    PATCH_ORDER = "IST0151" Warning "a relative patch of an EnvoyFilter depends on the order of EnvoyFilters"
        "Set a priority, or use INSERT_FIRST.";
    PATCH_REPLACE = "IST0152" Error "REPLACE of an EnvoyFilter is for filters alone"
        "Use MERGE, or patch a filter.";
    PATCH_ADD = "IST0153" Error "ADD of an EnvoyFilter is ignored for routes"
        "Patch the virtual host or the listener instead.";
    PATCH_REMOVE = "IST0154" Error "REMOVE of an EnvoyFilter is ignored for routes"
        "Patch the virtual host or the listener instead.";
    PATCH_ORDER_AND_VERSION = "IST0155" Warning "a relative patch of an EnvoyFilter depends on the order of EnvoyFilters and on versions"
        "Set a priority.";
    NO_LOG_PROVIDER = "IST0157" Warning "an access log of a Telemetry has no provider"
        "Name a provider, or set defaultProviders.accessLogging in the mesh file.";
    TELEMETRY_OVERLAP = "IST0159" Error "several Telemetries choose the same workload"
        "Make the selectors of the Telemetries differ.";
    TELEMETRY_TWICE = "IST0160" Error "a namespace has several Telemetries without a selector"
        "Keep one, or give the others a selector.";
    GATEWAY_CREDENTIAL = "IST0161" Error "the secret of a server has no usable certificate and key"
        "Put a certificate in PEM and its key into the Secret: tls.crt and tls.key, or cert and key.";
    PORT_NOT_ON_SERVICE = "IST0162" Warning "the Service of the gateway does not have the port of a server"
        "Add the port to the Service, or use one that it has.";
    INTERNAL_GATEWAY = "IST0165" Warning "a VirtualService names what Istio makes of a Gateway of the Gateway API"
        "Attach an HTTPRoute to the Gateway of the Gateway API instead.";
    SELECTOR_WITHOUT_EFFECT = "IST0166" Warning "a selector has no effect on gateways of the Gateway API"
        "Name the Gateway in targetRefs instead.";
    POLICY_WITHOUT_EFFECT = "IST0167" Warning "a policy has no effect on the workloads it chooses"
        "Remove it, or take the workloads out of ambient mode.";
    NEGATIVE_CONDITION = "IST0171" Warning "the status of an object says that something is wrong"
        "The condition says what is wrong.";
    SUBSET_WITHOUT_PODS = "IST0173" Error "a subset chooses no Pod"
        "Compare the labels of the subset with those of the Pods.";
    UNKNOWN_RULE_HOST = "IST0174" Warning "a DestinationRule is for a host that does not exist"
        "Correct the host, or add its Service or ServiceEntry.";
    KEYS_FROM_ANYWHERE = "IST0175" Warning "istiod fetches keys of tokens from any address"
        "Set BLOCKED_CIDRS_IN_JWKS_URIS for istiod.";
    GATEWAY_API_TOO_OLD = "IST0176" Warning "a kind of the Gateway API is too old"
        "Install a newer release of the Gateway API.";
    PROTOCOL_CONFLICT = "IST0177" Warning "ServiceEntries give one port of one host several protocols"
        "Give the port one protocol everywhere.";

    SETTINGS = "LIM0001" Error "the settings file cannot be read or holds a wrong value"
        "Correct the settings file.";
    SETTINGS_UNKNOWN = "LIM0002" Warning "the settings file holds a key that does not exist"
        "Check the spelling of the key; it is ignored.";
    SETTINGS_KEPT = "LIM0003" Error "the settings are wrong; the last good ones stay in force"
        "Correct the settings file.";
    SYNTAX = "LIM0010" Error "a document is not YAML or JSON"
        "Correct the document; what it held before stays in force.";
    UNREADABLE = "LIM0011" Error "a file or folder cannot be read"
        "Look at its path and its permissions.";
    WRONG_TYPE = "LIM0012" Error "a value has the wrong type, or a field that is needed is missing"
        "Write the value as the message says.";
    UNKNOWN_FIELD = "LIM0013" Warning "a field does not exist in its kind"
        "Check its spelling and its indentation; it is ignored.";
    UNDEFINED_VARIABLE = "LIM0014" Error "`${NAME}` is not among the variables of the settings"
        "Set it in [source] variables, or with --variable.";
    KEPT_LAST_GOOD = "LIM0015" Warning "the last good version of an object stays in force"
        "Correct the faults of the object.";
    UNKNOWN_KIND = "LIM0016" Warning "the kind of an object is not known"
        "Check apiVersion and kind; the object is ignored.";
    KIND_NOT_IN_FORCE = "LIM0017" Warning "the kind is known, but it does nothing yet";
    KIND_IGNORED = "LIM0018" Info "the kind means nothing to a gateway";
    DUPLICATE_OBJECT = "LIM0019" Error "two objects have one kind, namespace and name; the first is in force"
        "Remove one of the two, or rename it.";
    SECRET_VALUE = "LIM0020" Error "a value of a Secret cannot be decoded"
        "Write base64 under data, or plain text under stringData.";
    CERTIFICATE_FILE = "LIM0021" Error "a certificate, key or CA file cannot be read"
        "Look at its path, its permissions and whether it is PEM.";
    FIELD_NOT_IN_FORCE = "LIM0022" Warning "the field is known, but it does nothing yet";
    MESH_NOT_IN_FORCE = "LIM0023" Info "a mesh setting that does nothing here";
    DUPLICATE_HOST = "LIM0024" Warning "two servers of one port have the same host; the first is in force"
        "Give each host of a port to one server.";

    RULE_SPOILED = "LIM0030" Error "a rule cannot do what it asks for and answers 500, or its match cannot be read and is left out"
        "Correct the rule; its requests get 500 until then.";
    SERVER_SKIPPED = "LIM0031" Error "a server cannot share its port with an earlier one and is left out"
        "Use another port, or the protocol of the earlier server.";
    SERVER_NOT_IN_FORCE = "LIM0032" Error "connections to a server are closed, because its kind is not in force yet";
    CERTIFICATE_DATE = "LIM0033" Warning "a certificate has expired or is not valid yet; it is served nevertheless"
        "Renew the certificate.";
    CLIENT_CREDENTIAL = "LIM0034" Error "the credential for TLS to a destination is missing or unusable; requests to it fail"
        "Add the Secret or the file that the DestinationRule names.";
    DELEGATE_MISSING = "LIM0035" Error "a delegate cannot be used; the rule that names it is left out"
        "Correct the name of the delegate, or add it.";
    ENDPOINT_ADDRESS = "LIM0036" Error "an endpoint has no usable address and is left out"
        "Write an IP address or a host name.";
    OPERATOR_WITHOUT_VALUE = "LIM0037" Warning "a header value holds an operator that has no value yet";
    SUBSET_WITHOUT_ENDPOINTS = "LIM0038" Warning "no endpoint has the labels of a subset; requests to it fail"
        "Compare the labels of the subset with those of the endpoints.";
    SERVER_WITHOUT_ROUTE = "LIM0039" Warning "no route is for a server that is not HTTP; it takes no connections";
    NO_ORIGINAL_DESTINATION = "LIM0040" Warning "a ServiceEntry has resolution NONE, which means nothing on a gateway; requests to it fail"
        "Write STATIC, DNS or DYNAMIC_DNS; a gateway's clients ask for no address but its own.";
    LOG_FORMAT = "LIM0041" Error "the format of an access log cannot be read; Istio's default is written";
    LOG_FILTER = "LIM0042" Error "the filter of an access log cannot be read; every line is written";
    LOG_PROVIDER = "LIM0043" Warning "a provider of access logs does not exist or is not served";
    SERVER_TLS = "LIM0045" Error "the TLS settings of a server cannot work; its connections are closed";
    NO_IDENTITY = "LIM0050" Warning "endpoints take mutual TLS and are spoken to in plaintext, because we have no certificate in the mesh"
        "Name our certificate in [identity] of the settings, or set enableAutoMtls: false in the mesh file.";
    NO_ACCOUNT = "LIM0051" Info "the identities of a destination in the mesh are not known; every certificate of the mesh is accepted"
        "Add its Pods, the serviceAccount of its endpoints, or subjectAltNames.";
    TICKET_KEYS = "LIM0054" Error "the secrets of session tickets cannot be used; sessions are resumed at the process that began them alone"
        "Write one secret of at least 32 characters in each line, such as `openssl rand -base64 48` makes.";

    HOST_NOT_SERVED = "LIM0060" Warning "no server serves one of the hosts of a VirtualService"
        "Add the host to a server of a Gateway, or remove it from the VirtualService.";
    SHADOWED_RULE = "LIM0061" Warning "a rule can never be reached: an older VirtualService of the host takes its requests"
        "Narrow the older rule, or put the rules into one VirtualService in the order you mean.";
    PASSTHROUGH_COVERED = "LIM0062" Warning "one port passes a host through and ends TLS for a wildcard that covers it, or the reverse"
        "Use another port or address, or certificates that do not cover each other's hosts.";
    CERTIFICATE_CONFLICT = "LIM0063" Warning "one host has different certificates on one port"
        "Give the host one certificate, or name several in credentialNames of one server.";
    COALESCED_POLICY = "LIM0064" Warning "browsers may reuse a connection for a host with other rules for clients' certificates"
        "Use certificates that do not cover each other's hosts, another address, or the same TLS mode.";

    CERTIFICATE_KEPT = "LIM0070" Error "the new version of a certificate or CA cannot be used; the last good one stays in force";
    CERTIFICATE_CHAIN = "LIM0071" Warning "the chain of a certificate is not whole, not in order, or holds what is no part of it";
    KEY_READABLE = "LIM0072" Warning "everybody on the machine may read a private key"
        "Take the rights of others from the file: chmod 600.";

    NEVER_UPDATED = "LIM0073" Warning "a certificate file is mounted with subPath and stays as it is, whatever becomes of its Secret"
        "Mount the whole volume, and name the files in it.";
    IDENTITY_SOURCE = "LIM0074" Warning "the source of our identity in the mesh fails"
        "See [identity] of the settings, and whether the source runs and knows this workload; it is asked again by itself.";
    IDENTITY_LATE = "LIM0075" Warning "our certificate in the mesh ends soon, or has ended, and was not renewed"
        "See why its source gives no new one.";
    LONE_CERTIFICATE = "LIM0076" Info "certificates are sent without that of their issuer, which clients have to know"
        "If the issuer is an intermediate authority, append its certificate.";
    IDENTITY_AWAITED = "LIM0077" Error "our identity in the mesh is needed and not there yet; what needs it fails until it comes"
        "See LIM0074 for what its source says.";
    CERTIFICATE_ENDS = "LIM0078" Warning "a certificate ends within 30, 7 or 1 days and was not renewed; limits beyond a quarter of its life do not count"
        "Renew it, or see in `limani certs` why it was not renewed.";
    CERTIFICATE_NAMES = "LIM0079" Warning "no certificate of a server is for one of its hosts, so that clients refuse it there"
        "Have a certificate issued for the host too; only subject alternative names count.";

    CERTIFICATE_AWAITED = "LIM0080" Info "a certificate is being issued; until it is there, handshakes of its names fail"
        "Wait; `limani certs` tells how it goes, and why it does not.";
    NOT_ISSUABLE = "LIM0081" Error "a certificate cannot be ordered, as no issuer could be shown that the name is ours"
        "Let one of the challenges be used that can prove the name, or name a Secret.";
    UNKNOWN_ISSUER = "LIM0082" Error "a server names an issuer that the settings do not have"
        "Correct the name, or add the issuer to the settings.";
    NAME_NOT_PUBLIC = "LIM0083" Warning "a certificate is ordered from a public CA for a name that is not public"
        "Use `local-ca://`, or a CA of your own.";
    ISSUERS_DIFFER = "LIM0084" Warning "two servers order a certificate for one host from different issuers; the first is in force"
        "Name one issuer for the host.";
    CHALLENGE_PORT = "LIM0085" Warning "the CA cannot look whether a name is ours, since no server has the port that it asks"
        "Add a server for port 80 or 443, let `[acme] listen_http` open port 80, or prove names by DNS.";

    NOT_BOUND = "LIM0090" Error "an address cannot be bound; its listener is not in force"
        "See what else listens there, and whether the port needs a privilege.";
    INTERNAL = "LIM0091" Error "a fault of the gateway itself stopped a reload"
        "Please report it; what was in force stays in force.";
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    /// The list of docs/findings.md.
    fn list() -> String {
        let mut list = String::from("| code | severity | meaning | what to do |\n|---|---|---|---|\n");
        for code in ALL {
            let (id, severity, meaning, help) = (code.id, code.severity, code.meaning, code.help);
            writeln!(list, "| {id} | {severity} | {meaning} | {help} |").unwrap();
        }
        list
    }

    /// `UPDATE_DOCS=1 cargo test --lib codes` writes the list anew.
    #[test]
    fn the_documentation_lists_every_code() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings.md");
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, _) = text.split_once("| code |").expect("the page has a list of codes");
        let meant = format!("{before}{}", list());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, meant).unwrap();
        } else {
            assert!(text == meant, "docs/findings.md is old; UPDATE_DOCS=1 cargo test --lib codes writes it anew");
        }
    }

    #[test]
    fn codes_stand_once_and_in_order() {
        let ids: Vec<_> = ALL.iter().map(|code| code.id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
